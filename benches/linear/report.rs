//! The table and the JSON file.

use crate::configs::Config;
use crate::date::date;
use crate::machine::{Machine, cpu_name};
use crate::row::Times;
use burn_quantized::kernels::cpu::Tier;
use serde::Serialize;
use std::collections::BTreeMap;

/// A fraction above this says that the bound is wrong.
const BAD_BOUND: f64 = 1.05;

/// All that a run measured.
#[derive(Serialize)]
pub struct Report {
    date: String,
    command: String,
    machine: MachineReport,
    rows: Vec<Row>,
}

/// The peaks of the most threads, in 10^9 operations or bytes a second, and those of each number of threads.
#[derive(Serialize)]
struct MachineReport {
    cpu: String,
    vnni_gops: Option<f64>,
    fma_gflops: Option<f64>,
    dpbf16_gflops: Option<f64>,
    read_gbs: f64,
    rotation_bytes: usize,
    threads: BTreeMap<usize, Threads>,
}

#[derive(Serialize)]
struct Threads {
    read_gbs: f64,
    peaks: BTreeMap<&'static str, f64>,
}

/// One row of the table.
#[derive(Clone, Serialize)]
pub struct Row {
    pub kernel: String,
    pub tier: &'static str,
    pub threads: usize,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub group: Option<usize>,
    pub zero_point: &'static str,
    pub ms: f64,
    pub bound: &'static str,
    pub bound_fraction: f64,
    pub ratio_to_float: f64,
    pub ratio_to_stock: f64,
    pub float_ms: f64,
    pub stock_ms: f64,
    pub bytes: usize,
    pub read_gbs: f64,
    pub pairs: usize,
    #[serde(skip)]
    bits: u32,
}

/// Where a row stands.
#[derive(Clone, Copy)]
pub struct Place {
    pub tier: Tier,
    pub threads: usize,
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

impl Place {
    /// What `--only` looks into.
    pub fn label(&self, config: &Config) -> String {
        let Self { tier, threads, m, k, n } = self;
        let group = config.group.map_or(String::new(), |group| format!(" g{group}"));
        format!(
            "{}{group} {} {tier} t{threads} m{m} k{k} n{n} ",
            config.kernel(),
            config.zero_point()
        )
    }
}

/// The head of the table.
pub fn print_head() {
    println!(
        "{:<7} {:>5} {:>5} {:<12} {:>3} {:>4} {:>5} {:>5} {:>10} {:>8} {:>7} {:<6} {:>6} {:>8} {:>8} {:>6}",
        "kernel",
        "group",
        "zero",
        "tier",
        "thr",
        "M",
        "K",
        "N",
        "ms",
        "GOP/s",
        "GB/s",
        "bound",
        "of it",
        "x float",
        "x stock",
        "pairs"
    );
}

impl Row {
    /// A row with its bound as far as the peaks are known by now.
    pub fn new(machine: &Machine, config: &Config, place: Place, bytes: usize, times: Times) -> Self {
        let Place { tier, threads, m, k, n } = place;
        let mut row = Self {
            kernel: config.kernel(),
            tier: tier.name(),
            threads,
            m,
            k,
            n,
            group: config.group,
            zero_point: config.zero_point(),
            ms: times.quantized * 1e3,
            bound: "read",
            bound_fraction: 0.0,
            ratio_to_float: times.ratio_to_float,
            ratio_to_stock: times.stock / times.quantized,
            float_ms: times.float * 1e3,
            stock_ms: times.stock * 1e3,
            bytes,
            read_gbs: bytes as f64 / times.read / 1e9,
            pairs: times.pairs,
            bits: config.bits(),
        };
        row.set_bound(machine, tier);
        row
    }

