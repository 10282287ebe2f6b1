//! From rows of floats to 8-bit codes in the order that the integer products read.

use super::int_blocks::{MAGIC, MAGIC_VALUE};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Groups, Lanes, TILE};
use super::round::round;
use crate::dtype::FloatDtype;
use crate::spec::{ActivationQuantization, ActivationScale, MappingType};
use rayon::prelude::*;

/// Elements above which several threads read the rows.
pub const PARALLEL_ELEMENTS: usize = 1 << 17;

/// Quantized rows, in blocks of rows that a product takes at once.
pub struct Activations<Q> {
    /// `[block][padded K / 4][rows of the block]`.
    pub quads: Vec<Q>,
    /// Everything else of a row, in row order.
    pub rows: Vec<Row>,
    /// `[block][group][rows of the block]`: what [`Wanted::sum`] makes of the sums of the signed codes.
    pub sums: Vec<i32>,
}

/// How one row was quantized.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Its scale.
    pub scale: f32,
    /// Its zero point, a code of the activation's dtype.
    pub zero: i32,
    /// Whether it holds a NaN or an infinity.
    pub bad: bool,
}

/// Whether products need the sums of the weight: an activation has zero points, or its codes are read less an offset.
pub fn needs_sums(activation: &ActivationQuantization) -> bool {
    match activation {
        ActivationQuantization::None => false,
        ActivationQuantization::Static { zero_point, .. } => *zero_point != 0 || offset(activation) != 0,
        ActivationQuantization::Dynamic {
            mapping,
            quant_min,
            quant_max,
            ..
        } => *mapping == MappingType::Asymmetric || (quant_min + quant_max + 1) / 2 != 0 || offset(activation) != 0,
    }
}

/// What is subtracted from a code to make it a signed 8-bit one: 128 for uint8.
pub fn offset(activation: &ActivationQuantization) -> i32 {
    match activation {
        ActivationQuantization::Dynamic { dtype, .. } | ActivationQuantization::Static { dtype, .. } => {
            dtype.min() + 128
        }
        ActivationQuantization::None => 0,
    }
}

/// Why no kernel takes a treatment.
pub fn refusal(activation: &ActivationQuantization) -> Option<String> {
    let (dtype, lo, hi) = match activation {
        ActivationQuantization::None => return None,
        ActivationQuantization::Dynamic {
            dtype,
            quant_min,
            quant_max,
            ..
        }
        | ActivationQuantization::Static {
            dtype,
            quant_min,
            quant_max,
            ..
        } => (dtype, *quant_min, *quant_max),
    };
    (dtype.bits() != 8 || lo >= hi || lo < dtype.min() || hi > dtype.max())
        .then(|| format!("activations are int8 or uint8, not {dtype} in {lo}..={hi}"))
}

/// A treatment on activations of one dtype.
#[derive(Clone, Copy)]
struct Rule {
    dtype: FloatDtype,
    mapping: MappingType,
    lo: i32,
    hi: i32,
    eps: f32,
    offset: i32,
    scale_dtype: FloatDtype,
}

impl Rule {
    /// `choose_qparams_affine` of one range that includes zero.
    fn choose(&self, min: f32, max: f32) -> (f32, i32) {
        let t = |x: f32| self.dtype.round(x);
        let (lo, hi) = (self.lo as f32, self.hi as f32);
        let (neg, pos) = (min.min(0.0), max.max(0.0));
        let middle = (self.lo + self.hi + 1) / 2;
        let at_least = |scale: f32| scale.max(t(self.eps));
        match self.mapping {
            MappingType::Symmetric => (at_least(t((-neg).max(pos) / ((hi - lo) / 2.0))), middle),
            MappingType::SymmetricNoClippingErr => {
                let (a, b) = (t(neg / lo), t(pos / hi));
                (at_least(if a > b { a } else { b }), middle)
            }
            MappingType::Asymmetric => {
                let scale = at_least(t(t(pos - neg) / (hi - lo)));
                let zero = lo - t(neg / scale).round_ties_even();
                (scale, zero.clamp(lo, hi) as i32)
            }
        }
    }
}

