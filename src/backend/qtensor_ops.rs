//! `QTensorOps`, the decorator's own: codes move, `dequantize` is lazy.
//!
//! Operations that return a `TensorPrimitive` or no quantized tensor keep Burn's defaults: they go through `dequantize`, and the float
//! operation decides.

use super::{Body, FloatPrimitive, QTensor, Quantized, record, stock};
use crate::error::Result;
use crate::kernels::QuantKernels;
use crate::primitives::ZeroPoints;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::ops::QTensorOps;
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_backend::tensor::{Device, FloatTensor, IntTensor, QuantizedTensor};
use burn_backend::{Backend, ExecutionError, TensorData, TensorMetadata, get_device_settings, read_sync};
use burn_std::quantization::QuantScheme;
use burn_std::{FloatDType, IntDType, Shape, Slice};

impl<B: Backend, K: QuantKernels<B>> QTensorOps<Self> for Quantized<B, K> {
    fn q_from_data(data: TensorData, device: &Device<Self>) -> QuantizedTensor<Self> {
        match record::from_data(&data, device) {
            Some(Ok(tensor)) => tensor,
            Some(Err(error)) => panic!("q_from_data: {error}"),
            None => stock::from_data(data, device),
        }
    }

    async fn q_into_data(tensor: QuantizedTensor<Self>) -> core::result::Result<TensorData, ExecutionError> {
        super::reads::add();
        match &*tensor.body {
            Body::Packed(_) => Ok(stock::to_data(&tensor)
                .or_else(|| record::to_data(&tensor))
                .expect("a packed weight has data")),
            Body::Dense(_) => B::float_into_data(tensor.into_dense("q_into_data")).await,
            Body::Observed(_) => {
                panic!("q_into_data: an observed weight has no codes yet: convert or discard the calibration first")
            }
        }
    }

    /// Burn's own quantization, by the inner backend: the same integers.
    fn quantize(
        tensor: FloatTensor<Self>,
        scheme: &QuantScheme,
        qparams: QuantizationParametersPrimitive<Self>,
    ) -> QuantizedTensor<Self> {
        let tensor = tensor.dense("quantize");
        let device = B::float_device(&tensor);
        let scales = qparams.scales.dense("quantize");
        let quantized = B::quantize(tensor, scheme, QuantizationParametersPrimitive { scales });
        adopt::<B, K>(quantized, &device)
    }

    /// Burn's own quantization, by the inner backend: the same integers.
    fn quantize_dynamic(tensor: FloatTensor<Self>, scheme: &QuantScheme) -> QuantizedTensor<Self> {
        let tensor = tensor.dense("quantize_dynamic");
        let device = B::float_device(&tensor);
        adopt::<B, K>(B::quantize_dynamic(tensor, scheme), &device)
    }

    /// Lazy: a packed weight stays packed until an operation needs floats.
    fn dequantize(mut tensor: QuantizedTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        tensor.dtype = dtype;
        match &*tensor.body {
            Body::Dense(_) => FloatPrimitive::Dense(tensor.into_dense("dequantize")),
            _ => FloatPrimitive::Packed(tensor),
        }
    }

    fn q_device(tensor: &QuantizedTensor<Self>) -> Device<Self> {
        tensor.device.clone()
    }

    fn q_to_device(tensor: QuantizedTensor<Self>, device: &Device<Self>) -> QuantizedTensor<Self> {
        tensor.to_device(device)
    }

    fn q_detach(tensor: QuantizedTensor<Self>) -> QuantizedTensor<Self> {
        tensor
    }

    fn q_set_require_grad(tensor: QuantizedTensor<Self>, _require_grad: bool) -> QuantizedTensor<Self> {
        tensor
    }

    fn q_is_require_grad(_tensor: &QuantizedTensor<Self>) -> bool {
        false
    }

    fn q_reshape(tensor: QuantizedTensor<Self>, shape: Shape) -> QuantizedTensor<Self> {
        let dims: Vec<usize> = shape.iter().copied().collect();
        tensor.try_reshape(&shape).unwrap_or_else(|tensor| {
            moved(
                "q_reshape",
                tensor,
                |weight| weight.reshape(&dims),
                |float| B::float_reshape(float, shape),
            )
        })
    }

