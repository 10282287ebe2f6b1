//! The epilogue of products with float activations: C to E of [`reference`](crate::tensor::reference_linear).

use super::finish::{bias_of, store};
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
    /// `[row][panel]`.
    pub acc: &'a [Lanes<f32>],
    /// Panels from one row to the next.
    pub stride: usize,
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishFloat<'_, '_> {
    #[inline(always)]
    fn run(self, isa: I) {
        let dtype = self.dtype;
        let plain = self.weights.mode == FloatMode::Plain;
        for (j, panel) in self.panels.clone().enumerate() {
            let bias = isa.load(&Lanes(self.bias.map_or([0.0; CHANNELS], |bias| bias_of(bias, panel))));
            let scale = match plain {
                true => isa.round(dtype, self.weights.scale(isa, panel)),
                false => isa.splat(1.0),
            };
            for row in self.rows.clone() {
                let mut y = isa.load(&self.acc[(row - self.rows.start) * self.stride + j]);
                if plain {
                    y = isa.round(dtype, isa.mul(isa.round(dtype, y), scale));
                }
                y = isa.round(dtype, isa.add(y, bias));
                let mut out = Lanes([f32::NAN; CHANNELS]);
                if !self.bad[row] {
                    isa.store(y, &mut out);
                }
                store(self.out[row], (panel - self.first) * CHANNELS, out.0);
            }
        }
    }
}
