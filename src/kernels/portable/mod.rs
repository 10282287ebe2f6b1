//! Products in a backend's own tensor operations.

use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;

/// A weight as quantized, with the treatment of its activations.
#[derive(Clone, Debug)]
pub struct PortableWeight {
    /// Codes, scales and zero points; `[N, K]` for a matrix.
    pub weight: AffineQuantizedTensor,
    /// What happens to an activation first.
    pub activation: ActivationQuantization,
}
