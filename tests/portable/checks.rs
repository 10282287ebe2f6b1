//! What the portable kernels must do on every backend.

use crate::oracle::{self, Expected};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, TensorData, TensorMetadata, read_sync};
use burn_quantized::Portable;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::kernels::portable::PortableWeight;
use burn_quantized::spec::{
    ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType, ZeroPointDomain,
};
use burn_quantized::tensor::AffineQuantizedTensor;
use burn_std::{DType, FloatDType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn dtype_of(dtype: FloatDtype) -> FloatDType {
    match dtype {
        FloatDtype::F32 => FloatDType::F32,
        FloatDtype::F16 => FloatDType::F16,
        FloatDtype::BF16 => FloatDType::BF16,
    }
}

fn upload<B: Backend>(values: &[f32], shape: &[usize], dtype: FloatDtype) -> FloatTensor<B> {
    let data = TensorData::new(values.to_vec(), shape.to_vec()).convert_dtype(DType::from(dtype_of(dtype)));
    B::float_from_data(data, &Default::default())
}

fn download<B: Backend>(tensor: FloatTensor<B>) -> Vec<f32> {
    read_sync(B::float_into_data(tensor)).unwrap().iter::<f32>().collect()
}

pub fn pack<B: Backend>(weight: &AffineQuantizedTensor, activation: ActivationQuantization) -> PortableWeight {
    <Portable as QuantKernels<B>>::pack(weight.clone(), activation, &Default::default()).unwrap()
}

fn uniform(random: &mut StdRng, count: usize, dtype: FloatDtype) -> Vec<f32> {
    (0..count)
        .map(|_| dtype.round(random.random_range(-1.0f32..1.0)))
        .collect()
}

fn weight(n: usize, k: usize, dtype: FloatDtype, spec: &AffineSpec, random: &mut StdRng) -> AffineQuantizedTensor {
    AffineQuantizedTensor::quantize(&uniform(random, n * k, dtype), dtype, &[n, k], spec).unwrap()
}

/// A weight per row, per tensor, per block and per group with a tail, with every kind of zero point.
fn specs() -> Vec<AffineSpec> {
    use Granularity::*;
    use MappingType::*;
    vec![
        AffineSpec::new(IntDtype::INT8, Symmetric, PerRow(-1))
            .with_scale_dtype(FloatDtype::F32)
            .with_eps(f32::EPSILON),
        AffineSpec::new(IntDtype::INT8, Symmetric, PerTensor).with_zero_point_domain(ZeroPointDomain::None),
        AffineSpec::new(IntDtype::UINT8, Asymmetric, PerAxis(0)),
        AffineSpec::new(IntDtype::INT4, Symmetric, PerGroup(32)),
        AffineSpec::new(IntDtype::UINT4, Asymmetric, PerGroup(24)),
        AffineSpec::new(IntDtype::INT3, SymmetricNoClippingErr, PerBlock(vec![2, 16])),
        AffineSpec::new(IntDtype::UINT4, Asymmetric, PerGroup(32)).with_zero_point_domain(ZeroPointDomain::Float),
    ]
}

fn activations() -> Vec<ActivationQuantization> {
    let dynamic = |mapping, scale, dtype: IntDtype| ActivationQuantization::Dynamic {
        mapping,
        scale,
        dtype,
        quant_min: dtype.min(),
        quant_max: dtype.max(),
        eps: None,
        scale_in_input_dtype: false,
    };
    let fixed = |dtype: IntDtype, zero_point| ActivationQuantization::Static {
        scale: 0.0071,
        zero_point,
        dtype,
        quant_min: dtype.min(),
        quant_max: dtype.max(),
    };
    vec![
        ActivationQuantization::None,
        ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
        ActivationQuantization::int8_dynamic(ActivationScale::PerTensor),
        ActivationQuantization::int8_dynamic_asymmetric(),
        dynamic(MappingType::Asymmetric, ActivationScale::PerTensor, IntDtype::UINT8),
        dynamic(MappingType::Symmetric, ActivationScale::PerToken, IntDtype::UINT8),
        dynamic(
            MappingType::SymmetricNoClippingErr,
            ActivationScale::PerToken,
            IntDtype::INT8,
        ),
        fixed(IntDtype::INT8, 0),
        fixed(IntDtype::INT8, -17),
        fixed(IntDtype::UINT8, 128),
    ]
}

#[track_caller]
fn compare(what: &str, got: &[f32], expected: &Expected) {
    assert_eq!(got.len(), expected.output.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(&expected.output).enumerate() {
        let near = (got - want).abs() <= expected.tolerance[i];
        assert!(
            got.to_bits() == want.to_bits() || near || (got.is_nan() && want.is_nan()),
            "{what}, element {i}: {got} instead of {want}, tolerance {}",
            expected.tolerance[i]
        );
    }
}

pub fn products<B: Backend>(dtypes: &[FloatDtype]) {
    let random = &mut StdRng::seed_from_u64(7);
    for &dtype in dtypes {
        for (lead, k, n) in [(vec![1], 64, 5), (vec![2, 3], 77, 9), (vec![], 1, 3), (vec![4], 130, 2)] {
            for spec in &specs() {
                let weight = weight(n, k, dtype, spec, random);
                let bias = uniform(random, n, dtype);
                let m: usize = lead.iter().product();
                let mut x = uniform(random, m * k, dtype);
                if m == 4 {
                    x[..k].fill(0.0);
                    x[k + k / 2] = f32::NAN;
                    x[3 * k - 1] = f32::NEG_INFINITY;
                }
                let shape = [&lead[..], &[k]].concat();
                for activation in activations() {
                    for bias in [None, Some(&bias)] {
                        let y = <Portable as QuantKernels<B>>::linear(
                            upload::<B>(&x, &shape, dtype),
                            &pack::<B>(&weight, activation),
                            bias.map(|bias| upload::<B>(bias, &[n], dtype)),
                        );
                        assert_eq!(y.shape().to_vec(), [&lead[..], &[n]].concat());
                        assert_eq!(y.dtype(), dtype_of(dtype).into());
                        let expected = oracle::linear(&x, dtype, m, &weight, &activation, bias.map(Vec::as_slice));
                        let what = format!(
                            "{dtype}, {m}x{k}x{n}, {spec:?}, {activation:?}, bias {}",
                            bias.is_some()
                        );
                        compare(&what, &download::<B>(y), &expected);
                    }
                }
            }
        }
    }
}

/// Every code at an end of its range: sums leave the exact integers of f32, and every panel has a successor.
pub fn long_sums<B: Backend>() {
    for (k, n, granularity) in [
        (4099, 40, Granularity::PerRow(-1)),
        (5000, 30, Granularity::PerGroup(2300)),
    ] {
        let spec = AffineSpec::new(IntDtype::UINT8, MappingType::Asymmetric, granularity);
        let values: Vec<f32> = (0..n * k).map(|i| if i % 7 == 0 { -0.01 } else { 1.0 }).collect();
        let weight = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &[n, k], &spec).unwrap();
        let x: Vec<f32> = (0..3 * k)
            .map(|i| if i % 11 == 0 { -0.02 } else { 0.9 + i as f32 * 1e-6 })
            .collect();
        for activation in activations() {
            let y = <Portable as QuantKernels<B>>::linear(
                upload::<B>(&x, &[3, k], FloatDtype::F32),
                &pack::<B>(&weight, activation),
                None,
            );
            let expected = oracle::linear(&x, FloatDtype::F32, 3, &weight, &activation, None);
            compare(&format!("K = {k}, {activation:?}"), &download::<B>(y), &expected);
        }
    }
}

pub fn empty<B: Backend>() {
    let random = &mut StdRng::seed_from_u64(9);
    let spec = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerRow(-1));
    for activation in activations() {
        for (m, k, n) in [(0, 8, 3), (2, 0, 3), (2, 8, 0)] {
            let packed = pack::<B>(&weight(n, k, FloatDtype::F32, &spec, random), activation);
            let x = upload::<B>(&vec![0.5; m * k], &[m, k], FloatDtype::F32);
            let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let y = <Portable as QuantKernels<B>>::linear(x, &packed, Some(upload::<B>(&bias, &[n], FloatDtype::F32)));
            assert_eq!(y.shape().to_vec(), [m, n]);
            assert_eq!(download::<B>(y), bias.repeat(m), "{m}x{k}x{n}");
            let g = upload::<B>(&vec![0.5; m * n], &[m, n], FloatDtype::F32);
            let y = <Portable as QuantKernels<B>>::linear_transposed(g, &packed);
            assert_eq!(y.shape().to_vec(), [m, k]);
        }
    }
}

