//! From a sum to an output, in the order that [`tensor`](crate::tensor) writes down.

use super::device::{is_not_finite, opaque, round_to};
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

/// `x` rounded to `F`, which is `dtype`; `native` where conversions of the device round to nearest even and keep subnormal numbers.
#[cube]
pub(super) fn rounded<F: Float>(x: f32, zero: u32, #[comptime] dtype: FloatDtype, #[comptime] native: bool) -> f32 {
    if comptime!(dtype == FloatDtype::F32) {
        x
    } else if comptime!(native) {
        f32::cast_from(F::cast_from(x))
    } else {
        round_to(x, zero, dtype)
    }
}

/// The value of an integer sum under a token's scale and zero point and a channel's scale; `weights` is the sum of the channel's codes.
#[cube]
pub(super) fn scaled<F: Float>(
    sum: i32,
    token_scale: f32,
    token_point: f32,
    weights: i32,
    channel_scale: f32,
    zero: u32,
    #[comptime] shifted: bool,
    #[comptime] dtype: FloatDtype,
    #[comptime] native: bool,
) -> f32 {
    let mut t = rounded::<F>(f32::cast_from(sum) * token_scale, zero, dtype, native);
    if comptime!(shifted) {
        let shift = opaque(token_point * token_scale, zero) * f32::cast_from(weights);
        let shift = rounded::<F>(shift, zero, dtype, native);
        let less = rounded::<F>(opaque(t, zero) - opaque(shift, zero), zero, dtype, native);
        let corrected = select(sum == i32::cast_from(token_point) * weights, 0.0f32.runtime(), less);
        t = select(token_point == 0.0f32, t, corrected);
    }
    opaque(t, zero) * channel_scale
}

/// The output of a value: bias added, rounded; NaN where the token's scale is not finite.
#[cube]
pub(super) fn output<F: Float>(
    value: f32,
    bias: f32,
    token_scale: f32,
    nan: u32,
    zero: u32,
    #[comptime] with_bias: bool,
    #[comptime] dtype: FloatDtype,
    #[comptime] native: bool,
) -> F {
    let mut value = value;
    if comptime!(with_bias) {
        value = opaque(value, zero) + bias;
    }
    let value = rounded::<F>(value, zero, dtype, native);
    F::cast_from(select(is_not_finite(token_scale), f32::reinterpret(nan), value))
}
