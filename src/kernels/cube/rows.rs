//! What else a packed weight does on any device: rows of it, and the product with its transpose.

use super::buffer::Buffer;
use super::device::{CHUNK_VECTORS, Chunks, Packing, V4, decode, opaque, position, round_to, zero_point_at};
use super::grid::Grid;
use super::product_float::{Sizes, Zero, float_values};
use super::weight::CubeWeight;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

/// Units of a cube.
const UNITS: usize = 64;
/// Rows of a cube of the transposed product.
const ROWS: usize = 4;

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rule {
    packing: Packing,
    zero: Zero,
    dtype: FloatDtype,
}

/// The values, in `dtype`, of four codes less their integer zero point or middle code.
#[cube]
fn values(
    steps: V4<f32>,
    block: usize,
    scales: &Array<f32>,
    zeros: &Array<u32>,
    zero: u32,
    #[comptime] rule: Rule,
) -> V4<f32> {
    let scale = scales[block];
    if comptime!(rule.zero == Zero::Float) {
        float_values(steps, scale, f32::reinterpret(zeros[block]), zero, rule.dtype)
    } else {
        let mut values = V4::<f32>::empty();
        #[unroll]
        for i in 0..4usize {
            values[i] = round_to(steps[i] * scale, zero, rule.dtype);
        }
        values
    }
}

/// The integer that is subtracted from the codes of a block.
#[cube]
fn origin(block: usize, zeros: &Array<u32>, sizes: &Sizes, #[comptime] rule: Rule) -> i32 {
    let mut origin = sizes.zero_point;
    if comptime!(rule.zero == Zero::Blocks) {
        origin = zero_point_at(zeros, block, rule.packing);
    }
    origin
}

/// A unit writes one chunk of one row.
#[cube(launch)]
fn gather_rows<F: Float, I: Int>(
    indices: &Array<I>,
    words: &Array<u32>,
    scales: &Array<f32>,
    zeros: &Array<u32>,
    y: &mut Array<F>,
    chunks: Chunks,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y;
    let chunk = CUBE_POS_X * comptime!(UNITS as u32) + UNIT_POS_X;
    if row >= sizes.rows || chunk >= chunks.count {
        terminate!();
    }
    let index = i32::cast_from(indices[row as usize]);
    let exists = index >= 0i32 && u32::cast_from(index) < sizes.n;
    let channel = select(exists, u32::cast_from(index), 0u32.runtime());
    let block = (chunk / chunks.per_group * sizes.n + channel) as usize;
    let origin = origin(block, zeros, &sizes, rule);
    let codes = decode(words, chunk, channel, sizes.n, &chunks, rule.packing);
    #[unroll]
    for q in 0..CHUNK_VECTORS {
        let steps = V4::<f32>::cast_from(codes[q] - V4::<i32>::new(origin));
        let values = values(steps, block, scales, zeros, sizes.zero, rule);
        #[unroll]
        for i in 0..4usize {
            let at = position(&chunks, chunk, comptime!((q * 4 + i) as u32));
            if at < chunks.k {
                let value = select(exists, values[i], f32::reinterpret(sizes.nan));
                y[(row * chunks.k + at) as usize] = F::cast_from(value);
            }
        }
    }
}

