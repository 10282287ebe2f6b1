//! An activation as integer codes, in a backend's own operations.

use crate::dtype::FloatDtype;
use crate::kernels::portable::ops;
use crate::spec::{ActivationQuantization, ActivationScale, MappingType};
use burn_backend::tensor::{BoolTensor, FloatTensor};
use burn_backend::{Backend, TensorMetadata};

/// Codes of an activation `[M, K]`. Scales and zero points are `[M, 1]`, or `[1, 1]` for one of the whole activation.
pub(super) struct Codes<B: Backend> {
    /// Integers as f32.
    pub codes: FloatTensor<B>,
    /// Scales.
    pub scale: FloatTensor<B>,
    /// Integers as f32; absent where every zero point is 0.
    pub zero_point: Option<FloatTensor<B>>,
    /// The largest magnitude that a code can have.
    pub largest: i32,
    /// The largest magnitude that `code − zero point` can have.
    width: i32,
}

impl<B: Backend> Codes<B> {
    fn new(
        codes: FloatTensor<B>,
        scale: FloatTensor<B>,
        zero_point: Option<FloatTensor<B>>,
        range: (i32, i32),
    ) -> Self {
        let largest = range.0.abs().max(range.1.abs());
        let width = if zero_point.is_some() {
            range.1 - range.0
        } else {
            largest
        };
        Self {
            codes,
            scale,
            zero_point,
            largest,
            width,
        }
    }

    /// `code − zero point` as codes, with zero points of 0.
    pub fn centered(self) -> Self {
        let codes = match self.zero_point {
            Some(zero) => B::float_sub(self.codes, zero),
            None => self.codes,
        };
        Self {
            codes,
            zero_point: None,
            largest: self.width,
            ..self
        }
    }

    /// `T((code − zero point) · scale)`.
    pub fn dequantize(self, dtype: FloatDtype) -> FloatTensor<B> {
        let centered = self.centered();
        ops::round_to::<B>(B::float_mul(centered.codes, centered.scale), dtype)
    }
}

/// Quantizes `x[M, K]`, f32 values of `dtype` (T), with M and K at least 1; `None` where the activation stays in float.
///
/// The formulas are those of [`primitives`](crate::primitives). Rows set in `not_finite` `[M, 1]` get the codes of a zero row and do not
/// reach the scale of a whole activation.
pub(super) fn quantize<B: Backend>(
    x: FloatTensor<B>,
    not_finite: &BoolTensor<B>,
    dtype: FloatDtype,
    activation: &ActivationQuantization,
) -> Option<Codes<B>> {
    let device = B::float_device(&x);
    if !activation.is_quantized() {
        return None;
    }
    let x = ops::choose::<B>(not_finite.clone(), ops::constant::<B>(0.0, &device), x);
    match *activation {
        ActivationQuantization::None => None,
        ActivationQuantization::Static {
            scale,
            zero_point,
            quant_min,
            quant_max,
            ..
        } => {
            let steps = if (1.0 / scale).is_finite() {
                B::float_mul(x, ops::constant::<B>(1.0 / scale, &device))
            } else {
                ops::divided_by::<B>(x, scale)
            };
            let zero_point = (zero_point != 0).then(|| ops::constant::<B>(zero_point as f32, &device));
            let range = (quant_min, quant_max);
            let codes = codes::<B>(steps, zero_point.clone(), range);
            Some(Codes::new(codes, ops::constant::<B>(scale, &device), zero_point, range))
        }
        ActivationQuantization::Dynamic {
            mapping,
            scale: which,
            quant_min,
            quant_max,
            eps,
            scale_in_input_dtype,
            ..
        } => {
            let range = (quant_min, quant_max);
            let eps = dtype.round(eps.unwrap_or(dtype.smallest_normal()));
            let scale_dtype = if scale_in_input_dtype { dtype } else { FloatDtype::F32 };
            let (scale, zero_point) = choose_qparams::<B>(x.clone(), dtype, mapping, which, range, eps);

            let reciprocal = ops::round_to::<B>(
                B::float_div(ops::constant::<B>(1.0, &device), scale.clone()),
                scale_dtype,
            );
            let mut steps = B::float_mul(x.clone(), reciprocal.clone());
            if !scale_dtype.round(1.0 / eps).is_finite() {
                let overflows = ops::not_finite::<B>(&reciprocal);
                steps = ops::choose::<B>(overflows, B::float_div(x, scale.clone()), steps);
            }
            let steps = ops::round_to::<B>(steps, dtype.promote(scale_dtype));
            let codes = codes::<B>(steps, zero_point.clone(), range);
            Some(Codes::new(codes, scale, zero_point, range))
        }
    }
}

