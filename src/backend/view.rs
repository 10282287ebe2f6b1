//! Views of a quantized tensor that share its body, and the way from a body to floats.
//!
//! A view has the shape of its body with dims of size 1 in front, its last two dims swapped or not. Whatever else an operation asks for
//! moves codes (a quantized tensor) or makes floats (a float).

use super::{Body, FloatPrimitive, Observed, Packed, QTensor, Storage, materialized};
use crate::kernels::QuantKernels;
use crate::kernels::dtypes::float_dtype;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::tensor::{Device, FloatTensor};
use burn_backend::{Backend, TensorData, TensorMetadata};
use burn_std::Shape;
use burn_std::quantization::QuantLevel;
use std::sync::Arc;

impl<B: Backend, K: QuantKernels<B>> QTensor<B, K> {
    /// A quantized tensor that is a plain float: what an operation gives back that has no codes to give.
    pub fn from_float(tensor: FloatTensor<B>, device: Device<B>) -> Self {
        Self {
            shape: tensor.shape(),
            transposed: false,
            device,
            dtype: tensor.dtype().into(),
            scheme: Default::default(),
            stock: false,
            body: Arc::new(Body::Dense(tensor)),
        }
    }

    /// Whether this is one matrix, dims of size 1 in front allowed, that a product can take as it is.
    pub fn is_matrix(&self) -> bool {
        let rank = self.shape.num_dims();
        let body_is_matrix = match &*self.body {
            Body::Dense(_) => false,
            _ => self.body_rank() == 2,
        };
        body_is_matrix && rank >= 2 && self.shape.iter().take(rank - 2).all(|dim| *dim == 1)
    }

    /// The weight in the shape that Burn sees; `None` unless it is packed.
    pub fn weight(&self) -> Option<AffineQuantizedTensor> {
        let weight = self.packed()?.unpack::<B, K>();
        let oriented = match self.transposed {
            true => weight.transpose(),
            false => Ok(weight),
        };
        let shape: Vec<usize> = self.shape.iter().copied().collect();
        let viewed = oriented.and_then(|weight| {
            if weight.shape() == shape {
                Ok(weight)
            } else {
                weight.reshape(&shape)
            }
        });
        Some(viewed.unwrap_or_else(|error| panic!("a view of a packed weight: {error}")))
    }

    /// The same kind of tensor (label, activation treatment, orientation) over another weight, given in the shape that Burn sees.
    pub(super) fn with_weight(&self, packed: &Packed<K::Weight>, weight: AffineQuantizedTensor) -> Self {
        let transposed = self.transposed && weight.shape().len() >= 2;
        let weight = match transposed {
            true => weight
                .transpose()
                .unwrap_or_else(|error| panic!("a view of a packed weight: {error}")),
            false => weight,
        };
        let one_scale = weight.grid().len() == 1;
        let (label, device) = (packed.label.clone(), self.device.clone());
        let mut tensor = Self::from_weight(weight, packed.activation, label, transposed, device, self.dtype);
        if self.stock && one_scale && self.scheme.level == QuantLevel::Tensor {
            (tensor.scheme, tensor.stock) = (self.scheme, true);
        }
        tensor
    }

    /// Dims of size 1 added or dropped in front; else the tensor back.
    pub(super) fn try_reshape(mut self, shape: &Shape) -> Result<Self, Self> {
        let tail = |shape: &Shape| shape.iter().copied().skip_while(|dim| *dim == 1).collect::<Vec<_>>();
        let last_two = |shape: &Shape| shape.iter().rev().take(2).copied().collect::<Vec<_>>();
        let keeps_swap = !self.transposed || (shape.num_dims() >= 2 && last_two(shape) == last_two(&self.shape));
        if tail(shape) != tail(&self.shape) || !keeps_swap {
            return Err(self);
        }
        self.shape = shape.clone();
        Ok(self)
    }

