//! Where a CPU product is expected to be slower than a float one: a rule over the outputs and the kind of product.
//!
//! A float product reads its weight as it is; an integer or weight-only one first quantizes or packs the activations, K values a row, and
//! that pays only over enough outputs.

use super::weight::Zeros;
use super::{CpuWeight, Tier};
use crate::kernels::Expected;

/// Outputs below which a layer is left in float: its weight is small, and batches are slower than in float.
const FEW_OUTPUTS: usize = 16;
/// Rows of activations from which too few outputs cost more than they save.
const ROWS: usize = 8;
/// Rows from which a float product is bound by multiplications, which a weight-only product does as well.
const MANY_ROWS: usize = 128;

impl CpuWeight {
    /// How a product of a weight packed like this one, but of `outputs` channels, compares with a float product.
    pub fn expected(&self, outputs: usize) -> Expected {
        let enough = match (self.activation.is_quantized(), self.groups.count > 1) {
            (true, false) => 64,
            (true, true) => 96,
            (false, _) => 128,
        };
        let why = format!("{outputs} outputs, fewer than {enough}: slower than float at {ROWS} rows or more");
        match outputs {
            0..FEW_OUTPUTS => Expected::Slower(why),
            _ if outputs < enough => Expected::Mixed(why),
            _ => self.at_many_rows().map_or(Expected::Faster, Expected::Mixed),
        }
    }

    /// What is lost on tiers whose integers or conversions are no faster than floats: at many rows as `benches/results/cpu.md` has it, at few
    /// rows where a layer stays in a cache, as the example's do.
    fn at_many_rows(&self) -> Option<String> {
        let tier = self.tier();
        let grouped = self.groups.count > 1;
        match (tier, self.activation.is_quantized()) {
            (Tier::Scalar, _) => Some("no SIMD tier can run here: slower than a float product that has one".into()),
            (Tier::AvxVnni | Tier::Avx2, false) if matches!(self.zero, Zeros::Float { .. }) => Some(format!(
                "{tier}: every weight with a float zero point is rounded up to twice, so that a layer which stays in a cache is about as \
                 fast as float at 1 row, 0.9 to 1.3 times, and slower at 2 to 4, down to 0.6; from {MANY_ROWS} rows on it is about as \
                 fast, 0.9 to 1.9 times"
            )),
            (Tier::AvxVnni | Tier::Avx2, false) if grouped && self.groups.size <= 32 => Some(format!(
                "{tier}: at 1 row a weight-only product of small groups that stays in a cache is about as fast as float, 0.9 to 1.4 \
                 times, and from {MANY_ROWS} rows on, 0.7 to 2.1 times"
            )),
            (Tier::AvxVnni | Tier::Avx2, false) => Some(format!(
                "{tier}: from {MANY_ROWS} rows on a weight-only product is about as fast as float, 0.7 to 1.9 times"
            )),
            (Tier::Avx2, true) if grouped && self.groups.size <= 32 => Some(format!(
                "{tier}: from {MANY_ROWS} rows on a product of small groups gains little over float: 1.2 to 2.3 times as fast with 4 bits"
            )),
            _ => None,
        }
    }
}
