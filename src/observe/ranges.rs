//! Smallest and largest value of each block.

use crate::error::{QuantError, Result};
use crate::spec::{BlockGrid, Granularity};
use serde::{Deserialize, Serialize};

/// The range of each block of a tensor, row-major over the blocks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BlockRanges {
    blocks: Vec<usize>,
    min: Vec<f32>,
    max: Vec<f32>,
}

impl BlockRanges {
    /// The ranges of `values`, which are finite and at least one.
    ///
    /// Errors: a granularity that `shape` cannot have.
    pub(crate) fn of(values: &[f32], shape: &[usize], granularity: &Granularity) -> Result<Self> {
        let grid = BlockGrid::new(shape, &granularity.block_size(shape)?)?;
        let (mut min, mut max) = (vec![f32::INFINITY; grid.len()], vec![f32::NEG_INFINITY; grid.len()]);
        for (range, block) in grid.runs() {
            let (mut low, mut high) = (min[block], max[block]);
            for x in &values[range] {
                low = if *x < low { *x } else { low };
                high = if *x > high { *x } else { high };
            }
            (min[block], max[block]) = (low, high);
        }
        let blocks = grid.dims().iter().copied().filter(|dim| *dim != 1).collect();
        Ok(Self { blocks, min, max })
    }

    /// The range of one block, as `PerTensor` gives it.
    pub(crate) fn one(min: f32, max: f32) -> Self {
        Self {
            blocks: vec![],
            min: vec![min],
            max: vec![max],
        }
    }

    /// The same blocks with other ranges.
    pub(crate) fn with(&self, min: Vec<f32>, max: Vec<f32>) -> Self {
        let blocks = self.blocks.clone();
        Self { blocks, min, max }
    }

    /// Smallest values, one a block.
    pub fn min(&self) -> &[f32] {
        &self.min
    }

    /// Largest values, one a block.
    pub fn max(&self) -> &[f32] {
        &self.max
    }

    /// Widens each range to hold `other`'s. Errors where the blocks are not the same; dims of one block are not compared.
    pub(crate) fn widen(&mut self, other: &Self) -> Result<()> {
        self.check_same_blocks(other)?;
        for (a, b) in self.min.iter_mut().zip(&other.min) {
            *a = a.min(*b);
        }
        for (a, b) in self.max.iter_mut().zip(&other.max) {
            *a = a.max(*b);
        }
        Ok(())
    }

    pub(crate) fn check_same_blocks(&self, other: &Self) -> Result<()> {
        if self.blocks == other.blocks {
            return Ok(());
        }
        Err(QuantError::ShapeMismatch {
            what: "blocks of a calibration batch (dims of one block left out)".into(),
            expected: self.blocks.clone(),
            got: other.blocks.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_may_have_another_batch_dim_but_not_another_number() {
        let axis = Granularity::PerAxis(-1);
        let mut ranges = BlockRanges::of(&[1.0, -2.0, 3.0, 4.0], &[2, 2], &axis).unwrap();
        ranges
            .widen(&BlockRanges::of(&[5.0, -7.0], &[1, 1, 2], &axis).unwrap())
            .unwrap();
        assert_eq!((ranges.min(), ranges.max()), (&[1.0, -7.0][..], &[5.0, 4.0][..]));
        let other = BlockRanges::of(&[1.0, 2.0, 3.0], &[1, 3], &axis).unwrap();
        assert!(matches!(ranges.widen(&other), Err(QuantError::ShapeMismatch { .. })));
    }
}
