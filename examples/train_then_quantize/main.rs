//! Trains a digit classifier made of stock Burn modules, quantizes it in six ways, and runs each beside the float model.
//!
//!     cargo run --release --example train_then_quantize
//!     cargo run --release --features cuda,fusion --example train_then_quantize -- --backend cuda      (or wgpu, with the feature wgpu or vulkan)
//!
//! Prints one table; `--json FILE` writes it as JSON, with a chart beside it; `--quick` trains and measures less, and on a driver in
//! software less still.

mod backend;
mod chart;
mod data;
mod flows;
mod measure;
mod model;
mod reload;
mod table;
mod train;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn_autodiff::Autodiff;
use burn_quantized::Quantized;
use burn_quantized::kernels::QuantKernels;
use clap::Parser;
use data::{Digits, Split};
use flows::Flow;
use indicatif::ProgressBar;
use model::Classifier;
use std::{env, error::Error, path::PathBuf};
use table::{Results, Row};

/// Trains, quantizes and measures a digit classifier.
#[derive(Parser)]
struct Arguments {
    /// Write the table here as JSON, and the chart beside it as SVG.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// flex, wgpu or cuda; the last two need the feature of that name.
    #[arg(long, default_value = "flex")]
    backend: String,
    /// Train for one epoch and measure fewer rounds.
    #[arg(long)]
    quick: bool,
}

/// How much work is done.
struct Effort {
    epochs: usize,
    /// Most batches of an epoch.
    batches: usize,
    /// Digits that measure.
    test: usize,
    warm_up: usize,
    rounds_at_1: usize,
    rounds_at_256: usize,
}

const FULL: Effort = Effort {
    epochs: 12,
    batches: usize::MAX,
    test: 2_000,
    warm_up: 3,
    rounds_at_1: 301,
    rounds_at_256: 51,
};
const QUICK: Effort = Effort {
    epochs: 1,
    rounds_at_1: 31,
    rounds_at_256: 5,
    ..FULL
};
/// For a GPU driver in software: it shows that everything runs, and its times and accuracies say nothing.
const QUICK_IN_SOFTWARE: Effort = Effort {
    batches: 12,
    test: 250,
    warm_up: 1,
    rounds_at_1: 1,
    rounds_at_256: 1,
    ..QUICK
};

fn main() -> Result<(), Box<dyn Error>> {
    backend::dispatch(&Arguments::parse())
}

/// Everything, on the inner backend `I` with the kernels `K`.
fn run<I: Backend, K: QuantKernels<I>>(
    backend: &str,
    device: I::Device,
    software: bool,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let effort = match (arguments.quick, software) {
        (false, _) => FULL,
        (true, false) => QUICK,
        (true, true) => QUICK_IN_SOFTWARE,
    };
    let mut split = Digits::load()?.split();
    split.test = split.test.first(effort.test);

    let float = train::train::<Autodiff<Quantized<I, K>>>(&split.train, (effort.epochs, effort.batches), &device)?;
    let flows = flows::all(&float, &split.calibration, &device)?;
    let results = measure(backend, &float, &flows, &split, &effort, &device)?;

    println!("\n{}", results.to_text());
    println!("ms: median of one forward pass; in brackets, divided by the float model's in alternating runs.");
    if let Some(path) = &arguments.json {
        results.write_json(path)?;
        println!("table: {}", path.display());
    }
    let chart = match &arguments.json {
        Some(path) => path.with_extension("svg"),
        None => env::current_exe()?.with_extension("svg"),
    };
    chart::draw(&results, &chart)?;
    println!("chart: {}", chart.display());

    if !results.reload_bit_identical {
        return Err("the static model gives other logits after it was saved and loaded".into());
    }
    println!("The static model, saved and loaded into a fresh one, gives the same logits bit for bit.");
    Ok(())
}

/// One row a flow, after the float model's.
fn measure<I: Backend, K: QuantKernels<I>>(
    backend: &str,
    float: &Classifier<Quantized<I, K>>,
    flows: &[Flow<Quantized<I, K>>],
    split: &Split,
    effort: &Effort,
    device: &I::Device,
) -> Result<Results, Box<dyn Error>> {
    let test = &split.test;
    let reference = measure::logits(float, test, device);
    let accuracy = |logits: &[f32]| measure::accuracy(logits, test.labels());
    let float_bytes = float.num_params() * size_of::<f32>();
    let mut rows = vec![Row::new(
        "float",
        accuracy(&reference),
        float_bytes,
        None,
        "float".into(),
    )];
    let mut reload_bit_identical = false;
    for flow in flows {
        let logits = measure::logits(&flow.model, test, device);
        let (bytes, sqnr_db) = (flow.report.bytes_after(), measure::sqnr_db(&reference, &logits));
        rows.push(Row::new(flow.name, accuracy(&logits), bytes, sqnr_db, flow.kernels()));
        if flow.name == flows::STATIC {
            let loaded = measure::logits(&reload::save_and_load(&flow.model, device)?, test, device);
            let bits = |logits: Vec<f32>| -> Vec<u32> { logits.into_iter().map(f32::to_bits).collect() };
            reload_bit_identical = bits(logits) == bits(loaded);
        }
    }

    let models: Vec<_> = flows.iter().map(|flow| &flow.model).collect();
    let [at_1, at_256] = [(1, effort.rounds_at_1), (256, effort.rounds_at_256)].map(|(batch, rounds)| {
        let progress = ProgressBar::new(rounds as u64).with_message(format!("timing batches of {batch}"));
        let progress = progress.with_style(train::bar_style());
        let rounds = (effort.warm_up, rounds);
        measure::latencies(float, &models, (test, batch, rounds), device, || progress.inc(1))
    });
    let mut results = Results {
        backend: backend.into(),
        rows,
        reload_bit_identical,
    };
    results.set_latencies(&at_1, &at_256);
    Ok(results)
}
