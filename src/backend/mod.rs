//! The decorator: [`Quantized`] and its primitives, one file per Burn op trait.

mod activation_ops;
mod base;
mod bool_ops;
mod carrier;
mod construct;
mod float_ops;
mod forward;
mod int_matmul;
mod int_ops;
pub mod materialized;
mod module_ops;
mod primitive;
mod product;
mod qtensor_ops;
pub mod reads;
pub(crate) mod record;
mod stock;
mod transaction_ops;
mod view;

use crate::kernels::Native;
use core::marker::PhantomData;

pub use int_matmul::{int_matmul, int_scaled_matmul};
pub use primitive::{Body, FloatPrimitive, InputObserver, Label, Observed, Packed, QTensor, Storage};

/// A backend that runs quantized weights on the kernels `K` and everything else on `B`.
///
/// `Quantized<Flex>` is short for `Quantized<Flex, Native>`; `Quantized<AnyBackend, Portable>` needs no impl by its user.
#[derive(Clone, Copy, Default, Debug)]
pub struct Quantized<B, K = Native>(PhantomData<(B, K)>);
