//! How often values came to the host: the witness that a call waits for no device.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Counts one reading.
pub(super) fn add() {
    COUNT.set(COUNT.get() + 1);
}

/// Tensors or transactions that this thread read through a [`Quantized`](crate::Quantized) backend since the last call.
pub fn take() -> usize {
    COUNT.replace(0)
}
