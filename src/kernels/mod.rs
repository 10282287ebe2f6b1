//! Making it fast: what a backend must bring to run a quantized layer, and who brings it.

pub mod portable;

pub mod cpu;

#[cfg(feature = "cube")]
#[allow(
    clippy::assign_op_pattern,
    clippy::duplicate_underscore_argument,
    clippy::manual_is_multiple_of,
    reason = "device code knows only some of what Rust's integers and vectors have"
)]
pub mod cube;

pub(crate) mod dtypes;

mod expected;

mod unsupported;

#[cfg(all(test, any(feature = "flex", feature = "ndarray")))]
#[path = "cpu/tests/glue.rs"]
mod glue;

#[cfg(feature = "flex")]
#[path = "cpu/flex.rs"]
mod flex;

#[cfg(feature = "ndarray")]
#[path = "cpu/ndarray.rs"]
mod ndarray;

#[cfg(feature = "cube")]
#[path = "cube/backend.rs"]
mod cube_backend;

#[cfg(feature = "fusion")]
#[path = "cube/fusion.rs"]
mod cube_fusion;

pub use crate::primitives::expanded;
pub use expected::Expected;
pub use unsupported::Unsupported;

use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::Backend;
use burn_backend::tensor::{FloatTensor, IntTensor};

/// The kernels written for a backend of Burn's own (`Quantized<Flex>` is short for `Quantized<Flex, Native>`).
#[derive(Clone, Copy, Default, Debug)]
pub struct Native;

/// Kernels in a backend's own tensor operations: they serve every backend, at the speed of its float product or below.
#[derive(Clone, Copy, Default, Debug)]
pub struct Portable;

/// The fused operations on packed weights that [`Quantized`](crate::Quantized) runs for a backend `B`.
///
/// A weight is a logical `[N, K]` matrix, whatever its orientation in Burn. Rows of an activation are its leading dims flattened.
pub trait QuantKernels<B: Backend>: Clone + Copy + Default + core::fmt::Debug + Send + Sync + 'static {
    /// A weight packed for these kernels: the one copy of its codes.
    type Weight: Clone + core::fmt::Debug + Send + Sync + 'static;

    /// Whether reading a tensor on the host waits for nothing: the backend computes in host memory, when an operation is called.
    /// Calibration then looks at the values there; elsewhere it leaves statistics on the device until they are asked for.
    const READS_ARE_FREE: bool = false;

    /// Packs a rank-2 `[N, K]` weight that meets activations treated as `activation` says.
    fn pack(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        device: &B::Device,
    ) -> Result<Self::Weight, Box<Unsupported>>;

    /// The weight as it was before [`QuantKernels::pack`], bit for bit.
    fn unpack(weight: &Self::Weight) -> AffineQuantizedTensor;

    /// Bytes of the weight at rest: those of [`QuantKernels::unpack`], which the default asks.
    fn bytes(weight: &Self::Weight) -> usize {
        Self::unpack(weight).bytes()
    }

    /// How the product with a weight packed like this one, but of `outputs` channels, compares with `B`'s float product.
    fn expected(_weight: &Self::Weight, _outputs: usize) -> Expected {
        Expected::Faster
    }

    /// The name of the kernel that serves `rows` rows of activations, as reports print it.
    fn kernel_name(weight: &Self::Weight, rows: usize) -> String;

    /// `y[.., N] = x[.., K] · Wᵀ + bias`, in the dtype of `x`.
    fn linear(x: FloatTensor<B>, weight: &Self::Weight, bias: Option<FloatTensor<B>>) -> FloatTensor<B>;

    /// `y[.., K] = g[.., N] · W`: the gradient with respect to the input, or a product with the transposed weight.
    /// The activation treatment does not apply.
    fn linear_transposed(g: FloatTensor<B>, weight: &Self::Weight) -> FloatTensor<B>;

    /// `y[.., K]`: the dequantized rows `indices[..]` of the weight, in `dtype`.
    fn gather(weight: &Self::Weight, indices: IntTensor<B>, dtype: burn_std::FloatDType) -> FloatTensor<B>;
}
