//! How many elements share one scale: granularity → block size → grid of blocks.

use crate::error::{QuantError, Result};
use core::fmt;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Which elements of a tensor share a scale and a zero point. Negative dims count from the end.
///
/// Source: torchao `quantization/granularity.py`, `quantization/utils.py::get_block_size`.
///
/// ```
/// use burn_quantized::spec::Granularity;
/// assert_eq!(Granularity::PerAxis(0).block_size(&[4, 6]).unwrap(), [1, 6]);
/// assert_eq!(Granularity::PerRow(-1).block_size(&[4, 6]).unwrap(), [1, 6]);
/// assert_eq!(Granularity::PerGroup(2).block_size(&[4, 6]).unwrap(), [1, 2]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Granularity {
    /// One scale for the whole tensor.
    PerTensor,
    /// One scale for each index of this axis; the axis is *kept*.
    PerAxis(isize),
    /// One scale for each position of the other dims; this dim is *reduced* (the opposite word to `PerAxis`).
    PerRow(isize),
    /// `PerRow` of the last dim: one scale for each token.
    PerToken,
    /// One scale for each run of this many elements of the last dim; a shorter last run has its own.
    PerGroup(usize),
    /// One scale for each block of this shape; missing leading dims count as 1.
    PerBlock(Vec<usize>),
}

impl Granularity {
    /// Elements along each dim that share a scale. Every entry is at least 1 and at most the dim (or 1 where the dim is 0).
    ///
    /// Errors: a dim that the shape does not have, a zero group or block, a block of higher rank than the shape.
    pub fn block_size(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let invalid = |reason: String| QuantError::InvalidGranularity {
            granularity: self.to_string(),
            shape: shape.to_vec(),
            reason,
        };
        let rank = shape.len();
        let axis = |dim: isize| {
            let at = if dim < 0 { dim + rank as isize } else { dim };
            usize::try_from(at)
                .ok()
                .filter(|at| *at < rank)
                .ok_or_else(|| invalid(format!("there is no dim {dim}")))
        };
        let mut block = match self {
            Self::PerTensor => shape.to_vec(),
            Self::PerAxis(dim) => {
                let mut block = shape.to_vec();
                block[axis(*dim)?] = 1;
                block
            }
            Self::PerRow(dim) => {
                let at = axis(*dim)?;
                let mut block = vec![1; rank];
                block[at] = shape[at];
                block
            }
            Self::PerToken => return Self::PerRow(-1).block_size(shape),
            Self::PerGroup(0) => return Err(invalid("a group needs at least one element".into())),
            Self::PerGroup(group) => {
                let at = axis(-1)?;
                let mut block = vec![1; rank];
                block[at] = *group;
                block
            }
            Self::PerBlock(sizes) => {
                if sizes.len() > rank {
                    return Err(invalid(format!("the block has {} dims", sizes.len())));
                }
                if sizes.contains(&0) {
                    return Err(invalid("a block needs at least one element".into()));
                }
                let mut block = vec![1; rank - sizes.len()];
                block.extend(sizes);
                block
            }
        };
        for (size, dim) in block.iter_mut().zip(shape) {
            *size = (*size).min(*dim).max(1);
        }
        Ok(block)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTensor => f.write_str("per_tensor"),
            Self::PerAxis(dim) => write!(f, "per_axis({dim})"),
            Self::PerRow(dim) => write!(f, "per_row({dim})"),
            Self::PerToken => f.write_str("per_token"),
            Self::PerGroup(group) => write!(f, "per_group({group})"),
            Self::PerBlock(block) => write!(f, "per_block({block:?})"),
        }
    }
}

/// The blocks of a tensor, row-major: which block an element belongs to.
///
/// A dim that its block does not divide ends in a shorter block (the tail rule).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockGrid {
    shape: Vec<usize>,
    block: Vec<usize>,
    grid: Vec<usize>,
}

impl BlockGrid {
    /// The grid of `block` over `shape`. Errors when the ranks differ or a block is 0.
    pub fn new(shape: &[usize], block: &[usize]) -> Result<Self> {
        if shape.len() != block.len() || block.contains(&0) {
            return Err(QuantError::ShapeMismatch {
                what: "block size (one entry of at least 1 for each dim)".into(),
                expected: shape.to_vec(),
                got: block.to_vec(),
            });
        }
        let grid = shape.iter().zip(block).map(|(dim, size)| dim.div_ceil(*size)).collect();
        Ok(Self {
            shape: shape.to_vec(),
            block: block.to_vec(),
            grid,
        })
    }

    /// Blocks along each dim: the shape of a scale with `keepdim`.
    pub fn dims(&self) -> &[usize] {
        &self.grid
    }

    /// The number of blocks, and so of scales.
    pub fn len(&self) -> usize {
        self.grid.iter().product()
    }

    /// Whether there is no block, as in a tensor without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape that the blocks lie over.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements of a block along each dim; a last block may be shorter.
    pub fn block_size(&self) -> &[usize] {
        &self.block
    }

