//! The weight of a product with float activations: how its codes become floats, and where K is cut.

use super::isa::{Decoder, Isa};
use super::layout::{Groups, Line};
use super::weight::{CpuWeight, Zeros};
use crate::dtype::FloatDtype;
use core::ops::Range;

/// Most tiles of a part.
const PART: usize = 4;

/// Some tiles of K inside one group: the longest chain of sums.
///
/// `y = ((0 + s · Σ part 0) + s · Σ part 1) + …`, each Σ a chain of fused products in K order from 0, s the scale of the part's group or 1
/// where scales come before or after. Parts depend on the weight alone, so a row depends on nothing but itself.
pub struct Part {
    pub tiles: Range<usize>,
    pub group: usize,
}

/// K in parts.
pub fn parts(groups: &Groups) -> Vec<Part> {
    let mut out = Vec::new();
    for group in 0..groups.count {
        let tiles = groups.tiles(group);
        let count = tiles.len().div_ceil(PART);
        for i in 0..count {
            let cut = |i| tiles.start + i * tiles.len() / count;
            out.push(Part {
                tiles: cut(i)..cut(i + 1),
                group,
            });
        }
    }
    out
}

/// How a code becomes the float that a weight-only product multiplies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum FloatMode {
    /// `code − zero`; the scale comes with the output.
    Plain,
    /// `code − zero`; the scale comes with the sum of each part.
    Grouped,
    /// `(code − mid) · scale + value`, each step rounded to the activation's dtype.
    FloatZero,
}

/// `code − zero`, zero the same for all.
pub const SHARED: u8 = 0;
/// `code − zero`, zero of each channel and group.
pub const CODES: u8 = 1;
/// `(code − mid) · scale + value` in f32.
pub const FLOAT: u8 = 2;
/// The same in f16.
pub const FLOAT_F16: u8 = 3;
/// The same in bf16.
pub const FLOAT_BF16: u8 = 4;
/// The same in bf16, with scales and zero points that are 0 or of a usual magnitude: see [`CpuWeight::usual`].
pub const FLOAT_BF16_USUAL: u8 = 5;

/// A weight as products with activations of one dtype read it.
#[derive(Clone, Copy)]
pub struct FloatWeights<'a> {
    pub w: &'a CpuWeight,
    pub mode: FloatMode,
    /// One of the constants above.
    pub kind: u8,
}

/// What [`FloatWeights::floats`] needs of one panel and group.
#[derive(Clone, Copy)]
pub struct Prepared<F> {
    decoder: Decoder<F>,
    scale: F,
    value: F,
}

impl<'a> FloatWeights<'a> {
    pub fn new(w: &'a CpuWeight, dtype: FloatDtype) -> Self {
        let (mode, kind) = match (&w.zero, dtype) {
            (Zeros::Float { .. }, FloatDtype::F32) => (FloatMode::FloatZero, FLOAT),
            (Zeros::Float { .. }, FloatDtype::F16) => (FloatMode::FloatZero, FLOAT_F16),
            (Zeros::Float { .. }, FloatDtype::BF16) if w.usual => (FloatMode::FloatZero, FLOAT_BF16_USUAL),
            (Zeros::Float { .. }, FloatDtype::BF16) => (FloatMode::FloatZero, FLOAT_BF16),
            (zero, _) => {
                let kind = if matches!(zero, Zeros::Codes(_)) { CODES } else { SHARED };
                let grouped = w.groups.count > 1;
                (if grouped { FloatMode::Grouped } else { FloatMode::Plain }, kind)
            }
        };
        Self { w, mode, kind }
    }

    /// Scales at `panel · groups + group`.
    #[inline(always)]
    pub fn scale<I: Isa>(&self, isa: I, at: usize) -> I::F32 {
        self.w.scale.read(isa, at)
    }

    /// For codes at `panel · groups + group`.
    #[inline(always)]
    pub fn prepare<I: Isa, const KIND: u8>(&self, isa: I, bits: usize, at: usize) -> Prepared<I::F32> {
        let zero = isa.splat(0.0);
        match &self.w.zero {
            Zeros::Codes(zeros) if KIND == CODES => Prepared {
                decoder: isa.channel_decoder(bits, &zeros[at]),
                scale: zero,
                value: zero,
            },
            Zeros::Float { value, mid } if KIND >= FLOAT => Prepared {
                decoder: isa.decoder(bits, *mid as i32),
                scale: self.scale(isa, at),
                value: value.read(isa, at),
            },
            shared => Prepared {
                decoder: isa.decoder(bits, shared.code(at, 0) as i32),
                scale: zero,
                value: zero,
            },
        }
    }
}

impl<F: Copy> Prepared<F> {
    /// The floats of quad `Q` of a tile.
    #[inline(always)]
    pub fn floats<I: Isa<F32 = F>, const BITS: usize, const Q: usize, const KIND: u8>(
        &self,
        isa: I,
        tile: &[Line; BITS],
    ) -> [F; 4] {
        if KIND == CODES {
            return isa.decode::<BITS, Q, false>(tile, &self.decoder);
        }
        let mut out = isa.decode::<BITS, Q, true>(tile, &self.decoder);
        if KIND >= FLOAT {
            for out in &mut out {
                *out = self.value::<I, KIND>(isa, *out);
            }
        }
        out
    }

    /// From `code − mid` to `(code − mid) · scale + value`, each step rounded to the activation's dtype.
    #[inline(always)]
    pub fn value<I: Isa<F32 = F>, const KIND: u8>(&self, isa: I, code: F) -> F {
        if KIND == FLOAT_BF16_USUAL {
            let scaled = round_bf16(isa, isa.mul(code, self.scale));
            return round_bf16(isa, isa.add(scaled, self.value));
        }
        let dtype = match KIND {
            FLOAT_F16 => FloatDtype::F16,
            FLOAT_BF16 => FloatDtype::BF16,
            _ => FloatDtype::F32,
        };
        let scaled = isa.round(dtype, isa.mul(code, self.scale));
        isa.round(dtype, isa.add(scaled, self.value))
    }
}

/// As [`Isa::round`] for bf16, of values that are 0 or far from subnormal and infinite ones.
///
/// 1.5 · 2^16 times the power of two below a value has the last digit that the value has in bf16: adding it rounds, ties to even.
#[inline(always)]
fn round_bf16<I: Isa>(isa: I, value: I::F32) -> I::F32 {
    const DIGITS: f32 = 98_304.0;
    let power = isa.power(value);
    let rounded = isa.mul_add(power, isa.splat(DIGITS), value);
    isa.mul_add(power, isa.splat(-DIGITS), rounded)
}

#[cfg(test)]
mod tests {
    use super::super::layout::{CHANNELS, Lanes};
    use super::super::tests::tiers;
    use super::*;
    use crate::kernels::cpu::isa::{Program, run_on};

    struct Rounds;

    impl Program for Rounds {
        fn run<I: Isa>(self, isa: I) {
            // Every bf16 of a usual magnitude with bits below it at and beside the middle.
            for high in (0x0d00..0x7100u32).chain(0x8d00..0xf100).chain([0]) {
                for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| if high == 0 { 0 } else { low }) {
                    let value = f32::from_bits(high << 16 | low);
                    let mut out = Lanes([0.0; CHANNELS]);
                    isa.store(round_bf16(isa, isa.splat(value)), &mut out);
                    assert_eq!(out.0, [FloatDtype::BF16.round(value); CHANNELS], "{value:e}");
                }
            }
        }
    }

    #[test]
    fn usual_values_round_as_bf16_does() {
        for tier in tiers() {
            run_on(tier, Rounds);
        }
    }
}
