//! The float epilogue: from sums to outputs, in the order that the reference writes.

// An epilogue counts through several arrays of lanes with the same `c`.
#![allow(clippy::needless_range_loop)]

use super::activation::{Row, offset};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes};
use super::linear::{Product, Section};
use super::weight::Zeros;
use crate::dtype::FloatDtype;
use core::ops::Range;

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

/// Most panels of a section.
const MOST_PANELS: usize = 8;

/// What the outputs of some panels need of them, by panel.
pub struct Factors {
    /// Zero points as sums of activations meet them, where they are not the same for all weights.
    zeros: [Lanes<i32>; MOST_PANELS],
    /// Scales, where they are constant along K.
    scales: [Lanes<f32>; MOST_PANELS],
    biases: [Lanes<f32>; MOST_PANELS],
}

impl Factors {
    /// Of some panels.
    pub fn new<I: Isa>(product: &Product<I>, panels: Range<usize>) -> Self {
        let (ints, floats) = (
            [Lanes([0; CHANNELS]); MOST_PANELS],
            [Lanes([0.0; CHANNELS]); MOST_PANELS],
        );
        let mut factors = Self {
            zeros: ints,
            scales: floats,
            biases: floats,
        };
        product.isa.enter(FillFactors {
            product,
            panels,
            factors: &mut factors,
        });
        factors
    }
}

struct FillFactors<'a, I: Isa> {
    product: &'a Product<'a, I>,
    panels: Range<usize>,
    factors: &'a mut Factors,
}

impl<I: Isa> Block<I> for FillFactors<'_, I> {
    #[inline(always)]
    fn run(self, isa: I) {
        let w = self.product.w;
        for (j, panel) in self.panels.enumerate() {
            if let Some(bias) = self.product.bias {
                self.factors.biases[j] = Lanes(bias_of(bias, panel));
            }
            if w.groups.count > 1 {
                continue;
            }
            isa.store(w.scale.read(isa, panel), &mut self.factors.scales[j]);
            if matches!(w.zero, Zeros::Codes(_)) {
                for (c, zero) in self.factors.zeros[j].0.iter_mut().enumerate() {
                    *zero = I::WEIGHT_SHIFT - w.zero.code(panel, c) as i32;
                }
            }
        }
    }
}

/// Writes `|row, panel of the section, sums| outputs`, row by row; a row that is bad becomes NaN. A macro, since closures are compiled
/// without the instruction set of their caller.
macro_rules! each_output {
    ($finish:ident, |$row:ident, $j:ident, $acc:ident| $y:expr, $isa:ident) => {
        let (start, count) = ($finish.of.blocks[0].0, $finish.of.panels.len());
        let from = ($finish.of.panels.start - $finish.of.first) * CHANNELS;
        for (first, rows) in $finish.of.blocks {
            let acc = &$finish.acc[(first - start) * count..][..rows * count];
            for r in 0..*rows {
                let $row = first + r;
                let out = &mut $finish.out[$row][from..];
                let columns = out.len().min(count * CHANNELS);
                let (whole, tail) = out[..columns].as_chunks_mut::<CHANNELS>();
                if $finish.product.x.rows[$row].bad {
                    whole.as_flattened_mut().fill(f32::NAN);
                    tail.fill(f32::NAN);
                    continue;
                }
                let panels = whole.len();
                for ($j, out) in whole.iter_mut().enumerate() {
                    let $acc = &acc[$j * rows + r];
                    $isa.write($y, out);
                }
                if !tail.is_empty() {
                    let ($j, $acc, mut lanes) = (panels, &acc[panels * rows + r], [0.0; CHANNELS]);
                    $isa.write($y, &mut lanes);
                    tail.copy_from_slice(&lanes[..tail.len()]);
                }
            }
        }
    };
}

