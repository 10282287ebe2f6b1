//! torchao's numbers on the device: the outputs of the linear topics, in the way that each fixture asks for.

use crate::cases::{dtypes, linear, pack, tensor, values};
use crate::fixtures::{Case, run_some};
use burn::tensor::Tensor;
use burn_backend::Backend;
use burn_quantized::Native;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType};
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

/// How a case quantizes its weight and its activation; `None` for one without a layer.
fn recipe(topic: &str, case: &Case) -> Option<(AffineSpec, ActivationQuantization)> {
    let int8 = |mapping, granularity| {
        AffineSpec::new(IntDtype::INT8, mapping, granularity)
            .with_eps(f32::EPSILON)
            .with_scale_dtype(FloatDtype::F32)
    };
    Some(match (topic, case.text("op")) {
        ("dynamic_linear", "int8_int8") => {
            let granularity = case.granularity("granularity");
            let scale = match granularity {
                Granularity::PerTensor => ActivationScale::PerTensor,
                _ => ActivationScale::PerToken,
            };
            let how = ActivationQuantization::Dynamic {
                mapping: case.mapping("activation_mapping"),
                scale,
                dtype: IntDtype::INT8,
                quant_min: case.int("quant_min"),
                quant_max: case.int("quant_max"),
                eps: case.float("eps"),
                scale_in_input_dtype: false,
            };
            (int8(case.mapping("weight_mapping"), granularity), how)
        }
        ("dynamic_linear", "int8_intx") => {
            let group = Granularity::PerGroup(case.size("group_size"));
            let spec = AffineSpec::new(IntDtype::INT8, case.mapping("weight_mapping"), group);
            let spec = spec.with_range(case.int("weight_quant_min"), case.int("weight_quant_max"));
            (spec, ActivationQuantization::int8_dynamic_asymmetric())
        }
        ("weight_only_linear", "int8") => (
            int8(MappingType::Symmetric, case.granularity("granularity")),
            ActivationQuantization::None,
        ),
        ("weight_only_linear", _) => {
            let granularity = case.granularity("granularity");
            let spec = AffineSpec::new(IntDtype::INT8, case.mapping("mapping_type"), granularity);
            let spec = spec.with_range(case.int("quant_min"), case.int("quant_max"));
            (
                spec.with_scale_dtype(case.dtype("scale_dtype")),
                ActivationQuantization::None,
            )
        }
        ("static_linear", _) => {
            let zero_point = case.field("activation_zero_point").ints();
            let how = ActivationQuantization::Static {
                scale: case.field("activation_scale").floats()[0],
                zero_point: zero_point[0],
                dtype: match case.text("activation") {
                    "uint8_asym" => IntDtype::UINT8,
                    _ => IntDtype::INT8,
                },
                quant_min: case.int("activation_quant_min"),
                quant_max: case.int("activation_quant_max"),
            };
            (
                int8(case.mapping("weight_mapping"), case.granularity("weight_granularity")),
                how,
            )
        }
        _ => return None,
    })
}
