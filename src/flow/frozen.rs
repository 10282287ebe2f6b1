//! A quantized module under `Autodiff`, and back.

use super::layer::keep_ints_and_bools;
use super::weight::{Held, at_rest, held};
use crate::backend::{FloatPrimitive, Quantized};
use crate::kernels::QuantKernels;
use burn::module::{HasAutodiffModule, Module, ModuleMapper, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::Backend;
use core::marker::PhantomData;

/// A quantized module as a frozen base under `Autodiff`: weights stay packed, nothing of it is trained.
///
/// Burn 0.21 has no quantized tensors under `Autodiff`, so the weights sit there as lazily dequantized floats: forward runs the
/// quantized kernels, gradients flow through to the input as for the dense weight, and an adapter beside the module trains.
/// Load a quantized record on the inner backend first, then freeze. Before saving, [`thaw`] the module's `valid()`.
pub fn freeze<AB, B, K, M>(module: M) -> <M as HasAutodiffModule<AB>>::TrainModule
where
    B: Backend,
    K: QuantKernels<B>,
    AB: AutodiffBackend<InnerBackend = Quantized<B, K>>,
    M: Module<Quantized<B, K>> + HasAutodiffModule<AB>,
{
    module.map(&mut Lazy(PhantomData::<(B, K)>)).train::<AB>().no_grad()
}

/// Turns lazily dequantized weights back into quantized ones, after `valid()`, `fork` or `detach`: they save as codes again.
pub fn thaw<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(module: M) -> M {
    module.map(&mut AtRest(PhantomData::<(B, K)>))
}

struct Lazy<P>(PhantomData<P>);

impl<B: Backend, K: QuantKernels<B>> ModuleMapper<Quantized<B, K>> for Lazy<(B, K)> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Quantized<B, K>, D>>,
    ) -> Param<Tensor<Quantized<B, K>, D>> {
        match held(param.val()) {
            Held::Quantized(tensor) => {
                param.map(|_| Tensor::from_primitive(TensorPrimitive::Float(FloatPrimitive::Packed(tensor))))
            }
            _ => param,
        }
    }
    keep_ints_and_bools!();
}

struct AtRest<P>(PhantomData<P>);

impl<B: Backend, K: QuantKernels<B>> ModuleMapper<Quantized<B, K>> for AtRest<(B, K)> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Quantized<B, K>, D>>,
    ) -> Param<Tensor<Quantized<B, K>, D>> {
        match held(param.val()) {
            Held::Packed(_) => param.map(at_rest),
            _ => param,
        }
    }
    keep_ints_and_bools!();
}
