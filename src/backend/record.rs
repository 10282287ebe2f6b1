//! A packed weight to and from `TensorData`, the form that every recorder of Burn stores.

use super::carrier::carrier;
use super::{Label, QTensor};
use crate::error::{QuantError, Result};
use crate::kernels::QuantKernels;
use crate::kernels::dtypes::{burn_dtype, float_dtype};
use crate::tensor::payload::Payload;
use burn_backend::tensor::Device;
use burn_backend::{Backend, TensorData};
use burn_std::quantization::QuantScheme;
use burn_std::{DType, Shape};

/// The scheme that Burn sees for a payload of `length` bytes in a tensor of `shape`, and the padded length.
///
/// A tensor too small for any carrier gets the default scheme and no padding: recorders keep it, burnpack refuses it with an error of its own.
pub(crate) fn carrier_or_default(shape: &Shape, length: usize) -> (QuantScheme, usize) {
    carrier(shape, length).unwrap_or((QuantScheme::default(), length))
}

/// Whether a payload of `length` bytes fits a record of a tensor of `shape` in every format.
pub(crate) fn fits(shape: &Shape, length: usize) -> bool {
    carrier(shape, length).is_some()
}

/// The payload of a packed weight; `None` for an observed or dense body.
pub(crate) fn payload<B: Backend, K: QuantKernels<B>>(tensor: &QTensor<B, K>) -> Option<Payload> {
    let packed = tensor.packed()?;
    Some(Payload {
        weight: packed.unpack::<B, K>(),
        activation: packed.activation,
        path: packed.label.path.clone(),
        container: packed.label.container.clone(),
        transposed: tensor.transposed,
        dtype: float_dtype(tensor.dtype.into()),
    })
}

/// The data that a recorder stores for a packed weight; `None` for an observed or dense body.
pub(crate) fn to_data<B: Backend, K: QuantKernels<B>>(tensor: &QTensor<B, K>) -> Option<TensorData> {
    let payload = payload(tensor)?;
    let (scheme, length) = carrier_or_default(&tensor.shape, payload.encoded_len());
    let mut bytes = payload.encode();
    bytes.resize(length, 0);
    Some(TensorData::from_bytes_vec(
        bytes,
        tensor.shape.clone(),
        DType::QFloat(scheme),
    ))
}

/// Reads what [`to_data`] wrote; `None` when the bytes are no payload of this crate.
pub(crate) fn from_data<B: Backend, K: QuantKernels<B>>(
    data: &TensorData,
    device: &Device<B>,
) -> Option<Result<QTensor<B, K>>> {
    Payload::is_payload(&data.bytes).then(|| {
        let payload = Payload::decode(&data.bytes)?;
        let mut shape = payload.weight.shape().to_vec();
        let rank = shape.len();
        if payload.transposed && rank >= 2 {
            shape.swap(rank - 2, rank - 1);
        }
        let got: Vec<usize> = data.shape.iter().copied().collect();
        let lead = got.len().saturating_sub(rank);
        if got[lead..] != shape || got[..lead].iter().any(|dim| *dim != 1) {
            return Err(QuantError::Record {
                layer: payload.path,
                field: "shape",
                reason: format!("the weight is {shape:?}, the record says {got:?}"),
            });
        }
        let label = Label {
            path: payload.path,
            container: payload.container,
        };
        let dtype = burn_dtype(payload.dtype);
        let mut tensor = QTensor::from_weight(
            payload.weight,
            payload.activation,
            label,
            payload.transposed,
            device.clone(),
            dtype,
        );
        tensor.shape = data.shape.clone();
        if let DType::QFloat(scheme) = data.dtype {
            tensor.scheme = scheme;
        }
        Ok(tensor)
    })
}
