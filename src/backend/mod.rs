//! The decorator.

use crate::kernels::Native;
use core::marker::PhantomData;

/// doc
#[derive(Clone, Copy, Default, Debug)]
pub struct Quantized<B, K = Native>(PhantomData<(B, K)>);
