//! The product of f16 or bf16 activations with a weight of codes through matrix instructions (`m16n8k16`, f32 sums): codes become halves
//! in registers, exactly; scales meet the f32 sum of a group.
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::device::is_not_finite;
use super::epilogue::rounded;
use super::fragments::{BLOCK, TILE, container};
use super::grid::Grid;
use super::product_float::Zero;
use super::ring::{
    Line, NoShapes, Shape, Source, SourceArgs, enter, exchange, leave, place_of, prepare, retyped, start, tile_lines,
};
use super::select::Tiling;
use super::weight::CubeWeight;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

type Pair<T> = Vector<T, Const<2>>;

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rule {
    shape: Shape,
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
    dtype: FloatDtype,
}

impl Rule {
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
    fn in_step(&self) -> usize {
        self.groups_in_step() * 2 * self.shape.tiling.tiles
    }

    /// Steps that scales are read ahead: a divisor of the stages, so that no register moves while it is on its way.
    fn early(&self) -> usize {
        let stages = self.shape.tiling.stages;
        let held = |early: &usize| stages.is_multiple_of(*early) && early * self.in_step() <= 16;
        (1..=stages).rev().find(held).unwrap_or(1)
    }

    /// Codes of the container below the smallest of the weight.
    fn below(&self) -> f32 {
        (1 << (self.shape.container - 1)) as f32 - (1 << (self.bits - 1)) as f32
    }
}

