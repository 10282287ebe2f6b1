//! Division that is correctly rounded on every device.
//!
//! Vulkan and WGSL let a quotient be 2.5 ulp away, and shader compilers may take it for a product with a reciprocal. A scale that is off by
//! one bit moves the codes beside a tie, so quotients that choose a scale, its reciprocal or a zero point are made of integer operations
//! there: nothing is left to the device but to move bits, whatever it does with subnormal numbers.

use cubecl::prelude::*;

/// Bits of an infinity.
const INFINITY: u32 = 0x7f80_0000;
/// Bits of a NaN.
const NAN: u32 = 0x7fc0_0000;
/// The leading bit of a significand of 24 bits.
const LEADING: u32 = 0x0080_0000;

/// Whether the division of a runtime's shaders is that of IEEE 754, subnormal numbers included.
pub(super) fn is_native<R: Runtime>(client: &ComputeClient<R>) -> bool {
    R::name(client) == "cuda"
}

/// `a / b`, rounded to nearest, ties to even, as IEEE 754 says; `native` where the device [does so by itself](is_native).
#[cube]
pub(super) fn divide(a: f32, b: f32, #[comptime] native: bool) -> f32 {
    if comptime!(native) {
        a / b
    } else {
        f32::reinterpret(quotient(u32::reinterpret(a), u32::reinterpret(b)))
    }
}

/// The bits of the quotient of the floats with these bits.
#[cube]
fn quotient(a: u32, b: u32) -> u32 {
    let sign = (a ^ b) & 0x8000_0000u32;
    let a = a & 0x7fff_ffffu32;
    let b = b & 0x7fff_ffffu32;
    let bits = if a > INFINITY || b > INFINITY || (a == b && (a == 0u32 || a == INFINITY)) {
        NAN.runtime()
    } else if a == INFINITY || b == 0u32 {
        INFINITY.runtime()
    } else if a == 0u32 || b == INFINITY {
        0u32.runtime()
    } else {
        finite_quotient(a, b)
    };
    bits | sign
}

/// As [`quotient`], of positive finite numbers.
#[cube]
fn finite_quotient(a: u32, b: u32) -> u32 {
    let divisor = significand(b);
    let mut rest = significand(a);
    // The exponent of the quotient as its bits have it: 1 is that of the smallest normal number.
    let mut exponent = exponent(a) - exponent(b) + 127i32;
    if rest < divisor {
        rest <<= 1u32;
        exponent -= 1i32;
    }

    // Long division to 25 bits: those of a significand, and the half below. The first one is 1.
    let mut digits = 0u32;
    for _ in 0..25u32 {
        let fits = rest >= divisor;
        digits = (digits << 1u32) | u32::cast_from(fits);
        rest = (rest - select(fits, divisor, 0u32.runtime())) << 1u32;
    }

    // A quotient below the normal numbers keeps fewer digits; with 26 of 25 cut off it rounds to 0.
    let cut = u32::cast_from(clamp(2i32 - exponent, 1i32, 26i32));
    let kept = digits >> cut;
    let unit = 1u32 << cut;
    // Twice what was cut off, its lowest bit standing for all digits that were not made.
    let lost = ((digits & (unit - 1u32)) << 1u32) | u32::cast_from(rest != 0u32);
    let up = lost > unit || (lost == unit && (kept & 1u32) == 1u32);
    let rounded = kept + u32::cast_from(up);
    // The leading bit of a normal number adds 1 to the exponent, and so does one that rounding carries into.
    let steps = u32::cast_from(clamp(exponent - 1i32, 0i32, 254i32));
    min((steps << 23u32) + rounded, INFINITY)
}

/// The 24 bits, the first of them 1, of a positive finite number that is not 0.
#[cube]
fn significand(x: u32) -> u32 {
    let fraction = x & (LEADING - 1u32);
    select(x < LEADING, fraction << missing(x), fraction | LEADING)
}

/// The exponent that goes with [`significand`], as the bits of a normal number have it; 0 and below for a subnormal one.
#[cube]
fn exponent(x: u32) -> i32 {
    select(
        x < LEADING,
        1i32 - i32::cast_from(missing(x)),
        i32::cast_from(x >> 23u32),
    )
}

/// How many leading bits of its significand a subnormal number lacks; 0 for a normal one.
#[cube]
fn missing(x: u32) -> u32 {
    let mut missing = 0u32;
    let mut bits = x;
    while bits < LEADING {
        bits <<= 1u32;
        missing += 1u32;
    }
    missing
}
