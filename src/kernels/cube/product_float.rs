//! The product of float activations with a weight of codes, on any device: f32 arithmetic, no plane operations, no matrix instructions.
//! A unit owns a channel and up to [`ROWS`] rows; the cube shares the rows' values.

use super::buffer::Buffer;
use super::device::{
    CHUNK_VECTORS, Chunks, Packing, V4, decode, is_not_finite, opaque, position, round_to, sum_f32, zero_point_at,
};
use super::grid::Grid;
use super::product_int::{CHANNELS, ROWS, TILE};
use super::weight::CubeWeight;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

/// What a weight's zero points are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Zero {
    /// One integer for all blocks.
    Same,
    /// An integer for each block.
    Blocks,
    /// The value of the middle code, for each block.
    Float,
}

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rule {
    packing: Packing,
    rows: usize,
    /// Several scales along K.
    grouped: bool,
    zero: Zero,
    bias: bool,
    dtype: FloatDtype,
}

/// The numbers of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub rows: u32,
    pub n: u32,
    /// The zero point of every block, or the middle code, counted from the smallest code.
    pub zero_point: i32,
    /// The bits of a NaN.
    pub nan: u32,
    /// 0.
    pub zero: u32,
}

#[cube(launch)]
fn product<F: Float>(
    x: &Array<F>,
    words: &Array<u32>,
    scales: &Array<f32>,
    zeros: &Array<u32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    chunks: Chunks,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let unit = UNIT_POS_X;
    let first_row = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) * comptime!(rule.rows as u32);
    if first_row >= sizes.rows {
        terminate!();
    }
    let channel = CUBE_POS_X * comptime!(CHANNELS as u32) + unit;
    let column = min(channel, sizes.n - 1u32);
    let zero = sizes.zero;

    let mut shared = SharedMemory::<V4<f32>>::new(comptime!(rule.rows * CHANNELS));
    let mut bad = SharedMemory::<u32>::new(comptime!(rule.rows));
    let mut acc = Array::<V4<f32>>::new(rule.rows);
    let mut total = Array::<f32>::new(rule.rows);
    #[unroll]
    for r in 0..rule.rows {
        acc[r] = V4::<f32>::new(0.0f32);
        total[r] = 0.0f32;
        if unit == 0u32 {
            bad[r] = 0u32;
        }
    }
    sync_cube();

    let tiles = chunks.count.div_ceil(comptime!(TILE as u32));
    for tile in 0..tiles {
        let chunk = tile * comptime!(TILE as u32) + unit / 8u32;
        #[unroll]
        for r in 0..rule.rows {
            let row = first_row + comptime!(r as u32);
            let mut values = V4::<f32>::empty();
            #[unroll]
            for i in 0..4usize {
                let at = position(&chunks, chunk, (unit % 8u32) * 4u32 + comptime!(i as u32));
                let inside = at < chunks.k && row < sizes.rows;
                let value = f32::cast_from(x[select(inside, row * chunks.k + at, 0u32.runtime()) as usize]);
                let value = select(inside, value, 0.0f32.runtime());
                // Units that meet a bad value all write the same 1.
                if is_not_finite(value) {
                    bad[r] = 1u32;
                }
                values[i] = value;
            }
            shared[comptime!(r * CHANNELS) + unit as usize] = values;
        }
        sync_cube();

        let first = tile * comptime!(TILE as u32);
        let last = min(first + comptime!(TILE as u32), chunks.count);
        for chunk in first..last {
            let group = chunk / chunks.per_group;
            let block = (group * sizes.n + column) as usize;
            let mut zero_point = sizes.zero_point;
            if comptime!(rule.zero == Zero::Blocks) {
                zero_point = zero_point_at(zeros, block, rule.packing);
            }
            let codes = decode(words, chunk, column, sizes.n, &chunks, rule.packing);
            let at = ((chunk - first) * 8u32) as usize;
            #[unroll]
            for q in 0..CHUNK_VECTORS {
                let mut values = V4::<f32>::cast_from(codes[q] - V4::<i32>::new(zero_point));
                if comptime!(rule.zero == Zero::Float) {
                    let middle = f32::reinterpret(zeros[block]);
                    values = float_values(values, scales[block], middle, zero, rule.dtype);
                }
                #[unroll]
                for r in 0..rule.rows {
                    acc[r] = acc[r] + shared[comptime!(r * CHANNELS + q) + at] * values;
                }
            }
            if comptime!(rule.grouped && rule.zero != Zero::Float) {
                let next = chunk + 1u32;
                if next % chunks.per_group == 0u32 || next == chunks.count {
                    let scale = scales[block];
                    #[unroll]
                    for r in 0..rule.rows {
                        total[r] = total[r] + sum_f32(acc[r]) * scale;
                        acc[r] = V4::<f32>::new(0.0f32);
                    }
                }
            }
        }
        sync_cube();
    }

    if channel < sizes.n {
        #[unroll]
        for r in 0..rule.rows {
            let row = first_row + comptime!(r as u32);
            if row < sizes.rows {
                let mut value = total[r];
                if comptime!(rule.zero == Zero::Float) {
                    value = sum_f32(acc[r]);
                } else if comptime!(!rule.grouped) {
                    let sum = round_to(sum_f32(acc[r]), zero, rule.dtype);
                    let scale = round_to(scales[channel as usize], zero, rule.dtype);
                    value = opaque(round_to(sum * scale, zero, rule.dtype), zero);
                }
                if comptime!(rule.bias) {
                    value = value + f32::cast_from(bias[channel as usize]);
                }
                let value = round_to(value, zero, rule.dtype);
                let value = select(bad[r] == 0u32, value, f32::reinterpret(sizes.nan));
                y[(row * sizes.n + channel) as usize] = F::cast_from(value);
            }
        }
    }
}

/// `T(T(steps · scale) + middle)`: values of codes under a float zero point.
#[cube]
pub(super) fn float_values(
    steps: V4<f32>,
    scale: f32,
    middle: f32,
    zero: u32,
    #[comptime] dtype: FloatDtype,
) -> V4<f32> {
    let mut values = V4::<f32>::empty();
    #[unroll]
    for i in 0..4usize {
        let product = opaque(round_to(steps[i] * scale, zero, dtype), zero);
        values[i] = round_to(product + middle, zero, dtype);
    }
    values
}

/// `y [rows, N]` of float activations `x [rows, K]` of dtype `dtype`; `rows` and K are at least 1.
pub(super) fn float_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    dtype: FloatDtype,
    bias: Option<&Buffer>,
) -> Buffer {
    let layout = weight.layout;
    let rule = Rule {
        packing: weight.packing(),
        rows: if rows == 1 { 1 } else { ROWS },
        grouped: layout.groups() > 1,
        zero: weight.zero(),
        bias: bias.is_some(),
        dtype,
    };
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    product::launch(
        &weight.client,
        Grid::new(layout.n.div_ceil(CHANNELS), rows.div_ceil(rule.rows)).count(),
        CubeDim::new_1d(CHANNELS as u32),
        x.arg(),
        weight.words.arg(),
        weight.scales.arg(),
        weight.zeros.arg(),
        bias.unwrap_or(x).arg(),
        y.arg(),
        weight.chunks().launch(),
        weight.sizes(rows),
        rule,
        super::storage(dtype),
    );
    y
}
