//! Topics `dynamic_linear`, `weight_only_linear` and `static_linear`, against the reference linear.

use crate::fixtures::{Case, run};
use crate::observers::feed;
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::int_matmul;
use burn_quantized::observe::{MinMaxObserver, Observer};
use burn_quantized::primitives::{ZeroPoints, int_product};
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType};
use burn_quantized::tensor::{AffineQuantizedTensor, QuantizedActivation, quantize_activation, reference_linear};

#[test]
fn dynamic_linear() {
    run("dynamic_linear", |case| {
        match case.text("op") {
            "int8_int8" => int8_int8(case),
            "gemm" => gemm(case),
            "int8_intx" => int8_intx(case),
            op => return Err(format!("unknown op {op}")),
        }
        Ok(())
    });
}

#[test]
fn weight_only_linear() {
    run("weight_only_linear", |case| {
        let (spec, dtype) = match case.text("op") {
            "int8" => (
                int8(MappingType::Symmetric, case.granularity("granularity")),
                case.dtype("dtype"),
            ),
            "intx" => {
                let spec = AffineSpec::new(
                    IntDtype::INT8,
                    case.mapping("mapping_type"),
                    case.granularity("granularity"),
                );
                let spec = spec.with_range(case.int("quant_min"), case.int("quant_max"));
                (spec.with_scale_dtype(case.dtype("scale_dtype")), case.dtype("dtype"))
            }
            op => return Err(format!("unknown op {op}")),
        };
        let layer = Layer::read(case, &spec);
        layer.check_weight(case);
        case.check_floats("weight_dequantized", &layer.weight.dequantize(dtype));
        layer.check_output(case, &ActivationQuantization::None);
        Ok(())
    });
}

#[test]
fn static_linear() {
    run("static_linear", |case| {
        let layer = Layer::read(
            case,
            &int8(case.mapping("weight_mapping"), case.granularity("weight_granularity")),
        );
        layer.check_weight(case);
        let codes = match case.text("activation") {
            "uint8_asym" => IntDtype::UINT8,
            "int8_asym" | "int8_sym" => IntDtype::INT8,
            other => return Err(format!("unknown activation {other}")),
        };
        let spec = AffineSpec {
            dtype: codes,
            ..int8(case.mapping("activation_mapping"), Granularity::PerTensor)
        };
        let spec = spec.with_range(case.int("activation_quant_min"), case.int("activation_quant_max"));
        let observer = feed(case, MinMaxObserver::new(spec.clone()))?;
        let ranges = observer.ranges().ok_or("nothing was observed")?;
        case.check_floats("activation_min", ranges.min());
        case.check_floats("activation_max", ranges.max());
        let params = observer.calculate_qparams().map_err(|error| error.to_string())?;
        let ZeroPoints::Int(zero) = params.zero_point else {
            return Err("an integer zero point".into());
        };
        case.check_floats("activation_scale", &params.scale);
        case.check_ints("activation_zero_point", &zero);
        let activation = ActivationQuantization::Static {
            scale: params.scale[0],
            zero_point: zero[0],
            dtype: codes,
            quant_min: spec.quant_min,
            quant_max: spec.quant_max,
        };
        layer.check_accumulator(case, &activation);
        layer.check_output(case, &activation);
        Ok(())
    });
}

fn int8_int8(case: &Case) {
    let granularity = case.granularity("granularity");
    let scale = match granularity {
        Granularity::PerTensor => ActivationScale::PerTensor,
        _ => ActivationScale::PerToken,
    };
    let activation = ActivationQuantization::Dynamic {
        mapping: case.mapping("activation_mapping"),
        scale,
        dtype: IntDtype::INT8,
        quant_min: case.int("quant_min"),
        quant_max: case.int("quant_max"),
        eps: case.float("eps"),
        scale_in_input_dtype: false,
    };
    let layer = Layer::read(case, &int8(case.mapping("weight_mapping"), granularity));
    layer.check_weight(case);
    let mut x = layer.check_accumulator(case, &activation);
    let parameters = if scale == ActivationScale::PerTensor {
        1
    } else {
        layer.rows
    };
    x.scale.truncate(parameters);
    x.zero_point.truncate(parameters);
    case.check_floats("activation_scale", &x.scale);
    case.check_ints("activation_zero_point", &x.zero_point);
    layer.check_output(case, &activation);
}

