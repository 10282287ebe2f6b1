//! The range whose quantization error is smallest.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::observe::batches::Batches;
use crate::observe::rule::check_same;
use crate::observe::{BlockRanges, Observer, RangeRule};
use crate::primitives::{Affine, QParams, fake_quantize_affine};
use crate::spec::BlockGrid;
use serde::{Deserialize, Serialize};

/// A loss above every real one; where no step stays below it the raw range is kept.
const START_LOSS: f32 = 1e9;

/// Tries, for each block, the ranges `±r/steps·i` for `i` in `1..=steps` with `r = max(|min|, max)`, and keeps the one with the smallest
/// `mean((fake_quantize(x) − x)²)`; the first of equal ones wins.
///
/// One batch decides: the last, or with `run_once` the first. Merging keeps that rule: the other's range wins if it saw data, or with
/// `run_once` only where this one saw none. The mean is accumulated in f64.
///
/// Source: torchao `quantization/observer.py`, `AffineQuantizedMSEObserver` (default: 100 steps).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MseObserver {
    rule: RangeRule,
    steps: usize,
    run_once: bool,
    batches: Batches,
    found: Option<Found>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Found {
    ranges: BlockRanges,
    losses: Vec<Vec<f32>>,
}

impl MseObserver {
    /// An observer that has seen nothing.
    pub fn new(rule: impl Into<RangeRule>, steps: usize, run_once: bool) -> Self {
        Self {
            rule: rule.into(),
            steps,
            run_once,
            batches: Batches::default(),
            found: None,
        }
    }

    /// The best ranges of the batch that decides.
    pub fn ranges(&self) -> Option<&BlockRanges> {
        self.found.as_ref().map(|found| &found.ranges)
    }

    /// The losses of the batch that decides: one vector a step, one value a block. Empty where nothing was observed.
    pub fn losses(&self) -> &[Vec<f32>] {
        self.found.as_ref().map_or(&[], |found| &found.losses)
    }

    /// Batches that came.
    pub fn batches(&self) -> usize {
        self.batches.count()
    }

    fn search(&self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<Found> {
        let granularity = &self.rule.spec.granularity;
        let raw = BlockRanges::of(values, shape, granularity)?;
        let grid = BlockGrid::new(shape, &granularity.block_size(shape)?)?;
        let arithmetic = self.rule.arithmetic(dtype);
        let radius: Vec<f32> = raw
            .min()
            .iter()
            .zip(raw.max())
            .map(|(min, max)| min.abs().max(*max))
            .collect();
        let (mut min, mut max) = (raw.min().to_vec(), raw.max().to_vec());
        let mut best = vec![START_LOSS; grid.len()];
        let mut losses = Vec::with_capacity(self.steps);
        for step in 1..=self.steps {
            let threshold: Vec<f32> = radius
                .iter()
                .map(|r| arithmetic.round(arithmetic.round(r / self.steps as f32) * step as f32))
                .collect();
            let loss = self.loss(values, dtype, &grid, &threshold)?;
            for (block, loss) in loss.iter().enumerate() {
                if *loss < best[block] {
                    best[block] = *loss;
                    (min[block], max[block]) = (-threshold[block], threshold[block]);
                }
            }
            losses.push(loss);
        }
        let ranges = raw.with(min, max);
        Ok(Found { ranges, losses })
    }

    /// Mean squared error of each block when its range is `±threshold`.
    fn loss(&self, values: &[f32], dtype: FloatDtype, grid: &BlockGrid, threshold: &[f32]) -> Result<Vec<f32>> {
        let low: Vec<f32> = threshold.iter().map(|x| -x).collect();
        let params = self.rule.qparams(&low, threshold, dtype)?;
        let affine = Affine {
            grid,
            scale: &params.scale,
            scale_dtype: self.rule.spec.scale_dtype.unwrap_or(self.rule.arithmetic(dtype)),
            zero_point: &params.zero_point,
            zero_point_dtype: dtype,
            quant_min: self.rule.spec.quant_min,
            quant_max: self.rule.spec.quant_max,
        };
        let got = fake_quantize_affine(values, dtype, &affine);
        let (mut sums, mut counts) = (vec![0f64; grid.len()], vec![0usize; grid.len()]);
        for (range, block) in grid.runs() {
            counts[block] += range.len();
            for (got, x) in got[range.clone()].iter().zip(&values[range]) {
                let difference = f64::from(dtype.round(got - x));
                sums[block] += difference * difference;
            }
        }
        let means = sums
            .iter()
            .zip(&counts)
            .map(|(sum, count)| (sum / *count as f64) as f32);
        Ok(means.collect())
    }
}

impl Observer for MseObserver {
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()> {
        if !self.batches.admit(values, dtype, shape)? || (self.run_once && self.found.is_some()) {
            return Ok(());
        }
        let found = self.search(values, dtype, shape)?;
        if let Some(before) = &self.found {
            before.ranges.check_same_blocks(&found.ranges)?;
        }
        self.found = Some(found);
        Ok(())
    }

    fn calculate_qparams(&self) -> Result<QParams> {
        let dtype = self.batches.observed_dtype()?;
        let ranges = self.ranges().ok_or(QuantError::NoObservations)?;
        self.rule.qparams(ranges.min(), ranges.max(), dtype)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        check_same(
            &(&self.rule, self.steps, self.run_once),
            &(&other.rule, other.steps, other.run_once),
        )?;
        if let (Some(a), Some(b)) = (&self.found, &other.found) {
            a.ranges.check_same_blocks(&b.ranges)?;
        }
        let mine = self.found.take();
        self.found = if self.run_once {
            mine.or(other.found)
        } else {
            other.found.or(mine)
        };
        self.batches.append(other.batches);
        Ok(())
    }
}
