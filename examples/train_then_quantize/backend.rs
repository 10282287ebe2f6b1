//! Which backend runs the example; each is turned on by a feature of the same name.

use crate::{Arguments, run};
use burn_quantized::Native;
use std::error::Error;

/// Runs everything on the backend that the arguments name. Errors: a backend that is not known or not built in.
pub fn dispatch(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    match arguments.backend.as_str() {
        "flex" => run::<burn_flex::Flex, Native>("flex", Default::default(), false, arguments),
        #[cfg(feature = "wgpu")]
        "wgpu" => {
            use burn_wgpu::{Wgpu, WgpuDevice, graphics::AutoGraphicsApi, init_setup};
            let device = WgpuDevice::default();
            let info = init_setup::<AutoGraphicsApi>(&device, Default::default())
                .adapter
                .get_info();
            let name = format!("wgpu ({}, {:?})", info.name, info.backend);
            let software = format!("{:?}", info.device_type) == "Cpu";
            run::<Wgpu, Native>(&name, device, software, arguments)
        }
        #[cfg(feature = "cuda")]
        "cuda" => run::<burn_cuda::Cuda, Native>("cuda", Default::default(), false, arguments),
        other if ["wgpu", "cuda"].contains(&other) => {
            Err(format!("the backend `{other}` is not built in: build with `--features {other}`").into())
        }
        other => Err(format!("unknown backend `{other}`: flex, wgpu or cuda").into()),
    }
}
