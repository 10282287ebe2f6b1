//! `ActivationOps`, forwarded.

use super::forward::forward;
use super::{FloatPrimitive, Quantized};
use crate::kernels::QuantKernels;
use burn_backend::ops::ActivationOps;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, Scalar};

impl<B: Backend, K: QuantKernels<B>> ActivationOps<Self> for Quantized<B, K> {
    forward! {
        fn leaky_relu(tensor: F, negative_slope: Scalar) -> F;
        fn relu(tensor: F) -> F;
        fn relu_backward(output: F, grad: F) -> F;
        fn gelu(tensor: F) -> F;
        fn prelu(tensor: F, alpha: F) -> F;
        fn gelu_backward(x: F, grad: F) -> F;
        fn sigmoid(tensor: F) -> F;
        fn sigmoid_backward(output: F, grad: F) -> F;
        fn hard_sigmoid(tensor: F, alpha: Scalar, beta: Scalar) -> F;
        fn log_sigmoid(tensor: F) -> F;
        fn softmax(tensor: F, dim: usize) -> F;
        fn log_softmax(tensor: F, dim: usize) -> F;
        fn softmin(tensor: F, dim: usize) -> F;
        fn log_sigmoid_backward(x: F, grad: F) -> F;
    }
}
