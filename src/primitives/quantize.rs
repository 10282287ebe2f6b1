//! quantize, dequantize, fake_quantize.

use crate::dtype::FloatDtype;
use crate::primitives::{ZeroPoints, expanded};
use crate::spec::BlockGrid;

/// The parameters of an affine quantization, borrowed: what turns values into codes and back.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Which block an element belongs to.
    pub grid: &'a BlockGrid,
    /// One scale a block, representable in `scale_dtype`.
    pub scale: &'a [f32],
    /// Dtype of the scales.
    pub scale_dtype: FloatDtype,
    /// One zero point a block, or none.
    pub zero_point: &'a ZeroPoints,
    /// Dtype of float zero points; not read with others.
    pub zero_point_dtype: FloatDtype,
    /// Smallest code.
    pub quant_min: i32,
    /// Largest code.
    pub quant_max: i32,
}

/// The code of each value of `input`, values of `input_dtype` (T), row-major over the grid.
///
/// With `s`, `z` of the value's block, S the scale dtype, Z the zero-point dtype, P = promote(T, S):
///
/// ```text
/// integer z    q = clamp(round(P(x * S(1 / s))) + z, lo, hi)
/// no z         q = clamp(round(P(x * S(1 / s))), lo, hi)
/// float z      low = promote(Z, S)(z - S(s * mid)),  mid = (hi + lo + 1) / 2
///              q = clamp(round((x - low) / s), lo, hi)      difference and quotient each rounded to the promoted dtype
/// ```
///
/// `round` is half to even. A NaN gives the zero point's code (`lo` with a float one), an infinity `lo` or `hi`.
/// Where 1/s overflows S, `x / s` takes the place of the product; where s is 0 every code is the zero point. torchao's codes
/// are undefined there.
///
/// Source: torchao `quantization/quant_primitives.py`, `quantize_affine`, `_quantize_affine_no_zero_point`,
/// `_quantize_affine_tinygemm`.
///
/// # Panics
/// If `input`, scales or zero points are not as many as the grid says.
///
/// ```
/// use burn_quantized::dtype::FloatDtype;
/// use burn_quantized::primitives::{Affine, ZeroPoints, quantize_affine};
/// use burn_quantized::spec::BlockGrid;
///
/// let affine = Affine {
///     grid: &BlockGrid::new(&[4], &[4]).unwrap(),
///     scale: &[2.0],
///     scale_dtype: FloatDtype::F32,
///     zero_point: &ZeroPoints::Int(vec![1]),
///     zero_point_dtype: FloatDtype::F32,
///     quant_min: -8,
///     quant_max: 7,
/// };
/// assert_eq!(quantize_affine(&[1.0, 3.0, -4.0, 100.0], FloatDtype::F32, &affine), [1, 3, -1, 7]);
/// ```
pub fn quantize_affine(input: &[f32], input_dtype: FloatDtype, affine: &Affine) -> Vec<i32> {
    affine.check(input.len());
    let product = input_dtype.promote(affine.scale_dtype);
    let (low, high) = (affine.quant_min as f32, affine.quant_max as f32);
    let mut codes = vec![0; input.len()];
    for (range, block) in affine.grid.runs() {
        let (scale, values) = (affine.scale[block], &input[range.clone()]);
        let out = codes[range].iter_mut().zip(values);
        match affine.zero_point {
            ZeroPoints::Float(zero) => {
                let (base, difference) = affine.value_of_code_zero(scale, zero[block], input_dtype);
                let quotient = difference.promote(affine.scale_dtype);
                for (code, x) in out {
                    let steps = quotient.round(difference.round(x - base) / scale);
                    *code = store(steps.round_ties_even(), low, affine.quant_min, affine.quant_max);
                }
            }
            ZeroPoints::None => {
                let divisor = Divisor::new(scale, affine.scale_dtype);
                for (code, x) in out {
                    let steps = product.round(divisor.apply(*x)).round_ties_even();
                    *code = store(steps, 0.0, affine.quant_min, affine.quant_max);
                }
            }
            ZeroPoints::Int(zero) => {
                let (divisor, zero) = (Divisor::new(scale, affine.scale_dtype), zero[block] as f32);
                for (code, x) in out {
                    let steps = product.round(divisor.apply(*x)).round_ties_even();
                    *code = store(product.round(steps + zero), zero, affine.quant_min, affine.quant_max);
                }
            }
        }
    }
    debug_assert!(codes.iter().all(|code| (low..=high).contains(&(*code as f32))));
    codes
}

/// The value of each code, in `output_dtype` (O), row-major over the grid.
///
/// With `s`, `z` of the code's block and P = promote(O, scale dtype):
///
/// ```text
/// integer z    x = O(P(O(O(q) - O(z)) * s))
/// no z         x = O(P(O(q) * s))
/// float z      x = O(O(O(q - mid) * s) + z),  mid = (hi + lo + 1) / 2
/// ```
///
/// The values are counted in [`expanded`].
///
/// Source: torchao `quantization/quant_primitives.py`, `dequantize_affine`, `_dequantize_affine_no_zero_point`,
/// `_dequantize_affine_tinygemm`.
///
/// # Panics
/// If `codes`, scales or zero points are not as many as the grid says.
pub fn dequantize_affine(codes: &[i32], affine: &Affine, output_dtype: FloatDtype) -> Vec<f32> {
    affine.check(codes.len());
    expanded::add(codes.len());
    let product = output_dtype.promote(affine.scale_dtype);
    let mut values = vec![0.0; codes.len()];
    for (range, block) in affine.grid.runs() {
        let (scale, codes) = (affine.scale[block], &codes[range.clone()]);
        let out = values[range].iter_mut().zip(codes);
        match affine.zero_point {
            ZeroPoints::Float(zero) => {
                for (x, code) in out {
                    let steps = output_dtype.round(*code as f32 - affine.mid());
                    *x = output_dtype.round(output_dtype.round(steps * scale) + zero[block]);
                }
            }
            ZeroPoints::None => {
                for (x, code) in out {
                    *x = output_dtype.round(product.round(output_dtype.round(*code as f32) * scale));
                }
            }
            ZeroPoints::Int(zero) => {
                let zero = output_dtype.round(zero[block] as f32);
                for (x, code) in out {
                    let steps = output_dtype.round(output_dtype.round(*code as f32) - zero);
                    *x = output_dtype.round(product.round(steps * scale));
                }
            }
        }
    }
    values
}

