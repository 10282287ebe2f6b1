//! A stock module on `Quantized<Candle, Portable>`, held to the reference layer by layer.

use crate::Candle;
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor, TensorPrimitive};
use burn_quantized::backend::{Label, QTensor};
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType};
use burn_quantized::tensor::{AffineQuantizedTensor, reference_linear};
use burn_quantized::{Portable, Quantized};
use burn_std::FloatDType;

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

struct ByHand<'a>(&'a AffineSpec, ActivationQuantization);

impl ModuleMapper<Q> for ByHand<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<Q, D>>) -> Param<Tensor<Q, D>> {
        if D != 2 {
            return param;
        }
        let (id, weight, mapper) = param.consume();
        let quantized = quantize(&weight, self.0);
        let label = Label::default();
        let packed = QTensor::from_weight(quantized, self.1, label, true, weight.device(), FloatDType::F32);
        Param::from_mapped_value(id, Tensor::from_primitive(TensorPrimitive::QFloat(packed)), mapper)
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
fn distance_to_reference(spec: &AffineSpec, activation: ActivationQuantization) -> f32 {
    let model = Model::<Q>::new();
    let weights = [&model.hidden, &model.output].map(|layer| quantize(&layer.weight.val(), spec));
    let bias = values(model.hidden.bias.as_ref().unwrap().val());
    let x = Tensor::random([2, 3, 96], Distribution::Uniform(-1.0, 1.0), &Default::default());
    let float = values(model.forward(x.clone()));

    let y = values(model.map(&mut ByHand(spec, activation)).forward(x.clone()));

    let layer = |x: &[f32], weight, bias| reference_linear(x, 6, FloatDtype::F32, weight, &activation, bias);
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
    let int8 = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerRow(-1));
    let int4 = AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, Granularity::PerGroup(32));
    for spec in [int8, int4] {
        let distance = distance_to_reference(&spec, ActivationQuantization::None);
        assert!(distance < 1e-5, "{spec:?}: {distance}");
    }
}

#[test]
fn dynamic_is_the_reference_to_the_bit() {
    let int8 = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerRow(-1));
    let int4 = AffineSpec::new(IntDtype::INT4, MappingType::Symmetric, Granularity::PerGroup(32));
    let per_token = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    assert_eq!(distance_to_reference(&int8, per_token), 0.0);
    assert_eq!(
        distance_to_reference(&int8, ActivationQuantization::int8_dynamic_asymmetric()),
        0.0
    );
    assert_eq!(
        distance_to_reference(&int4, ActivationQuantization::int8_dynamic_asymmetric()),
        0.0
    );
}
