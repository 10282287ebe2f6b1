//! The inner blocks of products with float activations: codes to floats, and floats by floats.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::float_weights::{
    CODES, FLOAT, FLOAT_BF16, FLOAT_BF16_USUAL, FLOAT_EXACT, FLOAT_F16, FloatMode, FloatWeights, InPlace, Part,
    Prepared, PreparedHigh, SCALED, SCALED_CODES, SHARED,
};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes, Line, TILE, by_bits, each_quad};

/// Parts of one panel to floats, `[k]`, and the scales of their sums.
pub struct Expand<'a> {
    pub weights: &'a FloatWeights<'a>,
    pub panel: usize,
    pub parts: &'a [Part],
    pub out: &'a mut [Lanes<f32>],
    /// One for each part, where sums are scaled.
    pub scales: &'a mut [Lanes<f32>],
}

impl<I: Isa> Block<I> for Expand<'_> {
    #[inline(always)]
    fn run(mut self, isa: I) {
        macro_rules! tiles {
            ($bits:literal) => {
                match self.weights.kind {
                    CODES => self.tiles::<I, $bits, CODES>(isa),
                    SCALED_CODES if I::SCALED => self.tiles::<I, $bits, SCALED_CODES>(isa),
                    SCALED if I::SCALED => self.tiles::<I, $bits, SCALED>(isa),
                    _ => self.tiles::<I, $bits, SHARED>(isa),
                }
            };
        }
        match (self.weights.kind, self.weights.w.bits()) {
            (FLOAT, 4) => return self.tiles::<I, 4, FLOAT>(isa),
            (FLOAT_EXACT, 4) => return self.tiles::<I, 4, FLOAT_EXACT>(isa),
            (FLOAT_BF16_USUAL, 4) => return self.tiles::<I, 4, FLOAT_BF16_USUAL>(isa),
            (_, bits) => by_bits!(bits, tiles),
        }
        match self.weights.kind {
            FLOAT => self.finish::<I, FLOAT>(isa),
            FLOAT_EXACT => self.finish::<I, FLOAT_EXACT>(isa),
            FLOAT_F16 => self.finish::<I, FLOAT_F16>(isa),
            FLOAT_BF16 => self.finish::<I, FLOAT_BF16>(isa),
            FLOAT_BF16_USUAL => self.finish::<I, FLOAT_BF16_USUAL>(isa),
            _ => {}
        }
        if self.weights.mode == FloatMode::Grouped {
            for (part, scale) in self.parts.iter().zip(self.scales) {
                let at = self.panel * self.weights.w.groups.count + part.group;
                isa.store(self.weights.scale(isa, at), scale);
            }
        }
    }
}

impl Expand<'_> {
    /// `code − mid` to `(code − mid) · scale + value`.
    #[inline(always)]
    fn finish<I: Isa, const KIND: u8>(&mut self, isa: I) {
        let mut from = 0;
        for part in self.parts {
            let at = self.panel * self.weights.w.groups.count + part.group;
            let prepared = self.weights.prepare::<I, KIND>(isa, 8, at);
            let count = part.tiles.len() * TILE;
            for out in &mut self.out[from..from + count] {
                isa.store(prepared.value::<I, KIND>(isa, isa.load(out)), out);
            }
            from += count;
        }
    }

    #[inline(always)]
    fn tiles<I: Isa, const BITS: usize, const KIND: u8>(&mut self, isa: I) {
        let (tiles, _) = self.weights.w.panel(self.panel).as_chunks::<BITS>();
        let (out, _) = self.out.as_chunks_mut::<TILE>();
        let mut out = out.iter_mut();
        for part in self.parts {
            let at = self.panel * self.weights.w.groups.count + part.group;
            let prepared = self.weights.prepare::<I, KIND>(isa, BITS, at);
            for (tile, out) in tiles[part.tiles.clone()].iter().zip(&mut out) {
                macro_rules! quad {
                    ($q:literal) => {
                        let floats = prepared.floats::<I, BITS, $q, KIND>(isa, tile);
                        for i in 0..4 {
                            isa.store(floats[i], &mut out[$q * 4 + i]);
                        }
                    };
                }
                each_quad!(quad);
            }
        }
    }
}

/// What a product multiplies and adds at once: one k, or several.
pub trait Terms<I: Isa>: Copy {
    /// Their k.
    const K: usize;
    /// Of an activation.
    type X: Copy;
    /// Of the channels of a panel, in memory.
    type W;
    /// The same in a register.
    type Loaded: Copy;

    /// Reads it.
    fn load(self, isa: I, w: &Self::W) -> Self::Loaded;
    /// `sum + x · w`.
    fn add(self, isa: I, sum: I::F32, w: Self::Loaded, x: Self::X) -> I::F32;
    /// Runs a block that calls these.
    fn enter<B: Block<I>>(self, isa: I, block: B);
}

