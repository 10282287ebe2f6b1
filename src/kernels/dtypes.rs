//! Burn's names of float dtypes and the crate's.

use crate::dtype::FloatDtype;
use burn_std::{DType, FloatDType};

/// The dtype that arithmetic on tensors of `dtype` follows. f64 and flex32 are computed as f32: codes carry no more.
///
/// # Panics
/// If `dtype` is no float.
pub(crate) fn float_dtype(dtype: DType) -> FloatDtype {
    match dtype {
        DType::F64 | DType::F32 | DType::Flex32 => FloatDtype::F32,
        DType::F16 => FloatDtype::F16,
        DType::BF16 => FloatDtype::BF16,
        dtype => panic!("a quantized weight meets floats, not {dtype:?}"),
    }
}

/// Burn's name of a dtype.
pub(crate) fn burn_dtype(dtype: FloatDtype) -> FloatDType {
    match dtype {
        FloatDtype::F32 => FloatDType::F32,
        FloatDtype::F16 => FloatDType::F16,
        FloatDtype::BF16 => FloatDType::BF16,
    }
}
