//! `linear` against the reference.

use crate::cases::{Zero, check, dtypes, fixed, linear, pack, rows, tensor, treatments, values, weight};
use burn::tensor::Tensor;
use burn_backend::Backend;
use burn_quantized::Native;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::{ActivationQuantization, ActivationScale};
use burn_quantized::tensor::AffineQuantizedTensor;
use rand::SeedableRng;
use rand::rngs::StdRng;

crate::on_devices!(
    every_width_of_weight_only,
    every_treatment,
    half_precision,
    sizes,
    matrix_instructions,
    views,
    empty,
    names_and_refusals
);

/// What only large products reach, and only with CUDA: the reference would take minutes in a debug build.
#[cfg(feature = "cuda")]
mod large {
    #[test]
    fn many_rows() {
        super::many_rows::<crate::device::Cuda>(&Default::default());
    }

    #[cfg(feature = "fusion")]
    #[test]
    fn many_rows_fusion() {
        super::many_rows::<burn_cuda::Cuda>(&Default::default());
    }
}

/// `count` rows through the kernel and through the reference.
fn product<B: Backend>(
    rng: &mut StdRng,
    count: usize,
    w: &AffineQuantizedTensor,
    how: ActivationQuantization,
    dtype: FloatDtype,
    with_bias: bool,
    device: &B::Device,
) where
    Native: QuantKernels<B>,
{
    let [n, k] = [w.shape()[0], w.shape()[1]];
    let packed = pack::<B>(w, how, device);
    let x = rows(rng, count, k, dtype);
    let bias = with_bias.then(|| rows(rng, 1, n, dtype));
    let bias_tensor = bias.as_ref().map(|bias| tensor::<B, 1>(bias, [n], dtype, device));
    let y = linear(tensor::<B, 2>(&x, [count, k], dtype, device), &packed, bias_tensor);
    assert_eq!(y.dims(), [count, n]);
    let parts = w.parts();
    let what = format!(
        "{count}x{k}x{n} {dtype}, {} in blocks of {:?}, {how:?}, bias {with_bias}",
        parts.dtype, parts.block_size
    );
    check(&what, &values(y), &x, dtype, w, &how, bias.as_deref());
}

fn every_width_of_weight_only<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(1);
    for bits in 1..=8 {
        let dtype = if bits % 2 == 0 {
            IntDtype::int(bits)
        } else {
            IntDtype::uint(bits)
        }
        .unwrap();
        for (block, zero) in [
            ([1, 77], Zero::None),
            ([1, 32], Zero::Blocks),
            ([2, 24], Zero::Same),
            ([1, 40], Zero::Float),
        ] {
            let w = weight(&mut rng, [70, 77], block, dtype, zero);
            product::<B>(
                &mut rng,
                5,
                &w,
                ActivationQuantization::None,
                FloatDtype::F32,
                bits % 2 == 0,
                device,
            );
        }
    }
}

fn every_treatment<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(2);
    for (i, how) in treatments().into_iter().enumerate() {
        for (dtype, block, zero) in [
            (IntDtype::INT8, [1, 300], Zero::None),
            (IntDtype::INT8, [9, 300], Zero::Blocks),
            (IntDtype::UINT4, [1, 64], Zero::Blocks),
            (IntDtype::INT3, [1, 40], Zero::Same),
        ] {
            let w = weight(&mut rng, [9, 300], block, dtype, zero);
            product::<B>(&mut rng, 9, &w, how, FloatDtype::F32, i % 2 == 0, device);
        }
    }
}

fn half_precision<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(3);
    for dtype in dtypes::<B>(device)
        .into_iter()
        .filter(|dtype| *dtype != FloatDtype::F32)
    {
        let per_row = weight(&mut rng, [12, 96], [1, 96], IntDtype::INT8, Zero::None);
        let grouped = weight(&mut rng, [12, 96], [1, 32], IntDtype::INT4, Zero::Blocks);
        let float = weight(&mut rng, [12, 96], [1, 32], IntDtype::UINT4, Zero::Float);
        for w in [&per_row, &grouped, &float] {
            for with_bias in [false, true] {
                product::<B>(&mut rng, 7, w, ActivationQuantization::None, dtype, with_bias, device);
            }
        }
        for how in treatments() {
            product::<B>(&mut rng, 7, &per_row, how, dtype, true, device);
            product::<B>(&mut rng, 7, &grouped, how, dtype, true, device);
        }
    }
}

