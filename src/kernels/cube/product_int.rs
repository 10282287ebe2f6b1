//! The product of int8 activations with a weight of integer codes, on any device: 32-bit integers, no plane operations, no matrix
//! instructions. A unit owns a channel and up to [`ROWS`] rows; the cube shares the rows' codes.

use super::activation::Codes;
use super::buffer::Buffer;
use super::device::{CHUNK_VECTORS, Chunks, Packing, V4, decode, opaque, sum_i32};
use super::epilogue::{output, scaled};
use super::grid::Grid;
use super::weight::CubeWeight;
use crate::dtype::FloatDtype;
use crate::spec::ActivationQuantization;
use cubecl::prelude::*;

/// Channels of a cube, one a unit.
pub(super) const CHANNELS: usize = 64;
/// Chunks that a cube shares at a time: one vector of four codes for each unit and row.
pub(super) const TILE: usize = 4 * CHANNELS / super::layout::CHUNK;
/// Rows of a cube, where there are several.
pub(super) const ROWS: usize = 8;

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rule {
    packing: Packing,
    rows: usize,
    /// Several scales along K.
    grouped: bool,
    /// The weight has a zero point for each block, not one for all.
    zero_points: bool,
    /// Activation codes are int8, not uint8.
    signed: bool,
    /// Zero points of the activation are subtracted from the codes, not from the sum.
    centered: bool,
    /// The zero point of a row may be other than 0.
    shifted: bool,
    bias: bool,
    dtype: FloatDtype,
}

/// The numbers of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Sizes {
    rows: u32,
    n: u32,
    /// The zero point of every block, counted from the smallest code.
    zero_point: i32,
    /// Where the sums of the channels begin, after the zero points.
    sums: u32,
    /// The bits of a NaN.
    nan: u32,
    /// 0.
    zero: u32,
}

