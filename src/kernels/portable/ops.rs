//! The few operations of a backend that the portable products are made of, on f32 matrices.
//!
//! Constants are tensors, never scalars: a backend may turn a division by a scalar into a product with its reciprocal, and a compiler
//! may fold `x + c − c` or `x · 0` when it knows `c`.

use crate::dtype::FloatDtype;
use crate::kernels::dtypes::burn_dtype;
use burn_backend::tensor::{BoolTensor, Device, FloatTensor};
use burn_backend::{Backend, Slice, TensorData, TensorMetadata, get_device_settings};
use burn_std::{BoolDType, FloatDType, Shape};
use core::ops::Range;

/// Rounds f32 values to `dtype` and keeps them as f32.
pub(super) fn round_to<B: Backend>(x: FloatTensor<B>, dtype: FloatDtype) -> FloatTensor<B> {
    if dtype == FloatDtype::F32 {
        return x;
    }
    B::float_cast(B::float_cast(x, burn_dtype(dtype)), FloatDType::F32)
}

/// A host matrix `[rows, columns]` on the device.
pub(super) fn matrix<B: Backend>(values: Vec<f32>, rows: usize, columns: usize, device: &Device<B>) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, [rows, columns]), device)
}

/// `[1, 1]`, to broadcast.
pub(super) fn constant<B: Backend>(value: f32, device: &Device<B>) -> FloatTensor<B> {
    matrix::<B>(vec![value], 1, 1, device)
}

/// `x / y`, correctly rounded where the backend's division is.
pub(super) fn divided_by<B: Backend>(x: FloatTensor<B>, y: f32) -> FloatTensor<B> {
    let y = constant::<B>(y, &B::float_device(&x));
    B::float_div(x, y)
}

/// Rounds `|x| ≤ 2^22` to integers, ties to even: a sum near 1.5 · 2^23 has no fraction bits. Backends disagree on ties in their own rounding.
pub(super) fn round_ties_even<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let magic = constant::<B>(1.5 * 8_388_608.0, &B::float_device(&x));
    B::float_sub(B::float_add(x, magic.clone()), magic)
}

/// Columns of a matrix.
pub(super) fn columns<B: Backend>(x: &FloatTensor<B>, range: Range<usize>) -> FloatTensor<B> {
    if range == (0..x.shape()[1]) {
        return x.clone();
    }
    let part = Slice::new(range.start as isize, Some(range.end as isize), 1);
    B::float_slice(x.clone(), &[Slice::full(), part])
}

/// `x[M, K] · wᵀ` with `w[N, K]`, one row each output.
pub(super) fn product<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(x, B::float_swap_dims(w, 0, 1))
}

/// `yes` where the mask is set, else `no`; the mask and `yes` broadcast to `no`.
pub(super) fn choose<B: Backend>(mask: BoolTensor<B>, yes: FloatTensor<B>, no: FloatTensor<B>) -> FloatTensor<B> {
    let shape = no.shape();
    B::float_mask_where(no, B::bool_expand(mask, shape.clone()), B::float_expand(yes, shape))
}

/// The larger of two tensors of one shape; neither holds a NaN.
pub(super) fn maximum<B: Backend>(x: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
    let larger = B::float_greater(y.clone(), x.clone(), bool_dtype::<B>(&x));
    choose::<B>(larger, y, x)
}

/// `[M, 1]`: whether a row of `x[M, K]` holds a NaN or an infinity. Its sum of `x · 0` is NaN then, else 0.
pub(super) fn not_finite<B: Backend>(x: &FloatTensor<B>) -> BoolTensor<B> {
    let zero = constant::<B>(0.0, &B::float_device(x));
    let sums = B::float_sum_dim(B::float_mul(x.clone(), zero), 1);
    let dtype = bool_dtype::<B>(&sums);
    B::float_is_nan(sums, dtype)
}

/// `f32` zeros of any shape, empty ones too.
pub(super) fn zeros<B: Backend>(shape: impl Into<Shape>, device: &Device<B>) -> FloatTensor<B> {
    B::float_zeros(shape.into(), device, FloatDType::F32)
}

/// The dtype of a mask over `x`'s device.
pub(super) fn bool_dtype<B: Backend>(x: &FloatTensor<B>) -> BoolDType {
    get_device_settings::<B>(&B::float_device(x)).bool_dtype
}
