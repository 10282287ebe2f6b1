//! `int_matmul` and `int_scaled_matmul` on plain and quantized backends.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};
use burn_flex::Flex;
use burn_ndarray::NdArray;
use burn_quantized::primitives::int_product;
use burn_quantized::{Portable, QuantError, Quantized, int_matmul, int_scaled_matmul};
use half::f16;

fn ints<B: Backend>(codes: &[i32], shape: [usize; 2]) -> Tensor<B, 2, Int> {
    Tensor::from_data(
        TensorData::new(codes.to_vec(), shape),
        (&B::Device::default(), DType::I32),
    )
}

fn floats<B: Backend>(scales: &[f32], shape: [usize; 2]) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(scales.to_vec(), shape), &B::Device::default())
}

/// Codes that include both ends.
fn codes(count: usize, seed: i32) -> Vec<i32> {
    (0..count as i32).map(|i| (i * 73 + seed * 31) % 256 - 128).collect()
}

fn exact_on<B: Backend>() {
    for [m, n, k] in [
        [1, 1, 1],
        [3, 5, 7],
        [2, 3, 0],
        [0, 4, 3],
        [4, 0, 3],
        [5, 2, 4097],
        [1, 33, 64],
    ] {
        let (a, b) = (codes(m * k, 1), codes(k * n, 2));
        let transposed: Vec<i32> = (0..n * k).map(|at| b[(at % k) * n + at / k]).collect();
        let want: Vec<i32> = int_product(&a, &transposed, [m, n, k])
            .into_iter()
            .map(|x| x as i32)
            .collect();
        let got = int_matmul::<B>(ints(&a, [m, k]), ints(&b, [k, n])).unwrap();
        assert_eq!((got.dims(), got.dtype()), ([m, n], DType::I32));
        assert_eq!(got.into_data().as_slice::<i32>().unwrap(), want, "[{m}, {n}, {k}]");

        let scales: Vec<f32> = (0..m).map(|row| 0.1 + row as f32).collect();
        let got = int_scaled_matmul::<B>(ints(&a, [m, k]), ints(&b, [k, n]), floats(&scales, [m, 1])).unwrap();
        let scaled: Vec<f32> = want
            .iter()
            .enumerate()
            .map(|(at, acc)| *acc as f32 * scales[at / n])
            .collect();
        assert_eq!(got.into_data().as_slice::<f32>().unwrap(), scaled, "[{m}, {n}, {k}]");
    }
}

#[test]
fn products_are_exact_for_odd_and_empty_sizes() {
    exact_on::<Flex>();
    exact_on::<NdArray>();
    exact_on::<Quantized<Flex>>();
    exact_on::<Quantized<NdArray, Portable>>();
}

#[test]
fn the_largest_sum_fits_and_a_longer_one_is_refused() {
    let product = |k: usize| {
        let ends = vec![-128; k];
        int_matmul::<Flex>(ints(&ends, [1, k]), ints(&ends, [k, 1]))
    };
    assert_eq!(
        product(131_071).unwrap().into_data().as_slice::<i32>().unwrap(),
        [131_071 * 16_384]
    );
    assert!(matches!(product(131_072), Err(QuantError::InvalidSpec(_))));
}

#[test]
fn views_and_other_integer_widths_are_read_as_they_look() {
    let a = ints::<Flex>(&[1, 2, 3, 4, 5, 6], [3, 2]).transpose();
    let b = Tensor::from_data(
        TensorData::new(vec![1i64, -1, 2], [3, 1]),
        (&Default::default(), DType::I64),
    );
    assert_eq!(
        int_matmul(a, b).unwrap().into_data().as_slice::<i32>().unwrap(),
        [8, 10]
    );
}

#[test]
fn one_scale_serves_every_row_in_its_own_dtype() {
    let (a, b) = (ints::<Flex>(&[127, 127], [2, 1]), ints(&[127, 2], [1, 2]));
    let scale = floats::<Flex>(&[0.1], [1, 1]).cast(FloatDType::F16);
    let got = int_scaled_matmul(a, b, scale).unwrap();
    let f16_scale = f16::from_f32(0.1).to_f32();
    let want = [16_129.0, 254.0].map(|acc: f32| f16::from_f32(acc * f16_scale));
    assert_eq!(got.dtype(), DType::F16);
    assert_eq!(got.into_data().as_slice::<f16>().unwrap(), [want, want].concat());
}

#[test]
fn a_sum_above_the_range_of_f16_is_scaled_before_it_is_rounded() {
    let k = 8;
    let codes = vec![127; k];
    let scale = floats::<Flex>(&[0.001], [1, 1]).cast(FloatDType::F16);
    let got = int_scaled_matmul(ints(&codes, [1, k]), ints(&codes, [k, 1]), scale).unwrap();
    let got = got.into_data().as_slice::<f16>().unwrap()[0].to_f32();
    assert!((got - 129.0).abs() < 1.0, "{got}");
}

#[test]
fn what_does_not_fit_is_named() {
    let message = |a: &[i32], b: &[i32]| {
        let error = int_matmul::<Flex>(ints(a, [1, 2]), ints(b, [2, 1])).unwrap_err();
        error.to_string()
    };
    assert!(message(&[1, 128], &[0, 0]).contains("element 1 of a is 128"));
    assert!(message(&[0, 0], &[-129, 0]).contains("element 0 of b is -129"));
    let wrong = int_matmul::<Flex>(ints(&[1, 2], [1, 2]), ints(&[1, 2, 3], [3, 1]));
    assert!(matches!(wrong, Err(QuantError::ShapeMismatch { .. })));
    for shape in [[2, 1], [1, 2]] {
        let scales = floats(&[1.0, 2.0], shape);
        let wrong = int_scaled_matmul::<Flex>(ints(&[1, 2], [1, 2]), ints(&[1, 2], [2, 1]), scales);
        assert!(matches!(wrong, Err(QuantError::ShapeMismatch { .. })));
    }
}
