//! An affine quantization of one tensor.

use crate::dtype::{FloatDtype, IntDtype};
use crate::error::{QuantError, Result};
use crate::spec::{Granularity, MappingType, ZeroPointDomain};
use serde::{Deserialize, Serialize};

/// How one tensor becomes codes, scales and zero points: `q = clamp(round(x / scale) + zero_point)`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AffineSpec {
    /// Where a code is stored.
    pub dtype: IntDtype,
    /// Smallest code in use; inside the dtype.
    pub quant_min: i32,
    /// Largest code in use; inside the dtype.
    pub quant_max: i32,
    /// How a range becomes a scale.
    pub mapping: MappingType,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// What a zero point is.
    pub zero_point_domain: ZeroPointDomain,
    /// Lower bound of a scale; `None` is the smallest normal number of the input's dtype.
    pub eps: Option<f32>,
    /// Dtype of the scales; `None` is the input's.
    pub scale_dtype: Option<FloatDtype>,
    /// Dtype of float zero points; `None` is the input's.
    #[serde(default)]
    pub zero_point_dtype: Option<FloatDtype>,
}

impl AffineSpec {
    /// The whole range of `dtype`, integer zero points, default eps, scales in the input's dtype.
    pub fn new(dtype: IntDtype, mapping: MappingType, granularity: Granularity) -> Self {
        Self {
            dtype,
            quant_min: dtype.min(),
            quant_max: dtype.max(),
            mapping,
            granularity,
            zero_point_domain: ZeroPointDomain::Int,
            eps: None,
            scale_dtype: None,
            zero_point_dtype: None,
        }
    }

    /// Uses only `quant_min..=quant_max`, such as −127..=127 for int8.
    pub fn with_range(mut self, quant_min: i32, quant_max: i32) -> Self {
        (self.quant_min, self.quant_max) = (quant_min, quant_max);
        self
    }

    /// Uses this zero-point domain.
    pub fn with_zero_point_domain(mut self, domain: ZeroPointDomain) -> Self {
        self.zero_point_domain = domain;
        self
    }

    /// Uses this lower bound for scales.
    pub fn with_eps(mut self, eps: f32) -> Self {
        self.eps = Some(eps);
        self
    }

    /// Stores scales in this dtype.
    pub fn with_scale_dtype(mut self, dtype: FloatDtype) -> Self {
        self.scale_dtype = Some(dtype);
        self
    }

    /// Stores float zero points in this dtype.
    pub fn with_zero_point_dtype(mut self, dtype: FloatDtype) -> Self {
        self.zero_point_dtype = Some(dtype);
        self
    }

    /// Whether the parts go together.
    ///
    /// Errors: a range outside the dtype or without at least two codes, a float zero point with a symmetric mapping
    /// or an odd number of codes (it has no middle code in torchao's sense), no zero point with an asymmetric mapping or a range whose middle is not 0, the no-clipping mapping on a range that has no code on both sides of 0.
    pub fn validate(&self) -> Result<()> {
        let (lo, hi) = (self.quant_min, self.quant_max);
        if lo >= hi || lo < self.dtype.min() || hi > self.dtype.max() {
            return Err(QuantError::InvalidRange {
                dtype: self.dtype.to_string(),
                quant_min: lo,
                quant_max: hi,
                min: self.dtype.min(),
                max: self.dtype.max(),
            });
        }
        let refuse = |what: &str| Err(QuantError::InvalidSpec(what.into()));
        match (self.zero_point_domain, self.mapping) {
            (ZeroPointDomain::Float, MappingType::Asymmetric) if (lo + hi) % 2 == 0 => {
                return refuse("a float zero point needs an even number of codes, such as 0..=15");
            }
            (ZeroPointDomain::Float, MappingType::Asymmetric) | (ZeroPointDomain::Int, _) => {}
            (ZeroPointDomain::Float, _) => return refuse("a float zero point needs the asymmetric mapping"),
            (ZeroPointDomain::None, MappingType::Asymmetric) => {
                return refuse("the asymmetric mapping needs a zero point: choose the integer or float domain");
            }
            (ZeroPointDomain::None, _) if (lo + hi + 1) / 2 != 0 => {
                return refuse("a range whose middle is not 0 needs a zero point: choose a signed dtype");
            }
            (ZeroPointDomain::None, _) => {}
        }
        if self.mapping == MappingType::SymmetricNoClippingErr && (lo >= 0 || hi <= 0) {
            return refuse(
                "the no-clipping mapping needs codes on both sides of 0: choose a signed dtype of 2 bits or more",
            );
        }
        Ok(())
    }
}
