//! The portable kernels on two backends, held to a naive evaluation of the written formulas.
#![cfg(all(feature = "flex", feature = "ndarray"))]

#[path = "portable/checks.rs"]
mod checks;
#[path = "portable/oracle.rs"]
mod oracle;

use burn_flex::Flex;
use burn_ndarray::NdArray;
use burn_quantized::Portable;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::{ActivationQuantization, AffineSpec, Granularity, MappingType};
use burn_quantized::tensor::AffineQuantizedTensor;

#[test]
fn products() {
    checks::products::<Flex>(&[FloatDtype::F32, FloatDtype::F16, FloatDtype::BF16]);
    checks::products::<NdArray>(&[FloatDtype::F32]);
}

#[test]
fn long_sums() {
    checks::long_sums::<Flex>();
    checks::long_sums::<NdArray>();
}

#[test]
fn empty() {
    checks::empty::<Flex>();
    checks::empty::<NdArray>();
}

#[test]
fn transposed_and_gathered() {
    checks::transposed_and_gathered::<Flex>();
    checks::transposed_and_gathered::<NdArray>();
}

#[test]
fn only_a_matrix_packs() {
    let spec = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerTensor);
    let cube = AffineQuantizedTensor::quantize(&[1.0; 8], FloatDtype::F32, &[2, 2, 2], &spec).unwrap();
    let refused =
        <Portable as QuantKernels<Flex>>::pack(cube.clone(), ActivationQuantization::None, &Default::default());
    let refused = refused.unwrap_err();
    assert_eq!(refused.weight, cube);
    assert!(refused.reason.contains("[2, 2, 2]"), "{}", refused.reason);

    let matrix = AffineQuantizedTensor::quantize(&[1.0; 8], FloatDtype::F32, &[2, 4], &spec).unwrap();
    let packed = checks::pack::<Flex>(&matrix, ActivationQuantization::None);
    assert_eq!(<Portable as QuantKernels<Flex>>::unpack(&packed), matrix);
    assert_eq!(<Portable as QuantKernels<Flex>>::kernel_name(&packed, 1), "portable");
}
