//! The float epilogue: from sums to outputs, in the order that the reference writes.

// An epilogue counts through several arrays of lanes with the same `c`.
#![allow(clippy::needless_range_loop)]

use super::activation::{Row, offset};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes};
use super::linear::{PANELS, Product};
use super::round::round_all;
use core::ops::Range;

/// Where a panel of a row goes: its first column in the piece.
#[inline(always)]
pub(super) fn store(out: &mut [f32], column: usize, lanes: [f32; CHANNELS]) {
    match out[column..].first_chunk_mut::<CHANNELS>() {
        Some(out) => *out = lanes,
        None => {
            let out = &mut out[column..];
            let columns = out.len();
            out.copy_from_slice(&lanes[..columns]);
        }
    }
}

/// The bias of a panel, 0 in its padding.
#[inline(always)]
pub(super) fn bias_of(bias: &[f32], panel: usize) -> [f32; CHANNELS] {
    let bias = &bias[panel * CHANNELS..];
    match bias.first_chunk::<CHANNELS>() {
        Some(bias) => *bias,
        None => {
            let mut out = [0.0; CHANNELS];
            out[..bias.len()].copy_from_slice(bias);
            out
        }
    }
}

/// From integers to outputs where the weight's scale is constant along K: A and U of [`reference`](crate::tensor::reference_linear).
pub struct FinishDot<'a, 'o, I: Isa> {
    pub product: &'a Product<'a, I>,
    pub panels: Range<usize>,
    /// First panel of the piece.
    pub first: usize,
    pub rows: Range<usize>,
    /// `[row][panel]`.
    pub acc: &'a [Lanes<i32>],
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishDot<'_, '_, I> {
    #[inline(always)]
    fn run(self, _: I) {
        let (w, dtype) = (self.product.w, self.product.dtype);
        let offset = offset(&w.activation);
        let unsigned = offset != 0;
        for (j, panel) in self.panels.clone().enumerate() {
            let mut zero = [0; CHANNELS];
            for (c, zero) in zero.iter_mut().enumerate() {
                *zero = w.zero.code(panel, c) as i32 - I::WEIGHT_SHIFT;
            }
            let bias = self.product.bias.map_or([0.0; CHANNELS], |bias| bias_of(bias, panel));
            let sums = w.sums.get(panel).map(|sums| sums.0);
            let w_scale = w.scale.lanes(panel).0;
            for row in self.rows.clone() {
                let Row {
                    scale,
                    zero: x_zero,
                    bad,
                } = self.product.x.rows[row];
                let x_sum = self.product.x.sums[row];
                let mut acc = self.acc[(row - self.rows.start) * PANELS + j].0;
                for c in 0..CHANNELS {
                    acc[c] = acc[c].wrapping_sub(zero[c].wrapping_mul(x_sum));
                }
                let mut t = [0.0; CHANNELS];
                if let (Some(sums), true) = (&sums, unsigned) {
                    for c in 0..CHANNELS {
                        acc[c] = acc[c].wrapping_sub((x_zero - offset).wrapping_mul(sums[c]));
                    }
                }
                for c in 0..CHANNELS {
                    t[c] = acc[c] as f32 * scale;
                }
                round_all(dtype, &mut t);
                if let (Some(sums), false) = (&sums, unsigned) {
                    let mut correction = [0.0; CHANNELS];
                    for c in 0..CHANNELS {
                        correction[c] = x_zero as f32 * scale * sums[c] as f32;
                    }
                    round_all(dtype, &mut correction);
                    for c in 0..CHANNELS {
                        t[c] -= correction[c];
                    }
                    round_all(dtype, &mut t);
                    for c in 0..CHANNELS {
                        t[c] = if acc[c] == x_zero.wrapping_mul(sums[c]) {
                            0.0
                        } else {
                            t[c]
                        };
                    }
                }
                for c in 0..CHANNELS {
                    t[c] = t[c] * w_scale[c] + bias[c];
                }
                round_all(dtype, &mut t);
                store(
                    self.out[row],
                    (panel - self.first) * CHANNELS,
                    if bad { [f32::NAN; CHANNELS] } else { t },
                );
            }
        }
    }
}

/// From float sums of quantized activations to outputs: B of [`reference`](crate::tensor::reference_linear).
pub struct FinishGroups<'a, 'o, I: Isa> {
    pub product: &'a Product<'a, I>,
    pub panels: Range<usize>,
    /// First panel of the piece.
    pub first: usize,
    pub rows: Range<usize>,
    /// `[row][panel]`.
    pub acc: &'a [Lanes<f32>],
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishGroups<'_, '_, I> {
    #[inline(always)]
    fn run(self, _: I) {
        let dtype = self.product.dtype;
        for (j, panel) in self.panels.clone().enumerate() {
            let bias = self.product.bias.map_or([0.0; CHANNELS], |bias| bias_of(bias, panel));
            for row in self.rows.clone() {
                let mut y = self.acc[(row - self.rows.start) * PANELS + j].0;
                let Row { scale, bad, .. } = self.product.x.rows[row];
                for y in &mut y {
                    *y *= scale;
                }
                for c in 0..CHANNELS {
                    y[c] += bias[c];
                }
                round_all(dtype, &mut y);
                store(
                    self.out[row],
                    (panel - self.first) * CHANNELS,
                    if bad { [f32::NAN; CHANNELS] } else { y },
                );
            }
        }
    }
}
