//! The inner blocks of products with float activations: codes to floats, and floats by floats.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::blocks::Tile;
use super::float_weights::{
    CODES, FLOAT, FLOAT_BF16, FLOAT_BF16_USUAL, FLOAT_EXACT, FLOAT_F16, FloatMode, FloatWeights, Part, SHARED,
};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes, Line, TILE, by_bits, each_quad};

/// Parts of one panel to floats, `[k]`.
pub struct Expand<'a> {
    pub weights: &'a FloatWeights<'a>,
    pub panel: usize,
    pub parts: &'a [Part],
    pub out: &'a mut [Lanes<f32>],
}

impl<I: Isa> Block<I> for Expand<'_> {
    #[inline(always)]
    fn run(mut self, isa: I) {
        macro_rules! tiles {
            ($bits:literal) => {
                match self.weights.kind {
                    CODES => self.tiles::<I, $bits, CODES>(isa),
                    _ => self.tiles::<I, $bits, SHARED>(isa),
                }
            };
        }
        by_bits!(self.weights.w.bits(), tiles);
        match self.weights.kind {
            FLOAT => self.finish::<I, FLOAT>(isa),
            FLOAT_EXACT => self.finish::<I, FLOAT_EXACT>(isa),
            FLOAT_F16 => self.finish::<I, FLOAT_F16>(isa),
            FLOAT_BF16 => self.finish::<I, FLOAT_BF16>(isa),
            FLOAT_BF16_USUAL => self.finish::<I, FLOAT_BF16_USUAL>(isa),
            _ => {}
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

/// `acc += s · Σ x · w` for each part, w floats.
pub struct FloatDot<'a, const MR: usize, const NR: usize> {
    /// `[k][row]`.
    pub x: &'a [f32],
    /// `[panel][k]`.
    pub w: &'a [Lanes<f32>],
    /// From one panel to the next.
    pub stride: usize,
    pub parts: &'a [Part],
    pub weights: &'a FloatWeights<'a>,
    /// The first panel.
    pub panel: usize,
    /// Lines of codes that are read next, in the same order.
    pub ahead: [&'a [Line]; NR],
    pub acc: Tile<'a, f32>,
}

/// Lines ahead of the codes in use that [`FewRows`] asks for.
const DISTANCE: usize = 16;
/// Groups ahead of the one in use whose scales it asks for.
const AHEAD: usize = 4;
/// k between two looks at the lines that are read next.
const STEP: usize = 8;

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for FloatDot<'_, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (x, _) = self.x.as_chunks::<MR>();
        let (x, _) = x.as_chunks::<STEP>();
        let groups = self.weights.w.groups.count;
        let lines = self.ahead[0].len().div_ceil(x.len()).max(1);
        let mut from = 0;
        for part in self.parts {
            let steps = part.tiles.len() * TILE / STEP;
            let mut w: [&[[Lanes<f32>; STEP]]; NR] = [&[]; NR];
            for j in 0..NR {
                w[j] = &self.w[j * self.stride..].as_chunks::<STEP>().0[from..from + steps];
            }
            let x = &x[from..from + steps];
            let mut sums = [[isa.splat(0.0); NR]; MR];
            for step in 0..steps {
                for j in 0..NR {
                    for line in self.ahead[j].iter().skip((from + step) * lines).take(lines) {
                        isa.prefetch(line, true);
                    }
                }
                for k in 0..STEP {
                    let mut floats = [isa.load(&w[0][step][k]); NR];
                    for j in 1..NR {
                        floats[j] = isa.load(&w[j][step][k]);
                    }
                    for r in 0..MR {
                        let x = isa.splat(x[step][k][r]);
                        for j in 0..NR {
                            sums[r][j] = isa.mul_add(floats[j], x, sums[r][j]);
                        }
                    }
                }
            }
            for j in 0..NR {
                let scale = match self.weights.mode {
                    FloatMode::Grouped => self.weights.scale(isa, (self.panel + j) * groups + part.group),
                    _ => isa.splat(1.0),
                };
                for r in 0..MR {
                    let acc = &mut self.acc.lanes[r * self.acc.stride + j];
                    isa.store(isa.mul_add(sums[r][j], scale, isa.load(acc)), acc);
                }
            }
            from += steps;
        }
    }
}

/// `acc = Σ over all parts of s · Σ x · w`, codes made floats in registers.
pub struct FewRows<'a, const MR: usize, const NR: usize> {
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
    if I::ONE_ROW == 0 {
        return None;
    }
    let most = match (weights.kind, weights.w.bits()) {
        (SHARED | CODES, 4 | 8) => 4,
        (SHARED | CODES, _) => 1,
        (FLOAT | FLOAT_EXACT | FLOAT_BF16_USUAL, 4) => 2,
        _ => 0,
    };
    (rows <= most).then(|| rows.next_power_of_two())
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for FewRows<'_, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        macro_rules! tiles {
            ($bits:literal) => {
                match self.weights.kind {
                    CODES => self.tiles::<I, $bits, CODES>(isa),
                    _ => self.tiles::<I, $bits, SHARED>(isa),
                }
            };
        }
        match (self.weights.kind, self.weights.w.bits()) {
            (SHARED, 4) => self.tiles::<I, 4, SHARED>(isa),
            (SHARED, 8) => self.tiles::<I, 8, SHARED>(isa),
            (CODES, 4) => self.tiles::<I, 4, CODES>(isa),
            (CODES, 8) => self.tiles::<I, 8, CODES>(isa),
            (FLOAT, 4) if MR < 4 => self.tiles::<I, 4, FLOAT>(isa),
            (FLOAT_EXACT, 4) if MR < 4 => self.tiles::<I, 4, FLOAT_EXACT>(isa),
            (FLOAT_BF16_USUAL, 4) if MR < 4 => self.tiles::<I, 4, FLOAT_BF16_USUAL>(isa),
            (SHARED | CODES, bits) if MR == 1 => by_bits!(bits, tiles),
            (kind, bits) => unreachable!("no block of {MR} rows for kind {kind} and {bits} bits"),
        }
    }
}

impl<const MR: usize, const NR: usize> FewRows<'_, MR, NR> {
    #[inline(always)]
    fn tiles<I: Isa, const BITS: usize, const KIND: u8>(self, isa: I) {
        let w = self.weights.w;
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
            let mut prepared =
                [self.weights
                    .prepare::<I, KIND>(isa, BITS, self.panel * w.groups.count + part.group); NR];
            for j in 1..NR {
                let at = (self.panel + j) * w.groups.count + part.group;
                prepared[j] = self.weights.prepare::<I, KIND>(isa, BITS, at);
            }
            let mut sums = [[isa.splat(0.0); NR]; MR];
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
                            let floats = prepared[j].floats::<I, BITS, $q, KIND>(isa, &tiles[j][t]);
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
            for j in 0..NR {
                let scale = match self.weights.mode {
                    FloatMode::Grouped => self.weights.scale(isa, (self.panel + j) * w.groups.count + part.group),
                    _ => isa.splat(1.0),
                };
                for r in 0..MR {
                    acc[r][j] = isa.mul_add(sums[r][j], scale, acc[r][j]);
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

/// No lanes.
pub const EMPTY: Lanes<f32> = Lanes([0.0; CHANNELS]);
