//! A histogram of everything seen, and the range that a search cuts out of it.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::observe::batches::Batches;
use crate::observe::range_search;
use crate::observe::ranges::BlockRanges;
use crate::observe::rule::check_same;
use crate::observe::{Observer, RangeRule};
use crate::primitives::QParams;
use crate::spec::Granularity;
use serde::{Deserialize, Serialize};

/// Counts of values in equal bins over `min..=max`; the last bin includes its right edge.
///
/// A count is a fraction where a bin was split. With `min == max` every count is in the first bin.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Histogram {
    min: f32,
    max: f32,
    counts: Vec<f64>,
}

impl Histogram {
    /// The histogram of `values`, all of them in `min..=max`.
    fn of(values: &[f32], min: f32, max: f32, bins: usize) -> Self {
        let counts = vec![0.0; bins];
        let mut histogram = Self { min, max, counts };
        for x in values {
            let bin = histogram.bin_of(f64::from(*x));
            histogram.counts[bin] += 1.0;
        }
        histogram
    }

    /// Left edge of the first bin.
    pub fn min(&self) -> f32 {
        self.min
    }

    /// Right edge of the last bin.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// One count a bin.
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Width of a bin.
    pub fn bin_width(&self) -> f64 {
        (f64::from(self.max) - f64::from(self.min)) / self.counts.len() as f64
    }

    fn bin_of(&self, x: f64) -> usize {
        let width = self.bin_width();
        if width == 0.0 {
            return 0;
        }
        let bin = (x - f64::from(self.min)) / width;
        (bin.max(0.0) as usize).min(self.counts.len() - 1)
    }

    /// The same counts over the range `min..=max`, which holds this one: each bin is split into `upsample_rate` equal parts, and each part
    /// goes whole to the new bin that holds its midpoint. No count moves by more than one new bin.
    fn over(self, min: f32, max: f32, upsample_rate: usize) -> Self {
        if (min, max) == (self.min, self.max) {
            return self;
        }
        let mut wide = Self {
            min,
            max,
            counts: vec![0.0; self.counts.len()],
        };
        let (start, part) = (f64::from(self.min), self.bin_width() / upsample_rate as f64);
        for (bin, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            for split in 0..upsample_rate {
                let midpoint = start + part * ((bin * upsample_rate + split) as f64 + 0.5);
                let target = wide.bin_of(midpoint);
                wide.counts[target] += count / upsample_rate as f64;
            }
        }
        wide
    }

    fn add(&mut self, other: &Self) {
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
    }
}

/// Histogram over the running range of the whole tensor, then a search for the range to quantize.
///
/// The first batch sets the range. A later one widens it, the old counts are redistributed and the batch's own histogram over the new
/// range is added. Merging does the same with both histograms: range and total are exact, and no count is further than a few bins from
/// where it would be had one observer seen all batches.
///
/// Source: torchao `quantization/pt2e/observer.py`, `HistogramObserver` (default: 2048 bins, upsample rate 16).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HistogramObserver {
    rule: RangeRule,
    bins: usize,
    upsample_rate: usize,
    batches: Batches,
    histogram: Option<Histogram>,
}

impl HistogramObserver {
    /// An observer that has seen nothing. `bins` and `upsample_rate` are at least 1; the granularity of `rule` is `PerTensor`.
    /// Range arithmetic is f32, whatever `rule` says.
    pub fn new(rule: impl Into<RangeRule>, bins: usize, upsample_rate: usize) -> Self {
        let rule = RangeRule {
            in_f32: true,
            ..rule.into()
        };
        Self {
            rule,
            bins,
            upsample_rate,
            batches: Batches::default(),
            histogram: None,
        }
    }

    /// The histogram so far.
    pub fn histogram(&self) -> Option<&Histogram> {
        self.histogram.as_ref()
    }

    /// The range that the search chooses, on edges of bins: cut inwards from the tails while the expected squared error of mapping the
    /// histogram to the `2^bits` codes of the dtype falls.
    pub fn searched_range(&self) -> Option<(f32, f32)> {
        let levels = 1 << self.rule.spec.dtype.bits();
        self.histogram
            .as_ref()
            .map(|histogram| range_search::search(histogram, levels))
    }

    /// Batches that came.
    pub fn batches(&self) -> usize {
        self.batches.count()
    }
}

impl Observer for HistogramObserver {
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()> {
        if !self.batches.admit(values, dtype, shape)? {
            return Ok(());
        }
        let range = BlockRanges::of(values, shape, &Granularity::PerTensor)?;
        let (min, max) = (range.min()[0], range.max()[0]);
        self.histogram = Some(match self.histogram.take() {
            None => Histogram::of(values, min, max, self.bins),
            Some(before) => {
                let (min, max) = (min.min(before.min), max.max(before.max));
                let mut wide = before.over(min, max, self.upsample_rate);
                wide.add(&Histogram::of(values, min, max, self.bins));
                wide
            }
        });
        Ok(())
    }

    fn calculate_qparams(&self) -> Result<QParams> {
        let dtype = self.batches.observed_dtype()?;
        let (min, max) = self.searched_range().ok_or(QuantError::NoObservations)?;
        self.rule.qparams(&[min], &[max], dtype)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        check_same(
            &(&self.rule, self.bins, self.upsample_rate),
            &(&other.rule, other.bins, other.upsample_rate),
        )?;
        self.histogram = match (self.histogram.take(), other.histogram) {
            (Some(a), Some(b)) => {
                let (min, max) = (a.min.min(b.min), a.max.max(b.max));
                let mut wide = a.over(min, max, self.upsample_rate);
                wide.add(&b.over(min, max, self.upsample_rate));
                Some(wide)
            }
            (a, b) => a.or(b),
        };
        self.batches.append(other.batches);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_includes_its_left_edge_and_the_last_its_right() {
        let histogram = Histogram::of(&[0.0, 1.0, 1.5, 4.0], 0.0, 4.0, 4);
        assert_eq!(histogram.counts(), [1.0, 2.0, 0.0, 1.0]);
    }

    #[test]
    fn widening_splits_bins_by_midpoints() {
        let wide = Histogram::of(&[0.5, 1.5, 1.5], 0.0, 2.0, 2).over(0.0, 4.0, 16);
        assert_eq!(wide.counts(), [3.0, 0.0]);
        let wide = Histogram::of(&[0.0, 2.0, 2.0], 0.0, 2.0, 2).over(-1.0, 2.0, 2);
        assert_eq!(wide.counts(), [0.5, 2.5]);
    }

    #[test]
    fn a_single_value_is_kept_whole() {
        let wide = Histogram::of(&[3.0; 5], 3.0, 3.0, 4).over(0.0, 4.0, 16);
        assert_eq!(wide.counts(), [0.0, 0.0, 0.0, 5.0]);
    }
}
