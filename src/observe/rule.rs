//! From an observed range to a scale and a zero point.

use crate::dtype::{FloatDtype, IntDtype};
use crate::error::{QuantError, Result};
use crate::primitives::{QParams, ZeroPoints, choose_qparams_affine_with_min_max};
use crate::spec::{AffineSpec, Granularity, MappingType, ZeroPointDomain};
use serde::{Deserialize, Serialize};

/// Which blocks are observed, and how the range of one becomes a scale and a zero point.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RangeRule {
    /// dtype, code range, mapping, granularity, eps and scale dtype.
    pub spec: AffineSpec,
    /// Whether the arithmetic on ranges is f32 for batches of every dtype, as in torchao's `pt2e` observers, instead of the batches' dtype.
    pub in_f32: bool,
    /// The zero point of a symmetric mapping; `None` is the middle code, `trunc((quant_min + quant_max + 1) / 2)`.
    pub symmetric_zero_point: Option<i32>,
}

impl From<AffineSpec> for RangeRule {
    fn from(spec: AffineSpec) -> Self {
        Self {
            spec,
            in_f32: false,
            symmetric_zero_point: None,
        }
    }
}

impl RangeRule {
    /// The rule of torchao's `pt2e` observers: f32 arithmetic, f32 scales, eps 2^-23. With a symmetric mapping the zero point is 0 for
    /// a signed dtype; for an unsigned one it is `2^(bits − 1)`, or `floor((quant_min + quant_max) / 2)` where a range is given.
    ///
    /// Source: torchao `quantization/pt2e/observer.py`, `UniformQuantizationObserverBase`.
    pub fn pt2e(dtype: IntDtype, mapping: MappingType, granularity: Granularity, range: Option<(i32, i32)>) -> Self {
        let (low, high) = range.unwrap_or((dtype.min(), dtype.max()));
        let zero_point = match range {
            _ if dtype.is_signed() => 0,
            None => 1 << (dtype.bits() - 1),
            Some((low, high)) => (low + high).div_euclid(2),
        };
        Self {
            spec: AffineSpec::new(dtype, mapping, granularity)
                .with_range(low, high)
                .with_eps(f32::EPSILON)
                .with_scale_dtype(FloatDtype::F32),
            in_f32: true,
            symmetric_zero_point: (mapping != MappingType::Asymmetric).then_some(zero_point),
        }
    }

    /// Uses only the lower half of an unsigned range, or the middle half of a signed one; the symmetric zero point stays.
    pub fn with_reduced_range(mut self) -> Self {
        let halved = |code: i32| (code + code.rem_euclid(2)) / 2 - code.rem_euclid(2);
        (self.spec.quant_min, self.spec.quant_max) = (halved(self.spec.quant_min), halved(self.spec.quant_max));
        self
    }

    /// Whether the parts go together.
    ///
    /// Errors: as [`AffineSpec::validate`]; a float zero point; a symmetric zero point with the asymmetric mapping or outside the dtype.
    pub fn validate(&self) -> Result<()> {
        self.spec.validate()?;
        let dtype = self.spec.dtype;
        let problem = match self.symmetric_zero_point {
            _ if self.spec.zero_point_domain == ZeroPointDomain::Float => {
                "an observed range gives no float zero point: choose the integer domain or none".into()
            }
            Some(_) if self.spec.mapping == MappingType::Asymmetric => {
                "a symmetric zero point needs a symmetric mapping".into()
            }
            Some(zero) if !(dtype.min()..=dtype.max()).contains(&zero) => {
                format!("the symmetric zero point {zero} does not fit {dtype}")
            }
            _ => return Ok(()),
        };
        Err(QuantError::InvalidSpec(problem))
    }

    /// The dtype of range arithmetic for batches of `dtype`.
    pub(crate) fn arithmetic(&self, dtype: FloatDtype) -> FloatDtype {
        if self.in_f32 { FloatDtype::F32 } else { dtype }
    }

    /// Scales and zero points of ranges that batches of `dtype` gave.
    pub(crate) fn qparams(&self, min: &[f32], max: &[f32], dtype: FloatDtype) -> Result<QParams> {
        let mut params = choose_qparams_affine_with_min_max(min, max, self.arithmetic(dtype), &self.spec)?;
        if let (Some(chosen), ZeroPoints::Int(zeros)) = (self.symmetric_zero_point, &mut params.zero_point) {
            zeros.fill(chosen);
        }
        Ok(params)
    }
}

/// Refuses to merge observers of different settings.
pub(crate) fn check_same<T: PartialEq>(left: &T, right: &T) -> Result<()> {
    if left == right {
        return Ok(());
    }
    Err(QuantError::InvalidSpec(
        "observers of different configs cannot be merged".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pt2e_zero_points() {
        let zero = |dtype, range| {
            RangeRule::pt2e(dtype, MappingType::Symmetric, Granularity::PerTensor, range).symmetric_zero_point
        };
        assert_eq!(zero(IntDtype::INT8, None), Some(0));
        assert_eq!(zero(IntDtype::UINT8, None), Some(128));
        assert_eq!(zero(IntDtype::UINT8, Some((0, 15))), Some(7));
    }

    #[test]
    fn reduced_ranges() {
        let range = |dtype| {
            let rule = RangeRule::pt2e(dtype, MappingType::Asymmetric, Granularity::PerTensor, None);
            let spec = rule.with_reduced_range().spec;
            (spec.quant_min, spec.quant_max)
        };
        assert_eq!(range(IntDtype::INT8), (-64, 63));
        assert_eq!(range(IntDtype::UINT8), (0, 127));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let spec = AffineSpec::new(IntDtype::INT8, MappingType::Asymmetric, Granularity::PerTensor);
        let mut rule = RangeRule::from(spec.clone());
        rule.symmetric_zero_point = Some(3);
        assert!(rule.validate().is_err());
        rule.spec.mapping = MappingType::Symmetric;
        assert!(rule.validate().is_ok());
        rule.symmetric_zero_point = Some(300);
        assert!(rule.validate().is_err());
        assert!(
            RangeRule::from(spec.with_zero_point_domain(ZeroPointDomain::Float))
                .validate()
                .is_err()
        );
    }
}