fn sizes<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(4);
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    for (n, k) in [(1, 1), (64, 32), (65, 33), (130, 257), (3, 600)] {
        for how in [ActivationQuantization::None, int8] {
            let per_row = weight(&mut rng, [n, k], [1, k], IntDtype::INT8, Zero::None);
            let grouped = weight(&mut rng, [n, k], [1, 32], IntDtype::INT4, Zero::None);
            for count in [1, 2, 8, 17] {
                product::<B>(&mut rng, count, &per_row, how, FloatDtype::F32, false, device);
                product::<B>(&mut rng, count, &grouped, how, FloatDtype::F32, false, device);
            }
        }
    }
}

/// On Hopper these take the kernels of `wgmma`: weights that fill the device with cubes of 128 and 256 channels, blocks of K that leave a rest,
/// rows that do not fill a cube, and K in slices.
#[cfg(feature = "cuda")]
fn many_rows<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(11);
    let mut from = StdRng::seed_from_u64(12);
    let float = ActivationQuantization::None;
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    let shifted = ActivationQuantization::int8_dynamic_asymmetric();
    let (uint4, uint8) = (IntDtype::UINT4, IntDtype::UINT8);
    for (at, (shape, group, dtype, zero, how, count)) in [
        ([12_700, 128], 32, uint4, Zero::None, float, 70),
        ([25_700, 128], 128, uint4, Zero::Blocks, float, 70),
        ([12_700, 192], 64, uint4, Zero::Same, float, 129),
        ([25_700, 128], 64, uint4, Zero::Float, float, 70),
        ([12_700, 192], 192, uint8, Zero::Same, float, 70),
        ([25_704, 128], 128, uint8, Zero::Blocks, float, 70),
        ([4096, 8192], 128, uint4, Zero::None, float, 40),
        ([4096, 8192], 8192, uint8, Zero::Same, float, 70),
        ([12_700, 192], 192, IntDtype::INT8, Zero::None, int8, 70),
        ([12_704, 256], 256, IntDtype::INT8, Zero::None, shifted, 300),
        ([12_700, 128], 128, IntDtype::INT4, Zero::None, shifted, 70),
    ]
    .into_iter()
    .enumerate()
    {
        let w = weight(&mut from, shape, [1, group], dtype, zero);
        // Float activations in f32 take the portable kernels.
        let dtypes = [FloatDtype::F16, FloatDtype::BF16, FloatDtype::F32];
        for dtype in &dtypes[..if how.is_quantized() { 3 } else { 2 }] {
            product::<B>(&mut rng, count, &w, how, *dtype, at % 2 == 0, device);
        }
    }
}

/// What matrix instructions serve where a device has them: K and groups that blocks of 64 divide, few and many rows.
fn matrix_instructions<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(8);
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    let shifted = ActivationQuantization::int8_dynamic_asymmetric();
    let dtypes = dtypes::<B>(device);
    let mut turn = 0;
    let mut products = |w: &AffineQuantizedTensor, how, counts: &[usize]| {
        for count in counts {
            turn += 1;
            product::<B>(
                &mut rng,
                *count,
                w,
                how,
                dtypes[turn % dtypes.len()],
                turn % 2 == 0,
                device,
            );
        }
    };
    let mut from = StdRng::seed_from_u64(9);
    for how in [int8, shifted, fixed(IntDtype::INT8, -17)] {
        products(
            &weight(&mut from, [70, 192], [1, 192], IntDtype::INT8, Zero::None),
            how,
            &[1, 12, 70],
        );
        products(
            &weight(&mut from, [48, 256], [1, 32], IntDtype::INT4, Zero::None),
            how,
            &[3, 70],
        );
    }
    products(
        &weight(&mut from, [300, 512], [1, 128], IntDtype::INT4, Zero::None),
        shifted,
        &[1, 140, 520],
    );
    products(
        &weight(&mut from, [300, 256], [1, 256], IntDtype::INT8, Zero::None),
        int8,
        &[520],
    );
    let float = ActivationQuantization::None;
    for zero in [Zero::None, Zero::Same, Zero::Blocks, Zero::Float] {
        products(
            &weight(&mut from, [70, 192], [1, 32], IntDtype::UINT4, zero),
            float,
            &[1, 12, 70],
        );
        products(
            &weight(&mut from, [48, 256], [1, 256], IntDtype::UINT8, zero),
            float,
            &[2, 70],
        );
        products(
            &weight(&mut from, [300, 512], [1, 128], IntDtype::UINT4, zero),
            float,
            &[1, 20, 140],
        );
        // Seven blocks, which no number of planes shares without a rest.
        products(
            &weight(&mut from, [48, 448], [1, 64], IntDtype::UINT4, zero),
            float,
            &[8],
        );
    }
    products(
        &weight(&mut from, [64, 256], [1, 64], IntDtype::INT3, Zero::None),
        float,
        &[4, 520],
    );
}

