//! The two primitives of the decorator: a quantized tensor at rest, and a float that may still be packed.

use crate::kernels::QuantKernels;
use crate::kernels::portable::PortableWeight;
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::tensor::{Device, FloatTensor};
use burn_backend::{Backend, QTensorPrimitive, TensorMetadata};
use burn_std::quantization::QuantScheme;
use burn_std::{DType, FloatDType, Shape};
use core::fmt::Debug;
use std::sync::Arc;

/// Where a packed weight came from: printed in errors and reports, kept in records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Label {
    /// Path of the layer, such as `encoder.layers.0.mha.query`; empty for a weight made by hand.
    pub path: String,
    /// Container type as Burn names it, such as `Struct:Linear`; empty for a weight made by hand.
    pub container: String,
}

/// How the codes of a packed weight are held. There is one copy.
#[allow(clippy::large_enum_variant, reason = "a body is one allocation behind an Arc")]
#[derive(Clone, Debug)]
pub enum Storage<W> {
    /// Packed for the kernels of the backend; a logical `[N, K]` matrix.
    Kernel(W),
    /// As quantized, any rank: served by the portable products where it is a matrix.
    Portable(PortableWeight),
}

/// A weight of codes, scales and zero points, with the treatment of the activations that meet it.
#[derive(Clone, Debug)]
pub struct Packed<W> {
    /// The codes.
    pub storage: Storage<W>,
    /// Why the kernels of the backend do not serve it, where they were asked and refused.
    pub refusal: Option<String>,
    /// What happens to an activation first.
    pub activation: ActivationQuantization,
    /// Where it came from.
    pub label: Label,
}

/// Collects statistics of what an observed layer sees. Clones and threads share it.
pub trait InputObserver<B: Backend>: Send + Sync + Debug {
    /// The activation, `[.., K]`, before the product.
    fn observe_input(&self, x: &FloatTensor<B>);

    /// The output, `[.., N]`, bias included.
    fn observe_output(&self, y: &FloatTensor<B>);

    /// For a flow to find its own observer again.
    fn as_any(&self) -> &dyn core::any::Any;
}

/// A weight that is still in float and collects statistics of the activations it meets.
#[derive(Clone, Debug)]
pub struct Observed<B: Backend> {
    /// The weight, untouched, in the shape that Burn gave it.
    pub weight: FloatTensor<B>,
    /// Who collects.
    pub observer: Arc<dyn InputObserver<B>>,
}

/// What a quantized tensor is made of.
#[allow(clippy::large_enum_variant, reason = "a body is one allocation behind an Arc")]
#[derive(Clone, Debug)]
pub enum Body<B: Backend, K: QuantKernels<B>> {
    /// Codes.
    Packed(Packed<K::Weight>),
    /// A float weight under calibration.
    Observed(Observed<B>),
    /// A plain float: what an operation gives back that must return a quantized tensor but has none.
    Dense(FloatTensor<B>),
}

/// A view of a shared body. Views are cheap; clones share the body.
#[derive(Clone, Debug)]
pub struct QTensor<B: Backend, K: QuantKernels<B>> {
    /// What it views.
    pub body: Arc<Body<B, K>>,
    /// The shape that Burn sees.
    pub shape: Shape,
    /// Whether the last two dims that Burn sees are the body's, swapped: a `Linear` weight `[K, N]` over a logical `[N, K]`.
    pub transposed: bool,
    /// Where results go.
    pub device: Device<B>,
    /// The float dtype that it claims to have when Burn asks a float.
    pub dtype: FloatDType,
    /// What `QTensorPrimitive::scheme` returns: Burn's own scheme of a stock tensor, else a carrier.
    pub scheme: QuantScheme,
    /// Whether `scheme` describes the tensor as Burn would, so that its data is Burn's own and not a payload of this crate.
    pub stock: bool,
}

/// A float tensor that may still be a packed weight; `dequantize` of the decorator is lazy and returns one.
#[derive(Clone, Debug)]
pub enum FloatPrimitive<B: Backend, K: QuantKernels<B>> {
    /// An ordinary float tensor of the inner backend.
    Dense(FloatTensor<B>),
    /// A quantized weight on its way to a product.
    Packed(QTensor<B, K>),
}

impl<W> Packed<W> {
    /// A weight for the kernels of a device where they take it, else for the portable products.
    pub(crate) fn new<B: Backend, K: QuantKernels<B, Weight = W>>(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        label: Label,
        device: &Device<B>,
    ) -> Self {
        let (storage, refusal) = if weight.shape().len() != 2 {
            (Storage::Portable(PortableWeight { weight, activation }), None)
        } else {
            match K::pack(weight, activation, device) {
                Ok(weight) => (Storage::Kernel(weight), None),
                Err(unsupported) => {
                    let weight = unsupported.weight;
                    let storage = Storage::Portable(PortableWeight { weight, activation });
                    (storage, Some(unsupported.reason))
                }
            }
        };
        Self {
            storage,
            refusal,
            activation,
            label,
        }
    }

    /// Bytes of the weight at rest.
    pub(crate) fn bytes<B: Backend, K: QuantKernels<B, Weight = W>>(&self) -> usize {
        match &self.storage {
            Storage::Kernel(weight) => K::bytes(weight),
            Storage::Portable(weight) => weight.weight.bytes(),
        }
    }

    /// The weight as quantized, `[N, K]` for a matrix.
    pub fn unpack<B: Backend, K: QuantKernels<B, Weight = W>>(&self) -> AffineQuantizedTensor {
        match &self.storage {
            Storage::Kernel(weight) => K::unpack(weight),
            Storage::Portable(weight) => weight.weight.clone(),
        }
    }
}

impl<B: Backend, K: QuantKernels<B>> QTensor<B, K> {
    /// The packed weight, unless it is observed or dense.
    pub fn packed(&self) -> Option<&Packed<K::Weight>> {
        match &*self.body {
            Body::Packed(packed) => Some(packed),
            _ => None,
        }
    }
}

impl<B: Backend, K: QuantKernels<B>> TensorMetadata for QTensor<B, K> {
    fn dtype(&self) -> DType {
        match &*self.body {
            Body::Dense(_) => self.dtype.into(),
            _ => DType::QFloat(self.scheme),
        }
    }

    fn shape(&self) -> Shape {
        self.shape.clone()
    }
}

impl<B: Backend, K: QuantKernels<B>> QTensorPrimitive for QTensor<B, K> {
    fn scheme(&self) -> &QuantScheme {
        &self.scheme
    }

    fn default_scheme() -> QuantScheme {
        B::QuantizedTensorPrimitive::default_scheme()
    }
}

impl<B: Backend, K: QuantKernels<B>> TensorMetadata for FloatPrimitive<B, K> {
    fn dtype(&self) -> DType {
        match self {
            Self::Dense(tensor) => tensor.dtype(),
            Self::Packed(weight) => weight.dtype.into(),
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Dense(tensor) => tensor.shape(),
            Self::Packed(weight) => weight.shape.clone(),
        }
    }
}
