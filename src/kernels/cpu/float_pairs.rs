//! Products of bf16 activations where one instruction adds two of them: `acc + x0 · w0 + x1 · w1`, in f32.
//!
//! Codes less their zero points are integers of at most 8 bits, and weights with float zero points are rounded to bf16: both are exact
//! here. Scales come with the sums of each chain, as they do in f32.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::activation::PARALLEL_ELEMENTS;
use super::bf16::Bf16;
use super::float_blocks::split;
use super::isa::{Block, Isa};
use super::layout::{Lanes, Line, TILE};
use rayon::prelude::*;

/// Pairs of a tile.
const PAIRS: usize = TILE / 2;
/// Pairs between two ends of the inner loop.
const STEP: usize = 4;

/// `[block][padded K][rows of the block]` of bf16 values becomes `[block][padded K / 2][rows of the block]` of pairs, the first one low.
pub fn pack_pairs(x: &[f32], blocks: &[(usize, usize)]) -> Vec<u32> {
    let rows: usize = blocks.iter().map(|block| block.1).sum();
    let padded = x.len() / rows.max(1);
    let mut out = vec![0; x.len() / 2];
    let (mut from, mut to) = (x, &mut out[..]);
    let mut parts = Vec::with_capacity(blocks.len());
    for (_, rows) in blocks {
        let (x, pairs);
        (x, from) = from.split_at(rows * padded);
        (pairs, to) = to.split_at_mut(rows * padded / 2);
        parts.push((x, pairs, *rows));
    }
    let pack = |(x, pairs, rows): (&[f32], &mut [u32], usize)| {
        for (x, pairs) in x.chunks_exact(2 * rows).zip(pairs.chunks_exact_mut(rows)) {
            let (even, odd) = x.split_at(rows);
            for ((even, odd), pair) in even.iter().zip(odd).zip(pairs) {
                *pair = even.to_bits() >> 16 | odd.to_bits() & 0xffff_0000;
            }
        }
    };
    if x.len() < PARALLEL_ELEMENTS {
        parts.into_iter().for_each(pack);
    } else {
        parts.into_par_iter().for_each(pack);
    }
    out
}

/// Floats that bf16 holds, `[k]`, to pairs of them, `[k / 2]`.
pub struct PairUp<'a> {
    pub floats: &'a [Lanes<f32>],
    pub out: &'a mut [Line],
}

impl<I: Isa> Block<I> for PairUp<'_> {
    #[inline(always)]
    fn run(self, isa: I) {
        for ([even, odd], out) in self.floats.as_chunks::<2>().0.iter().zip(self.out) {
            isa.store_bytes(isa.pair_bf16(isa.load(even), isa.load(odd)), out);
        }
    }
}

/// `acc += s · Σ x · w` for each chain, x and w pairs.
pub struct PairDot<'a, const MR: usize, const NR: usize> {
    pub proof: Bf16,
    /// `[k / 2][row]`.
    pub x: &'a [u32],
    /// `[panel][k / 2]`.
    pub w: &'a [Line],
    /// From one panel to the next.
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

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for PairDot<'_, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (mut x, _) = self.x.as_chunks::<MR>().0.as_chunks::<STEP>();
        let mut w: [&[[Line; STEP]]; NR] = [&[]; NR];
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
            let steps = tiles * (PAIRS / STEP);
            let (xs, ws);
            (xs, x) = x.split_at(steps);
            (ws, w) = split(w, steps);
            let mut sums = [[isa.splat(0.0); NR]; MR];
            for step in 0..steps {
                for k in 0..STEP {
                    let mut pairs = [isa.load_bytes(&ws[0][step][k]); NR];
                    for j in 1..NR {
                        pairs[j] = isa.load_bytes(&ws[j][step][k]);
                    }
                    for r in 0..MR {
                        for j in 0..NR {
                            sums[r][j] = isa.dot_bf16(self.proof, sums[r][j], pairs[j], xs[step][k][r]);
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