pub fn transposed_and_gathered<B: Backend>() {
    let random = &mut StdRng::seed_from_u64(11);
    for spec in &specs() {
        let (m, k, n) = (3, 77, 1300);
        let weight = weight(n, k, FloatDtype::F32, spec, random);
        let values = weight.dequantize(FloatDtype::F32);
        let packed = pack::<B>(&weight, ActivationQuantization::int8_dynamic(ActivationScale::PerToken));

        let g = uniform(random, m * n, FloatDtype::F32);
        let y = <Portable as QuantKernels<B>>::linear_transposed(upload::<B>(&g, &[m, n], FloatDtype::F32), &packed);
        let expected = oracle::matmul(&g, &values, m, n, k);
        compare(&format!("transposed, {spec:?}"), &download::<B>(y), &expected);

        let rows = [5i64, 0, 1299, 5];
        let indices = B::int_from_data(TensorData::new(rows.to_vec(), [2, 2]), &Default::default());
        let y = <Portable as QuantKernels<B>>::gather(&packed, indices, FloatDType::F32);
        assert_eq!(y.shape().to_vec(), [2, 2, k]);
        let expected: Vec<f32> = rows
            .iter()
            .flat_map(|row| &values[*row as usize * k..][..k])
            .copied()
            .collect();
        assert_eq!(download::<B>(y), expected, "gathered, {spec:?}");
    }
}
