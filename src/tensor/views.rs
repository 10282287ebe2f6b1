//! Views of a quantized tensor: codes move, nothing is rounded again.
//!
//! The result has the coarsest grid of blocks that says every scale exactly: a slice that starts inside a block, say, cuts the blocks along
//! that dim into shorter ones, down to one element each where nothing longer fits.

use crate::dtype::pack::PackedRows;
use crate::error::{QuantError, Result};
use crate::primitives::ZeroPoints;
use crate::spec::BlockGrid;
use crate::tensor::{AffineParts, AffineQuantizedTensor};

/// Where one dim of a view reads: a dim of the source and the index there for each position, or nothing (a dim of size 1 was repeated).
struct DimSource {
    dim: Option<usize>,
    indices: Vec<usize>,
}

impl AffineQuantizedTensor {
    /// Dim `i` of the result is dim `axes[i]`. Errors when `axes` is not a permutation of the dims.
    pub fn permute(&self, axes: &[usize]) -> Result<Self> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if sorted != (0..self.shape().len()).collect::<Vec<_>>() {
            return Err(mismatch("axes of a permutation", self.shape(), axes));
        }
        self.view(axes.iter().map(|dim| self.whole(*dim)).collect())
    }

    /// The last two dims swapped. Errors below rank 2.
    pub fn transpose(&self) -> Result<Self> {
        let rank = self.shape().len();
        let mut axes: Vec<usize> = (0..rank).collect();
        if rank < 2 {
            return Err(mismatch("a transposed tensor (two dims at least)", &[2], &[rank]));
        }
        axes.swap(rank - 2, rank - 1);
        self.permute(&axes)
    }

    /// The elements of `dim` in reverse order, for each of `dims`. Errors when a dim does not exist.
    pub fn flip(&self, dims: &[usize]) -> Result<Self> {
        self.check_dims(dims)?;
        let mut sources = self.identity();
        for dim in dims {
            sources[*dim].indices.reverse();
        }
        self.view(sources)
    }

    /// `indices` along `dim`, in that order, repeated where an index is. Errors when the dim or an index does not exist.
    pub fn select(&self, dim: usize, indices: &[usize]) -> Result<Self> {
        self.check_dims(&[dim])?;
        if indices.iter().any(|index| *index >= self.shape()[dim]) {
            return Err(mismatch(
                "an index into the selected dim",
                &[self.shape()[dim]],
                indices,
            ));
        }
        let mut sources = self.identity();
        sources[dim].indices = indices.to_vec();
        self.view(sources)
    }

    /// The whole tensor `times` times along `dim`. Errors when the dim does not exist.
    pub fn repeat(&self, dim: usize, times: usize) -> Result<Self> {
        self.check_dims(&[dim])?;
        let indices: Vec<usize> = (0..times).flat_map(|_| 0..self.shape()[dim]).collect();
        self.select(dim, &indices)
    }

    /// Broadcast to `shape`: dims of size 1 are repeated, dims are added in front. Errors when the shapes do not broadcast.
    pub fn expand(&self, shape: &[usize]) -> Result<Self> {
        let refuse = || mismatch("a shape to expand to", self.shape(), shape);
        let lead = shape.len().checked_sub(self.shape().len()).ok_or_else(refuse)?;
        let mut sources = Vec::with_capacity(shape.len());
        for (at, size) in shape.iter().enumerate() {
            let source = match at.checked_sub(lead) {
                None => DimSource {
                    dim: None,
                    indices: vec![0; *size],
                },
                Some(dim) if self.shape()[dim] == *size => self.whole(dim),
                Some(dim) if self.shape()[dim] == 1 => DimSource {
                    dim: Some(dim),
                    indices: vec![0; *size],
                },
                Some(_) => return Err(refuse()),
            };
            sources.push(source);
        }
        self.view(sources)
    }

    /// The same elements, row-major, in another shape. Errors when the numbers of elements differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let elements: usize = self.shape().iter().product();
        if shape.iter().product::<usize>() != elements {
            return Err(mismatch("a shape to reshape to", self.shape(), shape));
        }
        let blocks: Vec<usize> = if self.grid().len() == 1 {
            vec![0; elements.min(1)]
        } else {
            (0..elements).map(|index| self.grid().block_of(index)).collect()
        };
        let mut run = match blocks.len() {
            0 | 1 => elements,
            _ => common_run(&blocks),
        };
        let mut block_size = vec![1; shape.len()];
        for (size, dim) in block_size.iter_mut().zip(shape).rev() {
            *size = gcd(run, *dim).max(1);
            if *size != *dim {
                break;
            }
            run /= *dim;
        }
        let grid = BlockGrid::new(shape, &block_size)?;
        let first = first_of_each_block(shape, &block_size, grid.dims());
        let picked: Vec<usize> = first
            .iter()
            .map(|index| blocks.get(*index).copied().unwrap_or(0))
            .collect();
        self.rebuild(shape, block_size, &picked, &self.packed_codes().unpack())
    }

    /// Element `i` (row-major) of the result, of `shape`, is element `elements[i]`. Errors when one does not exist or the number is wrong.
    ///
    /// A tensor with one scale keeps it; any other result has a scale an element.
    pub fn pick(&self, shape: &[usize], elements: &[usize]) -> Result<Self> {
        let codes = self.packed_codes().unpack();
        if elements.len() != shape.iter().product::<usize>() || elements.iter().any(|at| *at >= codes.len()) {
            return Err(mismatch("picked elements", shape, &[elements.len()]));
        }
        let picked_codes: Vec<u8> = elements.iter().map(|at| codes[*at]).collect();
        if self.grid().len() == 1 {
            let block_size = shape.iter().map(|dim| (*dim).max(1)).collect();
            let blocks = vec![0; usize::from(!elements.is_empty())];
            return self.rebuild(shape, block_size, &blocks, &picked_codes);
        }
        let blocks: Vec<usize> = elements.iter().map(|at| self.grid().block_of(*at)).collect();
        self.rebuild(shape, vec![1; shape.len()], &blocks, &picked_codes)
    }

    /// Of `shape`: where `indices[.., i, ..]` (row-major) is j, the element at `[.., j, ..]`, with i and j along `dim`.
    ///
    /// Errors when the dim or an index does not exist, or `shape` is larger than this tensor in another dim.
    pub fn gather(&self, dim: usize, shape: &[usize], indices: &[usize]) -> Result<Self> {
        self.check_dims(&[dim])?;
        let size = self.shape()[dim];
        let fits = shape.len() == self.shape().len()
            && shape
                .iter()
                .zip(self.shape())
                .enumerate()
                .all(|(at, (got, most))| at == dim || got <= most)
            && indices.iter().all(|index| *index < size);
        if !fits {
            return Err(mismatch("a shape to gather", self.shape(), shape));
        }
        let (own, other) = (strides(self.shape()), strides(shape));
        let source = |(at, index): (usize, &usize)| -> usize {
            let coordinate = |axis: usize| {
                if axis == dim {
                    *index
                } else {
                    at / other[axis] % shape[axis]
                }
            };
            (0..shape.len()).map(|axis| coordinate(axis) * own[axis]).sum()
        };
        let elements: Vec<usize> = indices.iter().enumerate().map(source).collect();
        self.pick(shape, &elements)
    }

    fn whole(&self, dim: usize) -> DimSource {
        DimSource {
            dim: Some(dim),
            indices: (0..self.shape()[dim]).collect(),
        }
    }

    fn identity(&self) -> Vec<DimSource> {
        (0..self.shape().len()).map(|dim| self.whole(dim)).collect()
    }

    fn check_dims(&self, dims: &[usize]) -> Result<()> {
        match dims.iter().any(|dim| *dim >= self.shape().len()) {
            true => Err(mismatch("dims of a view", self.shape(), dims)),
            false => Ok(()),
        }
    }

    /// A view in which each dim reads one dim of the source.
    fn view(&self, sources: Vec<DimSource>) -> Result<Self> {
        let shape: Vec<usize> = sources.iter().map(|source| source.indices.len()).collect();
        let (strides, grid_strides) = (strides(self.shape()), strides(self.grid().dims()));
        let mut element_offsets = Vec::with_capacity(shape.len());
        let mut block_offsets = Vec::with_capacity(shape.len());
        let mut block_size = Vec::with_capacity(shape.len());
        for DimSource { dim, indices } in sources {
            let (stride, grid_stride, block) = match dim {
                Some(dim) => (strides[dim], grid_strides[dim], self.parts().block_size[dim]),
                None => (0, 0, 1),
            };
            let blocks: Vec<usize> = indices.iter().map(|index| index / block * grid_stride).collect();
            let run = common_run(&blocks).max(1);
            block_offsets.push(blocks.into_iter().step_by(run).collect::<Vec<_>>());
            block_size.push(run);
            element_offsets.push(indices.into_iter().map(|index| index * stride).collect::<Vec<_>>());
        }
        let codes = self.packed_codes().unpack();
        let codes: Vec<u8> = outer_sum(&element_offsets).into_iter().map(|at| codes[at]).collect();
        self.rebuild(&shape, block_size, &outer_sum(&block_offsets), &codes)
    }

    /// The same kind of tensor from stored codes, with the scales and zero points of `blocks`.
    fn rebuild(&self, shape: &[usize], block_size: Vec<usize>, blocks: &[usize], codes: &[u8]) -> Result<Self> {
        let parts = self.parts();
        let zero_point = match &parts.zero_point {
            ZeroPoints::None => ZeroPoints::None,
            ZeroPoints::Int(zero) => ZeroPoints::Int(blocks.iter().map(|block| zero[*block]).collect()),
            ZeroPoints::Float(zero) => ZeroPoints::Float(blocks.iter().map(|block| zero[*block]).collect()),
        };
        let (rows, cols) = match shape.split_last() {
            Some((cols, lead)) => (lead.iter().product(), *cols),
            None => (1, 1),
        };
        let packed = PackedRows::pack(parts.dtype.bits(), rows, cols, codes.iter().copied());
        let parts = AffineParts {
            shape: shape.to_vec(),
            block_size,
            scale: blocks.iter().map(|block| parts.scale[*block]).collect(),
            zero_point,
            ..*parts
        };
        Self::from_packed(parts, packed.into_bytes())
    }
}

