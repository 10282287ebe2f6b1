//! Records, rows and the transposed product of packed weights.

use crate::cases::{Zero, burn_dtype, dtypes, pack, tensor, values, weight};
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};
use burn_backend::Backend;
use burn_quantized::Native;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::ActivationQuantization;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

crate::on_devices!(
    a_packed_weight_comes_back,
    gathers_rows,
    a_missing_row_is_nan,
    transposed
);

fn a_packed_weight_comes_back<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(11);
    for bits in 1..=8 {
        for dtype in [IntDtype::int(bits).unwrap(), IntDtype::uint(bits).unwrap()] {
            for (shape, block) in [
                ([1, 1], [1, 1]),
                ([17, 33], [1, 33]),
                ([33, 100], [4, 24]),
                ([21, 128], [1, 32]),
                ([3, 0], [1, 1]),
                ([0, 5], [1, 5]),
            ] {
                for zero in [Zero::None, Zero::Same, Zero::Blocks, Zero::Float] {
                    let w = weight(&mut rng, shape, block, dtype, zero);
                    let packed = pack::<B>(&w, ActivationQuantization::None, device);
                    assert_eq!(
                        <Native as QuantKernels<B>>::unpack(&packed),
                        w,
                        "{dtype} {shape:?} {block:?} {zero:?}"
                    );
                }
            }
        }
    }
}

fn gather<B: Backend>(
    packed: &<Native as QuantKernels<B>>::Weight,
    rows: &[i64],
    dtype: FloatDtype,
    device: &B::Device,
) -> Tensor<B, 2>
where
    Native: QuantKernels<B>,
{
    let rows = Tensor::<B, 1, Int>::from_data(TensorData::from(rows), device);
    let y = <Native as QuantKernels<B>>::gather(packed, rows.into_primitive(), burn_dtype(dtype));
    Tensor::from_primitive(TensorPrimitive::Float(y))
}

fn gathers_rows<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(12);
    for dtype in dtypes::<B>(device) {
        let kinds = [(8, Zero::None), (4, Zero::Blocks), (3, Zero::Same), (4, Zero::Float)];
        let shapes = [(77, 40), (128, 64)];
        for ((bits, zero), (k, group)) in kinds.into_iter().flat_map(|kind| shapes.map(|shape| (kind, shape))) {
            let w = weight(&mut rng, [19, k], [2, group], IntDtype::uint(bits).unwrap(), zero);
            let dense = w.dequantize(dtype);
            let rows = [18, 0, 3, 3, 7];
            let y = gather::<B>(
                &pack::<B>(&w, ActivationQuantization::None, device),
                &rows,
                dtype,
                device,
            );
            assert_eq!(y.dims(), [5, k]);
            let want: Vec<f32> = rows
                .iter()
                .flat_map(|row| &dense[*row as usize * k..][..k])
                .copied()
                .collect();
            assert_eq!(values(y), want, "{dtype}, {bits} bits, {zero:?}");
        }
    }
    let w = weight(&mut rng, [3, 8], [1, 8], IntDtype::INT8, Zero::None);
    let y = gather::<B>(
        &pack::<B>(&w, ActivationQuantization::None, device),
        &[],
        FloatDtype::F32,
        device,
    );
    assert_eq!(y.dims(), [0, 8]);
}

fn a_missing_row_is_nan<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let w = weight(
        &mut StdRng::seed_from_u64(13),
        [3, 8],
        [1, 8],
        IntDtype::INT8,
        Zero::None,
    );
    let y = gather::<B>(
        &pack::<B>(&w, ActivationQuantization::None, device),
        &[3, 2, -1],
        FloatDtype::F32,
        device,
    );
    let y = values(y);
    assert!(y[..8].iter().chain(&y[16..]).all(|y| y.is_nan()), "{y:?}");
    assert_eq!(y[8..16], w.dequantize(FloatDtype::F32)[16..]);
}

fn transposed<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let mut rng = StdRng::seed_from_u64(14);
    for (shape, block, zero) in [
        ([70, 77], [1, 24], Zero::Blocks),
        ([130, 40], [1, 40], Zero::None),
        ([70, 128], [1, 64], Zero::Blocks),
        ([33, 64], [1, 64], Zero::Same),
        ([1, 33], [1, 32], Zero::Float),
    ] {
        let w = weight(&mut rng, shape, block, IntDtype::UINT4, zero);
        let dense = w.dequantize(FloatDtype::F32);
        let [n, k] = shape;
        let how = match zero {
            Zero::Float => ActivationQuantization::None,
            _ => ActivationQuantization::int8_dynamic_asymmetric(),
        };
        let packed = pack::<B>(&w, how, device);
        for count in [1, 6] {
            let g: Vec<f32> = (0..count * n).map(|_| rng.random_range(-1.0f32..1.0)).collect();
            let gradient = tensor::<B, 2>(&g, [count, n], FloatDtype::F32, device);
            let y = <Native as QuantKernels<B>>::linear_transposed(gradient.into_primitive().tensor(), &packed);
            let y: Tensor<B, 2> = Tensor::from_primitive(TensorPrimitive::Float(y));
            assert_eq!(y.dims(), [count, k]);
            for (i, got) in values(y).iter().enumerate() {
                let terms = (0..n).map(|c| g[i / k * n + c] as f64 * dense[c * k + i % k] as f64);
                let (want, sum): (f64, f64) = terms.fold((0.0, 0.0), |(y, sum), t| (y + t, sum + t.abs()));
                let bound = 2.0 * n as f64 * f32::EPSILON as f64 * sum;
                assert!(
                    (*got as f64 - want).abs() <= bound,
                    "{shape:?}, {i}: {got}, want {want}"
                );
            }
        }
    }
}
