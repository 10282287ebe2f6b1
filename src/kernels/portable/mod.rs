//! Products in a backend's own tensor operations: they serve every backend, one from another crate too.
//!
//! A weight stays packed on the host. A product expands a panel of at most [`PANEL_ELEMENTS`] codes at a time to floats, sends it to
//! the device and multiplies it with `B`'s float product, so the whole matrix never exists as floats.
//! [`expanded`](crate::kernels::expanded) counts what was written.

mod activation;
mod linear;
mod ops;
mod panel;

use crate::kernels::{Expected, Portable, QuantKernels, Unsupported};
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::Backend;
use burn_backend::tensor::{FloatTensor, IntTensor};
use burn_std::FloatDType;

pub use panel::PANEL_ELEMENTS;

/// A weight as quantized, with the treatment of its activations.
#[derive(Clone, Debug)]
pub struct PortableWeight {
    /// Codes, scales and zero points; `[N, K]` for a matrix.
    pub weight: AffineQuantizedTensor,
    /// What happens to an activation first.
    pub activation: ActivationQuantization,
}

/// Integer products are exact and equal to those of every other kernel family; the float epilogue follows the written order, with one
/// backend operation a step. A backend that contracts a product and a sum into one rounding may differ in the last place there.
impl<B: Backend> QuantKernels<B> for Portable {
    type Weight = PortableWeight;

    fn pack(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        _device: &B::Device,
    ) -> Result<PortableWeight, Box<Unsupported>> {
        if weight.shape().len() == 2 {
            return Ok(PortableWeight { weight, activation });
        }
        let reason = format!("a product needs a matrix [N, K], got shape {:?}", weight.shape());
        Err(Box::new(Unsupported { weight, reason }))
    }

    fn unpack(weight: &PortableWeight) -> AffineQuantizedTensor {
        weight.weight.clone()
    }

    fn bytes(weight: &PortableWeight) -> usize {
        weight.weight.bytes()
    }

    fn expected(_weight: &PortableWeight, _outputs: usize) -> Expected {
        Expected::Mixed("slower than float at every batch: a panel of codes becomes floats in each call".into())
    }

    fn kernel_name(_weight: &PortableWeight, _rows: usize) -> String {
        "portable".into()
    }

    fn linear(x: FloatTensor<B>, weight: &PortableWeight, bias: Option<FloatTensor<B>>) -> FloatTensor<B> {
        linear::linear::<B>(x, weight, bias)
    }

    fn linear_transposed(g: FloatTensor<B>, weight: &PortableWeight) -> FloatTensor<B> {
        linear::linear_transposed::<B>(g, &weight.weight)
    }

    fn gather(weight: &PortableWeight, indices: IntTensor<B>, dtype: FloatDType) -> FloatTensor<B> {
        linear::gather::<B>(&weight.weight, indices, dtype)
    }
}
