//! Observers: what calibration remembers of a tensor, and the scales and zero points that follow from it.
//!
//! Each observer sees batches as slices, keeps a summary, and gives [`QParams`] at the end.
//! Two observers of one config that saw different batches can be [merged](Observer::merge), so that replicas may calibrate in parallel.
//!
//! ```
//! use burn_quantized::dtype::{FloatDtype, IntDtype};
//! use burn_quantized::observe::{Observer, ObserverConfig, ObserverKind};
//! use burn_quantized::primitives::ZeroPoints;
//! use burn_quantized::spec::{AffineSpec, Granularity, MappingType};
//!
//! # fn main() -> burn_quantized::Result<()> {
//! let spec = AffineSpec::new(IntDtype::UINT8, MappingType::Asymmetric, Granularity::PerTensor);
//! let config = ObserverConfig::new(ObserverKind::MinMax, spec);
//! let (mut left, mut right) = (config.build()?, config.build()?);
//! left.forward(&[-1.0, 3.0], FloatDtype::F32, &[2])?;
//! right.forward(&[0.0, 254.0, 7.0], FloatDtype::F32, &[3])?;
//! left.merge(right)?;
//! let params = left.calculate_qparams()?;
//! assert_eq!((params.scale, params.zero_point), (vec![1.0], ZeroPoints::Int(vec![1])));
//! # Ok(()) }
//! ```

mod any;
mod batches;
mod config;
mod fixed;
mod histogram;
mod min_max;
mod moving_average;
mod mse;
mod range_search;
mod ranges;
mod rule;

pub use any::AnyObserver;
pub(crate) use batches::BatchRange;
pub use config::{ObserverConfig, ObserverKind};
pub use fixed::FixedObserver;
pub use histogram::{Histogram, HistogramObserver};
pub use min_max::MinMaxObserver;
pub use moving_average::MovingAverageObserver;
pub use mse::MseObserver;
pub use ranges::BlockRanges;
pub use rule::RangeRule;

use crate::dtype::FloatDtype;
use crate::error::Result;
use crate::primitives::QParams;

/// Collects statistics of a tensor over batches.
///
/// Batches are numbered from 0 in the order of [`Observer::forward`]; after a merge, the other observer's follow this one's.
pub trait Observer: Sized {
    /// Observes one batch: `values` of `dtype`, row-major in `shape`. A batch without elements counts as a batch and changes nothing else.
    ///
    /// Errors: a wrong number of values; blocks other than those of the first batch (`PerTensor` takes any shape); NaN or infinity.
    /// A batch with an error is not observed. The first that was not finite is remembered, and
    /// [`Observer::calculate_qparams`] reports it even where the caller dropped this error.
    fn forward(&mut self, values: &[f32], dtype: FloatDtype, shape: &[usize]) -> Result<()>;

    /// Scales and zero points of what was observed, one a block.
    ///
    /// Errors: [`NonFiniteBatch`](crate::QuantError::NonFiniteBatch) where a batch held NaN or infinity,
    /// [`NoObservations`](crate::QuantError::NoObservations) where nothing was observed and something has to be.
    fn calculate_qparams(&self) -> Result<QParams>;

    /// Takes in what `other` saw, as if its batches had followed.
    ///
    /// Errors: another config, or other blocks. Then nothing is taken in.
    fn merge(&mut self, other: Self) -> Result<()>;
}

#[cfg(test)]
mod tests;
