//! A stock module on `Quantized<Candle, Portable>`, held to the reference layer by layer.

use crate::Candle;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use burn_quantized::dtype::FloatDtype;
use burn_quantized::flow::{
    self, Int4WeightOnly, Int8DynamicActivationInt8Weight, Int8DynamicActivationIntxWeight, Int8WeightOnly,
    LayerConfig, Recipe,
};
use burn_quantized::spec::AffineSpec;
use burn_quantized::tensor::{AffineQuantizedTensor, reference_linear};
use burn_quantized::{Portable, Quantized};

/// The decorator finds every operation it needs in Candle and in the portable kernels.
type Q = Quantized<Candle, Portable>;

#[derive(Module, Debug)]
struct Model<B: Backend> {
    hidden: Linear<B>,
    output: Linear<B>,
}

impl<B: Backend> Model<B> {
    fn new() -> Self {
        let device = Default::default();
        Self {
            hidden: LinearConfig::new(96, 40).init(&device),
            output: LinearConfig::new(40, 10).with_bias(false).init(&device),
        }
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.output.forward(relu(self.hidden.forward(x)))
    }
}

fn values<const D: usize>(tensor: Tensor<Q, D>) -> Vec<f32> {
    tensor.into_data().to_vec().unwrap()
}

/// A `Linear` weight `[K, N]`, read as `[N, K]`.
fn quantize<const D: usize>(weight: &Tensor<Q, D>, spec: &AffineSpec) -> AffineQuantizedTensor {
    let rows = weight.clone().swap_dims(0, 1);
    let shape = rows.dims();
    AffineQuantizedTensor::quantize(&values(rows), FloatDtype::F32, &shape, spec).unwrap()
}

/// The largest distance to the reference, for a batch of 2 x 3 rows.
fn distance_to_reference(config: &impl LayerConfig) -> f32 {
    let Recipe {
        weight: spec,
        activation,
        ..
    } = &config.recipe().unwrap();
    let model = Model::<Q>::new();
    let weights = [&model.hidden, &model.output].map(|layer| quantize(&layer.weight.val(), spec));
    let bias = values(model.hidden.bias.as_ref().unwrap().val());
    let x = Tensor::random([2, 3, 96], Distribution::Uniform(-1.0, 1.0), &Default::default());
    let float = values(model.forward(x.clone()));

    let (model, report) = flow::quantize(model, config).unwrap();
    assert_eq!(report.quantized().count(), 2, "{report}");
    assert!(report.to_string().contains("portable"), "{report}");
    let y = values(model.forward(x.clone()));

    let layer = |x: &[f32], weight, bias| reference_linear(x, 6, FloatDtype::F32, weight, activation, bias);
    let hidden: Vec<f32> = layer(&values(x), &weights[0], Some(&bias))
        .iter()
        .map(|x| x.max(0.0))
        .collect();
    let expected = layer(&hidden, &weights[1], None);
    let distance = |other: &[f32]| y.iter().zip(other).fold(0f32, |most, (x, y)| most.max((x - y).abs()));
    let to_float = distance(&float);
    assert!(to_float > 0.0 && to_float < 0.2, "{to_float} away from the float model");
    distance(&expected)
}

#[test]
fn weight_only() {
    for distance in [
        distance_to_reference(&Int8WeightOnly::default()),
        distance_to_reference(&Int4WeightOnly::new(32)),
        distance_to_reference(&Int4WeightOnly::new(32).integer_zero_point()),
    ] {
        assert!(distance < 1e-5, "{distance}");
    }
}

#[test]
fn dynamic_is_the_reference_to_the_bit() {
    assert_eq!(distance_to_reference(&Int8DynamicActivationInt8Weight::default()), 0.0);
    assert_eq!(
        distance_to_reference(&Int8DynamicActivationInt8Weight::default().asymmetric()),
        0.0
    );
    assert_eq!(distance_to_reference(&Int8DynamicActivationIntxWeight::new(4, 32)), 0.0);
}
