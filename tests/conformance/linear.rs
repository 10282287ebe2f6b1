//! Topics `dynamic_linear`, `weight_only_linear` and `static_linear`: the reference linear, and stock `nn::Linear` modules of both layouts on
//! the kernels of Flex and NdArray, whose weights are the transposed ones of the fixtures.

use crate::fixtures::{Case, run};
use crate::observers::feed;
use burn::module::Param;
use burn::nn::{Linear, LinearLayout};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use burn_ndarray::NdArray;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::flow::{to_affine_quantized_intx, to_linear_activation_quantized};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::observe::{MinMaxObserver, Observer};
use burn_quantized::primitives::{ZeroPoints, int_product};
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType};
use burn_quantized::tensor::{AffineQuantizedTensor, QuantizedActivation, quantize_activation, reference_linear};
use burn_quantized::{Native, Quantized, int_matmul};

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
    spec: AffineSpec,
    dtype: FloatDtype,
    rows: usize,
    k: usize,
    n: usize,
    activation: Vec<f32>,
    /// `[N, K]`, as torch stores it.
    values: Vec<f32>,
    weight: AffineQuantizedTensor,
    bias: Option<Vec<f32>>,
}

impl Layer {
    fn read(case: &Case, spec: &AffineSpec) -> Self {
        let (dtype, n, k) = (case.dtype("dtype"), case.size("n"), case.size("k"));
        let activation = case.field("activation").floats();
        let values = case.field("weight").floats();
        let weight = AffineQuantizedTensor::quantize(&values, dtype, &[n, k], spec);
        Self {
            spec: spec.clone(),
            dtype,
            rows: activation.len() / k,
            k,
            n,
            activation,
            weight: weight.expect("a weight"),
            values,
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
        for layout in [LinearLayout::Row, LinearLayout::Col] {
            case.check_floats("output", &self.through_burn::<Flex>(layout, activation));
            if self.dtype == FloatDtype::F32 {
                case.check_floats("output", &self.through_burn::<NdArray>(layout, activation));
            }
        }
    }

    /// The output of a stock `nn::Linear` whose weight was quantized by hand.
    fn through_burn<B: Backend>(&self, layout: LinearLayout, activation: &ActivationQuantization) -> Vec<f32>
    where
        Native: QuantKernels<B>,
    {
        let dtype = match self.dtype {
            FloatDtype::F32 => DType::F32,
            FloatDtype::F16 => DType::F16,
            FloatDtype::BF16 => DType::BF16,
        };
        let device = B::Device::default();
        let data = |values: &[f32], shape: [usize; 2]| TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
        let tensor =
            |values: &[f32], shape| Tensor::<Quantized<B>, 2>::from_data(data(values, shape), (&device, dtype));
        let weight = match layout {
            LinearLayout::Col => tensor(&self.values, [self.n, self.k]).transpose(),
            LinearLayout::Row => {
                let at = |i: usize| self.values[i % self.n * self.k + i / self.n];
                tensor(&(0..self.n * self.k).map(at).collect::<Vec<_>>(), [self.k, self.n])
            }
        };
        let weight = to_affine_quantized_intx(weight, &self.spec).expect("a weight");
        let weight = to_linear_activation_quantized(weight, *activation).expect("a quantized weight");
        let bias = self
            .bias
            .as_ref()
            .map(|bias| Param::from_tensor(tensor(bias, [1, self.n]).reshape([self.n])));
        let linear = Linear {
            weight: Param::from_tensor(weight),
            bias,
        };
        let y = linear.forward(tensor(&self.activation, [self.rows, self.k]));
        assert_eq!(y.dtype(), dtype);
        y.into_data().iter::<f32>().collect()
    }
}

fn check_exact(case: &Case, accumulator: &[i64]) {
    let accumulator: Vec<i32> = accumulator
        .iter()
        .map(|acc| i32::try_from(*acc).expect("an i32 sum"))
        .collect();
    case.check_ints("accumulator", &accumulator);
}
