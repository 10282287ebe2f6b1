//! Subnormal and not finite numbers: every case is listed and counted. CUDA gives the reference's bits; a device that may flush subnormal
//! numbers (Vulkan and WGSL allow it) is held to NaN for NaN, and what it does elsewhere is printed.

use crate::cases::{burn_dtype, dtypes, linear, pack, tensor, values};
use burn::tensor::{Int, Tensor, TensorPrimitive};
use burn_backend::Backend;
use burn_quantized::Native;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::primitives::ZeroPoints;
use burn_quantized::spec::{ActivationQuantization, ActivationScale, MappingType};
use burn_quantized::tensor::{AffineParts, AffineQuantizedTensor, reference_linear};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

crate::on_devices!(subnormal_and_not_finite_numbers_are_counted);

const K: usize = 64;

/// How many outputs of a case were what.
#[derive(Default, Debug, Clone, Copy, PartialEq)]
struct Count {
    /// The reference's bits.
    same: usize,
    /// 0 where the reference has a number, or what follows from 0 in place of a subnormal input.
    flushed: usize,
    /// Within one code or 2 ulp.
    near: usize,
    other: usize,
    /// NaN for a number or a number for NaN.
    nan: usize,
}

/// The identity with this scale: an output is one code times both scales.
fn identity(scale: f32, scale_dtype: FloatDtype) -> AffineQuantizedTensor {
    let parts = AffineParts {
        shape: vec![K, K],
        block_size: vec![1, K],
        dtype: IntDtype::INT8,
        quant_min: -128,
        quant_max: 127,
        scale: vec![scale; K],
        scale_dtype,
        zero_point: ZeroPoints::None,
        zero_point_dtype: FloatDtype::F32,
    };
    let codes: Vec<i32> = (0..K * K).map(|i| i32::from(i / K == i % K)).collect();
    AffineQuantizedTensor::from_codes(parts, &codes).unwrap()
}

/// Rows whose numbers are subnormal in `dtype`: alone, among ordinary ones, and around half a step of the smallest scale.
fn subnormal_rows(rng: &mut StdRng, dtype: FloatDtype) -> Vec<f32> {
    let smallest = dtype.smallest_normal();
    let mut small = |factor: f32| dtype.round(smallest * factor * rng.random_range(-1.0f32..1.0));
    let mut x: Vec<f32> = (0..K).map(|_| small(1.0)).collect();
    x.extend((0..K).map(|i| if i % 4 == 0 { 1.0 } else { small(1.0) }));
    x.extend((0..K).map(|_| small(200.0)));
    x
}

/// Rows with a NaN of either sign, with an infinity of either sign, and one without.
fn bad_rows(dtype: FloatDtype) -> Vec<f32> {
    let row = |bad: f32| {
        (0..K).map(move |i| {
            if i == 5 {
                bad
            } else {
                dtype.round(i as f32 / 64.0 - 0.4)
            }
        })
    };
    let bad = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
    bad.into_iter().flat_map(row).collect()
}

fn count(got: &[f32], want: &[f32], flushed: &[f32], step: f32) -> Count {
    let mut count = Count::default();
    for ((got, want), flushed) in got.iter().zip(want).zip(flushed) {
        if got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan() || got == want {
            count.same += 1;
        } else if got.is_nan() || want.is_nan() {
            count.nan += 1;
        } else if *got == 0.0 || got == flushed {
            count.flushed += 1;
        } else if (got - want).abs() <= step + 4.0 * f32::EPSILON * want.abs() {
            count.near += 1;
        } else {
            count.other += 1;
        }
    }
    count
}

fn subnormal_and_not_finite_numbers_are_counted<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let name = B::name(device);
    let exact = name.contains("cuda");
    let mut rng = StdRng::seed_from_u64(31);
    let mut table: Vec<(String, Count)> = vec![];
    for dtype in dtypes::<B>(device) {
        let smallest = dtype.smallest_normal();
        let dynamic = |mapping| ActivationQuantization::Dynamic {
            mapping,
            scale: ActivationScale::PerToken,
            dtype: IntDtype::INT8,
            quant_min: -128,
            quant_max: 127,
            eps: None,
            scale_in_input_dtype: false,
        };
        let fixed = |scale| ActivationQuantization::Static {
            scale,
            zero_point: 3,
            dtype: IntDtype::INT8,
            quant_min: -128,
            quant_max: 127,
        };
        let treatments = [
            ("float", ActivationQuantization::None),
            ("dynamic", dynamic(MappingType::Symmetric)),
            ("dynamic, asymmetric", dynamic(MappingType::Asymmetric)),
            ("static", fixed(smallest)),
            ("static, subnormal scale", fixed(2f32.powi(-130))),
        ];
        for (what, how) in treatments {
            for (kind, x) in [
                ("subnormal", subnormal_rows(&mut rng, dtype)),
                ("not finite", bad_rows(dtype)),
            ] {
                for (of, scale) in [("1", 1.0), ("subnormal", 2f32.powi(-128))] {
                    let w = identity(scale, FloatDtype::F32);
                    let rows = x.len() / K;
                    let y = linear(
                        tensor::<B, 2>(&x, [rows, K], dtype, device),
                        &pack::<B>(&w, how, device),
                        None,
                    );
                    let want = reference_linear(&x, rows, dtype, &w, &how, None);
                    let zeroed: Vec<f32> = x.iter().map(|x| if x.abs() < smallest { 0.0 } else { *x }).collect();
                    let flushed = reference_linear(&zeroed, rows, dtype, &w, &how, None);
                    let count = count(&values(y), &want, &flushed, scale * smallest);
                    table.push((format!("{dtype} {what}: {kind} activations, weight scale {of}"), count));
                }
            }
        }
        // Rows of a weight with a subnormal scale, as an embedding reads them.
        let w = identity(2f32.powi(-128), FloatDtype::F32);
        let packed = pack::<B>(&w, ActivationQuantization::None, device);
        let rows: Vec<i64> = (0..K as i64).collect();
        let rows = Tensor::<B, 1, Int>::from_data(burn::tensor::TensorData::from(rows.as_slice()), device);
        let y = <Native as QuantKernels<B>>::gather(&packed, rows.into_primitive(), burn_dtype(dtype));
        let y = values(Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(y)));
        table.push((
            format!("{dtype} gather: subnormal scale"),
            count(&y, &w.dequantize(dtype), &[0.0; K * K], 0.0),
        ));
    }
    println!("on {name}:");
    for (case, count) in &table {
        println!("  {case}: {count:?}");
        let rest = count.flushed + count.near + count.other + count.nan;
        assert!(
            !exact || rest == 0,
            "{case}: {count:?} where every number must be the reference's"
        );
    }
    println!("  {} cases, none skipped", table.len());
    // A device that takes a subnormal scale for 0 may divide 0 by 0 there; nowhere else.
    for (case, count) in table.iter().filter(|(case, _)| !case.contains("subnormal")) {
        assert_eq!(count.nan, 0, "{case}: NaN must stay NaN, and nothing else become one");
        assert_eq!(count.other, 0, "{case}");
    }
}
