//! choose_qparams: from a tensor, or from given ranges, to scales and zero points.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::spec::{AffineSpec, BlockGrid, MappingType, ZeroPointDomain};
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
    /// Scales, representable in the scale dtype and not negative. A scale is 0 only where a narrow scale dtype underflows.
    pub scale: Vec<f32>,
    /// Zero points, in the domain that the spec asks for.
    pub zero_point: ZeroPoints,
}

/// Scales and zero points of `input`, values of `input_dtype` (T) in `shape`, row-major.
///
/// Per block, every operation rounded to T, with `lo`, `hi` for `quant_min`, `quant_max`:
///
/// ```text
/// mn = min(block), mx = max(block), neg = min(mn, 0), pos = max(mx, 0)
/// symmetric                  s = max(-neg, pos) / ((hi - lo) / 2)            z = trunc((hi + lo + 1) / 2)
/// symmetric, no clipping     a = neg / lo, b = pos / hi, s = a > b ? a : b   z as above
/// asymmetric, integer z      s = max((pos - neg) / (hi - lo), eps)           z = clamp(lo - round(neg / s), lo, hi)
/// asymmetric, float z        s = max((mx - mn) / (hi - lo), eps)             z = mn + s * (hi + lo + 1) / 2
/// all                        s = max(s, eps), then s is cast to the scale dtype, a float z to the zero-point dtype
/// ```
///
/// A range that overflows T (f16: ±65504 gives 131008) is divided end by end, and a scale never exceeds the largest finite
/// value of its dtype, so finite input gives finite scales; torchao returns an infinite scale there.
/// A block that holds a NaN gets a NaN scale, one that holds an infinity an infinite scale: callers refuse such input first.
/// `spec` is read as it is, see [`AffineSpec::validate`].
///
/// Source: torchao `quantization/quant_primitives.py`, `choose_qparams_affine`, `_choose_qparams_affine_tinygemm`.
///
/// Errors: a granularity that `shape` cannot have, a wrong number of values.
///
/// ```
/// use burn_quantized::dtype::{FloatDtype, IntDtype};
/// use burn_quantized::primitives::{ZeroPoints, choose_qparams_affine};
/// use burn_quantized::spec::{AffineSpec, Granularity, MappingType};
///
/// let spec = AffineSpec::new(IntDtype::UINT8, MappingType::Asymmetric, Granularity::PerTensor);
/// let params = choose_qparams_affine(&[-1.0, 0.5, 254.0], FloatDtype::F32, &[3], &spec).unwrap();
/// assert_eq!((params.scale, params.zero_point), (vec![1.0], ZeroPoints::Int(vec![1])));
/// ```
pub fn choose_qparams_affine(
    input: &[f32],
    input_dtype: FloatDtype,
    shape: &[usize],
    spec: &AffineSpec,
) -> Result<QParams> {
    let (min, max) = block_ranges(input, shape, spec)?;
    choose_qparams_affine_with_min_max(&min, &max, input_dtype, spec)
}

/// As [`choose_qparams_affine`] with the asymmetric mapping and integer zero points, but zero is not forced into the range:
/// `neg = mn`, `pos = mx`.
///
/// The zero point is still clamped to the codes, so a block of one sign saturates: `[1, 2, 3]` over 0..=255 gives
/// scale 2/255 and zero point 0, and every code is 127 or more. That is torchao's behaviour.
///
/// Source: torchao `quantization/quant_primitives.py`, `_choose_qparams_affine_dont_preserve_zero`.
///
/// Errors: as [`choose_qparams_affine`], or a mapping or domain other than those two.
pub fn choose_qparams_affine_dont_preserve_zero(
    input: &[f32],
    input_dtype: FloatDtype,
    shape: &[usize],
    spec: &AffineSpec,
) -> Result<QParams> {
    if (spec.mapping, spec.zero_point_domain) != (MappingType::Asymmetric, ZeroPointDomain::Int) {
        return Err(QuantError::InvalidSpec(
            "a range without zero needs the asymmetric mapping and integer zero points".into(),
        ));
    }
    let (min, max) = block_ranges(input, shape, spec)?;
    let chooser = Chooser::new(input_dtype, spec);
    Ok(chooser.collect(min.iter().zip(&max).map(|(min, max)| chooser.asymmetric(*min, *max))))
}

