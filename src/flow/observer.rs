//! The observers of one layer, shared by every clone of its module.

use super::layer::Layer;
use super::weight::read;
use crate::backend::InputObserver;
use crate::error::{QuantError, Result};
use crate::kernels::dtypes::float_dtype;
use crate::observe::{AnyObserver, Observer, ObserverConfig};
use crate::primitives::{QParams, ZeroPoints};
use crate::spec::ActivationQuantization;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, TensorData};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What calibration knows of one layer; can be stored, sent and merged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LayerStatistics {
    /// Observer of the activations.
    pub activation: AnyObserver,
    /// Observer of the outputs, where one was asked for.
    pub output: Option<AnyObserver>,
}

/// Collects what one layer sees.
#[derive(Debug)]
pub(crate) struct LayerObserver {
    layer: Layer,
    statistics: Mutex<LayerStatistics>,
    /// The first reading that failed for another reason than its numbers.
    failure: Mutex<Option<QuantError>>,
}

impl LayerObserver {
    pub(crate) fn new(layer: Layer, activation: &ObserverConfig, output: Option<&ObserverConfig>) -> Result<Self> {
        let statistics = LayerStatistics {
            activation: activation.build()?,
            output: output.map(ObserverConfig::build).transpose()?,
        };
        Ok(Self {
            layer,
            statistics: Mutex::new(statistics),
            failure: Mutex::new(None),
        })
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }

    pub(crate) fn statistics(&self) -> LayerStatistics {
        lock(&self.statistics).clone()
    }

    pub(crate) fn merge(&self, other: LayerStatistics) -> Result<()> {
        let mut mine = lock(&self.statistics);
        mine.activation.merge(other.activation)?;
        match (&mut mine.output, other.output) {
            (Some(mine), Some(other)) => mine.merge(other),
            (None, None) => Ok(()),
            _ => Err(QuantError::InvalidSpec(
                "only one of two replicas observed outputs".into(),
            )),
        }
    }

    /// Observes one batch of activations. A batch with bad numbers is remembered by the observer itself.
    pub(crate) fn observe_activation(&self, data: &TensorData) {
        let result = observe(&mut lock(&self.statistics).activation, data);
        self.remember(result);
    }

    fn observe_result(&self, data: &TensorData) {
        let result = lock(&self.statistics)
            .output
            .as_mut()
            .map(|output| observe(output, data));
        self.remember(result.unwrap_or(Ok(())));
    }

    fn remember(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.failure).get_or_insert(error);
        }
    }

    /// The calibrated treatment of activations. Errors: no batch, or a bad one, with layer and batch number.
    pub(crate) fn activation(&self, config: &ObserverConfig) -> Result<ActivationQuantization> {
        let params = lock(&self.statistics)
            .activation
            .calculate_qparams()
            .map_err(|error| self.named(error))?;
        if let Some(error) = lock(&self.failure).clone() {
            return Err(self.named(error));
        }
        let spec = &config.rule.spec;
        let QParams { scale, zero_point } = params;
        Ok(ActivationQuantization::Static {
            scale: scale[0],
            zero_point: match zero_point {
                ZeroPoints::Int(zero) => zero[0],
                _ => 0,
            },
            dtype: spec.dtype,
            quant_min: spec.quant_min,
            quant_max: spec.quant_max,
        })
    }

    fn named(&self, error: QuantError) -> QuantError {
        let layer = self.layer.path.clone();
        match error {
            QuantError::NoObservations => QuantError::NoCalibration { layer },
            QuantError::NonFiniteBatch { batch, .. } => QuantError::BadCalibration {
                layer,
                batch,
                reason: error.to_string(),
            },
            error => QuantError::Layer {
                layer,
                reason: error.to_string(),
            },
        }
    }
}

impl<B: Backend> InputObserver<B> for LayerObserver {
    fn observe_input(&self, x: &FloatTensor<B>) {
        match read(B::float_into_data(x.clone()), &self.layer) {
            Ok(data) => self.observe_activation(&data),
            Err(error) => self.remember(Err(error)),
        }
    }

    fn observe_output(&self, y: &FloatTensor<B>) {
        if lock(&self.statistics).output.is_none() {
            return;
        }
        match read(B::float_into_data(y.clone()), &self.layer) {
            Ok(data) => self.observe_result(&data),
            Err(error) => self.remember(Err(error)),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

fn observe(observer: &mut AnyObserver, data: &TensorData) -> Result<()> {
    let shape: Vec<usize> = data.shape.iter().copied().collect();
    let values: Vec<f32> = data.iter::<f32>().collect();
    observer.forward(&values, float_dtype(data.dtype), &shape)
}

/// Statistics stay usable after a panic elsewhere: each update is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
