//! `ModuleOps`: products with a packed weight are the decorator's own, the rest is forwarded.

use super::forward::forward;
use super::{FloatPrimitive, Quantized, product};
use crate::kernels::QuantKernels;
use burn_backend::Backend;
use burn_backend::ops::{
    AttentionModuleOptions, ConvOptions, ConvTransposeOptions, DeformConv2dBackward, DeformConvOptions,
    InterpolateOptions, MaxPool1dBackward, MaxPool1dWithIndices, MaxPool2dBackward, MaxPool2dWithIndices, ModuleOps,
    UnfoldOptions,
};
use burn_backend::tensor::{BoolTensor, FloatTensor, IntTensor};

impl<B: Backend, K: QuantKernels<B>> ModuleOps<Self> for Quantized<B, K> {
    fn embedding(weights: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        FloatPrimitive::Dense(match weights {
            FloatPrimitive::Packed(weight) if product::is_rows(&weight) => product::rows(weight, indices),
            weights => B::embedding(weights.dense("embedding"), indices),
        })
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: Option<FloatTensor<Self>>) -> FloatTensor<Self> {
        let (x, bias) = (x.dense("linear"), bias.map(|bias| bias.dense("linear")));
        FloatPrimitive::Dense(match weight {
            FloatPrimitive::Packed(weight) if weight.is_matrix() => product::linear("linear", x, weight, bias),
            weight => B::linear(x, weight.dense("linear"), bias),
        })
    }

    fn linear_x_backward(weight: FloatTensor<Self>, output_grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let output_grad = output_grad.dense("linear_x_backward");
        FloatPrimitive::Dense(match weight {
            FloatPrimitive::Packed(weight) if product::has_x_backward(&weight) => {
                product::x_backward("linear_x_backward", weight, output_grad)
            }
            weight => B::linear_x_backward(weight.dense("linear_x_backward"), output_grad),
        })
    }

