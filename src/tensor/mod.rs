//! Quantized tensors: derived dtypes made of basic ones, and how their parts are packed.

mod affine;
pub mod payload;
pub mod reference;

pub use affine::{AffineParts, AffineQuantizedTensor};
pub use reference::{QuantizedActivation, quantize_activation, reference_linear};
