//! Of the kernels, what needs no backend.

#[path = "../../../src/kernels/cpu/mod.rs"]
pub mod cpu;
#[path = "../../../src/kernels/expected.rs"]
mod expected;
#[path = "../../../src/kernels/unsupported.rs"]
mod unsupported;

pub use crate::primitives::expanded;
pub use expected::Expected;
pub use unsupported::Unsupported;
