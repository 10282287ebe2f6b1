//! Products of float activations with codes of 1 or 2 bits: sums of several inputs are looked up by their codes.
//!
//! Four neighbouring bits of a line are the codes of 4 or 2 inputs of one channel: they select one of the 16 sums that these inputs can add
//! to an output. 3 bits, as 2 and 1, were faster so for one row (1.2 times) and slower for more (0.7 times at 8 to 128 rows).

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::float_weights::{FloatMode, FloatWeights, Part, SHARED};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes, Line, TILE, each_quad};

/// Lookups of each line.
pub const LOOKUPS: usize = 8;
/// Rows that a block takes at most.
pub const ROWS: usize = 4;
/// Panels that a block takes where there are as many.
pub const PANELS: usize = 4;
/// Lines ahead of the codes in use that are asked for.
const DISTANCE: usize = 16;

/// Whether products on these instructions look sums up.
pub fn looks_up<I: Isa>(weights: &FloatWeights) -> bool {
    let bits = weights.w.bits();
    I::LOOKUP && bits <= 2 && weights.kind == SHARED && (weights.w.zero.code(0, 0) as u32) < 1 << bits
}

/// All sums of the inputs of some rows.
pub struct Sums<'a> {
    /// `[k][row]`.
    pub x: &'a [f32],
    pub rows: usize,
    pub bits: usize,
    /// The zero point of all codes.
    pub zero: u8,
    /// `[tile][line][lookup][row]`.
    pub out: &'a mut [Lanes<f32>],
}

impl<I: Isa> Block<I> for Sums<'_> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (bits, rows) = (self.bits, self.rows);
        let inputs = 4 / bits;
        // What input `s` of a lookup is multiplied by, for each of the 16 sums.
        let mut factors = [Lanes([0.0f32; CHANNELS]); 4];
        for (s, factors) in factors.iter_mut().take(inputs).enumerate() {
            for (selected, factor) in factors.0.iter_mut().enumerate() {
                let code = selected >> (s * bits) & ((1 << bits) - 1);
                *factor = code as f32 - self.zero as f32;
            }
        }
        let tiles = self.out.chunks_exact_mut(bits * LOOKUPS * rows);
        for (x, out) in self.x.chunks_exact(TILE * rows).zip(tiles) {
            for (line, out) in out.chunks_exact_mut(LOOKUPS * rows).enumerate() {
                for (lookup, out) in out.chunks_exact_mut(rows).enumerate() {
                    // The halves of byte i of a channel are codes of input i of two runs of quads.
                    let quad = (2 * line + lookup % 2) * inputs;
                    for (r, out) in out.iter_mut().enumerate() {
                        let mut sum = isa.splat(0.0);
                        for (s, factors) in factors.iter().take(inputs).enumerate() {
                            let x = x[((quad + s) * 4 + lookup / 2) * rows + r];
                            sum = isa.mul_add(isa.load(factors), isa.splat(x), sum);
                        }
                        isa.store(sum, out);
                    }
                }
            }
        }
    }
}

/// `acc = Σ over all parts of s · Σ x · w` of `MR` rows and `NR` panels.
pub struct Lookup<'a, const MR: usize, const NR: usize> {
    /// What [`Sums`] made of the rows.
    pub sums: &'a [Lanes<f32>],
    pub parts: &'a [Part],
    pub weights: &'a FloatWeights<'a>,
    /// The first panel.
    pub panel: usize,
    /// `[row][panel]`.
    pub acc: &'a mut [[Lanes<f32>; NR]; MR],
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for Lookup<'_, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        match self.weights.w.bits() {
            1 => self.tiles::<I, 1>(isa),
            _ => self.tiles::<I, 2>(isa),
        }
    }
}

impl<const MR: usize, const NR: usize> Lookup<'_, MR, NR> {
    #[inline(always)]
    fn tiles<I: Isa, const BITS: usize>(self, isa: I) {
        let w = self.weights.w;
        let total = w.groups.total_tiles;
        let (sums, _) = self.sums.as_chunks::<MR>();
        let (sums, _) = sums.as_chunks::<LOOKUPS>();
        let (sums, _) = sums.as_chunks::<BITS>();
        let sums = &sums[..total];
        let (all, _) = w.codes.as_chunks::<BITS>();
        let mut tiles: [&[[Line; BITS]]; NR] = [&[]; NR];
        for j in 0..NR {
            tiles[j] = &all[(self.panel + j) * total..][..total];
        }
        let distance = DISTANCE.div_ceil(BITS).min(total);
        let mut acc = [[isa.splat(0.0); NR]; MR];
        for part in self.parts {
            let mut of_part = [[isa.splat(0.0); NR]; MR];
            for t in part.tiles.clone() {
                for j in 0..NR {
                    // Beyond its end, a panel's stream goes on in the panel that is walked after it.
                    let next = t + distance + if t + distance < total { 0 } else { (NR - 1) * total };
                    if let Some(tile) = all.get((self.panel + j) * total + next) {
                        for line in tile {
                            isa.prefetch(line, true);
                        }
                    }
                }
                for line in 0..BITS {
                    let mut codes = [isa.load_bytes(&tiles[0][t][line]); NR];
                    for j in 1..NR {
                        codes[j] = isa.load_bytes(&tiles[j][t][line]);
                    }
                    let sums = &sums[t][line];
                    macro_rules! lookup {
                        ($at:literal) => {
                            for r in 0..MR {
                                let table = isa.load(&sums[$at][r]);
                                for j in 0..NR {
                                    let sum = isa.lookup::<{ 4 * $at }>(codes[j], table);
                                    of_part[r][j] = isa.add(of_part[r][j], sum);
                                }
                            }
                        };
                    }
                    each_quad!(lookup);
                }
            }
            for j in 0..NR {
                let scale = match self.weights.mode {
                    FloatMode::Grouped => self.weights.scale(isa, (self.panel + j) * w.groups.count + part.group),
                    _ => isa.splat(1.0),
                };
                for r in 0..MR {
                    acc[r][j] = isa.mul_add(of_part[r][j], scale, acc[r][j]);
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
