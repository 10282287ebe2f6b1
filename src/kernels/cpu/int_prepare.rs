//! What integer products read of a chunk of one panel: codes of one byte each, scales as f32, sums of the codes.

use super::blocks::GroupZeros;
use super::isa::{Block, Isa, widen};
use super::layout::{Lanes, Line, QUADS, TILE, by_bits, each_quad};
use super::values::Values;

/// Unpacks a chunk of one panel; what is not wanted is empty.
pub struct Prepare<'a> {
    pub bits: u32,
    pub packed: &'a [Line],
    /// Tiles and elements of each group of the chunk.
    pub groups: &'a [(usize, usize)],
    /// The codes: one a byte, or those of 8 bits as pairs.
    pub quads: &'a mut [Line],
    /// The zero points, unshifted.
    pub zero: GroupZeros<'a>,
    /// `Σ (w − zw)` of each group, for activations that have zero points.
    pub sums: &'a mut [Lanes<i32>],
    pub values: &'a Values,
    /// The place of the first group in `values`.
    pub at: usize,
    /// The scale of each group.
    pub scale: &'a mut [Lanes<f32>],
}

impl<I: Isa> Block<I> for Prepare<'_> {
    #[inline(always)]
    fn run(self, isa: I) {
        for (i, scale) in self.scale.iter_mut().enumerate() {
            isa.store(self.values.read(isa, self.at + i), scale);
        }
        macro_rules! codes {
            (8) => {
                self.pairs(isa)
            };
            ($bits:literal) => {
                self.unpack::<I, $bits>(isa)
            };
        }
        by_bits!(self.bits, codes);
    }
}

impl Prepare<'_> {
    /// Codes of 8 bits as pairs, where they are wanted.
    #[inline(always)]
    fn pairs<I: Isa>(self, isa: I) {
        if !I::PAIR_ROWS.is_empty() {
            for (line, pairs) in self.packed.iter().zip(self.quads.as_chunks_mut().0) {
                isa.store_pairs(isa.load_bytes(line), pairs);
            }
        }
        self.sums(isa);
    }

    #[inline(always)]
    fn unpack<I: Isa, const BITS: usize>(self, isa: I) {
        let (packed, _) = self.packed.as_chunks::<BITS>();
        let (quads, _) = self.quads.as_chunks_mut::<QUADS>();
        let mut tiles = packed.iter().zip(quads);
        let summed = !self.sums.is_empty();
        for (group, (count, elements)) in self.groups.iter().enumerate() {
            let mut sums = Sums::new(isa);
            for (tile, quads) in tiles.by_ref().take(*count) {
                macro_rules! quad {
                    ($q:literal) => {
                        let codes = isa.bytes::<BITS, $q>(tile);
                        isa.store_bytes(codes, &mut quads[$q]);
                        if summed {
                            sums.add(isa, $q, codes);
                        }
                    };
                }
                each_quad!(quad);
                sums.end_tile(isa);
            }
            if summed {
                let centered = isa.add_i32(sums.total(isa), self.zero.of_group(isa, group, *count, *elements));
                isa.store_i32(centered, &mut self.sums[group]);
            }
        }
    }

    /// Sums of the codes of 8 bits.
    #[inline(always)]
    fn sums<I: Isa>(self, isa: I) {
        let mut tiles = self.packed.as_chunks::<QUADS>().0.iter();
        for (group, (out, (count, elements))) in self.sums.iter_mut().zip(self.groups).enumerate() {
            let mut sums = Sums::new(isa);
            for tile in tiles.by_ref().take(*count) {
                for (q, quad) in tile.iter().enumerate() {
                    sums.add(isa, q, isa.load_bytes(quad));
                }
                sums.end_tile(isa);
            }
            let centered = isa.add_i32(sums.total(isa), self.zero.of_group(isa, group, *count, *elements));
            isa.store_i32(centered, out);
        }
    }
}

/// Sums of codes, in several chains.
struct Sums<I: Isa> {
    chains: [I::I32; 4],
    /// Of the tile: whole tiles, whose 16 codes of 8 bits stay inside 16 bits.
    narrow: I::I32,
    ones: I::Quad,
    narrow_ones: I::Quad,
}

impl<I: Isa> Sums<I> {
    #[inline(always)]
    fn new(isa: I) -> Self {
        let zero = isa.splat_i32(0);
        Self {
            chains: [zero; 4],
            narrow: zero,
            ones: I::quad([1; 4]),
            narrow_ones: I::narrow_quad([1; 4]),
        }
    }

    /// Adds quad `q` of a tile.
    #[inline(always)]
    fn add(&mut self, isa: I, q: usize, codes: I::Bytes) {
        if I::NARROW {
            self.narrow = isa.narrow_dot(self.narrow, codes, self.narrow_ones);
        } else {
            let chain = &mut self.chains[q % 4];
            *chain = isa.dot(*chain, isa.weights(codes), self.ones);
        }
    }

    #[inline(always)]
    fn end_tile(&mut self, isa: I) {
        if I::NARROW {
            self.chains[0] = isa.add_narrow(self.chains[0], self.narrow);
            self.narrow = isa.splat_i32(0);
        }
    }

    #[inline(always)]
    fn total(&self, isa: I) -> I::I32 {
        let [a, b, c, d] = self.chains;
        isa.add_i32(isa.add_i32(a, b), isa.add_i32(c, d))
    }
}

impl GroupZeros<'_> {
    /// What takes `Σ w`, as [`Isa::weights`] reads the codes of a group with its padding, to `Σ (w − zw)`.
    #[inline(always)]
    pub fn of_group<I: Isa>(&self, isa: I, group: usize, tiles: usize, elements: usize) -> I::I32 {
        let shift = I::WEIGHT_SHIFT * (tiles * TILE) as i32;
        match self {
            GroupZeros::Same(zero) => isa.splat_i32(shift - zero * elements as i32),
            GroupZeros::Codes(zero) => {
                let zeros = isa.mul_i32(isa.load_i32(&widen(&zero[group], 0)), isa.splat_i32(-(elements as i32)));
                isa.add_i32(zeros, isa.splat_i32(shift))
            }
        }
    }
}
