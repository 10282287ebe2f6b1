//! quantize, dequantize, fake_quantize.

use crate::dtype::FloatDtype;
use crate::spec::BlockGrid;

/// doc
pub fn quantize_affine(
    input: &[f32],
    input_dtype: FloatDtype,
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    zero_point: &[i32],
    quant_min: i32,
    quant_max: i32,
) -> Vec<i32> {
    let _ = (
        input,
        input_dtype,
        grid,
        scale,
        scale_dtype,
        zero_point,
        quant_min,
        quant_max,
    );
    todo!()
}
/// doc
pub fn quantize_affine_no_zero_point(
    input: &[f32],
    input_dtype: FloatDtype,
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    quant_min: i32,
    quant_max: i32,
) -> Vec<i32> {
    let _ = (input, input_dtype, grid, scale, scale_dtype, quant_min, quant_max);
    todo!()
}
/// doc
pub fn quantize_affine_tinygemm(
    input: &[f32],
    input_dtype: FloatDtype,
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    zero_point: &[f32],
    zero_point_dtype: FloatDtype,
    quant_min: i32,
    quant_max: i32,
) -> Vec<i32> {
    let _ = (
        input,
        input_dtype,
        grid,
        scale,
        scale_dtype,
        zero_point,
        zero_point_dtype,
        quant_min,
        quant_max,
    );
    todo!()
}
/// doc
pub fn dequantize_affine(
    codes: &[i32],
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    zero_point: &[i32],
    output_dtype: FloatDtype,
) -> Vec<f32> {
    let _ = (codes, grid, scale, scale_dtype, zero_point, output_dtype);
    todo!()
}
/// doc
pub fn dequantize_affine_no_zero_point(
    codes: &[i32],
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    output_dtype: FloatDtype,
) -> Vec<f32> {
    let _ = (codes, grid, scale, scale_dtype, output_dtype);
    todo!()
}
/// doc
pub fn dequantize_affine_tinygemm(
    codes: &[i32],
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    zero_point: &[f32],
    zero_point_dtype: FloatDtype,
    quant_min: i32,
    quant_max: i32,
    output_dtype: FloatDtype,
) -> Vec<f32> {
    let _ = (
        codes,
        grid,
        scale,
        scale_dtype,
        zero_point,
        zero_point_dtype,
        quant_min,
        quant_max,
        output_dtype,
    );
    todo!()
}
/// doc
pub fn fake_quantize_affine(
    input: &[f32],
    input_dtype: FloatDtype,
    grid: &BlockGrid,
    scale: &[f32],
    scale_dtype: FloatDtype,
    zero_point: &[i32],
    quant_min: i32,
    quant_max: i32,
) -> Vec<f32> {
    let _ = (
        input,
        input_dtype,
        grid,
        scale,
        scale_dtype,
        zero_point,
        quant_min,
        quant_max,
    );
    todo!()
}
