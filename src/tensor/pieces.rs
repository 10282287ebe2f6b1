//! A matrix some rows at a time, so that one `i32` a code never stands in memory for a whole weight.

use super::affine::{AffineParts, AffineQuantizedTensor};
use crate::dtype::FloatDtype;
use crate::dtype::pack::PackedRows;
use crate::primitives::{Affine, ZeroPoints, dequantize_affine, quantize_affine};
use crate::spec::BlockGrid;
use core::ops::Range;

/// Elements of a piece, unless one row has more.
const ELEMENTS: usize = 1 << 16;

/// Some rows, and what quantizes them.
struct Piece<'a> {
    parts: &'a AffineParts,
    rows: Range<usize>,
    grid: BlockGrid,
    blocks: Range<usize>,
    zero_point: ZeroPoints,
}

impl<'a> Piece<'a> {
    /// The rows from `start` on; they lie in one row of blocks, or fill whole ones.
    fn new(parts: &'a AffineParts, start: usize) -> Self {
        let (n, k) = (parts.shape[0], parts.shape[1]);
        let (high, wide) = (parts.block_size[0].max(1), parts.block_size[1].max(1));
        let room = (ELEMENTS / k.max(1)).max(1);
        let (rows, block) = if room >= high && start.is_multiple_of(high) {
            (room / high * high, high)
        } else {
            let rows = room.min(high - start % high);
            (rows, rows)
        };
        let rows = start..n.min(start + rows);
        let columns = k.div_ceil(wide);
        let blocks = start / high * columns..rows.end.div_ceil(high) * columns;
        let shape = [rows.len(), k];
        Self {
            parts,
            grid: BlockGrid::new(&shape, &[block.min(rows.len()), parts.block_size[1]])
                .expect("rows of a grid are one"),
            zero_point: match &parts.zero_point {
                ZeroPoints::None => ZeroPoints::None,
                ZeroPoints::Int(zero) => ZeroPoints::Int(zero[blocks.clone()].to_vec()),
                ZeroPoints::Float(zero) => ZeroPoints::Float(zero[blocks.clone()].to_vec()),
            },
            rows,
            blocks,
        }
    }

    fn affine(&self) -> Affine<'_> {
        Affine {
            grid: &self.grid,
            scale: &self.parts.scale[self.blocks.clone()],
            zero_point: &self.zero_point,
            scale_dtype: self.parts.scale_dtype,
            zero_point_dtype: self.parts.zero_point_dtype,
            quant_min: self.parts.quant_min,
            quant_max: self.parts.quant_max,
        }
    }
}

/// The pieces of a matrix that has elements.
fn pieces(parts: &AffineParts) -> impl Iterator<Item = Piece<'_>> {
    let mut start = 0;
    core::iter::from_fn(move || {
        (start < parts.shape[0]).then(|| {
            let piece = Piece::new(parts, start);
            start = piece.rows.end;
            piece
        })
    })
}

/// The packed codes of a matrix of values; parts and values were checked.
pub(super) fn quantize(input: &[f32], input_dtype: FloatDtype, parts: &AffineParts) -> Vec<u8> {
    let (k, min, bits) = (parts.shape[1], parts.dtype.min(), parts.dtype.bits());
    let mut bytes = Vec::with_capacity(parts.packed_bytes());
    for piece in pieces(parts) {
        let values = &input[piece.rows.start * k..piece.rows.end * k];
        let codes = quantize_affine(values, input_dtype, &piece.affine());
        let codes = codes.iter().map(|code| (code - min) as u8);
        bytes.extend(PackedRows::pack(bits, piece.rows.len(), k, codes).into_bytes());
    }
    bytes
}

impl AffineQuantizedTensor {
    /// Calls `visit` with the values of [`AffineQuantizedTensor::dequantize`], some whole rows at a time, in order.
    pub fn dequantize_pieces(&self, dtype: FloatDtype, mut visit: impl FnMut(&[f32])) {
        let parts = self.parts();
        let &[_, k] = parts.shape.as_slice() else {
            return visit(&self.dequantize(dtype));
        };
        let min = parts.dtype.min();
        let mut bytes = Vec::new();
        for piece in pieces(parts) {
            bytes.resize(piece.rows.len() * k, 0);
            if k > 0 {
                for (row, out) in piece.rows.clone().zip(bytes.chunks_exact_mut(k)) {
                    self.packed_codes().read(row, 0, out);
                }
            }
            let codes: Vec<i32> = bytes.iter().map(|code| *code as i32 + min).collect();
            visit(&dequantize_affine(&codes, &piece.affine(), dtype));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::IntDtype;
    use crate::spec::{AffineSpec, Granularity, MappingType, ZeroPointDomain};

    #[test]
    fn pieces_make_the_whole() {
        let shapes = [[1, 5], [300, 700], [3, 70_000], [70_000, 3], [1000, 130]];
        let granularities = [
            Granularity::PerTensor,
            Granularity::PerAxis(0),
            Granularity::PerAxis(1),
            Granularity::PerGroup(32),
            Granularity::PerBlock(vec![7, 16]),
            Granularity::PerBlock(vec![900, 64]),
        ];
        for shape in shapes {
            let values: Vec<f32> = (0..shape[0] * shape[1])
                .map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0)
                .collect();
            for granularity in &granularities {
                for domain in [ZeroPointDomain::Int, ZeroPointDomain::Float] {
                    let spec = AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, granularity.clone())
                        .with_zero_point_domain(domain);
                    let Ok(weight) = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &shape, &spec) else {
                        continue;
                    };
                    let codes = quantize_affine(&values, FloatDtype::F32, &weight.affine());
                    assert_eq!(weight.codes(), codes, "{shape:?} {granularity}");
                    let mut got = Vec::new();
                    weight.dequantize_pieces(FloatDtype::F32, |values| got.extend_from_slice(values));
                    assert_eq!(got, weight.dequantize(FloatDtype::F32), "{shape:?} {granularity}");
                }
            }
        }
    }
}