/// One f32 each.
#[derive(Clone, Copy)]
pub struct Singles;

impl<I: Isa> Terms<I> for Singles {
    const K: usize = 1;
    type X = f32;
    type W = Lanes<f32>;
    type Loaded = I::F32;

    #[inline(always)]
    fn load(self, isa: I, w: &Lanes<f32>) -> I::F32 {
        isa.load(w)
    }
    #[inline(always)]
    fn add(self, isa: I, sum: I::F32, w: I::F32, x: f32) -> I::F32 {
        isa.mul_add(w, isa.splat(x), sum)
    }
    #[inline(always)]
    fn enter<B: Block<I>>(self, isa: I, block: B) {
        isa.enter(block);
    }
}

/// `acc += s · Σ x · w` for each chain.
pub struct FloatDot<'a, I: Isa, T: Terms<I>, const MR: usize, const NR: usize> {
    pub terms: T,
    /// `[term][row]`.
    pub x: &'a [T::X],
    /// `[panel][term]`.
    pub w: &'a [T::W],
    /// Terms from one panel to the next.
    pub stride: usize,
    /// Tiles of each chain.
    pub chains: &'a [usize],
    /// `[panel][chain]`.
    pub scales: &'a [Lanes<f32>],
    /// Lines of codes of each panel that are read next.
    pub ahead: [&'a [Line]; NR],
    /// Whether nothing was added to `acc` yet.
    pub first: bool,
    /// `[panel][row]`.
    pub acc: [&'a mut [Lanes<f32>; MR]; NR],
}

/// Terms between two ends of the inner loop.
const STEP: usize = 4;

impl<I: Isa, T: Terms<I>, const MR: usize, const NR: usize> Block<I> for FloatDot<'_, I, T, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (mut x, _) = self.x.as_chunks::<MR>().0.as_chunks::<STEP>();
        let mut w: [&[[T::W; STEP]]; NR] = [&[]; NR];
        for j in 0..NR {
            w[j] = self.w[j * self.stride..][..self.stride].as_chunks().0;
            for line in self.ahead[j] {
                isa.prefetch(line, true);
            }
            for acc in self.acc[j].iter_mut().filter(|_| self.first) {
                isa.store(isa.splat(0.0), acc);
            }
        }
        for (chain, tiles) in self.chains.iter().enumerate() {
            let steps = tiles * (TILE / T::K / STEP);
            let (xs, ws);
            (xs, x) = x.split_at(steps);
            (ws, w) = split(w, steps);
            let mut sums = [[isa.splat(0.0); NR]; MR];
            for step in 0..steps {
                for term in 0..STEP {
                    let mut loaded = [self.terms.load(isa, &ws[0][step][term]); NR];
                    for j in 1..NR {
                        loaded[j] = self.terms.load(isa, &ws[j][step][term]);
                    }
                    for r in 0..MR {
                        for j in 0..NR {
                            sums[r][j] = self.terms.add(isa, sums[r][j], loaded[j], xs[step][term][r]);
                        }
                    }
                }
            }
            for j in 0..NR {
                let scale = isa.load(&self.scales[j * self.chains.len() + chain]);
                for r in 0..MR {
                    let acc = &mut self.acc[j][r];
                    isa.store(isa.mul_add(sums[r][j], scale, isa.load(acc)), acc);
                }
            }
        }
    }
}

/// The first `steps` of each panel, and the others.
#[inline(always)]
fn split<T, const NR: usize>(all: [&[T]; NR], steps: usize) -> ([&[T]; NR], [&[T]; NR]) {
    let (mut first, mut rest): ([&[T]; NR], [&[T]; NR]) = ([&[]; NR], [&[]; NR]);
    for j in 0..NR {
        (first[j], rest[j]) = all[j].split_at(steps);
    }
    (first, rest)
}

/// Lines ahead of the codes in use that [`FewRows`] asks for.
const DISTANCE: usize = 32;
/// Groups ahead of the one in use whose scales it asks for.
const AHEAD: usize = 4;

/// `acc = Σ over all chains of s · Σ x · w`, codes made floats in registers.
pub struct FewRows<'a, const MR: usize, const NR: usize, const BITS: usize, const KIND: u8> {
    /// `[k][row]`.
    pub x: &'a [f32],
    pub parts: &'a [Part],
    pub weights: &'a FloatWeights<'a>,
    /// The first panel.
    pub panel: usize,
    /// `[row][panel]`.
    pub acc: &'a mut [[Lanes<f32>; NR]; MR],
}

