//! Grouped integer products of one row: codes are unpacked in registers, each packed line is read once.

// A block counts through several arrays with the same `j`.
#![allow(clippy::needless_range_loop)]

use super::activation::needs_sums;
use super::int_blocks::{Grouping, narrow_quads};
use super::isa::{Block, Isa, widen};
use super::layout::{Lanes, Line, QUADS, by_bits, each_quad};
use super::linear::zeros;
use super::weight::CpuWeight;

/// Lines ahead of the codes in use that are asked for, over all panels.
const DISTANCE: usize = 128;
/// Groups ahead of the one in use whose scales are asked for.
const AHEAD: usize = 4;

/// `acc = Σ over all groups of f32(Σ (x − zx)(w − zw)) · s` of one row and `NR` panels.
pub struct OneRowGroups<'a, Q, const NR: usize> {
    /// The row.
    pub x: &'a [Q],
    pub w: &'a CpuWeight,
    /// The first panel.
    pub panel: usize,
    /// `[group]`: see [`Wanted`](super::activation::Wanted).
    pub x_sums: &'a [i32],
    /// Less the zero point of the row, as a signed code; a [`Grouping::factor`].
    pub x_zero: i32,
    /// How sums become floats.
    pub grouping: Grouping,
    /// `[panel]`.
    pub acc: &'a mut [Lanes<f32>; NR],
}

impl<I: Isa, const NR: usize> Block<I> for OneRowGroups<'_, I::Quad, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let sums = needs_sums(&self.w.activation);
        macro_rules! tiles {
            ($bits:literal) => {
                match sums {
                    true => self.tiles::<I, $bits, true>(isa),
                    false => self.tiles::<I, $bits, false>(isa),
                }
            };
        }
        by_bits!(self.w.bits(), tiles)
    }
}

impl<Q: Copy, const NR: usize> OneRowGroups<'_, Q, NR> {
    /// `SUMS` where products need the sums of the weight.
    #[inline(always)]
    fn tiles<I: Isa<Quad = Q>, const BITS: usize, const SUMS: bool>(self, isa: I) {
        let w = self.w;
        let (x, _) = self.x.as_chunks::<QUADS>();
        let total = w.groups.total_tiles;
        let (all, _) = w.codes.as_chunks::<BITS>();
        let mut tiles: [&[[Line; BITS]]; NR] = [&[]; NR];
        for j in 0..NR {
            tiles[j] = &all[(self.panel + j) * total..][..total];
        }
        let distance = DISTANCE / (NR * BITS);
        let x = &x[..total];
        let (ones, narrow_ones) = (I::quad([1; 4]), I::narrow_quad([1; 4]));
        let mut sums = [isa.splat(0.0); NR];
        for (group, x_sum) in self.x_sums.iter().enumerate() {
            // One chain of sums would wait for each product: odd quads get their own.
            let mut acc = [[isa.splat_i32(0); NR]; 2];
            let mut w_sums = [[isa.splat_i32(0); NR]; 2];
            let of_group = w.groups.tiles(group);
            for t in of_group.clone() {
                for j in 0..NR {
                    // Beyond its end, a panel's stream goes on in the panel that is walked after it.
                    let next = t + distance + if t + distance < total { 0 } else { (NR - 1) * total };
                    if let Some(tile) = all.get((self.panel + j) * total + next) {
                        for line in tile {
                            isa.prefetch(line, true);
                        }
                    }
                }
                let x = &x[t];
                for j in 0..NR {
                    let tile = &tiles[j][t];
                    let mut narrow = [isa.splat_i32(0); 2];
                    macro_rules! quad {
                        ($q:literal) => {
                            let bytes = isa.bytes::<BITS, $q>(tile);
                            let quads = narrow_quads::<I>(BITS as u32);
                            if quads > 0 {
                                narrow[0] = isa.narrow_dot(narrow[0], bytes, x[$q]);
                                if SUMS {
                                    narrow[1] = isa.narrow_dot(narrow[1], bytes, narrow_ones);
                                }
                                if ($q + 1) % quads == 0 {
                                    acc[0][j] = isa.add_narrow(acc[0][j], narrow[0]);
                                    if SUMS {
                                        w_sums[0][j] = isa.add_narrow(w_sums[0][j], narrow[1]);
                                    }
                                    narrow.fill(isa.splat_i32(0));
                                }
                            } else {
                                let weights = isa.weights(bytes);
                                let chain = $q % 2;
                                acc[chain][j] = isa.dot(acc[chain][j], weights, x[$q]);
                                if SUMS {
                                    w_sums[chain][j] = isa.dot(w_sums[chain][j], weights, ones);
                                }
                            }
                        };
                    }
                    each_quad!(quad);
                }
            }
            let elements = w.groups.elements(group).len();
            let next = group
                + AHEAD
                + if group + AHEAD < w.groups.count {
                    0
                } else {
                    (NR - 1) * w.groups.count
                };
            for j in 0..NR {
                let at = (self.panel + j) * w.groups.count + group;
                w.scale.fetch_one(isa, (self.panel + j) * w.groups.count + next);
                let mut one = [[isa.add_i32(acc[0][j], acc[1][j])]];
                match &w.zero {
                    super::weight::Zeros::Codes(codes) => {
                        let zero = isa.load_i32(&widen(&codes[at], I::WEIGHT_SHIFT));
                        one[0][0] = isa.add_i32(one[0][0], isa.splat_i32(self.grouping.start()));
                        self.grouping.add_product(isa, &mut one, [zero], &[*x_sum]);
                    }
                    _ => one[0][0] = isa.add_i32(one[0][0], isa.splat_i32(*x_sum)),
                }
                if SUMS {
                    let zeros = zeros(w, at, 0).of_group(isa, 0, of_group.len(), elements);
                    let w_sum = isa.add_i32(isa.add_i32(w_sums[0][j], w_sums[1][j]), zeros);
                    self.grouping.add_product(isa, &mut one, [w_sum], &[self.x_zero]);
                }
                let scale = w.scale.read(isa, at);
                let scaled = match self.grouping.magic {
                    true => Grouping::scaled(isa, one[0][0], scale, self.grouping.offset(isa, scale)),
                    false => isa.mul(isa.to_f32(one[0][0]), scale),
                };
                sums[j] = isa.add(sums[j], scaled);
            }
        }
        for j in 0..NR {
            isa.store(sums[j], &mut self.acc[j]);
        }
    }
}
