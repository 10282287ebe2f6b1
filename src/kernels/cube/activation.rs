//! Activations to int8 on the device: one cube a row finds the range and encodes.
//!
//! Codes lie in the order of the weight's chunks (see [`layout`](super::layout)), four a word; padding adds nothing to a sum. A row's scale
//! and zero point are two floats. The formulas are those of [`quantize_activation`](crate::tensor::quantize_activation).

use super::buffer::Buffer;
use super::device::{Chunks, ChunksLaunch, is_not_finite, opaque, position, round_ties_even, round_to};
use super::division::{divide, is_native};
use super::grid::Grid;
use super::weight::CubeWeight;
use crate::dtype::FloatDtype;
use crate::spec::{ActivationQuantization, ActivationScale, MappingType};
use cubecl::prelude::*;

/// Units that share a row.
const UNITS: usize = 128;

/// Where a scale comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Source {
    /// The row itself.
    Row,
    /// The ranges of every row.
    Tensor,
    /// Calibration.
    Fixed,
}

/// What a compiled kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Rule {
    pub source: Source,
    pub mapping: MappingType,
    /// Dtype of the activation.
    pub dtype: FloatDtype,
    /// Dtype of the scale.
    pub scale_dtype: FloatDtype,
    /// The product takes the zero point off the codes: padding holds it.
    centered: bool,
    /// The device divides as IEEE 754 says.
    pub divides: bool,
    pub order: Order,
}

/// Where the codes of a row lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Order {
    /// `[row][chunk][8]` words.
    Chunks,
    /// `[block of 64 k][row][16]` words, in the order of [`fragments`](super::fragments).
    Blocks,
    /// The same, the 16 words transposed as 4 × 4: what [`wgmma`](super::wgmma) reads.
    Boxes,
}

/// `value / scale`, which a reciprocal that overflows cannot give; 0 where the scale is 0.
#[cube]
pub(super) fn steps_of(value: f32, scale: f32, #[comptime] divides: bool) -> f32 {
    let quotient = divide(value, scale, divides);
    let scale_is_zero = (u32::reinterpret(scale) << 1u32) == 0u32;
    select(scale_is_zero, 0.0f32.runtime(), quotient)
}

/// The word of a row's codes `4 · word ..`.
#[cube]
fn word_at(word: u32, row: u32, words: u32, rows: u32, #[comptime] order: Order) -> u32 {
    let mut at = row * words + word;
    if comptime!(order == Order::Blocks) {
        let inner = ((word % 8u32) / 2u32) * 4u32 + ((word % 16u32) / 8u32) * 2u32 + word % 2u32;
        at = ((word / 16u32) * rows + row) * 16u32 + inner;
    }
    at
}

/// The numbers of a rule.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Numbers {
    pub low: i32,
    pub high: i32,
    pub eps: f32,
    /// Largest finite value of the activation's dtype.
    pub largest: f32,
    /// Scale of a calibrated activation.
    pub scale: f32,
    /// `1 / scale`, correctly rounded; infinite where it overflows.
    pub reciprocal: f32,
    /// Zero point of a calibrated activation.
    pub zero_point: i32,
    /// The bits of a NaN.
    pub nan: u32,
    /// 0.
    pub zero: u32,
}

/// The smallest and the largest value of a row, zero included, and 1 where it is not finite (its range is then `0..=0`).
#[cube]
fn row_range<F: Float>(x: &Array<F>, start: u32, k: u32) -> Array<f32> {
    let unit = UNIT_POS_X;
    let mut low = 0.0f32;
    let mut high = 0.0f32;
    let mut bad = 0.0f32;
    let mut at = unit;
    while at < k {
        let value = f32::cast_from(x[(start + at) as usize]);
        let skip = is_not_finite(value);
        bad = select(skip, 1.0f32.runtime(), bad);
        let value = select(skip, 0.0f32.runtime(), value);
        low = min(low, value);
        high = max(high, value);
        at += comptime!(UNITS as u32);
    }
    reduce_range(low, high, bad)
}

/// The union of the units' ranges.
#[cube]
fn reduce_range(low: f32, high: f32, bad: f32) -> Array<f32> {
    let unit = UNIT_POS_X as usize;
    let mut lows = SharedMemory::<f32>::new(UNITS);
    let mut highs = SharedMemory::<f32>::new(UNITS);
    let mut bads = SharedMemory::<f32>::new(UNITS);
    lows[unit] = low;
    highs[unit] = high;
    bads[unit] = bad;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(UNITS.ilog2() as usize) {
        let half = comptime!(UNITS >> (step + 1));
        if unit < half {
            lows[unit] = min(lows[unit], lows[unit + half]);
            highs[unit] = max(highs[unit], highs[unit + half]);
            bads[unit] = max(bads[unit], bads[unit + half]);
        }
        sync_cube();
    }
    let mut range = Array::<f32>::new(3usize);
    range[0] = select(bads[0] == 0.0f32, lows[0], 0.0f32.runtime());
    range[1] = select(bads[0] == 0.0f32, highs[0], 0.0f32.runtime());
    range[2] = bads[0];
    range
}

