//! The weight of a product with float activations: how its codes become floats, and where K is cut.

use super::isa::{Decoder, Isa};
use super::layout::{Groups, Line};
use super::values::fetch;
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

/// [`FLOAT`] with scales of 16 bits and usual values: the product is exact, so that one rounding is that of both steps.
pub const FLOAT_EXACT: u8 = 6;

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
            (Zeros::Float { .. }, FloatDtype::F32) if w.usual && w.scale.has_16_bits() => {
                (FloatMode::FloatZero, FLOAT_EXACT)
            }
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

    /// Asks for the scales and zero points of some groups of a panel.
    #[inline(always)]
    pub fn fetch<I: Isa>(&self, isa: I, panel: usize, groups: Range<usize>) {
        let at = panel * self.w.groups.count;
        let at = at + groups.start..at + groups.end;
        self.w.scale.fetch(isa, at.clone());
        match &self.w.zero {
            Zeros::Codes(zeros) => fetch(isa, zeros, at),
            Zeros::Float { value, .. } => value.fetch(isa, at),
            _ => {}
        }
    }

    /// Asks for the scales and float zero points at `panel · groups + group`, where there are some.
    #[inline(always)]
    pub fn fetch_one<I: Isa>(&self, isa: I, at: usize) {
        self.w.scale.fetch_one(isa, at);
        if let Zeros::Float { value, .. } = &self.w.zero {
            value.fetch_one(isa, at);
        }
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
        if KIND == FLOAT_EXACT && I::FUSED {
            return isa.mul_add(code, self.scale, self.value);
        }
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

    struct Exact;

    impl Program for Exact {
        fn run<I: Isa>(self, isa: I) {
            let mut steps = 0u32;
            for (dtype, bits) in [(FloatDtype::F16, 0x0001..0x7c00u16), (FloatDtype::BF16, 0x0e00..0x7000)] {
                for bits in bits.step_by(37) {
                    let scale = match dtype {
                        FloatDtype::F16 => half::f16::from_bits(bits).to_f32(),
                        _ => half::bf16::from_bits(bits).to_f32(),
                    };
                    steps = steps.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let value = scale * (steps as i32 >> 8) as f32 * 1.0e-5;
                    let prepared = Prepared {
                        decoder: isa.decoder(8, 0),
                        scale: isa.splat(scale),
                        value: isa.splat(value),
                    };
                    for code in [-128.0, -77.0, -3.0, 0.0, 1.0, 5.0, 127.0] {
                        let mut out = Lanes([0.0; CHANNELS]);
                        isa.store(prepared.value::<I, FLOAT_EXACT>(isa, isa.splat(code)), &mut out);
                        assert_eq!(out.0, [code * scale + value; CHANNELS], "{code} {scale:e} {value:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_rounding_is_that_of_both_steps_where_the_product_is_exact() {
        for tier in tiers() {
            run_on(tier, Exact);
        }
    }

    #[test]
    fn usual_values_round_as_bf16_does() {
        for tier in tiers() {
            run_on(tier, Rounds);
        }
    }
}
