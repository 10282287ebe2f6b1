//! Codes as halves in registers, exactly, and what matrix instructions (`m16n8k16`, f32 sums) make of them: scales meet the f32 sum of a
//! group. Kernels differ in how operands reach the registers.

use super::device::is_not_finite;
use super::epilogue::rounded;
use super::fragments::{BLOCK, container};
use super::product_float::Zero;
use super::ring::{Line, Pair, Place, Shape, exchange, retyped};
use super::select::{Tiling, Way};
use super::weight::CubeWeight;
use super::wgmma::Rows;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Rule {
    pub shape: Shape,
    bits: usize,
    zero: Zero,
    /// Several scales along K.
    grouped: bool,
    /// A group is half a block: 32 codes.
    half_blocks: bool,
    /// Blocks of a group, 1 for less, more than there are for one group: a constant, since a division by it is in every step.
    group_blocks: usize,
    /// Neighbouring blocks of a stage that a plane sums up before the scale.
    run: usize,
    /// Scales and float zero points are values of the activation's dtype.
    half_scales: bool,
    bias: bool,
    pub dtype: FloatDtype,
}

impl Rule {
    /// For activations of `dtype`; `runs`: see [`Shape`].
    pub fn new<R: Runtime>(weight: &CubeWeight<R>, tiling: Tiling, runs: bool, dtype: FloatDtype, bias: bool) -> Self {
        let layout = weight.layout;
        let container = container(layout.bits);
        let grouped = layout.groups() > 1;
        let group_blocks = (layout.group / BLOCK).max(1);
        let share = tiling.blocks / tiling.planes_k;
        Self {
            shape: Shape::new(tiling, container, 2, runs, layout.k / BLOCK),
            bits: layout.bits,
            zero: weight.zero(),
            grouped,
            half_blocks: grouped && layout.group < BLOCK,
            // The same for every K without groups.
            group_blocks: if grouped { group_blocks } else { 1 << 30 },
            run: if grouped {
                [4, 2]
                    .into_iter()
                    .find(|run| group_blocks.is_multiple_of(*run) && share.is_multiple_of(*run))
                    .unwrap_or(1)
            } else {
                1
            },
            half_scales: weight.has_scales_of(dtype),
            bias,
            dtype,
        }
    }

    /// What rows in shared memory hold.
    pub fn rows(&self) -> Rows {
        match self.dtype {
            FloatDtype::BF16 => Rows::BF16,
            _ => Rows::F16,
        }
    }

    /// Bits of a half whose last place counts 1, and its value.
    fn magic(&self) -> (u32, f32) {
        match self.dtype {
            FloatDtype::BF16 => (0x4300_4300, 128.0),
            _ => (0x6400_6400, 1024.0),
        }
    }

    /// What is kept of a word, and what is turned over to make halves of it: codes counted from the smallest of the container, behind the
    /// bits of `magic`. Once for the low codes, once for those 4 bits higher, which count 16 times.
    fn masks(&self) -> [u32; 4] {
        let (magic, _) = self.magic();
        if self.shape.container == 4 {
            [0x000f_000f, magic | 0x0008_0008, 0x00f0_00f0, magic | 0x0080_0080]
        } else if self.dtype == FloatDtype::BF16 {
            // The low digits of 2^23 in f32.
            [0xff, 0x4b00_0080, 0, 0]
        } else {
            [0x00ff_00ff, magic | 0x0080_0080, 0, 0]
        }
    }

    /// Whether a half holds a code that counts 16 times, so that the nibble need not be moved.
    fn in_place(&self) -> bool {
        self.shape.container == 4 && self.dtype == FloatDtype::F16
    }

    /// Groups that a plane meets in a step; one where the channel has one.
    fn groups_in_step(&self) -> usize {
        if self.grouped {
            let blocks = self.shape.tiling.blocks / self.shape.tiling.planes_k;
            if self.half_blocks {
                2 * blocks
            } else {
                blocks / self.run
            }
        } else {
            1
        }
    }

    /// Scales that a plane needs in a step.
    pub fn in_step(&self) -> usize {
        self.groups_in_step() * 2 * self.shape.tiling.tiles
    }

