//! Saves a quantized model with one of Burn's recorders and loads it as any other model.

use crate::model::Classifier;
use burn::{
    module::Module,
    record::{FullPrecisionSettings, NamedMpkFileRecorder},
    tensor::backend::Backend,
};
use std::{env, error::Error, fs, process};

/// Saves `model` to a file and loads that into a freshly initialised one; nothing prepares it for quantized weights.
pub fn save_and_load<B: Backend>(model: &Classifier<B>, device: &B::Device) -> Result<Classifier<B>, Box<dyn Error>> {
    let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::new();
    let folder = env::temp_dir().join(format!("train_then_quantize-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("int8_static_int8");
    let saved = model.clone().save_file(&file, &recorder);
    let loaded = saved.and_then(|()| Classifier::new(device).load_file(&file, &recorder, device));
    fs::remove_dir_all(&folder)?;
    Ok(loaded?)
}
