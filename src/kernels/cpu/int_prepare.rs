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
        for (tile, quads) in packed.iter().zip(quads) {
            macro_rules! quad {
                ($q:literal) => {
                    isa.store_bytes(isa.bytes::<BITS, $q>(tile), &mut quads[$q])
                };
            }
            each_quad!(quad);
        }
        self.sums(isa);
    }

    #[inline(always)]
    fn sums<I: Isa>(self, isa: I) {
        let ones = I::quad([1; 4]);
        let narrow_ones = I::narrow_quad([1; 4]);
        let (codes, _) = if self.bits < 8 { &*self.quads } else { self.packed }.as_chunks::<QUADS>();
        let mut codes = codes.iter();
        for (group, (out, (tiles, elements))) in self.sums.iter_mut().zip(self.groups).enumerate() {
            // A chain of sums for each of four quads; narrow ones take whole tiles, whose 16 codes of 8 bits stay inside 16 bits.
            let mut sums = [isa.splat_i32(0); 4];
            for quads in codes.by_ref().take(*tiles) {
                if I::NARROW {
                    let mut narrow = isa.splat_i32(0);
                    for quad in quads {
                        narrow = isa.narrow_dot(narrow, isa.load_bytes(quad), narrow_ones);
                    }
                    sums[0] = isa.add_narrow(sums[0], narrow);
                } else {
                    for (q, quad) in quads.iter().enumerate() {
                        sums[q % 4] = isa.dot(sums[q % 4], isa.weights(isa.load_bytes(quad)), ones);
                    }
                }
            }
            let sum = isa.add_i32(isa.add_i32(sums[0], sums[1]), isa.add_i32(sums[2], sums[3]));
            let centered = isa.add_i32(sum, self.zero.of_group(isa, group, *tiles, *elements));
            isa.store_i32(centered, out);
        }
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
