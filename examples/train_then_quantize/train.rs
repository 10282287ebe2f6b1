//! Trains the classifier as any Burn model is trained: AdamW, a cosine schedule, cross entropy.

use crate::{
    data::{Batch, Digits},
    model::Classifier,
};
use burn::{
    lr_scheduler::{LrScheduler, cosine::CosineAnnealingLrSchedulerConfig},
    module::{AutodiffModule, Module},
    nn::loss::CrossEntropyLossConfig,
    optim::{AdamWConfig, GradientsParams, Optimizer},
    tensor::{ElementConversion, backend::AutodiffBackend},
};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{SeedableRng, rngs::StdRng};
use std::{error::Error, time::Instant};

const BATCH: usize = 128;
const MAX_SHIFT: i32 = 1;
const LEARNING_RATE: f64 = 2e-3;
const FINAL_LEARNING_RATE: f64 = 1e-5;
const SEED: u64 = 7;
/// Weight of the newest batch in the loss beside the progress bar.
const LOSS_SMOOTHING: f32 = 0.02;

/// Trains for `epochs` epochs of at most `batches` batches and hands back the model without its autodiff layer.
pub fn train<B: AutodiffBackend>(
    digits: &Digits,
    (epochs, batches): (usize, usize),
    device: &B::Device,
) -> Result<Classifier<B::InnerBackend>, Box<dyn Error>> {
    B::seed(device, SEED);
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut model = Classifier::<B>::new(device);
    let mut optimizer = AdamWConfig::new().init();
    let steps = epochs * (digits.len() / BATCH).min(batches);
    let mut schedule = CosineAnnealingLrSchedulerConfig::new(LEARNING_RATE, steps)
        .with_min_lr(FINAL_LEARNING_RATE)
        .init()?;
    let loss_function = CrossEntropyLossConfig::new().init(device);

    println!(
        "training {} parameters on {} digits for {epochs} epochs",
        model.num_params(),
        digits.len()
    );
    let progress = ProgressBar::new(steps as u64).with_style(bar_style());
    let start = Instant::now();
    let mut smoothed: Option<f32> = None;
    for epoch in 1..=epochs {
        for Batch { images, labels } in digits
            .shuffled_batches(BATCH, MAX_SHIFT, &mut rng, device)
            .take(batches)
        {
            let loss = loss_function.forward(model.forward(images), labels);
            let value: f32 = loss.clone().into_scalar().elem();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(schedule.step(), model, gradients);

            let average = smoothed.map_or(value, |before| before + LOSS_SMOOTHING * (value - before));
            smoothed = Some(average);
            progress.set_message(format!("epoch {epoch}, loss {average:.4}"));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let (seconds, loss) = (start.elapsed().as_secs_f64(), smoothed.unwrap_or(f32::NAN));
    println!("trained in {seconds:.1} s, training loss {loss:.4}");
    Ok(model.valid())
}

/// How progress looks: bar, count, time gone and time left, message.
pub fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len}, {elapsed} gone, {eta} left, {msg}").expect("a valid template")
}
