//! Products with a packed or observed weight: the calls that reach a quantized kernel.
//!
//! Burn's weight `[K, N]` is the swapped view of a logical `[N, K]`: that orientation is the layer's own, with the activation treatment that
//! travels on the weight. The other one, `[N, K]` as Burn sees it, is a product with the transposed weight, without treatment.

use super::{Body, Observed, Packed, QTensor, Storage};
use crate::kernels::{Portable, QuantKernels};
use burn_backend::tensor::{Device, FloatTensor, IntTensor};
use burn_backend::{Backend, DeviceOps, TensorMetadata};
use burn_std::Shape;

/// `y[.., b] = x[.., a] · weight[.., a, b] + bias` for a weight that [is a matrix](QTensor::is_matrix).
///
/// # Panics
/// If the last dim of `x` is not the weight's reduced dim: the message names the operation, the shapes, the quantization and the layer. If
/// the weight is on another device: the message names both, and the layer.
pub(super) fn linear<B: Backend, K: QuantKernels<B>>(
    op: &'static str,
    x: FloatTensor<B>,
    weight: QTensor<B, K>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let (rank, x_shape) = (weight.shape.num_dims(), x.shape());
    if x_shape.iter().last() != Some(&weight.shape[rank - 2]) {
        refuse(op, &x_shape, &weight);
    }
    check_device(op, &B::float_device(&x), &weight);
    let y = match &*weight.body {
        Body::Packed(packed) if weight.transposed => product::<B, K>(packed, x, bias),
        Body::Packed(packed) => add_bias::<B>(transposed_product::<B, K>(packed, x), bias),
        Body::Observed(Observed { observer, .. }) => {
            let observer = (!weight.transposed).then(|| observer.clone());
            if let Some(observer) = &observer {
                observer.observe_input(&x);
            }
            let mut flat = weight;
            flat.shape = Shape::new([flat.shape[rank - 2], flat.shape[rank - 1]]);
            let y = B::linear(x, flat.into_dense(op), bias);
            if let Some(observer) = &observer {
                observer.observe_output(&y);
            }
            return y;
        }
        Body::Dense(_) => B::linear(x, weight.into_dense(op), bias),
    };
    with_rank::<B>(y, rank)
}

/// Whether [`x_backward`] serves the weight: a packed matrix in the orientation of a layer.
pub(super) fn has_x_backward<B: Backend, K: QuantKernels<B>>(weight: &QTensor<B, K>) -> bool {
    weight.transposed && weight.packed().is_some() && weight.is_matrix()
}

/// `y[.., K] = grad[.., N] · weightᵀ` for a weight `[.., K, N]`.
///
/// # Panics
/// As [`linear`].
pub(super) fn x_backward<B: Backend, K: QuantKernels<B>>(
    op: &'static str,
    weight: QTensor<B, K>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let rank = weight.shape.num_dims();
    let grad_shape = grad.shape();
    if grad_shape.iter().last() != Some(&weight.shape[rank - 1]) {
        refuse(op, &grad_shape, &weight);
    }
    check_device(op, &B::float_device(&grad), &weight);
    match &*weight.body {
        Body::Packed(packed) => transposed_product::<B, K>(packed, grad),
        _ => B::linear_x_backward(weight.into_dense(op), grad),
    }
}

/// Whether [`rows`] serves the weight: a packed matrix whose rows Burn sees as rows.
pub(super) fn is_rows<B: Backend, K: QuantKernels<B>>(weight: &QTensor<B, K>) -> bool {
    !weight.transposed && weight.packed().is_some() && weight.is_matrix() && weight.shape.num_dims() == 2
}

/// `y[.., K]`: the dequantized rows `indices[..]` of a packed matrix.
///
/// # Panics
/// If the matrix is on another device.
pub(super) fn rows<B: Backend, K: QuantKernels<B>>(weight: QTensor<B, K>, indices: IntTensor<B>) -> FloatTensor<B> {
    check_device("embedding", &B::int_device(&indices), &weight);
    match &*weight.body {
        Body::Packed(Packed { storage, .. }) => match storage {
            Storage::Kernel(packed) => K::gather(packed, indices, weight.dtype),
            Storage::Portable(packed) => <Portable as QuantKernels<B>>::gather(packed, indices, weight.dtype),
        },
        _ => B::embedding(weight.into_dense("embedding"), indices),
    }
}

fn product<B: Backend, K: QuantKernels<B>>(
    packed: &Packed<K::Weight>,
    x: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    match &packed.storage {
        Storage::Kernel(weight) => K::linear(x, weight, bias),
        Storage::Portable(weight) => <Portable as QuantKernels<B>>::linear(x, weight, bias),
    }
}

fn transposed_product<B: Backend, K: QuantKernels<B>>(packed: &Packed<K::Weight>, x: FloatTensor<B>) -> FloatTensor<B> {
    match &packed.storage {
        Storage::Kernel(weight) => K::linear_transposed(x, weight),
        Storage::Portable(weight) => <Portable as QuantKernels<B>>::linear_transposed(x, weight),
    }
}

fn add_bias<B: Backend>(y: FloatTensor<B>, bias: Option<FloatTensor<B>>) -> FloatTensor<B> {
    match bias {
        // A sum over no elements would be launched as a grid of none, which CUDA refuses.
        Some(bias) if y.shape().num_elements() > 0 => {
            let rank = y.rank();
            B::float_add(y, with_rank::<B>(bias, rank))
        }
        _ => y,
    }
}

/// Dims of size 1 in front until the rank is at least `rank`.
fn with_rank<B: Backend>(tensor: FloatTensor<B>, rank: usize) -> FloatTensor<B> {
    let shape = tensor.shape();
    let Some(missing) = rank.checked_sub(shape.num_dims()).filter(|missing| *missing > 0) else {
        return tensor;
    };
    let dims: Vec<usize> = core::iter::repeat_n(1, missing).chain(shape.iter().copied()).collect();
    B::float_reshape(tensor, Shape::from(dims))
}

fn refuse<B: Backend, K: QuantKernels<B>>(op: &str, x: &Shape, weight: &QTensor<B, K>) -> ! {
    let (layer, spec) = match weight.packed() {
        Some(packed) => {
            let unpacked = packed.unpack::<B, K>();
            let parts = unpacked.parts();
            let spec = format!(
                "{} in blocks of {:?} over {:?}",
                parts.dtype, parts.block_size, parts.shape
            );
            (packed.label.path.as_str(), spec)
        }
        None => ("", "observed, in float".into()),
    };
    let layer = of_layer(layer);
    let (x, w): (Vec<usize>, Vec<usize>) = (x.iter().copied().collect(), weight.shape.iter().copied().collect());
    panic!("{op}: activation {x:?} does not fit weight {w:?}{layer} ({spec})")
}

/// ` of layer PATH`, or nothing for a weight made by hand.
fn of_layer(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" of layer {path}")
    }
}

/// # Panics
/// If a weight that the kernels of one device hold meets a tensor on another: here, where the layer is known.
fn check_device<B: Backend, K: QuantKernels<B>>(op: &str, device: &Device<B>, weight: &QTensor<B, K>) {
    // One device may have several names.
    if *device == weight.device || device.id() == weight.device.id() {
        return;
    }
    if let Some(Packed {
        storage: Storage::Kernel(_),
        label,
        ..
    }) = weight.packed()
    {
        panic!(
            "{op}: a tensor on {device:?} meets the quantized weight {:?}{} on {:?}: move one of them with `to_device`, or the module",
            weight.shape.to_vec(),
            of_layer(&label.path),
            weight.device
        )
    }
}
