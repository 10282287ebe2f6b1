//! One type for every observer, so that a flow can choose one a layer.

use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::observe::batches::BatchRange;
use crate::observe::{
    BlockRanges, FixedObserver, HistogramObserver, MinMaxObserver, MovingAverageObserver, MseObserver, Observer,
};
use crate::primitives::QParams;
use serde::{Deserialize, Serialize};

/// Any of the observers; [`ObserverConfig::build`](crate::observe::ObserverConfig::build) makes one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum AnyObserver {
    /// Running minimum and maximum.
    MinMax(MinMaxObserver),
    /// Moving average of minima and maxima.
    MovingAverage(MovingAverageObserver),
    /// Parameters known beforehand.
    Fixed(FixedObserver),
    /// Smallest squared error.
    Mse(MseObserver),
    /// Histogram and range search.
    Histogram(HistogramObserver),
}

macro_rules! each {
    ($any:expr, $observer:ident => $call:expr) => {
        match $any {
            AnyObserver::MinMax($observer) => $call,
            AnyObserver::MovingAverage($observer) => $call,
            AnyObserver::Fixed($observer) => $call,
            AnyObserver::Mse($observer) => $call,
            AnyObserver::Histogram($observer) => $call,
        }
    };
}

impl AnyObserver {
    /// Whether the range of a whole batch is all that it needs to know.
    pub(crate) fn takes_ranges(&self) -> bool {
        match self {
            Self::MinMax(observer) => observer.is_per_tensor(),
            Self::MovingAverage(observer) => observer.is_per_tensor(),
            Self::Fixed(_) => true,
            Self::Mse(_) | Self::Histogram(_) => false,
        }
    }

    /// As [`Observer::forward`] with the values of a tensor in that range.
    ///
    /// Errors: as there; an observer that [needs the values](AnyObserver::takes_ranges).
    pub(crate) fn forward_range(&mut self, range: &BatchRange) -> Result<()> {
        match self {
            Self::MinMax(observer) => observer.forward_range(range),
            Self::MovingAverage(observer) => observer.forward_range(range),
            Self::Fixed(observer) => observer.forward_range(range),
            Self::Mse(_) | Self::Histogram(_) => Err(QuantError::InvalidSpec(
                "this observer needs the values of a batch, not their range".into(),
            )),
        }
    }

    /// Batches that came, bad and empty ones included.
    pub fn batches(&self) -> usize {
        each!(self, observer => observer.batches())
    }

    /// The ranges so far, one a block. A histogram's is not among them: see [`HistogramObserver::searched_range`].
    pub fn ranges(&self) -> Option<&BlockRanges> {
        match self {
            Self::MinMax(observer) => observer.ranges(),
            Self::MovingAverage(observer) => observer.ranges(),
            Self::Mse(observer) => observer.ranges(),
            Self::Fixed(_) | Self::Histogram(_) => None,
        }
    }
}

impl Observer for AnyObserver {
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()> {
        each!(self, observer => observer.forward(values, dtype, shape))
    }

    fn calculate_qparams(&self) -> Result<QParams> {
        each!(self, observer => observer.calculate_qparams())
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        match (self, other) {
            (Self::MinMax(a), Self::MinMax(b)) => a.merge(b),
            (Self::MovingAverage(a), Self::MovingAverage(b)) => a.merge(b),
            (Self::Fixed(a), Self::Fixed(b)) => a.merge(b),
            (Self::Mse(a), Self::Mse(b)) => a.merge(b),
            (Self::Histogram(a), Self::Histogram(b)) => a.merge(b),
            _ => Err(QuantError::InvalidSpec(
                "observers of different kinds cannot be merged".into(),
            )),
        }
    }
}
