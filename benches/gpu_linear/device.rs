//! Which backend runs the bench.

use crate::options::Options;
use crate::suite::Suite;
use burn::tensor::backend::Backend;
use burn_cubecl::{CubeBackend, CubeRuntime};
use burn_quantized::dtype::FloatDtype;
use burn_std::{DType, FloatDType};
use std::process::{Command, ExitCode};

/// Burn's backend on a runtime, without fusion: what is timed is a layer and nothing beside it.
pub type Gpu<R> = CubeBackend<R, f32, i32, u32>;

/// A float matrix on the device.
pub type Matrix<R> = burn::tensor::Tensor<Gpu<R>, 2>;

/// Runs the bench on the backend that the arguments name.
///
/// # Panics
/// If the backend is not built in.
pub fn run(options: &Options) -> ExitCode {
    match options.backend.as_deref().unwrap_or(DEFAULT) {
        #[cfg(feature = "cuda")]
        "cuda" => Suite::<cubecl::cuda::CudaRuntime>::new("cuda", smi(), Default::default(), options).run(),
        #[cfg(feature = "wgpu")]
        "vulkan" => {
            let device = burn_wgpu::WgpuDevice::default();
            let setup = burn_wgpu::init_setup::<burn_wgpu::graphics::AutoGraphicsApi>(&device, Default::default());
            let info = setup.adapter.get_info();
            let name = format!("{}, {} ({:?})", info.name, info.driver_info, info.backend);
            Suite::<burn_wgpu::WgpuRuntime>::new("vulkan", name, device, options).run()
        }
        other => panic!("the backend `{other}` is not built in: build with `--features {other}`"),
    }
}

const DEFAULT: &str = if cfg!(feature = "cuda") { "cuda" } else { "vulkan" };

/// Name and driver of the first NVIDIA device.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
fn smi() -> String {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=name,driver_version", "--format=csv,noheader"])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let first = text.ok().and_then(|text| text.lines().next().map(String::from));
    first.map_or("unknown device".into(), |line| line.replace(", ", ", driver "))
}

/// Burn's name of a dtype.
pub fn burn_dtype(dtype: FloatDtype) -> FloatDType {
    match dtype {
        FloatDtype::F32 => FloatDType::F32,
        FloatDtype::F16 => FloatDType::F16,
        FloatDtype::BF16 => FloatDType::BF16,
    }
}

/// Whether the device has tensors of a dtype.
pub fn has<R: CubeRuntime>(device: &R::CubeDevice, dtype: FloatDtype) -> bool {
    <Gpu<R> as burn_backend::Backend>::supports_dtype(device, DType::from(burn_dtype(dtype)))
}

/// Waits for the device. Errors: what the device says of the launches before.
pub fn sync<R: CubeRuntime>(device: &R::CubeDevice) -> Result<(), String> {
    Gpu::<R>::sync(device).map_err(|error| format!("{error:?}"))
}
