//! Counting batches and refusing bad ones: what every observer does first.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use serde::{Deserialize, Serialize};

/// What a device tells of a batch whose values nobody read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct BatchRange {
    pub(crate) min: f32,
    pub(crate) max: f32,
    /// A value that is not finite, where there is one.
    pub(crate) bad: Option<f32>,
    pub(crate) dtype: FloatDtype,
    /// Without elements there is no range.
    pub(crate) empty: bool,
}

/// How many batches came, in which dtype, and the first that was not finite.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Batches {
    count: usize,
    dtype: Option<FloatDtype>,
    bad: Option<BadBatch>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct BadBatch {
    batch: usize,
    value: String,
}

impl Batches {
    /// Counts a batch. `Ok(false)` when it has no elements.
    ///
    /// Errors: a wrong number of values (not counted), NaN or infinity (counted and remembered).
    pub(crate) fn admit(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<bool> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(QuantError::ShapeMismatch {
                what: "values of a calibration batch".into(),
                expected: shape.to_vec(),
                got: vec![values.len()],
            });
        }
        let bad = values.iter().copied().find(|x| !x.is_finite());
        self.add(bad, dtype, values.is_empty())
    }

    /// Counts a batch by its range. As [`Batches::admit`].
    pub(crate) fn admit_range(&mut self, range: &BatchRange) -> Result<bool> {
        self.add(range.bad, range.dtype, range.empty)
    }

    fn add(&mut self, bad: Option<f32>, dtype: FloatDtype, empty: bool) -> Result<bool> {
        let batch = self.count;
        self.count += 1;
        if let Some(value) = bad {
            let bad = BadBatch {
                batch,
                value: value.to_string(),
            };
            let error = bad.error();
            self.bad.get_or_insert(bad);
            return Err(error);
        }
        if empty {
            return Ok(false);
        }
        self.dtype = Some(self.dtype.map_or(dtype, |seen| seen.promote(dtype)));
        Ok(true)
    }

    /// Batches that came, bad and empty ones included.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Errors with the first bad batch.
    pub(crate) fn check_finite(&self) -> Result<()> {
        self.bad.as_ref().map_or(Ok(()), |bad| Err(bad.error()))
    }

    /// The dtype of what was observed; different ones gave f32. Errors where a batch was bad or nothing was observed.
    pub(crate) fn observed_dtype(&self) -> Result<FloatDtype> {
        self.check_finite()?;
        self.dtype.ok_or(QuantError::NoObservations)
    }

    /// Takes in the batches of another observer, as if they had followed.
    pub(crate) fn append(&mut self, other: Self) {
        if self.bad.is_none() {
            self.bad = other.bad.map(|bad| BadBatch {
                batch: self.count + bad.batch,
                ..bad
            });
        }
        self.count += other.count;
        self.dtype = match (self.dtype, other.dtype) {
            (Some(a), Some(b)) => Some(a.promote(b)),
            (a, b) => a.or(b),
        };
    }
}

impl BadBatch {
    fn error(&self) -> QuantError {
        QuantError::NonFiniteBatch {
            batch: self.batch,
            value: self.value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_batch_is_remembered_and_renumbered() {
        let mut left = Batches::default();
        left.admit(&[1.0, 2.0], FloatDtype::F16, &[2]).unwrap();
        let mut right = Batches::default();
        assert!(!right.admit(&[], FloatDtype::F32, &[0, 3]).unwrap());
        assert!(right.admit(&[f32::NAN], FloatDtype::F32, &[1]).is_err());
        assert!(right.admit(&[f32::INFINITY], FloatDtype::F32, &[1]).is_err());
        left.append(right);
        assert_eq!(left.count(), 4);
        let error = QuantError::NonFiniteBatch {
            batch: 2,
            value: "NaN".into(),
        };
        assert_eq!(left.observed_dtype(), Err(error));
    }

    #[test]
    fn a_wrong_length_is_no_batch() {
        let mut batches = Batches::default();
        assert!(batches.admit(&[1.0], FloatDtype::F32, &[2]).is_err());
        assert_eq!(batches.count(), 0);
        assert_eq!(batches.observed_dtype(), Err(QuantError::NoObservations));
    }
}
