//! The moving average of minima and maxima.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::observe::batches::{BatchRange, Batches};
use crate::observe::rule::check_same;
use crate::observe::{BlockRanges, Observer, RangeRule};
use crate::primitives::QParams;
use crate::spec::Granularity;
use serde::{Deserialize, Serialize};

/// The first batch sets each range, every later one moves it: `min = min + c · (batch_min − min)`, the same for the maximum,
/// each operation rounded to f32.
///
/// Merging gives what the other's batches would have given after this one's, up to f32 rounding: with `n` batches of the other, `first`
/// the range of its first and `m` its average, `min = m + (1 − c)^n · (min − first)`. Batch order matters to a moving average, so the
/// order of merges does too.
///
/// Source: torchao `quantization/pt2e/observer.py`, `MovingAverageMinMaxObserver`, with `PerAxis` `MovingAveragePerChannelMinMaxObserver`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MovingAverageObserver {
    rule: RangeRule,
    averaging_constant: f32,
    batches: Batches,
    average: Option<Average>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Average {
    ranges: BlockRanges,
    first: BlockRanges,
    batches: u32,
}

impl MovingAverageObserver {
    /// An observer that has seen nothing. `averaging_constant` is the weight of a new batch, in `0..=1`; torchao's default is 0.01.
    /// Range arithmetic is f32, whatever `rule` says.
    pub fn new(rule: impl Into<RangeRule>, averaging_constant: f32) -> Self {
        let rule = RangeRule {
            in_f32: true,
            ..rule.into()
        };
        Self {
            rule,
            averaging_constant,
            batches: Batches::default(),
            average: None,
        }
    }

    /// The averaged ranges so far.
    pub fn ranges(&self) -> Option<&BlockRanges> {
        self.average.as_ref().map(|average| &average.ranges)
    }

    /// Batches that came.
    pub fn batches(&self) -> usize {
        self.batches.count()
    }
}

impl Average {
    fn follow(&mut self, batch: &BlockRanges, constant: f32) -> Result<()> {
        self.ranges.check_same_blocks(batch)?;
        let blend = |from: &[f32], to: &[f32]| {
            let pairs = from.iter().zip(to);
            pairs.map(|(from, to)| from + constant * (to - from)).collect()
        };
        let min = blend(self.ranges.min(), batch.min());
        let max = blend(self.ranges.max(), batch.max());
        self.ranges = self.ranges.with(min, max);
        self.batches += 1;
        Ok(())
    }

    fn append(&mut self, other: Self, constant: f32) -> Result<()> {
        self.ranges.check_same_blocks(&other.ranges)?;
        let kept = (1.0 - f64::from(constant)).powf(f64::from(other.batches));
        let blend = |mine: &[f32], first: &[f32], average: &[f32]| {
            let rows = mine.iter().zip(first).zip(average);
            let (mine, first) = (f64::from, f64::from);
            rows.map(|((a, b), m)| (f64::from(*m) + kept * (mine(*a) - first(*b))) as f32)
                .collect()
        };
        let min = blend(self.ranges.min(), other.first.min(), other.ranges.min());
        let max = blend(self.ranges.max(), other.first.max(), other.ranges.max());
        self.ranges = self.ranges.with(min, max);
        self.batches += other.batches;
        Ok(())
    }
}

impl MovingAverageObserver {
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
        match &mut self.average {
            Some(average) => average.follow(&batch, self.averaging_constant)?,
            none => {
                *none = Some(Average {
                    ranges: batch.clone(),
                    first: batch,
                    batches: 1,
                });
            }
        }
        Ok(())
    }
}

impl Observer for MovingAverageObserver {
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()> {
        if !self.batches.admit(values, dtype, shape)? {
            return Ok(());
        }
        self.take(BlockRanges::of(values, shape, &self.rule.spec.granularity)?)
    }

    fn calculate_qparams(&self) -> Result<QParams> {
        let dtype = self.batches.observed_dtype()?;
        let ranges = self.ranges().ok_or(QuantError::NoObservations)?;
        self.rule.qparams(ranges.min(), ranges.max(), dtype)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        check_same(
            &(&self.rule, self.averaging_constant),
            &(&other.rule, other.averaging_constant),
        )?;
        match (&mut self.average, other.average) {
            (Some(average), Some(more)) => average.append(more, self.averaging_constant)?,
            (none, more) => *none = none.take().or(more),
        }
        self.batches.append(other.batches);
        Ok(())
    }
}
