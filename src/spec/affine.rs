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
    /// Errors:
    /// - a range outside the dtype, or without at least two codes;
    /// - a float zero point with a symmetric mapping, with an odd number of codes (there is no middle one), or with codes that do not
    ///   start at 0 (torchao's formula then clips half of the range);
    /// - no zero point with the asymmetric mapping, or with a range whose middle is not 0;
    /// - the no-clipping mapping on a range that has no code on both sides of 0;
    /// - an eps that is no positive number.
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
            (ZeroPointDomain::Float, MappingType::Asymmetric) if lo != 0 => {
                return refuse("a float zero point needs codes from 0 on, such as 0..=15: choose an unsigned dtype");
            }
            (ZeroPointDomain::Float, MappingType::Asymmetric) if hi % 2 == 0 => {
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
        if self.eps.is_some_and(|eps| !(eps > 0.0 && eps.is_finite())) {
            return refuse("eps, the smallest scale, must be a positive number");
        }
        if self.mapping == MappingType::SymmetricNoClippingErr && (lo >= 0 || hi <= 0) {
            return refuse(
                "the no-clipping mapping needs codes on both sides of 0: choose a signed dtype of 2 bits or more",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MappingType::{Asymmetric, Symmetric, SymmetricNoClippingErr};

    fn spec(dtype: IntDtype, mapping: MappingType, domain: ZeroPointDomain) -> AffineSpec {
        AffineSpec::new(dtype, mapping, Granularity::PerTensor).with_zero_point_domain(domain)
    }

    #[test]
    fn ranges_lie_inside_the_dtype() {
        let int8 = spec(IntDtype::INT8, Symmetric, ZeroPointDomain::Int);
        assert_eq!(int8.clone().with_range(-127, 127).validate(), Ok(()));
        for (low, high) in [(-129, 127), (-128, 128), (5, 5), (6, 5)] {
            let expected = QuantError::InvalidRange {
                dtype: "int8".into(),
                quant_min: low,
                quant_max: high,
                min: -128,
                max: 127,
            };
            assert_eq!(int8.clone().with_range(low, high).validate(), Err(expected));
        }
    }

    #[test]
    fn every_whole_dtype_has_a_symmetric_and_an_asymmetric_spec() {
        for bits in 1..=8 {
            for dtype in [IntDtype::int(bits).unwrap(), IntDtype::uint(bits).unwrap()] {
                for mapping in [Symmetric, Asymmetric] {
                    assert_eq!(
                        spec(dtype, mapping, ZeroPointDomain::Int).validate(),
                        Ok(()),
                        "{dtype} {mapping}"
                    );
                }
                let float = spec(dtype, Asymmetric, ZeroPointDomain::Float).validate();
                assert_eq!(float.is_ok(), !dtype.is_signed(), "{dtype}");
                let none = spec(dtype, Symmetric, ZeroPointDomain::None).validate();
                assert_eq!(none.is_ok(), dtype.is_signed(), "{dtype}");
                let no_clipping = spec(dtype, SymmetricNoClippingErr, ZeroPointDomain::Int).validate();
                assert_eq!(no_clipping.is_ok(), dtype.is_signed() && bits > 1, "{dtype}");
            }
        }
    }

    #[test]
    fn parts_that_do_not_go_together_are_named() {
        let refused = [
            (
                spec(IntDtype::UINT4, Symmetric, ZeroPointDomain::Float),
                "asymmetric mapping",
            ),
            (spec(IntDtype::INT4, Asymmetric, ZeroPointDomain::Float), "codes from 0"),
            (
                spec(IntDtype::UINT4, Asymmetric, ZeroPointDomain::Float).with_range(0, 14),
                "even number of codes",
            ),
            (
                spec(IntDtype::INT4, Asymmetric, ZeroPointDomain::None),
                "needs a zero point",
            ),
            (
                spec(IntDtype::UINT4, Symmetric, ZeroPointDomain::None),
                "middle is not 0",
            ),
            (
                spec(IntDtype::INT1, SymmetricNoClippingErr, ZeroPointDomain::Int),
                "both sides of 0",
            ),
            (
                spec(IntDtype::INT8, Symmetric, ZeroPointDomain::Int).with_eps(0.0),
                "eps",
            ),
            (
                spec(IntDtype::INT8, Symmetric, ZeroPointDomain::Int).with_eps(f32::NAN),
                "eps",
            ),
        ];
        for (spec, what) in refused {
            let error = spec.validate().expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
