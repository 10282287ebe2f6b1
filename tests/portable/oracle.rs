//! A quantized product, one element at a time.

use burn_quantized::dtype::FloatDtype;
use burn_quantized::primitives::{Affine, ZeroPoints, choose_qparams_affine, dequantize_affine, quantize_affine};
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, BlockGrid, Granularity};
use burn_quantized::tensor::AffineQuantizedTensor;

/// What a product must give: the tolerance is 0 where the result is integer arithmetic with one written order.
pub struct Expected {
    pub output: Vec<f32>,
    pub tolerance: Vec<f32>,
}

struct Codes {
    codes: Vec<i32>,
    scale: Vec<f32>,
    zero_point: Vec<i32>,
    dequantized: Vec<f32>,
}

/// `x[m, a] · w[a, b]` in f64, with the tolerance of a float sum.
pub fn matmul(x: &[f32], w: &[f32], m: usize, a: usize, b: usize) -> Expected {
    let (mut output, mut tolerance) = (Vec::new(), Vec::new());
    for row in 0..m {
        for column in 0..b {
            let terms = (0..a).map(|i| x[row * a + i] as f64 * w[i * b + column] as f64);
            output.push(terms.clone().sum::<f64>() as f32);
            tolerance.push((terms.map(f64::abs).sum::<f64>() * 2.0 * a as f64 * f32::EPSILON as f64) as f32);
        }
    }
    Expected { output, tolerance }
}

fn quantize(x: &[f32], t: FloatDtype, m: usize, k: usize, activation: &ActivationQuantization) -> Option<Codes> {
    let (scale, scale_dtype, zero_point, low, high) = match *activation {
        ActivationQuantization::None => return None,
        ActivationQuantization::Static {
            scale,
            zero_point,
            quant_min,
            quant_max,
            ..
        } => (
            vec![scale; m],
            FloatDtype::F32,
            vec![zero_point; m],
            quant_min,
            quant_max,
        ),
        ActivationQuantization::Dynamic {
            mapping,
            scale,
            dtype,
            quant_min,
            quant_max,
            eps,
            scale_in_input_dtype,
        } => {
            let granularity = match scale {
                ActivationScale::PerToken => Granularity::PerToken,
                ActivationScale::PerTensor => Granularity::PerTensor,
            };
            let scale_dtype = if scale_in_input_dtype { t } else { FloatDtype::F32 };
            let mut spec = AffineSpec::new(dtype, mapping, granularity)
                .with_range(quant_min, quant_max)
                .with_scale_dtype(scale_dtype);
            spec.eps = eps;
            let params = choose_qparams_affine(x, t, &[m, k], &spec).unwrap();
            let ZeroPoints::Int(zero) = params.zero_point else {
                panic!("an integer zero point")
            };
            let per_row = m / params.scale.len();
            let spread = |row: usize| row / per_row;
            let scale = (0..m).map(|row| params.scale[spread(row)]).collect();
            let zero = (0..m).map(|row| zero[spread(row)]).collect();
            (scale, scale_dtype, zero, quant_min, quant_max)
        }
    };
    let affine = Affine {
        grid: &BlockGrid::new(&[m, k], &[1, k]).unwrap(),
        scale: &scale,
        scale_dtype,
        zero_point: &ZeroPoints::Int(zero_point.clone()),
        zero_point_dtype: t,
        quant_min: low,
        quant_max: high,
    };
    let codes = quantize_affine(x, t, &affine);
    let dequantized = dequantize_affine(&codes, &affine, t);
    Some(Codes {
        codes,
        scale,
        zero_point,
        dequantized,
    })
}

/// `x[m, K]` by `weight[N, K]`, K at least 1.
pub fn linear(
    x: &[f32],
    t: FloatDtype,
    m: usize,
    weight: &AffineQuantizedTensor,
    activation: &ActivationQuantization,
    bias: Option<&[f32]>,
) -> Expected {
    let (n, k) = (weight.shape()[0], weight.shape()[1]);
    let (parts, grid) = (weight.parts(), weight.grid());
    let codes = weight.codes();
    let values = weight.dequantize(FloatDtype::F32);
    let integer = |at: usize| match &parts.zero_point {
        ZeroPoints::Int(zero) => Some((codes[at] - zero[grid.block_of(at)]) as i64),
        ZeroPoints::None => Some(codes[at] as i64),
        ZeroPoints::Float(_) => None,
    };
    let bad: Vec<bool> = x.chunks(k).map(|row| row.iter().any(|x| !x.is_finite())).collect();
    let clean: Vec<f32> = (0..m * k).map(|i| if bad[i / k] { 0.0 } else { x[i] }).collect();
    let quantized = quantize(&clean, t, m, k, activation);
    let per_row = parts.block_size[1] == k;
    let mut expected = Expected {
        output: Vec::new(),
        tolerance: Vec::new(),
    };
    for row in 0..m {
        for out in 0..n {
            let scale = |column: usize| parts.scale[grid.block_of(out * k + column)];
            let bias = bias.map_or(0.0, |bias| bias[out]);
            let has_integers = integer(out * k).is_some();
            let (y, sum_of_magnitudes) = match (&quantized, has_integers) {
                (Some(q), true) => {
                    let (sx, zx) = (q.scale[row], q.zero_point[row]);
                    let y = if per_row {
                        let terms = (0..k).map(|i| q.codes[row * k + i] as i64 * integer(out * k + i).unwrap());
                        let acc: i64 = terms.sum();
                        let sum: i64 = (0..k).map(|i| integer(out * k + i).unwrap()).sum();
                        let t0 = t.round(acc as f32 * sx);
                        t.round(t0 - t.round((zx as f32 * sx) * sum as f32)) * scale(0)
                    } else {
                        let mut sum = 0.0f32;
                        for start in (0..k).step_by(parts.block_size[1]) {
                            let end = k.min(start + parts.block_size[1]);
                            let terms = (start..end)
                                .map(|i| (q.codes[row * k + i] - zx) as i64 * integer(out * k + i).unwrap());
                            sum += terms.sum::<i64>() as f32 * scale(start);
                        }
                        sum * sx
                    };
                    (y + bias, 0.0)
                }
                (q, _) => {
                    let x = q.as_ref().map_or(x, |q| &q.dequantized);
                    let terms = (0..k).map(|i| x[row * k + i] as f64 * values[out * k + i] as f64);
                    let exact = terms.clone().sum::<f64>();
                    let y = if per_row && has_integers {
                        let sum: f64 = (0..k)
                            .map(|i| x[row * k + i] as f64 * integer(out * k + i).unwrap() as f64)
                            .sum();
                        t.round(t.round(sum as f32) * t.round(scale(0)))
                    } else {
                        exact as f32
                    };
                    (y + bias, terms.map(f64::abs).sum::<f64>())
                }
            };
            let ulp = match t {
                FloatDtype::F32 => 0.0,
                FloatDtype::F16 => 2.0f32.powi(-9),
                FloatDtype::BF16 => 2.0f32.powi(-6),
            };
            let nan = bad[row] && quantized.is_some();
            expected.output.push(t.round(if nan { f32::NAN } else { y }));
            expected.tolerance.push(match sum_of_magnitudes {
                0.0 => 0.0,
                sum => (2.0 * k as f64 * f32::EPSILON as f64 * sum) as f32 + ulp * (y.abs() + bias.abs()),
            });
        }
    }
    expected
}
