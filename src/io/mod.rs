//! Records: what a file must still be checked for after Burn has loaded it.

mod verify;

pub use verify::{Mismatch, verify};
