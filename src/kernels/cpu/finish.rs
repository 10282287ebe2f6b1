//! The float epilogue: from sums to outputs, in the order that the reference writes.

// An epilogue counts through several arrays of lanes with the same `c`.
#![allow(clippy::needless_range_loop)]

use super::activation::{Row, offset};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes};
use super::linear::{Product, Section};
use super::weight::Zeros;

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

/// As [`store`]; NaN for a row that is `bad`.
#[inline(always)]
fn put<I: Isa>(isa: I, out: &mut [f32], column: usize, y: I::F32, bad: bool) {
    let mut lanes = Lanes([f32::NAN; CHANNELS]);
    if !bad {
        isa.store(y, &mut lanes);
    }
    store(out, column, lanes.0);
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
    pub of: &'a Section<'a>,
    /// `[block][panel][row]`.
    pub acc: &'a [Lanes<i32>],
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishDot<'_, '_, I> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (w, dtype) = (self.product.w, self.product.dtype);
        let offset = offset(&w.activation);
        let unsigned = offset != 0;
        let shared = !matches!(w.zero, Zeros::Codes(_));
        for (j, panel) in self.of.panels.clone().enumerate() {
            let mut zero = Lanes([0; CHANNELS]);
            if !shared {
                for (c, zero) in zero.0.iter_mut().enumerate() {
                    *zero = I::WEIGHT_SHIFT - w.zero.code(panel, c) as i32;
                }
            }
            let zero = isa.load_i32(&zero);
            let bias = isa.load(&Lanes(
                self.product.bias.map_or([0.0; CHANNELS], |bias| bias_of(bias, panel)),
            ));
            let sums = w.sums.get(panel);
            let w_scale = w.scale.read(isa, panel);
            for (row, at) in self.of.rows(j) {
                let Row {
                    scale,
                    zero: x_zero,
                    bad,
                } = self.product.x.rows[row];
                let x_sum = isa.splat_i32(self.product.x.sums[row]);
                let of_zero = if shared { x_sum } else { isa.mul_i32(zero, x_sum) };
                let mut acc = isa.add_i32(isa.load_i32(&self.acc[at]), of_zero);
                if let (Some(sums), true) = (sums, unsigned) {
                    acc = isa.add_i32(acc, isa.mul_i32(isa.load_i32(sums), isa.splat_i32(offset - x_zero)));
                }
                let mut t = isa.round(dtype, isa.mul(isa.to_f32(acc), isa.splat(scale)));
                if let (Some(sums), false) = (sums, unsigned) {
                    let less = isa.mul(isa.splat(-(x_zero as f32 * scale)), isa.to_f32(isa.load_i32(sums)));
                    t = isa.round(dtype, isa.add(t, isa.round(dtype, less)));
                    let (mut ints, mut floats) = (Lanes([0; CHANNELS]), Lanes([0.0; CHANNELS]));
                    isa.store_i32(acc, &mut ints);
                    isa.store(t, &mut floats);
                    for c in 0..CHANNELS {
                        if ints.0[c] == x_zero.wrapping_mul(sums.0[c]) {
                            floats.0[c] = 0.0;
                        }
                    }
                    t = isa.load(&floats);
                }
                let y = isa.round(dtype, isa.add(isa.mul(t, w_scale), bias));
                put(isa, self.out[row], (panel - self.of.first) * CHANNELS, y, bad);
            }
        }
    }
}

/// From float sums of quantized activations to outputs: B of [`reference`](crate::tensor::reference_linear).
pub struct FinishGroups<'a, 'o, I: Isa> {
    pub product: &'a Product<'a, I>,
    pub of: &'a Section<'a>,
    /// `[block][panel][row]`.
    pub acc: &'a [Lanes<f32>],
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishGroups<'_, '_, I> {
    #[inline(always)]
    fn run(self, isa: I) {
        for (j, panel) in self.of.panels.clone().enumerate() {
            let bias = isa.load(&Lanes(
                self.product.bias.map_or([0.0; CHANNELS], |bias| bias_of(bias, panel)),
            ));
            for (row, at) in self.of.rows(j) {
                let Row { scale, bad, .. } = self.product.x.rows[row];
                let y = isa.add(isa.mul(isa.load(&self.acc[at]), isa.splat(scale)), bias);
                let y = isa.round(self.product.dtype, y);
                put(isa, self.out[row], (panel - self.of.first) * CHANNELS, y, bad);
            }
        }
    }
}
