//! Scalar truth on slices: the oracle of every kernel test. Public and slow.
//!
//! A float is an `f32` value that its dtype can represent (see [`FloatDtype`](crate::dtype::FloatDtype)); each operation on a dtype
//! rounds on its own. Codes are `i32`, one a value. Blocks are row-major, a shorter last block has its own scale.

pub mod expanded;
mod products;
mod qparams;
mod quantize;

pub use products::{dot_float, dot_int, float_product, int_product};
pub use qparams::{
    QParams, ZeroPoints, choose_qparams_affine, choose_qparams_affine_dont_preserve_zero,
    choose_qparams_affine_with_min_max,
};
pub use quantize::{Affine, dequantize_affine, fake_quantize_affine, quantize_affine};