/// A job's share of the quads, of the rows and of the sums.
type Pieces<'a, Q> = ((&'a mut [Q], &'a mut [Row]), &'a mut [i32]);

/// What a product wants of its activations.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// How K falls into groups.
    pub groups: &'a Groups,
    /// First row and rows of each block.
    pub blocks: &'a [(usize, usize)],
    /// Whether the products take 16-bit sums.
    pub narrow: bool,
    /// What becomes of the sum of the codes of a group.
    pub sum: &'a (dyn Fn(i32) -> i32 + Sync),
}

/// Quantizes rows of `groups.k` values, representable in `dtype`.
pub fn quantize<I: Isa>(
    isa: I,
    x: &[f32],
    dtype: FloatDtype,
    activation: &ActivationQuantization,
    wanted: Wanted,
) -> Activations<I::Quad> {
    let Wanted { groups, blocks, .. } = wanted;
    let k = groups.k;
    let count: usize = blocks.iter().map(|block| block.1).sum();
    let quads_of_row = groups.padded_k() / 4;
    let mut out = Activations {
        quads: vec![I::Quad::default(); count * quads_of_row],
        rows: vec![Row::default(); count],
        sums: vec![0; count * groups.count],
    };
    if k == 0 {
        return out;
    }
    let mut rule = Rule {
        dtype,
        mapping: MappingType::Symmetric,
        lo: 0,
        hi: 0,
        eps: 0.0,
        offset: offset(activation),
        scale_dtype: FloatDtype::F32,
    };
    let mut shared = None;
    match *activation {
        ActivationQuantization::None => unreachable!("float activations are not quantized"),
        ActivationQuantization::Static {
            scale,
            zero_point,
            quant_min,
            quant_max,
            ..
        } => {
            (rule.lo, rule.hi) = (quant_min, quant_max);
            shared = Some((scale, zero_point));
        }
        ActivationQuantization::Dynamic {
            mapping,
            scale,
            quant_min,
            quant_max,
            eps,
            scale_in_input_dtype,
            ..
        } => {
            (rule.mapping, rule.lo, rule.hi) = (mapping, quant_min, quant_max);
            rule.eps = eps.unwrap_or(dtype.smallest_normal());
            if scale_in_input_dtype {
                rule.scale_dtype = dtype;
            }
            if scale == ActivationScale::PerTensor {
                let mut range = Range::default();
                for row in x.chunks_exact(k) {
                    let of_row = range_of(isa, row);
                    if !of_row.bad {
                        range.include(&of_row);
                    }
                }
                shared = Some(rule.choose(range.min, range.max));
            }
        }
    }
    let job = |((quads, rows), sums): Pieces<I::Quad>, x: &[f32]| {
        let count = rows.len();
        isa.enter(QuantizeRows {
            rule,
            shared,
            wanted,
            x,
            count,
            quads,
            rows,
            sums,
        });
    };
    let mut parts = Vec::with_capacity(blocks.len());
    let (mut quads, mut rows, mut sums) = (&mut out.quads[..], &mut out.rows[..], &mut out.sums[..]);
    for (first, count) in blocks {
        let (q, r, s);
        (q, quads) = quads.split_at_mut(count * quads_of_row);
        (r, rows) = rows.split_at_mut(*count);
        (s, sums) = sums.split_at_mut(count * groups.count);
        parts.push((((q, r), s), &x[first * k..(first + count) * k]));
    }
    if count * k < PARALLEL_ELEMENTS {
        parts.into_iter().for_each(|(out, x)| job(out, x));
    } else {
        parts.into_par_iter().for_each(|(out, x)| job(out, x));
    }
    out
}

/// What a scale is chosen from: zero included.
#[derive(Clone, Copy, Default)]
pub struct Range {
    min: f32,
    max: f32,
    /// Whether a value is not finite.
    pub bad: bool,
}

