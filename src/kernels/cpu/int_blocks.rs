//! The inner blocks of integer products.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::blocks::{GroupZeros, Panels, Tile};
use super::isa::{Block, Isa, widen};
use super::layout::{Lanes, Line, QUADS};

/// `acc += x · w` in integers.
pub struct Dot<'a, Q, const MR: usize, const NR: usize> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes.
    pub w: Panels<'a>,
    /// Sums.
    pub acc: Tile<'a, i32>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for Dot<'_, I::Quad, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let mut acc = [[isa.splat_i32(0); NR]; MR];
        for r in 0..MR {
            for j in 0..NR {
                acc[r][j] = isa.load_i32(&self.acc.lanes[r * self.acc.stride + j]);
            }
        }
        dot(isa, self.x, self.w.split(), &mut acc);
        for r in 0..MR {
            for j in 0..NR {
                isa.store_i32(acc[r][j], &mut self.acc.lanes[r * self.acc.stride + j]);
            }
        }
    }
}

#[inline(always)]
fn dot<I: Isa, const MR: usize, const NR: usize>(
    isa: I,
    x: &[I::Quad],
    w: [&[Line]; NR],
    acc: &mut [[I::I32; NR]; MR],
) {
    let mut sums = *acc;
    let quads = w[0].len();
    let (x, _) = x.as_chunks::<MR>();
    let x = &x[..quads];
    for q in 0..quads {
        let mut weights = [isa.weights(&w[0][q]); NR];
        for j in 1..NR {
            weights[j] = isa.weights(&w[j][q]);
        }
        for r in 0..MR {
            for j in 0..NR {
                sums[r][j] = isa.dot(sums[r][j], weights[j], x[q][r]);
            }
        }
    }
    *acc = sums;
}

/// `sum += f32(acc_g) · s_g`, group by group, with `acc_g = Σ (x − zx)(w − zw)`.
pub struct GroupDot<'a, Q, const MR: usize, const NR: usize> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes.
    pub w: Panels<'a>,
    /// Tiles of each group that `w` covers.
    pub tiles: &'a [usize],
    /// `[row][group]`: the sums of the activation codes, from the first group on.
    pub x_sums: &'a [i32],
    /// The zero points of the rows, as signed codes.
    pub x_zeros: [i32; MR],
    /// `[panel][group of the chunk]`, from the first panel on.
    pub scale: &'a [Lanes<f32>],
    /// Groups of the chunk: the stride of the floats.
    pub scale_stride: usize,
    /// `[panel][group]`, from the first panel and group on.
    pub zero: GroupZeros<'a>,
    /// The same; empty where no product needs them.
    pub w_sums: &'a [Lanes<i32>],
    /// Groups of the whole weight: the stride of the integers.
    pub groups: usize,
    /// Sums.
    pub sums: Tile<'a, f32>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for GroupDot<'_, I::Quad, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let w = self.w.split::<NR>();
        let mut quad = 0;
        for (group, tiles) in self.tiles.iter().enumerate() {
            let mut acc = [[isa.splat_i32(0); NR]; MR];
            for j in 0..NR {
                let at = j * self.groups + group;
                match self.zero {
                    GroupZeros::Same(zero) => {
                        for r in 0..MR {
                            let sum = self.x_sums[r * self.groups + group];
                            acc[r][j] = isa.splat_i32(sum.wrapping_mul(-zero));
                        }
                    }
                    GroupZeros::Codes(zero) => {
                        let zero = isa.load_i32(&widen(&zero[at], I::WEIGHT_SHIFT));
                        for r in 0..MR {
                            let sum = self.x_sums[r * self.groups + group];
                            acc[r][j] = isa.mul_i32(zero, isa.splat_i32(-sum));
                        }
                    }
                }
                if !self.w_sums.is_empty() {
                    let w_sum = isa.load_i32(&self.w_sums[at]);
                    for r in 0..MR {
                        let correction = isa.mul_i32(w_sum, isa.splat_i32(-self.x_zeros[r]));
                        acc[r][j] = isa.add_i32(acc[r][j], correction);
                    }
                }
            }
            let quads = tiles * QUADS;
            let mut lines = w;
            for j in 0..NR {
                lines[j] = &w[j][quad..quad + quads];
            }
            dot(isa, &self.x[quad * MR..(quad + quads) * MR], lines, &mut acc);
            quad += quads;
            for j in 0..NR {
                let scale = isa.load(&self.scale[j * self.scale_stride + group]);
                for r in 0..MR {
                    let sum = &mut self.sums.lanes[r * self.sums.stride + j];
                    let scaled = isa.mul(isa.to_f32(acc[r][j]), scale);
                    isa.store(isa.add(isa.load(sum), scaled), sum);
                }
            }
        }
    }
}
