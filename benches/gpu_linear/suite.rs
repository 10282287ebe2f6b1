//! The run: sizes, then stock Burn, then every quantization.

use crate::bounds::Bounds;
use crate::check::check;
use crate::configs::{Config, configs, label};
use crate::date::date;
use crate::device::{Matrix, burn_dtype, has, sync};
use crate::marker::mark;
use crate::options::{Options, Stock};
use crate::product::Product;
use crate::report::{Machine, Report, Row};
use crate::stock::Kind;
use crate::timing::{Effort, Times, time};
use crate::weight::Weight;
use burn::tensor::Distribution;
use burn_cubecl::CubeRuntime;
use burn_quantized::dtype::FloatDtype;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Launches of a row between its markers.
const MARKED: usize = 6;

/// Everything of a run.
pub struct Suite<'a, R: CubeRuntime> {
    options: &'a Options,
    device: R::CubeDevice,
    bounds: Option<Bounds>,
    effort: Effort,
    report: Report,
    end: Instant,
    rows: usize,
    left_out: usize,
    /// Whether integer products must equal the reference.
    exact: bool,
    /// Seconds of stock rows by kind, dtype, M, K, N.
    stock: HashMap<String, f64>,
}

impl<'a, R: CubeRuntime> Suite<'a, R> {
    pub fn new(backend: &'static str, name: String, device: R::CubeDevice, options: &'a Options) -> Self {
        let end = Instant::now() + options.time;
        let bounds = (!options.ncu).then(|| Bounds::measure::<R>(&device, options).expect("a copy runs on the device"));
        let machine = Machine {
            device: name,
            backend,
            date: date(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            rotation: options.rotation(),
            bounds,
        };
        Self {
            report: Report::new(options.json.as_deref(), &machine),
            effort: Effort::new(options.tiny),
            exact: backend == "cuda",
            stock: HashMap::new(),
            options,
            device,
            bounds,
            end,
            rows: 0,
            left_out: 0,
        }
    }

    /// Measures everything that is wanted and fits the time.
    pub fn run(mut self) -> ExitCode {
        for (k, n) in self.options.shapes() {
            let wanted: Vec<(Config, Vec<usize>)> = configs()
                .into_iter()
                .map(|config| (config, self.wanted(&config, k, n)))
                .filter(|(_, ms)| !ms.is_empty())
                .collect();
            let dtypes: Vec<_> = [FloatDtype::F16, FloatDtype::BF16]
                .into_iter()
                .filter(|dtype| wanted.iter().any(|(config, _)| config.dtype == *dtype))
                .collect();
            for dtype in dtypes {
                if !has::<R>(&self.device, dtype) {
                    println!("skipped: this device has no {dtype} tensors");
                    continue;
                }
                let of_dtype = || wanted.iter().filter(|(config, _)| config.dtype == dtype);
                let mut ms: Vec<usize> = of_dtype().flat_map(|(_, ms)| ms.clone()).collect();
                ms.sort_unstable();
                ms.dedup();
                let xs: HashMap<usize, Matrix<R>> = ms.iter().map(|m| (*m, self.activation(*m, k, dtype))).collect();
                self.stock(dtype, (k, n), &ms, &xs);
                for (config, ms) in of_dtype() {
                    self.config(config, (k, n), ms, &xs);
                }
            }
        }
        if self.left_out > 0 {
            println!("{} rows were left out: the time was over", self.left_out);
        }
        if self.report.wrong > 0 {
            println!("{} rows are wrong", self.report.wrong);
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    fn wanted(&self, config: &Config, k: usize, n: usize) -> Vec<usize> {
        let wants = |m: &usize| {
            self.options.wants(&config.label(*m, k, n)) && (!self.options.goals || config.is_goal(*m, k, n))
        };
        self.options.rows().into_iter().filter(wants).collect()
    }

    fn activation(&self, m: usize, k: usize, dtype: FloatDtype) -> Matrix<R> {
        Matrix::random([m, k], Distribution::Uniform(-1.0, 1.0), &self.device).cast(burn_dtype(dtype))
    }

    fn is_over(&mut self, rows: usize) -> bool {
        let over = Instant::now() >= self.end;
        self.left_out += if over { rows } else { 0 };
        over
    }

    /// Stock Burn's rows of one size and dtype.
    fn stock(&mut self, dtype: FloatDtype, (k, n): (usize, usize), ms: &[usize], xs: &HashMap<usize, Matrix<R>>) {
        for kind in Kind::ALL {
            let wanted = match kind {
                Kind::Float => self.options.stock >= Stock::Float,
                _ => self.options.stock == Stock::All,
            };
            if !wanted || self.is_over(ms.len()) {
                continue;
            }
            let weights = guarded(|| {
                let weights = kind.weights::<R>((k, n), dtype, self.options.rotation(), &self.device);
                sync::<R>(&self.device).map(|()| weights)
            });
            for m in ms {
                if self.is_over(1) {
                    continue;
                }
                let x = &xs[m];
                let bytes = kind.bytes(k * n) + 2 * m * (k + n);
                let times = weights.as_ref().map_err(Clone::clone).and_then(|weights| {
                    guarded(|| self.time(|turn| x.clone().matmul(weights[turn % weights.len()].clone())))
                });
                if let Ok(Some(times)) = &times {
                    self.stock.insert(label(kind.name(), dtype, *m, k, n), times.wall);
                }
                let row = self.row(
                    kind.name(),
                    dtype,
                    [*m, k, n],
                    (bytes, false),
                    "Tensor::matmul".into(),
                    times,
                );
                self.report.add(&row);
            }
        }
    }

    /// The rows of a quantization on one size.
    fn config(&mut self, config: &Config, (k, n): (usize, usize), ms: &[usize], xs: &HashMap<usize, Matrix<R>>) {
        if self.is_over(ms.len()) {
            return;
        }
        let weight = guarded(|| Weight::<R>::new(config, (k, n), self.options.rotation(), &self.device));
        for m in ms {
            if self.is_over(1) {
                continue;
            }
            let x = &xs[m];
            let times = weight
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|weight| guarded(|| self.product(config, weight, x)));
            self.report.wrong += usize::from(times.is_err());
            let weight = weight.as_ref().ok();
            let bytes = weight.map_or(0, Weight::bytes) + 2 * m * (k + n);
            let kernel = weight.map_or(String::new(), |weight| weight.copies[0].kernel_name(*m));
            let int8 = config.activation.is_quantized();
            let row = self.row(config.name, config.dtype, [*m, k, n], (bytes, int8), kernel, times);
            self.report.add(&row);
        }
    }

    /// Checks and times a product.
    fn product(&self, config: &Config, weight: &Weight<R>, x: &Matrix<R>) -> Result<Option<Times>, String> {
        let product = Product::new(x, &weight.copies[0], config.alone)?;
        if !self.options.ncu {
            let y = product.launch(&weight.copies[0]);
            check(config, weight, x, y, self.exact, &self.device)?;
        }
        self.time(|turn| product.launch(&weight.copies[turn % weight.copies.len()]))
    }

    /// Times launches, or marks some for a profiler.
    fn time<T>(&self, mut launch: impl FnMut(usize) -> T) -> Result<Option<Times>, String> {
        let wait = || sync::<R>(&self.device);
        if !self.options.ncu {
            return time(self.effort, wait, |turn| drop(launch(turn))).map(Some);
        }
        (0..2).for_each(|turn| drop(launch(turn)));
        wait()?;
        mark::<R>(&self.device, self.rows, false);
        (0..MARKED).for_each(|turn| drop(launch(turn)));
        mark::<R>(&self.device, self.rows, true);
        wait().map(|()| None)
    }

    fn row(
        &mut self,
        config: &'static str,
        dtype: FloatDtype,
        [m, k, n]: [usize; 3],
        (bytes, int8): (usize, bool),
        kernel: String,
        times: Result<Option<Times>, String>,
    ) -> Row {
        let row = self.rows;
        self.rows += 1;
        let (times, error) = match times {
            Ok(times) => (times, None),
            Err(error) => (None, Some(error)),
        };
        let operations = 2.0 * m as f64 * k as f64 * n as f64;
        let bound = self.bounds.map(|bounds| bounds.of(bytes, operations, int8));
        let ratio = |kind: Kind| {
            let stock = self.stock.get(&label(kind.name(), dtype, m, k, n))?;
            Some(stock / times?.wall)
        };
        let us = |seconds: f64| seconds * 1e6;
        Row {
            row,
            config,
            dtype: dtype.to_string(),
            m,
            k,
            n,
            kernel,
            wall_us: times.map(|times| us(times.wall)),
            device_us: None,
            submit_us: times.map(|times| us(times.submit)),
            bytes,
            int8,
            bound_us: bound.map(|bound| us(bound.0)),
            bound: bound.map(|bound| bound.1),
            ratio_to_float: ratio(Kind::Float),
            ratio_to_stock_q8: ratio(Kind::Q8),
            ratio_to_stock_q4: ratio(Kind::Q4),
            launches: times.map_or(0, |times| times.launches),
            runs: times.map_or(0, |times| times.runs),
            error,
        }
    }
}

/// What `run` gives; a panic in it is an error with its message, so that one row cannot end the others.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}
