//! Products with float activations: what a row depends on, and values that must be exact.

use super::super::float_linear::BF16_ROWS;
use super::super::isa::{Isa, Program, run_on};
use super::super::layout::{CHANNELS, Lanes};
use super::super::weight::Exact;
use super::*;

#[test]
fn a_row_of_floats_depends_on_no_other_row() {
    let mut rng = StdRng::seed_from_u64(31);
    const ROWS: usize = 40;
    const FEW: usize = BF16_ROWS - 1;
    for bits in 1..=8 {
        for (n, k, block) in [(150, 96, [1, 32]), (50, 330, [1, 330])] {
            for (i, zero) in [Zero::Same, Zero::Blocks, Zero::Float].into_iter().enumerate() {
                let w = weight(&mut rng, n, k, block, IntDtype::uint(bits).unwrap(), zero);
                let (packed, dtype) = (pack(&w, ActivationQuantization::None), DTYPES[(bits as usize + i) % 3]);
                let x = floats(&mut rng, ROWS * k, dtype);
                for tier in tiers() {
                    let (mut all, mut few) = (vec![0.0; ROWS * n], vec![0.0; FEW * n]);
                    packed.linear_on(tier, &x, ROWS, dtype, None, &mut all);
                    packed.linear_on(tier, &x[..FEW * k], FEW, dtype, None, &mut few);
                    for rows in (1..=14).chain([23, 25]) {
                        let mut some = vec![0.0; rows * n];
                        packed.linear_on(tier, &x[..rows * k], rows, dtype, None, &mut some);
                        let what = format!("{tier} {bits} bits {zero:?} {dtype} M={rows}");
                        // Only bf16 may change its order of sums, once.
                        let few_in_order = dtype == FloatDtype::BF16 && rows <= FEW;
                        same(&some, &if few_in_order { &few } else { &all }[..rows * n], &what);
                    }
                }
            }
        }
    }
}

#[test]
fn pairs_of_bf16_count_subnormal_values_as_zero_at_most() {
    let mut rng = StdRng::seed_from_u64(34);
    let (n, k, rows) = (40, 300, 20);
    let w = weight(&mut rng, n, k, [1, 100], IntDtype::INT8, Zero::Same);
    let (packed, values) = (pack(&w, ActivationQuantization::None), w.dequantize(FloatDtype::F32));
    // Of the smallest normal magnitude, and below it.
    for tiny in [2f32.powi(-126), 2f32.powi(-130)] {
        let x: Vec<f32> = floats(&mut rng, rows * k, FloatDtype::BF16)
            .iter()
            .map(|x| FloatDtype::BF16.round(x * tiny))
            .collect();
        for tier in tiers() {
            let mut y = vec![7.0; rows * n];
            packed.linear_on(tier, &x, rows, FloatDtype::BF16, None, &mut y);
            for (i, got) in y.iter().enumerate() {
                let terms = x[i / n * k..][..k].iter().zip(&values[i % n * k..][..k]);
                let want: f64 = terms.map(|(x, w)| *x as f64 * *w as f64).sum();
                // Weights are at most 255 steps of at most 0.1.
                let bound = k as f64 * 2f64.powi(-126) * 25.5 + 3.1 * 2f64.powi(-8) * want.abs();
                assert!(
                    (*got as f64 - want).abs() <= bound,
                    "{tier} {tiny:e} element {i}: got {got:e}, want {want:e}"
                );
            }
        }
    }
}

