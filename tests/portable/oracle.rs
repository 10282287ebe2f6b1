//! What a product must give, and how far a float sum may be off.

use burn_quantized::dtype::FloatDtype;
use burn_quantized::primitives::ZeroPoints;
use burn_quantized::spec::ActivationQuantization;
use burn_quantized::tensor::{AffineQuantizedTensor, reference_linear};

/// Values, and for each the distance that is allowed: 0 where the result is integer arithmetic with one written order.
pub struct Expected {
    pub output: Vec<f32>,
    pub tolerance: Vec<f32>,
}

/// `x[m, a] · w[a, b]` in f64, with the tolerance of an f32 sum.
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

/// `x[m, K]` by `weight[N, K]`. A float sum that lands beside a tie of `dtype` may also end some units of it away.
pub fn linear(
    x: &[f32],
    dtype: FloatDtype,
    m: usize,
    weight: &AffineQuantizedTensor,
    activation: &ActivationQuantization,
    bias: Option<&[f32]>,
) -> Expected {
    let (n, k) = (weight.shape()[0], weight.shape()[1]);
    let output = reference_linear(x, m, dtype, weight, activation, bias);
    let exact = activation.is_quantized() && !matches!(weight.parts().zero_point, ZeroPoints::Float(_));
    let mut tolerance = vec![0.0; output.len()];
    if !exact {
        let unit = match dtype {
            FloatDtype::F32 => f32::EPSILON,
            FloatDtype::F16 => 2.0f32.powi(-9),
            FloatDtype::BF16 => 2.0f32.powi(-6),
        };
        let w = weight.dequantize(FloatDtype::F32);
        for (at, tolerance) in tolerance.iter_mut().enumerate() {
            let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
            let sum: f32 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
            let bias = bias.map_or(0.0, |bias| bias[at % n].abs());
            *tolerance = 2.0 * k as f32 * f32::EPSILON * sum + unit * (output[at].abs() + bias);
        }
    }
    Expected { output, tolerance }
}