/// `clamp(round(steps) + zero point)`. Steps beyond ±1024 clamp to an end of any 8-bit range, so they may be cut before they are rounded.
fn codes<B: Backend>(
    steps: FloatTensor<B>,
    zero_point: Option<FloatTensor<B>>,
    (low, high): (i32, i32),
) -> FloatTensor<B> {
    let steps = ops::round_ties_even::<B>(B::float_clamp(steps, (-1024.0f32).into(), 1024.0f32.into()));
    let codes = match zero_point {
        Some(zero) => B::float_add(steps, zero),
        None => steps,
    };
    B::float_clamp(codes, (low as f32).into(), (high as f32).into())
}

/// Scales (in T) and zero points of each row, or of the whole activation.
fn choose_qparams<B: Backend>(
    x: FloatTensor<B>,
    dtype: FloatDtype,
    mapping: MappingType,
    which: ActivationScale,
    (low, high): (i32, i32),
    eps: f32,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let device = B::float_device(&x);
    let x = match which {
        ActivationScale::PerToken => x,
        ActivationScale::PerTensor => {
            let elements = x.shape().num_elements();
            B::float_reshape(x, [1, elements].into())
        }
    };
    let round = |x| ops::round_to::<B>(x, dtype);
    let at_least_eps = |scale| B::float_clamp_min(scale, eps.into());
    let negative = B::float_clamp_max(B::float_min_dim(x.clone(), 1), 0.0f32.into());
    let positive = B::float_clamp_min(B::float_max_dim(x, 1), 0.0f32.into());
    let middle = (low + high + 1) / 2;
    let middle = (middle != 0).then_some(middle as f32);
    match mapping {
        MappingType::Symmetric => {
            let largest = ops::maximum::<B>(B::float_neg(negative), positive);
            let half = (high - low) as f32 / 2.0;
            let scale = at_least_eps(round(ops::divided_by::<B>(largest, half)));
            let zero_point = middle.map(|z| constant_like::<B>(z, &scale));
            (scale, zero_point)
        }
        MappingType::SymmetricNoClippingErr => {
            let a = round(ops::divided_by::<B>(negative, low as f32));
            let b = round(ops::divided_by::<B>(positive, high as f32));
            let scale = at_least_eps(ops::maximum::<B>(b, a));
            let zero_point = middle.map(|z| constant_like::<B>(z, &scale));
            (scale, zero_point)
        }
        MappingType::Asymmetric => {
            let width = round(B::float_sub(positive, negative.clone()));
            let scale = at_least_eps(round(ops::divided_by::<B>(width, (high - low) as f32)));
            let steps = round(B::float_div(negative, scale.clone()));
            let steps = ops::round_ties_even::<B>(B::float_clamp(steps, (-1024.0f32).into(), 1024.0f32.into()));
            let zero = B::float_sub(ops::constant::<B>(low as f32, &device), steps);
            let zero = B::float_clamp(zero, (low as f32).into(), (high as f32).into());
            (scale, Some(zero))
        }
    }
}

/// `value` in the shape of `like`.
fn constant_like<B: Backend>(value: f32, like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_expand(ops::constant::<B>(value, &B::float_device(like)), like.shape())
}
