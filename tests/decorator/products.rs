//! Products by hand: both orientations, gradients through a frozen base, observed weights, errors.

use crate::helpers::{alone, int4, int8, is_packed_float, pack, pack_with, primitive, weight};
use burn::backend::Autodiff;
use burn::tensor::module::linear;
use burn::tensor::{Distribution, Tensor, TensorPrimitive, Tolerance};
use burn_backend::tensor::FloatTensor;
use burn_flex::Flex;
use burn_quantized::backend::{Body, InputObserver, Label, Observed, QTensor, materialized};
use burn_quantized::dtype::FloatDtype;
use burn_quantized::spec::{ActivationQuantization, ActivationScale, AffineSpec};
use burn_quantized::{Native, Quantized};
use std::sync::{Arc, Mutex};

type Q = Quantized<Flex>;

/// `[K, N]` floats of what the codes of a logical `[N, K]` say.
fn dense<const D: usize>(shape: [usize; 2], spec: &AffineSpec) -> Tensor<Flex, D> {
    let values = weight(shape, spec).dequantize(FloatDtype::F32);
    let tensor = Tensor::<Flex, 2>::from_data(burn::tensor::TensorData::new(values, shape), &Default::default());
    tensor.transpose().unsqueeze()
}

fn input<const D: usize>(shape: [usize; D]) -> (Tensor<Q, D>, Tensor<Flex, D>) {
    let x = Tensor::<Flex, D>::random(shape, Distribution::Uniform(-1.0, 1.0), &Default::default());
    (Tensor::from_data(x.to_data(), &Default::default()), x)
}

fn assert_near<const D: usize>(got: Tensor<Q, D>, expected: Tensor<Flex, D>) {
    got.into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
}

#[test]
fn both_orientations_stay_packed() {
    let _alone = alone();
    for spec in [int8(), int4()] {
        let q = pack::<Flex, Native>(weight([24, 40], &spec), true);
        let (x, plain) = input([2, 3, 40]);
        assert_near(x.matmul(q.clone().unsqueeze()), plain.matmul(dense([24, 40], &spec)));
        let (x, plain) = input([5, 24]);
        assert_near(
            x.matmul(q.clone().transpose()),
            plain.clone().matmul(dense::<2>([24, 40], &spec).transpose()),
        );
        // The float that `dequantize` gives is still packed, and so are its views.
        let float = q.dequantize();
        let viewed = float.transpose().unsqueeze::<4>().squeeze_dims::<2>(&[0, 1]);
        assert!(is_packed_float(&viewed));
        let bias = Tensor::<Q, 1>::ones([40], &Default::default());
        let (x, plain) = input([5, 24]);
        let expected = plain.matmul(dense::<2>([24, 40], &spec).transpose()).add_scalar(1.0);
        assert_near(linear(x, viewed, Some(bias)), expected);
    }
    assert_eq!(materialized::take(), Default::default());
}

#[test]
fn other_operations_materialize_and_are_counted() {
    let _alone = alone();
    let q = pack::<Flex, Native>(weight([24, 40], &int8()), true);
    let expected = dense::<2>([24, 40], &int8()).mul_scalar(2.0);
    let expanded = burn_quantized::kernels::expanded::total();
    assert_near(q.dequantize().mul_scalar(2.0), expected);
    let counts = materialized::take();
    assert_eq!(
        (counts["float_mul_scalar"].weights, counts["float_mul_scalar"].elements),
        (1, 960)
    );
    assert_eq!(burn_quantized::kernels::expanded::total() - expanded, 960);
}

#[test]
fn gradients_through_a_frozen_base_equal_a_dense_ones() {
    let _alone = alone();
    for spec in [int8(), int4()] {
        let q = pack::<Flex, Native>(weight([24, 40], &spec), true);
        let (x, plain) = input([2, 3, 40]);
        let frozen = Tensor::<Autodiff<Q>, 2>::from_inner(q.dequantize());
        let x = Tensor::<Autodiff<Q>, 3>::from_inner(x).require_grad();
        let base = Tensor::<Autodiff<Flex>, 2>::from_inner(dense([24, 40], &spec));
        let plain = Tensor::<Autodiff<Flex>, 3>::from_inner(plain).require_grad();
        let (y, expected) = (linear(x.clone(), frozen, None), linear(plain.clone(), base, None));
        assert_near(y.clone().inner(), expected.clone().inner());
        let (grads, plain_grads) = (
            y.powi_scalar(2).sum().backward(),
            expected.powi_scalar(2).sum().backward(),
        );
        let gradient = x.grad(&grads).unwrap().into_data();
        gradient.assert_approx_eq::<f32>(
            &plain.grad(&plain_grads).unwrap().into_data(),
            Tolerance::absolute(1e-3),
        );
        assert_eq!(materialized::take(), Default::default());
    }
}

