#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_code)]

pub mod error;

pub mod dtype;

pub mod spec;

pub mod primitives;

pub mod tensor;

pub mod kernels;

pub mod backend;

pub mod observe;

pub mod flow;

pub mod io;

pub use backend::{Quantized, int_matmul, int_scaled_matmul};
pub use error::{QuantError, Result};
pub use kernels::{Native, Portable};