/// A cube makes one chunk of [`ROWS`] rows: units walk over the channels, then add up.
#[cube(launch)]
fn transposed_product<F: Float>(
    g: &Array<F>,
    words: &Array<u32>,
    scales: &Array<f32>,
    zeros: &Array<u32>,
    y: &mut Array<F>,
    chunks: Chunks,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[comptime] dtype: FloatDtype,
    #[define(F)] _dtype: StorageType,
) {
    let unit = UNIT_POS_X;
    let first_row = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) * comptime!(ROWS as u32);
    let chunk = CUBE_POS_X;
    if first_row >= sizes.rows {
        terminate!();
    }
    let mut acc = Array::<V4<f32>>::new(comptime!(ROWS * CHUNK_VECTORS));
    #[unroll]
    for i in 0..comptime!(ROWS * CHUNK_VECTORS) {
        acc[i] = V4::<f32>::new(0.0f32);
    }
    let group = chunk / chunks.per_group;
    let mut channel = unit;
    while channel < sizes.n {
        let block = (group * sizes.n + channel) as usize;
        let origin = origin(block, zeros, &sizes, rule);
        let codes = decode(words, chunk, channel, sizes.n, &chunks, rule.packing);
        let mut gradients = Array::<f32>::new(ROWS);
        #[unroll]
        for r in 0..ROWS {
            let row = first_row + comptime!(r as u32);
            let inside = row < sizes.rows;
            let value = f32::cast_from(g[select(inside, row * sizes.n + channel, 0u32.runtime()) as usize]);
            gradients[r] = select(inside, value, 0.0f32.runtime());
        }
        #[unroll]
        for q in 0..CHUNK_VECTORS {
            let steps = V4::<f32>::cast_from(codes[q] - V4::<i32>::new(origin));
            let values = values(steps, block, scales, zeros, sizes.zero, rule);
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * CHUNK_VECTORS + q);
                acc[at] = acc[at] + V4::<f32>::new(gradients[r]) * values;
            }
        }
        channel += comptime!(UNITS as u32);
    }

    let mut shared = SharedMemory::<V4<f32>>::new(comptime!(UNITS * CHUNK_VECTORS));
    #[unroll]
    for r in 0..ROWS {
        #[unroll]
        for q in 0..CHUNK_VECTORS {
            shared[unit as usize * CHUNK_VECTORS + q] = acc[comptime!(r * CHUNK_VECTORS + q)];
        }
        sync_cube();
        let row = first_row + comptime!(r as u32);
        if unit < 32u32 {
            let mut sum = 0.0f32;
            for from in 0..UNITS {
                sum += shared[from * CHUNK_VECTORS + (unit / 4u32) as usize][(unit % 4u32) as usize];
            }
            let at = position(&chunks, chunk, unit);
            if at < chunks.k && row < sizes.rows {
                let value = round_to(opaque(sum, sizes.zero), sizes.zero, dtype);
                y[(row * chunks.k + at) as usize] = F::cast_from(value);
            }
        }
        sync_cube();
    }
}

/// `y [count, K]` of dtype `dtype`: the dequantized rows `indices [count]`, at least one. A row that does not exist is NaN.
pub(super) fn gather<R: Runtime>(
    weight: &CubeWeight<R>,
    indices: &Buffer,
    index_type: StorageType,
    dtype: FloatDtype,
) -> Buffer {
    let (layout, count) = (weight.layout, indices.len());
    let y = Buffer::empty(&weight.client, count * layout.k, dtype.size());
    gather_rows::launch(
        &weight.client,
        Grid::new(layout.chunks().div_ceil(UNITS), count).count(),
        CubeDim::new_1d(UNITS as u32),
        indices.arg(),
        weight.words.arg(),
        weight.scales.arg(),
        weight.zeros.arg(),
        y.arg(),
        weight.chunks().launch(),
        weight.sizes(count),
        Rule {
            packing: weight.packing(),
            zero: weight.zero(),
            dtype,
        },
        [super::storage(dtype), index_type],
    );
    y
}

/// `y [rows, K] = g [rows, N] · W` with values and sums in f32, rounded to `dtype`; `rows`, N and K are at least 1.
pub(super) fn linear_transposed<R: Runtime>(
    weight: &CubeWeight<R>,
    g: &Buffer,
    rows: usize,
    dtype: FloatDtype,
) -> Buffer {
    let layout = weight.layout;
    let y = Buffer::empty(&weight.client, rows * layout.k, dtype.size());
    transposed_product::launch(
        &weight.client,
        Grid::new(layout.chunks(), rows.div_ceil(ROWS)).count(),
        CubeDim::new_1d(UNITS as u32),
        g.arg(),
        weight.words.arg(),
        weight.scales.arg(),
        weight.zeros.arg(),
        y.arg(),
        weight.chunks().launch(),
        weight.sizes(rows),
        Rule {
            packing: weight.packing(),
            zero: weight.zero(),
            dtype: FloatDtype::F32,
        },
        dtype,
        super::storage(dtype),
    );
    y
}
