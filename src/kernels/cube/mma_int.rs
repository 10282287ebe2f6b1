//! The product of int8 activations with a weight of integer codes through matrix instructions (`m16n8k32`): weights are the first
//! operand, so that a plane multiplies 16 channels by 8 rows.
#![allow(unsafe_code)]

use super::activation::Codes;
use super::buffer::Buffer;
use super::device::opaque;
use super::epilogue::{output, scaled};
use super::fragments::{BLOCK, container};
use super::product_int::is_shifted;
use super::ring::{
    Line, NoShapes, Pair, Place, Shape, Source, SourceArgs, cubes, enter, exchange, leave, place_of, prepare, replace,
    retyped, start, weight_boxes,
};
use super::select::{Tiling, Way};
use super::weight::CubeWeight;
use super::wgmma_int;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

type Four = Vector<i8, Const<4>>;

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Rule {
    pub shape: Shape,
    /// Several scales along K.
    grouped: bool,
    /// A group is half a block: 32 codes.
    half_blocks: bool,
    /// Blocks of a group, 1 for less: a constant, since a division by it is in every step.
    group_blocks: usize,
    /// The zero point of a row may be other than 0.
    shifted: bool,
    /// Sums of a group are the last places of a float.
    in_bits: bool,
    bias: bool,
    pub dtype: FloatDtype,
}

impl Rule {
    /// For outputs of `dtype`; `runs`: see [`Shape`].
    fn new<R: Runtime>(weight: &CubeWeight<R>, tiling: Tiling, runs: bool, dtype: FloatDtype, bias: bool) -> Self {
        let layout = weight.layout;
        let grouped = layout.groups() > 1;
        Self {
            shape: Shape::new(tiling, container(layout.bits), 1, runs, layout.k / BLOCK),
            grouped,
            half_blocks: grouped && layout.group < BLOCK,
            group_blocks: if grouped { (layout.group / BLOCK).max(1) } else { 1 },
            shifted: is_shifted(&weight.activation),
            in_bits: grouped && layout.group <= IN_BITS,
            bias,
            dtype,
        }
    }

    /// What a sum begins at.
    fn start(&self) -> i32 {
        if self.in_bits { 0x4b40_0000 } else { 0 }
    }
}

/// The largest group whose sums of products, 255 · 128 each at most, stay below 2^22.
const IN_BITS: usize = 128;

/// The numbers of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub rows: u32,
    pub n: u32,
    /// Blocks of 64 k.
    pub blocks: u32,
    /// The bits of a NaN.
    nan: u32,
    /// 0.
    zero: u32,
}

/// The first operand of step `q`, of 4 codes a register: 8-bit codes as they are, 4-bit codes times 16.
#[cube]
pub(super) fn channels_of(line: Line, #[comptime] container: usize, #[comptime] q: usize) -> Array<u32> {
    let mut a = Array::<u32>::new(4usize);
    if comptime!(container == 8) {
        #[unroll]
        for r in 0..4usize {
            a[r] = line[r];
        }
    } else {
        #[unroll]
        for half in 0..2usize {
            let word = line[comptime!(2 * q + half)];
            a[comptime!(2 * half)] = (word << 4u32) & 0xf0f0_f0f0u32;
            a[comptime!(2 * half + 1)] = word & 0xf0f0_f0f0u32;
        }
    }
    a
}

