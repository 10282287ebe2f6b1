//! The flows under test (placeholder until the crate has them).

use crate::{B, Device, data::Digits, model::Classifier};
use std::error::Error;

/// A model ready to run.
pub struct Flow {
    pub name: &'static str,
    pub model: Classifier<B>,
    pub bytes: usize,
    pub kernel: String,
}

pub const STATIC: &str = "int8_static_int8";

pub fn all(float: &Classifier<B>, _calibration: &Digits, _device: &Device) -> Result<Vec<Flow>, Box<dyn Error>> {
    use burn::module::Module;
    let names = [
        "int8_weight_only",
        "int4_weight_only",
        "int2_weight_only",
        "int8_dynamic_int8",
        "int8_dynamic_int4",
        STATIC,
    ];
    let flow = |name| Flow {
        name,
        model: float.clone(),
        bytes: 4 * float.num_params(),
        kernel: "float".to_string(),
    };
    Ok(names.map(flow).into())
}
