//! Weights, activations and comparisons.

use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use burn_backend::Backend;
use burn_quantized::Native;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::primitives::ZeroPoints;
use burn_quantized::spec::{ActivationQuantization, ActivationScale, BlockGrid, MappingType};
use burn_quantized::tensor::{AffineParts, AffineQuantizedTensor, reference_linear};
use burn_std::{DType, FloatDType};
use rand::Rng;
use rand::rngs::StdRng;

/// What a test weight's zero points are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zero {
    None,
    Same,
    Blocks,
    Float,
}

/// A weight of random codes that include both ends of the range.
pub fn weight(
    rng: &mut StdRng,
    [n, k]: [usize; 2],
    block: [usize; 2],
    dtype: IntDtype,
    zero: Zero,
) -> AffineQuantizedTensor {
    let block_size = vec![block[0].min(n).max(1), block[1].min(k).max(1)];
    let blocks = BlockGrid::new(&[n, k], &block_size).unwrap().len();
    let (min, max) = (dtype.min(), dtype.max());
    let codes: Vec<i32> = (0..n * k)
        .map(|_| match rng.random_range(0..8) {
            0 => min,
            1 => max,
            _ => rng.random_range(min..=max),
        })
        .collect();
    let parts = AffineParts {
        shape: vec![n, k],
        block_size,
        dtype,
        quant_min: min,
        quant_max: max,
        scale: (0..blocks).map(|_| rng.random_range(0.01f32..0.1)).collect(),
        scale_dtype: FloatDtype::F32,
        zero_point: match zero {
            Zero::None => ZeroPoints::None,
            Zero::Same => ZeroPoints::Int(vec![(min + max) / 2; blocks]),
            Zero::Blocks => ZeroPoints::Int((0..blocks).map(|_| rng.random_range(min..=max)).collect()),
            Zero::Float => ZeroPoints::Float((0..blocks).map(|_| rng.random_range(-1.0f32..1.0)).collect()),
        },
        zero_point_dtype: FloatDtype::F32,
    };
    AffineQuantizedTensor::from_codes(parts, &codes).unwrap()
}

pub fn dynamic(
    mapping: MappingType,
    scale: ActivationScale,
    dtype: IntDtype,
    in_input_dtype: bool,
) -> ActivationQuantization {
    ActivationQuantization::Dynamic {
        mapping,
        scale,
        dtype,
        quant_min: dtype.min(),
        quant_max: dtype.max(),
        eps: None,
        scale_in_input_dtype: in_input_dtype,
    }
}

pub fn fixed(dtype: IntDtype, zero_point: i32) -> ActivationQuantization {
    ActivationQuantization::Static {
        scale: 0.023,
        zero_point,
        dtype,
        quant_min: dtype.min(),
        quant_max: dtype.max(),
    }
}

/// Every treatment with integers.
pub fn treatments() -> Vec<ActivationQuantization> {
    use ActivationScale::*;
    use MappingType::*;
    vec![
        ActivationQuantization::int8_dynamic(PerToken),
        ActivationQuantization::int8_dynamic(PerTensor),
        ActivationQuantization::int8_dynamic_asymmetric(),
        dynamic(Asymmetric, PerTensor, IntDtype::UINT8, false),
        dynamic(Symmetric, PerToken, IntDtype::UINT8, false),
        dynamic(SymmetricNoClippingErr, PerToken, IntDtype::INT8, true),
        fixed(IntDtype::INT8, 0),
        fixed(IntDtype::INT8, -17),
        fixed(IntDtype::UINT8, 0),
        fixed(IntDtype::UINT8, 128),
    ]
}

