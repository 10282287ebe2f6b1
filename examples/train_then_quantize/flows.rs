//! The six flows: weight-only, dynamic and static quantization of one trained model.

use crate::{data::Digits, model::Classifier};
use burn::tensor::backend::Backend;
use burn_quantized::{
    Quantized,
    flow::{
        Calibration, Config, Int4WeightOnly, Int8DynamicActivationInt8Weight, Int8DynamicActivationIntxWeight,
        Int8StaticActivationInt8Weight, Int8WeightOnly, IntxWeightOnly, Report, quantize,
    },
    kernels::QuantKernels,
    spec::{Granularity, MappingType},
};
use std::error::Error;

/// The flow whose model is saved and loaded again.
pub const STATIC: &str = "int8_static_int8";
/// Inputs that share a scale where weights have fewer than 8 bits.
const GROUP: usize = 32;
const CALIBRATION_BATCH: usize = 50;

/// A quantized model, ready to run.
pub struct Flow<B: Backend> {
    pub name: &'static str,
    pub model: Classifier<B>,
    /// What became of each layer.
    pub report: Report,
}

/// Quantized models on `I`.
type Flows<I, K> = Vec<Flow<Quantized<I, K>>>;

impl<I: Backend, K: QuantKernels<I>> Flow<Quantized<I, K>> {
    fn new<C: Config>(
        name: &'static str,
        float: &Classifier<Quantized<I, K>>,
        config: C,
    ) -> Result<Self, Box<dyn Error>> {
        let (model, report) = quantize(float.clone(), &config)?;
        Ok(Self { name, model, report })
    }

    /// The kernels of the layers, each named once.
    pub fn kernels(&self) -> String {
        let mut kernels: Vec<&str> = Vec::new();
        for kernel in self.report.layers.iter().filter_map(|layer| layer.kernel.as_deref()) {
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
            }
        }
        kernels.join(", ")
    }
}

/// Quantizes `float` in every way; the static flow sees the calibration digits.
pub fn all<I: Backend, K: QuantKernels<I>>(
    float: &Classifier<Quantized<I, K>>,
    calibration: &Digits,
    device: &I::Device,
) -> Result<Flows<I, K>, Box<dyn Error>> {
    let int2 = IntxWeightOnly::new(2, Granularity::PerGroup(GROUP), MappingType::Asymmetric);
    Ok(vec![
        Flow::new("int8_weight_only", float, Int8WeightOnly::default())?,
        Flow::new("int4_weight_only", float, Int4WeightOnly::new(GROUP))?,
        Flow::new("int2_weight_only", float, int2)?,
        Flow::new("int8_dynamic_int8", float, Int8DynamicActivationInt8Weight::default())?,
        Flow::new(
            "int8_dynamic_int4",
            float,
            Int8DynamicActivationIntxWeight::new(4, GROUP),
        )?,
        quantize_static(float, calibration, device)?,
    ])
}

/// Inserts observers, shows them the calibration digits, converts.
fn quantize_static<I: Backend, K: QuantKernels<I>>(
    float: &Classifier<Quantized<I, K>>,
    digits: &Digits,
    device: &I::Device,
) -> Result<Flow<Quantized<I, K>>, Box<dyn Error>> {
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
    let observed = calibration.observe(float.clone())?;
    for batch in digits.batches(CALIBRATION_BATCH, device) {
        observed.forward(batch.images);
    }
    let (model, report) = calibration.convert(observed)?;
    Ok(Flow {
        name: STATIC,
        model,
        report,
    })
}
