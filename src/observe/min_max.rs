//! The running minimum and maximum.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::observe::batches::{BatchRange, Batches};
use crate::observe::rule::check_same;
use crate::observe::{BlockRanges, Observer, RangeRule};
use crate::primitives::QParams;
use crate::spec::Granularity;
use serde::{Deserialize, Serialize};

/// Keeps the smallest and the largest value of each block over all batches. Merging is exact, in any order.
///
/// Source: torchao `quantization/observer.py`, `AffineQuantizedMinMaxObserver`; with [`RangeRule::pt2e`], `MinMaxObserver` and (with
/// `PerAxis`) `PerChannelMinMaxObserver` of `quantization/pt2e/observer.py`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MinMaxObserver {
    rule: RangeRule,
    batches: Batches,
    ranges: Option<BlockRanges>,
}

impl MinMaxObserver {
    /// An observer that has seen nothing. `rule` is read as it is, see [`RangeRule::validate`].
    pub fn new(rule: impl Into<RangeRule>) -> Self {
        Self {
            rule: rule.into(),
            batches: Batches::default(),
            ranges: None,
        }
    }

    /// The ranges so far.
    pub fn ranges(&self) -> Option<&BlockRanges> {
        self.ranges.as_ref()
    }

    /// Batches that came.
    pub fn batches(&self) -> usize {
        self.batches.count()
    }
}

impl MinMaxObserver {
    pub(crate) fn is_per_tensor(&self) -> bool {
        self.rule.spec.granularity == Granularity::PerTensor
    }

    /// As `forward` with the values of a whole tensor in that range.
    pub(crate) fn forward_range(&mut self, range: &BatchRange) -> Result<()> {
        if !self.batches.admit_range(range)? {
            return Ok(());
        }
        self.take(BlockRanges::one(range.min, range.max))
    }

    fn take(&mut self, batch: BlockRanges) -> Result<()> {
        match &mut self.ranges {
            Some(ranges) => ranges.widen(&batch),
            none => {
                *none = Some(batch);
                Ok(())
            }
        }
    }
}

impl Observer for MinMaxObserver {
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()> {
        if !self.batches.admit(values, dtype, shape)? {
            return Ok(());
        }
        self.take(BlockRanges::of(values, shape, &self.rule.spec.granularity)?)
    }

    fn calculate_qparams(&self) -> Result<QParams> {
        let dtype = self.batches.observed_dtype()?;
        let ranges = self.ranges.as_ref().ok_or(QuantError::NoObservations)?;
        self.rule.qparams(ranges.min(), ranges.max(), dtype)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        check_same(&self.rule, &other.rule)?;
        match (&mut self.ranges, other.ranges) {
            (Some(ranges), Some(more)) => ranges.widen(&more)?,
            (none, more) => *none = none.take().or(more),
        }
        self.batches.append(other.batches);
        Ok(())
    }
}