    /// The number of elements of the shape.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Flat row-major runs of elements that share a block, in order, with their block: together they are the whole tensor.
    ///
    /// ```
    /// use burn_quantized::spec::BlockGrid;
    /// let grid = BlockGrid::new(&[2, 5], &[2, 3]).unwrap();
    /// assert_eq!(grid.runs().collect::<Vec<_>>(), [(0..3, 0), (3..5, 1), (5..8, 0), (8..10, 1)]);
    /// ```
    pub fn runs(&self) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        let row = self.shape.last().copied().unwrap_or(1);
        let step = self.block.last().copied().unwrap_or(1);
        let rows = self.elements().checked_div(row).unwrap_or(0);
        (0..rows).flat_map(move |at| {
            let start = at * row;
            let first = self.block_of(start);
            (0..row.div_ceil(step)).map(move |i| (start + i * step..start + row.min((i + 1) * step), first + i))
        })
    }

    /// The block of the element at this flat row-major index.
    pub fn block_of(&self, mut index: usize) -> usize {
        let (mut block, mut stride) = (0, 1);
        for dim in (0..self.shape.len()).rev() {
            block += (index % self.shape[dim]) / self.block[dim] * stride;
            stride *= self.grid[dim];
            index /= self.shape[dim];
        }
        block
    }

    /// The shape of a scale without `keepdim`: a dim whose block covers it whole disappears, except where the block is 1.
    pub fn squeezed(&self) -> Vec<usize> {
        (0..self.shape.len())
            .filter(|dim| self.block[*dim] == 1 || self.block[*dim] != self.shape[*dim])
            .map(|dim| self.grid[dim])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_granularity() {
        type Sizes = &'static [usize];
        let cases: [(Granularity, Sizes, Sizes, Sizes); 12] = [
            (Granularity::PerTensor, &[4, 6], &[4, 6], &[]),
            (Granularity::PerTensor, &[1, 33], &[1, 33], &[1]),
            (Granularity::PerTensor, &[], &[], &[]),
            (Granularity::PerAxis(0), &[4, 6], &[1, 6], &[4]),
            (Granularity::PerAxis(-2), &[3, 3, 5], &[3, 1, 5], &[3]),
            (Granularity::PerRow(1), &[2, 4, 6], &[1, 4, 1], &[2, 6]),
            (Granularity::PerToken, &[2, 3, 4], &[1, 1, 4], &[2, 3]),
            (Granularity::PerGroup(2), &[4, 6], &[1, 2], &[4, 3]),
            (Granularity::PerGroup(6), &[4, 6], &[1, 6], &[4]),
            (Granularity::PerBlock(vec![2, 3]), &[5, 4, 6], &[1, 2, 3], &[5, 2, 2]),
            (Granularity::PerBlock(vec![64, 64]), &[4, 6], &[4, 6], &[]),
            (Granularity::PerToken, &[2, 0], &[1, 1], &[2, 0]),
        ];
        for (granularity, shape, block, scale) in cases {
            let got = granularity.block_size(shape).unwrap();
            assert_eq!(got, block, "{granularity} of {shape:?}");
            assert_eq!(
                BlockGrid::new(shape, &got).unwrap().squeezed(),
                scale,
                "{granularity} of {shape:?}"
            );
        }
    }

    #[test]
    fn a_tail_has_a_block_of_its_own() {
        let block = Granularity::PerGroup(4).block_size(&[2, 10]).unwrap();
        let grid = BlockGrid::new(&[2, 10], &block).unwrap();
        assert_eq!((grid.dims(), grid.len()), (&[2, 3][..], 6));
        let runs: Vec<_> = grid.runs().map(|(run, block)| (run.len(), block)).collect();
        assert_eq!(runs, [(4, 0), (4, 1), (2, 2), (4, 3), (4, 4), (2, 5)]);
    }

    #[test]
    fn a_granularity_that_the_shape_cannot_have_is_an_error() {
        let cases: [(Granularity, &[usize], &str); 7] = [
            (Granularity::PerAxis(2), &[4, 6], "no dim 2"),
            (Granularity::PerAxis(-3), &[4, 6], "no dim -3"),
            (Granularity::PerRow(-1), &[], "no dim -1"),
            (Granularity::PerGroup(0), &[4, 6], "at least one element"),
            (Granularity::PerGroup(2), &[], "no dim -1"),
            (Granularity::PerBlock(vec![1, 2, 3]), &[4, 6], "3 dims"),
            (Granularity::PerBlock(vec![0, 3]), &[4, 6], "at least one element"),
        ];
        for (granularity, shape, what) in cases {
            let error = granularity.block_size(shape).expect_err(what);
            assert!(matches!(error, QuantError::InvalidGranularity { .. }));
            assert!(
                error.to_string().contains(what) && error.to_string().contains(&granularity.to_string()),
                "{error}"
            );
        }
        assert!(BlockGrid::new(&[4], &[2, 2]).is_err(), "ranks differ");
        assert!(BlockGrid::new(&[4], &[0]).is_err(), "an empty block");
    }
}
