//! Products of bf16 activations where one instruction adds two of them: `acc + x0 · w0 + x1 · w1`, in f32.
//!
//! Codes less their zero points are integers of at most 8 bits, and weights with float zero points are rounded to bf16: both are exact
//! here. Scales come with the sums of each chain, as they do in f32.

use super::activation::PARALLEL_ELEMENTS;
use super::bf16::Bf16;
use super::float_blocks::Terms;
use super::isa::{Block, Isa};
use super::layout::{Lanes, Line};
use rayon::prelude::*;

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

/// Two bf16 each, the first one low.
#[derive(Clone, Copy)]
pub struct Pairs(pub Bf16);

impl<I: Isa> Terms<I> for Pairs {
    const K: usize = 2;
    type X = u32;
    type W = Line;
    type Loaded = I::Bytes;

    #[inline(always)]
    fn load(self, isa: I, w: &Line) -> I::Bytes {
        isa.load_bytes(w)
    }
    #[inline(always)]
    fn add(self, isa: I, sum: I::F32, w: I::Bytes, x: u32) -> I::F32 {
        isa.dot_bf16(self.0, sum, w, x)
    }
    #[inline(always)]
    fn enter<B: Block<I>>(self, isa: I, block: B) {
        isa.enter_bf16(self.0, block);
    }
}