/// What `input` becomes when it is quantized and dequantized to its own dtype:
/// [`dequantize_affine`] of [`quantize_affine`].
///
/// Source: torchao `quantization/quant_primitives.py`, `_fake_quantize_affine`.
///
/// # Panics
/// As [`quantize_affine`].
pub fn fake_quantize_affine(input: &[f32], input_dtype: FloatDtype, affine: &Affine) -> Vec<f32> {
    dequantize_affine(&quantize_affine(input, input_dtype, affine), affine, input_dtype)
}

impl Affine<'_> {
    /// The code whose value a float zero point is, `(quant_min + quant_max + 1) / 2`: 8 for 0..=15.
    pub fn mid(&self) -> f32 {
        (self.quant_min + self.quant_max + 1) as f32 / 2.0
    }

    /// `z − s · mid` of the float domain, and the dtype of `x − low` for x in `input_dtype`.
    fn value_of_code_zero(&self, scale: f32, zero: f32, input_dtype: FloatDtype) -> (f32, FloatDtype) {
        let dtype = self.zero_point_dtype.promote(self.scale_dtype);
        let low = dtype.round(zero - self.scale_dtype.round(scale * self.mid()));
        (low, input_dtype.promote(dtype))
    }

    fn check(&self, elements: usize) {
        let blocks = self.grid.len();
        let zeros = match self.zero_point {
            ZeroPoints::None => blocks,
            ZeroPoints::Int(zero) => zero.len(),
            ZeroPoints::Float(zero) => zero.len(),
        };
        assert!(
            elements == self.grid.elements() && self.scale.len() == blocks && zeros == blocks,
            "affine quantization over {:?} in {blocks} blocks: {elements} elements, {} scales, {zeros} zero points",
            self.grid.shape(),
            self.scale.len(),
        );
    }
}

/// Division by a scale as torchao does it: a product with the rounded reciprocal, where that is finite.
enum Divisor {
    Reciprocal(f32),
    Scale(f32),
    Zero,
}

impl Divisor {
    fn new(scale: f32, dtype: FloatDtype) -> Self {
        let reciprocal = dtype.round(1.0 / scale);
        if scale == 0.0 {
            Self::Zero
        } else if reciprocal.is_infinite() {
            Self::Scale(scale)
        } else {
            Self::Reciprocal(reciprocal)
        }
    }

    #[inline]
    fn apply(&self, x: f32) -> f32 {
        match self {
            Self::Reciprocal(reciprocal) => x * reciprocal,
            Self::Scale(scale) => x / scale,
            Self::Zero => 0.0,
        }
    }
}

/// The code of a rounded number, that of `nan` where it is NaN.
#[inline]
fn store(rounded: f32, nan: f32, quant_min: i32, quant_max: i32) -> i32 {
    let value = if rounded.is_nan() { nan } else { rounded };
    (value as i32).clamp(quant_min, quant_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<R>(scale: f32, scale_dtype: FloatDtype, zero: ZeroPoints, run: impl FnOnce(&Affine) -> R) -> R {
        let grid = BlockGrid::new(&[4], &[4]).unwrap();
        run(&Affine {
            grid: &grid,
            scale: &[scale],
            scale_dtype,
            zero_point: &zero,
            zero_point_dtype: FloatDtype::F32,
            quant_min: -8,
            quant_max: 7,
        })
    }

    #[test]
    fn bad_values_have_a_code() {
        let input = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
        let codes = |zero| {
            with(1.0, FloatDtype::F32, zero, |a| {
                quantize_affine(&input, FloatDtype::F32, a)
            })
        };
        assert_eq!(codes(ZeroPoints::Int(vec![3])), [3, 7, -8, 4]);
        assert_eq!(codes(ZeroPoints::None), [0, 7, -8, 1]);
        assert_eq!(codes(ZeroPoints::Float(vec![0.0])), [-8, 7, -8, 1]);
    }

    #[test]
    fn a_reciprocal_that_overflows_becomes_a_division() {
        let smallest_f16 = 2f32.powi(-24);
        let input = [0.0, smallest_f16, -2.0 * smallest_f16, 1.0];
        with(smallest_f16, FloatDtype::F16, ZeroPoints::Int(vec![0]), |affine| {
            assert_eq!(quantize_affine(&input, FloatDtype::F32, affine), [0, 1, -2, 7]);
        });
        with(0.0, FloatDtype::F16, ZeroPoints::Int(vec![2]), |affine| {
            assert_eq!(quantize_affine(&input, FloatDtype::F32, affine), [2; 4]);
            assert_eq!(fake_quantize_affine(&input, FloatDtype::F32, affine), [0.0; 4]);
        });
    }
}
