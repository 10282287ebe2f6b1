//! The integer product alone: the hook for rows that leave out quantizing the activation.

use crate::device::{Gpu, Matrix};
use burn_cubecl::CubeRuntime;
use burn_quantized::kernels::cube::CubeWeight;
use burn_quantized::kernels::{Native, QuantKernels};

/// What a row launches.
pub enum Product<R: CubeRuntime> {
    /// What a layer calls.
    Layer(Matrix<R>),
}

impl<R: CubeRuntime> Product<R> {
    /// The whole layer on `x`, or with `alone` the product on its codes. Errors: why there is no such product.
    pub fn new(x: &Matrix<R>, _weight: &CubeWeight<R>, alone: bool) -> Result<Self, String> {
        if alone {
            return Err("the crate exposes no product on activations that are codes already".into());
        }
        Ok(Self::Layer(x.clone()))
    }

    /// Launches it once.
    pub fn launch(&self, weight: &CubeWeight<R>) -> Matrix<R> {
        match self {
            Self::Layer(x) => {
                let x = x.clone().into_primitive().tensor();
                let y = <Native as QuantKernels<Gpu<R>>>::linear(x, weight, None);
                Matrix::from_primitive(burn::tensor::TensorPrimitive::Float(y))
            }
        }
    }
}