    /// The last two dims swapped, or a dim with itself; else the tensor back.
    pub(super) fn try_swap_dims(mut self, dim1: usize, dim2: usize) -> Result<Self, Self> {
        let rank = self.shape.num_dims();
        if dim1 == dim2 {
            return Ok(self);
        }
        let last_two = rank >= 2 && dim1.min(dim2) == rank - 2 && dim1.max(dim2) == rank - 1;
        if !last_two || self.body_rank() < 2 {
            return Err(self);
        }
        self.transposed = !self.transposed;
        let mut dims: Vec<usize> = self.shape.iter().copied().collect();
        dims.swap(rank - 2, rank - 1);
        self.shape = Shape::from(dims);
        // A carrier of the swapped shape holds as much with its block swapped; Burn's own blocks run along the last dim, so they are gone.
        if let QuantLevel::Block(block) = self.scheme.level {
            let mut sides = block.as_slice().to_vec();
            sides.reverse();
            self.scheme = self.scheme.with_level(QuantLevel::block(sides));
            self.stock = false;
        }
        Ok(self)
    }

    /// The identity, or the last two dims swapped; else the tensor back.
    pub(super) fn try_permute(self, axes: &[usize]) -> Result<Self, Self> {
        let rank = axes.len();
        let moved: Vec<usize> = (0..rank).filter(|dim| axes[*dim] != *dim).collect();
        match moved[..] {
            [] => Ok(self),
            [first, second] if first + 2 == rank => self.try_swap_dims(first, second),
            _ => Err(self),
        }
    }

    /// On another device; packed again for its kernels unless it is there already.
    pub(super) fn to_device(&self, device: &Device<B>) -> Self {
        if *device == self.device {
            return self.clone();
        }
        let body = match &*self.body {
            Body::Dense(tensor) => Body::Dense(B::float_to_device(tensor.clone(), device)),
            Body::Observed(observed) => Body::Observed(Observed {
                weight: B::float_to_device(observed.weight.clone(), device),
                observer: observed.observer.clone(),
            }),
            Body::Packed(packed) => Body::Packed(match &packed.storage {
                Storage::Portable(_) => packed.clone(),
                Storage::Kernel(weight) => {
                    Packed::new::<B, K>(K::unpack(weight), packed.activation, packed.label.clone(), device)
                }
            }),
        };
        Self {
            body: Arc::new(body),
            device: device.clone(),
            ..self.clone()
        }
    }

    /// The values as a float tensor of `self.dtype`. A packed weight is counted under `op`.
    pub(super) fn into_dense(self, op: &'static str) -> FloatTensor<B> {
        let body = match &*self.body {
            Body::Packed(packed) => {
                let weight = packed.unpack::<B, K>();
                let elements = weight.shape().iter().product();
                materialized::add(op, elements);
                let values = weight.dequantize(float_dtype(self.dtype.into()));
                let data = TensorData::new(values, weight.shape().to_vec()).convert_dtype(self.dtype.into());
                B::float_from_data(data, &self.device)
            }
            Body::Observed(Observed { weight: tensor, .. }) | Body::Dense(tensor) => {
                if tensor.dtype() == self.dtype.into() {
                    tensor.clone()
                } else {
                    B::float_cast(tensor.clone(), self.dtype)
                }
            }
        };
        let rank = body.rank();
        let body = if self.transposed {
            B::float_swap_dims(body, rank - 2, rank - 1)
        } else {
            body
        };
        if body.shape() == self.shape {
            body
        } else {
            B::float_reshape(body, self.shape)
        }
    }

    fn body_rank(&self) -> usize {
        match &*self.body {
            Body::Packed(packed) => match &packed.storage {
                Storage::Kernel(_) => 2,
                Storage::Portable(weight) => weight.weight.shape().len(),
            },
            Body::Observed(Observed { weight: tensor, .. }) | Body::Dense(tensor) => tensor.rank(),
        }
    }
}

impl<B: Backend, K: QuantKernels<B>> FloatPrimitive<B, K> {
    /// The tensor of the inner backend. A packed weight is materialized and counted under `op`, the name of the operation that asks.
    pub fn dense(self, op: &'static str) -> FloatTensor<B> {
        match self {
            Self::Dense(tensor) => tensor,
            Self::Packed(weight) => weight.into_dense(op),
        }
    }

    /// A view that keeps a packed weight packed, or the tensor back where there is none.
    pub(super) fn view(
        self,
        view: impl FnOnce(QTensor<B, K>) -> Result<QTensor<B, K>, QTensor<B, K>>,
    ) -> Result<Self, Self> {
        match self {
            Self::Packed(weight) => view(weight).map(Self::Packed).map_err(Self::Packed),
            dense => Err(dense),
        }
    }
}
