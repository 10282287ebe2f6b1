//! The inner blocks of integer products.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::ahead::Ahead;
use super::blocks::{GroupZeros, Panels};
use super::isa::{Block, Isa, widen};
use super::layout::{Lanes, Line, QUADS};

/// Bits of 1.5 · 2^23. An integer below 2^22 added to them gives the float 1.5 · 2^23 plus that integer.
pub const MAGIC: i32 = 0x4b40_0000;
/// Their value.
pub const MAGIC_VALUE: f32 = 12_582_912.0;

/// Quads that one narrow sum takes for codes of `bits` bits, so that 16 bits hold it: a quad adds 2 · (2^bits − 1) · 128 at most.
/// 0 where narrow sums are not used.
pub const fn narrow_quads<I: Isa>(bits: u32) -> usize {
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
    /// Sums, `[panel][row]`.
    pub acc: &'a mut [[Lanes<i32>; MR]; NR],
    /// What to fetch meanwhile.
    pub ahead: &'a mut Ahead<'p>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for Dot<'_, '_, I::Quad, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        let mut acc = [[isa.splat_i32(0); NR]; MR];
        for j in 0..NR {
            for r in 0..MR {
                acc[r][j] = isa.load_i32(&self.acc[j][r]);
            }
        }
        dot(isa, self.x, self.w.split(), self.narrow, &mut acc, self.ahead);
        for j in 0..NR {
            for r in 0..MR {
                isa.store_i32(acc[r][j], &mut self.acc[j][r]);
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
    let mut weights = [isa.weights(isa.load_bytes(&w[0][t][q])); NR];
    for j in 1..NR {
        weights[j] = isa.weights(isa.load_bytes(&w[j][t][q]));
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
                        sums[r][j] = isa.narrow_dot(sums[r][j], isa.load_bytes(&w[j][t][q]), x[q][r]);
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

/// How the sums of a group become floats.
#[derive(Clone, Copy)]
pub struct Grouping {
    /// Whether they start from [`MAGIC`], so that one fused product converts and scales them.
    pub magic: bool,
    /// Whether sums of the codes of a group fit 16 bits.
    pub small: bool,
}

impl Grouping {
    /// What sums start from.
    #[inline(always)]
    pub fn start(self) -> i32 {
        if self.magic { MAGIC } else { 0 }
    }

    /// `b` as [`Grouping::add_product`] wants it.
    #[inline(always)]
    pub fn factor<I: Isa>(self, b: i32) -> i32 {
        if self.small { I::small(b) } else { b }
    }

    /// `acc[r][j] += a[j] · b[r]`.
    #[inline(always)]
    pub fn add_product<I: Isa, const MR: usize, const NR: usize>(
        self,
        isa: I,
        acc: &mut [[I::I32; NR]; MR],
        a: [I::I32; NR],
        b: &[i32; MR],
    ) {
        if self.small {
            for r in 0..MR {
                for j in 0..NR {
                    acc[r][j] = isa.mul_small(acc[r][j], a[j], b[r]);
                }
            }
        } else {
            for r in 0..MR {
                let b = isa.splat_i32(b[r]);
                for j in 0..NR {
                    acc[r][j] = isa.add_i32(acc[r][j], isa.mul_i32(a[j], b));
                }
            }
        }
    }

    /// What [`Grouping::scaled`] adds.
    #[inline(always)]
    pub fn offset<I: Isa>(self, isa: I, scale: I::F32) -> I::F32 {
        isa.mul(scale, isa.splat(-MAGIC_VALUE))
    }

    /// `f32(acc) · scale` for sums that start from [`MAGIC`], `offset` made from the scale: both products of 1.5 · 2^23 are exact.
    #[inline(always)]
    pub fn scaled<I: Isa>(isa: I, acc: I::I32, scale: I::F32, offset: I::F32) -> I::F32 {
        isa.mul_add(isa.float_of_bits(acc), scale, offset)
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
    /// `[group][row]`, from the first group on: see [`Wanted`](super::activation::Wanted).
    pub x_sums: &'a [i32],
    /// Less the zero points of the rows, as signed codes; a [`Grouping::factor`].
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
    /// How sums become floats.
    pub grouping: Grouping,
    /// Sums, `[panel][row]`.
    pub acc: &'a mut [[Lanes<f32>; MR]; NR],
    /// What to fetch meanwhile.
    pub ahead: &'a mut Ahead<'p>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for GroupDot<'_, '_, I::Quad, MR, NR> {
    // Each step is a loop of few instructions over all sums: they stay in registers.
    #[inline(always)]
    fn run(self, isa: I) {
        let w = self.w.split::<NR>();
        let (x_sums, _) = self.x_sums.as_chunks::<MR>();
        let mut quad = 0;
        for ((group, (tiles, _)), x_sums) in self.chunk_groups.iter().enumerate().zip(x_sums) {
            let mut acc = [[isa.splat_i32(self.grouping.start()); NR]; MR];
            match self.zero {
                GroupZeros::Same(_) => {
                    for r in 0..MR {
                        acc[r] = [isa.splat_i32(x_sums[r]); NR];
                    }
                }
                GroupZeros::Codes(codes) => {
                    let mut zeros = [isa.splat_i32(0); NR];
                    for j in 0..NR {
                        zeros[j] = isa.load_i32(&widen(&codes[j * self.groups + group], I::WEIGHT_SHIFT));
                    }
                    self.grouping.add_product(isa, &mut acc, zeros, x_sums);
                }
            }
            if !self.w_sums.is_empty() {
                let mut w_sums = [isa.splat_i32(0); NR];
                for j in 0..NR {
                    w_sums[j] = isa.load_i32(&self.w_sums[j * self.stride + group]);
                }
                self.grouping.add_product(isa, &mut acc, w_sums, &self.x_zeros);
            }
            let quads = tiles * QUADS;
            let mut lines = w;
            for j in 0..NR {
                lines[j] = &w[j][quad..quad + quads];
            }
            let x = &self.x[quad * MR..(quad + quads) * MR];
            dot(isa, x, lines, self.narrow, &mut acc, self.ahead);
            quad += quads;
            let mut scale = [isa.splat(0.0); NR];
            for j in 0..NR {
                scale[j] = isa.load(&self.scale[j * self.stride + group]);
            }
            if self.grouping.magic {
                let mut offset = scale;
                for j in 0..NR {
                    offset[j] = self.grouping.offset(isa, scale[j]);
                }
                for j in 0..NR {
                    for r in 0..MR {
                        let scaled = Grouping::scaled(isa, acc[r][j], scale[j], offset[j]);
                        let sum = &mut self.acc[j][r];
                        isa.store(isa.add(isa.load(sum), scaled), sum);
                    }
                }
            } else {
                for j in 0..NR {
                    for r in 0..MR {
                        let scaled = isa.mul(isa.to_f32(acc[r][j]), scale[j]);
                        let sum = &mut self.acc[j][r];
                        isa.store(isa.add(isa.load(sum), scaled), sum);
                    }
                }
            }
        }
    }
}
