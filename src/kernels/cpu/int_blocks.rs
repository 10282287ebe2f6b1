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

/// How blocks read codes, and in what they sum products: this, [`PAIRS`], or the quads of one 16-bit sum.
pub type Form = usize;
/// One code a byte, sums of 32 bits.
pub const BYTES: Form = 0;
/// As [`Isa::store_pairs`] writes them, sums of 32 bits.
pub const PAIRS: Form = 16;
/// Rows from which making pairs of a chunk once costs less than making them in every block.
const PAIR_ROWS: usize = 24;

/// For codes of `bits` bits and `rows` rows.
pub const fn form<I: Isa>(bits: u32, rows: usize) -> Form {
    match narrow_quads::<I>(bits) {
        0 if !I::PAIR_ROWS.is_empty() && rows >= PAIR_ROWS => PAIRS,
        quads => quads,
    }
}

/// Rows that a block takes at once where there are `rows`, largest first.
pub const fn rows_of<I: Isa>(form: Form, rows: usize) -> &'static [usize] {
    match form {
        PAIRS => I::PAIR_ROWS,
        // One block, which reads codes as they come from memory.
        _ if I::WIDE && matches!(rows, 8..12) => &[8, 4, 2, 1],
        _ => I::ROWS,
    }
}

/// Lines of a tile of one panel.
pub const fn lines_of(form: Form) -> usize {
    match form {
        PAIRS => 2 * QUADS,
        _ => QUADS,
    }
}

/// `$call!(FORM)` for a form that blocks of `$isa` read.
macro_rules! by_form {
    ($isa:ty, $form:expr, $call:ident) => {
        match $form {
            PAIRS if !<$isa>::PAIR_ROWS.is_empty() => $call!(PAIRS),
            1 if <$isa>::NARROW => $call!(1),
            2 if <$isa>::NARROW => $call!(2),
            4 if <$isa>::NARROW => $call!(4),
            8 if <$isa>::NARROW => $call!(8),
            _ => $call!(BYTES),
        }
    };
}
pub(super) use by_form;

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
pub struct Dot<'a, 'p, Q, const MR: usize, const NR: usize, const FORM: Form> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes.
    pub w: Panels<'a>,
    /// Whether sums start here, at 0.
    pub first: bool,
    /// Sums, `[panel][row]`.
    pub acc: &'a mut [[Lanes<i32>; MR]; NR],
    /// What to fetch meanwhile.
    pub ahead: &'a mut Ahead<'p>,
}

impl<I: Isa, const MR: usize, const NR: usize, const FORM: Form> Block<I> for Dot<'_, '_, I::Quad, MR, NR, FORM> {
    #[inline(always)]
    fn run(self, isa: I) {
        let mut acc = [[isa.splat_i32(0); NR]; MR];
        if !self.first {
            for j in 0..NR {
                for r in 0..MR {
                    acc[r][j] = isa.load_i32(&self.acc[j][r]);
                }
            }
        }
        dot::<I, MR, NR, FORM>(isa, self.x, self.w.split(), &mut acc, self.ahead);
        for j in 0..NR {
            for r in 0..MR {
                isa.store_i32(acc[r][j], &mut self.acc[j][r]);
            }
        }
    }
}