/// The numbers of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Sizes {
    rows: u32,
    n: u32,
    /// Blocks of 64 k.
    blocks: u32,
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
        let low = ((word & 0xffu32) ^ 0x80u32) | 0x4b00_0000u32;
        let high = (((word >> 16u32) & 0xffu32) ^ 0x80u32) | 0x4b00_0000u32;
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
fn of_step(
    values: &Array<f32>,
    step: usize,
    plane_k: usize,
    channel: usize,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) -> Array<f32> {
    let tiling = comptime!(rule.shape.tiling);
    let mut found = Array::<f32>::new(comptime!(rule.in_step()));
    #[unroll]
    for r in 0..comptime!(rule.groups_in_step()) {
        let run = comptime!(if rule.half_blocks { r / 2 } else { r });
        let share = comptime!(tiling.blocks / tiling.planes_k);
        let block = step * tiling.blocks + plane_k * share + comptime!(run * rule.run);
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

#[cube(launch_unchecked)]
fn product<F: Float>(
    source: &Source,
    scales: &Array<f32>,
    zeros: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    _shapes: NoShapes,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let shape = comptime!(rule.shape);
    let tiling = comptime!(shape.tiling);
    let (stages, in_stage, lines) = comptime!((tiling.stages, tiling.blocks, shape.lines()));
    let (w_stage, x_stage) = comptime!((shape.w_stage(), shape.x_stage()));
    let (piece, row, share) = comptime!((shape.piece(), shape.row(), shape.share()));
    let mut ring = prepare(shape);
    let place = place_of(sizes.rows, sizes.n, sizes.blocks, shape);
    start(&mut ring, source, &place, shape);

    let n = sizes.n as usize;
    let (first_tile, first_row) = (place.first_tile, place.first_row);
    let (own_tile, own_row, plane_k) = (place.own_tile, place.own_row, place.plane_k);
    let rounds = place.steps.div_ceil(stages);
    let def = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let mt = comptime!(tiling.rows);
    let rt = comptime!(tiling.tiles);
    let (g, t) = (place.lane / 4, place.lane % 4);
    let sums_groups = comptime!(rule.grouped && rule.zero != Zero::Float);

    let mut acc = Sequence::<Array<Pair<f32>>>::new();
    let mut total = Sequence::<Array<Pair<f32>>>::new();
    #[unroll]
    for _ in 0..comptime!(rt * mt) {
        let mut zeros = Array::<Pair<f32>>::new(2usize);
        zeros[0] = Pair::<f32>::new(0.0f32);
        zeros[1] = Pair::<f32>::new(0.0f32);
        acc.push(zeros);
        if sums_groups {
            let mut zeros = Array::<Pair<f32>>::new(2usize);
            zeros[0] = Pair::<f32>::new(0.0f32);
            zeros[1] = Pair::<f32>::new(0.0f32);
            total.push(zeros);
        }
    }

    // Those of the next steps are on their way while this one is computed.
    let uses_scales = comptime!(rule.grouped || rule.zero == Zero::Float);
    let uses_zeros = comptime!(rule.zero != Zero::Same);
    let own_channel = (first_tile + own_tile) * 16 + g;
    let in_step = comptime!(rule.in_step());
    let early = comptime!(rule.early());
    let mut next_scales = Array::<f32>::new(comptime!(early * in_step));
    let mut next_zeros = Array::<f32>::new(comptime!(early * in_step));
    #[unroll]
    for step in 0..early {
        if uses_scales {
            let found = of_step(scales, step, plane_k, own_channel, &sizes, rule);
            #[unroll]
            for i in 0..in_step {
                next_scales[comptime!(step * in_step + i)] = found[i];
            }
        }
        if uses_zeros {
            let found = of_step(zeros, step, plane_k, own_channel, &sizes, rule);
            #[unroll]
            for i in 0..in_step {
                next_zeros[comptime!(step * in_step + i)] = found[i];
            }
        }
    }

    for round in 0..rounds {
        #[unroll]
        for s in 0..stages {
            let step = round * stages + s;
            if comptime!(shape.even).runtime() || step < place.steps {
                let mut step_scales = Array::<f32>::new(in_step);
                let mut step_zeros = Array::<f32>::new(in_step);
                let held = comptime!(s % early * in_step);
                if uses_scales {
                    let found = of_step(scales, step + early, plane_k, own_channel, &sizes, rule);
                    #[unroll]
                    for i in 0..in_step {
                        step_scales[i] = next_scales[comptime!(held + i)];
                        next_scales[comptime!(held + i)] = found[i];
                    }
                }
                if uses_zeros {
                    let found = of_step(zeros, step + early, plane_k, own_channel, &sizes, rule);
                    #[unroll]
                    for i in 0..in_step {
                        step_zeros[i] = next_zeros[comptime!(held + i)];
                        next_zeros[comptime!(held + i)] = found[i];
                    }
                }
                let first = step * in_stage;
                enter(&mut ring, source, &place, round, s, shape);
                #[unroll]
                for b in 0..share {
                    let block = first + b + plane_k * share;
                    if comptime!(shape.whole).runtime() || block < place.blocks {
                        #[unroll]
                        for q in 0..2usize {
                            let mut rows = Array::<Line>::new(mt);
                            #[unroll]
                            for j in 0..mt {
                                rows[j] =
                                    ring.x[place.own_x + comptime!(s * x_stage + (2 * b + q) * piece + j * 8 * row)];
                            }
                            let r = comptime!(if !rule.grouped {
                                0
                            } else if rule.half_blocks {
                                2 * b + q
                            } else {
                                b / rule.run
                            });
                            #[unroll]
                            for i in 0..rt {
                                let step = comptime!(if rule.shape.container == 8 { q * 32 } else { 0 });
                                let line =
                                    ring.w[place.own_w + comptime!(s * w_stage + (i * in_stage + b) * lines + step)];
                                let mut origins = Array::<f32>::new(2usize);
                                let mut scale = Array::<f32>::new(2usize);
                                let mut middle = Array::<f32>::new(2usize);
                                #[unroll]
                                for h in 0..2usize {
                                    let of = comptime!((r * rt + i) * 2 + h);
                                    let mut origin = sizes.zero_point;
                                    if comptime!(rule.zero == Zero::Blocks) {
                                        origin = step_zeros[of];
                                    }
                                    origins[h] = origin + comptime!(rule.below());
                                    if comptime!(rule.zero == Zero::Float) {
                                        scale[h] = step_scales[of];
                                        middle[h] = step_zeros[of];
                                    }
                                }
                                #[unroll]
                                for half in 0..2usize {
                                    let word = comptime!(if rule.shape.container == 8 {
                                        2 * half
                                    } else {
                                        2 * q + half
                                    });
                                    let a = channels_of::<F>(line, &origins, &scale, &middle, &sizes, word, rule);
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
                            if comptime!(sums_groups && (rule.half_blocks || q == 1 && b % rule.run == rule.run - 1)) {
                                #[unroll]
                                for i in 0..rt {
                                    #[unroll]
                                    for j in 0..mt {
                                        let sum = acc.index_mut(comptime!(i * mt + j));
                                        let into = total.index_mut(comptime!(i * mt + j));
                                        #[unroll]
                                        for h in 0..2usize {
                                            into[h] = into[h]
                                                + sum[h]
                                                    * Pair::<f32>::new(step_scales[comptime!((r * rt + i) * 2 + h)]);
                                            sum[h] = Pair::<f32>::new(0.0f32);
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                leave(&ring, &place, s);
            }
        }
    }

    let sums = if sums_groups { total } else { acc };
    if comptime!(tiling.planes_k > 1) {
        let (channels, cube_rows) = comptime!((tiling.cube_channels(), tiling.cube_rows()));
        let shared = exchange(&sums, &place, tiling);
        // A unit has a channel of its own, and every few rows of it.
        let units = comptime!(tiling.planes() * 32);
        let (own, step) = (UNIT_POS as usize, comptime!(units / channels));
        let channel = first_tile * 16 + own % channels;
        let of = channel_of::<F>(min(channel, n - 1), scales, bias, rule);
        let count = comptime!((cube_rows / step).max(1));
        let batch = comptime!(count.min(BATCH));
        // Units beyond the last row have none.
        let has_rows = comptime!(step <= cube_rows).runtime() || own < comptime!(channels * cube_rows);
        let own = min(own, comptime!(channels * cube_rows - 1));
        #[unroll]
        for first in 0..comptime!(count.div_ceil(batch)) {
            let mut values = Array::<F>::new(batch);
            #[unroll]
            for i in 0..batch {
                let at = comptime!((first * batch + i).min(count - 1) * units) + own;
                let mut sum = shared[at];
                #[unroll]
                for k in 1..comptime!(tiling.planes_k) {
                    sum += shared[comptime!(k * channels * cube_rows) + at];
                }
                values[i] = output::<F>(sum, &of, &sizes, rule);
            }
            #[unroll]
            for i in 0..batch {
                let at = comptime!(first * batch + i);
                let row = first_row + at * step + own / channels;
                if comptime!(at < count).runtime() && has_rows && channel < n && row < sizes.rows as usize {
                    y[row * n + channel] = values[i];
                }
            }
        }
    } else {
        #[unroll]
        for i in 0..rt {
            #[unroll]
            for h in 0..2usize {
                let channel = (first_tile + own_tile + i) * 16 + comptime!(8 * h) + g;
                let of = channel_of::<F>(min(channel, n - 1), scales, bias, rule);
                // All values before any is stored: stores ask whether the row exists, and no value waits for that.
                let mut values = Array::<F>::new(comptime!(2 * mt));
                #[unroll]
                for j in 0..mt {
                    let own = sums.index(comptime!(i * mt + j));
                    #[unroll]
                    for e in 0..2usize {
                        values[comptime!(2 * j + e)] = output::<F>(own[h][e], &of, &sizes, rule);
                    }
                }
                #[unroll]
                for at in 0..comptime!(2 * mt) {
                    let row = first_row + own_row + comptime!(at / 2 * 8 + at % 2) + 2 * t;
                    if channel < n && row < sizes.rows as usize {
                        y[row * n + channel] = values[at];
                    }
                }
            }
        }
    }
}

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

/// `y [rows, N]` of activations `x [rows, K]` of f16 or bf16; `rows` is at least 1.
pub(super) fn float_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    tiling: Tiling,
    dtype: FloatDtype,
    bias: Option<&Buffer>,
) -> Buffer {
    let layout = weight.layout;
    let container = container(layout.bits);
    let (tiles, blocks, inner) = (layout.n.div_ceil(TILE), layout.k / BLOCK, 4 * tile_lines(container));
    let grouped = layout.groups() > 1;
    let group_blocks = (layout.group / BLOCK).max(1);
    let shared = tiling.blocks / tiling.planes_k;
    // Few copies a stage.
    let runs = tiling.cube_rows() <= 16;
    let rule = Rule {
        shape: Shape::new(tiling, container, 2, runs, blocks),
        bits: layout.bits,
        zero: weight.zero(),
        grouped,
        half_blocks: grouped && layout.group < BLOCK,
        // The same for every K without groups.
        group_blocks: if grouped { group_blocks } else { 1 << 30 },
        run: if grouped {
            [4, 2]
                .into_iter()
                .find(|run| group_blocks % run == 0 && shared % run == 0)
                .unwrap_or(1)
        } else {
            1
        },
        half_scales: weight.has_scales_of(dtype),
        bias: bias.is_some(),
        dtype,
    };
    let source = if runs {
        SourceArgs::Runs(x.arg_of(16), weight.words.arg_of(16))
    } else {
        SourceArgs::Maps(
            x.map(
                [2 * blocks, rows, 16],
                [16, layout.k / 2, 1],
                [2 * tiling.blocks, tiling.cube_rows(), 16],
            ),
            weight.words.map(
                [tiles, blocks, inner],
                [blocks * inner, inner, 1],
                [tiling.cube_tiles(), tiling.blocks, inner],
            ),
        )
    };
    let [low, low_flip, high, high_flip] = rule.masks();
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    // SAFETY: the kernel holds channels and groups below their number where it reads scales, zero points and the bias, and asks whether
    // row and channel exist before it writes. Copies are of tiles, blocks and rows that exist, or of maps, which are 0 outside their
    // shape. Loops end with the blocks of K.
    unsafe {
        product::launch_unchecked(
            &weight.client,
            Grid::new(
                layout.n.div_ceil(tiling.cube_channels()),
                rows.div_ceil(tiling.cube_rows()),
            )
            .count(),
            CubeDim::new_2d(32, tiling.planes() as u32),
            source,
            weight.scales.arg(),
            weight.zeros.arg(),
            bias.unwrap_or(&y).arg(),
            y.arg(),
            (!runs).then(|| y.arg()),
            SizesLaunch::new(
                rows as u32,
                layout.n as u32,
                blocks as u32,
                weight.origin() as f32,
                f32::NAN.to_bits(),
                0,
                low,
                low_flip,
                high,
                high_flip,
            ),
            rule,
            super::storage(dtype),
        );
    }
    y
}