fn gemm(case: &Case) {
    let size = [case.size("m"), case.size("n"), case.size("k")];
    let (x, w) = (case.field("activation_codes").ints(), case.field("weight_codes").ints());
    check_exact(case, &int_product(&x, &w, size));
    let [m, n, k] = size;
    let tensor = |codes: &[i32], shape| {
        let data = TensorData::new(codes.to_vec(), shape);
        Tensor::<Flex, 2, Int>::from_data(data, (&FlexDevice, DType::I32))
    };
    let product = int_matmul(tensor(&x, [m, k]), tensor(&w, [n, k]).transpose()).expect("codes of 8 bits");
    case.check_ints("accumulator", product.into_data().as_slice().expect("an i32 tensor"));
}

fn int8_intx(case: &Case) {
    let spec = AffineSpec::new(
        IntDtype::INT8,
        case.mapping("weight_mapping"),
        Granularity::PerGroup(case.size("group_size")),
    );
    let layer = Layer::read(
        case,
        &spec.with_range(case.int("weight_quant_min"), case.int("weight_quant_max")),
    );
    layer.check_weight(case);
    case.check_floats("weight_dequantized", &layer.weight.dequantize(layer.dtype));
    let activation = ActivationQuantization::int8_dynamic_asymmetric();
    let x = quantize_activation(&layer.activation, layer.rows, layer.k, layer.dtype, &activation).expect("integers");
    case.check_floats("activation_scale", &x.scale);
    case.check_ints("activation_zero_point", &x.zero_point);
    case.check_ints("activation_codes", &x.codes);
    case.check_floats("activation_dequantized", &x.dequantize(layer.dtype));
    layer.check_output(case, &activation);
}

/// torchao's int8 linears: f32 scales, eps 2^-23.
fn int8(mapping: MappingType, granularity: Granularity) -> AffineSpec {
    AffineSpec::new(IntDtype::INT8, mapping, granularity)
        .with_eps(f32::EPSILON)
        .with_scale_dtype(FloatDtype::F32)
}

/// The inputs of a case, its weight quantized.
struct Layer {
    dtype: FloatDtype,
    rows: usize,
    k: usize,
    n: usize,
    activation: Vec<f32>,
    weight: AffineQuantizedTensor,
    bias: Option<Vec<f32>>,
}

impl Layer {
    fn read(case: &Case, spec: &AffineSpec) -> Self {
        let (dtype, n, k) = (case.dtype("dtype"), case.size("n"), case.size("k"));
        let activation = case.field("activation").floats();
        let weight = AffineQuantizedTensor::quantize(&case.field("weight").floats(), dtype, &[n, k], spec);
        Self {
            dtype,
            rows: activation.len() / k,
            k,
            n,
            activation,
            weight: weight.expect("a weight"),
            bias: case.flag("bias").then(|| case.field("bias").floats()),
        }
    }

    fn check_weight(&self, case: &Case) {
        case.check_floats("weight_scale", &self.weight.parts().scale);
        case.check_ints("weight_codes", &self.weight.codes());
        if let (true, ZeroPoints::Int(zero)) = (case.has("weight_zero_point"), &self.weight.parts().zero_point) {
            case.check_ints("weight_zero_point", zero);
        }
    }

    fn check_accumulator(&self, case: &Case, activation: &ActivationQuantization) -> QuantizedActivation {
        let x = quantize_activation(&self.activation, self.rows, self.k, self.dtype, activation).expect("integers");
        case.check_ints("activation_codes", &x.codes);
        check_exact(
            case,
            &int_product(&x.codes, &self.weight.codes(), [self.rows, self.n, self.k]),
        );
        x
    }

    fn check_output(&self, case: &Case, activation: &ActivationQuantization) {
        let bias = self.bias.as_deref();
        let y = reference_linear(&self.activation, self.rows, self.dtype, &self.weight, activation, bias);
        case.check_floats("output", &y);
    }
}

fn check_exact(case: &Case, accumulator: &[i64]) {
    let accumulator: Vec<i32> = accumulator
        .iter()
        .map(|acc| i32::try_from(*acc).expect("an i32 sum"))
        .collect();
    case.check_ints("accumulator", &accumulator);
}
