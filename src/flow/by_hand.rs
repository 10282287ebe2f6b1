//! The by-hand path: a quantized weight that a user puts into a `Param` themselves.

use super::layer::Layer;
use super::weight::{Held, HostWeight, held};
use crate::backend::{QTensor, Quantized};
use crate::error::{QuantError, Result};
use crate::kernels::QuantKernels;
use crate::kernels::dtypes::burn_dtype;
use crate::spec::{ActivationQuantization, AffineSpec};
use crate::tensor::AffineQuantizedTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::Backend;

/// Quantizes a `Linear` weight `[K, N]`; `spec` reads it as `[N, K]`, so that `PerRow(-1)` is a scale an output channel and groups run along K.
///
/// Source: torchao `to_affine_quantized_intx`. Errors: a spec that does not fit, NaN or infinity, a tensor that is quantized already.
///
/// ```
/// use burn::{module::Param, nn::LinearConfig, tensor::Tensor};
/// use burn_quantized::dtype::IntDtype;
/// use burn_quantized::flow::{to_affine_quantized_intx, to_linear_activation_quantized};
/// use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType};
/// type B = burn_quantized::Quantized<burn_flex::Flex>;
///
/// # fn main() -> burn_quantized::Result<()> {
/// let mut linear = LinearConfig::new(64, 32).init::<B>(&Default::default());
/// let spec = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerRow(-1));
/// let weight = to_affine_quantized_intx(linear.weight.val(), &spec)?;
/// let weight = to_linear_activation_quantized(weight, ActivationQuantization::int8_dynamic(ActivationScale::PerToken))?;
/// linear.weight = Param::from_tensor(weight);
/// let y = linear.forward(Tensor::<B, 2>::ones([4, 64], &Default::default()));
/// assert_eq!(y.dims(), [4, 32]);
/// # Ok(()) }
/// ```
pub fn to_affine_quantized_intx<B: Backend, K: QuantKernels<B>>(
    weight: Tensor<Quantized<B, K>, 2>,
    spec: &AffineSpec,
) -> Result<Tensor<Quantized<B, K>, 2>> {
    let layer = Layer {
        path: String::new(),
        container: String::new(),
        shape: weight.dims().to_vec(),
    };
    let Held::Float(tensor) = held(weight) else {
        return Err(QuantError::InvalidSpec("the weight is quantized already".into()));
    };
    let device = B::float_device(&tensor);
    let weight = HostWeight::read::<B>(tensor, &layer)?;
    let quantized = AffineQuantizedTensor::quantize(&weight.values, weight.dtype, &weight.shape, spec)?;
    let tensor = QTensor::<B, K>::from_weight(
        quantized,
        ActivationQuantization::None,
        layer.label(),
        layer.transposed(),
        device,
        burn_dtype(weight.dtype),
    );
    Ok(Tensor::from_primitive(TensorPrimitive::QFloat(tensor)))
}

/// Puts a treatment of activations on a quantized weight.
///
/// Source: torchao `to_linear_activation_quantized`. Errors: a weight that is not quantized, or is under calibration.
pub fn to_linear_activation_quantized<B: Backend, K: QuantKernels<B>>(
    weight: Tensor<Quantized<B, K>, 2>,
    activation: ActivationQuantization,
) -> Result<Tensor<Quantized<B, K>, 2>> {
    let (Held::Quantized(tensor) | Held::Packed(tensor)) = held(weight) else {
        return Err(QuantError::InvalidSpec(
            "the weight is a float tensor: quantize it first".into(),
        ));
    };
    let Some(packed) = tensor.packed() else {
        return Err(QuantError::InvalidSpec(
            "the weight holds no codes: convert the calibration first".into(),
        ));
    };
    let (weight, label) = (packed.unpack::<B, K>(), packed.label.clone());
    let tensor = QTensor::<B, K>::from_weight(
        weight,
        activation,
        label,
        tensor.transposed,
        tensor.device,
        tensor.dtype,
    );
    Ok(Tensor::from_primitive(TensorPrimitive::QFloat(tensor)))
}