/// From integers to outputs where the weight's scale is constant along K: A and U of [`reference`](crate::tensor::reference_linear).
pub struct FinishDot<'a, 'o, I: Isa> {
    pub product: &'a Product<'a, I>,
    pub of: &'a Section<'a>,
    pub factors: &'a Factors,
    /// `[block][panel][row]`.
    pub acc: &'a [Lanes<i32>],
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishDot<'_, '_, I> {
    #[inline(always)]
    fn run(self, isa: I) {
        let plain = self.product.dtype == FloatDtype::F32 && self.product.w.sums.is_empty();
        match (plain, &self.product.w.zero) {
            (true, Zeros::Codes(_)) => self.rows::<true, false>(isa),
            (true, _) => self.rows::<true, true>(isa),
            (false, Zeros::Codes(_)) => self.rows::<false, false>(isa),
            (false, _) => self.rows::<false, true>(isa),
        }
    }
}

impl<I: Isa> FinishDot<'_, '_, I> {
    /// `PLAIN` where f32 outputs need no sums of the weight, `SHARED` where all weights have one zero point.
    #[inline(always)]
    fn rows<const PLAIN: bool, const SHARED: bool>(self, isa: I) {
        let (w, dtype) = (self.product.w, self.product.dtype);
        let offset = offset(&w.activation);
        let Factors { zeros, scales, biases } = self.factors;
        each_output!(
            self,
            |row, j, acc| {
                let Row { scale, zero, .. } = self.product.x.rows[row];
                let x_sum = isa.splat_i32(self.product.x.sums[row]);
                let of_zero = if SHARED {
                    x_sum
                } else {
                    isa.mul_i32(isa.load_i32(&zeros[j]), x_sum)
                };
                let mut acc = isa.add_i32(isa.load_i32(acc), of_zero);
                let (w_scale, bias) = (isa.load(&scales[j]), isa.load(&biases[j]));
                if PLAIN {
                    let t = isa.mul(isa.to_f32(acc), isa.splat(scale));
                    isa.add(isa.mul(t, w_scale), bias)
                } else {
                    let sums = w.sums.get(self.of.panels.start + j);
                    if let (Some(sums), true) = (sums, offset != 0) {
                        acc = isa.add_i32(acc, isa.mul_i32(isa.load_i32(sums), isa.splat_i32(offset - zero)));
                    }
                    let mut t = isa.round(dtype, isa.mul(isa.to_f32(acc), isa.splat(scale)));
                    if let (Some(sums), false) = (sums, offset != 0) {
                        let less = isa.mul(isa.splat(-(zero as f32 * scale)), isa.to_f32(isa.load_i32(sums)));
                        t = isa.round(dtype, isa.add(t, isa.round(dtype, less)));
                        let (mut ints, mut floats) = (Lanes([0; CHANNELS]), Lanes([0.0; CHANNELS]));
                        isa.store_i32(acc, &mut ints);
                        isa.store(t, &mut floats);
                        for c in 0..CHANNELS {
                            if ints.0[c] == zero.wrapping_mul(sums.0[c]) {
                                floats.0[c] = 0.0;
                            }
                        }
                        t = isa.load(&floats);
                    }
                    isa.round(dtype, isa.add(isa.mul(t, w_scale), bias))
                }
            },
            isa
        );
    }
}

/// From float sums of quantized activations to outputs: B of [`reference`](crate::tensor::reference_linear).
pub struct FinishGroups<'a, 'o, I: Isa> {
    pub product: &'a Product<'a, I>,
    pub of: &'a Section<'a>,
    pub factors: &'a Factors,
    /// `[block][panel][row]`.
    pub acc: &'a [Lanes<f32>],
    /// The rows of the piece.
    pub out: &'a mut [&'o mut [f32]],
}

impl<I: Isa> Block<I> for FinishGroups<'_, '_, I> {
    #[inline(always)]
    fn run(self, isa: I) {
        let dtype = self.product.dtype;
        let biases = &self.factors.biases;
        each_output!(
            self,
            |row, j, acc| {
                let scaled = isa.mul(isa.load(acc), isa.splat(self.product.x.rows[row].scale));
                isa.round(dtype, isa.add(scaled, isa.load(&biases[j])))
            },
            isa
        );
    }
}
