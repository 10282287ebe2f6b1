//! The inner blocks of every product: MR rows of activations by NR panels of 16 channels, over some tiles of K.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::isa::{Block, Isa, widen};
use super::layout::{CHANNELS, Lanes, Line, QUADS};
use super::round::round_all;
use crate::dtype::FloatDtype;

/// Quads of some panels over the same tiles.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    /// One code a byte.
    pub lines: &'a [Line],
    /// Lines from one panel to the next.
    pub stride: usize,
    /// Lines of each panel.
    pub quads: usize,
}

impl<'a> Panels<'a> {
    /// From the `panel`-th on.
    pub fn skip(self, panel: usize) -> Self {
        Self {
            lines: &self.lines[panel * self.stride..],
            ..self
        }
    }

    #[inline(always)]
    fn split<const NR: usize>(self) -> [&'a [Line]; NR] {
        let mut out: [&[Line]; NR] = [&[]; NR];
        for (j, out) in out.iter_mut().enumerate() {
            *out = &self.lines[j * self.stride..][..self.quads];
        }
        out
    }
}

/// Accumulators of rows by panels.
pub struct Tile<'a, T> {
    /// `[row][panel]`, starting at the block's own.
    pub lanes: &'a mut [Lanes<T>],
    /// Panels from one row to the next.
    pub stride: usize,
}

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

/// The zero points of weights in a grouped integer product, less [`Isa::WEIGHT_SHIFT`] where they are one.
#[derive(Clone, Copy)]
pub enum GroupZeros<'a> {
    /// The same for all.
    Same(i32),
    /// `[panel][group]`, as stored.
    Codes(&'a [[u8; CHANNELS]]),
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
    /// `[panel][group]`, from the first panel and group on.
    pub scale: &'a [Lanes<f32>],
    /// The same.
    pub zero: GroupZeros<'a>,
    /// The same; empty where no product needs them.
    pub w_sums: &'a [Lanes<i32>],
    /// Groups of the whole weight: the stride of everything above.
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
                let scale = isa.load(&self.scale[j * self.groups + group]);
                for r in 0..MR {
                    let sum = &mut self.sums.lanes[r * self.sums.stride + j];
                    let scaled = isa.mul(isa.to_f32(acc[r][j]), scale);
                    isa.store(isa.add(isa.load(sum), scaled), sum);
                }
            }
        }
    }
}

/// How a code becomes the float that a weight-only product multiplies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum FloatMode {
    /// `code − zero`; the scale comes later.
    Plain,
    /// `(code − zero) · scale`.
    Scaled,
    /// `(code − mid) · scale + value`, each step rounded to the activation's dtype.
    FloatZero,
}

/// `acc += x · w` in floats, w made from codes in registers.
pub struct FloatDot<'a, const MR: usize, const NR: usize> {
    /// `[k][row]`.
    pub x: &'a [f32],
    /// Codes.
    pub w: Panels<'a>,
    /// From codes to floats.
    pub mode: FloatMode,
    /// Dtype of the activations.
    pub dtype: FloatDtype,
    /// Tiles of each group (or part of one) that `w` covers.
    pub tiles: &'a [usize],
    /// `[panel][group]`, from the first panel and group on.
    pub scale: &'a [Lanes<f32>],
    /// What is subtracted from each code: the same for all, or `[panel][group]`.
    pub zero: GroupZeros<'a>,
    /// `[panel][group]`: float zero points.
    pub value: &'a [Lanes<f32>],
    /// Groups of the whole weight: the stride of everything above.
    pub groups: usize,
    /// Sums.
    pub acc: Tile<'a, f32>,
}

impl<I: Isa, const MR: usize, const NR: usize> Block<I> for FloatDot<'_, MR, NR> {
    #[inline(always)]
    fn run(self, isa: I) {
        match (self.mode, self.dtype) {
            (FloatMode::Plain, _) => self.sum(isa, |_, w, _, _| w),
            (FloatMode::Scaled, _) => self.sum(isa, |isa, w, scale, _| isa.mul(w, scale)),
            (FloatMode::FloatZero, FloatDtype::F32) => {
                self.sum(isa, |isa, w, scale, value| isa.add(isa.mul(w, scale), value))
            }
            (FloatMode::FloatZero, dtype) => self.sum(isa, |isa, w, scale, value| {
                let scaled = rounded(isa, dtype, isa.mul(w, scale));
                rounded(isa, dtype, isa.add(scaled, value))
            }),
        }
    }
}

#[inline(always)]
fn rounded<I: Isa>(isa: I, dtype: FloatDtype, value: I::F32) -> I::F32 {
    let mut lanes = Lanes([0.0; CHANNELS]);
    isa.store(value, &mut lanes);
    round_all(dtype, &mut lanes.0);
    isa.load(&lanes)
}

impl<const MR: usize, const NR: usize> FloatDot<'_, MR, NR> {
    #[inline(always)]
    fn sum<I: Isa>(self, isa: I, finish: impl Fn(I, I::F32, I::F32, I::F32) -> I::F32) {
        let w = self.w.split::<NR>();
        let (x, _) = self.x.as_chunks::<MR>();
        let mut acc = [[isa.splat(0.0); NR]; MR];
        for r in 0..MR {
            for j in 0..NR {
                acc[r][j] = isa.load(&self.acc.lanes[r * self.acc.stride + j]);
            }
        }
        let mut quad = 0;
        for (group, tiles) in self.tiles.iter().enumerate() {
            let (mut zero, mut scale, mut value) = ([isa.splat(0.0); NR], [isa.splat(0.0); NR], [isa.splat(0.0); NR]);
            for j in 0..NR {
                let at = j * self.groups + group;
                zero[j] = match self.zero {
                    GroupZeros::Same(code) => isa.splat(code as f32 + I::FLOAT_SHIFT),
                    GroupZeros::Codes(codes) => {
                        let code = isa.to_f32(isa.load_i32(&widen(&codes[at], 0)));
                        isa.add(code, isa.splat(I::FLOAT_SHIFT))
                    }
                };
                if self.mode != FloatMode::Plain {
                    scale[j] = isa.load(&self.scale[at]);
                }
                if self.mode == FloatMode::FloatZero {
                    value[j] = isa.load(&self.value[at]);
                }
            }
            let end = quad + tiles * QUADS;
            let x = &x[quad * 4..end * 4];
            for q in 0..tiles * QUADS {
                for j in 0..NR {
                    let floats = isa.floats(&w[j][quad + q], zero[j]);
                    for i in 0..4 {
                        let w = finish(isa, floats[i], scale[j], value[j]);
                        for r in 0..MR {
                            acc[r][j] = isa.mul_add(w, isa.splat(x[q * 4 + i][r]), acc[r][j]);
                        }
                    }
                }
            }
            quad = end;
        }
        for r in 0..MR {
            for j in 0..NR {
                isa.store(acc[r][j], &mut self.acc.lanes[r * self.acc.stride + j]);
            }
        }
    }
}
