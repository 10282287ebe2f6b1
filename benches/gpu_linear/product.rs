//! What a row launches: a layer, or the integer product alone.

use crate::device::{Gpu, Matrix};
use burn::tensor::TensorPrimitive;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_quantized::dtype::FloatDtype;
use burn_quantized::kernels::cube::{CubeActivation, CubeWeight};
use burn_quantized::kernels::{Native, QuantKernels};
use burn_std::DType;

/// What a row launches.
pub enum Product<R: CubeRuntime> {
    /// What a layer calls.
    Layer(Matrix<R>),
    /// The product on codes; `like` lends its device and dtype to the outputs.
    Alone {
        codes: Box<CubeActivation>,
        like: Box<CubeTensor<R>>,
    },
}

impl<R: CubeRuntime> Product<R> {
    /// The whole layer on `x`, or with `alone` the product on its codes. Errors: the weight takes float activations.
    pub fn new(x: &Matrix<R>, weight: &CubeWeight<R>, alone: bool) -> Result<Self, String> {
        if !alone {
            return Ok(Self::Layer(x.clone()));
        }
        let rows = x.dims()[0];
        let like = x.clone().into_primitive().tensor();
        let dtype = match like.dtype {
            DType::F16 => FloatDtype::F16,
            DType::BF16 => FloatDtype::BF16,
            _ => FloatDtype::F32,
        };
        let codes = weight.quantize(like.handle.clone(), rows, dtype);
        let codes = codes.ok_or("a weight of float activations has no product on codes")?;
        Ok(Self::Alone {
            codes: Box::new(codes),
            like: Box::new(like),
        })
    }

    /// Launches it once.
    pub fn launch(&self, weight: &CubeWeight<R>) -> Matrix<R> {
        let y = match self {
            Self::Layer(x) => {
                <Native as QuantKernels<Gpu<R>>>::linear(x.clone().into_primitive().tensor(), weight, None)
            }
            Self::Alone { codes, like } => {
                let shape = [like.meta.shape()[0], weight.shape()[0]];
                let handle = weight.linear_quantized(codes, None);
                CubeTensor::new_contiguous(
                    like.client.clone(),
                    like.device.clone(),
                    shape.into(),
                    handle,
                    like.dtype,
                )
            }
        };
        Matrix::from_primitive(TensorPrimitive::Float(y))
    }
}
