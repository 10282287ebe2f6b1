//! The weight of a product with float activations: how its codes become floats, and where K is cut.

use super::isa::{Decoder, Isa};
use super::layout::{CHANNELS, Lanes, Line};
use super::values::fetch;
use super::weight::{CpuWeight, Exact, Zeros};
use crate::dtype::FloatDtype;
use core::ops::Range;

/// Most tiles of a chain of sums. With 16 registers, its end costs as much as the products of some k: chains are longer.
pub const fn chain<I: Isa>() -> usize {
    if I::WIDE { 4 } else { 16 }
}

/// Some tiles of K inside one group.
///
/// `y = ((0 + s · Σ chain 0) + s · Σ chain 1) + …`, each Σ fused products in K order from 0, s the scale of the group or 1 where scales come
/// before or after. A chain is one part, but of several where each weight is scaled before it is multiplied. Chains depend on the weight
/// alone, so a row depends on nothing but itself.
pub struct Part {
    pub tiles: Range<usize>,
    pub group: usize,
    /// Whether it is the last of its chain.
    pub ends: bool,
}

/// K in parts.
pub fn parts<I: Isa>(weights: &FloatWeights) -> Vec<Part> {
    let groups = &weights.w.groups;
    let mut out: Vec<Part> = Vec::new();
    let (most, mut length) = (chain::<I>(), 0);
    for group in 0..groups.count {
        let tiles = groups.tiles(group);
        let count = tiles.len().div_ceil(most);
        for i in 0..count {
            let cut = |i| tiles.start + i * tiles.len() / count;
            let tiles = cut(i)..cut(i + 1);
            let goes_on = weights.scales_first() && length + tiles.len() <= most;
            if let Some(last) = out.last_mut() {
                last.ends = !goes_on;
            }
            length = if goes_on { length } else { 0 } + tiles.len();
            out.push(Part {
                tiles,
                group,
                ends: true,
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
    /// `(code − zero) · scale` in f32.
    Scaled,
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

/// `(code − zero) · scale` in f32, zero the same for all.
pub const SCALED: u8 = 7;
/// The same, zero of each channel and group.
pub const SCALED_CODES: u8 = 8;

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

/// What weights that are scaled one by one need of one panel and group.
#[derive(Clone, Copy)]
pub struct PreparedHigh<I: Isa> {
    zero: I::Bytes,
    /// Over 2^24.
    scale: I::F32,
    value: I::F32,
}

impl<I: Isa> PreparedHigh<I> {
    /// As [`Prepared::floats`], to the bit.
    #[inline(always)]
    pub fn floats<const BITS: usize, const Q: usize, const KIND: u8>(
        &self,
        isa: I,
        tile: &[Line; BITS],
    ) -> [I::F32; 4] {
        let mut out = isa.decode_high::<BITS, Q>(tile, self.zero);
        for out in &mut out {
            *out = match KIND {
                SCALED | SCALED_CODES => isa.mul(*out, self.scale),
                _ => value::<I, KIND>(isa, *out, self.scale, self.value),
            };
        }
        out
    }
}

/// What codes that become floats where they lie need of one panel and group, in memory since registers are few: see
/// [`FloatWeights::prepare_in_place`].
#[derive(Clone, Copy)]
pub struct InPlace {
    /// Over 2^(8 · i) for byte i.
    scale: [Lanes<f32>; 3],
    value: Lanes<f32>,
}

impl InPlace {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        scale: [Lanes([0.0; CHANNELS]); 3],
        value: Lanes([0.0; CHANNELS]),
    };

    /// The weights of byte `BYTE` of each channel: as [`Prepared::floats`], to the bit.
    #[inline(always)]
    pub fn weights<I: Isa, const BYTE: usize, const ONCE: bool>(
        &self,
        isa: I,
        codes: I::Bytes,
        offset: I::F32,
    ) -> I::F32 {
        let scale = isa.load(&self.scale[BYTE % 3]);
        let out = isa.mul_add(isa.byte::<BYTE>(codes), scale, offset);
        if ONCE { out } else { isa.add(out, isa.load(&self.value)) }
    }
}

impl<'a> FloatWeights<'a> {
    /// Whether 4-bit codes of some panels can become f32 where they lie: then whether one rounding is all that there is.
    pub fn in_place(&self, panels: Range<usize>) -> Option<bool> {
        if self.w.bits() != 4 || !matches!(self.kind, FLOAT | FLOAT_EXACT) {
            return None;
        }
        match self.w.exact[panels].iter().min()? {
            Exact::Nothing => None,
            Exact::Middle => Some(false),
            Exact::Start => Some(self.kind == FLOAT_EXACT),
        }
    }

    /// For codes at `panel · groups + group`: the offset that [`InPlace::weights`] wants.
    ///
    /// `(code − mid) · scale + value` of unsigned codes: a fused product of the code and the scale with `−mid · scale`, which is exact, rounds as the
    /// product of the difference does; then the value is added. Where `ONCE`, that product is exact and so is `value − mid · scale`: one fused
    /// product is all.
    #[inline(always)]
    pub fn prepare_in_place<I: Isa, const ONCE: bool>(&self, isa: I, at: usize, to: &mut InPlace) -> I::F32 {
        let scale = self.scale(isa, at);
        for (over, to) in [1.0, 256.0, 65_536.0].into_iter().zip(&mut to.scale) {
            isa.store(isa.mul(scale, isa.splat(1.0 / over)), to);
        }
        let Zeros::Float { value, mid } = &self.w.zero else {
            unreachable!("float zero points")
        };
        let value = value.read(isa, at);
        let middle = isa.mul(scale, isa.splat(-(*mid as f32)));
        if ONCE {
            return isa.add(value, middle);
        }
        isa.store(value, &mut to.value);
        middle
    }

    /// For activations of `dtype` on the instructions `I`.
    pub fn new<I: Isa>(w: &'a CpuWeight, dtype: FloatDtype) -> Self {
        let (mode, kind) = match (&w.zero, dtype) {
            (Zeros::Float { .. }, FloatDtype::F32) if w.usual && w.scale.has_16_bits() => {
                (FloatMode::FloatZero, FLOAT_EXACT)
            }
            (Zeros::Float { .. }, FloatDtype::F32) => (FloatMode::FloatZero, FLOAT),
            (Zeros::Float { .. }, FloatDtype::F16) => (FloatMode::FloatZero, FLOAT_F16),
            (Zeros::Float { .. }, FloatDtype::BF16) if w.usual => (FloatMode::FloatZero, FLOAT_BF16_USUAL),
            (Zeros::Float { .. }, FloatDtype::BF16) => (FloatMode::FloatZero, FLOAT_BF16),
            (Zeros::Codes(_), _) if w.groups.count > 1 && I::SCALED => (FloatMode::Scaled, SCALED_CODES),
            (_, _) if w.groups.count > 1 && I::SCALED => (FloatMode::Scaled, SCALED),
            (zero, _) => {
                let kind = if matches!(zero, Zeros::Codes(_)) { CODES } else { SHARED };
                let grouped = w.groups.count > 1;
                (if grouped { FloatMode::Grouped } else { FloatMode::Plain }, kind)
            }
        };
        Self { w, mode, kind }
    }

    /// Whether each weight is scaled before it is multiplied.
    fn scales_first(&self) -> bool {
        matches!(self.mode, FloatMode::Scaled | FloatMode::FloatZero)
    }

    /// Whether [`Isa::decode_high`] serves it: codes less zero points fit a signed byte, and scales over 2^24 stay normal.
    pub fn is_high(&self) -> bool {
        let fits = match &self.w.zero {
            Zeros::None(zero) | Zeros::Same(zero) | Zeros::Float { mid: zero, .. } => *zero == 128,
            Zeros::Codes(_) => false,
        };
        self.w.usual && (fits || self.w.bits() < 8)
    }

    /// The zero point that all codes share, for [`Isa::decode_high`].
    #[inline(always)]
    pub fn high_zero<I: Isa>(&self, isa: I) -> I::Bytes {
        match &self.w.zero {
            Zeros::None(zero) | Zeros::Same(zero) | Zeros::Float { mid: zero, .. } => isa.zeros(&[*zero; CHANNELS]),
            Zeros::Codes(_) => isa.zeros(&[0; CHANNELS]),
        }
    }

    /// For [`Isa::decode_high`] at `panel · groups + group`; `zero` is [`FloatWeights::high_zero`].
    #[inline(always)]
    pub fn prepare_high<I: Isa, const KIND: u8>(&self, isa: I, at: usize, zero: I::Bytes) -> PreparedHigh<I> {
        const UNIT: f32 = 1.0 / (1 << 24) as f32;
        PreparedHigh {
            zero: match &self.w.zero {
                Zeros::Codes(zeros) if KIND == SCALED_CODES => isa.zeros(&zeros[at]),
                _ => zero,
            },
            scale: isa.mul(self.scale(isa, at), isa.splat(UNIT)),
            value: match &self.w.zero {
                Zeros::Float { value, .. } if KIND < SCALED => value.read(isa, at),
                _ => isa.splat(0.0),
            },
        }
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
            Zeros::Codes(zeros) if matches!(KIND, CODES | SCALED_CODES) => Prepared {
                decoder: isa.channel_decoder(bits, &zeros[at]),
                scale: if KIND == CODES { zero } else { self.scale(isa, at) },
                value: zero,
            },
            Zeros::Float { value, mid } if matches!(KIND, FLOAT..=FLOAT_EXACT) => Prepared {
                decoder: isa.decoder(bits, *mid as i32),
                scale: self.scale(isa, at),
                value: value.read(isa, at),
            },
            shared => Prepared {
                decoder: isa.decoder(bits, shared.code(0, 0) as i32),
                scale: if KIND == SCALED { self.scale(isa, at) } else { zero },
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
        let mut out = match KIND {
            CODES | SCALED_CODES => isa.decode::<BITS, Q, false>(tile, &self.decoder),
            _ => isa.decode::<BITS, Q, true>(tile, &self.decoder),
        };
        if KIND >= FLOAT {
            for out in &mut out {
                *out = self.value::<I, KIND>(isa, *out);
            }
        }
        out
    }

    /// From `code − zero` to the weight.
    #[inline(always)]
    pub fn value<I: Isa<F32 = F>, const KIND: u8>(&self, isa: I, code: F) -> F {
        match KIND {
            SCALED | SCALED_CODES => isa.mul(code, self.scale),
            _ => value::<I, KIND>(isa, code, self.scale, self.value),
        }
    }
}

/// `code · scale + value`, each step rounded to the activation's dtype.
#[inline(always)]
fn value<I: Isa, const KIND: u8>(isa: I, code: I::F32, scale: I::F32, value: I::F32) -> I::F32 {
    if KIND == FLOAT_EXACT && I::FUSED {
        return isa.mul_add(code, scale, value);
    }
    if KIND == FLOAT_BF16_USUAL {
        let scaled = round_bf16(isa, isa.mul(code, scale));
        return round_bf16(isa, isa.add(scaled, value));
    }
    let dtype = match KIND {
        FLOAT_F16 => FloatDtype::F16,
        FLOAT_BF16 => FloatDtype::BF16,
        _ => FloatDtype::F32,
    };
    let scaled = isa.round(dtype, isa.mul(code, scale));
    isa.round(dtype, isa.add(scaled, value))
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
    use super::super::layout::Lanes;
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