/// The formulas of [`choose_qparams_affine`] on ranges that are known: one `min` and one `max` a block, values of `input_dtype`.
///
/// `spec.granularity` is not read: the blocks are those that the ranges came from.
///
/// Source: torchao `quantization/quant_primitives.py`, `choose_qparams_affine_with_min_max`.
///
/// Errors: `min` and `max` of different lengths.
pub fn choose_qparams_affine_with_min_max(
    min: &[f32],
    max: &[f32],
    input_dtype: FloatDtype,
    spec: &AffineSpec,
) -> Result<QParams> {
    if min.len() != max.len() {
        return Err(QuantError::ShapeMismatch {
            what: "maxima of blocks".into(),
            expected: vec![min.len()],
            got: vec![max.len()],
        });
    }
    let chooser = Chooser::new(input_dtype, spec);
    Ok(chooser.collect(min.iter().zip(max).map(|(min, max)| chooser.choose(*min, *max))))
}

/// Smallest and largest value of each block; NaN where a block holds one.
fn block_ranges(input: &[f32], shape: &[usize], spec: &AffineSpec) -> Result<(Vec<f32>, Vec<f32>)> {
    let grid = BlockGrid::new(shape, &spec.granularity.block_size(shape)?)?;
    if input.len() != shape.iter().product::<usize>() {
        return Err(QuantError::ShapeMismatch {
            what: "values of a tensor".into(),
            expected: shape.to_vec(),
            got: vec![input.len()],
        });
    }
    let (mut min, mut max) = (vec![f32::INFINITY; grid.len()], vec![f32::NEG_INFINITY; grid.len()]);
    for (range, block) in grid.runs() {
        let (mut low, mut high) = (min[block], max[block]);
        for &x in &input[range] {
            low = if x < low || x.is_nan() { x } else { low };
            high = if x > high || x.is_nan() { x } else { high };
        }
        (min[block], max[block]) = (low, high);
    }
    Ok((min, max))
}

/// A zero point before it is stored.
enum ZeroPoint {
    Int(i32),
    Float(f32),
}

/// The formulas for one block, in the dtype of the input.
struct Chooser<'a> {
    spec: &'a AffineSpec,
    dtype: FloatDtype,
    low: f32,
    high: f32,
    eps: f32,
}

impl<'a> Chooser<'a> {
    fn new(dtype: FloatDtype, spec: &'a AffineSpec) -> Self {
        Self {
            spec,
            dtype,
            low: spec.quant_min as f32,
            high: spec.quant_max as f32,
            eps: spec.eps.map_or(dtype.smallest_normal(), |eps| dtype.round(eps)),
        }
    }

    /// Scale in the input's dtype, and zero point, of the range `min..=max`.
    fn choose(&self, min: f32, max: f32) -> (f32, ZeroPoint) {
        if self.spec.zero_point_domain == ZeroPointDomain::Float {
            return self.float_zero_point(min, max);
        }
        let (negative, positive) = (lesser(min, 0.0), greater(max, 0.0));
        let scale = match self.spec.mapping {
            MappingType::Asymmetric => return self.asymmetric(negative, positive),
            MappingType::Symmetric => {
                let half = (self.high - self.low) / 2.0;
                self.dtype.round(greater(-negative, positive) / half)
            }
            MappingType::SymmetricNoClippingErr => {
                let from_min = self.dtype.round(negative / self.low);
                let from_max = self.dtype.round(positive / self.high);
                if from_min > from_max { from_min } else { from_max }
            }
        };
        (
            self.bounded(scale, min, max),
            ZeroPoint::Int((self.spec.quant_min + self.spec.quant_max + 1) / 2),
        )
    }

    fn asymmetric(&self, min: f32, max: f32) -> (f32, ZeroPoint) {
        let scale = self.steps(min, max);
        let from_low = self.dtype.round(min / scale).round_ties_even();
        let zero = self.dtype.round(self.low - from_low) as i32;
        (
            scale,
            ZeroPoint::Int(zero.clamp(self.spec.quant_min, self.spec.quant_max)),
        )
    }

    fn float_zero_point(&self, min: f32, max: f32) -> (f32, ZeroPoint) {
        let scale = self.steps(min, max);
        let half_range = self.dtype.round(scale * (self.low + self.high + 1.0) / 2.0);
        (scale, ZeroPoint::Float(self.dtype.round(min + half_range)))
    }

    /// `(max − min) / (high − low)`, at least eps.
    fn steps(&self, min: f32, max: f32) -> f32 {
        let codes = self.high - self.low;
        let range = self.dtype.round(max - min);
        let scale = if range.is_infinite() && min.is_finite() && max.is_finite() {
            self.dtype
                .round(self.dtype.round(max / codes) - self.dtype.round(min / codes))
        } else {
            self.dtype.round(range / codes)
        };
        self.bounded(scale, min, max)
    }

