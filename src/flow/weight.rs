//! A weight between Burn's float tensor and the logical `[N, K]` matrix.

use super::layer::Layer;
use crate::backend::{FloatPrimitive, Label, QTensor, Quantized, Storage};
use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::kernels::QuantKernels;
use crate::kernels::dtypes::float_dtype;
use burn::module::Param;
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, TensorData, read_sync};

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
    /// Reads a weight of rank 2. Errors: as [`finite_values`].
    pub(crate) fn read<B: Backend>(tensor: FloatTensor<B>, layer: &Layer) -> Result<Self> {
        let (values, dtype) = finite_values::<B>(tensor, layer)?;
        let shape @ [n, k] = layer.logical_shape();
        let values = if layer.transposed() {
            transpose(&values, k, n)
        } else {
            values
        };
        Ok(Self { values, dtype, shape })
    }

    /// `10 · log10(Σ w² / Σ (w − ŵ)²)` against a dequantized weight; infinite where they are equal.
    pub(crate) fn sqnr_db(&self, quantized: &[f32]) -> f64 {
        let pairs = self.values.iter().zip(quantized).map(|(w, q)| (*w as f64, *q as f64));
        let (signal, noise) = pairs.fold((0.0, 0.0), |(signal, noise), (w, q)| {
            (signal + w * w, noise + (w - q) * (w - q))
        });
        10.0 * (signal / noise).log10()
    }
}

/// The values of a weight as Burn lays them out. Errors: NaN or infinity, named by layer and flat index.
pub(crate) fn finite_values<B: Backend>(tensor: FloatTensor<B>, layer: &Layer) -> Result<(Vec<f32>, FloatDtype)> {
    let data = read(B::float_into_data(tensor), layer)?;
    let values: Vec<f32> = data.iter::<f32>().collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok((values, float_dtype(data.dtype))),
        Some(index) => Err(QuantError::NonFinite {
            what: format!("the weight of layer `{}`", layer.path),
            index,
            value: values[index].to_string(),
        }),
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

/// A `rows × cols` matrix as `cols × rows`, in tiles that stay in the cache.
fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..cols).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for col in left..cols.min(left + TILE) {
                    out[col * rows + row] = values[row * cols + col];
                }
            }
        }
    }
    out
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
