//! How a case of a linear topic quantizes its weight and its activation.

use crate::fixtures::Case;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType};

/// The weight's specification and the activation's treatment; `None` for a case without a layer, or of an unknown kind. The parameters of
/// a static treatment are those that the fixture stores.
pub fn recipe(topic: &str, case: &Case) -> Option<(AffineSpec, ActivationQuantization)> {
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
        ("weight_only_linear", "intx") => {
            let granularity = case.granularity("granularity");
            let spec = AffineSpec::new(IntDtype::INT8, case.mapping("mapping_type"), granularity);
            let spec = spec.with_range(case.int("quant_min"), case.int("quant_max"));
            (
                spec.with_scale_dtype(case.dtype("scale_dtype")),
                ActivationQuantization::None,
            )
        }
        ("static_linear", _) => {
            let how = ActivationQuantization::Static {
                scale: case.field("activation_scale").floats()[0],
                zero_point: case.field("activation_zero_point").ints()[0],
                dtype: match case.text("activation") {
                    "uint8_asym" => IntDtype::UINT8,
                    "int8_asym" | "int8_sym" => IntDtype::INT8,
                    _ => return None,
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

/// torchao's int8 linears: f32 scales, eps 2^-23.
pub fn int8(mapping: MappingType, granularity: Granularity) -> AffineSpec {
    AffineSpec::new(IntDtype::INT8, mapping, granularity)
        .with_eps(f32::EPSILON)
        .with_scale_dtype(FloatDtype::F32)
}
