//! From a trained module to a quantized one: configs, `plan`, `quantize`, calibration, reports.
//!
//! A module keeps its type and its code. `Linear` weights (by default) become quantized tensors at rest, which the decorator
//! [`Quantized`](crate::Quantized) hands to its kernels.

mod apply;
mod by_hand;
mod calibration;
mod config;
mod configs;
mod filter;
mod frozen;
mod layer;
mod observed_linear;
mod observer;
mod plan;
mod report;
mod waiting;
mod weight;

pub use apply::{FlowError, quantize};
pub use by_hand::{to_affine_quantized_intx, to_linear_activation_quantized};
pub use calibration::Calibration;
pub use config::{Choice, Config, EvenIfSlower, LayerConfig, Recipe, Strict};
pub use configs::{
    Int4WeightOnly, Int8DynamicActivationInt8Weight, Int8DynamicActivationIntxWeight, Int8StaticActivationInt8Weight,
    Int8WeightOnly, IntxWeightOnly,
};
pub use filter::{ConfigMap, Filter, Filtered};
pub use frozen::{freeze, thaw};
pub use layer::Layer;
pub(crate) use layer::Walk;
pub use observed_linear::ObservedLinear;
pub use observer::LayerStatistics;
pub use plan::plan;
pub use report::{LayerReport, Report};