#[test]
fn float_zero_points_round_alike_for_any_number_of_rows() {
    let mut rng = StdRng::seed_from_u64(33);
    let (n, k, rows) = (70, 200, 5);
    let mut seen = Vec::new();
    for dtype in DTYPES {
        // Factors of scales and of zero points, and the last code.
        for (of_scale, of_zero, last) in [
            (1.0, 1.0, 15),
            (1.0, 0.0, 15),
            (1.0, 3.0e-5, 15),
            (1.0, 1.0e-12, 15),
            (1.0, 1.0e4, 15),
            (-1.0, 1.0, 15),
            (0.0, 1.0, 15),
            (1.0e-3, 1.0e-3, 13),
            (1.0e-33, 1.0e-33, 15),
        ] {
            let mut parts = weight(&mut rng, n, k, [1, 40], IntDtype::UINT4, Zero::Float)
                .parts()
                .clone();
            let ZeroPoints::Float(zeros) = &mut parts.zero_point else {
                unreachable!("a float zero point was asked for")
            };
            zeros.iter_mut().for_each(|zero| *zero = dtype.round(*zero * of_zero));
            parts
                .scale
                .iter_mut()
                .for_each(|scale| *scale = dtype.round(*scale * of_scale));
            (parts.scale_dtype, parts.zero_point_dtype, parts.quant_max) = (dtype, dtype, last);
            let codes: Vec<i32> = (0..n * k).map(|_| rng.random_range(0..=last)).collect();
            let w = AffineQuantizedTensor::from_codes(parts, &codes).unwrap();
            let (packed, x) = (
                pack(&w, ActivationQuantization::None),
                floats(&mut rng, rows * k, FloatDtype::F32),
            );
            seen.extend_from_slice(&packed.exact);
            for tier in tiers() {
                let (mut all, mut one) = (vec![0.0; rows * n], vec![0.0; n]);
                packed.linear_on(tier, &x, rows, FloatDtype::F32, None, &mut all);
                for row in 0..rows {
                    packed.linear_on(tier, &x[row * k..][..k], 1, FloatDtype::F32, None, &mut one);
                    let what =
                        format!("{tier} {dtype} scale · {of_scale:e}, zero · {of_zero:e}, codes to {last}, row {row}");
                    same(&one, &all[row * n..][..n], &what);
                }
            }
        }
    }
    for exact in [Exact::Nothing, Exact::Middle, Exact::Start] {
        assert!(seen.contains(&exact), "no panel is {exact:?}");
    }
}

#[test]
fn codes_equal_to_their_zero_points_give_the_bias() {
    let mut rng = StdRng::seed_from_u64(32);
    let (n, k) = (70, 200);
    for bits in 1..=8 {
        let dtype = IntDtype::uint(bits).unwrap();
        for zero in [Zero::Same, Zero::Blocks] {
            let parts = weight(&mut rng, n, k, [1, 40], dtype, zero).parts().clone();
            let ZeroPoints::Int(zeros) = &parts.zero_point else {
                unreachable!("an integer zero point was asked for")
            };
            let codes: Vec<i32> = (0..n * k).map(|i| zeros[i / k * (k / 40) + i % k / 40]).collect();
            let w = AffineQuantizedTensor::from_codes(parts.clone(), &codes).unwrap();
            let packed = pack(&w, ActivationQuantization::None);
            let (x, bias) = (
                floats(&mut rng, 9 * k, FloatDtype::F32),
                floats(&mut rng, n, FloatDtype::F32),
            );
            for tier in tiers() {
                for rows in [1, 2, 9] {
                    let mut y = vec![7.0; rows * n];
                    packed.linear_on(tier, &x[..rows * k], rows, FloatDtype::F32, Some(&bias), &mut y);
                    same(&y, &bias.repeat(rows), &format!("{tier} {dtype} {zero:?} M={rows}"));
                }
            }
        }
    }
}

struct Round<'a>(FloatDtype, &'a mut Lanes<f32>);

impl Program for Round<'_> {
    fn run<I: Isa>(self, isa: I) {
        let rounded = isa.round(self.0, isa.load(self.1));
        isa.store(rounded, self.1);
    }
}

#[test]
fn a_tier_rounds_as_the_dtype_does() {
    for tier in tiers() {
        for high in (0..=u16::MAX)
            .step_by(7)
            .chain([0x7f7f, 0x7f80, 0x7fff, 0xff80, 0xffff])
        {
            let mut values = Lanes([0.0; CHANNELS]);
            let lows = [
                0u32, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff,
            ];
            for (value, low) in values.0.iter_mut().zip(lows) {
                *value = f32::from_bits((high as u32) << 16 | low);
            }
            for dtype in DTYPES {
                let mut got = values;
                run_on(tier, Round(dtype, &mut got));
                same(
                    &got.0,
                    &values.0.map(|value| dtype.round(value)),
                    &format!("{tier} {dtype}"),
                );
            }
        }
    }
}
