//! Stock Burn on the same device: the float product and the QFloat products of blocks of 32, through `Tensor::matmul`.

use crate::device::{Matrix, burn_dtype};
use burn::tensor::Distribution;
use burn::tensor::quantization::{BlockSize, QuantLevel, QuantScheme, QuantValue};
use burn_cubecl::CubeRuntime;
use burn_quantized::dtype::FloatDtype;

/// What is multiplied.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Float,
    Q8,
    Q4,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Float, Self::Q8, Self::Q4];

    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "burn-float",
            Self::Q8 => "burn-q8s-b32",
            Self::Q4 => "burn-q4s-b32",
        }
    }

    /// Bytes of a weight, scales included.
    pub fn bytes(self, elements: usize) -> usize {
        match self {
            Self::Float => 2 * elements,
            Self::Q8 => elements + elements / 8,
            Self::Q4 => elements / 2 + elements / 8,
        }
    }

    /// Weights `[K, N]` that fill the rotation, and at least 4.
    pub fn weights<R: CubeRuntime>(
        self,
        (k, n): (usize, usize),
        dtype: FloatDtype,
        rotation: usize,
        device: &R::CubeDevice,
    ) -> Vec<Matrix<R>> {
        let count = rotation.div_ceil(self.bytes(k * n)).max(4);
        let random = || Matrix::<R>::random([k, n], Distribution::Uniform(-0.03, 0.03), device);
        let scheme = |value| {
            QuantScheme::default()
                .with_value(value)
                .with_level(QuantLevel::Block(BlockSize::new([32])))
        };
        let one = |_| match self {
            Self::Float => random().cast(burn_dtype(dtype)),
            Self::Q8 => random().quantize_dynamic(&scheme(QuantValue::Q8S)),
            Self::Q4 => random().quantize_dynamic(&scheme(QuantValue::Q4S)),
        };
        (0..count).map(one).collect()
    }
}
