//! One row: its answer checked, its time, and the memory readings beside it.

use crate::baseline::{Baseline, Matrix};
use crate::configs::{BASE_ROWS, Config};
use crate::machine::Machine;
use crate::timing::{median, seconds};
use burn_flex::{Flex, FlexTensor};
use burn_quantized::dtype::FloatDtype;
use burn_quantized::kernels::cpu::CpuWeight;
use burn_quantized::kernels::{Native, QuantKernels};
use burn_quantized::tensor::{AffineQuantizedTensor, reference_linear};
use burn_std::{DType, FloatDType};

/// Fewest pairs of a row, unless it is slow and time is short.
const MIN_PAIRS: usize = 3;
/// Seconds from which on a float product serves several pairs.
const SLOW_FLOAT: f64 = 0.05;

/// A packed weight in as many copies as the rotation takes, and its first rows before packing.
pub struct Packed {
    pub base: AffineQuantizedTensor,
    pub copies: Vec<CpuWeight>,
    pub bytes: usize,
}

impl Packed {
    /// Copies that fill `rotation` bytes.
    pub fn new(weight: CpuWeight, base: AffineQuantizedTensor, rotation: usize) -> Self {
        let bytes = weight.bytes();
        let copies = vec![weight; rotation.div_ceil(bytes)];
        Self { base, copies, bytes }
    }
}

/// Medians of one row, in seconds.
pub struct Times {
    pub quantized: f64,
    pub float: f64,
    /// The median of the pairs' ratios float / quantized.
    pub ratio_to_float: f64,
    pub stock: f64,
    /// The fastest reader over the same bytes.
    pub read: f64,
    pub pairs: usize,
}

/// Checks and times the product of the first `m` activations with a weight, on the threads of the current pool, in about `time` seconds.
pub fn measure(
    machine: &Machine,
    baseline: &Baseline,
    config: &Config,
    packed: &Packed,
    m: usize,
    (runs, time): (usize, f64),
) -> Times {
    let x = baseline.activation(m);
    let input = input(&x, config.input);
    let product = |turn: usize| {
        <Native as QuantKernels<Flex>>::linear(input.clone(), &packed.copies[turn % packed.copies.len()], None)
    };
    check(baseline, config, packed, m, product(0));
    let stock = baseline.stock_seconds(&x);

    let mut read = machine.read_seconds(packed.bytes);
    let mut turn = 0;
    let mut quantized = || {
        turn += 1;
        seconds(|| product(turn))
    };
    // The first pair warms up, unless a pair takes so long that it does not need to.
    let (mut float, first) = (baseline.float_seconds(&x), quantized());
    let once = first + float;
    let mut pairs = if once < 0.2 { vec![] } else { vec![(first, float)] };
    // Where three would take far more than the time of the row, one must do.
    let least = if once > MIN_PAIRS as f64 * time { 1 } else { MIN_PAIRS };
    let wanted = ((time / once) as usize).clamp(least, runs.max(least)) | 1;
    while pairs.len() < wanted {
        // A slow float product is timed once for `MIN_PAIRS` runs beside it.
        if float < SLOW_FLOAT || pairs.len().is_multiple_of(MIN_PAIRS) {
            float = baseline.float_seconds(&x);
        }
        pairs.push((quantized(), float));
    }
    read = read.min(machine.read_seconds(packed.bytes));
    Times {
        quantized: median(pairs.iter().map(|pair| pair.0).collect()),
        float: median(pairs.iter().map(|pair| pair.1).collect()),
        ratio_to_float: median(pairs.iter().map(|pair| pair.1 / pair.0).collect()),
        stock,
        read,
        pairs: pairs.len(),
    }
}

/// The activations in the dtype of the config.
fn input(x: &Matrix, dtype: FloatDtype) -> FlexTensor {
    let x = match dtype {
        FloatDtype::F32 => x.clone(),
        FloatDtype::F16 => x.clone().cast(FloatDType::F16),
        FloatDtype::BF16 => x.clone().cast(FloatDType::BF16),
    };
    x.into_primitive().tensor()
}

/// The first and the last row against the scalar reference: equal where activations are integers, else inside the bound of float sums.
fn check(baseline: &Baseline, config: &Config, packed: &Packed, m: usize, y: FlexTensor) {
    let (k, n, dtype) = (baseline.k, baseline.n, config.input);
    assert_eq!(
        y.dtype() == DType::F32,
        dtype == FloatDtype::F32,
        "an output has the dtype of its input"
    );
    let y = Matrix::from_primitive(burn::tensor::TensorPrimitive::Float(y)).cast(FloatDType::F32);
    let y = y.into_data().to_vec::<f32>().expect("floats");
    let values = packed.base.dequantize(FloatDtype::F32);
    // One step of the output's dtype.
    let step = match dtype {
        FloatDtype::F32 => 0.0,
        FloatDtype::F16 => 2f32.powi(-10),
        FloatDtype::BF16 => 2f32.powi(-7),
    };
    for row in if m == 1 { vec![0] } else { vec![0, m - 1] } {
        let x: Vec<f32> = baseline.x[row * k..][..k].iter().map(|x| dtype.round(*x)).collect();
        let want = reference_linear(&x, 1, dtype, &packed.base, &config.activation(), None);
        for (col, got) in y[row * n..][..n].iter().enumerate() {
            let (want, w) = (want[col % BASE_ROWS], &values[col % BASE_ROWS * k..][..k]);
            let bound = if config.int8 || *got == want {
                0.0
            } else {
                let size: f32 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
                2.0 * k as f32 * f32::EPSILON * size + step * want.abs()
            };
            let kernel = config.kernel();
            assert!(
                (got - want).abs() <= bound,
                "{kernel}, M={m}: output {row},{col} is {got}, not {want} ± {bound}"
            );
        }
    }
}