impl Range {
    fn include(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

struct FindRange<'a> {
    x: &'a [f32],
    range: &'a mut Range,
}

impl<I: Isa> Block<I> for FindRange<'_> {
    #[inline(always)]
    fn run(self, _: I) {
        *self.range = scan(self.x);
    }
}

fn range_of<I: Isa>(isa: I, x: &[f32]) -> Range {
    let mut range = Range::default();
    isa.enter(FindRange { x, range: &mut range });
    range
}

/// `b` where it is smaller, else `a`: one instruction, where `f32::min` also looks for NaN.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// `b` where it is larger, else `a`.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Smallest and largest value (zero included) and whether any is not finite.
#[inline(always)]
pub fn scan(x: &[f32]) -> Range {
    const LANES: usize = 32;
    let (mut min, mut max, mut magnitude) = ([0.0f32; LANES], [0.0f32; LANES], [0u32; LANES]);
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            min[i] = smaller(min[i], chunk[i]);
            max[i] = larger(max[i], chunk[i]);
            magnitude[i] = magnitude[i].max(chunk[i].to_bits() & 0x7fff_ffff);
        }
    }
    for (i, value) in tail.iter().enumerate() {
        min[i] = smaller(min[i], *value);
        max[i] = larger(max[i], *value);
        magnitude[i] = magnitude[i].max(value.to_bits() & 0x7fff_ffff);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            min[i] = smaller(min[i], min[i + width]);
            max[i] = larger(max[i], max[i + width]);
            magnitude[i] = magnitude[i].max(magnitude[i + width]);
        }
        width /= 2;
    }
    Range {
        min: min[0],
        max: max[0],
        bad: magnitude[0] >= 0x7f80_0000,
    }
}

struct QuantizeRows<'a, Q> {
    rule: Rule,
    /// Scale and zero point of every row, where they are shared.
    shared: Option<(f32, i32)>,
    wanted: Wanted<'a>,
    x: &'a [f32],
    count: usize,
    quads: &'a mut [Q],
    rows: &'a mut [Row],
    sums: &'a mut [i32],
}

impl<I: Isa> Block<I> for QuantizeRows<'_, I::Quad> {
    #[inline(always)]
    fn run(self, isa: I) {
        let (groups, count) = (self.wanted.groups, self.count);
        let padded = groups.padded_k();
        // [row][padded K]; what the groups leave out stays 0.
        let mut codes = vec![0i8; count * padded];
        for r in 0..count {
            let (x, codes) = (
                &self.x[r * groups.k..(r + 1) * groups.k],
                &mut codes[r * padded..][..padded],
            );
            let range = scan(x);
            let (scale, zero) = match self.shared {
                Some(shared) => shared,
                None if range.bad => (1.0, self.rule.offset),
                None => self.rule.choose(range.min, range.max),
            };
            self.rows[r] = Row {
                scale,
                zero,
                bad: range.bad,
            };
            if range.bad {
                continue;
            }
            for group in 0..groups.count {
                let elements = groups.elements(group);
                let codes = &mut codes[groups.tiles(group).start * TILE..][..elements.len()];
                // The next row is read while this one is encoded.
                let next = self.x.get((r + 1) * groups.k + elements.start..).unwrap_or_default();
                let sum = encode(isa, &self.rule, &x[elements], next, scale, zero, codes);
                self.sums[group * count + r] = (self.wanted.sum)(sum);
            }
        }
        if self.wanted.narrow {
            interleave(&codes, padded, self.quads, |codes| codes.map(I::narrow_quad));
        } else {
            interleave(&codes, padded, self.quads, |codes| isa.quads(codes));
        }
    }
}

