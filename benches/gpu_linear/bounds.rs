//! What the device can do at most, measured at the start.

use crate::device::{Matrix, has, sync};
use crate::options::{Options, Stock};
use crate::timing::{Effort, time};
use burn::tensor::{Distribution, FloatDType};
use burn_cubecl::CubeRuntime;
use burn_quantized::dtype::FloatDtype;
use serde::Serialize;

/// Rates of the device.
#[derive(Clone, Copy, Serialize)]
pub struct Bounds {
    /// Bytes a second of a large copy, read and written ones.
    pub copy: f64,
    /// Operations a second of stock Burn's bf16 product of 4096³.
    pub bf16: Option<f64>,
}

impl Bounds {
    pub fn measure<R: CubeRuntime>(device: &R::CubeDevice, options: &Options) -> Result<Self, String> {
        let effort = Effort {
            launches: 20,
            runs: 5,
            most: 1.0,
        };
        let (side, rows) = if options.tiny { (256, 1 << 10) } else { (4096, 1 << 18) };
        let x = Matrix::<R>::ones([rows, 1024], device);
        let copy = time(effort, || sync::<R>(device), |_| drop(x.clone().mul_scalar(2.0)))?;
        let copy = 2.0 * (rows * 1024 * 4) as f64 / copy.wall;
        let bf16 = if options.stock == Stock::None || !has::<R>(device, FloatDtype::BF16) {
            None
        } else {
            let random =
                || Matrix::<R>::random([side, side], Distribution::Uniform(-1.0, 1.0), device).cast(FloatDType::BF16);
            let (a, b) = (random(), random());
            let product = time(effort, || sync::<R>(device), |_| drop(a.clone().matmul(b.clone())))?;
            Some(2.0 * (side as f64).powi(3) / product.wall)
        };
        Ok(Self { copy, bf16 })
    }

    /// The longer of the times for moving `bytes` and for `operations`, in seconds, and its name.
    pub fn of(&self, bytes: usize, operations: f64, int8: bool) -> (f64, &'static str) {
        let bytes = bytes as f64 / self.copy;
        let rate = self.bf16.map(|rate| if int8 { 2.0 * rate } else { rate });
        match rate.map(|rate| operations / rate) {
            Some(operations) if operations > bytes => (operations, "operations"),
            _ => (bytes, "bytes"),
        }
    }
}
