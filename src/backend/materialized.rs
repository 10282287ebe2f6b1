//! Which operations had to make a packed weight dense: the witness that a model runs on its quantized kernels.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static COUNTS: Mutex<BTreeMap<&'static str, Materialized>> = Mutex::new(BTreeMap::new());

/// What one operation made dense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Materialized {
    /// Packed weights.
    pub weights: usize,
    /// Their elements.
    pub elements: usize,
}

/// Counts a weight of `elements` that `op` made dense.
pub(super) fn add(op: &'static str, elements: usize) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = counts.entry(op).or_default();
    entry.weights += 1;
    entry.elements += elements;
}

/// Weights made dense since the last [`take`], by every thread.
pub fn count() -> usize {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    counts.values().map(|entry| entry.weights).sum()
}

/// What was made dense since the last call, by the name of Burn's operation.
pub fn take() -> BTreeMap<&'static str, Materialized> {
    core::mem::take(&mut *COUNTS.lock().unwrap_or_else(PoisonError::into_inner))
}
