//! The CPU kernels on Flex tensors, without a copy of f32 activations.

use super::cpu::{CpuWeight, tensors};
use super::dtypes::float_dtype;
use super::{Expected, Native, QuantKernels, Unsupported};
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::{Element, TensorMetadata};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};
use burn_std::{Bytes, DType, FloatDType, Shape};
use bytemuck::Pod;
use half::{bf16, f16};
use std::borrow::Cow;

impl QuantKernels<Flex> for Native {
    type Weight = CpuWeight;
    const READS_ARE_FREE: bool = true;

    fn pack(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        _: &FlexDevice,
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

    fn linear(x: FlexTensor, weight: &CpuWeight, bias: Option<FlexTensor>) -> FlexTensor {
        let dtype = float_dtype(x.dtype());
        let (x_rows, bias_row) = (contiguous(&x), bias.as_ref().map(contiguous));
        let bias = bias_row.as_ref().map(|bias| floats(bias));
        let (y, shape) = tensors::linear(weight, &floats(&x_rows), &x.shape(), dtype, bias.as_deref());
        tensor(y, shape, x.dtype())
    }

    fn linear_transposed(g: FlexTensor, weight: &CpuWeight) -> FlexTensor {
        let dtype = float_dtype(g.dtype());
        let (y, shape) = tensors::linear_transposed(weight, &floats(&contiguous(&g)), &g.shape(), dtype);
        tensor(y, shape, g.dtype())
    }

    fn gather(weight: &CpuWeight, indices: FlexTensor, dtype: FloatDType) -> FlexTensor {
        let shape = indices.shape();
        let indices = indices.into_data();
        let (y, shape) = tensors::gather(weight, indices.iter::<i64>(), &shape, float_dtype(dtype.into()));
        tensor(y, shape, dtype.into())
    }
}

/// The tensor itself where its values lie in order, else a copy in which they do.
fn contiguous(tensor: &FlexTensor) -> Cow<'_, FlexTensor> {
    if tensor.layout().contiguous_offsets().is_some() {
        Cow::Borrowed(tensor)
    } else {
        Cow::Owned(tensor.to_contiguous())
    }
}

/// The values of a contiguous float tensor.
fn floats(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    fn slice<E: Element + Pod>(tensor: &FlexTensor) -> &[E] {
        tensor.as_slice().expect("the tensor is contiguous")
    }
    match tensor.dtype() {
        DType::F16 => slice::<f16>(tensor).iter().map(|x| x.to_f32()).collect(),
        DType::BF16 => slice::<bf16>(tensor).iter().map(|x| x.to_f32()).collect(),
        DType::F64 => slice::<f64>(tensor).iter().map(|x| *x as f32).collect(),
        _ => Cow::Borrowed(slice(tensor)),
    }
}

fn tensor(values: Vec<f32>, shape: Vec<usize>, dtype: DType) -> FlexTensor {
    let bytes = match dtype {
        DType::F16 => Bytes::from_elems(values.into_iter().map(f16::from_f32).collect()),
        DType::BF16 => Bytes::from_elems(values.into_iter().map(bf16::from_f32).collect()),
        DType::F64 => Bytes::from_elems(values.into_iter().map(f64::from).collect::<Vec<f64>>()),
        _ => Bytes::from_elems(values),
    };
    FlexTensor::new(bytes, Layout::contiguous(Shape::from(shape)), dtype)
}

#[cfg(test)]
mod tests {
    use super::super::glue;
    use crate::dtype::FloatDtype;
    use burn_std::DType;

    #[test]
    fn every_view_and_dtype() {
        glue::serves::<burn_flex::Flex>(&[
            (DType::F32, FloatDtype::F32),
            (DType::F16, FloatDtype::F16),
            (DType::BF16, FloatDtype::BF16),
            (DType::F64, FloatDtype::F32),
        ]);
    }
}