    /// Steps that scales are read ahead: 0 or a divisor of the stages, so that no register moves while it is on its way.
    pub fn early(&self) -> usize {
        if self.shape.tiling.way == Way::Warpgroups && self.sums_groups() {
            // Sums leave no registers, and need their scales some hundred cycles after the step began.
            return 0;
        }
        let stages = self.shape.tiling.stages;
        let held = |early: &usize| stages.is_multiple_of(*early) && early * self.in_step() <= 16;
        (1..=stages).rev().find(held).unwrap_or(1)
    }

    /// Whether sums of groups meet their scale, and then those of other groups.
    pub fn sums_groups(&self) -> bool {
        self.grouped && self.zero != Zero::Float
    }

    /// Scales meet sums or weights before the end.
    pub fn uses_scales(&self) -> bool {
        self.grouped || self.zero == Zero::Float
    }

    /// Blocks have zero points of their own.
    pub fn uses_zeros(&self) -> bool {
        self.zero != Zero::Same
    }

    /// Which group of a step half `q` of block `b` is in.
    pub fn group_in_step(&self, b: usize, q: usize) -> usize {
        if !self.grouped {
            0
        } else if self.half_blocks {
            2 * b + q
        } else {
            b / self.run
        }
    }

    /// Whether a sum begins with half `q` of block `b`.
    pub fn begins_group(&self, b: usize, q: usize) -> bool {
        self.sums_groups() && (self.half_blocks || q == 0 && b % self.run == 0)
    }

    /// Whether a sum ends with half `q` of block `b`.
    pub fn ends_group(&self, b: usize, q: usize) -> bool {
        self.sums_groups() && (self.half_blocks || q == 1 && b % self.run == self.run - 1)
    }

    /// Which line of a block holds its half `q`.
    pub fn line_of(&self, q: usize) -> usize {
        if self.shape.container == 8 { q } else { 0 }
    }

    /// Codes of the container below the smallest of the weight.
    fn below(&self) -> f32 {
        (1 << (self.shape.container - 1)) as f32 - (1 << (self.bits - 1)) as f32
    }
}

/// The numbers of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub rows: u32,
    pub n: u32,
    /// Blocks of 64 k.
    pub blocks: u32,
    /// The zero point of every block, or the middle code, counted from the smallest code.
    zero_point: f32,
    /// The bits of a NaN.
    nan: u32,
    /// 0.
    zero: u32,
    /// [`Rule::masks`]: as constants of the kernel they would cost an instruction more for each pair of codes.
    low: u32,
    low_flip: u32,
    high: u32,
    high_flip: u32,
}

/// Two codes of `word`, the low byte or nibble of each half, less `origin`; `high`: the nibble above.
#[cube]
fn pair_of<F: Float>(word: u32, origin: f32, sizes: &Sizes, #[comptime] high: bool, #[comptime] rule: Rule) -> Pair<F> {
    if comptime!(rule.shape.container == 8 && rule.dtype == FloatDtype::BF16) {
        // 2^23 + code, of which the difference is exact and has no more than 8 digits.
        let low = (word & sizes.low) ^ sizes.low_flip;
        let high = ((word >> 16u32) & sizes.low) ^ sizes.low_flip;
        let low = f32::reinterpret(low) - (origin + 8_388_608.0f32);
        let high = f32::reinterpret(high) - (origin + 8_388_608.0f32);
        Pair::<F>::reinterpret((u32::reinterpret(low) >> 16u32) | (u32::reinterpret(high) & 0xffff_0000u32))
    } else if comptime!(high) {
        // 1024 + 16 · code, whose sixteenth less 64 is the code: exact.
        let bits = (word & sizes.high) ^ sizes.high_flip;
        let sixteenths = Pair::<F>::reinterpret(bits) * Pair::<F>::new(F::cast_from(0.0625f32));
        sixteenths - Pair::<F>::new(F::cast_from(origin + 64.0f32))
    } else {
        let (_, one) = comptime!(rule.magic());
        let bits = (word & sizes.low) ^ sizes.low_flip;
        Pair::<F>::reinterpret(bits) - Pair::<F>::new(F::cast_from(origin + one))
    }
}

