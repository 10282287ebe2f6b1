//! The CPU kernels on NdArray tensors, without a copy of f32 activations.

use super::cpu::{CpuWeight, tensors};
use super::{Expected, Native, QuantKernels, Unsupported};
use crate::dtype::FloatDtype;
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::TensorMetadata;
use burn_ndarray::{
    FloatNdArrayElement, IntNdArrayElement, NdArray, NdArrayDevice, NdArrayTensor, QuantElement, SharedArray,
};
use burn_std::{DType, FloatDType};
use std::borrow::Cow;

impl<E: FloatNdArrayElement, I: IntNdArrayElement, Q: QuantElement> QuantKernels<NdArray<E, I, Q>> for Native
where
    NdArrayTensor: From<SharedArray<E>> + From<SharedArray<I>>,
{
    type Weight = CpuWeight;
    const READS_ARE_FREE: bool = true;

    fn pack(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        _: &NdArrayDevice,
    ) -> Result<CpuWeight, Box<Unsupported>> {
        CpuWeight::pack(weight, activation)
    }

    fn unpack(weight: &CpuWeight) -> AffineQuantizedTensor {
        weight.unpack()
    }

    fn bytes(weight: &CpuWeight) -> usize {
        weight.rest_bytes()
    }

    fn expected(weight: &CpuWeight, outputs: usize) -> Expected {
        weight.expected(outputs)
    }

    fn kernel_name(weight: &CpuWeight, _rows: usize) -> String {
        weight.kernel_name()
    }

    fn linear(x: NdArrayTensor, weight: &CpuWeight, bias: Option<NdArrayTensor>) -> NdArrayTensor {
        let bias = bias.as_ref().map(floats);
        let (y, shape) = tensors::linear(weight, &floats(&x), &x.shape(), FloatDtype::F32, bias.as_deref());
        tensor(y, shape, x.dtype())
    }

    fn linear_transposed(g: NdArrayTensor, weight: &CpuWeight) -> NdArrayTensor {
        let (y, shape) = tensors::linear_transposed(weight, &floats(&g), &g.shape(), FloatDtype::F32);
        tensor(y, shape, g.dtype())
    }

    fn gather(weight: &CpuWeight, indices: NdArrayTensor, dtype: FloatDType) -> NdArrayTensor {
        let (y, shape) = tensors::gather(weight, ints(&indices).into_iter(), &indices.shape(), FloatDtype::F32);
        tensor(y, shape, dtype.into())
    }
}

/// The values of a float tensor in order: borrowed where they lie so.
fn floats(tensor: &NdArrayTensor) -> Cow<'_, [f32]> {
    match tensor {
        NdArrayTensor::F32(storage) => {
            let view = storage.view();
            match view.to_slice() {
                Some(values) => Cow::Borrowed(values),
                None => view.iter().copied().collect(),
            }
        }
        NdArrayTensor::F64(storage) => storage.view().iter().map(|x| *x as f32).collect(),
        other => panic!("a quantized linear takes float activations, not {:?}", other.dtype()),
    }
}

fn ints(tensor: &NdArrayTensor) -> Vec<i64> {
    macro_rules! read {
        ($($variant:ident),+) => {
            match tensor {
                $(NdArrayTensor::$variant(storage) => storage.view().iter().map(|x| *x as i64).collect(),)+
                other => panic!("gather takes integer indices, not {:?}", other.dtype()),
            }
        };
    }
    read!(I64, I32, I16, I8, U64, U32, U16, U8)
}

fn tensor(values: Vec<f32>, shape: Vec<usize>, dtype: DType) -> NdArrayTensor {
    const FITS: &str = "as many values as the shape says";
    match dtype {
        DType::F64 => {
            let values = values.into_iter().map(f64::from).collect();
            SharedArray::<f64>::from_shape_vec(shape, values).expect(FITS).into()
        }
        DType::F32 => SharedArray::<f32>::from_shape_vec(shape, values).expect(FITS).into(),
        dtype => panic!("NdArray has no {dtype:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::glue;
    use crate::dtype::FloatDtype;
    use burn_std::DType;

    #[test]
    fn every_view_and_dtype() {
        glue::serves::<burn_ndarray::NdArray>(&[(DType::F32, FloatDtype::F32), (DType::F64, FloatDtype::F32)]);
    }
}
