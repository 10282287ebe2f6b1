//! A `Linear` that observes its input, for users who prefer to swap modules by hand.

use super::calibration::quantize_observed;
use super::configs::Int8StaticActivationInt8Weight;
use super::layer::Layer;
use super::observer::{LayerObserver, LayerStatistics, settle};
use super::waiting::Role;
use super::weight::{Held, HostWeight, held, quantized_param};
use crate::backend::Quantized;
use crate::error::{QuantError, Result};
use crate::kernels::QuantKernels;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_backend::Backend;
use std::sync::Arc;

/// Computes what its `Linear` computes, and observes the activations. Clones share what they saw.
///
/// ```
/// use burn::{nn::LinearConfig, tensor::Tensor};
/// use burn_quantized::flow::{Int8StaticActivationInt8Weight, ObservedLinear};
/// type B = burn_quantized::Quantized<burn_flex::Flex>;
///
/// # fn main() -> burn_quantized::Result<()> {
/// let linear = LinearConfig::new(64, 32).init::<B>(&Default::default());
/// let observed = ObservedLinear::new(linear, &Int8StaticActivationInt8Weight::default())?;
/// observed.forward(Tensor::<B, 2>::ones([4, 64], &Default::default()));
/// let quantized = observed.convert()?;
/// # let _ = quantized; Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct ObservedLinear<B: Backend> {
    /// The layer in float.
    pub linear: Linear<B>,
    #[module(skip)]
    observer: Arc<LayerObserver>,
    #[module(skip)]
    config: Int8StaticActivationInt8Weight,
}

impl<B: Backend> ObservedLinear<B> {
    /// Wraps a float `Linear`. Errors: settings that do not go together.
    pub fn new(linear: Linear<B>, config: &Int8StaticActivationInt8Weight) -> Result<Self> {
        let layer = Layer {
            path: "linear".into(),
            container: "Struct:Linear".into(),
            shape: linear.weight.shape().iter().copied().collect(),
        };
        let observer = Arc::new(LayerObserver::new(
            layer,
            &config.activation,
            config.output.as_ref(),
            true,
        )?);
        Ok(Self {
            linear,
            observer,
            config: config.clone(),
        })
    }

    /// The product in float, `[.., K]` to `[.., N]`. A batch with NaN or infinity is remembered and reported by `convert`.
    ///
    /// Ranges stay on the device; an observer that needs more reads the batch, and a reading that fails is reported by `convert` too.
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let seen = |role, tensor: &Tensor<B, D>| {
            let tensor = tensor.clone().into_primitive().tensor();
            self.observer.observe::<B>(role, &tensor);
        };
        seen(Role::Activation, &x);
        let y = self.linear.forward(x);
        seen(Role::Output, &y);
        y
    }

    /// What was observed so far.
    pub fn statistics(&self) -> LayerStatistics {
        settle::<B>(&[&self.observer]);
        self.observer.statistics()
    }

    /// Takes in what a replica observed on other batches. Errors: observers of other configs.
    pub fn merge(&self, other: LayerStatistics) -> Result<()> {
        settle::<B>(&[&self.observer]);
        self.observer.merge(other)
    }
}

impl<B: Backend, K: QuantKernels<B>> ObservedLinear<Quantized<B, K>> {
    /// The `Linear` with a quantized weight and the calibrated treatment of its activations.
    ///
    /// Errors: no batch, a bad one, a weight that is quantized already or holds NaN or infinity.
    pub fn convert(self) -> Result<Linear<Quantized<B, K>>> {
        settle::<Quantized<B, K>>(&[&self.observer]);
        let activation = self.observer.activation(&self.config.activation)?;
        let Linear { weight, bias } = self.linear;
        let layer = self.observer.layer();
        let Held::Float(tensor) = held(weight.val()) else {
            return Err(QuantError::Layer {
                layer: layer.path.clone(),
                reason: "its weight is quantized already".into(),
            });
        };
        let device = B::float_device(&tensor);
        let host = HostWeight::read::<B>(tensor, layer)?;
        let quantized = quantize_observed(&host, &self.config.weight)?;
        let tensor = super::apply::place::<B, K>(quantized, activation, layer, device, host.dtype);
        Ok(Linear {
            weight: quantized_param(weight, tensor),
            bias,
        })
    }
}