/// The first operand of a step: registers of channel g and g + 8 for the first two k, then for the others. `origins` are the zero points
/// of the channels, `middles` and `scales` those of float zero points.
#[cube]
fn channels_of<F: Float>(
    line: Line,
    origins: &Array<f32>,
    scales: &Array<f32>,
    middles: &Array<f32>,
    sizes: &Sizes,
    #[comptime] word: usize,
    #[comptime] rule: Rule,
) -> Array<Pair<F>> {
    let mut a = Array::<Pair<F>>::new(4usize);
    #[unroll]
    for p in 0..2usize {
        #[unroll]
        for h in 0..2usize {
            let high = comptime!(rule.in_place() && h == 1);
            let shift = comptime!(if rule.shape.container == 4 && !high {
                4 * h + 8 * p
            } else {
                8 * p
            });
            let source = line[comptime!(if rule.shape.container == 4 { word } else { word + h })];
            let mut values = pair_of::<F>(source >> comptime!(shift as u32), origins[h], sizes, high, rule);
            if comptime!(rule.zero == Zero::Float) {
                if comptime!(rule.half_scales) {
                    let product = values * Pair::<F>::new(F::cast_from(scales[h]));
                    let product = Pair::<F>::reinterpret(u32::reinterpret(product) ^ sizes.zero);
                    values = product + Pair::<F>::new(F::cast_from(middles[h]));
                } else {
                    #[unroll]
                    for e in 0..2usize {
                        let product = F::cast_from(f32::cast_from(values[e]) * scales[h]);
                        values[e] = F::cast_from(f32::cast_from(product) + middles[h]);
                    }
                }
            }
            a[comptime!(2 * p + h)] = values;
        }
    }
    a
}

/// Scales, or zero points, that a plane needs in a step: of each run, channel g and g + 8 of each of its tiles.
#[cube]
pub(super) fn of_step(
    values: &Array<f32>,
    step: usize,
    place: &Place,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) -> Array<f32> {
    let channel = (place.first_tile + place.own_tile) * 16 + place.lane / 4;
    let tiling = comptime!(rule.shape.tiling);
    let mut found = Array::<f32>::new(comptime!(rule.in_step()));
    #[unroll]
    for r in 0..comptime!(rule.groups_in_step()) {
        let run = comptime!(if rule.half_blocks { r / 2 } else { r });
        let share = comptime!(tiling.blocks / tiling.planes_k);
        let block = (place.first_step + step) * tiling.blocks + place.plane_k * share + comptime!(run * rule.run);
        let block = min(block, sizes.blocks as usize - 1);
        let mut group = block / rule.group_blocks;
        if comptime!(rule.half_blocks) {
            group = block * 2 + comptime!(r % 2);
        }
        #[unroll]
        for i in 0..comptime!(2 * tiling.tiles) {
            let channel = min(channel + comptime!(8 * i), sizes.n as usize - 1);
            found[comptime!(r * 2 * tiling.tiles + i)] = values[group * sizes.n as usize + channel];
        }
    }
    found
}

/// Scales and zero points that a plane needs in some steps, where it needs them before the end.
#[derive(CubeType)]
pub(super) struct Parameters {
    pub scales: Array<f32>,
    pub zeros: Array<f32>,
}

/// Those of the first steps: later ones are on their way while a step is computed.
#[cube]
pub(super) fn parameters(
    scales: &Array<f32>,
    zeros: &Array<f32>,
    place: &Place,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) -> Parameters {
    Parameters {
        scales: of_first_steps(scales, place, sizes, rule.uses_scales(), rule),
        zeros: of_first_steps(zeros, place, sizes, rule.uses_zeros(), rule),
    }
}

/// Those of step `step`, in stage `s`, whose place in `held` those of a later step take.
#[cube]
pub(super) fn take(
    held: &mut Parameters,
    scales: &Array<f32>,
    zeros: &Array<f32>,
    place: &Place,
    step: usize,
    sizes: &Sizes,
    #[comptime] s: usize,
    #[comptime] rule: Rule,
) -> Parameters {
    Parameters {
        scales: take_from(
            &mut held.scales,
            scales,
            place,
            step,
            sizes,
            s,
            rule.uses_scales(),
            rule,
        ),
        zeros: take_from(&mut held.zeros, zeros, place, step, sizes, s, rule.uses_zeros(), rule),
    }
}

