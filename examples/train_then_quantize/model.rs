//! The classifier, written with Burn's own modules only. Nothing in it knows of quantization.

use crate::data::{CLASSES, SIDE};
use burn::{
    module::Module,
    nn::{
        Dropout, DropoutConfig, Linear, LinearConfig, Relu,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Tensor, backend::Backend},
};

const CHANNELS: usize = 16;
const KERNEL: usize = 5;
const STRIDE: usize = 2;
const CONV_SIDE: usize = (SIDE - KERNEL) / STRIDE + 1;
const FEATURES: usize = CHANNELS * CONV_SIDE * CONV_SIDE;
const HIDDEN: [usize; 2] = [512, 256];
const DROPOUT: f64 = 0.25;

/// One convolution, then three linear layers: 2304 → 512 → 256 → 10.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    conv: Conv2d<B>,
    hidden1: Linear<B>,
    hidden2: Linear<B>,
    output: Linear<B>,
    activation: Relu,
    dropout: Dropout,
}

impl<B: Backend> Classifier<B> {
    pub fn new(device: &B::Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, CHANNELS], [KERNEL, KERNEL])
                .with_stride([STRIDE, STRIDE])
                .init(device),
            hidden1: LinearConfig::new(FEATURES, HIDDEN[0]).init(device),
            hidden2: LinearConfig::new(HIDDEN[0], HIDDEN[1]).init(device),
            output: LinearConfig::new(HIDDEN[1], CLASSES).init(device),
            activation: Relu::new(),
            dropout: DropoutConfig::new(DROPOUT).init(),
        }
    }

    /// Logits `[batch, CLASSES]` of images `[batch, SIDE, SIDE]`.
    pub fn forward(&self, images: Tensor<B, 3>) -> Tensor<B, 2> {
        let x = self.features(images);
        let x = self.dropout.forward(self.activation.forward(self.hidden1.forward(x)));
        let x = self.dropout.forward(self.activation.forward(self.hidden2.forward(x)));
        self.output.forward(x)
    }

    /// What each linear layer is fed with for `images`, in the order of the layers, dropout off.
    pub fn linear_inputs(&self, images: Tensor<B, 3>) -> [Tensor<B, 2>; 3] {
        let first = self.features(images);
        let second = self.activation.forward(self.hidden1.forward(first.clone()));
        let third = self.activation.forward(self.hidden2.forward(second.clone()));
        [first, second, third]
    }

    /// Runs the linear layers alone, each on its own input.
    pub fn forward_linears(&self, [first, second, third]: [Tensor<B, 2>; 3]) -> [Tensor<B, 2>; 3] {
        [
            self.hidden1.forward(first),
            self.hidden2.forward(second),
            self.output.forward(third),
        ]
    }

    fn features(&self, images: Tensor<B, 3>) -> Tensor<B, 2> {
        let x = self.activation.forward(self.conv.forward(images.unsqueeze_dim(1)));
        x.flatten(1, 3)
    }
}