/// Rows of random values; among five and more, one of zeros, one with a NaN, one with an infinity and one of large numbers.
pub fn rows(rng: &mut StdRng, rows: usize, k: usize, dtype: FloatDtype) -> Vec<f32> {
    let mut x: Vec<f32> = (0..rows * k)
        .map(|_| dtype.round(rng.random_range(-3.0f32..3.0)))
        .collect();
    if rows >= 5 && k > 0 {
        x[..k].fill(0.0);
        x[k + k / 2] = f32::NAN;
        x[2 * k] = f32::NEG_INFINITY;
        // As large as f32 sums of products with codes take.
        let large = dtype.round(dtype.largest().min(1e30) / 4.0);
        for (i, x) in x[3 * k..4 * k].iter_mut().enumerate() {
            *x = if i % 2 == 0 { large } else { -large };
        }
    }
    x
}

pub fn tensor<B: Backend, const D: usize>(
    x: &[f32],
    shape: [usize; D],
    dtype: FloatDtype,
    device: &B::Device,
) -> Tensor<B, D> {
    let data = TensorData::new(x.to_vec(), shape).convert_dtype(burn_dtype(dtype).into());
    Tensor::from_data(data, (device, DType::from(burn_dtype(dtype))))
}

pub fn burn_dtype(dtype: FloatDtype) -> FloatDType {
    match dtype {
        FloatDtype::F32 => FloatDType::F32,
        FloatDtype::F16 => FloatDType::F16,
        FloatDtype::BF16 => FloatDType::BF16,
    }
}

/// The float dtypes that the device computes with.
pub fn dtypes<B: Backend>(device: &B::Device) -> Vec<FloatDtype> {
    let all = [FloatDtype::F32, FloatDtype::F16, FloatDtype::BF16];
    let (here, missing): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|dtype| B::supports_dtype(device, burn_dtype(*dtype).into()));
    missing
        .iter()
        .for_each(|dtype| println!("skipped: this device has no {dtype} tensors"));
    here
}

pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

pub fn pack<B: Backend>(
    weight: &AffineQuantizedTensor,
    how: ActivationQuantization,
    device: &B::Device,
) -> <Native as QuantKernels<B>>::Weight
where
    Native: QuantKernels<B>,
{
    <Native as QuantKernels<B>>::pack(weight.clone(), how, device).expect("a weight that these kernels take")
}

pub fn linear<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: &<Native as QuantKernels<B>>::Weight,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, D>
where
    Native: QuantKernels<B>,
{
    let bias = bias.map(|bias| bias.into_primitive().tensor());
    let y = <Native as QuantKernels<B>>::linear(x.into_primitive().tensor(), weight, bias);
    Tensor::from_primitive(TensorPrimitive::Float(y))
}

/// The reference, and how far a product may be off: not at all where it is integer arithmetic, else by the bound of an f32 sum in any order
/// (and by some units of the dtype, where such a sum lands beside a tie).
pub fn check(
    what: &str,
    got: &[f32],
    x: &[f32],
    dtype: FloatDtype,
    weight: &AffineQuantizedTensor,
    how: &ActivationQuantization,
    bias: Option<&[f32]>,
) {
    let [n, k] = [weight.shape()[0], weight.shape()[1]];
    let count = x.len().checked_div(k).unwrap_or_else(|| got.len() / n);
    let want = reference_linear(x, count, dtype, weight, how, bias);
    assert_eq!(got.len(), want.len(), "{what}");
    let unit = match dtype {
        FloatDtype::F32 => f32::EPSILON,
        FloatDtype::F16 => 2.0f32.powi(-9),
        FloatDtype::BF16 => 2.0f32.powi(-6),
    };
    let dense = weight.dequantize(FloatDtype::F32);
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan() || got == want;
        let tolerance = if how.is_quantized() {
            0.0
        } else {
            let (x, w) = (&x[at / n * k..][..k], &dense[at % n * k..][..k]);
            let sum: f64 = x.iter().zip(w).map(|(x, w)| (x * w).abs() as f64).sum();
            let bias = bias.map_or(0.0, |bias| bias[at % n].abs());
            2.0 * k as f64 * f32::EPSILON as f64 * sum + (unit * (want.abs() + bias)) as f64
        };
        let near = ((got - want).abs() as f64) <= tolerance;
        assert!(
            same || near,
            "{what}, row {} channel {}: {got:e}, want {want:e}",
            at / n,
            at % n
        );
    }
}
