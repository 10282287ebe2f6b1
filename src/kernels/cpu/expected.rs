//! Where a CPU product is expected to be slower than a float one: a rule over the outputs and the kind of product.
//!
//! A float product reads its weight as it is; an integer or weight-only one first quantizes or packs the activations, K values a row, and
//! that pays only over enough outputs.

use super::CpuWeight;
use crate::kernels::Expected;

/// Outputs below which a layer is left in float: its weight is small, and batches are slower than in float.
const FEW_OUTPUTS: usize = 16;
/// Rows of activations from which too few outputs cost more than they save.
const ROWS: usize = 8;

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
            _ => Expected::Faster,
        }
    }
}
