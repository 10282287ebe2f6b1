//! What is measured, and which rows have a goal.

use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::spec::{ActivationQuantization, ActivationScale};

/// A quantization worth a row.
#[derive(Clone, Copy)]
pub struct Config {
    pub name: &'static str,
    /// Dtype of x and y, and of grouped scales.
    pub dtype: FloatDtype,
    pub weight: IntDtype,
    /// Values along K that share a scale; `None`: all.
    pub group: Option<usize>,
    /// Float zero points, as tinygemm has them; else none.
    pub float_zero: bool,
    pub activation: ActivationQuantization,
    /// The product alone, on activations that are codes already.
    pub alone: bool,
}

/// Every quantization, in the order of the table.
pub fn configs() -> Vec<Config> {
    use FloatDtype::{BF16, F16};
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    let config = |name, dtype, weight, group| Config {
        name,
        dtype,
        weight,
        group,
        float_zero: false,
        activation: ActivationQuantization::None,
        alone: false,
    };
    let mut all = vec![];
    for dtype in [F16, BF16] {
        all.push(config("w4a16-g128", dtype, IntDtype::INT4, Some(128)));
        all.push(Config {
            float_zero: true,
            ..config("w4a16-g128-float", dtype, IntDtype::UINT4, Some(128))
        });
        all.push(config("w8a16", dtype, IntDtype::INT8, None));
        let w8a8 = Config {
            activation: int8,
            ..config("w8a8", dtype, IntDtype::INT8, None)
        };
        all.push(w8a8);
        all.push(Config {
            name: "w8a8-product",
            alone: true,
            ..w8a8
        });
        all.push(Config {
            activation: ActivationQuantization::int8_dynamic_asymmetric(),
            ..config("w4a8-g128", dtype, IntDtype::INT4, Some(128))
        });
    }
    all
}

impl Config {
    /// Whether the goal table has the row.
    pub fn is_goal(&self, m: usize, k: usize, n: usize) -> bool {
        let (square, wide) = ((k, n) == (4096, 4096), k.max(n) == 14336);
        match (self.name, self.dtype) {
            ("w4a16-g128", _) => wide && m <= 256 || square && m == 1,
            ("w8a16", _) => m == 1 && n == 14336,
            ("w8a8-product", FloatDtype::F16) => square && m == 4096,
            ("w8a8", FloatDtype::F16) => square && [16, 256, 4096].contains(&m),
            _ => false,
        }
    }

    /// What `--only` looks at.
    pub fn label(&self, m: usize, k: usize, n: usize) -> String {
        label(self.name, self.dtype, m, k, n)
    }
}

/// What `--only` looks at; every part ends with a space.
pub fn label(name: &str, dtype: FloatDtype, m: usize, k: usize, n: usize) -> String {
    format!("{name} {dtype} m{m} k{k} n{n} ")
}
