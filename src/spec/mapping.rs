//! How a float range becomes a scale and a zero point.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Source: torchao `quantization/quant_primitives.py`, `MappingType`.
///
/// With `neg = min(min(x), 0)`, `pos = max(max(x), 0)`:
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum MappingType {
    /// `scale = max(−neg, pos) / ((quant_max − quant_min) / 2)`, zero point at the middle of the range.
    Symmetric,
    /// `scale = max(neg / quant_min, pos / quant_max)`: as symmetric, but no value is clipped.
    SymmetricNoClippingErr,
    /// `scale = (pos − neg) / (quant_max − quant_min)`, `zero_point = clamp(quant_min − round(neg / scale))`.
    Asymmetric,
}

/// What a zero point is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ZeroPointDomain {
    /// An integer code: `x = (q − zero_point) · scale`.
    Int,
    /// The float value of the middle code (tinygemm): `x = (q − mid) · scale + zero_point`.
    Float,
    /// There is none: `x = q · scale`.
    None,
}

impl fmt::Display for MappingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symmetric => "symmetric",
            Self::SymmetricNoClippingErr => "symmetric_no_clipping_err",
            Self::Asymmetric => "asymmetric",
        })
    }
}
