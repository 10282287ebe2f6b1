//! int1-int8 and uint1-uint8.

use crate::error::{QuantError, Result};
use core::fmt;
use serde::{Deserialize, Serialize};

/// An integer dtype of 1 to 8 bits, signed (two's complement) or not.
///
/// `intN` holds −2^(N−1) to 2^(N−1)−1 (int1 is {−1, 0}), `uintN` holds 0 to 2^N−1.
/// Source: torchao `quantization/quant_primitives.py`, `_SUB_BYTE_INT_BOUNDS`, `_SUB_BYTE_UINT_BOUNDS`.
///
/// ```
/// use burn_quantized::dtype::IntDtype;
/// assert_eq!((IntDtype::INT4.min(), IntDtype::INT4.max()), (-8, 7));
/// assert_eq!(IntDtype::UINT3.to_string(), "uint3");
/// assert!(IntDtype::int(9).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(bool, u8)", into = "(bool, u8)")]
pub struct IntDtype {
    signed: bool,
    bits: u8,
}

macro_rules! named {
    ($($name:ident $signed:literal $bits:literal),+ $(,)?) => {
        impl IntDtype {
            $(#[doc = concat!(stringify!($bits), " bits, signed: ", stringify!($signed), ".")]
            pub const $name: Self = Self { signed: $signed, bits: $bits };)+
        }
    };
}
named!(
    INT1 true 1, INT2 true 2, INT3 true 3, INT4 true 4, INT5 true 5, INT6 true 6, INT7 true 7, INT8 true 8,
    UINT1 false 1, UINT2 false 2, UINT3 false 3, UINT4 false 4, UINT5 false 5, UINT6 false 6, UINT7 false 7,
    UINT8 false 8,
);

impl IntDtype {
    /// `int{bits}`. Errors outside 1 to 8.
    pub fn int(bits: u32) -> Result<Self> {
        Self::new(true, bits)
    }

    /// `uint{bits}`. Errors outside 1 to 8.
    pub fn uint(bits: u32) -> Result<Self> {
        Self::new(false, bits)
    }

    fn new(signed: bool, bits: u32) -> Result<Self> {
        match bits {
            1..=8 => Ok(Self {
                signed,
                bits: bits as u8,
            }),
            _ => Err(QuantError::UnsupportedBits { bits }),
        }
    }

    /// Bits of one code, 1 to 8.
    pub const fn bits(self) -> u32 {
        self.bits as u32
    }

    /// Whether negative codes exist.
    pub const fn is_signed(self) -> bool {
        self.signed
    }

    /// Smallest code.
    pub const fn min(self) -> i32 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    /// Largest code.
    pub const fn max(self) -> i32 {
        if self.signed {
            (1 << (self.bits - 1)) - 1
        } else {
            (1 << self.bits) - 1
        }
    }
}

impl fmt::Display for IntDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}int{}", if self.signed { "" } else { "u" }, self.bits)
    }
}

impl TryFrom<(bool, u8)> for IntDtype {
    type Error = QuantError;
    fn try_from((signed, bits): (bool, u8)) -> Result<Self> {
        Self::new(signed, bits as u32)
    }
}

impl From<IntDtype> for (bool, u8) {
    fn from(dtype: IntDtype) -> Self {
        (dtype.signed, dtype.bits)
    }
}
