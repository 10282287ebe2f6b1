//! Answers: some outputs against the reference, all of them by a sum with random signs.

use crate::configs::Config;
use crate::device::Matrix;
use crate::weight::Weight;
use burn::tensor::{FloatDType, Int, Tensor, TensorData, backend::Backend};
use burn_cubecl::CubeRuntime;
use burn_quantized::dtype::FloatDtype;
use burn_quantized::tensor::reference_linear;

/// Most rows and channels that meet the reference.
const ROWS: usize = 16;
const CHANNELS: usize = 64;

/// Checks `y = x · Wᵀ`. Errors: what is wrong.
pub fn check<R: CubeRuntime>(
    config: &Config,
    weight: &Weight<R>,
    x: &Matrix<R>,
    y: Matrix<R>,
    exact: bool,
    device: &R::CubeDevice,
) -> Result<(), String> {
    let [m, k] = x.dims();
    let n = weight.signs.len();
    if y.dims() != [m, n] {
        return Err(format!("an output of {:?}, not {:?}", y.dims(), [m, n]));
    }
    let (rows, channels) = (spread(m, ROWS), spread(n, CHANNELS));
    let indices = rows.iter().map(|row| *row as i64).collect::<Vec<_>>();
    let indices = Tensor::<_, 1, Int>::from_data(TensorData::from(indices.as_slice()), device);
    let (x_rows, y_rows) = (
        floats(x.clone().select(0, indices.clone())),
        floats(y.clone().select(0, indices)),
    );
    let few = weight
        .host
        .select(0, &channels)
        .map_err(|error| format!("channels: {error}"))?;
    let want = reference_linear(&x_rows, rows.len(), config.dtype, &few, &config.activation, None);
    let dense = few.dequantize(FloatDtype::F32);
    // Half a step of a rounded output may become a whole one.
    let step = match config.dtype {
        FloatDtype::F32 => f32::EPSILON,
        FloatDtype::F16 => 2f32.powi(-10),
        FloatDtype::BF16 => 2f32.powi(-7),
    };
    for (at, want) in want.iter().enumerate() {
        let (row, channel) = (at / channels.len(), at % channels.len());
        let got = y_rows[row * n + channels[channel]];
        let products = x_rows[row * k..][..k].iter().zip(&dense[channel * k..][..k]);
        let size: f32 = products.map(|(x, w)| (x * w).abs()).sum();
        let bound = match config.activation.is_quantized() {
            true if exact => 0.0,
            true => 0.01 * want.abs() + 1e-3,
            false => 2.0 * k as f32 * f32::EPSILON * size + step * want.abs(),
        };
        let distance = (got - want).abs();
        if distance.is_nan() || distance > bound {
            return Err(format!(
                "row {} channel {}: {got}, not {want} ± {bound}",
                rows[row], channels[channel]
            ));
        }
    }
    signs(config, weight, x, y, device)
}

/// `y · v` against `x · (W v)` for every row of x.
fn signs<R: CubeRuntime>(
    config: &Config,
    weight: &Weight<R>,
    x: &Matrix<R>,
    y: Matrix<R>,
    device: &R::CubeDevice,
) -> Result<(), String> {
    let row = |values: &[f32]| Matrix::<R>::from_data(TensorData::new(values.to_vec(), [1, values.len()]), device);
    let got = floats((y.cast(FloatDType::F32) * row(&weight.signs)).sum_dim(1));
    let want = floats((x.clone().cast(FloatDType::F32) * row(&weight.sums)).sum_dim(1));
    // The size that `x · u` has for x evenly drawn from -1..1.
    let norm = (weight.sums.iter().map(|sum| sum * sum).sum::<f32>() / 3.0).sqrt();
    let share = if config.activation.is_quantized() { 0.05 } else { 0.015 };
    for (row, (got, want)) in got.iter().zip(&want).enumerate() {
        let error = (got - want).abs() / norm;
        if error.is_nan() || error > share {
            return Err(format!(
                "row {row}: the outputs add up to {got}, not {want} ({error:.3} of the usual size)"
            ));
        }
    }
    Ok(())
}

fn floats<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Up to `most` of `0..count`, both ends among them.
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| i * (count - 1) / (most - 1)).collect()
}