    /// The larger of the times that the arithmetic and the reading take at least.
    fn set_bound(&mut self, machine: &Machine, tier: Tier) {
        let peak = if self.kernel.starts_with("i8") {
            machine.integers(self.threads, tier, self.bits)
        } else {
            machine.floats(self.threads, tier, self.kernel.starts_with("bf16"))
        };
        // Where sums of inputs are looked up, one addition takes the place of several products: counted as one.
        let looks_up = matches!(tier, Tier::Avx512Vnni | Tier::Avx512 | Tier::Scalar);
        let inputs = match self.bits {
            bits @ 1..=2 if looks_up && !self.kernel.starts_with("i8") => 4 / bits,
            _ => 1,
        };
        let ops = 2.0 * self.m as f64 * self.k as f64 * self.n as f64 / inputs as f64;
        let arithmetic = peak.map(|(name, rate)| (name, ops / rate * 1e3));
        let read = ("read", self.bytes as f64 / self.read_gbs / 1e6);
        let (bound, ms) = arithmetic.filter(|arithmetic| arithmetic.1 > read.1).unwrap_or(read);
        (self.bound, self.bound_fraction) = (bound, ms / self.ms);
    }

    fn has_bad_bound(&self) -> bool {
        self.bound_fraction > BAD_BOUND
    }

    /// One line of the table.
    pub fn print(&self) {
        let ops = 2.0 * self.m as f64 * self.k as f64 * self.n as f64;
        println!(
            "{:<7} {:>5} {:>5} {:<12} {:>3} {:>4} {:>5} {:>5} {:>10.4} {:>8.1} {:>7.2} {:<6} {:>6.2} {:>8.2} {:>8.1} {:>6}{}",
            self.kernel,
            self.group.map_or("-".into(), |group| group.to_string()),
            self.zero_point,
            self.tier,
            self.threads,
            self.m,
            self.k,
            self.n,
            self.ms,
            ops / self.ms / 1e6,
            self.bytes as f64 / self.ms / 1e6,
            self.bound,
            self.bound_fraction,
            self.ratio_to_float,
            self.ratio_to_stock,
            self.pairs,
            if self.has_bad_bound() { "  bad bound" } else { "" },
        );
    }
}

impl Report {
    /// Bounds again, with the best peaks of the whole run.
    pub fn new(machine: &Machine, mut rows: Vec<Row>) -> Self {
        for row in &mut rows {
            row.set_bound(machine, Tier::from_name(row.tier).expect("the name of a tier"));
        }
        let read_gbs = |threads| {
            machine.on(threads, || {
                machine.rotation as f64 / 8.0 / machine.read_seconds(machine.rotation / 8) / 1e9
            })
        };
        let threads: BTreeMap<_, _> = machine
            .threads()
            .map(|threads| {
                let (read_gbs, peaks) = (read_gbs(threads), machine.peaks(threads));
                (threads, Threads { read_gbs, peaks })
            })
            .collect();
        let most = threads.last_key_value().expect("at least one number of threads").1;
        let peak = |names: &[&str]| names.iter().find_map(|name| most.peaks.get(name).copied());
        let machine = MachineReport {
            cpu: cpu_name(),
            vnni_gops: peak(&["vnni_512", "vnni_256"]),
            fma_gflops: peak(&["fma_512", "fma_256", "fma_128", "fmla"]),
            dpbf16_gflops: peak(&["dpbf16_512"]),
            read_gbs: most.read_gbs,
            rotation_bytes: machine.rotation,
            threads,
        };
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        Self {
            date: date(),
            command: format!("linear {command}"),
            machine,
            rows,
        }
    }

    /// Prints the peaks.
    pub fn print_machine(&self) {
        for (threads, of_threads) in &self.machine.threads {
            let peaks = of_threads.peaks.iter().map(|(name, rate)| format!("{name} {rate:.0}"));
            let peaks = peaks.collect::<Vec<_>>().join(", ");
            println!(
                "{threads} threads: read {:.1} GB/s; GOP/s: {peaks}",
                of_threads.read_gbs
            );
        }
    }

    /// The rows that are faster than their bound: the bound is wrong.
    pub fn bad_bounds(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.has_bad_bound()).collect()
    }

    /// Writes the JSON file.
    pub fn write(&self, path: &str) {
        let text = serde_json::to_string_pretty(self).expect("numbers and text");
        std::fs::write(path, text + "\n").unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
