//! Holds the crate to the conformance fixtures: `tests/fixtures`, or the folder that `BURN_QUANTIZED_FIXTURES` names.

#[path = "conformance/fixtures.rs"]
#[allow(dead_code, reason = "the GPU suite uses the rest")]
mod fixtures;
#[path = "conformance/linear.rs"]
mod linear;
#[path = "conformance/observers.rs"]
mod observers;
#[path = "conformance/packing.rs"]
mod packing;
#[path = "conformance/primitives.rs"]
mod primitives;
#[path = "conformance/recipes.rs"]
mod recipes;
