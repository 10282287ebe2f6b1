//! A rectangle of a packed weight, expanded to floats on the host.

use crate::dtype::FloatDtype;
use crate::kernels::expanded;
use crate::primitives::ZeroPoints;
use crate::tensor::AffineQuantizedTensor;
use core::ops::Range;

/// Floats in one expanded panel, 256 KiB; a single row of a weight may exceed it.
pub const PANEL_ELEMENTS: usize = 64 * 1024;

/// Reads rectangles of an `[N, K]` weight.
pub(super) struct Panels<'a> {
    weight: &'a AffineQuantizedTensor,
    /// Outputs.
    pub n: usize,
    /// Reduced inputs.
    pub k: usize,
    /// Columns that share a scale; the last group may be shorter.
    pub group: usize,
    block_rows: usize,
}

impl<'a> Panels<'a> {
    /// # Panics
    /// If the weight is not a matrix.
    pub fn new(weight: &'a AffineQuantizedTensor) -> Self {
        let (shape, block) = (weight.shape(), &weight.parts().block_size);
        assert_eq!(shape.len(), 2, "a product needs a matrix [N, K], got shape {shape:?}");
        Self {
            weight,
            n: shape[0],
            k: shape[1],
            group: block[1],
            block_rows: block[0],
        }
    }

    /// Whether a row has one scale.
    pub fn per_row(&self) -> bool {
        self.group >= self.k
    }

    /// Whether `code − zero point` is an integer.
    pub fn has_integers(&self) -> bool {
        !matches!(self.weight.parts().zero_point, ZeroPoints::Float(_))
    }

    /// The runs of rows whose panel of `columns` columns fits [`PANEL_ELEMENTS`]; at least one row each.
    pub fn rows(&self, columns: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, step) = (self.n, (PANEL_ELEMENTS / columns.max(1)).max(1));
        (0..n).step_by(step).map(move |start| start..n.min(start + step))
    }

    /// The largest magnitude that `code − zero point` can have, at least 1.
    pub fn largest_integer(&self) -> usize {
        let parts = self.weight.parts();
        let (min, max) = (parts.dtype.min(), parts.dtype.max());
        let (low, high) = match &parts.zero_point {
            ZeroPoints::Int(zero) => zero.iter().fold((0, 0), |(low, high), z| (low.min(*z), high.max(*z))),
            _ => (0, 0),
        };
        (max - low).max(high - min).max(1) as usize
    }

    /// `code − zero point` of a rectangle, row-major.
    ///
    /// # Panics
    /// If the weight has float zero points.
    pub fn integers(&self, rows: Range<usize>, columns: Range<usize>) -> Vec<f32> {
        let parts = self.weight.parts();
        let min = parts.dtype.min();
        self.expand(rows, columns, |block, codes, out| {
            let zero = match &parts.zero_point {
                ZeroPoints::None => 0,
                ZeroPoints::Int(zero) => zero[block],
                ZeroPoints::Float(_) => panic!("a float zero point has no integer codes"),
            };
            for (value, code) in out.iter_mut().zip(codes) {
                *value = (*code as i32 + min - zero) as f32;
            }
        })
    }

    /// The values of a rectangle, row-major, representable in `dtype`: as [`AffineQuantizedTensor::dequantize`] gives them.
    pub fn values(&self, rows: Range<usize>, columns: Range<usize>, dtype: FloatDtype) -> Vec<f32> {
        let parts = self.weight.parts();
        let min = parts.dtype.min();
        let product = dtype.promote(parts.scale_dtype);
        self.expand(rows, columns, |block, codes, out| {
            let scale = parts.scale[block];
            match &parts.zero_point {
                ZeroPoints::Float(zero) => {
                    let mid = parts.mid();
                    for (value, code) in out.iter_mut().zip(codes) {
                        let steps = dtype.round((*code as i32 + min - mid) as f32);
                        *value = dtype.round(dtype.round(steps * scale) + zero[block]);
                    }
                }
                zero => {
                    let zero = match zero {
                        ZeroPoints::Int(zero) => dtype.round(zero[block] as f32),
                        _ => 0.0,
                    };
                    for (value, code) in out.iter_mut().zip(codes) {
                        let steps = dtype.round(dtype.round((*code as i32 + min) as f32) - zero);
                        *value = dtype.round(product.round(steps * scale));
                    }
                }
            }
        })
    }

    /// The scales of `rows` in the group that holds `column`.
    pub fn scales(&self, rows: Range<usize>, column: usize) -> Vec<f32> {
        let scale = &self.weight.parts().scale;
        rows.map(|row| scale[self.block(row, column)]).collect()
    }

    fn block(&self, row: usize, column: usize) -> usize {
        row / self.block_rows * self.weight.grid().dims()[1] + column / self.group
    }

    /// Hands each run of codes that share a block to `write`, with its part of the result, and counts what was written.
    fn expand(&self, rows: Range<usize>, columns: Range<usize>, write: impl Fn(usize, &[u8], &mut [f32])) -> Vec<f32> {
        let width = columns.len();
        let mut codes = vec![0; width];
        let mut values = vec![0.0; rows.len() * width];
        for (row, out) in rows.zip(values.chunks_exact_mut(width.max(1))) {
            self.weight.packed_codes().read(row, columns.start, &mut codes);
            let mut at = 0;
            while at < width {
                let column = columns.start + at;
                let end = width.min(at + self.group - column % self.group);
                write(self.block(row, column), &codes[at..end], &mut out[at..end]);
                at = end;
            }
        }
        expanded::add(values.len());
        values
    }
}
