//! Burn's own quantization gives the integers and the bytes of the plain backend.

use crate::helpers::alone;
use burn::tensor::quantization::{Calibration, QuantLevel, QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Distribution, Tensor};
use burn_backend::Backend;
use burn_flex::Flex;
use burn_quantized::Quantized;

fn schemes() -> Vec<QuantScheme> {
    let native = QuantScheme::default().with_store(QuantStore::Native);
    let values = [
        QuantValue::Q8S,
        QuantValue::Q8F,
        QuantValue::Q4S,
        QuantValue::Q4F,
        QuantValue::Q2S,
    ];
    let levels = [QuantLevel::Tensor, QuantLevel::block([8]), QuantLevel::block([24])];
    let each = values
        .into_iter()
        .flat_map(|value| levels.map(|level| native.with_value(value).with_level(level)));
    each.collect()
}

fn check<B: Backend>(schemes: &[QuantScheme]) {
    let device = B::Device::default();
    let source = Tensor::<B, 2>::random([20, 24], Distribution::Normal(0.0, 2.0), &device);
    let data = source.to_data();
    for scheme in schemes {
        let ours = Tensor::<Quantized<B, burn_quantized::Portable>, 2>::from_data(data.clone(), &device);
        let (plain_dynamic, dynamic) = (
            source.clone().quantize_dynamic(scheme),
            ours.clone().quantize_dynamic(scheme),
        );
        assert_eq!(dynamic.to_data(), plain_dynamic.to_data(), "{scheme:?}");
        assert_eq!(
            dynamic.clone().dequantize().into_data(),
            plain_dynamic.clone().dequantize().into_data()
        );

        let qparams = burn::tensor::quantization::compute_q_params(
            scheme,
            burn::tensor::quantization::compute_range(scheme, &source, &Calibration::MinMax),
        );
        let own = burn::tensor::quantization::compute_q_params(
            scheme,
            burn::tensor::quantization::compute_range(scheme, &ours, &Calibration::MinMax),
        );
        let (plain, quantized) = (source.clone().quantize(scheme, qparams), ours.quantize(scheme, own));
        assert_eq!(quantized.to_data(), plain.to_data(), "{scheme:?}");

        // A record of the plain backend loads, and goes out as it came.
        let loaded = Tensor::<Quantized<B, burn_quantized::Portable>, 2>::from_data(plain.to_data(), &device);
        assert_eq!(loaded.to_data(), plain.to_data());
        let transposed = loaded.transpose().dequantize().into_data();
        assert_eq!(transposed, plain.dequantize().transpose().into_data());
    }
}

#[test]
fn on_flex() {
    let _alone = alone();
    check::<Flex>(&schemes());
}

#[cfg(feature = "ndarray")]
#[test]
fn on_ndarray() {
    let _alone = alone();
    // NdArray itself takes 8-bit values only.
    let eight_bits = |scheme: &QuantScheme| matches!(scheme.value, QuantValue::Q8S | QuantValue::Q8F);
    check::<burn_ndarray::NdArray>(&schemes().into_iter().filter(eight_bits).collect::<Vec<_>>());
}
