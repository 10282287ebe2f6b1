//! The reference linear: what a quantized layer computes, written once. Every kernel is held to it.
//!
//! With activations `x [M, K]` of dtype T, a weight `[N, K]` of codes `w` with scales `sw` and zero points `zw`, and `bias [N]`, every
//! operation in f32, left to right, `T(…)` rounding to T:
//!
//! ```text
//! A  activation of a signed dtype, one weight scale along K
//!        acc = Σ xq · (w − zw)                                       integers
//!        t   = T(f32(acc) · sx)
//!        t   = T(t − T((f32(zx) · sx) · f32(Σ (w − zw))))            where the activation has zero points
//!        t   = 0                                                     where acc = zx · Σ (w − zw)
//!        y   = T(t · sw + bias)
//! U  activation of an unsigned dtype, one weight scale along K
//!        t   = T(f32(Σ (xq − zx) · (w − zw)) · sx)                   integers inside Σ
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
//! Integer sums are exact, so kernels give the bits of A, U and B: A is torchao's int8 linear, with a third line that makes an
//! all-zero row an exact zero under any zero point. Where torchao has no integer product, U and B subtract the zero point in
//! integers, where no digits are lost. Float sums (Σ x in C, D, E) are f64 here; a kernel may take any order, with
//! |y − y_ref| ≤ 2·K·ε·Σ|x·w|, ε that of its f32 accumulator.
//!
//! A row of `x` that holds a NaN or an infinity gives a row of NaN. An all-zero row gives zeros plus bias.
//!
//! Source: torchao `quantization/quantize_/workflows/int8/int8_tensor.py`, `intx/intx_unpacked_to_int8_tensor.py`.

use crate::dtype::FloatDtype;
use crate::primitives::{ZeroPoints, dot_float, dot_int};
use crate::spec::ActivationQuantization;
use crate::tensor::{AffineQuantizedTensor, QuantizedActivation, quantize_activation};
use core::ops::Range;

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
    let problem = Problem {
        rows,
        n,
        k,
        dtype,
        bias,
    };
    if k == 0 {
        return problem.outputs(|_, col| problem.rounded(0.0, col));
    }
    let quantized = quantize_activation(x, rows, k, dtype, activation);
    if let ZeroPoints::Float(_) = weight.parts().zero_point {
        let x = quantized.map_or_else(|| x.to_vec(), |x| x.dequantize(dtype));
        return problem.expanded(&x, &weight.dequantize(dtype));
    }
    let weight = CenteredWeight::new(weight);
    match quantized {
        None if weight.groups == 1 => problem.weight_only(x, &weight),
        None => problem.weight_only_grouped(x, &weight),
        Some(x) if weight.groups > 1 => problem.grouped(&x, &weight),
        Some(x) if activation.is_signed() => problem.signed(&x, &weight),
        Some(x) => problem.unsigned(&x, &weight),
    }
}

/// The sizes, the dtype T and the bias of a product; one method a case of the module's formulas.
struct Problem<'a> {
    rows: usize,
    n: usize,
    k: usize,
    dtype: FloatDtype,
    bias: Option<&'a [f32]>,
}

