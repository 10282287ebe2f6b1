//! Every tier that this machine has, held to a scalar reference.

mod edges;
mod float;

use super::{CpuWeight, Preference, TIER_VARIABLE, Tier};
use crate::dtype::{FloatDtype, IntDtype};
use crate::primitives::ZeroPoints;
use crate::spec::{ActivationQuantization, ActivationScale, BlockGrid, MappingType};
use crate::tensor::{AffineParts, AffineQuantizedTensor, reference_linear};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::BF16];

pub(crate) fn tiers() -> Vec<Tier> {
    for tier in Tier::ALL.into_iter().filter(|tier| !tier.is_available()) {
        println!("skipped: this machine cannot run {tier}");
    }
    Tier::available()
}

/// What a test weight's zero points are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Zero {
    None,
    Same,
    Blocks,
    Float,
}

/// A weight of random codes that include both ends of the range.
pub(crate) fn weight(
    rng: &mut StdRng,
    n: usize,
    k: usize,
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
    let floats = DTYPES[rng.random_range(0..3)];
    let parts = AffineParts {
        shape: vec![n, k],
        block_size,
        dtype,
        quant_min: min,
        quant_max: max,
        scale: (0..blocks)
            .map(|_| floats.round(rng.random_range(0.01f32..0.1)))
            .collect(),
        scale_dtype: floats,
        zero_point: match zero {
            Zero::None => ZeroPoints::None,
            Zero::Same => ZeroPoints::Int(vec![(min + max) / 2; blocks]),
            Zero::Blocks => ZeroPoints::Int((0..blocks).map(|_| rng.random_range(min..=max)).collect()),
            Zero::Float => ZeroPoints::Float(
                (0..blocks)
                    .map(|_| floats.round(rng.random_range(-1.0f32..1.0)))
                    .collect(),
            ),
        },
        zero_point_dtype: floats,
    };
    AffineQuantizedTensor::from_codes(parts, &codes).unwrap()
}

pub(crate) fn floats(rng: &mut StdRng, count: usize, dtype: FloatDtype) -> Vec<f32> {
    (0..count)
        .map(|_| dtype.round(rng.random_range(-3.0f32..3.0)))
        .collect()
}

fn pack(weight: &AffineQuantizedTensor, activation: ActivationQuantization) -> CpuWeight {
    CpuWeight::pack_for(weight.clone(), activation, &Preference::Auto)
        .unwrap()
        .unwrap()
}

fn dynamic(mapping: MappingType, scale: ActivationScale, scale_in_input_dtype: bool) -> ActivationQuantization {
    ActivationQuantization::Dynamic {
        mapping,
        scale,
        dtype: IntDtype::INT8,
        quant_min: -128,
        quant_max: 127,
        eps: (!scale_in_input_dtype).then_some(f32::EPSILON),
        scale_in_input_dtype,
    }
}

pub(crate) fn same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let equal = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(equal, "{what}: element {i}: got {got:e}, want {want:e}");
    }
}

#[test]
fn what_is_slower_on_a_tier_is_said() {
    use crate::kernels::Expected;
    let mut rng = StdRng::seed_from_u64(1);
    let int4 = weight(&mut rng, 16, 128, [1, 128], IntDtype::INT4, Zero::None);
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    for tier in tiers() {
        let preference = Preference::Specific(tier.name().into());
        let expected = |activation, outputs| {
            let packed = CpuWeight::pack_for(int4.clone(), activation, &preference);
            packed.unwrap().unwrap().expected(outputs)
        };
        let float = expected(ActivationQuantization::None, 4096);
        let quantized = expected(int8, 4096);
        match tier {
            Tier::Scalar => assert!(matches!((&float, &quantized), (Expected::Mixed(_), Expected::Mixed(_)))),
            Tier::AvxVnni | Tier::Avx2 => {
                assert!(
                    matches!(&float, Expected::Mixed(why) if why.contains(tier.name())),
                    "{float:?}"
                );
                assert_eq!(quantized, Expected::Faster);
            }
            _ => assert_eq!((float, quantized), (Expected::Faster, Expected::Faster), "{tier}"),
        }
        assert!(matches!(expected(int8, 8), Expected::Slower(_)), "{tier}");
    }
}

