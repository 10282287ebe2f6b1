//! Topics `dynamic_linear`, `weight_only_linear` and `static_linear`: the reference linear, and stock `nn::Linear` modules of both layouts on
//! the kernels of Flex and NdArray, whose weights are the transposed ones of the fixtures.

use crate::fixtures::{Case, run};
use crate::observers::feed;
use crate::recipes::{int8, recipe};
use burn::module::Param;
use burn::nn::{Linear, LinearLayout};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use burn_ndarray::NdArray;
use burn_quantized::dtype::FloatDtype;
use burn_quantized::flow::{to_affine_quantized_intx, to_linear_activation_quantized};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::observe::{MinMaxObserver, Observer};
use burn_quantized::primitives::{ZeroPoints, int_product};
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity};
use burn_quantized::tensor::{AffineQuantizedTensor, QuantizedActivation, quantize_activation, reference_linear};
use burn_quantized::{Native, Quantized, int_matmul};

#[test]
fn dynamic_linear() {
    run("dynamic_linear", |case| {
        match case.text("op") {
            "gemm" => gemm(case),
            "int8_int8" => int8_int8(case)?,
            "int8_intx" => int8_intx(case)?,
            op => return Err(format!("unknown op {op}")),
        }
        Ok(())
    });
}

#[test]
fn weight_only_linear() {
    run("weight_only_linear", |case| {
        let (layer, activation) = Layer::read("weight_only_linear", case)?;
        layer.check_weight(case);
        case.check_floats("weight_dequantized", &layer.weight.dequantize(layer.dtype));
        layer.check_output(case, &activation);
        Ok(())
    });
}

#[test]
fn static_linear() {
    run("static_linear", |case| {
        let (layer, stored) = Layer::read("static_linear", case)?;
        layer.check_weight(case);
        let ActivationQuantization::Static {
            dtype,
            quant_min,
            quant_max,
            ..
        } = stored
        else {
            return Err("a static treatment".into());
        };
        let spec = AffineSpec {
            dtype,
            ..int8(case.mapping("activation_mapping"), Granularity::PerTensor)
        };
        let spec = spec.with_range(quant_min, quant_max);
        let observer = feed(case, MinMaxObserver::new(spec))?;
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
            dtype,
            quant_min,
            quant_max,
        };
        layer.check_accumulator(case, &activation);
        layer.check_output(case, &activation);
        Ok(())
    });
}

fn int8_int8(case: &Case) -> Result<(), String> {
    let (layer, activation) = Layer::read("dynamic_linear", case)?;
    layer.check_weight(case);
    let mut x = layer.check_accumulator(case, &activation);
    let parameters = match activation {
        ActivationQuantization::Dynamic {
            scale: ActivationScale::PerTensor,
            ..
        } => 1,
        _ => layer.rows,
    };
    x.scale.truncate(parameters);
    x.zero_point.truncate(parameters);
    case.check_floats("activation_scale", &x.scale);
    case.check_ints("activation_zero_point", &x.zero_point);
    layer.check_output(case, &activation);
    Ok(())
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

fn int8_intx(case: &Case) -> Result<(), String> {
    let (layer, activation) = Layer::read("dynamic_linear", case)?;
    layer.check_weight(case);
    case.check_floats("weight_dequantized", &layer.weight.dequantize(layer.dtype));
    let x = quantize_activation(&layer.activation, layer.rows, layer.k, layer.dtype, &activation).expect("integers");
    case.check_floats("activation_scale", &x.scale);
    case.check_ints("activation_zero_point", &x.zero_point);
    case.check_ints("activation_codes", &x.codes);
    case.check_floats("activation_dequantized", &x.dequantize(layer.dtype));
    layer.check_output(case, &activation);
    Ok(())
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
    /// The layer of a case and the treatment of its activation.
    fn read(topic: &str, case: &Case) -> Result<(Self, ActivationQuantization), String> {
        let (spec, treatment) = recipe(topic, case).ok_or("a case of an unknown kind")?;
        let (dtype, n, k) = (case.dtype("dtype"), case.size("n"), case.size("k"));
        let activation = case.field("activation").floats();
        let values = case.field("weight").floats();
        let weight = AffineQuantizedTensor::quantize(&values, dtype, &[n, k], &spec);
        let layer = Self {
            spec,
            dtype,
            rows: activation.len() / k,
            k,
            n,
            activation,
            weight: weight.expect("a weight"),
            values,
            bias: case.flag("bias").then(|| case.field("bias").floats()),
        };
        Ok((layer, treatment))
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
