//! From tensors of any rank to rows of a packed weight: what the glue of Flex and NdArray shares.

use super::CpuWeight;
use crate::dtype::FloatDtype;

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
    match dims.split_last() {
        Some((last, lead)) if *last == from => (lead.iter().product(), [lead, &[to]].concat()),
        _ => panic!("{op}: a tensor of shape {dims:?} meets a quantized weight that takes {from} values a row"),
    }
}