impl Problem<'_> {
    fn outputs(&self, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        (0..self.rows * self.n)
            .map(|at| value(at / self.n, at % self.n))
            .collect()
    }

    fn row<'x, T>(&self, matrix: &'x [T], row: usize) -> &'x [T] {
        &matrix[row * self.k..(row + 1) * self.k]
    }

    /// `T(y + bias)`, the sum in f32.
    fn rounded(&self, y: f32, col: usize) -> f32 {
        self.dtype.round(self.bias.map_or(y, |bias| y + bias[col]))
    }

    /// `T(sum + bias)`, the sum in f64.
    fn rounded_sum(&self, sum: f64, col: usize) -> f32 {
        self.dtype
            .round(self.bias.map_or(sum, |bias| sum + bias[col] as f64) as f32)
    }

    /// Case A.
    fn signed(&self, x: &QuantizedActivation, w: &CenteredWeight) -> Vec<f32> {
        let sums: Vec<i64> = (0..self.n)
            .map(|col| w.row(col).iter().map(|w| *w as i64).sum())
            .collect();
        self.outputs(|row, col| {
            let (sx, zx, sum) = (x.scale[row], x.zero_point[row], sums[col]);
            let acc = dot_int(self.row(&x.codes, row), w.row(col));
            let mut t = self.dtype.round(acc as f32 * sx);
            if zx != 0 {
                t = self.dtype.round(t - self.dtype.round((zx as f32 * sx) * sum as f32));
                if acc == zx as i64 * sum && !sx.is_nan() {
                    t = 0.0;
                }
            }
            self.rounded(t * w.scale(col, 0), col)
        })
    }

    /// Case U.
    fn unsigned(&self, x: &QuantizedActivation, w: &CenteredWeight) -> Vec<f32> {
        let centered = x.centered(self.k);
        self.outputs(|row, col| {
            let acc = dot_int(self.row(&centered, row), w.row(col));
            let t = self.dtype.round(acc as f32 * x.scale[row]);
            self.rounded(t * w.scale(col, 0), col)
        })
    }

    /// Case B.
    fn grouped(&self, x: &QuantizedActivation, w: &CenteredWeight) -> Vec<f32> {
        let centered = x.centered(self.k);
        self.outputs(|row, col| {
            let mut sum = 0f32;
            for group in 0..w.groups {
                let span = w.span(group);
                let acc = dot_int(&self.row(&centered, row)[span.clone()], &w.row(col)[span]);
                sum += acc as f32 * w.scale(col, group);
            }
            self.rounded(sum * x.scale[row], col)
        })
    }

    /// Case C.
    fn weight_only(&self, x: &[f32], w: &CenteredWeight) -> Vec<f32> {
        let floats = w.floats();
        self.outputs(|row, col| {
            let x = self.row(x, row);
            let sum = self.dtype.round(dot_float(x, self.row(&floats, col)) as f32);
            let y = self.dtype.round(sum * self.dtype.round(w.scale(col, 0)));
            finite_or_nan(x, self.rounded(y, col))
        })
    }

    /// Case D.
    fn weight_only_grouped(&self, x: &[f32], w: &CenteredWeight) -> Vec<f32> {
        let floats = w.floats();
        self.outputs(|row, col| {
            let (x, floats) = (self.row(x, row), self.row(&floats, col));
            let scaled = |group| {
                let span = w.span(group);
                w.scale(col, group) as f64 * dot_float(&x[span.clone()], &floats[span])
            };
            finite_or_nan(x, self.rounded_sum((0..w.groups).map(scaled).sum(), col))
        })
    }

    /// Case E.
    fn expanded(&self, x: &[f32], w: &[f32]) -> Vec<f32> {
        self.outputs(|row, col| {
            let x = self.row(x, row);
            finite_or_nan(x, self.rounded_sum(dot_float(x, self.row(w, col)), col))
        })
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

    fn floats(&self) -> Vec<f32> {
        self.codes.iter().map(|code| *code as f32).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::IntDtype;
    use crate::spec::{ActivationScale, AffineSpec, Granularity, MappingType, ZeroPointDomain};

    const N: usize = 3;
    const K: usize = 11;

    fn weights() -> Vec<AffineQuantizedTensor> {
        let values: Vec<f32> = (0..N * K).map(|i| ((i * 37 % 19) as f32 - 8.0) / 7.0).collect();
        let uint4 = AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, Granularity::PerGroup(4));
        let int4 = |granularity| AffineSpec::new(IntDtype::INT4, MappingType::Asymmetric, granularity);
        let specs = [
            AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerTensor),
            int4(Granularity::PerAxis(0)),
            int4(Granularity::PerGroup(4)),
            int4(Granularity::PerBlock(vec![2, 5])),
            uint4.with_zero_point_domain(ZeroPointDomain::Float),
        ];
        let quantize = |spec: &AffineSpec| AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &[N, K], spec);
        specs.iter().map(|spec| quantize(spec).unwrap()).collect()
    }

    fn activations() -> Vec<ActivationQuantization> {
        let fixed = |dtype: IntDtype, zero_point| ActivationQuantization::Static {
            scale: 0.031,
            zero_point,
            dtype,
            quant_min: dtype.min(),
            quant_max: dtype.max(),
        };
        vec![
            ActivationQuantization::None,
            ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
            ActivationQuantization::int8_dynamic(ActivationScale::PerTensor),
            ActivationQuantization::int8_dynamic_asymmetric(),
            fixed(IntDtype::INT8, -37),
            fixed(IntDtype::UINT8, 91),
        ]
    }

    fn for_each(run: impl Fn(&AffineQuantizedTensor, &ActivationQuantization)) {
        for weight in &weights() {
            for activation in &activations() {
                run(weight, activation);
            }
        }
    }

    fn row() -> Vec<f32> {
        (0..K).map(|i| (i * 5 % 7) as f32 / 3.0 - 1.0).collect()
    }

    #[test]
    fn every_case_is_near_the_product_of_dequantized_values() {
        for_each(|weight, activation| {
            let (x, bias) = (row(), [0.5, -1.0, 2.0]);
            let y = reference_linear(&x, 1, FloatDtype::F32, weight, activation, Some(&bias));
            let x =
                quantize_activation(&x, 1, K, FloatDtype::F32, activation).map_or(x, |x| x.dequantize(FloatDtype::F32));
            let w = weight.dequantize(FloatDtype::F32);
            for (col, y) in y.iter().enumerate() {
                let want = dot_float(&x, &w[col * K..(col + 1) * K]) as f32 + bias[col];
                assert!(
                    (y - want).abs() < 1e-4,
                    "{activation:?} {:?}: {y}, want {want}",
                    weight.parts()
                );
            }
        });
    }

    #[test]
    fn a_row_of_zeros_gives_the_bias() {
        for_each(|weight, activation| {
            let bias = [0.5, -1.0, 2.0];
            let y = reference_linear(&[0.0; K], 1, FloatDtype::F32, weight, activation, Some(&bias));
            assert_eq!(y, bias, "{activation:?} {:?}", weight.parts());
        });
    }

    #[test]
    fn a_bad_value_spoils_its_row_alone() {
        for_each(|weight, activation| {
            let alone = reference_linear(&row(), 1, FloatDtype::F32, weight, activation, None);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in 0..K {
                    let mut x = [row(), row(), row()].concat();
                    x[K + at] = bad;
                    let y = reference_linear(&x, 3, FloatDtype::F32, weight, activation, None);
                    assert!(y[N..2 * N].iter().all(|y| y.is_nan()), "{activation:?}");
                    assert_eq!((&y[..N], &y[2 * N..]), (&alone[..], &alone[..]), "{activation:?}");
                }
            }
        });
    }

    #[test]
    fn empty_sizes_work() {
        for_each(|weight, activation| {
            assert!(reference_linear(&[], 0, FloatDtype::F32, weight, activation, None).is_empty());
        });
        let spec = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerAxis(0));
        let weight = AffineQuantizedTensor::quantize(&[], FloatDtype::F32, &[2, 0], &spec).unwrap();
        for activation in &activations() {
            let y = reference_linear(&[], 2, FloatDtype::F32, &weight, activation, Some(&[1.0, 2.0]));
            assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
        }
    }
}