/// Of [`parameters`], those in `values`; anything where a plane uses none.
#[cube]
fn of_first_steps(
    values: &Array<f32>,
    place: &Place,
    sizes: &Sizes,
    #[comptime] uses: bool,
    #[comptime] rule: Rule,
) -> Array<f32> {
    let (in_step, early) = comptime!((rule.in_step(), rule.early()));
    let mut held = Array::<f32>::new(comptime!(early.max(1) * in_step));
    if uses {
        #[unroll]
        for step in 0..early {
            let found = of_step(values, step, place, sizes, rule);
            #[unroll]
            for i in 0..in_step {
                held[comptime!(step * in_step + i)] = found[i];
            }
        }
    }
    held
}

/// Of [`take`], those in `values`.
#[cube]
fn take_from(
    held: &mut Array<f32>,
    values: &Array<f32>,
    place: &Place,
    step: usize,
    sizes: &Sizes,
    #[comptime] s: usize,
    #[comptime] uses: bool,
    #[comptime] rule: Rule,
) -> Array<f32> {
    let (in_step, early) = comptime!((rule.in_step(), rule.early()));
    let mut taken = Array::<f32>::new(in_step);
    if uses {
        let found = of_step(values, step + early, place, sizes, rule);
        #[unroll]
        for i in 0..in_step {
            if comptime!(early == 0) {
                taken[i] = found[i];
            } else {
                let at = comptime!(s % early * in_step + i);
                taken[i] = held[at];
                held[at] = found[i];
            }
        }
    }
    taken
}

/// `sums` zeros for the tiles of a plane.
#[cube]
pub(super) fn no_sums(#[comptime] tiling: Tiling) -> Sequence<Array<Pair<f32>>> {
    let mut sums = Sequence::<Array<Pair<f32>>>::new();
    #[unroll]
    for _ in 0..comptime!(tiling.tiles * tiling.rows) {
        let mut zeros = Array::<Pair<f32>>::new(2usize);
        zeros[0] = Pair::<f32>::new(0.0f32);
        zeros[1] = Pair::<f32>::new(0.0f32);
        sums.push(zeros);
    }
    sums
}

/// What codes of the `i`-th tile of a plane are made halves with, in the `r`-th group of a step: of channels g and g + 8.
#[derive(CubeType)]
pub(super) struct Codes {
    origins: Array<f32>,
    scale: Array<f32>,
    middle: Array<f32>,
}

#[cube]
pub(super) fn codes_of(
    scales: &Array<f32>,
    zeros: &Array<f32>,
    sizes: &Sizes,
    #[comptime] r: usize,
    #[comptime] i: usize,
    #[comptime] rule: Rule,
) -> Codes {
    let mut origins = Array::<f32>::new(2usize);
    let mut scale = Array::<f32>::new(2usize);
    let mut middle = Array::<f32>::new(2usize);
    #[unroll]
    for h in 0..2usize {
        let of = comptime!((r * rule.shape.tiling.tiles + i) * 2 + h);
        let mut origin = sizes.zero_point;
        if comptime!(rule.zero == Zero::Blocks) {
            origin = zeros[of];
        }
        origins[h] = origin + comptime!(rule.below());
        if comptime!(rule.zero == Zero::Float) {
            scale[h] = scales[of];
            middle[h] = zeros[of];
        }
    }
    Codes { origins, scale, middle }
}

/// The first operand of the 16 k `half` of half `q` of a block.
#[cube]
pub(super) fn first_operand<F: Float>(
    line: Line,
    codes: &Codes,
    sizes: &Sizes,
    #[comptime] q: usize,
    #[comptime] half: usize,
    #[comptime] rule: Rule,
) -> Array<Pair<F>> {
    let word = comptime!(if rule.shape.container == 8 {
        2 * half
    } else {
        2 * q + half
    });
    channels_of::<F>(line, &codes.origins, &codes.scale, &codes.middle, sizes, word, rule)
}