    fn q_expand(tensor: QuantizedTensor<Self>, shape: Shape) -> QuantizedTensor<Self> {
        let dims: Vec<usize> = shape.iter().copied().collect();
        tensor.try_reshape(&shape).unwrap_or_else(|tensor| {
            moved(
                "q_expand",
                tensor,
                |weight| weight.expand(&dims),
                |float| B::float_expand(float, shape),
            )
        })
    }

    fn q_transpose(tensor: QuantizedTensor<Self>) -> QuantizedTensor<Self> {
        let rank = tensor.shape.num_dims().max(2);
        Self::q_swap_dims(tensor, rank - 2, rank - 1)
    }

    fn q_swap_dims(tensor: QuantizedTensor<Self>, dim1: usize, dim2: usize) -> QuantizedTensor<Self> {
        let mut axes: Vec<usize> = (0..tensor.shape.num_dims()).collect();
        axes.swap(dim1, dim2);
        Self::q_permute(tensor, &axes)
    }

    fn q_permute(tensor: QuantizedTensor<Self>, axes: &[usize]) -> QuantizedTensor<Self> {
        let stock = tensor.stock;
        match tensor.try_permute(axes) {
            Ok(mut tensor) => {
                if stock && !tensor.stock {
                    tensor.scheme = tensor.carrier();
                }
                tensor
            }
            Err(tensor) => moved(
                "q_permute",
                tensor,
                |weight| weight.permute(axes),
                |float| B::float_permute(float, axes),
            ),
        }
    }

    fn q_flip(tensor: QuantizedTensor<Self>, axes: &[usize]) -> QuantizedTensor<Self> {
        moved(
            "q_flip",
            tensor,
            |weight| weight.flip(axes),
            |float| B::float_flip(float, axes),
        )
    }

    fn q_select(tensor: QuantizedTensor<Self>, dim: usize, indices: IntTensor<Self>) -> QuantizedTensor<Self> {
        let rows = || read_indices::<B>(indices.clone());
        moved(
            "q_select",
            tensor,
            |weight| weight.select(dim, &rows()),
            |float| B::float_select(float, dim, indices.clone()),
        )
    }

    fn q_slice(tensor: QuantizedTensor<Self>, slices: &[Slice]) -> QuantizedTensor<Self> {
        let sliced = |weight: AffineQuantizedTensor| {
            slices.iter().enumerate().try_fold(weight, |weight, (dim, slice)| {
                let indices = slice_indices(slice, weight.shape()[dim]);
                weight.select(dim, &indices)
            })
        };
        moved("q_slice", tensor, sliced, |float| B::float_slice(float, slices))
    }

    fn q_gather(dim: usize, tensor: QuantizedTensor<Self>, indices: IntTensor<Self>) -> QuantizedTensor<Self> {
        let shape: Vec<usize> = indices.shape().iter().copied().collect();
        let gathered = |weight: AffineQuantizedTensor| weight.gather(dim, &shape, &read_indices::<B>(indices.clone()));
        moved("q_gather", tensor, gathered, |float| {
            B::float_gather(dim, float, indices.clone())
        })
    }

    fn q_repeat_dim(tensor: QuantizedTensor<Self>, dim: usize, times: usize) -> QuantizedTensor<Self> {
        moved(
            "q_repeat_dim",
            tensor,
            |weight| weight.repeat(dim, times),
            |float| B::float_repeat_dim(float, dim, times),
        )
    }

