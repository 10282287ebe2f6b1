//! What is measured of a model: logits, accuracy, SQNR, latency beside the float model.

use crate::{
    data::{CLASSES, Digits},
    model::Classifier,
};
use burn::tensor::backend::Backend;
use std::{hint::black_box, time::Instant};

const LOGITS_BATCH: usize = 250;

/// Logits of every digit in order, `CLASSES` a digit.
pub fn logits<B: Backend>(model: &Classifier<B>, digits: &Digits, device: &B::Device) -> Vec<f32> {
    let batches = digits.batches::<B>(LOGITS_BATCH, device);
    batches
        .flat_map(|batch| {
            model
                .forward(batch.images)
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Share of the digits whose own class has the largest logit.
pub fn accuracy(logits: &[f32], labels: &[u8]) -> f64 {
    let class = |row: &[f32]| (0..CLASSES).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let rows = logits.chunks_exact(CLASSES).zip(labels);
    rows.filter(|(row, label)| class(row) == Some(usize::from(**label)))
        .count() as f64
        / labels.len() as f64
}

/// Signal to quantization noise ratio in dB, `10 · log10(Σ reference² / Σ (reference − values)²)`; `None` when nothing differs.
pub fn sqnr_db(reference: &[f32], values: &[f32]) -> Option<f64> {
    let square = |value: f64| value * value;
    let signal: f64 = reference.iter().map(|&r| square(r.into())).sum();
    let noise: f64 = reference
        .iter()
        .zip(values)
        .map(|(&r, &v)| square(f64::from(r) - f64::from(v)))
        .sum();
    (noise > 0.0).then(|| 10.0 * (signal / noise).log10())
}

/// Median milliseconds of one forward pass, and of the float model in the pairs of the same run.
#[derive(Clone, Copy)]
pub struct Latency {
    pub flow_ms: f64,
    pub float_ms: f64,
}

/// Latency of a whole model, and of its linear layers alone, each on its own input.
#[derive(Clone, Copy)]
pub struct Latencies {
    pub whole: Latency,
    pub linear: Latency,
}

/// Times every flow beside the float model on the first `batch` digits.
///
/// A round runs float, flow, float, flow … through all `flows`, and every second round has the flow first in its pair, so that neither the
/// machine's mood nor the order favours one. Returns an entry a flow; a median is over `rounds`.
pub fn latencies<B: Backend>(
    float: &Classifier<B>,
    flows: &[&Classifier<B>],
    (digits, batch, (warm_up, rounds)): (&Digits, usize, (usize, usize)),
    device: &B::Device,
    mut each_round: impl FnMut(),
) -> Vec<Latencies> {
    let images = digits
        .batches::<B>(batch, device)
        .next()
        .expect("there are digits")
        .images;
    let inputs = float.linear_inputs(images.clone());
    let mut samples = vec![[const { Vec::new() }; 4]; flows.len()];
    for round in 0..warm_up + rounds {
        for (flow, samples) in flows.iter().zip(&mut samples) {
            let mut times = [0.0; 4];
            let mut pair = [(0, float), (1, *flow)];
            if round % 2 == 1 {
                pair.reverse();
            }
            for (at, model) in pair {
                times[at] = milliseconds::<B, _>(device, || model.forward(images.clone()));
            }
            for (at, model) in pair {
                times[2 + at] = milliseconds::<B, _>(device, || model.forward_linears(inputs.clone()));
            }
            if round >= warm_up {
                samples
                    .iter_mut()
                    .zip(times)
                    .for_each(|(samples, time)| samples.push(time));
            }
        }
        each_round();
    }
    let latency = |float: &mut Vec<f64>, flow: &mut Vec<f64>| Latency {
        flow_ms: median(flow),
        float_ms: median(float),
    };
    samples
        .iter_mut()
        .map(|[float, flow, float_linear, flow_linear]| Latencies {
            whole: latency(float, flow),
            linear: latency(float_linear, flow_linear),
        })
        .collect()
}

/// The middle of the values, the lower one of two. Sorts them.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Until the device has the result, which is nothing to wait for on a CPU.
fn milliseconds<B: Backend, T>(device: &B::Device, run: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    let result = black_box(run());
    B::sync(device).expect("the device runs");
    let elapsed = start.elapsed();
    drop(result);
    elapsed.as_secs_f64() * 1e3
}
