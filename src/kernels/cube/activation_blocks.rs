//! Activations to int8 in the order of matrix instructions, where planes can reduce: one pass, a cube keeps its row in registers.
//!
//! The formulas are those of [`activation`](super::activation); a device that runs this rounds conversions to nearest even.

use super::activation::{Codes, Numbers, Order, Rule, Source, choose, rule, steps_of};
use super::buffer::Buffer;
use super::device::is_not_finite;
use super::division::{divide, is_native};
use super::epilogue::rounded;
use super::grid::Grid;
use super::weight::CubeWeight;
use crate::dtype::FloatDtype;
use crate::spec::MappingType;
use cubecl::prelude::*;

/// Values of a vector: those of one lane in half a block.
const WIDTH: usize = 8;
/// Vectors that a unit may keep.
const KEPT: usize = 8;

type Eight<F> = Vector<F, Const<8>>;
type Two = Vector<u32, Const<2>>;

/// 1.5 · 2^23: a sum with it is rounded to an integer, ties to even, in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// How a cube covers a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Cover {
    planes: usize,
    /// Vectors of a unit.
    vectors: usize,
}

/// The cover of rows of `k` values; `None` where a cube cannot keep one.
fn cover(k: usize) -> Option<Cover> {
    let vectors = k / WIDTH;
    let planes = vectors.div_ceil(32 * 4).clamp(1, 16).next_power_of_two();
    let vectors = vectors.div_ceil(32 * planes);
    (vectors <= KEPT).then_some(Cover { planes, vectors })
}

/// The largest value of the cube's units, which all get it.
#[cube]
fn cube_max(value: f32, scratch: &mut SharedMemory<f32>, #[comptime] at: usize, #[comptime] planes: usize) -> f32 {
    let mut result = plane_max(value);
    if comptime!(planes > 1) {
        if UNIT_POS_X == 0u32 {
            scratch[at + UNIT_POS_Y as usize] = result;
        }
        sync_cube();
        result = scratch[at];
        #[unroll]
        for plane in 1..planes {
            result = max(result, scratch[at + plane]);
        }
    }
    result
}

#[cube(launch)]
fn quantize_kept<F: Float>(
    x: &Array<Eight<F>>,
    codes: &mut Array<Two>,
    parameters: &mut Array<f32>,
    rows: u32,
    vectors: u32,
    numbers: Numbers,
    #[comptime] rule: Rule,
    #[comptime] cover: Cover,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y;
    if row >= rows {
        terminate!();
    }
    let planes = comptime!(cover.planes);
    let unit = UNIT_POS as usize;
    let start = (row * vectors) as usize;
    let mut scratch = SharedMemory::<f32>::new(comptime!(3 * planes));
    let mut kept = Array::<Eight<F>>::new(cover.vectors);
    let mut nan = 0.0f32.runtime();
    let mut low = 0.0f32.runtime();
    let mut high = 0.0f32.runtime();
    #[unroll]
    for v in 0..cover.vectors {
        let at = comptime!(v * planes * 32) + unit;
        let mut values = Eight::<F>::new(F::new(0.0f32));
        if at < vectors as usize {
            values = x[start + at];
        }
        kept[v] = values;
        #[unroll]
        for i in 0..WIDTH {
            let value = f32::cast_from(values[i]);
            // A maximum skips NaN, a sum keeps it, and infinity times 0 makes one.
            nan = fma(value, 0.0f32, nan);
            if comptime!(rule.mapping == MappingType::Symmetric) {
                high = max(high, value.abs());
            } else {
                low = min(low, value);
                high = max(high, value);
            }
        }
    }
    let bad = select(nan == 0.0f32, 0.0f32.runtime(), 1.0f32.runtime());
    let bad = cube_max(bad, &mut scratch, 0usize, planes) != 0.0f32;
    high = cube_max(high, &mut scratch, planes, planes);
    if comptime!(rule.mapping != MappingType::Symmetric) {
        low = -cube_max(-low, &mut scratch, comptime!(2 * planes), planes);
    }
    low = select(bad, 0.0f32.runtime(), low);
    high = select(bad, 0.0f32.runtime(), high);

    let mut scale = numbers.scale;
    let mut zero_point = f32::cast_from(numbers.zero_point);
    let mut reciprocal = numbers.reciprocal;
    if comptime!(rule.source == Source::Row) {
        let chosen = choose(low, high, &numbers, rule);
        scale = chosen[0];
        zero_point = chosen[1];
        if comptime!(rule.scale_dtype == FloatDtype::F32) {
            reciprocal = divide(1.0f32.runtime(), scale, rule.divides);
        } else {
            reciprocal = rounded::<F>(
                divide(1.0f32.runtime(), scale, rule.divides),
                numbers.zero,
                rule.scale_dtype,
                true,
            );
        }
    }
    if unit == 0 {
        let at = (row * 2u32) as usize;
        parameters[at] = select(bad, f32::reinterpret(numbers.nan), scale);
        parameters[at + 1] = zero_point;
    }

    let to = Target { row, rows, vectors };
    if is_not_finite(reciprocal) {
        encode(&kept, codes, scale, zero_point, &to, &numbers, true, rule, cover);
    } else {
        encode(&kept, codes, reciprocal, zero_point, &to, &numbers, false, rule, cover);
    }
}

