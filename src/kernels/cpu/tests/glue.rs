//! The glue of a backend, the same for Flex and NdArray.

use super::cpu::tests::{Zero, floats, same, weight};
use crate::Native;
use crate::dtype::{FloatDtype, IntDtype};
use crate::kernels::QuantKernels;
use crate::spec::ActivationQuantization;
use crate::tensor::{AffineQuantizedTensor, reference_linear};
use burn::tensor::{DType, Int, Tensor, TensorData, TensorPrimitive};
use burn_backend::Backend;
use rand::SeedableRng;
use rand::rngs::StdRng;

const N: usize = 20;
const K: usize = 40;

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

fn linear<B: Backend, const D: usize>(
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

fn pack<B: Backend>(
    w: &AffineQuantizedTensor,
    how: ActivationQuantization,
    device: &B::Device,
) -> <Native as QuantKernels<B>>::Weight
where
    Native: QuantKernels<B>,
{
    <Native as QuantKernels<B>>::pack(w.clone(), how, device).unwrap()
}

/// Every rank, strided and expanded views, other dtypes, the transposed product, rows.
pub(crate) fn serves<B: Backend>(dtypes: &[(DType, FloatDtype)])
where
    Native: QuantKernels<B>,
{
    let device = B::Device::default();
    let mut rng = StdRng::seed_from_u64(11);
    let w = weight(&mut rng, N, K, [1, 16], IntDtype::INT4, Zero::Blocks);
    let how = ActivationQuantization::int8_dynamic_asymmetric();
    let packed = pack::<B>(&w, how, &device);
    assert_eq!(<Native as QuantKernels<B>>::unpack(&packed), w);

    for (dtype, rounding) in dtypes {
        let x = floats(&mut rng, 6 * K, *rounding);
        let bias = floats(&mut rng, N, *rounding);
        let want = reference_linear(&x, 6, *rounding, &w, &how, Some(&bias));
        let tensor =
            |data: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::from(data.as_slice()), &device).cast(*dtype);
        let (x, bias) = (tensor(x), tensor(bias));
        let whole: Tensor<B, 3> = x.clone().reshape([2, 3, K]);
        let y = linear(whole.clone(), &packed, Some(bias.clone()));
        assert_eq!((y.dims(), y.dtype()), ([2, 3, N], *dtype));
        same(&values(y), &want, "rank 3");
        let y = linear(x.clone().narrow(0, K, K), &packed, Some(bias.clone()));
        assert_eq!(y.dims(), [N]);
        same(&values(y), &want[N..2 * N], "rank 1, a slice");
        // The same values through a view whose last dim is not contiguous.
        let strided = whole.clone().permute([2, 0, 1]).reshape([K, 6]);
        let strided = Tensor::<B, 2>::from_data(strided.into_data(), (&device, *dtype)).transpose();
        same(
            &values(linear(strided, &packed, Some(bias.clone()))),
            &want,
            "a transposed view",
        );
        let expanded = whole.slice([0..1, 0..1, 0..K]).expand([2, 2, K as i64]);
        let y = linear(expanded, &packed, Some(bias));
        same(&values(y), &[&want[..N]; 4].concat(), "an expanded view");
    }

    let g = floats(&mut rng, 3 * N, FloatDtype::F32);
    let dense = w.dequantize(FloatDtype::F32);
    let g_tensor = Tensor::<B, 2>::from_data(TensorData::new(g.clone(), [3, N]), &device);
    let y = <Native as QuantKernels<B>>::linear_transposed(g_tensor.into_primitive().tensor(), &packed);
    let want: Vec<f32> = (0..3 * K)
        .map(|i| (0..N).fold(0.0, |sum, c| sum + g[i / K * N + c] * dense[c * K + i % K]))
        .collect();
    same(
        &values(Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(y))),
        &want,
        "transposed product",
    );

    let rows = Tensor::<B, 2, Int>::from_data(TensorData::from([[19i64, 0], [3, 3]]), &device);
    let y = <Native as QuantKernels<B>>::gather(&packed, rows.into_primitive(), burn_std::FloatDType::F32);
    let y = Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(y));
    assert_eq!(y.dims(), [2, 2, K]);
    let want: Vec<f32> = [19, 0, 3, 3]
        .iter()
        .flat_map(|row| &dense[row * K..(row + 1) * K])
        .copied()
        .collect();
    same(&values(y), &want, "rows");
}