/// Rows that a block of [`FewRows`] has for so many, where there is one: each packed line is read once.
pub fn few_rows<I: Isa>(weights: &FloatWeights, rows: usize) -> Option<usize> {
    if I::ONE_ROW == 0 || I::SCALED && weights.kind >= FLOAT && !weights.is_high() {
        return None;
    }
    let most = match (weights.kind, weights.w.bits()) {
        (SHARED | CODES | SCALED | SCALED_CODES, 4 | 8) => 4,
        (SHARED | CODES | SCALED | SCALED_CODES, _) => 1,
        (FLOAT | FLOAT_EXACT | FLOAT_BF16_USUAL, 4) => 2,
        _ => 0,
    };
    (rows <= most).then(|| rows.next_power_of_two())
}

/// Calls `$call!(BITS, KIND)` for the block of [`FewRows`] that serves `$weights` with `$mr` rows.
macro_rules! by_format {
    ($isa:ty, $mr:literal, $weights:expr, $call:ident) => {{
        macro_rules! one_row {
            ($bits:literal) => {
                match $weights.kind {
                    CODES => $call!($bits, CODES),
                    SCALED if <$isa>::SCALED => $call!($bits, SCALED),
                    SCALED_CODES if <$isa>::SCALED => $call!($bits, SCALED_CODES),
                    _ => $call!($bits, SHARED),
                }
            };
        }
        match ($weights.kind, $weights.w.bits()) {
            (FLOAT, 4) if $mr < 4 => $call!(4, FLOAT),
            (FLOAT_EXACT, 4) if $mr < 4 => $call!(4, FLOAT_EXACT),
            (FLOAT_BF16_USUAL, 4) if $mr < 4 => $call!(4, FLOAT_BF16_USUAL),
            (SHARED | CODES | SCALED | SCALED_CODES, 4) => one_row!(4),
            (SHARED | CODES | SCALED | SCALED_CODES, 8) => one_row!(8),
            (SHARED | CODES | SCALED | SCALED_CODES, bits) if $mr == 1 => by_bits!(bits, one_row),
            (kind, bits) => unreachable!("no block of {} rows for kind {kind} and {bits} bits", $mr),
        }
    }};
}
pub(super) use by_format;

/// What a block needs of a panel and group.
#[derive(Clone, Copy)]
enum Ready<I: Isa> {
    Low(Prepared<I::F32>),
    High(PreparedHigh<I>),
}

impl<I: Isa, const MR: usize, const NR: usize, const BITS: usize, const KIND: u8> Block<I>
    for FewRows<'_, MR, NR, BITS, KIND>
{
    #[inline(always)]
    fn run(self, isa: I) {
        let w = self.weights.w;
        let high = I::SCALED && KIND >= FLOAT;
        let zero = if high { Some(self.weights.high_zero(isa)) } else { None };
        macro_rules! ready {
            ($at:expr) => {
                match zero {
                    Some(zero) => Ready::High(self.weights.prepare_high::<I, KIND>(isa, $at, zero)),
                    None => Ready::Low(self.weights.prepare::<I, KIND>(isa, BITS, $at)),
                }
            };
        }
        let (x, _) = self.x.as_chunks::<MR>();
        let (x, _) = x.as_chunks::<TILE>();
        let total = w.groups.total_tiles;
        let (all, _) = w.codes.as_chunks::<BITS>();
        let mut tiles: [&[[Line; BITS]]; NR] = [&[]; NR];
        for j in 0..NR {
            tiles[j] = &all[(self.panel + j) * total..][..total];
        }
        let distance = DISTANCE.div_ceil(BITS).max(1).min(total);
        let x = &x[..total];
        let mut acc = [[isa.splat(0.0); NR]; MR];
        let mut sums = [[isa.splat(0.0); NR]; MR];
        for part in self.parts {
            let next = part.group + AHEAD;
            let next = next
                + if next < w.groups.count {
                    0
                } else {
                    (NR - 1) * w.groups.count
                };
            for j in 0..NR {
                self.weights.fetch_one(isa, (self.panel + j) * w.groups.count + next);
            }
            let mut prepared = [ready!(self.panel * w.groups.count + part.group); NR];
            for j in 1..NR {
                prepared[j] = ready!((self.panel + j) * w.groups.count + part.group);
            }
            for t in part.tiles.clone() {
                let x = &x[t];
                for j in 0..NR {
                    // Beyond its end, a panel's stream goes on in the panel that is walked after it.
                    let next = t + distance + if t + distance < total { 0 } else { (NR - 1) * total };
                    if let Some(tile) = all.get((self.panel + j) * total + next) {
                        for line in tile {
                            isa.prefetch(line, true);
                        }
                    }
                }
                macro_rules! quad {
                    ($q:literal) => {
                        for j in 0..NR {
                            let floats = match &prepared[j] {
                                Ready::High(ready) => ready.floats::<BITS, $q, KIND>(isa, &tiles[j][t]),
                                Ready::Low(ready) => ready.floats::<I, BITS, $q, KIND>(isa, &tiles[j][t]),
                            };
                            for i in 0..4 {
                                for r in 0..MR {
                                    sums[r][j] = isa.mul_add(floats[i], isa.splat(x[$q * 4 + i][r]), sums[r][j]);
                                }
                            }
                        }
                    };
                }
                each_quad!(quad);
            }
            if !part.ends {
                continue;
            }
            for j in 0..NR {
                let scale = match self.weights.mode {
                    FloatMode::Grouped if KIND <= CODES => {
                        self.weights.scale(isa, (self.panel + j) * w.groups.count + part.group)
                    }
                    _ => isa.splat(1.0),
                };
                for r in 0..MR {
                    acc[r][j] = isa.mul_add(sums[r][j], scale, acc[r][j]);
                    sums[r][j] = isa.splat(0.0);
                }
            }
        }
        for j in 0..NR {
            for r in 0..MR {
                isa.store(acc[r][j], &mut self.acc[r][j]);
            }
        }
    }
}

