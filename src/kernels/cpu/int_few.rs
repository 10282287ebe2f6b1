//! Integer products of few rows where one scale serves all of K: every line of codes is read once, as it comes from memory.

// A block counts through several arrays with the same `j`.
#![allow(clippy::needless_range_loop)]

use super::int_blocks::step;
use super::isa::{Block, Isa};
use super::layout::{Lanes, Line, QUADS};

/// Tiles ahead of the codes in use that are asked for, over all panels.
const DISTANCE: usize = 16;

/// `acc = x · w` in integers of `MR` rows and `NR` panels over all of K.
pub struct FewRows<'a, Q, const MR: usize, const NR: usize> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes of one byte, from the first panel to the end of the weight.
    pub codes: &'a [Line],
    /// Sums, `[panel][row]`.
    pub acc: &'a mut [[Lanes<i32>; MR]; NR],
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for FewRows<'_, I::Quad, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (x, _) = self.x.as_chunks::<MR>();
        let (x, _) = x.as_chunks::<QUADS>();
        let (all, _) = self.codes.as_chunks::<QUADS>();
        let total = x.len();
        let mut tiles: [&[[Line; QUADS]]; NR] = [&[]; NR];
        for j in 0..NR {
            tiles[j] = &all[j * total..][..total];
        }
        // Few chains of sums would wait for each other: odd quads get their own, where registers allow.
        let split = MR * NR <= if I::WIDE { 12 } else { 4 };
        let (mut sums, mut odd) = ([[isa.splat_i32(0); NR]; MR], [[isa.splat_i32(0); NR]; MR]);
        for (t, x) in x.iter().enumerate() {
            // Beyond its end, a panel's stream goes on in the panel that is walked after it.
            let next = t + DISTANCE / NR + if t + DISTANCE / NR < total { 0 } else { (NR - 1) * total };
            for j in 0..NR {
                if let Some(tile) = all.get(j * total + next) {
                    for line in tile {
                        isa.prefetch(line, true);
                    }
                }
            }
            for q in 0..QUADS / 2 {
                step(isa, &x[2 * q], &tiles, (t, 2 * q), &mut sums);
                let odd = if split { &mut odd } else { &mut sums };
                step(isa, &x[2 * q + 1], &tiles, (t, 2 * q + 1), odd);
            }
        }
        for j in 0..NR {
            for r in 0..MR {
                let sum = if split {
                    isa.add_i32(sums[r][j], odd[r][j])
                } else {
                    sums[r][j]
                };
                isa.store_i32(sum, &mut self.acc[j][r]);
            }
        }
    }
}