    /// `scale` raised to eps, and for a finite range lowered to the largest finite value.
    fn bounded(&self, scale: f32, min: f32, max: f32) -> f32 {
        if scale < self.eps {
            self.eps
        } else if scale.is_infinite() && min.is_finite() && max.is_finite() {
            self.dtype.largest()
        } else {
            scale
        }
    }

    /// Casts and stores.
    fn collect(&self, blocks: impl Iterator<Item = (f32, ZeroPoint)>) -> QParams {
        let scale_dtype = self.spec.scale_dtype.unwrap_or(self.dtype);
        let zero_dtype = self.spec.zero_point_dtype.unwrap_or(self.dtype);
        let (mut scale, mut ints, mut floats) = (Vec::new(), Vec::new(), Vec::new());
        for (chosen, zero) in blocks {
            let cast = scale_dtype.round(chosen);
            scale.push(if chosen.is_finite() {
                cast.min(scale_dtype.largest())
            } else {
                cast
            });
            match zero {
                ZeroPoint::Int(zero) => ints.push(zero),
                ZeroPoint::Float(zero) => floats.push(zero_dtype.round(zero)),
            }
        }
        let zero_point = match self.spec.zero_point_domain {
            ZeroPointDomain::Int => ZeroPoints::Int(ints),
            ZeroPointDomain::Float => ZeroPoints::Float(floats),
            ZeroPointDomain::None => ZeroPoints::None,
        };
        QParams { scale, zero_point }
    }
}

/// The smaller value; NaN if `a` is.
fn lesser(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// The larger value; NaN if `a` is.
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::IntDtype;
    use crate::spec::Granularity;

    fn spec(dtype: IntDtype, mapping: MappingType) -> AffineSpec {
        AffineSpec::new(dtype, mapping, Granularity::PerTensor)
    }

    #[test]
    fn the_symmetric_zero_point_of_an_unsigned_range_is_its_middle() {
        let spec = spec(IntDtype::UINT8, MappingType::Symmetric);
        let got = choose_qparams_affine(&[-2.0, 1.0], FloatDtype::F32, &[2], &spec).unwrap();
        assert_eq!(got.scale, [2.0 / 127.5]);
        assert_eq!(got.zero_point, ZeroPoints::Int(vec![128]));
    }

    #[test]
    fn a_range_wider_than_the_dtype_keeps_a_finite_scale() {
        for domain in [ZeroPointDomain::Int, ZeroPointDomain::Float] {
            let spec = spec(IntDtype::INT8, MappingType::Asymmetric).with_zero_point_domain(domain);
            for (dtype, end) in [(FloatDtype::F16, 65504.0), (FloatDtype::F32, f32::MAX)] {
                let got = choose_qparams_affine(&[-end, end], dtype, &[2], &spec).unwrap();
                let expected = end / 127.5;
                assert!(
                    (got.scale[0] - expected).abs() < expected * 1e-3,
                    "{dtype}: {}",
                    got.scale[0]
                );
            }
        }
        let spec = spec(IntDtype::INT1, MappingType::Symmetric);
        let got = choose_qparams_affine(&[65504.0], FloatDtype::F16, &[1], &spec).unwrap();
        assert_eq!(got.scale, [65504.0]);
    }

    #[test]
    fn a_nan_stays_in_its_block() {
        let spec = AffineSpec::new(IntDtype::INT8, MappingType::Asymmetric, Granularity::PerGroup(2));
        let got = choose_qparams_affine(
            &[f32::NAN, 1.0, 0.0, 255.0, 1.0, f32::NAN],
            FloatDtype::F32,
            &[6],
            &spec,
        )
        .unwrap();
        assert!(got.scale[0].is_nan() && got.scale[1] == 1.0 && got.scale[2].is_nan());
    }

    #[test]
    fn ranges_and_shapes_are_checked() {
        let spec = spec(IntDtype::INT8, MappingType::Symmetric);
        assert!(choose_qparams_affine(&[0.0; 3], FloatDtype::F32, &[2, 2], &spec).is_err());
        assert!(choose_qparams_affine_with_min_max(&[0.0], &[], FloatDtype::F32, &spec).is_err());
        assert!(choose_qparams_affine_dont_preserve_zero(&[0.0], FloatDtype::F32, &[1], &spec).is_err());
        let empty = choose_qparams_affine(&[], FloatDtype::F32, &[0, 4], &spec).unwrap();
        assert!(empty.scale.is_empty());
    }
}