/// The sum of a group joins the total: `total + sum · scale`, two roundings.
///
/// `in_bits`: sums begin at the bits of 1.5 · 2^23 as a float, so that they are floats already; a group is so small that they stay in the
/// last places. 4-bit codes count 16 times, which a factor of 1/16 in `scales` takes back exactly.
#[cube]
fn add_group(
    acc: &mut Array<Pair<i32>>,
    total: &mut Array<Pair<f32>>,
    points: &Array<Pair<i32>>,
    scales: &Array<f32>,
    weights: &Array<i32>,
    zero: u32,
    #[comptime] j: usize,
    #[comptime] rule: Rule,
) {
    #[unroll]
    for h in 0..2usize {
        let mut sums = acc[h];
        if comptime!(rule.shifted) {
            sums = sums - points[j] * Pair::<i32>::new(weights[h]);
        }
        let mut next = total[h];
        #[unroll]
        for e in 0..2usize {
            let value = if comptime!(rule.in_bits) {
                f32::reinterpret(sums[e]) - 12_582_912.0f32
            } else {
                f32::cast_from(sums[e])
            };
            next[e] = next[e] + opaque(value * scales[h], zero);
        }
        total[h] = next;
        acc[h] = Pair::<i32>::new(comptime!(rule.start()));
    }
}

/// Parameter `which` (0: the scale, 1: the zero point) of the rows of this lane: 2t and 2t + 1 of each tile of 8.
#[cube]
fn of_rows<T: Numeric>(
    parameters: &Array<f32>,
    place: &Place,
    last_row: usize,
    #[comptime] which: usize,
    #[comptime] rule: Rule,
) -> Array<Pair<T>> {
    let count = comptime!(rule.shape.tiling.rows);
    let mut found = Array::<Pair<T>>::new(count);
    #[unroll]
    for j in 0..count {
        let mut pair = Pair::<T>::new(T::from_int(0));
        #[unroll]
        for e in 0..2usize {
            let row = place.first_row + place.own_row + comptime!(j * 8) + 2 * (place.lane % 4) + e;
            pair[e] = T::cast_from(parameters[min(row, last_row) * 2 + which]);
        }
        found[j] = pair;
    }
    found
}