/// `[row][K]` becomes `[K / 4][row]`, four codes at a time.
#[inline(always)]
fn interleave<Q: Copy>(codes: &[i8], k: usize, out: &mut [Q], quads: impl Fn(&[[i8; 4]; 4]) -> [Q; 4] + Copy) {
    let count = codes.len() / k;
    let mut rows = codes.chunks_exact(k).map(|row| row.as_chunks::<4>().0);
    let mut r = 0;
    while count - r >= 4 {
        let mut four: [&[[i8; 4]]; 4] = [&[]; 4];
        four.iter_mut().zip(&mut rows).for_each(|(to, row)| *to = row);
        let [a, b, c, d] = four.map(|row| row.as_chunks::<4>().0);
        let out = &mut out[r..];
        for (q, (((a, b), c), d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
            let out = &mut out[q * 4 * count..][..3 * count + 4];
            let (a, b, c, d) = (quads(a), quads(b), quads(c), quads(d));
            for i in 0..4 {
                let out = &mut out[i * count..i * count + 4];
                (out[0], out[1], out[2], out[3]) = (a[i], b[i], c[i], d[i]);
            }
        }
        r += 4;
    }
    for row in rows {
        let ((row, tail), out) = (row.as_chunks::<4>(), &mut out[r..]);
        let mut at = 0;
        for codes in row {
            let (out, quads) = (&mut out[at..at + 3 * count + 1], quads(codes));
            (out[0], out[count], out[2 * count], out[3 * count]) = (quads[0], quads[1], quads[2], quads[3]);
            at += 4 * count;
        }
        for (codes, out) in tail.iter().zip(out.iter_mut().skip(at).step_by(count)) {
            *out = quads(&[*codes; 4])[0];
        }
        r += 1;
    }
}

/// `clamp(round(x · (1 / scale)) + zero, lo, hi)`, as signed 8-bit codes; their sum. Values are finite.
/// Asks for `next` meanwhile. Where 1 / scale is infinite, x / scale takes the place of the product, and 0 where the scale is 0 too.
#[inline(always)]
fn encode<I: Isa>(isa: I, rule: &Rule, x: &[f32], next: &[f32], scale: f32, zero: i32, out: &mut [i8]) -> i32 {
    let inverse = rule.scale_dtype.round(1.0 / scale);
    let product = rule.dtype.promote(rule.scale_dtype);
    // Clamped before it is rounded: the same, since the bounds are integers.
    let (lo, hi) = ((rule.lo - zero) as f32, (rule.hi - zero) as f32);
    // Adding 1.5 · 2^23 rounds to an integer, ties to even, and puts that into the low bits.
    let shift = (zero - rule.offset).wrapping_sub(MAGIC);
    let code = |steps: f32| ((smaller(larger(lo, steps), hi) + MAGIC_VALUE).to_bits() as i32).wrapping_add(shift);
    let mut sum = 0;
    if inverse.is_infinite() {
        for (x, out) in x.iter().zip(out) {
            let code = code(if scale == 0.0 { 0.0 } else { product.round(x / scale) });
            *out = code as i8;
            sum += code;
        }
        return sum;
    }
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks::<CHANNELS>(), out.as_chunks_mut::<CHANNELS>());
    let mut sums = isa.splat_i32(0);
    for (i, (x, out)) in x.iter().zip(out).enumerate() {
        if let Some(next) = next.get(i * CHANNELS) {
            isa.prefetch(next, false);
        }
        let steps = isa.round(product, isa.mul(isa.load(&Lanes(*x)), isa.splat(inverse)));
        let clamped = isa.smaller(isa.larger(isa.splat(lo), steps), isa.splat(hi));
        let codes = isa.add_i32(
            isa.bits_of_float(isa.add(clamped, isa.splat(MAGIC_VALUE))),
            isa.splat_i32(shift),
        );
        isa.low_bytes(codes, out);
        sums = isa.add_i32(sums, codes);
    }
    for (x, out) in x_tail.iter().zip(out_tail) {
        let code = code(round(product, x * inverse));
        *out = code as i8;
        sum += code;
    }
    let mut lanes = Lanes([0; CHANNELS]);
    isa.store_i32(sums, &mut lanes);
    sum + lanes.0.iter().sum::<i32>()
}