    forward! {
        fn has_ctc_loss_backward() -> bool;
        fn embedding_backward(weights: F, output_grad: F, indices: IntTensor<B>) -> F;
        fn linear_weight_backward(x: F, output_grad: F) -> F;
        fn linear_bias_backward(output_grad: F) -> F;
        fn conv1d(x: F, weight: F, bias: Option<F>, options: ConvOptions<1>) -> F;
        fn conv1d_x_backward(x: F, weight: F, output_grad: F, options: ConvOptions<1>) -> F;
        fn conv1d_weight_backward(x: F, weight: F, output_grad: F, options: ConvOptions<1>) -> F;
        fn conv1d_bias_backward(x: F, bias: F, output_grad: F) -> F;
        fn conv2d(x: F, weight: F, bias: Option<F>, options: ConvOptions<2>) -> F;
        fn conv2d_x_backward(x: F, weight: F, output_grad: F, options: ConvOptions<2>) -> F;
        fn conv2d_weight_backward(x: F, weight: F, output_grad: F, options: ConvOptions<2>) -> F;
        fn conv2d_bias_backward(x: F, bias: F, output_grad: F) -> F;
        fn deform_conv2d(
            x: F, offset: F, weight: F, mask: Option<F>, bias: Option<F>, options: DeformConvOptions<2>
        ) -> F;
        fn deform_conv2d_backward(
            x: F, offset: F, weight: F, mask: Option<F>, bias: Option<F>, output_grad: F,
            options: DeformConvOptions<2>
        ) -> DeformConv2dBackward<B>;
        fn conv3d(x: F, weight: F, bias: Option<F>, options: ConvOptions<3>) -> F;
        fn conv3d_x_backward(x: F, weight: F, output_grad: F, options: ConvOptions<3>) -> F;
        fn conv3d_weight_backward(x: F, weight: F, output_grad: F, options: ConvOptions<3>) -> F;
        fn conv3d_bias_backward(x: F, bias: F, output_grad: F) -> F;
        fn conv_transpose1d(x: F, weight: F, bias: Option<F>, options: ConvTransposeOptions<1>) -> F;
        fn conv_transpose1d_x_backward(weight: F, output_grad: F, options: ConvTransposeOptions<1>) -> F;
        fn conv_transpose1d_weight_backward(x: F, weight: F, output_grad: F, options: ConvTransposeOptions<1>) -> F;
        fn conv_transpose1d_bias_backward(x: F, bias: F, output_grad: F) -> F;
        fn conv_transpose2d(x: F, weight: F, bias: Option<F>, options: ConvTransposeOptions<2>) -> F;
        fn conv_transpose2d_x_backward(weight: F, output_grad: F, options: ConvTransposeOptions<2>) -> F;
        fn conv_transpose2d_weight_backward(x: F, weight: F, output_grad: F, options: ConvTransposeOptions<2>) -> F;
        fn conv_transpose2d_bias_backward(x: F, bias: F, output_grad: F) -> F;
        fn conv_transpose3d(x: F, weight: F, bias: Option<F>, options: ConvTransposeOptions<3>) -> F;
        fn conv_transpose3d_x_backward(weight: F, output_grad: F, options: ConvTransposeOptions<3>) -> F;
        fn conv_transpose3d_weight_backward(x: F, weight: F, output_grad: F, options: ConvTransposeOptions<3>) -> F;
        fn conv_transpose3d_bias_backward(x: F, bias: F, output_grad: F) -> F;
        fn unfold4d(x: F, kernel_size: [usize; 2], options: UnfoldOptions) -> F;
        fn avg_pool1d(
            x: F, kernel_size: usize, stride: usize, padding: usize, count_include_pad: bool, ceil_mode: bool
        ) -> F;
        fn avg_pool1d_backward(
            x: F, grad: F, kernel_size: usize, stride: usize, padding: usize, count_include_pad: bool,
            ceil_mode: bool
        ) -> F;
        fn avg_pool2d(
            x: F, kernel_size: [usize; 2], stride: [usize; 2], padding: [usize; 2], count_include_pad: bool,
            ceil_mode: bool
        ) -> F;
        fn avg_pool2d_backward(
            x: F, grad: F, kernel_size: [usize; 2], stride: [usize; 2], padding: [usize; 2], count_include_pad: bool,
            ceil_mode: bool
        ) -> F;
        fn adaptive_avg_pool2d(x: F, output_size: [usize; 2]) -> F;
        fn adaptive_avg_pool2d_backward(x: F, grad: F) -> F;
        fn adaptive_avg_pool1d(x: F, output_size: usize) -> F;
        fn adaptive_avg_pool1d_backward(x: F, grad: F) -> F;
        fn max_pool1d(x: F, kernel_size: usize, stride: usize, padding: usize, dilation: usize, ceil_mode: bool) -> F;
        fn max_pool1d_with_indices(
            x: F, kernel_size: usize, stride: usize, padding: usize, dilation: usize, ceil_mode: bool
        ) -> MaxPool1dWithIndices<B>;
        fn max_pool1d_with_indices_backward(
            x: F, kernel_size: usize, stride: usize, padding: usize, dilation: usize, ceil_mode: bool, output_grad: F,
            indices: IntTensor<B>
        ) -> MaxPool1dBackward<B>;
        fn max_pool2d(
            x: F, kernel_size: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2],
            ceil_mode: bool
        ) -> F;
        fn max_pool2d_with_indices(
            x: F, kernel_size: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2],
            ceil_mode: bool
        ) -> MaxPool2dWithIndices<B>;
        fn max_pool2d_with_indices_backward(
            x: F, kernel_size: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2],
            ceil_mode: bool, output_grad: F, indices: IntTensor<B>
        ) -> MaxPool2dBackward<B>;
        fn interpolate(x: F, output_size: [usize; 2], options: InterpolateOptions) -> F;
        fn interpolate_backward(x: F, grad: F, output_size: [usize; 2], options: InterpolateOptions) -> F;
        fn attention(
            query: F, key: F, value: F, mask: Option<BoolTensor<B>>, attn_bias: Option<F>,
            options: AttentionModuleOptions
        ) -> F;
        fn layer_norm(tensor: F, gamma: F, beta: Option<F>, epsilon: f64) -> F;
        fn ctc_loss(
            log_probs: F, targets: IntTensor<B>, input_lengths: IntTensor<B>, target_lengths: IntTensor<B>,
            blank: usize
        ) -> F;
        fn ctc_loss_backward(
            log_probs: F, targets: IntTensor<B>, input_lengths: IntTensor<B>, target_lengths: IntTensor<B>,
            grad_loss: F, blank: usize
        ) -> F;
        fn rfft(signal: F, dim: usize, n: Option<usize>) -> (F, F);
        fn irfft(spectrum_re: F, spectrum_im: F, dim: usize, n: Option<usize>) -> F;
    }
}