/// Panels of [`OneRow`].
pub const PAIR: usize = 2;

/// As [`FewRows`] of one row, with codes of 4 bits that become floats where they lie; sums stay in registers. `ONCE` is what
/// [`FloatWeights::in_place`] says.
pub struct OneRow<'a, const ONCE: bool> {
    pub x: &'a [f32],
    pub parts: &'a [Part],
    pub weights: &'a FloatWeights<'a>,
    /// The first panel.
    pub panel: usize,
    /// Scratch.
    pub ready: &'a mut [InPlace; PAIR],
    pub acc: &'a mut [Lanes<f32>; PAIR],
}

impl<I: Isa, const ONCE: bool> Block<I> for OneRow<'_, ONCE> {
    #[inline(always)]
    fn run(self, isa: I) {
        const BITS: usize = 4;
        let (w, ready) = (self.weights.w, self.ready);
        let (total, groups) = (w.groups.total_tiles, w.groups.count);
        let (all, _) = w.codes.as_chunks::<BITS>();
        let all = &all[self.panel * total..];
        let tiles = [&all[..total], &all[total..2 * total]];
        let distance = (DISTANCE / BITS).min(total);
        let (x, _) = self.x.as_chunks::<TILE>();
        let x = &x[..total];
        let (mut acc, mut sums) = ([isa.splat(0.0); PAIR], [isa.splat(0.0); PAIR]);
        for part in self.parts {
            let at = self.panel * groups + part.group;
            // Beyond its end, a panel's stream goes on in the panel that is walked after it.
            let next = at + AHEAD + if part.group + AHEAD < groups { 0 } else { groups };
            self.weights.fetch_one(isa, next);
            self.weights.fetch_one(isa, next + groups);
            let offsets = [
                self.weights.prepare_in_place::<I, ONCE>(isa, at, &mut ready[0]),
                self.weights
                    .prepare_in_place::<I, ONCE>(isa, at + groups, &mut ready[1]),
            ];
            for t in part.tiles.clone() {
                let (x, tiles) = (&x[t], [&tiles[0][t], &tiles[1][t]]);
                let next = t + distance + if t + distance < total { 0 } else { total };
                for tile in [all.get(next), all.get(next + total)].into_iter().flatten() {
                    for line in tile {
                        isa.prefetch(line, true);
                    }
                }
                macro_rules! quad {
                    ($q:literal) => {
                        let codes = [
                            isa.bytes::<BITS, $q>(tiles[0]),
                            isa.bytes::<BITS, $q>(tiles[1]),
                        ];
                        macro_rules! one {
                            ($i:literal) => {
                                let x = isa.splat(x[$q * 4 + $i]);
                                for j in 0..PAIR {
                                    let weights = ready[j].weights::<I, $i, ONCE>(isa, codes[j], offsets[j]);
                                    sums[j] = isa.mul_add(weights, x, sums[j]);
                                }
                                isa.pin(&mut sums);
                            };
                        }
                        one!(0);
                        one!(1);
                        one!(2);
                        one!(3);
                    };
                }
                each_quad!(quad);
            }
            if part.ends {
                for j in 0..PAIR {
                    acc[j] = isa.add(acc[j], sums[j]);
                    sums[j] = isa.splat(0.0);
                }
            }
        }
        for j in 0..PAIR {
            isa.store(acc[j], &mut self.acc[j]);
        }
    }
}

/// No lanes.
pub const EMPTY: Lanes<f32> = Lanes([0.0; CHANNELS]);
