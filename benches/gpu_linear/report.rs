//! Rows, printed and written as they come.

use crate::bounds::Bounds;
use serde::Serialize;
use std::fs::File;
use std::io::Write;

/// What the run was made on: the first line of the file.
#[derive(Serialize)]
pub struct Machine {
    pub device: String,
    pub backend: &'static str,
    pub date: String,
    pub command: String,
    pub rotation: usize,
    pub bounds: Option<Bounds>,
}

/// One row.
#[derive(Clone, Serialize)]
pub struct Row {
    /// Its number in this run, which the markers of `--ncu` bear.
    pub row: usize,
    pub config: &'static str,
    pub dtype: String,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub kernel: String,
    pub wall_us: Option<f64>,
    /// Of the device alone, from a profiler.
    pub device_us: Option<f64>,
    /// Of the caller's thread for a launch.
    pub submit_us: Option<f64>,
    /// Bytes that a product moves at least: the weight as it lies on the device, x and y.
    pub bytes: usize,
    /// Whether products are of integers.
    pub int8: bool,
    pub bound_us: Option<f64>,
    /// `bytes` or `operations`.
    pub bound: Option<&'static str>,
    /// Times faster than stock Burn's product of the same dtype and size in this run.
    pub ratio_to_float: Option<f64>,
    pub ratio_to_stock_q8: Option<f64>,
    pub ratio_to_stock_q4: Option<f64>,
    pub launches: usize,
    pub runs: usize,
    /// Why there are no times.
    pub error: Option<String>,
}

/// The file, if one was asked for, and how many answers were wrong.
pub struct Report {
    file: Option<File>,
    pub wrong: usize,
}

impl Report {
    /// Starts the file and the table.
    pub fn new(path: Option<&str>, machine: &Machine) -> Self {
        let create = |path| File::create(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut report = Self {
            file: path.map(create),
            wrong: 0,
        };
        println!("{} through {}, {}", machine.device, machine.backend, machine.date);
        if let Some(bounds) = &machine.bounds {
            let bf16 = bounds.bf16.map_or("-".into(), |rate| format!("{:.1}", rate / 1e12));
            println!(
                "copy {:.0} GB/s read and written, stock bf16 product {bf16} TFLOP/s",
                bounds.copy / 1e9
            );
        }
        println!(
            "{:<18} {:<5} {:>5} {:>6} {:>6} {:>10} {:>9} {:>10} {:>7} {:>8} {:>7} {:>7}  kernel",
            "config",
            "dtype",
            "M",
            "K",
            "N",
            "wall us",
            "submit us",
            "bound us",
            "reached",
            "x float",
            "x q8s",
            "x q4s"
        );
        report.write(&serde_json::json!({ "machine": machine }));
        report
    }

    /// Prints and writes a row.
    pub fn add(&mut self, row: &Row) {
        let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        let reached = row.bound_us.zip(row.wall_us).map(|(bound, wall)| 100.0 * bound / wall);
        println!(
            "{:<18} {:<5} {:>5} {:>6} {:>6} {:>10} {:>9} {:>10} {:>6}% {:>8} {:>7} {:>7}  {}",
            row.config,
            row.dtype,
            row.m,
            row.k,
            row.n,
            number(row.wall_us, 2),
            number(row.submit_us, 2),
            number(row.bound_us, 2),
            number(reached, 0),
            number(row.ratio_to_float, 2),
            number(row.ratio_to_stock_q8, 2),
            number(row.ratio_to_stock_q4, 2),
            row.error.as_deref().unwrap_or(&row.kernel),
        );
        self.write(&serde_json::to_value(row).expect("numbers and text"));
    }

    fn write(&mut self, value: &serde_json::Value) {
        if let Some(file) = &mut self.file {
            writeln!(file, "{value}").expect("the JSON file can be written");
        }
        std::io::stdout().flush().ok();
    }
}
