//! The reference linear: what a quantized layer computes, written once. Every kernel is held to it.
//!
//! With activations `x [M, K]` of dtype T, a weight `[N, K]` of codes `w` with scales `sw` and zero points `zw`, and `bias [N]`, every
//! operation in f32, left to right, `T(…)` rounding to T:
//!
//! ```text
//! A  quantized activation, one weight scale along K
//!        acc = Σ xq · (w − zw)                                       integers
//!        t   = T(f32(acc) · sx)
//!        t   = T(t − T((f32(zx) · sx) · f32(Σ (w − zw))))            where the activation has zero points
//!        t   = 0                                                     where acc = zx · Σ (w − zw)
//!        y   = T(t · sw + bias)
//! B  quantized activation, weight scales in groups along K
//!        sum = 0; for each group: sum = sum + f32(Σ (xq − zx) · (w − zw)) · sw          integers inside Σ
//!        y   = T(sum · sx + bias)
//! C  float activation, one weight scale along K
//!        y   = T(T(Σ x · (w − zw)) · T(sw));  with bias  y = T(y + bias)
//! D  float activation, weight scales in groups along K
//!        y   = T(Σ over groups of sw · (Σ x · (w − zw)) + bias)
//! E  weight with float zero points, whatever the activation
//!        y   = T(Σ x · dequantized(w) + bias)                        both dequantized to T
//! ```
//!
//! Integer sums are exact, so kernels give the bits of A and B: the first two lines of A are torchao's int8 linear, its third makes
//! an all-zero row an exact zero under any zero point. Float sums (Σ x in C, D, E) are f64 here; a kernel may take any order, with
//! |y − y_ref| ≤ 2·K·ε·Σ|x·w|, ε that of its f32 accumulator.
//!
//! A row of `x` that holds a NaN or an infinity gives a row of NaN. An all-zero row gives zeros plus bias.
//!
//! Source: torchao `quantization/quantize_/workflows/int8/int8_tensor.py`, `intx/intx_unpacked_to_int8_tensor.py`.

