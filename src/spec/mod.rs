//! A quantization as plain data: dtype, range, mapping, granularity, zero-point domain, activation treatment.

mod activation;
mod affine;
mod granularity;
mod mapping;

pub use activation::{ActivationQuantization, ActivationScale};
pub use affine::AffineSpec;
pub use granularity::{BlockGrid, Granularity};
pub use mapping::{MappingType, ZeroPointDomain};
