//! Burn's own quantized data: 8, 4 or 2 bit symmetric integers, one scale a tensor or one for each run of elements.

use super::{Label, QTensor};
use crate::dtype::{FloatDtype, IntDtype};
use crate::kernels::QuantKernels;
use crate::primitives::ZeroPoints;
use crate::spec::ActivationQuantization;
use crate::tensor::{AffineParts, AffineQuantizedTensor};
use burn_backend::quantization::QuantizedBytes;
use burn_backend::tensor::Device;
use burn_backend::{Backend, TensorData, get_device_settings};
use burn_std::DType;
use burn_std::quantization::{QuantLevel, QuantStore, QuantValue};

/// Reads data of a scheme of Burn's. A matrix becomes a logical `[N, K]`: Burn's `Linear` stores `[K, N]`.
///
/// # Panics
/// If the data is not quantized, has values that are no integers, or does not hold what its scheme says.
pub(super) fn from_data<B: Backend, K: QuantKernels<B>>(data: TensorData, device: &Device<B>) -> QTensor<B, K> {
    let DType::QFloat(scheme) = data.dtype else {
        panic!("q_from_data: expected quantized data, got {:?}", data.dtype)
    };
    let shape: Vec<usize> = data.shape.iter().copied().collect();
    let Some((dtype, quant_min, quant_max)) = codes_of(scheme.value) else {
        panic!(
            "q_from_data: {:?} values of a tensor {shape:?} are not integers",
            scheme.value
        )
    };
    let num_elements = data.num_elements();
    let bytes = data.into_bytes();
    let (values, qparams) = QuantizedBytes {
        bytes,
        scheme,
        num_elements,
    }
    .into_vec_i8();
    let codes: Vec<i32> = values.into_iter().map(i32::from).collect();
    let flat = match scheme.level {
        QuantLevel::Tensor => vec![1, num_elements],
        QuantLevel::Block(block) => vec![num_elements / block.num_elements(), block.num_elements()],
    };
    let parts = AffineParts {
        block_size: vec![1, flat[1].max(1)],
        shape: flat,
        dtype,
        quant_min,
        quant_max,
        scale: qparams.scales,
        scale_dtype: FloatDtype::F32,
        zero_point: ZeroPoints::None,
        zero_point_dtype: FloatDtype::F32,
    };
    let transposed = shape.len() == 2;
    let weight = AffineQuantizedTensor::from_codes(parts, &codes)
        .and_then(|weight| weight.reshape(&shape))
        .and_then(|weight| if transposed { weight.transpose() } else { Ok(weight) })
        .unwrap_or_else(|error| panic!("q_from_data: {scheme:?} over {shape:?}: {error}"));
    let float_dtype = get_device_settings::<B>(device).float_dtype;
    let (activation, label) = (ActivationQuantization::None, Label::default());
    let mut tensor = QTensor::from_weight(weight, activation, label, transposed, device.clone(), float_dtype);
    (tensor.scheme, tensor.stock) = (scheme.with_store(QuantStore::Native), true);
    tensor
}

/// The data that Burn's own backends give for a [stock](QTensor::stock) tensor; `None` for any other.
pub(super) fn to_data<B: Backend, K: QuantKernels<B>>(tensor: &QTensor<B, K>) -> Option<TensorData> {
    let weight = tensor.stock.then(|| tensor.weight()).flatten()?;
    let codes: Vec<i8> = weight.codes().into_iter().map(|code| code as i8).collect();
    let scale = &weight.parts().scale;
    let scales: Vec<f32> = match tensor.scheme.level {
        QuantLevel::Tensor => vec![scale.first().copied().unwrap_or(1.0)],
        QuantLevel::Block(block) => {
            let run = block.num_elements();
            (0..codes.len() / run)
                .map(|at| scale[weight.grid().block_of(at * run)])
                .collect()
        }
    };
    Some(TensorData::quantized(
        codes,
        tensor.shape.clone(),
        tensor.scheme,
        &scales,
    ))
}

/// The dtype and range of Burn's integer values; `None` for its float values.
fn codes_of(value: QuantValue) -> Option<(IntDtype, i32, i32)> {
    match value {
        QuantValue::Q8F => Some((IntDtype::INT8, -128, 127)),
        QuantValue::Q8S => Some((IntDtype::INT8, -127, 127)),
        QuantValue::Q4F => Some((IntDtype::INT4, -8, 7)),
        QuantValue::Q4S => Some((IntDtype::INT4, -7, 7)),
        QuantValue::Q2F => Some((IntDtype::INT2, -2, 1)),
        QuantValue::Q2S => Some((IntDtype::INT2, -1, 1)),
        QuantValue::E4M3 | QuantValue::E5M2 | QuantValue::E2M1 => None,
    }
}
