//! The CubeCL kernels on whatever device there is: llvmpipe (a Vulkan driver in software) in CI, a GPU elsewhere.
//!
//! `BURN_QUANTIZED_GPU_API=opengl` runs the suite of the Wgpu backend through OpenGL, and so through WGSL, where the default is Vulkan and
//! SPIR-V (feature `vulkan`).

#[path = "gpu/cases.rs"]
mod cases;
#[path = "gpu/conformance.rs"]
mod conformance;
#[path = "gpu/device.rs"]
mod device;
#[path = "gpu/division.rs"]
mod division;
#[path = "conformance/fixtures.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod fixtures;
#[path = "gpu/flows.rs"]
mod flows;
#[path = "gpu/numbers.rs"]
mod numbers;
#[path = "gpu/products.rs"]
mod products;
#[path = "conformance/recipes.rs"]
mod recipes;
#[path = "gpu/rows.rs"]
mod rows;

/// Runs a generic test on each backend that the features turn on, with fusion and without.
macro_rules! on_devices {
    ($($name:ident),+ $(,)?) => {
        #[cfg(feature = "wgpu")]
        mod wgpu {
            $(#[test]
            fn $name() {
                super::$name::<crate::device::Wgpu>(&crate::device::wgpu());
            })+
        }
        #[cfg(all(feature = "wgpu", feature = "fusion"))]
        mod wgpu_fusion {
            $(#[test]
            fn $name() {
                super::$name::<burn_wgpu::Wgpu>(&crate::device::wgpu());
            })+
        }
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test]
            fn $name() {
                super::$name::<crate::device::Cuda>(&Default::default());
            })+
        }
        #[cfg(all(feature = "cuda", feature = "fusion"))]
        mod cuda_fusion {
            $(#[test]
            fn $name() {
                super::$name::<burn_cuda::Cuda>(&Default::default());
            })+
        }
    };
}
use on_devices;