use crate::dtype::FloatDtype;
use crate::primitives::{
    Affine, ZeroPoints, choose_qparams_affine_with_min_max, dequantize_affine, dot_float, dot_int, quantize_affine,
};
use crate::spec::{ActivationQuantization, ActivationScale, AffineSpec, BlockGrid, Granularity};
use crate::tensor::AffineQuantizedTensor;
use core::ops::Range;

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
    let row = |at: usize| &x[at * k..(at + 1) * k];
    let finite: Vec<bool> = (0..rows).map(|at| row(at).iter().all(|x| x.is_finite())).collect();
    let (mut scale, zero_point, scale_dtype, quant_min, quant_max) = match *activation {
        ActivationQuantization::None => return None,
        ActivationQuantization::Static {
            scale,
            zero_point,
            quant_min,
            quant_max,
            ..
        } => (
            vec![scale; rows],
            vec![zero_point; rows],
            FloatDtype::F32,
            quant_min,
            quant_max,
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
            let scale_dtype = if scale_in_input_dtype { dtype } else { FloatDtype::F32 };
            let spec = AffineSpec {
                eps,
                ..AffineSpec::new(codes, mapping, Granularity::PerToken)
                    .with_range(quant_min, quant_max)
                    .with_scale_dtype(scale_dtype)
            };
            let mut ranges: Vec<_> = (0..rows)
                .map(|at| if finite[at] { range(row(at)) } else { (0.0, 0.0) })
                .collect();
            if scale == ActivationScale::PerTensor {
                let whole = ranges
                    .iter()
                    .fold((0f32, 0f32), |(min, max), row| (min.min(row.0), max.max(row.1)));
                ranges.fill(whole);
            }
            let (min, max): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
            let params =
                choose_qparams_affine_with_min_max(&min, &max, dtype, &spec).expect("as many minima as maxima");
            let ZeroPoints::Int(zero_point) = params.zero_point else {
                unreachable!("an activation has integer zero points");
            };
            (params.scale, zero_point, scale_dtype, quant_min, quant_max)
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

/// `y [rows, N]` of dtype T = `dtype`: `x [rows, K]` times the transposed `weight [N, K]`, plus `bias [N]`, as the
/// [module](self) says.
///
/// `x` and `bias` hold values of T.
///
/// # Panics
/// If the weight is not of rank 2, or `x` or `bias` does not fit it.
pub fn reference_linear(
    x: &[f32],
    rows: usize,
    dtype: FloatDtype,
    weight: &AffineQuantizedTensor,
    activation: &ActivationQuantization,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let &[n, k] = weight.shape() else {
        panic!("a weight is [N, K], not {:?}", weight.shape());
    };
    assert_eq!(x.len(), rows * k, "{rows} rows of activations for a weight of {n}x{k}");
    assert!(bias.is_none_or(|bias| bias.len() == n), "a bias for {n} outputs");
    let bias_of = |col: usize| bias.map_or(0.0, |bias| bias[col]);
    let each = |value: &dyn Fn(usize, usize) -> f32| (0..rows * n).map(|at| value(at / n, at % n)).collect();
    if k == 0 {
        return each(&|_, col| bias_of(col));
    }
    let quantized = quantize_activation(x, rows, k, dtype, activation);
    if let ZeroPoints::Float(_) = weight.parts().zero_point {
        let x = quantized.map_or_else(|| x.to_vec(), |x| x.dequantize(dtype));
        let w = weight.dequantize(dtype);
        return each(&|row, col| {
            let x = &x[row * k..(row + 1) * k];
            let sum = dot_float(x, &w[col * k..(col + 1) * k]) + bias_of(col) as f64;
            finite_or_nan(x, dtype.round(sum as f32))
        });
    }
    let weight = CenteredWeight::new(weight);
    match quantized {
        Some(x) if weight.groups == 1 => {
            let asymmetric = x.zero_point.iter().any(|zero| *zero != 0);
            let sums: Vec<i64> = (0..n)
                .map(|col| weight.row(col).iter().map(|w| *w as i64).sum())
                .collect();
            each(&|row, col| {
                let (sx, zx) = (x.scale[row], x.zero_point[row]);
                let acc = dot_int(&x.codes[row * k..(row + 1) * k], weight.row(col));
                let mut t = dtype.round(acc as f32 * sx);
                if asymmetric {
                    t = dtype.round(t - dtype.round((zx as f32 * sx) * sums[col] as f32));
                    if acc == zx as i64 * sums[col] && !sx.is_nan() {
                        t = 0.0;
                    }
                }
                dtype.round(t * weight.scale(col, 0) + bias_of(col))
            })
        }
        Some(x) => {
            let centered: Vec<i32> = x
                .codes
                .iter()
                .enumerate()
                .map(|(at, code)| code - x.zero_point[at / k])
                .collect();
            each(&|row, col| {
                let mut sum = 0f32;
                for group in 0..weight.groups {
                    let span = weight.span(group);
                    let acc = dot_int(&centered[row * k..][span.clone()], &weight.row(col)[span]);
                    sum += acc as f32 * weight.scale(col, group);
                }
                dtype.round(sum * x.scale[row] + bias_of(col))
            })
        }
        None => {
            let floats: Vec<f32> = weight.codes.iter().map(|code| *code as f32).collect();
            each(&|row, col| {
                let (x, w) = (&x[row * k..(row + 1) * k], &floats[col * k..(col + 1) * k]);
                let y = if weight.groups == 1 {
                    let sum = dtype.round(dot_float(x, w) as f32);
                    let y = dtype.round(sum * dtype.round(weight.scale(col, 0)));
                    bias.map_or(y, |bias| dtype.round(y + bias[col]))
                } else {
                    let scaled = |group| {
                        let span = weight.span(group);
                        weight.scale(col, group) as f64 * dot_float(&x[span.clone()], &w[span])
                    };
                    dtype.round(((0..weight.groups).map(scaled).sum::<f64>() + bias_of(col) as f64) as f32)
                };
                finite_or_nan(x, y)
            })
        }
    }
}

/// `y`, or NaN where the row `x` that made it is not finite.
fn finite_or_nan(x: &[f32], y: f32) -> f32 {
    if x.iter().all(|x| x.is_finite()) { y } else { f32::NAN }
}

/// A weight with zero points taken off its codes.
struct CenteredWeight<'a> {
    codes: Vec<i32>,
    scales: &'a [f32],
    k: usize,
    /// Elements along N and along K that share a scale.
    block: [usize; 2],
    /// Scales along K.
    groups: usize,
}

impl<'a> CenteredWeight<'a> {
    fn new(weight: &'a AffineQuantizedTensor) -> Self {
        let (parts, grid) = (weight.parts(), weight.grid());
        let mut codes = weight.codes();
        if let ZeroPoints::Int(zero) = &parts.zero_point {
            for (range, block) in grid.runs() {
                codes[range].iter_mut().for_each(|code| *code -= zero[block]);
            }
        }
        Self {
            codes,
            scales: &parts.scale,
            k: grid.shape()[1],
            block: [grid.block_size()[0], grid.block_size()[1]],
            groups: grid.dims()[1],
        }
    }

    fn row(&self, col: usize) -> &[i32] {
        &self.codes[col * self.k..(col + 1) * self.k]
    }

    fn span(&self, group: usize) -> Range<usize> {
        group * self.block[1]..self.k.min((group + 1) * self.block[1])
    }

    fn scale(&self, col: usize, group: usize) -> f32 {
        self.scales[col / self.block[0] * self.groups + group]
    }
}
