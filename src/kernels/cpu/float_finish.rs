//! The epilogue of products with float activations: C to E of [`reference`](crate::tensor::reference_linear).

use super::finish::bias_of;
use super::float_weights::{FloatMode, FloatWeights};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes};
use crate::dtype::FloatDtype;
use core::ops::Range;

/// From sums to outputs.
pub struct FinishFloat<'a, 'o> {
    pub weights: &'a FloatWeights<'a>,
    pub dtype: FloatDtype,
    pub bias: Option<&'a [f32]>,
    /// Which rows hold a NaN or an infinity.
    pub bad: &'a [bool],
    pub panels: Range<usize>,
    /// First panel of the piece.
    pub first: usize,
    pub rows: Range<usize>,
    pub acc: &'a [Lanes<f32>],
    /// In `acc`, from one row to the next and from one panel to the next.
    pub strides: (usize, usize),
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

/// Panels that are finished at once, at most.
pub const PANELS: usize = 8;

impl<I: Isa> Block<I> for FinishFloat<'_, '_> {
    #[inline(always)]
    fn run(self, isa: I) {
        let dtype = self.dtype;
        let plain = self.weights.mode == FloatMode::Plain;
        let zero = Lanes([0.0; CHANNELS]);
        let (mut biases, mut scales) = ([zero; PANELS], [zero; PANELS]);
        for (j, panel) in self.panels.clone().enumerate() {
            biases[j] = Lanes(self.bias.map_or(zero.0, |bias| bias_of(bias, panel)));
            if plain {
                isa.store(isa.round(dtype, self.weights.scale(isa, panel)), &mut scales[j]);
            }
        }
        let count = self.panels.len();
        let (by_row, by_panel) = self.strides;
        let from = (self.panels.start - self.first) * CHANNELS;
        for row in self.rows.clone() {
            let out = &mut self.out[row][from..];
            let (out, tail) = out.split_at_mut(out.len().min(count * CHANNELS)).0.as_chunks_mut();
            let acc = &self.acc[(row - self.rows.start) * by_row..];
            macro_rules! value {
                ($j:expr) => {{
                    let mut y = isa.load(&acc[$j * by_panel]);
                    if plain {
                        y = isa.round(dtype, isa.mul(isa.round(dtype, y), isa.load(&scales[$j])));
                    }
                    isa.round(dtype, isa.add(y, isa.load(&biases[$j])))
                }};
            }
            if self.bad[row] {
                out.as_flattened_mut().fill(f32::NAN);
                tail.fill(f32::NAN);
                continue;
            }
            for (j, out) in out.iter_mut().enumerate() {
                isa.write(value!(j), out);
            }
            if !tail.is_empty() {
                let mut lanes = zero;
                isa.store(value!(out.len()), &mut lanes);
                tail.copy_from_slice(&lanes.0[..tail.len()]);
            }
        }
    }
}
