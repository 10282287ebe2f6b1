//! Drawn problems whose sizes lie at and beside the edges of tiles, panels and blocks, with values over the whole range of their dtype.

use super::{DTYPES, Zero, dynamic, pack, same, tiers, weight};
use crate::dtype::{FloatDtype, IntDtype};
use crate::kernels::cpu::Tier;
use crate::spec::{ActivationQuantization, ActivationScale, MappingType};
use crate::tensor::reference_linear;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Products of a drawn problem, at most.
const LARGEST: usize = 3 << 20;
/// Products up to which the scalar reference is the judge; above it is the scalar tier, which the reference has judged.
const REFERENCE: usize = 1 << 16;

/// A size up to `largest`: small, or beside a multiple of a power of two.
fn size(rng: &mut StdRng, largest: usize) -> usize {
    let step = 1 << rng.random_range(2..=9);
    let size = match rng.random_range(0..4) {
        0 => rng.random_range(1..=40),
        1 => rng.random_range(1..=largest),
        _ => (step * rng.random_range(1..=(largest / step).max(1)))
            .saturating_add_signed(rng.random_range(-1..=1i32) as isize),
    };
    size.clamp(1, largest)
}

/// A row spans some powers of two, of a magnitude of its own: from subnormal to near the largest value.
fn values(rng: &mut StdRng, rows: usize, k: usize, dtype: FloatDtype) -> Vec<f32> {
    let exponents = match dtype {
        FloatDtype::F16 => -16..=12,
        _ => -130..=100,
    };
    let mut x = Vec::with_capacity(rows * k);
    for _ in 0..rows {
        let magnitude = match rng.random_range(0..3) {
            0 => 2f32.powi(rng.random_range(exponents.clone())),
            _ => 1.0,
        };
        x.extend((0..k).map(|_| {
            let value = match rng.random_range(0..8) {
                0 => 1.0,
                1 => -1.0,
                2 => 0.0,
                _ => rng.random_range(-1.0f32..1.0),
            };
            dtype.round(value * magnitude)
        }));
    }
    x
}

fn treatment(rng: &mut StdRng) -> ActivationQuantization {
    use MappingType::{Asymmetric, Symmetric, SymmetricNoClippingErr};
    let dtype = [IntDtype::INT8, IntDtype::UINT8][rng.random_range(0..2)];
    match rng.random_range(0..4) {
        0 => ActivationQuantization::Static {
            scale: rng.random_range(0.001f32..0.1),
            zero_point: rng.random_range(dtype.min()..=dtype.max()),
            dtype,
            quant_min: dtype.min(),
            quant_max: dtype.max(),
        },
        1 => dynamic(Symmetric, ActivationScale::PerTensor, rng.random_bool(0.5)),
        _ => {
            let mapping = [Symmetric, Asymmetric, SymmetricNoClippingErr][rng.random_range(0..3)];
            dynamic(mapping, ActivationScale::PerToken, rng.random_bool(0.5))
        }
    }
}

/// A drawn weight `[n, k]`, and how it was drawn.
fn draw(rng: &mut StdRng, n: usize, k: usize, zeros: &[Zero]) -> (crate::tensor::AffineQuantizedTensor, String) {
    let bits = [8, 4, rng.random_range(1..=8)][rng.random_range(0..3)];
    let dtype = [IntDtype::int(bits), IntDtype::uint(bits)][rng.random_range(0..2)]
        .clone()
        .unwrap();
    let group = match rng.random_range(0..3) {
        0 => k,
        1 => [32, 64, 128][rng.random_range(0..3)],
        _ => rng.random_range(8..=300),
    };
    let block = [[1, n, 3][rng.random_range(0..3)], group];
    let zero = zeros[rng.random_range(0..zeros.len())];
    (
        weight(rng, n, k, block, dtype, zero),
        format!("{dtype} [{n}, {k}] {block:?} {zero:?}"),
    )
}

fn sizes(rng: &mut StdRng) -> (usize, usize, usize) {
    loop {
        let (m, n, k) = (size(rng, 300), size(rng, 700), size(rng, 9000));
        if m * n * k <= LARGEST {
            return (m, n, k);
        }
    }
}