/// The range of each row, three floats, for a scale of the whole activation.
#[cube(launch)]
fn row_ranges<F: Float>(x: &Array<F>, ranges: &mut Array<f32>, rows: u32, k: u32, #[define(F)] _dtype: StorageType) {
    let row = CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y;
    if row >= rows {
        terminate!();
    }
    let range = row_range::<F>(x, row * k, k);
    if UNIT_POS_X == 0u32 {
        let at = (row * 3u32) as usize;
        ranges[at] = range[0];
        ranges[at + 1] = range[1];
        ranges[at + 2] = range[2];
    }
}

/// `scale` raised to eps and lowered to the largest finite value.
#[cube]
fn bounded(scale: f32, numbers: &Numbers) -> f32 {
    let scale = select(is_not_finite(scale), numbers.largest, scale);
    max(scale, numbers.eps)
}

/// Scale and zero point of the range `low..=high`, which holds 0.
#[cube]
pub(super) fn choose(low: f32, high: f32, numbers: &Numbers, #[comptime] rule: Rule) -> Array<f32> {
    let mut chosen = Array::<f32>::new(2usize);
    let min_code = f32::cast_from(numbers.low);
    let max_code = f32::cast_from(numbers.high);
    let zero = numbers.zero;
    if comptime!(rule.mapping == MappingType::Asymmetric) {
        let codes = max_code - min_code;
        let range = round_to(high - low, zero, rule.dtype);
        let from_high = round_to(divide(high, codes, rule.divides), zero, rule.dtype);
        let from_low = round_to(divide(low, codes, rule.divides), zero, rule.dtype);
        let parts = from_high - from_low;
        let whole = divide(range, codes, rule.divides);
        let steps = round_to(select(is_not_finite(range), parts, whole), zero, rule.dtype);
        let scale = bounded(steps, numbers);
        let from_low = round_to(divide(low, scale, rule.divides), zero, rule.dtype);
        let from_low = round_ties_even(clamp(from_low, -1024.0f32, 1024.0f32));
        chosen[0] = scale;
        chosen[1] = f32::cast_from(clamp(numbers.low - from_low, numbers.low, numbers.high));
    } else {
        let scale = if comptime!(rule.mapping == MappingType::Symmetric) {
            let half = (max_code - min_code) * 0.5f32;
            round_to(divide(max(-low, high), half, rule.divides), zero, rule.dtype)
        } else {
            let from_low = round_to(divide(low, min_code, rule.divides), zero, rule.dtype);
            let from_high = round_to(divide(high, max_code, rule.divides), zero, rule.dtype);
            // 0 divided by a smallest code of 0 is no number, and compared with nothing.
            let by_low = !is_not_finite(from_low) && from_low > from_high;
            select(by_low, from_low, from_high)
        };
        chosen[0] = bounded(scale, numbers);
        chosen[1] = f32::cast_from((numbers.low + numbers.high + 1i32) / 2i32);
    }
    chosen
}

/// Codes, scales and zero points of rows.
#[cube(launch)]
fn quantize_rows<F: Float>(
    x: &Array<F>,
    ranges: &Array<f32>,
    codes: &mut Array<u32>,
    parameters: &mut Array<f32>,
    rows: u32,
    chunks: Chunks,
    numbers: Numbers,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS_X;
    let start = row * chunks.k;
    let zero = numbers.zero;

    let own = row_range::<F>(x, start, chunks.k);
    let mut scale = numbers.scale;
    let mut zero_point = f32::cast_from(numbers.zero_point);
    if comptime!(rule.source == Source::Row) {
        let chosen = choose(own[0], own[1], &numbers, rule);
        scale = chosen[0];
        zero_point = chosen[1];
    }
    if comptime!(rule.source == Source::Tensor) {
        let mut low = 0.0f32;
        let mut high = 0.0f32;
        let mut at = unit;
        while at < rows {
            low = min(low, ranges[(at * 3u32) as usize]);
            high = max(high, ranges[(at * 3u32 + 1u32) as usize]);
            at += comptime!(UNITS as u32);
        }
        let whole = reduce_range(low, high, 0.0f32.runtime());
        let chosen = choose(whole[0], whole[1], &numbers, rule);
        scale = chosen[0];
        zero_point = chosen[1];
    }
    let bad = own[2] != 0.0f32;
    if unit == 0u32 {
        let at = (row * 2u32) as usize;
        parameters[at] = select(bad, f32::reinterpret(numbers.nan), scale);
        parameters[at + 1] = zero_point;
    }

    let mut reciprocal = numbers.reciprocal;
    if comptime!(rule.source != Source::Fixed) {
        reciprocal = round_to(divide(1.0f32.runtime(), scale, rule.divides), zero, rule.scale_dtype);
    }
    let overflows = is_not_finite(reciprocal);
    let product_dtype = comptime!(rule.dtype.promote(rule.scale_dtype));
    let words = chunks.count * 8u32;
    let zero_code = i32::cast_from(zero_point);
    let mut word = unit;
    while word < words {
        let mut packed = 0u32;
        #[unroll]
        for i in 0..4usize {
            let at = position(&chunks, word / 8u32, (word % 8u32) * 4u32 + comptime!(i as u32));
            let inside = at < chunks.k;
            let value = f32::cast_from(x[select(inside, start + at, 0u32.runtime()) as usize]);
            let value = select(bad, 0.0f32.runtime(), value);
            let mut steps = value * reciprocal;
            if overflows {
                steps = steps_of(value, scale, rule.divides);
            }
            let steps = round_to(steps, zero, product_dtype);
            let steps = round_ties_even(clamp(opaque(steps, zero), -1024.0f32, 1024.0f32));
            let code = clamp(steps + zero_code, numbers.low, numbers.high);
            let padding = if comptime!(rule.centered) {
                zero_code
            } else {
                0i32.runtime()
            };
            let code = select(inside, code, padding);
            packed |= (u32::reinterpret(code) & 0xffu32) << comptime!(8 * i as u32);
        }
        codes[word_at(word, row, words, rows, rule.order) as usize] = packed;
        word += comptime!(UNITS as u32);
    }
}

