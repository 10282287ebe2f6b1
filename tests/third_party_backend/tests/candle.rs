//! Candle, which the library does not know: quantized modules run on it through the portable kernels.
// Burn announces the end of `burn-candle`; a backend from a crate of its own is what is needed here.
#![allow(deprecated)]

#[path = "../../portable/checks.rs"]
mod checks;
#[path = "candle/model.rs"]
mod model;
#[path = "../../portable/oracle.rs"]
mod oracle;

use burn_quantized::dtype::FloatDtype;

type Candle = burn_candle::Candle<f32, i64>;

#[test]
fn products() {
    checks::products::<Candle>(&[FloatDtype::F32, FloatDtype::F16, FloatDtype::BF16]);
}

#[test]
fn long_sums() {
    checks::long_sums::<Candle>();
}

#[test]
fn transposed_and_gathered() {
    checks::transposed_and_gathered::<Candle>();
}

#[test]
fn empty() {
    checks::empty::<Candle>();
}
