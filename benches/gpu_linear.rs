//! Quantized linears on a GPU: each row beside its bound and beside stock Burn on the same device, in one run.
//!
//!     cargo bench --features cuda --bench gpu_linear -- [--backend cuda|vulkan] [--goals] [--only TEXT,...] [--m LIST] [--shapes KxN,...]
//!                                                       [--stock all|float|none] [--minutes N] [--json FILE] [--ncu] [--tiny]
//!
//! A row is y[M, N] = x[M, K] · W[K, N]; its label is such as `w4a16-g128 f16 m1 k4096 n14336 `. `--only` keeps the rows whose label holds one of
//! the texts, or all parts of one such as `w4+m1 `; `--goals` keeps those of the goal table; stock rows follow `--stock`, `--m` and `--shapes`.
//!
//! - `wall_us` is the median of 20 measurements, each of 200 launches in flight (fewer where one takes more than a millisecond) that end
//!   with a wait for the device; `submit_us` is what the caller's thread spends on a launch. Quantizing the activation is included.
//! - Weights rotate through 256 MB, and at least 4 copies. Codes, scales and activations are drawn at random.
//! - Answers are checked first. On up to 16 rows of x and 64 channels the output is that of `reference_linear`: equal where activations are
//!   integers (on wgpu within 1 %, where a scale may be 2 ulp away), else inside the bound of an f32 sum. And for every row of x, `y · v` with
//!   random signs v must be near `x · (W v)`, which a plain host loop computes from the codes: no output is left out.
//! - `bound_us` is what takes longest at least: moving the weight, x and y at the bandwidth of a copy of 1 GB, or 2·M·K·N operations at
//!   the rate of stock Burn's bf16 product of 4096³ (twice that for int8 products), both measured at the start. The second is a rate that Burn
//!   reaches, not a limit of the device; `benches/peers/gpu_table.py` takes the fastest bf16 product of the peers instead.
//! - `--json FILE` writes one object a line as the rows come: the machine first. `device_us` stays null until `gpu_table.py` merges it.
//! - `--ncu` checks and times nothing: it launches each row 6 times between two kernels `row_marker` of 7×3 units, whose grid names the row,
//!   for `ncu --csv --metrics gpu__time_duration.sum --clock-control none --cache-control none`.
//! - `--tiny` shrinks sizes and counts, to see that the bench runs.
//!
//! A row whose answer is wrong is printed as such, and the bench ends with an error.

#[path = "gpu_linear/bounds.rs"]
mod bounds;
#[path = "gpu_linear/check.rs"]
mod check;
#[path = "gpu_linear/configs.rs"]
mod configs;
#[path = "linear/date.rs"]
mod date;
#[path = "gpu_linear/device.rs"]
mod device;
#[path = "gpu_linear/marker.rs"]
mod marker;
#[path = "gpu_linear/options.rs"]
mod options;
#[path = "gpu_linear/product.rs"]
mod product;
#[path = "gpu_linear/report.rs"]
mod report;
#[path = "gpu_linear/stock.rs"]
mod stock;
#[path = "gpu_linear/suite.rs"]
mod suite;
#[path = "gpu_linear/timing.rs"]
mod timing;
#[path = "gpu_linear/weight.rs"]
mod weight;

use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    device::run(&Options::from_arguments())
}
