//! How many codes were expanded to floats: the witness that no forward pass writes a whole weight in float.

use core::sync::atomic::{AtomicU64, Ordering};

static EXPANDED: AtomicU64 = AtomicU64::new(0);

/// Counts `elements` that a function has just written to memory as floats.
pub fn add(elements: usize) {
    EXPANDED.fetch_add(elements as u64, Ordering::Relaxed);
}

/// Elements written since the process started, by every thread and every kernel family.
pub fn total() -> u64 {
    EXPANDED.load(Ordering::Relaxed)
}
