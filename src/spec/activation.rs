//! What happens to an activation before it meets a quantized weight. It travels on the weight.

use crate::dtype::IntDtype;
use crate::spec::MappingType;
use serde::{Deserialize, Serialize};

/// Which scale a dynamic activation gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ActivationScale {
    /// One for each row of the activation.
    PerToken,
    /// One for the whole activation.
    PerTensor,
}

/// The treatment of a linear layer's input (torchao's `LinearActivationQuantizedTensor`).
///
/// Codes are 8 bits: `q = clamp(round(x · (1 / scale)) + zero_point, quant_min, quant_max)`.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub enum ActivationQuantization {
    /// The activation stays in float (weight-only).
    #[default]
    None,
    /// Scales (and zero points) are chosen from the activation in each call.
    Dynamic {
        /// Symmetric or asymmetric.
        mapping: MappingType,
        /// One scale a token, or one for all.
        scale: ActivationScale,
        /// int8 or uint8.
        dtype: IntDtype,
        /// Smallest code in use.
        quant_min: i32,
        /// Largest code in use.
        quant_max: i32,
        /// Lower bound of a scale; `None` is the smallest normal number of the activation's dtype.
        eps: Option<f32>,
        /// Whether the scale is kept in the activation's dtype (torchao's 8da4w) instead of f32 (torchao's int8 × int8).
        scale_in_input_dtype: bool,
    },
    /// Scale and zero point were calibrated, one for the whole activation.
    Static {
        /// Positive and finite.
        scale: f32,
        /// Inside `quant_min..=quant_max`.
        zero_point: i32,
        /// int8 or uint8.
        dtype: IntDtype,
        /// Smallest code in use.
        quant_min: i32,
        /// Largest code in use.
        quant_max: i32,
    },
}

impl ActivationQuantization {
    /// torchao's int8 dynamic activation: symmetric over −128..=127, f32 scale, eps 2^-23.
    pub const fn int8_dynamic(scale: ActivationScale) -> Self {
        Self::Dynamic {
            mapping: MappingType::Symmetric,
            scale,
            dtype: IntDtype::INT8,
            quant_min: -128,
            quant_max: 127,
            eps: Some(f32::EPSILON),
            scale_in_input_dtype: false,
        }
    }

    /// torchao's 8da4w activation: per token, asymmetric over −128..=127, scale in the activation's dtype.
    pub const fn int8_dynamic_asymmetric() -> Self {
        Self::Dynamic {
            mapping: MappingType::Asymmetric,
            scale: ActivationScale::PerToken,
            dtype: IntDtype::INT8,
            quant_min: -128,
            quant_max: 127,
            eps: None,
            scale_in_input_dtype: true,
        }
    }

    /// Whether codes are of a signed dtype; false for [`ActivationQuantization::None`].
    pub const fn is_signed(&self) -> bool {
        match self {
            Self::None => false,
            Self::Dynamic { dtype, .. } | Self::Static { dtype, .. } => dtype.is_signed(),
        }
    }

    /// Whether the activation becomes integers.
    pub const fn is_quantized(&self) -> bool {
        !matches!(self, Self::None)
    }
}