/// The largest n for which every n consecutive values, counted from the first, are equal; the whole length when all are.
fn common_run(values: &[usize]) -> usize {
    let changes = values.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]);
    match changes.fold(0, |run, (at, _)| gcd(run, at + 1)) {
        0 => values.len(),
        run => run,
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim];
    }
    strides
}

/// Row-major: the sum of one offset of each list, for every combination.
fn outer_sum(offsets: &[Vec<usize>]) -> Vec<usize> {
    offsets.iter().fold(vec![0], |sums, list| {
        sums.iter()
            .flat_map(|sum| list.iter().map(move |offset| sum + offset))
            .collect()
    })
}

/// The flat index of the first element of each block, row-major.
fn first_of_each_block(shape: &[usize], block_size: &[usize], grid: &[usize]) -> Vec<usize> {
    let offsets: Vec<Vec<usize>> = strides(shape)
        .iter()
        .zip(block_size)
        .zip(grid)
        .map(|((stride, size), blocks)| (0..*blocks).map(|block| block * size * stride).collect())
        .collect();
    outer_sum(&offsets)
}

fn mismatch(what: &str, expected: &[usize], got: &[usize]) -> QuantError {
    QuantError::ShapeMismatch {
        what: what.into(),
        expected: expected.to_vec(),
        got: got.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{FloatDtype, IntDtype};
    use crate::spec::{AffineSpec, Granularity, MappingType};

    fn quantized(shape: &[usize], granularity: Granularity) -> AffineQuantizedTensor {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|i: usize| ((i * 37 % 101) as f32 - 40.0) * (1.0 + i as f32 / 7.0))
            .collect();
        let spec = AffineSpec::new(IntDtype::INT4, MappingType::Asymmetric, granularity);
        AffineQuantizedTensor::quantize(&values, FloatDtype::F32, shape, &spec).unwrap()
    }

    /// Every element of `view` has the code, the scale and the value of the element of `source` that `element` names.
    fn check(view: &AffineQuantizedTensor, source: &AffineQuantizedTensor, element: impl Fn(usize) -> usize) {
        let (codes, values) = (source.codes(), source.dequantize(FloatDtype::F32));
        let (view_codes, view_values) = (view.codes(), view.dequantize(FloatDtype::F32));
        for at in 0..view_codes.len() {
            assert_eq!(view_codes[at], codes[element(at)], "code {at}");
            assert_eq!(view_values[at].to_bits(), values[element(at)].to_bits(), "value {at}");
        }
    }

    fn granularities() -> Vec<Granularity> {
        vec![
            Granularity::PerTensor,
            Granularity::PerAxis(0),
            Granularity::PerAxis(1),
            Granularity::PerGroup(4),
            Granularity::PerBlock(vec![2, 3]),
        ]
    }

    #[test]
    fn views_of_a_matrix_move_codes() {
        let (rows, cols) = (6, 10);
        for granularity in granularities() {
            let tensor = quantized(&[rows, cols], granularity.clone());
            check(&tensor.transpose().unwrap(), &tensor, |at| at % rows * cols + at / rows);
            check(&tensor.flip(&[1]).unwrap(), &tensor, |at| {
                at / cols * cols + cols - 1 - at % cols
            });
            check(&tensor.select(0, &[5, 0, 0, 3]).unwrap(), &tensor, |at| {
                [5, 0, 0, 3][at / cols] * cols + at % cols
            });
            check(&tensor.select(1, &[1, 2, 3, 4, 5]).unwrap(), &tensor, |at| {
                at / 5 * cols + 1 + at % 5
            });
            check(&tensor.repeat(1, 2).unwrap(), &tensor, |at| {
                at / (2 * cols) * cols + at % cols
            });
            check(&tensor.expand(&[3, rows, cols]).unwrap(), &tensor, |at| {
                at % (rows * cols)
            });
            for shape in [vec![60], vec![4, 15], vec![1, 6, 10], vec![2, 3, 10], vec![3, 2, 2, 5]] {
                let reshaped = tensor.reshape(&shape).unwrap();
                assert_eq!(reshaped.shape(), shape);
                check(&reshaped, &tensor, |at| at);
            }
            check(&tensor.pick(&[2, 2], &[59, 0, 7, 7]).unwrap(), &tensor, |at| {
                [59, 0, 7, 7][at]
            });
        }
    }

    #[test]
    fn grids_stay_as_coarse_as_they_can() {
        let tensor = quantized(&[6, 12], Granularity::PerGroup(4));
        assert_eq!(tensor.transpose().unwrap().parts().block_size, [4, 1]);
        assert_eq!(tensor.transpose().unwrap().transpose().unwrap(), tensor);
        assert_eq!(
            tensor
                .select(1, &[4, 5, 6, 7, 8, 9, 10, 11])
                .unwrap()
                .parts()
                .block_size,
            [1, 4]
        );
        assert_eq!(tensor.select(1, &[2, 3, 4, 5]).unwrap().parts().block_size, [1, 2]);
        assert_eq!(tensor.reshape(&[2, 3, 12]).unwrap().parts().block_size, [1, 1, 4]);
        assert_eq!(tensor.reshape(&[18, 4]).unwrap().parts().block_size, [1, 4]);
        assert_eq!(
            quantized(&[6, 10], Granularity::PerTensor)
                .reshape(&[3, 20])
                .unwrap()
                .grid()
                .len(),
            1
        );
        assert_eq!(
            quantized(&[6, 10], Granularity::PerTensor)
                .flip(&[0])
                .unwrap()
                .grid()
                .len(),
            1
        );
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let tensor = quantized(&[6, 10], Granularity::PerTensor);
        assert!(tensor.permute(&[0, 0]).is_err());
        assert!(tensor.flip(&[2]).is_err());
        assert!(tensor.select(0, &[6]).is_err());
        assert!(tensor.expand(&[10]).is_err());
        assert!(tensor.expand(&[5, 10]).is_err());
        assert!(tensor.reshape(&[7, 9]).is_err());
        assert!(tensor.pick(&[1], &[60]).is_err());
    }
}