#[cube(launch_unchecked)]
fn product<F: Float>(
    source: &Source,
    parameters: &Array<f32>,
    scales: &Array<f32>,
    sums: &Array<i32>,
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
    let first_tile = place.first_tile;
    let (own_tile, plane_k) = (place.own_tile, place.plane_k);
    let rounds = place.steps.div_ceil(stages);
    let def = cmma::MmaDefinition::<i8, i8, i32>::new(16usize, 8usize, 32usize);
    let mt = comptime!(tiling.rows);
    let rt = comptime!(tiling.tiles);
    let g = place.lane / 4;
    let mut acc = Sequence::<Array<Pair<i32>>>::new();
    let mut total = Sequence::<Array<Pair<f32>>>::new();
    #[unroll]
    for _ in 0..comptime!(rt * mt) {
        let mut zeros = Array::<Pair<i32>>::new(2usize);
        zeros[0] = Pair::<i32>::new(comptime!(rule.start()));
        zeros[1] = Pair::<i32>::new(comptime!(rule.start()));
        acc.push(zeros);
        if comptime!(rule.grouped) {
            let mut zeros = Array::<Pair<f32>>::new(2usize);
            zeros[0] = Pair::<f32>::new(0.0f32);
            zeros[1] = Pair::<f32>::new(0.0f32);
            total.push(zeros);
        }
    }
    let last_row = sizes.rows as usize - 1;
    // Zero points are needed at the end of each group, where there are groups; else at the end only, so that they take no registers before.
    let mut token_points = Array::<Pair<i32>>::new(mt);
    if comptime!(rule.grouped && rule.shifted) {
        replace::<Pair<i32>>(
            &mut token_points,
            &of_rows::<i32>(parameters, &place, last_row, 1usize, rule),
            mt,
        );
    }

    for round in 0..rounds {
        #[unroll]
        for s in 0..stages {
            let step = round * stages + s;
            if comptime!(shape.even).runtime() || step < place.steps {
                let first = step * in_stage;
                enter(&mut ring, source, &place, round, s, shape);
                #[unroll]
                for b in 0..share {
                    let block = first + b + plane_k * share;
                    if comptime!(shape.whole).runtime() || block < place.blocks {
                        let mut rows = Array::<Line>::new(mt);
                        #[unroll]
                        for j in 0..mt {
                            rows[j] = ring.x[place.own_x + comptime!(s * x_stage + b * piece + j * 8 * row)];
                        }
                        #[unroll]
                        for q in 0..2usize {
                            #[unroll]
                            for i in 0..rt {
                                let step = comptime!(if rule.shape.container == 8 { q * 32 } else { 0 });
                                let line =
                                    ring.w[place.own_w + comptime!(s * w_stage + (i * in_stage + b) * lines + step)];
                                let a = channels_of(line, rule.shape.container, q);
                                #[unroll]
                                for j in 0..mt {
                                    let mut b = Array::<u32>::new(2usize);
                                    b[0] = rows[j][comptime!(2 * q)];
                                    b[1] = rows[j][comptime!(2 * q + 1)];
                                    let into = acc.index_mut(comptime!(i * mt + j));
                                    def.execute_inplace(&retyped::<u32, Four>(&a), &retyped::<u32, Four>(&b), into);
                                }
                            }
                            if comptime!(rule.grouped && (rule.half_blocks || q == 1)) {
                                let mut group = block * 2 + q;
                                let mut ends = true.runtime();
                                if comptime!(!rule.half_blocks) {
                                    group = block / rule.group_blocks;
                                    ends = (block + 1) % rule.group_blocks == 0 || block + 1 == place.blocks;
                                }
                                if ends {
                                    #[unroll]
                                    for i in 0..rt {
                                        let mut scale = Array::<f32>::new(2usize);
                                        let mut weights = Array::<i32>::new(2usize);
                                        #[unroll]
                                        for h in 0..2usize {
                                            let channel = (first_tile + own_tile + i) * 16 + comptime!(h * 8) + g;
                                            let channel = min(channel, n - 1);
                                            scale[h] = scales[group * n + channel];
                                            if comptime!(rule.shape.container == 4) {
                                                scale[h] = scale[h] * 0.0625f32;
                                            }
                                            if comptime!(rule.shifted) {
                                                weights[h] = sums[group * n + channel];
                                                if comptime!(rule.shape.container == 4) {
                                                    weights[h] = weights[h] << 4i32;
                                                }
                                            }
                                        }
                                        #[unroll]
                                        for j in 0..mt {
                                            add_group(
                                                acc.index_mut(comptime!(i * mt + j)),
                                                total.index_mut(comptime!(i * mt + j)),
                                                &token_points,
                                                &scale,
                                                &weights,
                                                sizes.zero,
                                                j,
                                                rule,
                                            );
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

    finish::<F>(&acc, &total, &place, parameters, scales, sums, bias, y, &sizes, rule);
}

/// Writes the outputs of `acc`, or of `total` where there are groups; planes that share K add theirs.
#[cube]
fn finish<F: Float>(
    acc: &Sequence<Array<Pair<i32>>>,
    total: &Sequence<Array<Pair<f32>>>,
    place: &Place,
    parameters: &Array<f32>,
    scales: &Array<f32>,
    sums: &Array<i32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) {
    let tiling = comptime!(rule.shape.tiling);
    let (n, last_row) = (sizes.n as usize, sizes.rows as usize - 1);
    let (first_tile, first_row) = (place.first_tile, place.first_row);
    let (own_tile, own_row) = (place.own_tile, place.own_row);
    let (rt, mt) = comptime!((tiling.tiles, tiling.rows));
    let (g, t) = (place.lane / 4, place.lane % 4);
    if comptime!(tiling.planes_k > 1) {
        // Integers add up in any order.
        let (channels, cube_rows) = comptime!((tiling.cube_channels(), tiling.cube_rows()));
        let shared = exchange(acc, place, tiling);
        // A unit has a channel of its own, and every few rows of it.
        let units = comptime!(tiling.planes() * 32);
        let (own, step) = (UNIT_POS as usize, comptime!(units / channels));
        let channel = first_tile * 16 + own % channels;
        let of = channel_of::<F>(min(channel, n - 1), scales, sums, bias, rule);
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
                let at = comptime!((first * batch + i).min(count - 1));
                let row = min(first_row + at * step + own / channels, last_row);
                let mut sum = shared[comptime!(at * units) + own];
                #[unroll]
                for k in 1..comptime!(tiling.planes_k) {
                    sum += shared[comptime!(k * channels * cube_rows + at * units) + own];
                }
                let token = parameters[row * 2];
                let point = i32::cast_from(parameters[row * 2 + 1]);
                let value = value_of::<F>(sum, token, point, &of, sizes.zero, rule);
                values[i] = output::<F>(
                    value, of.bias, token, sizes.nan, sizes.zero, rule.bias, rule.dtype, true,
                );
            }
            #[unroll]
            for i in 0..batch {
                let at = comptime!(first * batch + i);
                let row = first_row + at * step + own / channels;
                if comptime!(at < count).runtime() && has_rows && channel < n && row <= last_row {
                    y[row * n + channel] = values[i];
                }
            }
        }
    } else {
        let rows = token_parameters(parameters, place, sizes, rule);
        #[unroll]
        for i in 0..rt {
            #[unroll]
            for h in 0..2usize {
                let channel = (first_tile + own_tile + i) * 16 + comptime!(h * 8) + g;
                // All values before any is stored: stores ask whether the row exists, and no value waits for that.
                let values = outputs_of::<F>(acc, total, &rows, place, scales, sums, bias, sizes, i, h, rule);
                #[unroll]
                for at in 0..comptime!(2 * mt) {
                    let row = first_row + own_row + comptime!(at / 2 * 8 + at % 2) + 2 * t;
                    if channel < n && row <= last_row {
                        y[row * n + channel] = values[at];
                    }
                }
            }
        }
    }
}

/// Scales and zero points of the rows of this lane.
#[derive(CubeType)]
pub(super) struct TokenParameters {
    scales: Array<Pair<f32>>,
    points: Array<Pair<i32>>,
}

#[cube]
pub(super) fn token_parameters(
    parameters: &Array<f32>,
    place: &Place,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) -> TokenParameters {
    let last_row = sizes.rows as usize - 1;
    TokenParameters {
        scales: of_rows::<f32>(parameters, place, last_row, 0usize, rule),
        points: of_rows::<i32>(parameters, place, last_row, 1usize, rule),
    }
}

/// The outputs of channel g (`h` = 0) or g + 8 of the plane's `i`-th tile: of rows 2t and 2t + 1 of each tile of 8.
#[cube]
pub(super) fn outputs_of<F: Float>(
    acc: &Sequence<Array<Pair<i32>>>,
    total: &Sequence<Array<Pair<f32>>>,
    rows: &TokenParameters,
    place: &Place,
    scales: &Array<f32>,
    sums: &Array<i32>,
    bias: &Array<F>,
    sizes: &Sizes,
    #[comptime] i: usize,
    #[comptime] h: usize,
    #[comptime] rule: Rule,
) -> Array<F> {
    let mt = comptime!(rule.shape.tiling.rows);
    let channel = (place.first_tile + place.own_tile + i) * 16 + comptime!(h * 8) + place.lane / 4;
    let of = channel_of::<F>(min(channel, sizes.n as usize - 1), scales, sums, bias, rule);
    let mut values = Array::<F>::new(comptime!(2 * mt));
    #[unroll]
    for j in 0..mt {
        #[unroll]
        for e in 0..2usize {
            let token = rows.scales[j][e];
            let value = if comptime!(rule.grouped) {
                total.index(comptime!(i * mt + j))[h][e] * token
            } else {
                let sum = acc.index(comptime!(i * mt + j))[h][e];
                value_of::<F>(sum, token, rows.points[j][e], &of, sizes.zero, rule)
            };
            values[comptime!(2 * j + e)] = output::<F>(
                value, of.bias, token, sizes.nan, sizes.zero, rule.bias, rule.dtype, true,
            );
        }
    }
    values
}

/// Outputs that a unit computes before it stores them, where planes share K.
const BATCH: usize = 8;

/// What the outputs of a channel need.
#[derive(CubeType)]
struct Channel {
    scale: f32,
    /// The sum of its codes.
    weights: i32,
    bias: f32,
}

#[cube]
fn channel_of<F: Float>(
    channel: usize,
    scales: &Array<f32>,
    sums: &Array<i32>,
    bias: &Array<F>,
    #[comptime] rule: Rule,
) -> Channel {
    let mut scale = 1.0f32;
    let mut weights = 0i32;
    if comptime!(!rule.grouped) {
        scale = scales[channel];
        if comptime!(rule.shifted) {
            weights = sums[channel];
        }
    }
    let mut shift = 0.0f32;
    if comptime!(rule.bias) {
        shift = f32::cast_from(bias[channel]);
    }
    Channel {
        scale,
        weights,
        bias: shift,
    }
}

/// The value of the sum of a channel without groups.
#[cube]
fn value_of<F: Float>(
    sum: i32,
    token_scale: f32,
    token_point: i32,
    channel: &Channel,
    zero: u32,
    #[comptime] rule: Rule,
) -> f32 {
    let mut sum = sum;
    if comptime!(rule.shape.container == 4) {
        sum = sum >> 4i32;
    }
    scaled::<F>(
        sum,
        token_scale,
        f32::cast_from(token_point),
        channel.weights,
        channel.scale,
        zero,
        rule.shifted,
        rule.dtype,
        true,
    )
}

/// `y [rows, N]` of activations as codes in blocks; `rows` is at least 1.
pub(super) fn int_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Codes,
    rows: usize,
    tiling: Tiling,
    dtype: FloatDtype,
    bias: Option<&Buffer>,
) -> Buffer {
    let layout = weight.layout;
    let blocks = layout.k / BLOCK;
    // Few copies a stage.
    let runs = rows <= 64;
    let rule = Rule::new(weight, tiling, runs, dtype, bias.is_some());
    if tiling.way == Way::Warpgroups {
        return wgmma_int::int_product(weight, x, rows, rule, bias);
    }
    let source = if runs {
        SourceArgs::Runs(x.codes.arg_of(16), weight.words.arg_of(16))
    } else {
        SourceArgs::Maps(
            x.codes.map(
                [blocks, rows, 16],
                [rows * 16, 16, 1],
                [tiling.blocks, tiling.cube_rows(), 16],
                TensorMapSwizzle::None,
            ),
            weight_boxes(weight, tiling),
        )
    };
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    // SAFETY: the kernel holds rows, channels and groups below their number where it reads parameters, scales and sums, and asks whether
    // row and channel exist before it writes. Copies are of tiles, blocks and rows that exist, or of maps, which are 0 outside their
    // shape. Loops end with the blocks of K.
    unsafe {
        product::launch_unchecked(
            &weight.client,
            cubes(weight, tiling, rows),
            CubeDim::new_2d(32, tiling.planes() as u32),
            source,
            x.parameters.arg(),
            weight.scales.arg(),
            weight.zeros.arg(),
            bias.unwrap_or(&y).arg(),
            y.arg(),
            (!runs).then(|| y.arg()),
            numbers(weight, rows),
            rule,
            super::storage(dtype),
        );
    }
    y
}

/// The numbers of a product of `rows` rows.
pub(super) fn numbers<R: Runtime>(weight: &CubeWeight<R>, rows: usize) -> SizesLaunch<R> {
    let (n, blocks) = (weight.layout.n as u32, (weight.layout.k / BLOCK) as u32);
    SizesLaunch::new(rows as u32, n, blocks, f32::NAN.to_bits(), 0)
}
