//! torchao's numbers on the device: the outputs of the linear topics, in the way that each fixture asks for.

use crate::cases::{dtypes, linear, pack, tensor, values};
use crate::fixtures::run_some;
use crate::recipes::recipe;
use burn::tensor::Tensor;
use burn_backend::Backend;
use burn_quantized::Native;
use burn_quantized::kernels::QuantKernels;
use burn_quantized::tensor::AffineQuantizedTensor;

crate::on_devices!(torchao_linears);

fn torchao_linears<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let dtypes = dtypes::<B>(device);
    for topic in ["dynamic_linear", "weight_only_linear", "static_linear"] {
        let (ran, skipped) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        run_some(topic, |case| {
            let Some((spec, how)) = recipe(topic, case) else {
                return Ok(());
            };
            let dtype = case.dtype("dtype");
            if !dtypes.contains(&dtype) {
                skipped.set(skipped.get() + 1);
                return Ok(());
            }
            let (n, k) = (case.size("n"), case.size("k"));
            let x = case.field("activation").floats();
            let weight = AffineQuantizedTensor::quantize(&case.field("weight").floats(), dtype, &[n, k], &spec);
            let packed = pack::<B>(&weight.map_err(|error| error.to_string())?, how, device);
            let bias = case.flag("bias").then(|| case.field("bias").floats());
            let bias = bias.map(|bias| tensor::<B, 1>(&bias, [n], dtype, device));
            let x: Tensor<B, 2> = tensor(&x, [x.len() / k, k], dtype, device);
            case.check_floats("output", &values(linear(x, &packed, bias)));
            ran.set(ran.get() + 1);
            Ok(())
        });
        let (ran, skipped) = (ran.get(), skipped.get());
        println!(
            "{topic} on {}: {ran} cases, {skipped} of a dtype that the device lacks",
            B::name(device)
        );
        assert!(ran > 0, "{topic}");
    }
}
