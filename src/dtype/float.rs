//! The float dtypes of activations, scales and float zero points.

use core::fmt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// f32, f16 or bf16.
///
/// Low ranks hold every float as an `f32` *value that the dtype can represent*; [`FloatDtype::round`] makes one.
/// An operation on a dtype T is then "compute in f32, round to T", which is what eager PyTorch does on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum FloatDtype {
    /// IEEE binary32.
    #[default]
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
}

impl FloatDtype {
    /// `value` rounded to the nearest representable value, ties to even; overflow gives an infinity.
    ///
    /// ```
    /// use burn_quantized::dtype::FloatDtype;
    /// assert_eq!(FloatDtype::BF16.round(1.00390625), 1.0);
    /// ```
    #[inline]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::BF16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Smallest positive normal value: 2^-126 for f32 and bf16, 2^-14 for f16.
    pub const fn smallest_normal(self) -> f32 {
        match self {
            Self::F32 | Self::BF16 => f32::MIN_POSITIVE,
            Self::F16 => 6.103_515_6e-5,
        }
    }

    /// Largest finite value: 65504 for f16.
    pub const fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => 65504.0,
            Self::BF16 => f32::from_bits(0x7f7f_0000),
        }
    }

    /// The dtype of an operation on `self` and `other`: equal dtypes stay, different ones give f32.
    pub fn promote(self, other: Self) -> Self {
        if self == other { self } else { Self::F32 }
    }

    /// Bytes of one value.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

impl fmt::Display for FloatDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}
