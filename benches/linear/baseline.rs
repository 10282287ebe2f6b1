//! What a row is compared with: Flex's float product and stock Burn's quantized linear, on the same threads.

use crate::configs::BASE_ROWS;
use crate::timing::{median, seconds};
use burn::tensor::module::linear;
use burn::tensor::quantization::{BlockSize, QuantLevel, QuantScheme, QuantValue};
use burn::tensor::{Tensor, TensorData};
use burn_flex::Flex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;

/// A float matrix.
pub type Matrix = Tensor<Flex, 2>;

/// Float weights of one size, rotated, and the activations that all rows share.
pub struct Baseline {
    /// Values of the first [`BASE_ROWS`] rows of the weight, `[BASE_ROWS, K]`.
    pub values: Vec<f32>,
    /// Activations, `[largest M, K]`.
    pub x: Vec<f32>,
    pub k: usize,
    pub n: usize,
    /// `[K, N]` as `nn::Linear` keeps them; each copy is its own memory.
    weights: Vec<Matrix>,
    stock: Matrix,
    /// Seconds of stock Burn's linear, for each M and number of threads.
    stock_seconds: Mutex<HashMap<(usize, usize), f64>>,
}

thread_local! {
    static TURN: Cell<usize> = const { Cell::new(0) };
}

impl Baseline {
    /// Weights that rotate through `rotation` bytes.
    pub fn new(k: usize, n: usize, rows: usize, rotation: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let mut random = |count| (0..count).map(|_| rng.random_range(-1.0f32..1.0)).collect::<Vec<_>>();
        let (values, x) = (random(BASE_ROWS * k), random(rows * k));
        let transposed = (0..k * n)
            .map(|i| values[i % n % BASE_ROWS * k + i / n])
            .collect::<Vec<_>>();
        let weight = Matrix::from_data(TensorData::new(transposed, [k, n]), &Default::default());
        let scheme = QuantScheme::default()
            .with_value(QuantValue::Q8S)
            .with_level(QuantLevel::Block(BlockSize::new([32])));
        let copies = rotation.div_ceil(k * n * 4);
        Self {
            stock: weight.clone().quantize_dynamic(&scheme),
            weights: (0..copies).map(|i| weight.clone() * (1.0 + i as f32)).collect(),
            values,
            x,
            k,
            n,
            stock_seconds: Mutex::default(),
        }
    }

    /// The first `m` activations.
    pub fn activation(&self, m: usize) -> Matrix {
        let values = self.x[..m * self.k].to_vec();
        Matrix::from_data(TensorData::new(values, [m, self.k]), &Default::default())
    }

    /// Seconds of one float product with the next weight.
    pub fn float_seconds(&self, x: &Matrix) -> f64 {
        let turn = TURN.replace(TURN.get() + 1);
        let (x, weight) = (x.clone(), self.weights[turn % self.weights.len()].clone());
        seconds(|| linear(x, weight, None))
    }

    /// Seconds of stock Burn's quantized linear on the current threads: the median of 3 runs, taken once a shape.
    pub fn stock_seconds(&self, x: &Matrix) -> f64 {
        let key = (x.dims()[0], rayon::current_num_threads());
        let mut known = self.stock_seconds.lock().expect("no thread panicked");
        *known.entry(key).or_insert_with(|| {
            let run = || seconds(|| linear(x.clone(), self.stock.clone(), None));
            median((0..3).map(|_| run()).collect())
        })
    }
}