/// Adds the products of half a block, 32 k, to `acc`: `rows` holds a line for each tile of rows, `lines` for each tile of channels; the group
/// is the `r`-th of the step.
#[cube]
pub(super) fn multiply<F: Float>(
    rows: &Array<Line>,
    lines: &Array<Line>,
    acc: &mut Sequence<Array<Pair<f32>>>,
    scales: &Array<f32>,
    zeros: &Array<f32>,
    sizes: &Sizes,
    #[comptime] r: usize,
    #[comptime] q: usize,
    #[comptime] rule: Rule,
) {
    let def = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (rt, mt) = comptime!((rule.shape.tiling.tiles, rule.shape.tiling.rows));
    #[unroll]
    for i in 0..rt {
        let codes = codes_of(scales, zeros, sizes, r, i, rule);
        #[unroll]
        for half in 0..2usize {
            let a = first_operand::<F>(lines[i], &codes, sizes, q, half, rule);
            #[unroll]
            for j in 0..mt {
                let mut b = Array::<u32>::new(2usize);
                b[0] = rows[j][comptime!(2 * half)];
                b[1] = rows[j][comptime!(2 * half + 1)];
                let into = acc.index_mut(comptime!(i * mt + j));
                def.execute_inplace(&a, &retyped::<u32, Pair<F>>(&b), into);
            }
        }
    }
}

/// Adds the sums of the `r`-th group of the step to `total`, and starts the next.
#[cube]
pub(super) fn add_group(
    acc: &mut Sequence<Array<Pair<f32>>>,
    total: &mut Sequence<Array<Pair<f32>>>,
    scales: &Array<f32>,
    #[comptime] r: usize,
    #[comptime] rule: Rule,
) {
    let (rt, mt) = comptime!((rule.shape.tiling.tiles, rule.shape.tiling.rows));
    #[unroll]
    for i in 0..rt {
        #[unroll]
        for j in 0..mt {
            let sum = acc.index_mut(comptime!(i * mt + j));
            let into = total.index_mut(comptime!(i * mt + j));
            #[unroll]
            for h in 0..2usize {
                into[h] = into[h] + sum[h] * Pair::<f32>::new(scales[comptime!((r * rt + i) * 2 + h)]);
                sum[h] = Pair::<f32>::new(0.0f32);
            }
        }
    }
}

/// Writes the outputs of `sums`, to which planes that share K add theirs.
#[cube]
pub(super) fn finish<F: Float>(
    sums: &Sequence<Array<Pair<f32>>>,
    place: &Place,
    scales: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) {
    let tiling = comptime!(rule.shape.tiling);
    let n = sizes.n as usize;
    let (first_tile, first_row) = (place.first_tile, place.first_row);
    let (rt, mt) = comptime!((tiling.tiles, tiling.rows));
    if comptime!(tiling.planes_k > 1) {
        let (channels, cube_rows) = comptime!((tiling.cube_channels(), tiling.cube_rows()));
        let shared = exchange(sums, place, tiling);
        let units = comptime!(tiling.planes() * 32);
        let all = comptime!(channels * cube_rows);
        let count = comptime!(all.div_ceil(units));
        let batch = comptime!(count.min(BATCH));
        #[unroll]
        for first in 0..comptime!(count.div_ceil(batch)) {
            let mut values = Array::<F>::new(batch);
            #[unroll]
            for i in 0..batch {
                let at = min(
                    comptime!((first * batch + i) * units) + UNIT_POS as usize,
                    comptime!(all - 1),
                );
                let channel = first_tile * 16 + at % channels;
                let of = channel_of::<F>(min(channel, n - 1), scales, bias, rule);
                let mut sum = shared[at];
                #[unroll]
                for k in 1..comptime!(tiling.planes_k) {
                    sum += shared[comptime!(k * all) + at];
                }
                values[i] = output::<F>(sum, &of, sizes, rule);
            }
            #[unroll]
            for i in 0..batch {
                let at = comptime!((first * batch + i) * units) + UNIT_POS as usize;
                let channel = first_tile * 16 + at % channels;
                let row = first_row + at / channels;
                if at < all && channel < n && row < sizes.rows as usize {
                    y[row * n + channel] = values[i];
                }
            }
        }
    } else {
        #[unroll]
        for i in 0..rt {
            #[unroll]
            for h in 0..2usize {
                let channel = (first_tile + place.own_tile + i) * 16 + comptime!(8 * h) + place.lane / 4;
                // All values before any is stored: stores ask whether the row exists, and no value waits for that.
                let values = outputs_of::<F>(sums, place, scales, bias, sizes, i, h, rule);
                #[unroll]
                for at in 0..comptime!(2 * mt) {
                    let row = first_row + place.own_row + comptime!(at / 2 * 8 + at % 2) + 2 * (place.lane % 4);
                    if channel < n && row < sizes.rows as usize {
                        y[row * n + channel] = values[at];
                    }
                }
            }
        }
    }
}

