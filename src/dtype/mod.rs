//! Basic dtypes: what a code or a scale is, without any metadata.

mod float;
mod int;
pub mod pack;

pub use float::FloatDtype;
pub use int::IntDtype;