#[test]
fn integer_products_of_any_size_are_identical_on_every_tier() {
    let mut rng = StdRng::seed_from_u64(20);
    let tiers = tiers();
    for case in 0..160 {
        let (m, n, k) = sizes(&mut rng);
        let (w, drawn) = draw(&mut rng, n, k, &[Zero::None, Zero::Same, Zero::Blocks]);
        let how = treatment(&mut rng);
        let dtype = DTYPES[case % 3];
        let (packed, x) = (pack(&w, how), values(&mut rng, m, k, dtype));
        let bias = values(&mut rng, 1, n, dtype);
        let bias = rng.random_bool(0.5).then_some(bias.as_slice());
        let mut want = vec![7.0; m * n];
        if m * n * k <= REFERENCE {
            want = reference_linear(&x, m, dtype, &w, &how, bias);
        } else {
            packed.linear_on(Tier::Scalar, &x, m, dtype, bias, &mut want);
        }
        for tier in &tiers {
            let mut y = vec![7.0; m * n];
            packed.linear_on(*tier, &x, m, dtype, bias, &mut y);
            same(&y, &want, &format!("case {case}, {tier} {dtype} M={m} {drawn} {how:?}"));
        }
    }
}

#[test]
fn float_products_of_any_size_are_near_on_every_tier() {
    let mut rng = StdRng::seed_from_u64(21);
    let tiers = tiers();
    for case in 0..120 {
        let (m, n, k) = sizes(&mut rng);
        let (w, drawn) = draw(&mut rng, n, k, &[Zero::None, Zero::Same, Zero::Blocks, Zero::Float]);
        let dtype = DTYPES[case % 3];
        let packed = pack(&w, ActivationQuantization::None);
        let x: Vec<f32> = (0..m * k)
            .map(|_| dtype.round(rng.random_range(-1.0f32..1.0)))
            .collect();
        let mut want = vec![7.0; m * n];
        packed.linear_on(Tier::Scalar, &x, m, dtype, None, &mut want);
        // Codes reach 255, scales 0.1 and x 1: what K rounded terms, and the dtype, may differ by.
        let step = match dtype {
            FloatDtype::F32 => 0.0,
            FloatDtype::F16 => 2f32.powi(-10),
            FloatDtype::BF16 => 2f32.powi(-7),
        };
        for tier in &tiers {
            let mut y = vec![7.0; m * n];
            packed.linear_on(*tier, &x, m, dtype, None, &mut y);
            for (i, (got, want)) in y.iter().zip(&want).enumerate() {
                let bound =
                    26.0 * (k + 1) as f32 * f32::EPSILON * (k as f32).sqrt().max(1.0) + 4.0 * step * want.abs() + 1e-4;
                assert!(
                    (got - want).abs() <= bound,
                    "case {case}, {tier} {dtype} M={m} {drawn}: element {i}: got {got}, want {want} ± {bound:e}"
                );
            }
        }
    }
}

#[test]
fn rows_and_transposed_products_of_any_size() {
    let mut rng = StdRng::seed_from_u64(22);
    for case in 0..60 {
        let (m, n, k) = sizes(&mut rng);
        let (m, n) = (m.min(8), n.min(100));
        let (w, drawn) = draw(&mut rng, n, k, &[Zero::None, Zero::Same, Zero::Blocks, Zero::Float]);
        let dtype = DTYPES[case % 3];
        let packed = pack(&w, ActivationQuantization::None);
        let dense = w.dequantize(dtype);
        let rows: Vec<usize> = (0..m).map(|_| rng.random_range(0..n)).collect();
        let mut got = vec![7.0; m * k];
        packed.gather(&rows, dtype, &mut got);
        let want: Vec<f32> = rows
            .iter()
            .flat_map(|row| &dense[row * k..(row + 1) * k])
            .copied()
            .collect();
        same(&got, &want, &format!("case {case}, rows of {drawn}"));
        let g: Vec<f32> = (0..m * n)
            .map(|_| dtype.round(rng.random_range(-1.0f32..1.0)))
            .collect();
        packed.linear_transposed(&g, m, dtype, &mut got);
        for (i, got) in got.iter().enumerate() {
            let terms = || (0..n).map(|c| g[i / k * n + c] as f64 * dense[c * k + i % k] as f64);
            let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            let narrow = if dtype == FloatDtype::F32 {
                0.0
            } else {
                2f64.powi(-8) * want.abs()
            };
            let bound = 2.0 * (n + 1) as f64 * f32::EPSILON as f64 * size + narrow + 1e-6;
            assert!(
                (*got as f64 - want).abs() <= bound,
                "case {case}, {dtype} M={m} {drawn}: element {i}: {got}, want {want}"
            );
        }
    }
}
