//! The sources of the parent crate up to the CPU kernels, mounted by path, with their unit tests.
//!
//! On Linux every buffer of these tests ends at an inaccessible page; `guard.rs` says how, and how to turn that off.

#[path = "../../../src/dtype/mod.rs"]
pub mod dtype;
#[path = "../../../src/error.rs"]
pub mod error;
pub mod kernels;
#[path = "../../../src/primitives/mod.rs"]
pub mod primitives;
#[path = "../../../src/spec/mod.rs"]
pub mod spec;
#[path = "../../../src/tensor/mod.rs"]
pub mod tensor;

#[cfg(all(test, target_os = "linux"))]
mod guard;

pub use error::{QuantError, Result};
