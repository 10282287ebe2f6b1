//! Building a quantized tensor from a weight.

use super::record::{carrier_or_default, payload};
use super::{Body, Label, Observed, Packed, QTensor};
use crate::kernels::QuantKernels;
use crate::kernels::dtypes::float_dtype;
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use crate::tensor::payload::Payload;
use burn_backend::tensor::Device;
use burn_backend::{Backend, TensorMetadata};
use burn_std::quantization::QuantScheme;
use burn_std::{FloatDType, Shape};
use std::sync::Arc;

impl<B: Backend, K: QuantKernels<B>> QTensor<B, K> {
    /// A tensor over `weight`, packed for the kernels `K` where they serve it, else held for the portable products.
    ///
    /// `transposed`: Burn sees the last two dims of `weight` swapped, as a `Linear` weight `[K, N]` over a logical `[N, K]`.
    pub fn from_weight(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        label: Label,
        transposed: bool,
        device: Device<B>,
        dtype: FloatDType,
    ) -> Self {
        let mut shape = weight.shape().to_vec();
        let rank = shape.len();
        let transposed = transposed && rank >= 2;
        if transposed {
            shape.swap(rank - 2, rank - 1);
        }
        let shape = Shape::from(shape);
        let Label { path, container } = label;
        let payload = Payload {
            weight,
            activation,
            path,
            container,
            transposed,
            dtype: float_dtype(dtype.into()),
        };
        let (scheme, _) = carrier_or_default(&shape, payload.encoded_len());
        let Payload {
            weight,
            path,
            container,
            ..
        } = payload;
        let label = Label { path, container };
        let packed = Packed::new::<B, K>(weight, activation, label, &device);
        let body = Arc::new(Body::Packed(packed));
        Self {
            body,
            shape,
            transposed,
            device,
            dtype,
            scheme,
            stock: false,
        }
    }

    /// A tensor over a float weight under calibration.
    pub fn observed(observed: Observed<B>) -> Self {
        let (shape, dtype) = (observed.weight.shape(), observed.weight.dtype().into());
        let device = B::float_device(&observed.weight);
        let body = Arc::new(Body::Observed(observed));
        Self {
            body,
            shape,
            transposed: false,
            device,
            dtype,
            scheme: QuantScheme::default(),
            stock: false,
        }
    }

    /// The carrier scheme of a packed body in the present view; the present scheme of any other body.
    pub(crate) fn carrier(&self) -> QuantScheme {
        match payload(self) {
            Some(payload) => carrier_or_default(&self.shape, payload.encoded_len()).0,
            None => self.scheme,
        }
    }
}