/// Leading dims, a slice, a transposed and an expanded view.
fn views<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    const K: usize = 40;
    let mut rng = StdRng::seed_from_u64(5);
    let w = weight(&mut rng, [20, K], [1, 16], IntDtype::INT4, Zero::Blocks);
    let how = ActivationQuantization::int8_dynamic_asymmetric();
    let packed = pack::<B>(&w, how, device);
    let x: Vec<f32> = rows(&mut rng, 4, K, FloatDtype::F32);
    let x = [&x[..], &x[..2 * K]].concat();
    let agrees = |y: Vec<f32>, x: &[f32]| check("a view", &y, x, FloatDtype::F32, &w, &how, None);

    let whole: Tensor<B, 3> = tensor(&x, [2, 3, K], FloatDtype::F32, device);
    let y = linear(whole.clone(), &packed, None);
    assert_eq!(y.dims(), [2, 3, 20]);
    agrees(values(y), &x);
    let flat: Tensor<B, 1> = whole.clone().reshape([6 * K]);
    let y = linear(flat.narrow(0, K, K), &packed, None);
    assert_eq!(y.dims(), [20]);
    agrees(values(y), &x[K..2 * K]);
    let columns = whole.clone().reshape([6, K]).transpose();
    let columns = Tensor::<B, 2>::from_data(columns.into_data(), device).transpose();
    agrees(values(linear(columns, &packed, None)), &x);
    let expanded = whole.slice([0..1, 0..1, 0..K]).expand([2, 2, K as i64]);
    agrees(values(linear(expanded, &packed, None)), &[&x[..K]; 4].concat());
}

fn empty<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(6);
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    for how in [ActivationQuantization::None, int8, fixed(IntDtype::UINT8, 3)] {
        let w = weight(&mut rng, [5, 8], [1, 8], IntDtype::INT8, Zero::None);
        let y = linear(
            Tensor::<B, 3>::empty([2, 0, 8], device),
            &pack::<B>(&w, how, device),
            None,
        );
        // Burn cannot read a tensor of no elements on CUDA: its own copy is a launch of nothing.
        assert_eq!(y.dims(), [2, 0, 5]);
        let w = weight(&mut rng, [3, 0], [1, 1], IntDtype::INT4, Zero::None);
        let packed = pack::<B>(&w, how, device);
        let bias: Tensor<B, 1> = tensor(&[1.0, 2.0, 3.0], [3], FloatDtype::F32, device);
        let x = Tensor::<B, 2>::empty([2, 0], device);
        assert_eq!(
            values(linear(x.clone(), &packed, Some(bias))),
            [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
        );
        assert_eq!(values(linear(x, &packed, None)), [0.0; 6]);
        let w = weight(&mut rng, [0, 4], [1, 4], IntDtype::INT4, Zero::None);
        let y = linear(Tensor::<B, 2>::zeros([2, 4], device), &pack::<B>(&w, how, device), None);
        assert_eq!(y.dims(), [2, 0]);
    }
}

fn names_and_refusals<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(7);
    let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
    let w = weight(&mut rng, [4, 64], [1, 32], IntDtype::INT4, Zero::None);
    let name = <Native as QuantKernels<B>>::kernel_name(&pack::<B>(&w, int8, device), 1);
    assert!(name.starts_with("i8i4 cube"), "{name}");
    let refused = |w: &AffineQuantizedTensor, how, reason: &str| {
        let error = <Native as QuantKernels<B>>::pack(w.clone(), how, device).unwrap_err();
        assert_eq!(&error.weight, w);
        assert!(error.reason.contains(reason), "{}", error.reason);
    };
    let float = weight(&mut rng, [4, 64], [1, 32], IntDtype::UINT4, Zero::Float);
    refused(&float, int8, "float activations");
    let long = weight(&mut rng, [1, 65_537], [1, 65_537], IntDtype::INT8, Zero::None);
    refused(&long, int8, "above 65536");
    let w = weight(&mut rng, [1, 40_000], [1, 40_000], IntDtype::INT8, Zero::None);
    refused(&w, fixed(IntDtype::UINT8, 0), "above 32768");
}
