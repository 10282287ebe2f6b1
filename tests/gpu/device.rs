//! Backends without fusion, and the device that the suite runs on.

#[cfg(feature = "wgpu")]
pub type Wgpu = burn_wgpu::CubeBackend<burn_wgpu::WgpuRuntime, f32, i32, u32>;
#[cfg(feature = "cuda")]
pub type Cuda = burn_cubecl::CubeBackend<cubecl::cuda::CudaRuntime, f32, i32, u8>;

/// The default device, through the API that the environment names.
#[cfg(feature = "wgpu")]
pub fn wgpu() -> burn_wgpu::WgpuDevice {
    use burn_wgpu::{WgpuDevice, graphics, init_setup};
    use std::sync::OnceLock;
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let api = std::env::var("BURN_QUANTIZED_GPU_API").unwrap_or_default();
        let device = WgpuDevice::default();
        let setup = match api.as_str() {
            "opengl" => init_setup::<graphics::OpenGl>(&device, Default::default()),
            _ => init_setup::<graphics::AutoGraphicsApi>(&device, Default::default()),
        };
        let info = setup.adapter.get_info();
        println!("device: {} ({}, {:?})", info.name, info.driver_info, info.backend);
    });
    WgpuDevice::default()
}
