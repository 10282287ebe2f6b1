//! A refusal.

use crate::tensor::AffineQuantizedTensor;

/// A weight that a kernel family cannot take, handed back with the reason.
#[derive(Debug)]
pub struct Unsupported {
    /// The weight as it came.
    pub weight: AffineQuantizedTensor,
    /// Why no kernel of the family serves it.
    pub reason: String,
}