#[cube(launch)]
fn product<F: Float>(
    x: &Array<u32>,
    parameters: &Array<f32>,
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
    let words_of_row = chunks.count * 8u32;

    let mut shared = SharedMemory::<V4<i32>>::new(comptime!(rule.rows * CHANNELS));
    let mut acc = Array::<V4<i32>>::new(rule.rows);
    let mut total = Array::<f32>::new(rule.rows);
    #[unroll]
    for r in 0..rule.rows {
        acc[r] = V4::<i32>::new(0i32);
        total[r] = 0.0f32;
    }

    let tiles = chunks.count.div_ceil(comptime!(TILE as u32));
    for tile in 0..tiles {
        let chunk = tile * comptime!(TILE as u32) + unit / 8u32;
        #[unroll]
        for r in 0..rule.rows {
            let row = first_row + comptime!(r as u32);
            let inside = chunk < chunks.count && row < sizes.rows;
            let word = x[select(inside, row * words_of_row + chunk * 8u32 + unit % 8u32, 0u32.runtime()) as usize];
            let word = select(inside, word, 0u32.runtime());
            let mut codes = V4::<i32>::empty();
            let mut shift = 0i32;
            if comptime!(rule.centered) {
                let safe = min(row, sizes.rows - 1u32);
                shift = i32::cast_from(parameters[(safe * 2u32 + 1u32) as usize]);
            }
            #[unroll]
            for i in 0..4usize {
                let byte = (word >> comptime!(8 * i as u32)) & 0xffu32;
                if comptime!(rule.signed) {
                    codes[i] = i32::cast_from(byte ^ 0x80u32) - 128i32 - shift;
                } else {
                    codes[i] = i32::cast_from(byte) - shift;
                }
            }
            shared[comptime!(r * CHANNELS) + unit as usize] = codes;
        }
        sync_cube();

        let first = tile * comptime!(TILE as u32);
        let last = min(first + comptime!(TILE as u32), chunks.count);
        for chunk in first..last {
            let group = chunk / chunks.per_group;
            let mut zero_point = sizes.zero_point;
            if comptime!(rule.zero_points) {
                zero_point = i32::reinterpret(zeros[(group * sizes.n + column) as usize]);
            }
            let codes = decode(words, chunk, column, sizes.n, &chunks, rule.packing);
            let at = ((chunk - first) * 8u32) as usize;
            #[unroll]
            for q in 0..CHUNK_VECTORS {
                let centered = codes[q] - V4::<i32>::new(zero_point);
                #[unroll]
                for r in 0..rule.rows {
                    acc[r] = acc[r] + shared[comptime!(r * CHANNELS + q) + at] * centered;
                }
            }
            if comptime!(rule.grouped) {
                let next = chunk + 1u32;
                if next % chunks.per_group == 0u32 || next == chunks.count {
                    let scale = scales[(group * sizes.n + column) as usize];
                    #[unroll]
                    for r in 0..rule.rows {
                        let sum = f32::cast_from(sum_i32(acc[r]));
                        total[r] = opaque(total[r] + opaque(sum * scale, zero), zero);
                        acc[r] = V4::<i32>::new(0i32);
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
                let scale = parameters[(row * 2u32) as usize];
                let mut value = total[r] * scale;
                if comptime!(!rule.grouped) {
                    let mut point = 0.0f32;
                    let mut weights = 0i32;
                    if comptime!(rule.shifted && !rule.centered) {
                        point = parameters[(row * 2u32 + 1u32) as usize];
                        weights = i32::reinterpret(zeros[(sizes.sums + channel) as usize]);
                    }
                    value = scaled::<F>(
                        sum_i32(acc[r]),
                        scale,
                        point,
                        weights,
                        scales[channel as usize],
                        zero,
                        rule.shifted && !rule.centered,
                        rule.dtype,
                        false,
                    );
                }
                let mut shift = 0.0f32;
                if comptime!(rule.bias) {
                    shift = f32::cast_from(bias[channel as usize]);
                }
                y[(row * sizes.n + channel) as usize] =
                    output::<F>(value, shift, scale, sizes.nan, zero, rule.bias, rule.dtype, false);
            }
        }
    }
}

/// `y [rows, N]` of activations as codes; `rows` is at least 1.
pub(super) fn int_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Codes,
    rows: usize,
    dtype: FloatDtype,
    bias: Option<&Buffer>,
) -> Buffer {
    let layout = weight.layout;
    let grouped = layout.groups() > 1;
    let activation = &weight.activation;
    let rule = Rule {
        packing: weight.packing(),
        rows: if rows == 1 { 1 } else { ROWS },
        grouped,
        zero_points: weight.zero_point.is_none(),
        signed: activation.is_signed(),
        centered: weight.is_centered(),
        shifted: is_shifted(activation),
        bias: bias.is_some(),
        dtype,
    };
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    product::launch(
        &weight.client,
        Grid::new(layout.n.div_ceil(CHANNELS), rows.div_ceil(rule.rows)).count(),
        CubeDim::new_1d(CHANNELS as u32),
        x.codes.arg(),
        x.parameters.arg(),
        weight.words.arg(),
        weight.scales.arg(),
        weight.zeros.arg(),
        bias.unwrap_or(&y).arg(),
        y.arg(),
        weight.chunks().launch(),
        SizesLaunch::new(
            rows as u32,
            layout.n as u32,
            weight.zero_point.unwrap_or(0),
            weight.sums as u32,
            f32::NAN.to_bits(),
            0,
        ),
        rule,
        super::storage(dtype),
    );
    y
}

/// Whether a row's zero point may be other than 0.
pub(super) fn is_shifted(activation: &ActivationQuantization) -> bool {
    use crate::spec::MappingType;
    match activation {
        ActivationQuantization::None => false,
        ActivationQuantization::Static { zero_point, .. } => *zero_point != 0,
        ActivationQuantization::Dynamic {
            mapping,
            quant_min,
            quant_max,
            ..
        } => *mapping == MappingType::Asymmetric || (quant_min + quant_max + 1) / 2 != 0,
    }
}