/// Rows as codes.
pub(super) struct Codes {
    /// Words of four codes.
    pub codes: Buffer,
    /// `[rows][scale, zero point]`.
    pub parameters: Buffer,
    pub order: Order,
}

/// `x [rows, K]` of dtype `dtype` as codes; `rows` and K are at least 1.
///
/// # Panics
/// If the treatment keeps floats.
pub(super) fn quantize<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    dtype: FloatDtype,
    order: Order,
) -> Codes {
    let (client, chunks) = (&weight.client, weight.chunks());
    let (rule, numbers) = rule(
        dtype,
        weight.is_centered(),
        is_native(client),
        order,
        &weight.activation,
    );
    let storage = super::storage(dtype);
    let ranges = Buffer::empty(
        client,
        if rule.source == Source::Tensor { rows * 3 } else { 1 },
        size_of::<f32>(),
    );
    let grid = Grid::new(1, rows);
    if rule.source == Source::Tensor {
        row_ranges::launch(
            client,
            grid.count(),
            CubeDim::new_1d(UNITS as u32),
            x.arg(),
            ranges.arg(),
            rows as u32,
            chunks.k,
            storage,
        );
    }
    let codes = Buffer::empty(client, rows * chunks.count as usize * 8, size_of::<u32>());
    let parameters = Buffer::empty(client, rows * 2, size_of::<f32>());
    quantize_rows::launch(
        client,
        grid.count(),
        CubeDim::new_1d(UNITS as u32),
        x.arg(),
        ranges.arg(),
        codes.arg(),
        parameters.arg(),
        rows as u32,
        chunks.launch(),
        numbers.launch(),
        rule,
        storage,
    );
    Codes {
        codes,
        parameters,
        order,
    }
}

pub(super) fn rule(
    dtype: FloatDtype,
    centered: bool,
    divides: bool,
    order: Order,
    activation: &ActivationQuantization,
) -> (Rule, Numbers) {
    let mut numbers = Numbers {
        low: 0,
        high: 0,
        eps: 0.0,
        largest: dtype.largest(),
        scale: 1.0,
        reciprocal: 1.0,
        zero_point: 0,
        nan: f32::NAN.to_bits(),
        zero: 0,
    };
    let rule = match *activation {
        ActivationQuantization::None => panic!("a float activation has no codes"),
        ActivationQuantization::Static {
            scale,
            zero_point,
            quant_min,
            quant_max,
            ..
        } => {
            (numbers.low, numbers.high) = (quant_min, quant_max);
            (numbers.scale, numbers.reciprocal, numbers.zero_point) = (scale, 1.0 / scale, zero_point);
            Rule {
                source: Source::Fixed,
                mapping: MappingType::Symmetric,
                dtype,
                scale_dtype: FloatDtype::F32,
                centered,
                divides,
                order,
            }
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
            (numbers.low, numbers.high) = (quant_min, quant_max);
            numbers.eps = dtype.round(eps.unwrap_or(dtype.smallest_normal()));
            let source = match scale {
                ActivationScale::PerToken => Source::Row,
                ActivationScale::PerTensor => Source::Tensor,
            };
            let scale_dtype = if scale_in_input_dtype { dtype } else { FloatDtype::F32 };
            Rule {
                source,
                mapping,
                dtype,
                scale_dtype,
                centered,
                divides,
                order,
            }
        }
    };
    (rule, numbers)
}

impl Numbers {
    /// The argument of a kernel.
    pub(super) fn launch<R: Runtime>(&self) -> NumbersLaunch<R> {
        NumbersLaunch::new(
            self.low,
            self.high,
            self.eps,
            self.largest,
            self.scale,
            self.reciprocal,
            self.zero_point,
            self.nan,
            self.zero,
        )
    }
}

impl Chunks {
    /// The argument of a kernel.
    pub(super) fn launch<R: Runtime>(&self) -> ChunksLaunch<R> {
        ChunksLaunch::new(self.k, self.group, self.per_group, self.count)
    }
}
