//! Quantized tensors: derived dtypes made of basic ones, and how their parts are packed.

mod activation;
mod affine;
pub mod payload;
mod pieces;
pub mod reference;
mod views;

pub use activation::{QuantizedActivation, quantize_activation};
pub use affine::{AffineParts, AffineQuantizedTensor};
pub use reference::reference_linear;
