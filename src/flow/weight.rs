//! A weight between Burn's float tensor and the logical `[N, K]` matrix.

use super::layer::Layer;
use crate::backend::{FloatPrimitive, Label, QTensor, Quantized, Storage};
use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::kernels::dtypes::float_dtype;
use crate::kernels::{Expected, Portable, QuantKernels};
use crate::tensor::AffineQuantizedTensor;
use burn::module::Param;
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, TensorData, read_sync};
use burn_std::DType;

/// What a parameter holds now.
pub(crate) enum Held<B: Backend, K: QuantKernels<B>> {
    /// A float tensor of the inner backend.
    Float(FloatTensor<B>),
    /// A quantized tensor at rest.
    Quantized(QTensor<B, K>),
    /// A quantized tensor that was dequantized lazily.
    Packed(QTensor<B, K>),
}

pub(crate) fn held<B: Backend, K: QuantKernels<B>, const D: usize>(tensor: Tensor<Quantized<B, K>, D>) -> Held<B, K> {
    match tensor.into_primitive() {
        TensorPrimitive::Float(FloatPrimitive::Dense(tensor)) => Held::Float(tensor),
        TensorPrimitive::Float(FloatPrimitive::Packed(tensor)) => Held::Packed(tensor),
        TensorPrimitive::QFloat(tensor) => Held::Quantized(tensor),
    }
}

/// A float weight on the host, read as `[N, K]`.
pub(crate) struct HostWeight {
    pub(crate) values: Vec<f32>,
    pub(crate) dtype: FloatDtype,
    pub(crate) shape: [usize; 2],
}

impl HostWeight {
    /// Reads a weight of rank 2. Errors: a NaN or an infinity, named by layer and by flat index as Burn lays the weight out.
    pub(crate) fn read<B: Backend>(tensor: FloatTensor<B>, layer: &Layer) -> Result<Self> {
        let shape @ [n, k] = layer.logical_shape();
        // The device transposes while it copies, so that the weight stands in memory once more; a plain copy may take two.
        let tensor = if layer.transposed() {
            B::float_transpose(tensor)
        } else {
            tensor
        };
        let data = read(B::float_into_data(tensor), layer)?;
        let dtype = float_dtype(data.dtype);
        let values = match data.dtype {
            DType::F32 => data.into_vec().expect("f32 data holds f32 values"),
            _ => data.iter::<f32>().collect::<Vec<f32>>(),
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(Self { values, dtype, shape }),
            Some(at) => {
                let index = if layer.transposed() { at % k * n + at / k } else { at };
                Err(not_finite(layer, index, values[at]))
            }
        }
    }

    /// `10 · log10(Σ w² / Σ (w − ŵ)²)` against a quantized weight; infinite where they are equal.
    pub(crate) fn sqnr_db(&self, quantized: &AffineQuantizedTensor) -> f64 {
        let (mut signal, mut noise) = (0.0, 0.0);
        let mut values = self.values.iter();
        quantized.dequantize_pieces(self.dtype, |quantized| {
            for (q, w) in quantized.iter().zip(&mut values) {
                let (w, q) = (*w as f64, *q as f64);
                signal += w * w;
                noise += (w - q) * (w - q);
            }
        });
        10.0 * (signal / noise).log10()
    }
}

fn not_finite(layer: &Layer, index: usize, value: f32) -> QuantError {
    QuantError::NonFinite {
        what: format!("the weight of layer `{}`", layer.path),
        index,
        value: value.to_string(),
    }
}

/// Waits for data of the device.
pub(crate) fn read(
    future: impl Future<Output = core::result::Result<TensorData, burn_backend::ExecutionError>>,
    layer: &Layer,
) -> Result<TensorData> {
    read_sync(future).map_err(|error| QuantError::Layer {
        layer: layer.path.clone(),
        reason: format!("its data cannot be read from the device: {error}"),
    })
}

impl Layer {
    pub(crate) fn label(&self) -> Label {
        Label {
            path: self.path.clone(),
            container: self.container.clone(),
        }
    }
}

/// The name that a report prints for the kernel of a packed weight at one row.
pub(crate) fn kernel_name<B: Backend, K: QuantKernels<B>>(tensor: &QTensor<B, K>) -> Option<String> {
    tensor.packed().map(|packed| match &packed.storage {
        Storage::Kernel(weight) => K::kernel_name(weight, 1),
        Storage::Portable(_) => PORTABLE.into(),
    })
}

/// What a report says of a packed weight like this one, but of `outputs` channels.
pub(crate) fn expected<B: Backend, K: QuantKernels<B>>(tensor: &QTensor<B, K>, outputs: usize) -> Expected {
    let Some(packed) = tensor.packed() else {
        return Expected::Faster;
    };
    match (&packed.storage, &packed.refusal) {
        (Storage::Kernel(weight), _) => K::expected(weight, outputs),
        (Storage::Portable(_), Some(reason)) => Expected::Mixed(format!("no kernel serves it: {reason}")),
        (Storage::Portable(weight), None) => <Portable as QuantKernels<B>>::expected(weight, outputs),
    }
}

/// What a report notes of a layer that was quantized.
pub(crate) fn note(expected: Expected) -> Option<String> {
    match expected {
        Expected::Faster => None,
        Expected::Mixed(note) | Expected::Slower(note) => Some(note),
    }
}

/// The name of the products that expand a panel of the weight at a time.
pub(crate) const PORTABLE: &str = "portable";

/// A parameter over a quantized tensor that keeps `old`'s id and mappers, and whose save mapper turns a lazily dequantized weight back
/// into its codes, so that a forked or detached module still saves them.
pub(crate) fn quantized_param<B: Backend, K: QuantKernels<B>, const D: usize>(
    old: Param<Tensor<Quantized<B, K>, D>>,
    tensor: QTensor<B, K>,
) -> Param<Tensor<Quantized<B, K>, D>> {
    let (id, _, mapper) = old.consume();
    let save = mapper.clone();
    let tensor = Tensor::from_primitive(TensorPrimitive::QFloat(tensor));
    Param::from_mapped_value(id, tensor, mapper).save_mapper(move |tensor| save.on_save(at_rest(tensor)))
}

/// A lazily dequantized weight as the quantized tensor that it is; every other tensor as it came.
pub(crate) fn at_rest<B: Backend, K: QuantKernels<B>, const D: usize>(
    tensor: Tensor<Quantized<B, K>, D>,
) -> Tensor<Quantized<B, K>, D> {
    match tensor.into_primitive() {
        TensorPrimitive::Float(FloatPrimitive::Packed(tensor)) => {
            Tensor::from_primitive(TensorPrimitive::QFloat(tensor))
        }
        other => Tensor::from_primitive(other),
    }
}