#[test]
fn a_packed_weight_comes_back() {
    let mut rng = StdRng::seed_from_u64(1);
    for bits in 1..=8 {
        for dtype in [IntDtype::int(bits).unwrap(), IntDtype::uint(bits).unwrap()] {
            for (n, k, block) in [
                (1, 1, [1, 1]),
                (17, 33, [1, 33]),
                (16, 64, [16, 64]),
                (33, 100, [1, 24]),
                (20, 70, [4, 32]),
                (3, 0, [1, 1]),
                (0, 5, [1, 5]),
            ] {
                for zero in [Zero::None, Zero::Same, Zero::Blocks, Zero::Float] {
                    let w = weight(&mut rng, n, k, block, dtype, zero);
                    let packed = pack(&w, ActivationQuantization::None);
                    assert_eq!(packed.unpack(), w, "{dtype} [{n}, {k}] {block:?} {zero:?}");
                    assert_eq!(packed.rest_bytes(), w.bytes(), "{dtype} [{n}, {k}] {block:?} {zero:?}");
                    for dtype in DTYPES {
                        let rows: Vec<usize> = (0..n).rev().collect();
                        let mut got = vec![0.0; n * k];
                        packed.gather(&rows, dtype, &mut got);
                        let values = w.dequantize(dtype);
                        let want: Vec<f32> = rows.iter().flat_map(|r| &values[r * k..(r + 1) * k]).copied().collect();
                        same(&got, &want, &format!("gather {dtype} [{n}, {k}] {block:?} {zero:?}"));
                    }
                }
            }
        }
    }
}