/// The outputs of channel g (`h` = 0) or g + 8 of the plane's `i`-th tile: of rows 2t and 2t + 1 of each tile of 8.
#[cube]
pub(super) fn outputs_of<F: Float>(
    sums: &Sequence<Array<Pair<f32>>>,
    place: &Place,
    scales: &Array<f32>,
    bias: &Array<F>,
    sizes: &Sizes,
    #[comptime] i: usize,
    #[comptime] h: usize,
    #[comptime] rule: Rule,
) -> Array<F> {
    let mt = comptime!(rule.shape.tiling.rows);
    let channel = (place.first_tile + place.own_tile + i) * 16 + comptime!(8 * h) + place.lane / 4;
    let of = channel_of::<F>(min(channel, sizes.n as usize - 1), scales, bias, rule);
    let mut values = Array::<F>::new(comptime!(2 * mt));
    #[unroll]
    for j in 0..mt {
        let own = sums.index(comptime!(i * mt + j));
        #[unroll]
        for e in 0..2usize {
            values[comptime!(2 * j + e)] = output::<F>(own[h][e], &of, sizes, rule);
        }
    }
    values
}

/// Outputs of the sums of slices, `partial [slice][rows][N]`: they join in the order of the slices.
#[cube(launch_unchecked)]
pub(super) fn join<F: Float>(
    partial: &Array<f32>,
    scales: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let (rows, n) = (sizes.rows as usize, sizes.n as usize);
    let channel = CUBE_POS_X as usize * JOINED + UNIT_POS as usize;
    let row = CUBE_POS_Y as usize + CUBE_POS_Z as usize * CUBE_COUNT_Y as usize;
    if channel < n && row < rows {
        let of = channel_of::<F>(channel, scales, bias, rule);
        let mut sum = partial[row * n + channel];
        #[unroll]
        for slice in 1..comptime!(rule.shape.tiling.slices) {
            sum += partial[(slice * rows + row) * n + channel];
        }
        y[row * n + channel] = output::<F>(sum, &of, &sizes, rule);
    }
}

/// Units of a cube of [`join`], a channel each.
pub(super) const JOINED: usize = 256;

/// Outputs that a unit computes before it stores them, where planes share K.
const BATCH: usize = 8;

/// What the outputs of a channel need.
#[derive(CubeType)]
struct Channel {
    scale: f32,
    bias: f32,
}

#[cube]
fn channel_of<F: Float>(channel: usize, scales: &Array<f32>, bias: &Array<F>, #[comptime] rule: Rule) -> Channel {
    let mut scale = 1.0f32;
    if comptime!(!rule.grouped && rule.zero != Zero::Float) {
        scale = scales[channel];
    }
    let mut shift = 0.0f32;
    if comptime!(rule.bias) {
        shift = f32::cast_from(bias[channel]);
    }
    Channel { scale, bias: shift }
}

/// The output of a sum; NaN where the row held a NaN or an infinity.
#[cube]
fn output<F: Float>(sum: f32, channel: &Channel, sizes: &Sizes, #[comptime] rule: Rule) -> F {
    let mut value = sum;
    if comptime!(!rule.grouped && rule.zero != Zero::Float) {
        let scale = rounded::<F>(channel.scale, sizes.zero, rule.dtype, true);
        let sum = rounded::<F>(sum, sizes.zero, rule.dtype, true);
        value = rounded::<F>(sum * scale, sizes.zero, rule.dtype, true);
    }
    if comptime!(rule.bias) {
        value = value + channel.bias;
    }
    F::cast_from(select(is_not_finite(sum), f32::reinterpret(sizes.nan), value))
}

/// The numbers of a product of `rows` rows.
pub(super) fn numbers<R: Runtime>(weight: &CubeWeight<R>, rows: usize, rule: &Rule) -> SizesLaunch<R> {
    let [low, low_flip, high, high_flip] = rule.masks();
    SizesLaunch::new(
        rows as u32,
        weight.layout.n as u32,
        (weight.layout.k / BLOCK) as u32,
        weight.origin() as f32,
        f32::NAN.to_bits(),
        0,
        low,
        low_flip,
        high,
        high_flip,
    )
}
