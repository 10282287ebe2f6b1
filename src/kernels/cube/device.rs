//! Device code that every kernel of this folder shares: rounding, codes, positions.

use super::fragments::{Operand, container};
use super::layout::Arrangement;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

/// Four values of one unit.
pub(super) type V4<T> = Vector<T, Const<4>>;

/// A chunk of codes as vectors.
pub(super) const CHUNK_VECTORS: usize = super::layout::CHUNK / 4;

/// `x` itself, in a way that no compiler sees through when `zero`, an argument of the kernel, is 0: a product followed by a sum stays
/// two roundings.
#[cube]
pub(super) fn opaque(x: f32, zero: u32) -> f32 {
    f32::reinterpret(u32::reinterpret(x) ^ zero)
}

/// Whether `x` is a NaN or an infinity, by its bits: shader compilers may assume that there are none.
#[cube]
pub(super) fn is_not_finite(x: f32) -> bool {
    (u32::reinterpret(x) & 0x7f80_0000u32) == 0x7f80_0000u32
}

/// `x` rounded to the nearest value of `dtype`, ties to even, by integer operations: conversions of some devices truncate.
#[cube]
pub(super) fn round_to(x: f32, zero: u32, #[comptime] dtype: FloatDtype) -> f32 {
    let bits = u32::reinterpret(x);
    let sign = bits & 0x8000_0000u32;
    let magnitude = bits & 0x7fff_ffffu32;
    let special = magnitude >= 0x7f80_0000u32;
    if comptime!(dtype == FloatDtype::BF16) {
        let rounded = (magnitude + 0x7fffu32 + ((magnitude >> 16u32) & 1u32)) & 0xffff_0000u32;
        f32::reinterpret(sign | select(special, magnitude, rounded))
    } else if comptime!(dtype == FloatDtype::F16) {
        let rounded = (magnitude + 0xfffu32 + ((magnitude >> 13u32) & 1u32)) & 0xffff_e000u32;
        // From 65520 on, the nearest is an infinity.
        let normal = select(rounded >= 0x4780_0000u32, 0x7f80_0000u32.runtime(), rounded);
        // Below 2^-14, values are multiples of 2^-24, the distance of neighbours at 0.5.
        let small = opaque(f32::reinterpret(magnitude) + 0.5f32, zero) - 0.5f32;
        let finite = select(magnitude < 0x3880_0000u32, u32::reinterpret(small), normal);
        f32::reinterpret(sign | select(special, magnitude, finite))
    } else {
        x
    }
}

/// The nearest integer, ties to even, of `|x| ≤ 2^22`.
#[cube]
pub(super) fn round_ties_even(x: f32) -> i32 {
    let floor = x.floor();
    let fraction = x - floor;
    let integer = i32::cast_from(floor);
    let odd = integer & 1i32;
    let tie = select(fraction == 0.5f32, odd, 0i32.runtime());
    integer + select(fraction > 0.5f32, 1i32.runtime(), tie)
}

/// The sum of four values.
#[cube]
pub(super) fn sum_i32(v: V4<i32>) -> i32 {
    (v[0] + v[1]) + (v[2] + v[3])
}

/// The sum of four values.
#[cube]
pub(super) fn sum_f32(v: V4<f32>) -> f32 {
    (v[0] + v[1]) + (v[2] + v[3])
}

/// What a kernel is compiled for, of a weight's layout.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Packing {
    pub bits: usize,
    pub arrangement: Arrangement,
}

/// The unsigned codes of one chunk of one of `n` channels.
#[cube]
pub(super) fn decode(
    words: &Array<u32>,
    chunk: u32,
    channel: u32,
    n: u32,
    chunks: &Chunks,
    #[comptime] packing: Packing,
) -> Array<V4<i32>> {
    match comptime!(packing.arrangement) {
        Arrangement::Streams => decode_stream(
            words,
            chunk * comptime!(packing.bits as u32) * n + channel,
            n,
            packing.bits,
        ),
        Arrangement::Fragments(operand) => {
            decode_fragment(words, chunk, channel, chunks.count / 2u32, packing.bits, operand)
        }
    }
}

