//! An observer as plain data.

use crate::dtype::{FloatDtype, IntDtype};
use crate::error::{QuantError, Result};
use crate::observe::{
    AnyObserver, FixedObserver, HistogramObserver, MinMaxObserver, MovingAverageObserver, MseObserver, RangeRule,
};
use crate::spec::{AffineSpec, Granularity, MappingType};
use serde::{Deserialize, Serialize};

/// What an observer remembers of the batches.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum ObserverKind {
    /// [`MinMaxObserver`].
    MinMax,
    /// [`MovingAverageObserver`].
    MovingAverage {
        /// Weight of a new batch, above 0 and at most 1.
        averaging_constant: f32,
    },
    /// [`FixedObserver`].
    Fixed {
        /// Positive and finite.
        scale: f32,
        /// Inside the code range.
        zero_point: i32,
    },
    /// [`MseObserver`].
    Mse {
        /// Ranges tried, at least 1.
        steps: usize,
        /// Whether the first batch decides, instead of the last.
        run_once: bool,
    },
    /// [`HistogramObserver`].
    Histogram {
        /// Bins, at least 1.
        bins: usize,
        /// Parts that a bin is split into when the range widens, at least 1.
        upsample_rate: usize,
    },
}

impl ObserverKind {
    /// torchao's moving average: constant 0.01.
    pub const fn moving_average() -> Self {
        Self::MovingAverage {
            averaging_constant: 0.01,
        }
    }

    /// torchao's error search: 100 steps, the last batch decides.
    pub const fn mse() -> Self {
        Self::Mse {
            steps: 100,
            run_once: false,
        }
    }

    /// torchao's histogram: 2048 bins, split into 16 parts.
    pub const fn histogram() -> Self {
        Self::Histogram {
            bins: 2048,
            upsample_rate: 16,
        }
    }
}

/// An observer to be built, for a weight, an activation or an output.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ObserverConfig {
    /// What is remembered.
    pub kind: ObserverKind,
    /// How that becomes scales and zero points.
    pub rule: RangeRule,
}

impl ObserverConfig {
    /// Any kind with any rule; an [`AffineSpec`] is torchao's affine rule.
    pub fn new(kind: ObserverKind, rule: impl Into<RangeRule>) -> Self {
        let rule = rule.into();
        Self { kind, rule }
    }

    /// torchao's static activation: min-max of the whole tensor, the full range of `dtype`, f32 scale, eps 2^-23.
    pub fn activation(dtype: IntDtype, mapping: MappingType) -> Self {
        Self::min_max(dtype, mapping, Granularity::PerTensor)
    }

    /// torchao's weight of a static linear: symmetric int8 min-max for each output channel of `[N, K]`, f32 scale, eps 2^-23.
    pub fn weight_int8() -> Self {
        Self::min_max(IntDtype::INT8, MappingType::Symmetric, Granularity::PerAxis(0))
    }

    fn min_max(dtype: IntDtype, mapping: MappingType, granularity: Granularity) -> Self {
        let spec = AffineSpec::new(dtype, mapping, granularity);
        let spec = spec.with_eps(f32::EPSILON).with_scale_dtype(FloatDtype::F32);
        Self::new(ObserverKind::MinMax, spec)
    }

    /// Observes with another kind.
    pub fn with_kind(mut self, kind: ObserverKind) -> Self {
        self.kind = kind;
        self
    }

    /// An observer that has seen nothing.
    ///
    /// Errors: as [`RangeRule::validate`], a number of the kind outside what it says, `Fixed` or `Histogram` with a granularity other than
    /// `PerTensor`.
    pub fn build(&self) -> Result<AnyObserver> {
        self.rule.validate()?;
        let refuse = |what: &str| Err(QuantError::InvalidSpec(what.into()));
        let per_tensor = self.rule.spec.granularity == Granularity::PerTensor;
        let codes = self.rule.spec.quant_min..=self.rule.spec.quant_max;
        let rule = self.rule.clone();
        Ok(match self.kind {
            ObserverKind::MinMax => AnyObserver::MinMax(MinMaxObserver::new(rule)),
            ObserverKind::MovingAverage { averaging_constant: c } => {
                if !(c > 0.0 && c <= 1.0) {
                    return refuse("an averaging constant lies above 0 and is at most 1");
                }
                AnyObserver::MovingAverage(MovingAverageObserver::new(rule, c))
            }
            ObserverKind::Fixed { scale, zero_point } => {
                if !(scale > 0.0 && scale.is_finite() && codes.contains(&zero_point)) {
                    return refuse(
                        "a fixed scale is positive and finite, a fixed zero point lies in the range of the codes",
                    );
                }
                if !per_tensor {
                    return refuse("a fixed observer has one scale: choose per_tensor");
                }
                AnyObserver::Fixed(FixedObserver::new(scale, zero_point))
            }
            ObserverKind::Mse { steps: 0, .. } => return refuse("the error search needs at least one step"),
            ObserverKind::Mse { steps, run_once } => AnyObserver::Mse(MseObserver::new(rule, steps, run_once)),
            ObserverKind::Histogram { bins, upsample_rate } => {
                if bins == 0 || upsample_rate == 0 {
                    return refuse("a histogram needs at least one bin and an upsample rate of at least 1");
                }
                if !per_tensor {
                    return refuse("a histogram observes the whole tensor: choose per_tensor");
                }
                AnyObserver::Histogram(HistogramObserver::new(rule, bins, upsample_rate))
            }
        })
    }
}
