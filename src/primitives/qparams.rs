//! choose_qparams: from a tensor, or from given ranges, to scales and zero points.

use crate::dtype::FloatDtype;
use crate::error::Result;
use crate::spec::{AffineSpec, MappingType};
use serde::{Deserialize, Serialize};

/// The zero points of a quantized tensor, one a block.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ZeroPoints {
    /// Every zero point is the code 0.
    None,
    /// Integer codes.
    Int(Vec<i32>),
    /// Values of the middle code.
    Float(Vec<f32>),
}

/// Scales and zero points, one a block, row-major.
#[derive(Clone, PartialEq, Debug)]
pub struct QParams {
    /// Positive scales, representable in the scale dtype.
    pub scale: Vec<f32>,
    /// Zero points.
    pub zero_point: ZeroPoints,
}

/// doc
pub fn choose_qparams_affine(
    input: &[f32],
    input_dtype: FloatDtype,
    shape: &[usize],
    spec: &AffineSpec,
) -> Result<QParams> {
    let _ = (input, input_dtype, shape, spec);
    todo!()
}

/// doc
pub fn choose_qparams_affine_dont_preserve_zero(
    input: &[f32],
    input_dtype: FloatDtype,
    shape: &[usize],
    spec: &AffineSpec,
) -> Result<QParams> {
    let _ = (input, input_dtype, shape, spec);
    todo!()
}

/// doc
pub fn choose_qparams_affine_tinygemm(
    input: &[f32],
    input_dtype: FloatDtype,
    shape: &[usize],
    spec: &AffineSpec,
    zero_point_dtype: FloatDtype,
) -> Result<QParams> {
    let _ = (input, input_dtype, shape, spec, zero_point_dtype);
    todo!()
}

/// doc
pub fn choose_qparams_affine_with_min_max(
    min: &[f32],
    max: &[f32],
    input_dtype: FloatDtype,
    mapping: MappingType,
    quant_min: i32,
    quant_max: i32,
    eps: Option<f32>,
    scale_dtype: Option<FloatDtype>,
) -> Result<QParams> {
    let _ = (min, max, input_dtype, mapping, quant_min, quant_max, eps, scale_dtype);
    todo!()
}
