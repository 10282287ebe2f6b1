//! Rounding to f16 and bf16 without branches, so that loops over it become vector code.

use crate::dtype::FloatDtype;

/// As [`FloatDtype::round`].
#[inline(always)]
pub fn round(dtype: FloatDtype, value: f32) -> f32 {
    match dtype {
        FloatDtype::F32 => value,
        FloatDtype::F16 => round_f16(value),
        FloatDtype::BF16 => round_bf16(value),
    }
}

#[inline(always)]
fn round_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    f32::from_bits(if value.is_nan() { bits } else { rounded })
}

#[inline(always)]
fn round_f16(value: f32) -> f32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let normal = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)) & !0x1fff;
    // Below 2^-14 the step is 2^-24, which is the step of f32 in [0.5, 1).
    let subnormal = (f32::from_bits(magnitude) + 0.5 - 0.5).to_bits();
    let rounded = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let rounded = if rounded >= 0x4780_0000 { 0x7f80_0000 } else { rounded };
    f32::from_bits(if value.is_nan() {
        bits
    } else {
        rounded | bits & 0x8000_0000
    })
}

/// Rounds each value.
#[inline(always)]
pub fn round_all<const N: usize>(dtype: FloatDtype, values: &mut [f32; N]) {
    match dtype {
        FloatDtype::F32 => {}
        FloatDtype::F16 => values.iter_mut().for_each(|v| *v = round_f16(*v)),
        FloatDtype::BF16 => values.iter_mut().for_each(|v| *v = round_bf16(*v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_the_dtype_does() {
        // Every 16-bit pattern, its neighbours and the midpoints above it, both signs.
        for high in 0..=u16::MAX {
            for low in [0u32, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits((high as u32) << 16 | low);
                for dtype in [FloatDtype::F16, FloatDtype::BF16] {
                    let (got, want) = (round(dtype, value), dtype.round(value));
                    assert!(
                        got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                        "{dtype} {value:e}"
                    );
                }
            }
        }
    }
}
