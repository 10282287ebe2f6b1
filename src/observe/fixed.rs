//! A scale and a zero point that are known beforehand.

use crate::dtype::FloatDtype;
use crate::error::Result;
use crate::observe::Observer;
use crate::observe::batches::{BatchRange, Batches};
use crate::observe::rule::check_same;
use crate::primitives::{QParams, ZeroPoints};
use serde::{Deserialize, Serialize};

/// Returns the scale and the zero point it was given, whatever the batches hold and without any; bad batches are still refused.
/// Only observers of equal parameters merge.
///
/// Source: torchao `quantization/observer.py`, `AffineQuantizedFixedQParamObserver` (default: scale 1, zero point 0).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FixedObserver {
    scale: f32,
    zero_point: i32,
    batches: Batches,
}

impl Default for FixedObserver {
    fn default() -> Self {
        Self::new(1.0, 0)
    }
}

impl FixedObserver {
    /// One scale, positive and finite, and one zero point for the whole tensor.
    pub fn new(scale: f32, zero_point: i32) -> Self {
        Self {
            scale,
            zero_point,
            batches: Batches::default(),
        }
    }

    /// As `forward` with the values of a whole tensor in that range.
    pub(crate) fn forward_range(&mut self, range: &BatchRange) -> Result<()> {
        self.batches.admit_range(range).map(|_| ())
    }

    /// Batches that came.
    pub fn batches(&self) -> usize {
        self.batches.count()
    }
}

impl Observer for FixedObserver {
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()> {
        self.batches.admit(values, dtype, shape).map(|_| ())
    }

    fn calculate_qparams(&self) -> Result<QParams> {
        self.batches.check_finite()?;
        Ok(QParams {
            scale: vec![self.scale],
            zero_point: ZeroPoints::Int(vec![self.zero_point]),
        })
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        check_same(&(self.scale, self.zero_point), &(other.scale, other.zero_point))?;
        self.batches.append(other.batches);
        Ok(())
    }
}
