//! The inner blocks of products with float activations.

// A block counts through several arrays with the same `r` and `j`.
#![allow(clippy::needless_range_loop)]

use super::blocks::{GroupZeros, Panels, Tile};
use super::isa::{Block, Isa, widen};
use super::layout::{CHANNELS, Lanes, QUADS};
use super::round::round_all;
use crate::dtype::FloatDtype;

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
    /// `[panel][group of the chunk]`, from the first panel on.
    pub scale: &'a [Lanes<f32>],
    /// Groups of the chunk: the stride of the floats.
    pub scale_stride: usize,
    /// What is subtracted from each code: the same for all, or `[panel][group]`.
    pub zero: GroupZeros<'a>,
    /// As `scale`: float zero points.
    pub value: &'a [Lanes<f32>],
    /// Groups of the whole weight: the stride of the integers.
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
                    scale[j] = isa.load(&self.scale[j * self.scale_stride + group]);
                }
                if self.mode == FloatMode::FloatZero {
                    value[j] = isa.load(&self.value[j * self.scale_stride + group]);
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
