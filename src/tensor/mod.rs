//! Quantized tensors: derived dtypes made of basic ones, and how their parts are packed.

mod affine;
pub mod payload;

pub use affine::{AffineParts, AffineQuantizedTensor};