#[inline(always)]
fn dot<I: Isa, const MR: usize, const NR: usize, const FORM: Form>(
    isa: I,
    x: &[I::Quad],
    w: [&[Line]; NR],
    acc: &mut [[I::I32; NR]; MR],
    ahead: &mut Ahead,
) {
    let (x, _) = x.as_chunks::<MR>();
    let (x, _) = x.as_chunks::<QUADS>();
    // A copy that only constants index, and so stays in registers whatever the caller does with its own.
    let mut sums = *acc;
    if FORM == PAIRS {
        pair_dot(isa, x, w, &mut sums, ahead);
        *acc = sums;
        return;
    }
    let mut tiles = w.map(|w| w.as_chunks::<QUADS>().0);
    for w in &mut tiles {
        *w = &w[..x.len()];
    }
    if FORM != BYTES {
        narrow_dot::<I, MR, NR, FORM>(isa, x, tiles, &mut sums, ahead);
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
pub fn step<I: Isa, const MR: usize, const NR: usize>(
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

/// Over pairs.
#[inline(always)]
fn pair_dot<I: Isa, const MR: usize, const NR: usize>(
    isa: I,
    x: &[[[I::Quad; MR]; QUADS]],
    w: [&[Line]; NR],
    acc: &mut [[I::I32; NR]; MR],
    ahead: &mut Ahead,
) {
    // All before the loop: between products it would cost registers.
    for _ in x {
        ahead.fetch(isa);
    }
    let x = x.as_flattened();
    let mut quads = w.map(|w| w.as_chunks::<2>().0);
    for w in &mut quads {
        *w = &w[..x.len()];
    }
    let mut sums = *acc;
    for (q, x) in x.iter().enumerate() {
        for j in 0..NR {
            let even = isa.load_bytes(&quads[j][q][0]);
            for r in 0..MR {
                sums[r][j] = isa.dot_pairs::<false>(sums[r][j], even, x[r]);
            }
            let odd = isa.load_bytes(&quads[j][q][1]);
            for r in 0..MR {
                sums[r][j] = isa.dot_pairs::<true>(sums[r][j], odd, x[r]);
            }
        }
    }
    *acc = sums;
}

/// Sums of `FORM` quads in 16 bits, then widened.
#[inline(always)]
fn narrow_dot<I: Isa, const MR: usize, const NR: usize, const FORM: Form>(
    isa: I,
    x: &[[[I::Quad; MR]; QUADS]],
    w: [&[[Line; QUADS]]; NR],
    acc: &mut [[I::I32; NR]; MR],
    ahead: &mut Ahead,
) {
    // All before the loop: between products it would cost registers.
    for _ in x {
        ahead.fetch(isa);
    }
    let (x, _) = x.as_flattened().as_chunks::<FORM>();
    let mut steps = w.map(|w| w.as_flattened().as_chunks::<FORM>().0);
    for w in &mut steps {
        *w = &w[..x.len()];
    }
    for (t, x) in x.iter().enumerate() {
        let mut sums = [[isa.splat_i32(0); NR]; MR];
        for q in 0..FORM {
            for j in 0..NR {
                let codes = isa.load_bytes(&steps[j][t][q]);
                for r in 0..MR {
                    sums[r][j] = isa.narrow_dot(sums[r][j], codes, x[q][r]);
                }
            }
        }
        for r in 0..MR {
            for j in 0..NR {
                acc[r][j] = isa.add_narrow(acc[r][j], sums[r][j]);
            }
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

/// Whether a block of [`GroupDot`] keeps its float sums in registers beside those of the group.
pub const fn keeps_sums<I: Isa>(form: Form, rows: usize, panels: usize) -> bool {
    I::WIDE && form == BYTES && matches!(rows, 5 | 6) && panels == 2
}

/// Tiles of groups up to which that pays: a group ends so often that sums in memory cost more than reading activations twice as often.
pub const SHORT_GROUP: usize = 2;

/// `sum += f32(acc_g) · s_g`, group by group, with `acc_g = Σ (x − zx)(w − zw)`.
pub struct GroupDot<'a, 'p, Q, const MR: usize, const NR: usize, const FORM: Form> {
    /// `[quad][row]`.
    pub x: &'a [Q],
    /// Codes.
    pub w: Panels<'a>,
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
    /// Whether sums start here, at 0.
    pub first: bool,
    /// Sums, `[panel][row]`.
    pub acc: &'a mut [[Lanes<f32>; MR]; NR],
    /// What to fetch meanwhile.
    pub ahead: &'a mut Ahead<'p>,
}

impl<I: Isa, const MR: usize, const NR: usize, const FORM: Form> Block<I> for GroupDot<'_, '_, I::Quad, MR, NR, FORM> {
    // Each step is a loop of few instructions over all sums: they stay in registers.
    #[inline(always)]
    fn run(self, isa: I) {
        let w = self.w.split::<NR>();
        let (x_sums, _) = self.x_sums.as_chunks::<MR>();
        let keep = keeps_sums::<I>(FORM, MR, NR);
        let mut sums = [[isa.splat(0.0); NR]; MR];
        for j in 0..NR {
            for r in 0..MR {
                if self.first && !keep {
                    isa.store(sums[r][j], &mut self.acc[j][r]);
                } else if !self.first && keep {
                    sums[r][j] = isa.load(&self.acc[j][r]);
                }
            }
        }
        let mut tile = 0;
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
            let mut lines = w;
            for j in 0..NR {
                lines[j] = &w[j][tile * lines_of(FORM)..][..tiles * lines_of(FORM)];
            }
            let x = &self.x[tile * QUADS * MR..][..tiles * QUADS * MR];
            dot::<I, MR, NR, FORM>(isa, x, lines, &mut acc, self.ahead);
            tile += tiles;
            let mut scale = [isa.splat(0.0); NR];
            for j in 0..NR {
                scale[j] = isa.load(&self.scale[j * self.stride + group]);
            }
            macro_rules! add {
                ($r:ident, $j:ident, $scaled:expr) => {
                    if keep {
                        sums[$r][$j] = isa.add(sums[$r][$j], $scaled);
                    } else {
                        let sum = &mut self.acc[$j][$r];
                        isa.store(isa.add(isa.load(sum), $scaled), sum);
                    }
                };
            }
            if self.grouping.magic {
                let mut offset = scale;
                for j in 0..NR {
                    offset[j] = self.grouping.offset(isa, scale[j]);
                }
                for j in 0..NR {
                    for r in 0..MR {
                        add!(r, j, Grouping::scaled(isa, acc[r][j], scale[j], offset[j]));
                    }
                }
            } else {
                for j in 0..NR {
                    for r in 0..MR {
                        add!(r, j, isa.mul(isa.to_f32(acc[r][j]), scale[j]));
                    }
                }
            }
        }
        if keep {
            for j in 0..NR {
                for r in 0..MR {
                    isa.store(sums[r][j], &mut self.acc[j][r]);
                }
            }
        }
    }
}
