//! Stock modules reach the quantized kernels: same numbers as with the codes' values in float, and no weight made dense.

use crate::helpers::{alone, both, int4, int8};
use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig};
use burn::nn::gru::GruConfig;
use burn::nn::transformer::{TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{EmbeddingConfig, LinearConfig, LinearLayout, LstmConfig};
use burn::tensor::{Distribution, Int, Tensor, Tolerance};
use burn_backend::Backend;
use burn_flex::Flex;
use burn_quantized::backend::materialized;
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::AffineSpec;
use burn_quantized::{Native, Portable, Quantized};

fn random<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &B::Device::default())
}

/// Runs `forward` on the packed module and on the float one.
fn check<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>, const D: usize>(
    what: &str,
    module: M,
    spec: AffineSpec,
    forward: impl Fn(&M) -> Tensor<Quantized<B, K>, D>,
) {
    let (packed, float, weights) = both::<B, K, M>(module, spec);
    assert!(weights > 0, "{what} has no weight");
    materialized::take();
    let got = forward(&packed).into_data();
    assert_eq!(materialized::take(), Default::default(), "{what} made a weight dense");
    let expected = forward(&float).into_data();
    got.assert_approx_eq::<f32>(&expected, Tolerance::absolute(2e-4));
}

fn linear<B: Backend, K: QuantKernels<B>>(spec: AffineSpec) {
    let device = B::Device::default();
    for layout in [LinearLayout::Row, LinearLayout::Col] {
        for bias in [true, false] {
            let config = LinearConfig::new(72, 40).with_bias(bias).with_layout(match layout {
                LinearLayout::Row => LinearLayout::Row,
                LinearLayout::Col => LinearLayout::Col,
            });
            let module = config.init::<Quantized<B, K>>(&device);
            let x = random::<Quantized<B, K>, 1>([72]);
            check::<B, K, _, 1>("Linear, 1-D", module.clone(), spec.clone(), |m| m.forward(x.clone()));
            let x = random::<Quantized<B, K>, 2>([3, 72]);
            check::<B, K, _, 2>("Linear, 2-D", module.clone(), spec.clone(), |m| m.forward(x.clone()));
            let x = random::<Quantized<B, K>, 4>([2, 3, 2, 72]);
            check::<B, K, _, 4>("Linear, 4-D", module, spec.clone(), |m| m.forward(x.clone()));
        }
    }
}

fn modules<B: Backend, K: QuantKernels<B>>(spec: AffineSpec) {
    let device = B::Device::default();
    let x = random::<Quantized<B, K>, 3>([2, 5, 64]);

    let attention = MultiHeadAttentionConfig::new(64, 4)
        .with_dropout(0.0)
        .init::<Quantized<B, K>>(&device);
    check::<B, K, _, 3>("MultiHeadAttention", attention, spec.clone(), |m| {
        m.forward(MhaInput::self_attn(x.clone())).context
    });

    let encoder = TransformerEncoderConfig::new(64, 96, 4, 2)
        .with_dropout(0.0)
        .init::<Quantized<B, K>>(&device);
    check::<B, K, _, 3>("TransformerEncoder", encoder, spec.clone(), |m| {
        m.forward(TransformerEncoderInput::new(x.clone()))
    });

    let lstm = LstmConfig::new(64, 48, true).init::<Quantized<B, K>>(&device);
    check::<B, K, _, 3>("Lstm", lstm, spec.clone(), |m| m.forward(x.clone(), None).0);

    for reset_after in [true, false] {
        let gru = GruConfig::new(64, 48, true)
            .with_reset_after(reset_after)
            .init::<Quantized<B, K>>(&device);
        check::<B, K, _, 3>("Gru", gru, spec.clone(), |m| m.forward(x.clone(), None));
    }

    let embedding = EmbeddingConfig::new(30, 64).init::<Quantized<B, K>>(&device);
    let indices = Tensor::<Quantized<B, K>, 2, Int>::from_data([[0, 29, 3], [3, 3, 7]], &device);
    check::<B, K, _, 3>("Embedding", embedding, spec, |m| m.forward(indices.clone()));
}

#[test]
fn on_flex() {
    let _alone = alone();
    for spec in [int8(), int4()] {
        linear::<Flex, Native>(spec.clone());
        modules::<Flex, Native>(spec);
    }
}

#[test]
fn on_flex_with_portable_kernels() {
    let _alone = alone();
    linear::<Flex, Portable>(int4());
    modules::<Flex, Portable>(int4());
}

#[cfg(feature = "ndarray")]
#[test]
fn on_ndarray() {
    let _alone = alone();
    for spec in [int8(), int4()] {
        linear::<burn_ndarray::NdArray, Native>(spec.clone());
        modules::<burn_ndarray::NdArray, Native>(spec);
    }
}
