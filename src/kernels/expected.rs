//! What a report says of speed before anything runs.

/// How fast the products of a packed weight are expected to be, beside the backend's float product.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Expected {
    /// At least as fast at every batch, as far as the kernels know.
    #[default]
    Faster,
    /// Slower at some batches: which.
    Mixed(String),
    /// Slower, or nothing to gain: why. Flows leave such a layer in float unless the config says otherwise.
    Slower(String),
}