    /// Codes without their signs where each has one in the range of the dtype, else floats.
    fn q_abs(tensor: QuantizedTensor<Self>) -> QuantizedTensor<Self> {
        let positive = tensor.weight().and_then(|weight| {
            let parts = weight.parts();
            let symmetric = match &parts.zero_point {
                ZeroPoints::None => true,
                ZeroPoints::Int(zero) => zero.iter().all(|zero| *zero == 0),
                ZeroPoints::Float(_) => false,
            };
            let codes: Vec<i32> = weight.codes().into_iter().map(i32::abs).collect();
            let fits = symmetric && codes.iter().all(|code| *code <= parts.quant_max);
            fits.then(|| AffineQuantizedTensor::from_codes(parts.clone(), &codes))
                .and_then(Result::ok)
        });
        match (positive, tensor.packed()) {
            (Some(weight), Some(packed)) => tensor.with_weight(packed, weight),
            _ => to_float("q_abs", tensor, B::float_abs),
        }
    }

    fn q_cat(tensors: Vec<QuantizedTensor<Self>>, dim: usize) -> QuantizedTensor<Self> {
        let device = tensors[0].device.clone();
        let floats = tensors.into_iter().map(|tensor| tensor.into_dense("q_cat")).collect();
        QTensor::from_float(B::float_cat(floats, dim), device)
    }

    fn q_topk(tensor: QuantizedTensor<Self>, dim: usize, k: usize) -> QuantizedTensor<Self> {
        let int_dtype = get_device_settings::<B>(&tensor.device).int_dtype;
        let indices = Self::q_argtopk(tensor.clone(), dim, k, int_dtype);
        Self::q_gather(dim, tensor, indices)
    }

    fn q_sort(tensor: QuantizedTensor<Self>, dim: usize, descending: bool) -> QuantizedTensor<Self> {
        let int_dtype = get_device_settings::<B>(&tensor.device).int_dtype;
        Self::q_sort_with_indices(tensor, dim, descending, int_dtype).0
    }

    fn q_sort_with_indices(
        tensor: QuantizedTensor<Self>,
        dim: usize,
        descending: bool,
        out_dtype: IntDType,
    ) -> (QuantizedTensor<Self>, IntTensor<Self>) {
        let indices = Self::q_argsort(tensor.clone(), dim, descending, out_dtype);
        (Self::q_gather(dim, tensor, indices.clone()), indices)
    }
}

/// A tensor that the inner backend quantized.
fn adopt<B: Backend, K: QuantKernels<B>>(tensor: QuantizedTensor<B>, device: &Device<B>) -> QTensor<B, K> {
    let data = read_sync(B::q_into_data(tensor)).unwrap_or_else(|error| panic!("quantize: {error}"));
    stock::from_data(data, device)
}

/// Codes moved by `codes`; a tensor that has none is moved by `floats`.
fn moved<B: Backend, K: QuantKernels<B>>(
    op: &'static str,
    tensor: QTensor<B, K>,
    codes: impl FnOnce(AffineQuantizedTensor) -> Result<AffineQuantizedTensor>,
    floats: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>,
) -> QTensor<B, K> {
    match (tensor.weight(), tensor.packed()) {
        (Some(weight), Some(packed)) => {
            let weight =
                codes(weight).unwrap_or_else(|error| panic!("{op} of a packed weight {}: {error}", packed.label.path));
            tensor.with_weight(packed, weight)
        }
        _ => to_float(op, tensor, floats),
    }
}

fn to_float<B: Backend, K: QuantKernels<B>>(
    op: &'static str,
    tensor: QTensor<B, K>,
    floats: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>,
) -> QTensor<B, K> {
    let device = tensor.device.clone();
    QTensor::from_float(floats(tensor.into_dense(op)), device)
}

fn read_indices<B: Backend>(indices: IntTensor<B>) -> Vec<usize> {
    let data = read_sync(B::int_into_data(indices)).unwrap_or_else(|error| panic!("indices: {error}"));
    data.iter::<i64>().map(|index| index as usize).collect()
}

/// The indices of a slice in order: from the end backwards where its step is negative.
fn slice_indices(slice: &Slice, size: usize) -> Vec<usize> {
    let (range, step) = slice.to_range_and_step(size);
    match step {
        0.. => range.step_by(step.max(1) as usize).collect(),
        _ => range.rev().step_by(step.unsigned_abs()).collect(),
    }
}
