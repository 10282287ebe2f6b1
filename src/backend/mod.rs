//! The decorator: [`Quantized`] and its primitives, one file per Burn op trait.

mod carrier;
mod construct;
mod primitive;
pub(crate) mod record;

use crate::kernels::Native;
use core::marker::PhantomData;

pub use primitive::{Body, FloatPrimitive, InputObserver, Label, Observed, Packed, QTensor, Storage};

/// A backend that runs quantized weights on the kernels `K` and everything else on `B`.
///
/// `Quantized<Flex>` is short for `Quantized<Flex, Native>`; `Quantized<AnyBackend, Portable>` needs no impl by its user.
#[derive(Clone, Copy, Default, Debug)]
pub struct Quantized<B, K = Native>(PhantomData<(B, K)>);
