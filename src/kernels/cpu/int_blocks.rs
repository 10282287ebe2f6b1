//! The inner blocks of integer products.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::ahead::Ahead;
use super::blocks::{GroupZeros, Panels, Tile};
use super::isa::{Block, Isa, widen};
use super::layout::{Lanes, Line, QUADS, TILE};

/// Quads that one narrow sum takes for codes of `bits` bits, so that 16 bits hold it: a quad adds 2 · (2^bits − 1) · 128 at most.
/// 0 where narrow sums are not used.
pub fn narrow_quads<I: Isa>(bits: u32) -> usize {
    match bits {
        _ if !I::NARROW => 0,
        1..=4 => QUADS,
        5 => 4,
        6 => 2,
        7 => 1,
        _ => 0,
    }
}

/// `acc += x · w` in integers.
pub struct Dot<'a, 'p, Q, const MR: usize, const NR: usize> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes.
    pub w: Panels<'a>,
    /// See [`narrow_quads`].
    pub narrow: usize,
    /// Sums.
    pub acc: Tile<'a, i32>,
    /// What to fetch meanwhile.
    pub ahead: &'a mut Ahead<'p>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for Dot<'_, '_, I::Quad, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let mut acc = [[isa.splat_i32(0); NR]; MR];
        for r in 0..MR {
            for j in 0..NR {
                acc[r][j] = isa.load_i32(&self.acc.lanes[r * self.acc.stride + j]);
            }
        }
        dot(isa, self.x, self.w.split(), self.narrow, &mut acc, self.ahead);
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
    narrow: usize,
    acc: &mut [[I::I32; NR]; MR],
    ahead: &mut Ahead,
) {
    let (x, _) = x.as_chunks::<MR>();
    let (x, _) = x.as_chunks::<QUADS>();
    let mut tiles = w.map(|w| w.as_chunks::<QUADS>().0);
    for w in &mut tiles {
        *w = &w[..x.len()];
    }
    // A copy that only constants index, and so stays in registers whatever the caller does with its own.
    let mut sums = *acc;
    if I::NARROW && narrow > 0 {
        narrow_dot(isa, x, tiles, narrow, &mut sums, ahead);
    } else if MR * NR <= if I::WIDE { 8 } else { 2 } {
        // Few chains of sums would wait for each other: odd quads get their own, where registers allow.
        let mut odd = [[isa.splat_i32(0); NR]; MR];
        for (t, x) in x.iter().enumerate() {
            ahead.fetch(isa);
            for q in 0..QUADS / 2 {
                step(isa, &x[2 * q], &tiles, (t, 2 * q), &mut sums);
                step(isa, &x[2 * q + 1], &tiles, (t, 2 * q + 1), &mut odd);
            }
        }
        for r in 0..MR {
            for j in 0..NR {
                sums[r][j] = isa.add_i32(sums[r][j], odd[r][j]);
            }
        }
    } else {
        for (t, x) in x.iter().enumerate() {
            ahead.fetch(isa);
            for q in 0..QUADS {
                step(isa, &x[q], &tiles, (t, q), &mut sums);
            }
        }
    }
    *acc = sums;
}

/// One quad of every row and panel.
// Instructions are not put into closures: those are compiled without the instruction set of their caller.
#[inline(always)]
fn step<I: Isa, const MR: usize, const NR: usize>(
    isa: I,
    x: &[I::Quad; MR],
    w: &[&[[Line; QUADS]]; NR],
    (t, q): (usize, usize),
    acc: &mut [[I::I32; NR]; MR],
) {
    let mut weights = [isa.weights(&w[0][t][q]); NR];
    for j in 1..NR {
        weights[j] = isa.weights(&w[j][t][q]);
    }
    for r in 0..MR {
        for j in 0..NR {
            acc[r][j] = isa.dot(acc[r][j], weights[j], x[r]);
        }
    }
}

/// Sums of a few quads in 16 bits, then widened.
#[inline(always)]
fn narrow_dot<I: Isa, const MR: usize, const NR: usize>(
    isa: I,
    x: &[[[I::Quad; MR]; QUADS]],
    w: [&[[Line; QUADS]]; NR],
    narrow: usize,
    acc: &mut [[I::I32; NR]; MR],
    ahead: &mut Ahead,
) {
    for (t, x) in x.iter().enumerate() {
        ahead.fetch(isa);
        let mut from = 0;
        while from < QUADS {
            let mut sums = [[isa.splat_i32(0); NR]; MR];
            for q in from..QUADS.min(from + narrow) {
                for j in 0..NR {
                    for r in 0..MR {
                        sums[r][j] = isa.narrow_dot(sums[r][j], &w[j][t][q], x[q][r]);
                    }
                }
            }
            for r in 0..MR {
                for j in 0..NR {
                    acc[r][j] = isa.add_narrow(acc[r][j], sums[r][j]);
                }
            }
            from += narrow;
        }
    }
}

/// `Σ (w − zw)` of each group of some panels, for activations that have zero points.
pub struct GroupSums<'a> {
    /// Codes of one panel.
    pub w: &'a [Line],
    /// Tiles and elements of each group that `w` covers.
    pub groups: &'a [(usize, usize)],
    /// The zero points, unshifted.
    pub zero: GroupZeros<'a>,
    /// One for each group.
    pub out: &'a mut [Lanes<i32>],
}