#[test]
fn integer_products_equal_the_reference_on_every_tier() {
    use MappingType::{Asymmetric, Symmetric, SymmetricNoClippingErr};
    let mut rng = StdRng::seed_from_u64(2);
    let fixed = |zero_point, dtype: IntDtype| ActivationQuantization::Static {
        scale: 0.02,
        zero_point,
        dtype,
        quant_min: dtype.min(),
        quant_max: dtype.max(),
    };
    let hows = [
        dynamic(Symmetric, ActivationScale::PerToken, false),
        dynamic(Symmetric, ActivationScale::PerTensor, false),
        dynamic(Asymmetric, ActivationScale::PerToken, true),
        dynamic(Asymmetric, ActivationScale::PerToken, false),
        dynamic(SymmetricNoClippingErr, ActivationScale::PerToken, true),
        fixed(0, IntDtype::INT8),
        fixed(-7, IntDtype::INT8),
        fixed(100, IntDtype::UINT8),
        fixed(128, IntDtype::UINT8),
    ];
    let tiers = tiers();
    let mut case = 0;
    for bits in 1..=8 {
        for (n, k, block) in [
            (1, 1, [1, 1]),
            (15, 31, [1, 31]),
            (16, 64, [16, 64]),
            (17, 300, [1, 300]),
            (33, 100, [1, 24]),
            (80, 160, [1, 32]),
            (70, 200, [3, 64]),
            (130, 96, [1, 8]),
        ] {
            for rows in [0, 1, 2, 7, 33] {
                case += 1;
                let how = &hows[case % hows.len()];
                let dtype = DTYPES[case / 2 % 3];
                let codes = if case % 2 == 0 {
                    IntDtype::int(bits)
                } else {
                    IntDtype::uint(bits)
                }
                .unwrap();
                let zero = [Zero::None, Zero::Same, Zero::Blocks][case % 3];
                let w = weight(&mut rng, n, k, block, codes, zero);
                let packed = pack(&w, *how);
                let mut x = floats(&mut rng, rows * k, dtype);
                if rows > 2 {
                    x[k..2 * k].fill(0.0);
                }
                let bias = floats(&mut rng, n, dtype);
                let bias = (case % 4 != 0).then_some(bias.as_slice());
                let want = reference_linear(&x, rows, dtype, &w, how, bias);
                for tier in &tiers {
                    let mut y = vec![7.0; rows * n];
                    packed.linear_on(*tier, &x, rows, dtype, bias, &mut y);
                    same(
                        &y,
                        &want,
                        &format!("{tier} {codes} {dtype} M={rows} [{n}, {k}] {block:?} {zero:?} {how:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn extreme_codes_do_not_saturate() {
    // Every activation at one end of the range and every weight at one end of its own.
    let how = dynamic(MappingType::Symmetric, ActivationScale::PerToken, false);
    for bits in [4, 7, 8] {
        for (sign, code) in [(1.0, 0), (-1.0, 0), (1.0, 1), (-1.0, 1)] {
            let dtype = IntDtype::int(bits).unwrap();
            let code = [dtype.min(), dtype.max()][code];
            let mut rng = StdRng::seed_from_u64(3);
            let mut parts = weight(&mut rng, 16, 4096, [1, 4096], dtype, Zero::None).parts().clone();
            parts.scale.fill(1.0);
            let w = AffineQuantizedTensor::from_codes(parts, &[code; 16 * 4096]).unwrap();
            let (packed, x) = (pack(&w, how), vec![sign * 127.5; 4096]);
            let want = reference_linear(&x, 1, FloatDtype::F32, &w, &how, None);
            for tier in tiers() {
                let mut y = vec![0.0; 16];
                packed.linear_on(tier, &x, 1, FloatDtype::F32, None, &mut y);
                same(&y, &want, &format!("{tier} {dtype} {code} {sign}"));
            }
        }
    }
}

#[test]
fn float_products_stay_within_the_bound_on_every_tier() {
    let mut rng = StdRng::seed_from_u64(4);
    let tiers = tiers();
    let mut case = 0;
    for bits in 1..=8 {
        for (n, k, block) in [
            (1, 1, [1, 1]),
            (15, 31, [1, 31]),
            (16, 64, [16, 64]),
            (33, 100, [1, 24]),
            (80, 1300, [1, 32]),
            (70, 200, [3, 64]),
            (40, 2100, [1, 2100]),
        ] {
            for rows in [0, 1, 2, 7, 33] {
                case += 1;
                let dtype = DTYPES[case / 2 % 3];
                let codes = if case % 2 == 0 {
                    IntDtype::int(bits)
                } else {
                    IntDtype::uint(bits)
                }
                .unwrap();
                let zero = [Zero::None, Zero::Same, Zero::Blocks, Zero::Float][case % 4];
                let w = weight(&mut rng, n, k, block, codes, zero);
                let packed = pack(&w, ActivationQuantization::None);
                let x = floats(&mut rng, rows * k, dtype);
                let values = w.dequantize(if zero == Zero::Float { dtype } else { FloatDtype::F32 });
                for tier in &tiers {
                    let mut y = vec![7.0; rows * n];
                    packed.linear_on(*tier, &x, rows, dtype, None, &mut y);
                    for (i, got) in y.iter().enumerate() {
                        let (x, w) = (&x[i / n * k..][..k], &values[i % n * k..][..k]);
                        let terms = || x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64);
                        let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                        let epsilon = f32::EPSILON as f64;
                        // Rounding to a narrower dtype happens up to three times.
                        let narrow = match dtype {
                            FloatDtype::F32 => 0.0,
                            FloatDtype::F16 => 3.1 * 2f64.powi(-11) * want.abs() + 1e-6,
                            FloatDtype::BF16 => 3.1 * 2f64.powi(-8) * want.abs(),
                        };
                        let bound = 2.0 * (k + 1) as f64 * epsilon * size + narrow;
                        assert!(
                            (*got as f64 - want).abs() <= bound,
                            "{tier} {codes} {dtype} M={rows} [{n}, {k}] {block:?} {zero:?}: element {i}: got {got}, want {want} ± {bound:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let mut rng = StdRng::seed_from_u64(5);
    for (how, zero) in [
        (ActivationQuantization::None, Zero::Float),
        (ActivationQuantization::None, Zero::Blocks),
        (ActivationQuantization::int8_dynamic_asymmetric(), Zero::Blocks),
    ] {
        let (n, k, rows) = (100, 160, 41);
        let w = weight(&mut rng, n, k, [1, 32], IntDtype::UINT4, zero);
        let packed = pack(&w, how);
        let x = floats(&mut rng, rows * k, FloatDtype::F32);
        for tier in tiers() {
            let mut all = vec![0.0; rows * n];
            packed.linear_on(tier, &x, rows, FloatDtype::F32, None, &mut all);
            for row in 0..rows {
                let mut one = vec![0.0; n];
                packed.linear_on(tier, &x[row * k..(row + 1) * k], 1, FloatDtype::F32, None, &mut one);
                same(&one, &all[row * n..(row + 1) * n], &format!("{tier} {how:?} row {row}"));
            }
        }
    }
}

#[test]
fn a_bad_value_spoils_its_row_only() {
    let mut rng = StdRng::seed_from_u64(6);
    let (n, k, rows) = (19, 70, 9);
    let fixed = ActivationQuantization::Static {
        scale: 0.02,
        zero_point: 3,
        dtype: IntDtype::INT8,
        quant_min: -128,
        quant_max: 127,
    };
    for (how, zero, block) in [
        (ActivationQuantization::None, Zero::Float, [1, 32]),
        (ActivationQuantization::None, Zero::Same, [1, 70]),
        (fixed, Zero::None, [1, 70]),
        (
            dynamic(MappingType::Symmetric, ActivationScale::PerToken, false),
            Zero::None,
            [1, 70],
        ),
        (ActivationQuantization::int8_dynamic_asymmetric(), Zero::Same, [1, 32]),
    ] {
        let w = weight(&mut rng, n, k, block, IntDtype::UINT4, zero);
        let packed = pack(&w, how);
        let clean = floats(&mut rng, rows * k, FloatDtype::F32);
        for tier in tiers() {
            let mut want = vec![0.0; rows * n];
            packed.linear_on(tier, &clean, rows, FloatDtype::F32, None, &mut want);
            for at in 0..k {
                let (row, value) = (at % rows, [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][at % 3]);
                let mut x = clean.clone();
                x[row * k + at] = value;
                let mut y = vec![0.0; rows * n];
                packed.linear_on(tier, &x, rows, FloatDtype::F32, None, &mut y);
                let mut want = want.clone();
                want[row * n..(row + 1) * n].fill(f32::NAN);
                same(&y, &want, &format!("{tier} {how:?} {value} at {at} of row {row}"));
            }
        }
    }
}

#[test]
fn a_per_tensor_scale_is_chosen_from_finite_rows() {
    let mut rng = StdRng::seed_from_u64(7);
    let how = dynamic(MappingType::Symmetric, ActivationScale::PerTensor, false);
    let w = weight(&mut rng, 20, 40, [1, 40], IntDtype::INT8, Zero::None);
    let mut x = floats(&mut rng, 3 * 40, FloatDtype::F32);
    let finite = [&x[..40], &x[80..]].concat();
    x[47] = f32::INFINITY;
    let want = reference_linear(&finite, 2, FloatDtype::F32, &w, &how, None);
    for tier in tiers() {
        let mut y = vec![0.0; 60];
        pack(&w, how).linear_on(tier, &x, 3, FloatDtype::F32, None, &mut y);
        same(&y[..20], &want[..20], "first row");
        same(&y[40..], &want[20..], "last row");
        assert!(y[20..40].iter().all(|y| y.is_nan()));
    }
}

#[test]
fn no_inputs_give_the_bias() {
    let mut rng = StdRng::seed_from_u64(8);
    let w = weight(&mut rng, 3, 0, [1, 1], IntDtype::INT8, Zero::None);
    for how in [
        ActivationQuantization::None,
        ActivationQuantization::int8_dynamic_asymmetric(),
    ] {
        for tier in tiers() {
            let mut y = vec![7.0; 6];
            pack(&w, how).linear_on(tier, &[], 2, FloatDtype::F32, Some(&[1.0, 2.0, 3.0]), &mut y);
            assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        }
    }
}

#[test]
fn the_transposed_product_equals_its_sum() {
    let mut rng = StdRng::seed_from_u64(9);
    for (n, k, block, rows) in [
        (17, 33, [1, 33], 3),
        (40, 1100, [1, 48], 2),
        (16, 520, [2, 256], 1),
        (5, 7, [1, 7], 0),
    ] {
        for dtype in DTYPES {
            let w = weight(&mut rng, n, k, block, IntDtype::INT5, Zero::Blocks);
            let g = floats(&mut rng, rows * n, dtype);
            let values = w.dequantize(dtype);
            let mut y = vec![7.0; rows * k];
            pack(&w, ActivationQuantization::None).linear_transposed(&g, rows, dtype, &mut y);
            for (i, got) in y.iter().enumerate() {
                let want = (0..n).fold(0.0, |sum, c| sum + g[i / k * n + c] * values[c * k + i % k]);
                assert_eq!(*got, dtype.round(want), "{dtype} [{n}, {k}] element {i}");
            }
        }
    }
}

#[test]
fn refusals_say_why() {
    let mut rng = StdRng::seed_from_u64(10);
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    let refuse = |w: AffineQuantizedTensor, how| CpuWeight::pack(w, how).unwrap_err().reason;
    let w = weight(&mut rng, 4, 64, [1, 4], IntDtype::INT8, Zero::None);
    assert!(refuse(w, ActivationQuantization::None).contains("too small"));
    let w = weight(&mut rng, 4, 64, [1, 32], IntDtype::UINT4, Zero::Float);
    assert!(refuse(w, int8).contains("float activations"));
    let w = weight(&mut rng, 1, 65_537, [1, 65_537], IntDtype::INT8, Zero::None);
    assert!(refuse(w, int8).contains("65536"));
}

#[test]
fn a_row_does_not_depend_on_the_threads() {
    let mut rng = StdRng::seed_from_u64(12);
    let (n, k, rows) = (300, 512, 129);
    for (how, zero) in [
        (ActivationQuantization::None, Zero::Float),
        (ActivationQuantization::int8_dynamic_asymmetric(), Zero::Blocks),
    ] {
        let packed = pack(&weight(&mut rng, n, k, [1, 32], IntDtype::UINT5, zero), how);
        let x = floats(&mut rng, rows * k, FloatDtype::F32);
        for tier in tiers() {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut y = vec![0.0; rows * n];
                pool.install(|| packed.linear_on(tier, &x, rows, FloatDtype::F32, None, &mut y));
                y
            };
            let one = run(1);
            for threads in [2, 3, 8] {
                same(&run(threads), &one, &format!("{tier} {how:?} on {threads} threads"));
            }
        }
    }
}

#[test]
fn sums_that_wait_for_a_slice_of_k_are_those_of_a_row_alone() {
    // Codes of 200 rows leave a near cache, so that K is cut, and 530 channels are more than the panels that a slice meets.
    let (rows, n, k) = (200, 530, 4000);
    let mut rng = StdRng::seed_from_u64(22);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (bits, group) in [(8, k), (8, 128), (4, 96)] {
        let w = weight(&mut rng, n, k, [1, group], IntDtype::int(bits).unwrap(), Zero::None);
        let how = dynamic(MappingType::Asymmetric, ActivationScale::PerToken, false);
        let packed = pack(&w, how);
        let x: Vec<f32> = (0..rows * k).map(|_| rng.random_range(-1.0..1.0)).collect();
        for tier in tiers().into_iter().filter(|tier| *tier != Tier::Scalar) {
            let mut y = vec![7.0; rows * n];
            pool.install(|| packed.linear_on(tier, &x, rows, FloatDtype::F32, None, &mut y));
            for row in [0, 1, 97, rows - 1] {
                let mut alone = vec![7.0; n];
                packed.linear_on(tier, &x[row * k..][..k], 1, FloatDtype::F32, None, &mut alone);
                same(
                    &y[row * n..][..n],
                    &alone,
                    &format!("{tier}, {bits} bits, groups of {group}, row {row}"),
                );
            }
        }
    }
}

#[test]
fn a_tier_is_forced_by_the_environment() {
    let mut rng = StdRng::seed_from_u64(13);
    if let Ok(name) = std::env::var(TIER_VARIABLE) {
        let w = weight(&mut rng, 16, 32, [1, 32], IntDtype::INT8, Zero::None);
        assert_eq!(
            CpuWeight::pack(w, ActivationQuantization::None).unwrap().tier().name(),
            name
        );
        return;
    }
    let forced = |name: &str| {
        let this = "kernels::cpu::tests::a_tier_is_forced_by_the_environment";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child
            .args(["--exact", this, "--nocapture"])
            .env(TIER_VARIABLE, name)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for tier in tiers() {
        assert!(forced(tier.name()).0, "{tier}");
    }
    let (passed, message) = forced("sse9");
    assert!(
        !passed && message.contains("`sse9`") && message.contains("scalar"),
        "{message}"
    );
}