#[derive(Debug, Default)]
struct Seen {
    inputs: Mutex<Vec<f32>>,
    outputs: Mutex<Vec<usize>>,
}

impl InputObserver<Flex> for Seen {
    fn observe_input(&self, x: &FloatTensor<Flex>) {
        let x = Tensor::<Flex, 1>::from_primitive(TensorPrimitive::Float(x.clone()));
        self.inputs.lock().unwrap().extend(x.into_data().iter::<f32>());
    }

    fn observe_output(&self, y: &FloatTensor<Flex>) {
        use burn_backend::TensorMetadata;
        self.outputs.lock().unwrap().extend(y.shape().iter());
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[test]
fn an_observed_weight_sees_its_inputs_and_stays_exact() {
    let _alone = alone();
    let base = dense::<2>([24, 40], &int8());
    let observer = Arc::new(Seen::default());
    let observed = Observed {
        weight: base.clone().into_primitive().tensor(),
        observer: observer.clone(),
    };
    let mut tensor = QTensor::<Flex, Native>::from_float(observed.weight.clone(), Default::default());
    tensor.body = Arc::new(Body::Observed(observed));
    let weight = Tensor::<Q, 2>::from_primitive(TensorPrimitive::QFloat(tensor));
    let (x, plain) = input([3, 40]);
    let bias = Tensor::<Q, 1>::ones([24], &Default::default());
    let got = linear(x.clone(), weight.clone(), Some(bias)).into_data();
    assert_eq!(
        got,
        linear(plain.clone(), base, Some(Tensor::ones([24], &Default::default()))).into_data()
    );
    assert_eq!(
        *observer.inputs.lock().unwrap(),
        plain.into_data().iter::<f32>().collect::<Vec<_>>()
    );
    assert_eq!(*observer.outputs.lock().unwrap(), [3, 24]);
    // The transposed product is another activation: it is not observed.
    let _ = input([2, 24]).0.matmul(weight.transpose());
    assert_eq!(observer.outputs.lock().unwrap().len(), 2);
    assert_eq!(materialized::count(), 0);
}

#[test]
fn an_activation_treatment_applies_in_the_layers_orientation_only() {
    let _alone = alone();
    let activation = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    let treated = pack_with::<Flex, Native>(weight([24, 40], &int8()), activation, Label::default(), true);
    let (x, plain) = input([3, 40]);
    let exact = plain.matmul(dense([24, 40], &int8())).into_data();
    let got = x.matmul(treated.clone()).into_data();
    assert_ne!(got, exact);
    got.assert_approx_eq::<f32>(&exact, Tolerance::absolute(0.1));
    let (x, plain) = input([3, 24]);
    assert_near(
        x.matmul(treated.transpose()),
        plain.matmul(dense::<2>([24, 40], &int8()).transpose()),
    );
}

#[test]
#[should_panic(
    expected = "linear: activation [3, 41] does not fit weight [40, 24] of layer encoder.fc.weight (int8 in blocks of [1, 40]"
)]
fn a_wrong_activation_names_the_layer() {
    let label = Label {
        path: "encoder.fc.weight".into(),
        container: "Struct:Linear".into(),
    };
    let q = pack_with::<Flex, Native>(weight([24, 40], &int8()), ActivationQuantization::None, label, true);
    linear(Tensor::<Q, 2>::zeros([3, 41], &Default::default()), q, None);
}

#[test]
fn the_float_primitive_is_no_larger_than_the_inner_one() {
    use burn_quantized::backend::FloatPrimitive;
    assert!(size_of::<FloatPrimitive<Flex, Native>>() <= size_of::<FloatTensor<Flex>>());
    #[cfg(feature = "ndarray")]
    {
        type NdArray = burn_ndarray::NdArray;
        assert!(size_of::<FloatPrimitive<NdArray, Native>>() <= size_of::<FloatTensor<NdArray>>());
    }
    let q = pack::<Flex, Native>(weight([4, 8], &int8()), true);
    assert!(primitive(&q).is_matrix());
}