impl<I: Isa> Block<I> for GroupSums<'_> {
    #[inline(always)]
    fn run(self, isa: I) {
        let ones = I::quad([1; 4]);
        let narrow_ones = I::narrow_quad([1; 4]);
        let mut quad = 0;
        for (group, (tiles, elements)) in self.groups.iter().enumerate() {
            let end = quad + tiles * QUADS;
            let mut sums = [isa.splat_i32(0); 2];
            if I::NARROW {
                // Sixteen codes of 8 bits stay inside 16 bits.
                for lines in self.w[quad..end].as_chunks::<QUADS>().0 {
                    let mut both = isa.splat_i32(0);
                    for line in lines {
                        both = isa.narrow_dot(both, line, narrow_ones);
                    }
                    sums[0] = isa.add_narrow(sums[0], both);
                }
            } else {
                for lines in self.w[quad..end].as_chunks::<2>().0 {
                    for i in 0..2 {
                        sums[i] = isa.dot(sums[i], isa.weights(&lines[i]), ones);
                    }
                }
            }
            let sum = isa.add_i32(sums[0], sums[1]);
            let zeros = match self.zero {
                GroupZeros::Same(zero) => {
                    isa.splat_i32(I::WEIGHT_SHIFT * (tiles * TILE) as i32 - zero * *elements as i32)
                }
                GroupZeros::Codes(zero) => {
                    let zeros = isa.mul_i32(
                        isa.load_i32(&widen(&zero[group], 0)),
                        isa.splat_i32(-(*elements as i32)),
                    );
                    isa.add_i32(zeros, isa.splat_i32(I::WEIGHT_SHIFT * (tiles * TILE) as i32))
                }
            };
            isa.store_i32(isa.add_i32(sum, zeros), &mut self.out[group]);
            quad = end;
        }
    }
}

/// `sum += f32(acc_g) · s_g`, group by group, with `acc_g = Σ (x − zx)(w − zw)`.
pub struct GroupDot<'a, 'p, Q, const MR: usize, const NR: usize> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes.
    pub w: Panels<'a>,
    /// See [`narrow_quads`].
    pub narrow: usize,
    /// Tiles and elements of each group that `w` covers.
    pub chunk_groups: &'a [(usize, usize)],
    /// `[group][row]`, from the first group on: the sums of the activation codes, times less the zero point where it is one, else
    /// times −1.
    pub x_sums: &'a [i32],
    /// The zero points of the rows, as signed codes.
    pub x_zeros: [i32; MR],
    /// `[panel][group of the chunk]`, from the first panel on.
    pub scale: &'a [Lanes<f32>],
    /// The same: `Σ (w − zw)`; empty where no product needs them.
    pub w_sums: &'a [Lanes<i32>],
    /// Groups of the chunk: the stride of both.
    pub stride: usize,
    /// `[panel][group]`, from the first panel and group on, less [`Isa::WEIGHT_SHIFT`] where they are one.
    pub zero: GroupZeros<'a>,
    /// Groups of the whole weight: the stride of the zero points.
    pub groups: usize,
    /// Whether sums of the codes of a group fit 16 bits.
    pub small: bool,
    /// Sums.
    pub sums: Tile<'a, f32>,
    /// What to fetch meanwhile.
    pub ahead: &'a mut Ahead<'p>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for GroupDot<'_, '_, I::Quad, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let w = self.w.split::<NR>();
        let (x_sums, _) = self.x_sums.as_chunks::<MR>();
        let mut quad = 0;
        for (group, (tiles, _)) in self.chunk_groups.iter().enumerate() {
            let mut acc = [[isa.splat_i32(0); NR]; MR];
            if let GroupZeros::Same(_) = self.zero {
                for r in 0..MR {
                    acc[r] = [isa.splat_i32(x_sums[group][r]); NR];
                }
            }
            let quads = tiles * QUADS;
            let mut lines = w;
            for j in 0..NR {
                lines[j] = &w[j][quad..quad + quads];
            }
            let x = &self.x[quad * MR..(quad + quads) * MR];
            dot(isa, x, lines, self.narrow, &mut acc, self.ahead);
            quad += quads;
            let (mut zeros, mut w_sums) = ([isa.splat_i32(0); NR], [isa.splat_i32(0); NR]);
            let mut scale = [isa.splat(0.0); NR];
            for j in 0..NR {
                scale[j] = isa.load(&self.scale[j * self.stride + group]);
                if let GroupZeros::Codes(codes) = self.zero {
                    zeros[j] = isa.load_i32(&widen(&codes[j * self.groups + group], I::WEIGHT_SHIFT));
                }
                if !self.w_sums.is_empty() {
                    w_sums[j] = isa.load_i32(&self.w_sums[j * self.stride + group]);
                }
            }
            for r in 0..MR {
                for j in 0..NR {
                    let mut acc = acc[r][j];
                    if let GroupZeros::Codes(_) = self.zero {
                        acc = product(isa, self.small, acc, zeros[j], x_sums[group][r]);
                    }
                    if !self.w_sums.is_empty() {
                        acc = product(isa, self.small, acc, w_sums[j], -self.x_zeros[r]);
                    }
                    let sum = &mut self.sums.lanes[r * self.sums.stride + j];
                    let scaled = isa.mul(isa.to_f32(acc), scale[j]);
                    isa.store(isa.add(isa.load(sum), scaled), sum);
                }
            }
        }
    }
}

/// `acc + a · b`; `small` where a and b are inside 16 bits.
#[inline(always)]
fn product<I: Isa>(isa: I, small: bool, acc: I::I32, a: I::I32, b: i32) -> I::I32 {
    match small {
        true => isa.mul_small(acc, a, b),
        false => isa.add_i32(acc, isa.mul_i32(a, isa.splat_i32(b))),
    }
}
