//! What a caller can act on: one enum, a variant for each thing that can be wrong.

use thiserror::Error;

/// The result of a fallible call of this crate.
pub type Result<T> = core::result::Result<T, QuantError>;

/// Everything that a config, a shape, a file or a batch of data can get wrong.
///
/// Each message names the constraint and the fix; where a layer is known, its path comes first.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum QuantError {
    /// An integer dtype outside 1 to 8 bits.
    #[error("{bits} bits are not supported: choose 1 to 8")]
    UnsupportedBits {
        /// The bits asked for.
        bits: u32,
    },
    /// `quant_min..=quant_max` is empty or leaves the range of the dtype.
    #[error("the range {quant_min}..={quant_max} does not fit {dtype} ({min}..={max})")]
    InvalidRange {
        /// Name of the dtype.
        dtype: String,
        /// The bound asked for.
        quant_min: i32,
        /// The bound asked for.
        quant_max: i32,
        /// Smallest value of the dtype.
        min: i32,
        /// Largest value of the dtype.
        max: i32,
    },
    /// A granularity that the shape cannot have.
    #[error("{granularity} does not apply to shape {shape:?}: {reason}")]
    InvalidGranularity {
        /// The granularity, as written in a config.
        granularity: String,
        /// The shape it met.
        shape: Vec<usize>,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// Two things that belong together have different shapes.
    #[error("{what}: expected {expected:?}, got {got:?}")]
    ShapeMismatch {
        /// What was compared.
        what: String,
        /// The shape that was needed.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A mapping, zero-point domain or dtype that do not go together.
    #[error("{0}")]
    InvalidSpec(String),
    /// NaN or infinity where a finite number is needed.
    #[error("{what} holds {value} at element {index}: quantization needs finite numbers")]
    NonFinite {
        /// What was looked at (a weight's path, a batch).
        what: String,
        /// Flat row-major index of the first bad element.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// A record of a quantized weight that is damaged, cut off, newer than this crate, or of another shape.
    #[error("record of layer `{layer}`, field `{field}`: {reason}")]
    Record {
        /// Path of the layer, `?` where the record is too damaged to tell.
        layer: String,
        /// The part of the record that is wrong.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer that the config selects cannot be quantized by it (strict mode, or a config that can serve no such layer).
    #[error("layer `{layer}`: {reason}")]
    Layer {
        /// Path of the layer.
        layer: String,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// `convert` came before any batch went through the observed module.
    #[error("layer `{layer}` saw no calibration batch: run the observed module on data before `convert`")]
    NoCalibration {
        /// Path of the layer.
        layer: String,
    },
    /// A calibration batch held NaN or infinity.
    #[error("layer `{layer}`, calibration batch {batch}: {reason}")]
    BadCalibration {
        /// Path of the layer.
        layer: String,
        /// Number of the batch that the layer saw, from 0.
        batch: usize,
        /// What it held.
        reason: String,
    },
    /// An observer, which knows no layer, was given NaN or infinity. It remembers the first such batch.
    #[error("calibration batch {batch} (the first is 0) holds {value}: quantization needs finite numbers")]
    NonFiniteBatch {
        /// Number of the batch, in the order observed.
        batch: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// An observer, which knows no layer, was asked for parameters before it saw data.
    #[error("nothing was observed: run at least one calibration batch first")]
    NoObservations,
    /// A module without a float parameter of rank 2 or more.
    #[error("nothing to quantize: the module has no float matrix ({integers} integer parameters)")]
    NothingToQuantize {
        /// Integer parameters of the module.
        integers: usize,
    },
}
