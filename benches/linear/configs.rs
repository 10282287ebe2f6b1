//! What is measured: quantizations and shapes.

use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::cpu::{CpuWeight, Preference, Tier};
use burn_quantized::primitives::ZeroPoints;
use burn_quantized::spec::{
    ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType, ZeroPointDomain,
};
use burn_quantized::tensor::{AffineParts, AffineQuantizedTensor};

/// Dtype of scales and float zero points.
const SCALE: FloatDtype = FloatDtype::BF16;
/// Weights repeat this many rows: only their number of bytes counts.
pub const BASE_ROWS: usize = 256;

/// Sizes of the weights, each with the numbers of rows of activations that meet it.
pub const SHAPES: [(usize, usize, &[usize]); 6] = [
    (4096, 4096, &[1, 8, 32, 128, 512]),
    (4096, 11008, &[1, 8, 32, 128, 512]),
    (4096, 14336, &[1, 8, 32, 128, 512]),
    (2048, 5632, &[1, 8, 32, 128, 512]),
    (784, 256, &[64]),
    (384, 1536, &[256]),
];
/// M, K and N that every other tier is measured on.
pub const OTHER_TIERS: [(usize, usize, usize); 2] = [(1, 4096, 4096), (128, 4096, 4096)];

/// A quantization worth a row.
#[derive(Clone, Copy)]
pub struct Config {
    /// Dtype of activations, of what Flex's float product gets: f32 where they become integers.
    pub input: FloatDtype,
    /// Whether activations become int8.
    pub int8: bool,
    weight: IntDtype,
    /// What a zero point of the weight is.
    zero: Zero,
    /// Values along K that share a scale; `None`: all.
    pub group: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Zero {
    None,
    Int,
    Float,
}

impl Config {
    /// `<activation><weight>`.
    pub fn kernel(&self) -> String {
        let activation = if self.int8 { "i8".into() } else { self.input.to_string() };
        let sign = if self.weight.is_signed() { "i" } else { "u" };
        format!("{activation}{sign}{}", self.weight.bits())
    }

    /// Bits of a weight code.
    pub fn bits(&self) -> u32 {
        self.weight.bits()
    }

    /// `none`, `int` or `float`.
    pub fn zero_point(&self) -> &'static str {
        match self.zero {
            Zero::None => "none",
            Zero::Int => "int",
            Zero::Float => "float",
        }
    }

    /// The treatment of activations.
    pub fn activation(&self) -> ActivationQuantization {
        match (self.int8, self.group) {
            (false, _) => ActivationQuantization::None,
            (true, None) => ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
            (true, Some(_)) => ActivationQuantization::int8_dynamic_asymmetric(),
        }
    }

    /// The first [`BASE_ROWS`] rows of the weight, quantized from values `[BASE_ROWS, K]`.
    pub fn quantize(&self, values: &[f32]) -> AffineQuantizedTensor {
        let granularity = self.group.map_or(Granularity::PerAxis(0), Granularity::PerGroup);
        let mapping = if self.zero == Zero::None {
            MappingType::Symmetric
        } else {
            MappingType::Asymmetric
        };
        let mut spec = AffineSpec::new(self.weight, mapping, granularity)
            .with_scale_dtype(SCALE)
            .with_zero_point_dtype(SCALE);
        if self.zero == Zero::Float {
            spec = spec.with_zero_point_domain(ZeroPointDomain::Float).with_eps(1e-6);
        }
        let shape = [BASE_ROWS, values.len() / BASE_ROWS];
        AffineQuantizedTensor::quantize(values, FloatDtype::F32, &shape, &spec).expect("the spec fits the shape")
    }

    /// The weight of `n` rows, packed for a tier.
    pub fn pack(&self, base: &AffineQuantizedTensor, n: usize, tier: Tier) -> CpuWeight {
        let pin = Preference::Specific(tier.name().into());
        let packed = CpuWeight::pack_for(repeat_rows(base, n), self.activation(), &pin);
        packed.expect("the tier runs here").expect("a kernel serves the weight")
    }
}

/// Every quantization, in the order of the table.
pub fn configs() -> Vec<Config> {
    let f32 = FloatDtype::F32;
    let int = |bits| IntDtype::int(bits).expect("1 to 8 bits");
    let config = |input, int8, weight, zero, group| Config {
        input,
        int8,
        weight,
        zero,
        group,
    };
    let mut out = vec![config(f32, true, int(8), Zero::None, None)];
    out.extend([32, 128].map(|group| config(f32, true, int(4), Zero::None, Some(group))));
    out.extend([2, 3, 5, 6, 7, 8].map(|bits| config(f32, true, int(bits), Zero::None, Some(128))));
    out.extend((1..=8).map(|bits| config(f32, false, int(bits), Zero::None, Some(128))));
    out.push(config(f32, false, int(8), Zero::None, None));
    out.push(config(f32, false, int(4), Zero::None, Some(32)));
    out.push(config(f32, false, IntDtype::UINT4, Zero::Int, Some(128)));
    out.extend([32, 128].map(|group| config(f32, false, IntDtype::UINT4, Zero::Float, Some(group))));
    let bf16 = FloatDtype::BF16;
    out.extend([32, 128].map(|group| config(bf16, false, int(4), Zero::None, Some(group))));
    out.push(config(bf16, false, IntDtype::UINT4, Zero::Float, Some(128)));
    out.push(config(bf16, false, int(8), Zero::None, None));
    out.push(config(FloatDtype::F16, false, int(4), Zero::None, Some(128)));
    out
}

/// `n` rows that repeat those of `base`.
fn repeat_rows(base: &AffineQuantizedTensor, n: usize) -> AffineQuantizedTensor {
    let parts = base.parts();
    let (rows, k) = (parts.shape[0], parts.shape[1]);
    assert_eq!(n % rows, 0, "{n} rows repeat {rows}");
    let times = n / rows;
    let zero_point = match &parts.zero_point {
        ZeroPoints::None => ZeroPoints::None,
        ZeroPoints::Int(zero) => ZeroPoints::Int(zero.repeat(times)),
        ZeroPoints::Float(zero) => ZeroPoints::Float(zero.repeat(times)),
    };
    let repeated = AffineParts {
        shape: vec![n, k],
        scale: parts.scale.repeat(times),
        zero_point,
        ..parts.clone()
    };
    AffineQuantizedTensor::from_packed(repeated, base.packed_codes().as_bytes().repeat(times)).expect("rows repeat")
}
