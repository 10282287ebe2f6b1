//! The observers of one layer, shared by every clone of its module.

use super::layer::Layer;
use super::waiting::{self, Role, Waiting};
use super::weight::read;
use crate::backend::InputObserver;
use crate::error::{QuantError, Result};
use crate::kernels::dtypes::float_dtype;
use crate::observe::{AnyObserver, BatchRange, Observer, ObserverConfig};
use crate::primitives::{QParams, ZeroPoints};
use crate::spec::ActivationQuantization;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, TensorData};
use core::any::Any;
use core::fmt;
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
pub(crate) struct LayerObserver {
    layer: Layer,
    statistics: Mutex<LayerStatistics>,
    /// Whether ranges may stay on the device; else every batch is read.
    stays_on_device: bool,
    /// A [`Waiting`] of the backend that the layer runs on.
    waiting: Mutex<Option<Box<dyn Any + Send>>>,
    /// The first reading that failed for another reason than its numbers.
    failure: Mutex<Option<QuantError>>,
}

impl fmt::Debug for LayerObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerObserver")
            .field("layer", &self.layer)
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}

impl LayerObserver {
    /// With `stays_on_device`, observers that only need the range of a batch leave it on the device until [`settle`] is called.
    pub(crate) fn new(
        layer: Layer,
        activation: &ObserverConfig,
        output: Option<&ObserverConfig>,
        stays_on_device: bool,
    ) -> Result<Self> {
        let statistics = LayerStatistics {
            activation: activation.build()?,
            output: output.map(ObserverConfig::build).transpose()?,
        };
        Ok(Self {
            layer,
            statistics: Mutex::new(statistics),
            stays_on_device,
            waiting: Mutex::new(None),
            failure: Mutex::new(None),
        })
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }

    /// What was seen and [settled](settle).
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

    /// Observes one batch. A batch with bad numbers is remembered by the observer itself.
    pub(crate) fn observe<B: Backend>(&self, role: Role, x: &FloatTensor<B>) {
        let takes_ranges = match lock(&self.statistics).of(role) {
            Some(observer) => observer.takes_ranges(),
            None => return,
        };
        if self.stays_on_device && takes_ranges {
            let mut waiting = lock(&self.waiting);
            let waiting = waiting.get_or_insert_with(|| Box::new(Waiting::<B>::default()));
            match waiting.downcast_mut::<Waiting<B>>() {
                Some(waiting) => waiting.push(role, x),
                None => self.remember(Err(QuantError::InvalidSpec("one observer saw two backends".into()))),
            }
            return;
        }
        let result = read(B::float_into_data(x.clone()), &self.layer).and_then(|data| {
            let mut statistics = lock(&self.statistics);
            statistics.of(role).map_or(Ok(()), |observer| observe(observer, &data))
        });
        self.remember(result);
    }

    fn observe_range(&self, role: Role, range: &BatchRange) {
        let result = lock(&self.statistics)
            .of(role)
            .map(|observer| observer.forward_range(range));
        self.remember(result.unwrap_or(Ok(())));
    }

    /// Why calibration waits for the device in each batch, where it does.
    pub(crate) fn note(&self) -> Option<String> {
        let statistics = lock(&self.statistics);
        let mut observers = core::iter::once(&statistics.activation).chain(&statistics.output);
        let reads = self.stays_on_device && observers.any(|observer| !observer.takes_ranges());
        reads.then(|| "calibration read every batch on the host: an observer of it needs more than the range".into())
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
        self.observe::<B>(Role::Activation, x);
    }

    fn observe_output(&self, y: &FloatTensor<B>) {
        self.observe::<B>(Role::Output, y);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Brings what waits on the device into the statistics of each observer, in one reading. A reading that fails is remembered by all of them.
pub(crate) fn settle<B: Backend>(observers: &[&LayerObserver]) {
    let take = |observer: &&LayerObserver| {
        let waiting = lock(&observer.waiting).take()?;
        let waiting = waiting.downcast::<Waiting<B>>();
        // Those of another backend come from a tensor that this flow has not seen.
        waiting.map(|waiting| *waiting).ok()
    };
    let (some, waiting): (Vec<_>, Vec<_>) = observers
        .iter()
        .filter_map(|observer| Some((*observer, take(observer)?)))
        .unzip();
    let result = waiting::read(waiting, |at, role, range| some[at].observe_range(role, &range));
    if let Err(error) = result {
        for observer in some {
            observer.remember(Err(QuantError::Layer {
                layer: observer.layer.path.clone(),
                reason: format!("its statistics cannot be read from the device: {error}"),
            }));
        }
    }
}

impl LayerStatistics {
    fn of(&mut self, role: Role) -> Option<&mut AnyObserver> {
        match role {
            Role::Activation => Some(&mut self.activation),
            Role::Output => self.output.as_mut(),
        }
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