/// The integer zero point that is kept at `at`.
#[cube]
pub(super) fn zero_point_at(zeros: &Array<u32>, at: usize, #[comptime] packing: Packing) -> i32 {
    if comptime!(packing.arrangement == Arrangement::Fragments(Operand::Halves)) {
        i32::cast_from(f32::reinterpret(zeros[at]))
    } else {
        i32::reinterpret(zeros[at])
    }
}

/// `blocks` are those of a channel.
#[cube]
fn decode_fragment(
    words: &Array<u32>,
    chunk: u32,
    channel: u32,
    blocks: u32,
    #[comptime] bits: usize,
    #[comptime] operand: Operand,
) -> Array<V4<i32>> {
    let container = comptime!(container(bits));
    let block = (channel / 16u32) * blocks + chunk / 2u32;
    let h = (channel % 16u32) / 8u32;
    let lane = (channel % 8u32) * 4u32;
    let q = chunk % 2u32;
    let mut codes = Array::<V4<i32>>::new(CHUNK_VECTORS);
    #[unroll]
    for v in 0..CHUNK_VECTORS {
        let t = comptime!((v / 2) as u32);
        let half = comptime!((v % 2) as u32);
        let mut at = block * 128u32 + (lane + t) * 4u32 + q * 2u32 + half;
        let mut shift = h * 4u32;
        if comptime!(container == 8) {
            at = block * 256u32 + q * 128u32 + (lane + t) * 4u32 + half * 2u32 + h;
            shift = 0u32.runtime();
        }
        let word = words[at as usize] >> shift;
        let mut vector = V4::<i32>::empty();
        #[unroll]
        for i in 0..4usize {
            let stored = word >> comptime!(operand.shift(container, 0, i) as u32);
            let code = stored + comptime!(1u32 << (bits - 1));
            vector[i] = i32::cast_from(code & comptime!((1u32 << bits) - 1));
        }
        codes[v] = vector;
    }
    codes
}

/// `at` is the first word of the chunk, `stride` the distance to the next.
#[cube]
fn decode_stream(words: &Array<u32>, at: u32, stride: u32, #[comptime] bits: usize) -> Array<V4<i32>> {
    let mut buffer = Array::<u32>::new(bits);
    #[unroll]
    for j in 0..bits {
        buffer[j] = words[(at + stride * j as u32) as usize];
    }
    let mut codes = Array::<V4<i32>>::new(CHUNK_VECTORS);
    #[unroll]
    for q in 0..CHUNK_VECTORS {
        let mut vector = V4::<i32>::empty();
        #[unroll]
        for i in 0..4usize {
            let bit = comptime!((q * 4 + i) * bits);
            let word = comptime!(bit / 32);
            let shift = comptime!(bit % 32);
            let low = buffer[word] >> comptime!(shift as u32);
            if comptime!(shift + bits > 32) {
                let high = buffer[comptime!(word + 1)] << comptime!((32 - shift) as u32);
                vector[i] = i32::cast_from((low | high) & comptime!((1u32 << bits) - 1));
            } else {
                vector[i] = i32::cast_from(low & comptime!((1u32 << bits) - 1));
            }
        }
        codes[q] = vector;
    }
    codes
}

/// How chunks cover K, as arguments of a kernel.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Chunks {
    /// Reduced inputs.
    pub k: u32,
    /// Elements along K that share a scale.
    pub group: u32,
    /// Chunks of one group.
    pub per_group: u32,
    /// Chunks of one channel.
    pub count: u32,
}

/// Where the element `inner` of a chunk lies along K; `k` or more where it is padding.
#[cube]
pub(super) fn position(chunks: &Chunks, chunk: u32, inner: u32) -> u32 {
    let group = chunk / chunks.per_group;
    let offset = (chunk % chunks.per_group) * 32u32 + inner;
    let at = group * chunks.group + offset;
    select(offset < chunks.group && chunk < chunks.count, at, chunks.k)
}
