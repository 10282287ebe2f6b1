//! From tensors of any rank to rows of a packed weight: what the glue of Flex and NdArray shares.

use super::CpuWeight;
use crate::dtype::FloatDtype;
use burn_std::{DType, FloatDType};

/// The dtype that products of activations of `dtype` follow. f64 is computed in f32: codes carry no more.
///
/// # Panics
/// If `dtype` is no float.
pub fn float_dtype(dtype: DType) -> FloatDtype {
    match dtype {
        DType::F64 | DType::F32 | DType::Flex32 => FloatDtype::F32,
        DType::F16 => FloatDtype::F16,
        DType::BF16 => FloatDtype::BF16,
        dtype => panic!("a quantized linear takes float activations, not {dtype:?}"),
    }
}

/// As [`float_dtype`].
pub fn of_float_dtype(dtype: FloatDType) -> FloatDtype {
    float_dtype(dtype.into())
}

/// `y[.., N]` of `x[.., K]`, and its shape.
///
/// # Panics
/// If the last dim of x is not K, or the bias does not have N values.
pub fn linear(
    w: &CpuWeight,
    x: &[f32],
    dims: &[usize],
    dtype: FloatDtype,
    bias: Option<&[f32]>,
) -> (Vec<f32>, Vec<usize>) {
    let [n, k] = w.shape();
    let (rows, shape) = replace_last("linear", dims, k, n);
    let mut y = vec![0.0; rows * n];
    w.linear(x, rows, dtype, bias, &mut y);
    (y, shape)
}

/// `y[.., K]` of `g[.., N]`, and its shape.
///
/// # Panics
/// If the last dim of g is not N.
pub fn linear_transposed(w: &CpuWeight, g: &[f32], dims: &[usize], dtype: FloatDtype) -> (Vec<f32>, Vec<usize>) {
    let [n, k] = w.shape();
    let (rows, shape) = replace_last("linear_transposed", dims, n, k);
    let mut y = vec![0.0; rows * k];
    w.linear_transposed(g, rows, dtype, &mut y);
    (y, shape)
}

/// `y[.., K]` of `indices[..]`, and its shape.
///
/// # Panics
/// If an index is not a row of the weight.
pub fn gather(
    w: &CpuWeight,
    indices: impl Iterator<Item = i64>,
    dims: &[usize],
    dtype: FloatDtype,
) -> (Vec<f32>, Vec<usize>) {
    let [n, k] = w.shape();
    let rows: Vec<usize> = indices
        .map(|index| usize::try_from(index).unwrap_or_else(|_| panic!("gather: row {index} of a [{n}, {k}] weight")))
        .collect();
    let mut y = vec![0.0; rows.len() * k];
    w.gather(&rows, dtype, &mut y);
    (y, [dims, &[k]].concat())
}

/// The number of rows, and `dims` with its last dim, which must be `from`, replaced by `to`.
fn replace_last(op: &str, dims: &[usize], from: usize, to: usize) -> (usize, Vec<usize>) {
    let Some((last, lead)) = dims.split_last().filter(|(last, _)| **last == from) else {
        panic!("{op}: a tensor of shape {dims:?} meets a quantized weight that takes {from} values a row");
    };
    let _ = last;
    (lead.iter().product(), [lead, &[to]].concat())
}
