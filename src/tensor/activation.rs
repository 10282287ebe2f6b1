//! An activation as integers: what a kernel's first pass computes.

use crate::dtype::FloatDtype;
use crate::primitives::{Affine, ZeroPoints, choose_qparams_affine_with_min_max, dequantize_affine, quantize_affine};
use crate::spec::{ActivationQuantization, ActivationScale, AffineSpec, BlockGrid, Granularity};

/// An activation as integers, `[rows, K]`.
#[derive(Clone, PartialEq, Debug)]
pub struct QuantizedActivation {
    /// One code an element, row-major. Every code of a row with a NaN scale is its zero point.
    pub codes: Vec<i32>,
    /// One scale a row; NaN for a row that holds a NaN or an infinity.
    pub scale: Vec<f32>,
    /// One zero point a row.
    pub zero_point: Vec<i32>,
    /// Dtype of the scales.
    pub scale_dtype: FloatDtype,
}

/// `x [rows, k]` of `dtype` as integers; `None` when `activation` keeps floats.
///
/// Parameters are chosen as by [`choose_qparams_affine`](crate::primitives::choose_qparams_affine), codes as by [`quantize_affine`].
/// A row that holds a NaN or an infinity gets a NaN scale; a scale for the whole activation comes from the other rows.
///
/// # Panics
/// If there are not `rows · k` values.
pub fn quantize_activation(
    x: &[f32],
    rows: usize,
    k: usize,
    dtype: FloatDtype,
    activation: &ActivationQuantization,
) -> Option<QuantizedActivation> {
    assert_eq!(x.len(), rows * k, "an activation of {rows} rows of {k} values");
    let finite: Vec<bool> = (0..rows)
        .map(|at| x[at * k..(at + 1) * k].iter().all(|x| x.is_finite()))
        .collect();
    let (quant_min, quant_max, (mut scale, zero_point, scale_dtype)) = match *activation {
        ActivationQuantization::None => return None,
        ActivationQuantization::Static {
            scale,
            zero_point,
            quant_min,
            quant_max,
            ..
        } => (
            quant_min,
            quant_max,
            (vec![scale; rows], vec![zero_point; rows], FloatDtype::F32),
        ),
        ActivationQuantization::Dynamic {
            mapping,
            scale,
            dtype: codes,
            quant_min,
            quant_max,
            eps,
            scale_in_input_dtype,
        } => {
            let spec = AffineSpec {
                eps,
                scale_dtype: Some(if scale_in_input_dtype { dtype } else { FloatDtype::F32 }),
                ..AffineSpec::new(codes, mapping, Granularity::PerToken).with_range(quant_min, quant_max)
            };
            let ranges = (0..rows).map(|at| {
                if finite[at] {
                    range(&x[at * k..(at + 1) * k])
                } else {
                    (0.0, 0.0)
                }
            });
            (
                quant_min,
                quant_max,
                dynamic_parameters(ranges.collect(), dtype, scale, &spec),
            )
        }
    };
    for (scale, _) in scale.iter_mut().zip(&finite).filter(|(_, finite)| !**finite) {
        *scale = f32::NAN;
    }
    let mut quantized = QuantizedActivation {
        codes: Vec::new(),
        scale,
        zero_point,
        scale_dtype,
    };
    if k > 0 {
        quantized.codes = quantized.with_affine(k, (quant_min, quant_max), |affine| quantize_affine(x, dtype, affine));
    }
    Some(quantized)
}

/// Scales, zero points and scale dtype from the range of each row.
fn dynamic_parameters(
    mut ranges: Vec<(f32, f32)>,
    dtype: FloatDtype,
    scale: ActivationScale,
    spec: &AffineSpec,
) -> (Vec<f32>, Vec<i32>, FloatDtype) {
    if scale == ActivationScale::PerTensor {
        let union = |(min, max): (f32, f32), row: &(f32, f32)| (min.min(row.0), max.max(row.1));
        let whole = ranges.iter().fold((0.0, 0.0), union);
        ranges.fill(whole);
    }
    let (min, max): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
    let params = choose_qparams_affine_with_min_max(&min, &max, dtype, spec).expect("as many minima as maxima");
    match params.zero_point {
        ZeroPoints::Int(zero) => (params.scale, zero, spec.scale_dtype.unwrap_or(dtype)),
        _ => unreachable!("an activation has integer zero points"),
    }
}

/// Smallest and largest value, zero included.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(min, max), x| (x.min(min), x.max(max)))
}

impl QuantizedActivation {
    fn with_affine<R>(&self, k: usize, (quant_min, quant_max): (i32, i32), run: impl FnOnce(&Affine) -> R) -> R {
        let grid = BlockGrid::new(&[self.scale.len(), k], &[1, k]).expect("a block a row");
        run(&Affine {
            grid: &grid,
            scale: &self.scale,
            scale_dtype: self.scale_dtype,
            zero_point: &ZeroPoints::Int(self.zero_point.clone()),
            zero_point_dtype: FloatDtype::F32,
            quant_min,
            quant_max,
        })
    }

    /// Codes less their zero points.
    pub(super) fn centered(&self, k: usize) -> Vec<i32> {
        let codes = self.codes.iter().enumerate();
        codes.map(|(at, code)| code - self.zero_point[at / k]).collect()
    }

    /// The values, row-major, representable in `dtype`; NaN in a row with a NaN scale.
    pub fn dequantize(&self, dtype: FloatDtype) -> Vec<f32> {
        match self.codes.len().checked_div(self.scale.len()) {
            None | Some(0) => Vec::new(),
            Some(k) => self.with_affine(k, (i32::MIN, i32::MAX), |affine| {
                dequantize_affine(&self.codes, affine, dtype)
            }),
        }
    }
}
