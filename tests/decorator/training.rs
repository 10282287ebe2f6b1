//! Training under `Autodiff` is the plain backend's, bit for bit.

use crate::helpers::alone;
use burn::backend::Autodiff;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Distribution, Int, Tensor};
use burn_backend::Backend;
use burn_flex::Flex;
use burn_quantized::Quantized;

#[derive(Module, Debug)]
struct Model<B: Backend> {
    first: Linear<B>,
    dropout: Dropout,
    second: Linear<B>,
}

/// The losses of 20 Adam steps, as bits.
fn losses<B: AutodiffBackend>() -> Vec<u32> {
    let device = B::Device::default();
    B::seed(&device, 7);
    let mut model = Model::<B> {
        first: LinearConfig::new(24, 32).init(&device),
        dropout: DropoutConfig::new(0.1).init(),
        second: LinearConfig::new(32, 10).init(&device),
    };
    let mut optimizer = AdamConfig::new().init();
    let loss_of = CrossEntropyLossConfig::new().init(&device);
    let mut losses = Vec::new();
    for step in 0..20 {
        let x = Tensor::<B, 2>::random([16, 24], Distribution::Default, &device);
        let targets: Vec<i64> = (0..16).map(|row| (row * 3 + step) % 10).collect();
        let targets = Tensor::<B, 1, Int>::from_data(&targets[..], &device);
        let hidden = model.dropout.forward(Relu::new().forward(model.first.forward(x)));
        let loss = loss_of.forward(model.second.forward(hidden), targets);
        losses.push(loss.clone().into_data().iter::<f32>().next().unwrap().to_bits());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-2, model, grads);
    }
    losses
}

#[test]
fn twenty_adam_steps_give_the_same_losses() {
    let _alone = alone();
    assert_eq!(losses::<Autodiff<Quantized<Flex>>>(), losses::<Autodiff<Flex>>());
}

#[cfg(feature = "ndarray")]
#[test]
fn twenty_adam_steps_give_the_same_losses_on_ndarray() {
    let _alone = alone();
    type NdArray = burn_ndarray::NdArray;
    assert_eq!(losses::<Autodiff<Quantized<NdArray>>>(), losses::<Autodiff<NdArray>>());
}
