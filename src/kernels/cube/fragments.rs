//! How codes lie in device memory for matrix instructions: a lane of a plane reads its operands of a product in 16 bytes.
//!
//! Channels are cut into tiles of 16, K into blocks of 64. Lane `4g + t` of 32 owns, of channels `g` and `g + 8` of a tile, the k of
//! `32q + 8t + 4·half + i` (q, half in 0..2, i in 0..4). A product sums over k in any order, so a block may be permuted like this
//! as long as the activations are read in the same order: 8 neighbouring k for each q.
//!
//! A code takes 4 or 8 bits, as its difference from the middle code in two's complement:
//!
//! ```text
//! 4 bits: word((tile · blocks + block) · 128 + lane · 4 + 2q + half)                    nibble of (h, i)
//! 8 bits: word((tile · blocks + block) · 256 + q · 128 + lane · 4 + 2·half + h)          byte of i
//! ```
//!
//! For int8 activations nibble 2i + h and byte i; for float ones nibble h + 2(i/2) + 4(i%2) and byte i/2 + 2(i%2), so that a mask gives
//! two neighbouring k in the halves of a word.

use super::layout::Layout;
use crate::dtype::pack::PackedRows;
use rayon::prelude::*;

/// Channels of a tile.
pub(super) const TILE: usize = 16;
/// Codes along K of a block.
pub(super) const BLOCK: usize = 64;

/// The order of the codes in a word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Operand {
    /// Four int8 in a word.
    Bytes,
    /// Two halves in a word.
    Halves,
}

impl Operand {
    /// The bits of a word that hold code `i` of channel `h`, the first of them.
    pub fn shift(self, container: usize, h: usize, i: usize) -> usize {
        match (self, container) {
            (Operand::Bytes, 4) => 4 * (2 * i + h),
            (Operand::Bytes, _) => 8 * i,
            (Operand::Halves, 4) => 4 * (h + 2 * (i / 2) + 4 * (i % 2)),
            (Operand::Halves, _) => 8 * (i / 2 + 2 * (i % 2)),
        }
    }
}

/// Bits that a code takes.
pub(super) fn container(bits: usize) -> usize {
    if bits <= 4 { 4 } else { 8 }
}

/// Words of a weight of `n` channels and `k` codes each.
pub(super) fn words(layout: &Layout) -> usize {
    layout.n.div_ceil(TILE) * TILE * layout.k * container(layout.bits) / 32
}

/// The codes in this order, a tile at a time.
pub(super) fn pack(layout: &Layout, operand: Operand, codes: &PackedRows) -> Vec<u32> {
    let mut words = vec![0; words(layout)];
    let size = TILE * layout.k * container(layout.bits) / 32;
    words.par_chunks_mut(size).enumerate().for_each(|(tile, words)| {
        let mut row = vec![0; layout.k];
        for channel in tile * TILE..((tile + 1) * TILE).min(layout.n) {
            codes.read(channel, 0, &mut row);
            for (k, code) in row.iter().enumerate() {
                let (word, shift) = position(layout, operand, k, channel);
                words[word - tile * size] |= store(layout, *code) << shift;
            }
        }
    });
    words
}

/// The word of a code, and the first of its bits there.
pub(super) fn position(layout: &Layout, operand: Operand, k: usize, channel: usize) -> (usize, usize) {
    let (tile, h, g) = (channel / TILE, channel % TILE / 8, channel % 8);
    let (block, q, t, half, i) = (k / BLOCK, k % BLOCK / 32, k % 32 / 8, k % 8 / 4, k % 4);
    let at = tile * (layout.k / BLOCK) + block;
    let lane = 4 * g + t;
    let container = container(layout.bits);
    let word = if container == 4 {
        at * 128 + lane * 4 + 2 * q + half
    } else {
        at * 256 + q * 128 + lane * 4 + 2 * half + h
    };
    (word, operand.shift(container, h, i))
}

/// A code as it is stored.
pub(super) fn store(layout: &Layout, code: u8) -> u32 {
    let mask = (1u32 << container(layout.bits)) - 1;
    (code as u32).wrapping_sub(1 << (layout.bits - 1)) & mask
}

/// The code that is stored.
pub(super) fn load(layout: &Layout, stored: u32) -> u8 {
    let mask = (1u32 << layout.bits) - 1;
    (stored.wrapping_add(1 << (layout.bits - 1)) & mask) as u8
}