/// Where the codes of a row go.
#[derive(CubeType, Clone, Copy)]
struct Target {
    row: u32,
    rows: u32,
    vectors: u32,
}

/// The codes of a row: values times `factor`, or divided by it where `by_factor`. A row with a NaN gets any codes: its scale is NaN.
#[cube]
fn encode<F: Float>(
    kept: &Array<Eight<F>>,
    codes: &mut Array<Two>,
    factor: f32,
    zero_point: f32,
    to: &Target,
    numbers: &Numbers,
    #[comptime] by_factor: bool,
    #[comptime] rule: Rule,
    #[comptime] cover: Cover,
) {
    let product_dtype = comptime!(rule.dtype.promote(rule.scale_dtype));
    let shifted = comptime!(rule.mapping != MappingType::Symmetric || rule.source == Source::Fixed);
    let least = f32::cast_from(numbers.low) - zero_point;
    let most = f32::cast_from(numbers.high) - zero_point;
    // The low byte of MAGIC is 0.
    let offset = i32::cast_from(zero_point) - comptime!(MAGIC.to_bits() as i32);
    #[unroll]
    for v in 0..cover.vectors {
        let at = (comptime!(v * cover.planes * 32) + UNIT_POS as usize) as u32;
        let mut packed = Two::empty();
        #[unroll]
        for half in 0..2usize {
            let mut word = 0u32.runtime();
            #[unroll]
            for i in 0..4usize {
                let value = f32::cast_from(kept[v][comptime!(half * 4 + i)]);
                let mut steps = value * factor;
                if comptime!(by_factor) {
                    steps = steps_of(value, factor, rule.divides);
                }
                let steps = rounded::<F>(steps, numbers.zero, product_dtype, true);
                let steps = min(max(steps, least), most);
                let mut code = u32::reinterpret(steps + MAGIC);
                if shifted {
                    code = u32::reinterpret(i32::reinterpret(code) + offset);
                }
                if comptime!(i == 3) {
                    word |= code << 24u32;
                } else {
                    word |= (code & 0xffu32) << comptime!(8 * i as u32);
                }
            }
            packed[half] = word;
        }
        let (q, t) = ((at % 8u32) / 4u32, at % 4u32);
        let mut place = t * 2u32 + q;
        if comptime!(rule.order == Order::Boxes) {
            // Neighbours swap words: one gets the first of both, the other the second.
            let odd = t % 2u32 == 1u32;
            let (first, second) = (packed[0], packed[1]);
            let theirs = plane_shuffle_xor(select(odd, first, second), 1u32);
            packed[0] = select(odd, theirs, first);
            packed[1] = select(odd, second, theirs);
            place = q * 4u32 + (t % 2u32) * 2u32 + t / 2u32;
        }
        if at < to.vectors {
            let index = ((at / 8u32) * to.rows + to.row) * 8u32 + place;
            codes[index as usize] = packed;
        }
    }
}

/// `x [rows, K]` of dtype `dtype` as codes in blocks or boxes; `None` where a row is too long for a cube, or the scale is of all rows.
pub(super) fn quantize<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    dtype: FloatDtype,
    order: Order,
) -> Option<Codes> {
    let k = weight.layout.k;
    let (rule, numbers) = rule(dtype, false, is_native(&weight.client), order, &weight.activation);
    let cover = cover(k).filter(|_| rule.source != Source::Tensor)?;
    let codes = Buffer::empty(&weight.client, rows * k / 4, size_of::<u32>());
    let parameters = Buffer::empty(&weight.client, rows * 2, size_of::<f32>());
    quantize_kept::launch(
        &weight.client,
        Grid::new(1, rows).count(),
        CubeDim::new_2d(32, cover.planes as u32),
        x.arg_of(WIDTH * dtype.size()),
        codes.arg_of(8),
        parameters.arg(),
        rows as u32,
        (k / WIDTH) as u32,
        numbers.launch(),
        rule,
        cover,
        super::storage(dtype),
    );
    Some(Codes {
        codes,
        parameters,
        order,
    })
}
