//! Quantized linears against the limits of the machine, Flex's float product and stock Burn's quantized linear, in one run.
//!
//!     cargo bench --features ndarray --bench linear -- [--tier NAME] [--tiers auto|all|NAME,...] [--threads 1,2] [--only TEXT,...]
//!                                                      [--runs N] [--minutes N] [--json FILE]
//!
//! The default run measures every kernel and shape on the best tier (or on that of `--tier`), with 1 and 2 threads, and aims at
//! `--minutes` (18); the JSON file is written after each size. `--tiers all` adds M = 1 and 128 at 4096×4096 on the other tiers. `--only` keeps the rows whose label, such as
//! `i8i4 g128 none avx2 t1 m1 k4096 n4096 `, holds one of the texts, or all parts of one such as `i8i4+m1 `.
//!
//! - What is timed is what a layer calls: Flex tensors in, Flex tensor out, quantizing the activation included. Scales and float zero
//!   points are bf16. The answer of every row is checked against the scalar reference first.
//! - `ms` is the median of runs that alternate with Flex's float product on the same threads; `ratio_to_float` is the median of the
//!   pairs, above 1 where the quantized linear is faster. A float product of 50 ms or more serves three runs beside it; stock Burn's
//!   Q8S linear (block 32) is timed once a shape.
//! - Weights rotate through 256 MB, or twice the last cache where that is more, at every M.
//! - `bound` is what takes longest at least: reading the packed bytes (`read`), or the arithmetic at the peak that the same run
//!   measures in registers: `vnni`, `fma`, `dpbf16`; `madd`, the best exact sequence of multiplications and additions, on tiers
//!   without VNNI. bf16 activations are held to the faster of `dpbf16` and `fma`. The read bound of a row is the fastest of five
//!   readers (plain, prefetching, several streams) over the same bytes, threads and rotation, just before and after the row.
//! - A row above 1.05 of its bound has a bad bound; the bench then ends with an error.

#[cfg(not(feature = "flex"))]
compile_error!("the bench compares with Flex: keep the feature `flex` on");

mod baseline;
mod configs;
mod date;
mod isa;
mod machine;
mod options;
mod report;
mod row;
mod timing;

use baseline::Baseline;
use configs::{Config, OTHER_TIERS, SHAPES, configs};
use machine::{Machine, cpu_name};
use options::Options;
use report::{Place, Report, Row, print_head};
use row::{Packed, measure};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let options = Options::from_arguments();
    let machine = Machine::new(&options.threads);
    println!("{}; weights rotate through {} MB", cpu_name(), machine.rotation >> 20);
    Report::new(&machine, vec![]).print_machine();
    print_head();
    let options = &options;
    let jobs = |shape| {
        configs()
            .into_iter()
            .map(move |config| (config, places(options, &config, shape)))
    };
    let mut clock = Clock {
        end: Instant::now() + options.time,
        left: SHAPES.iter().flat_map(jobs).map(|(_, places)| places.len()).sum(),
    };
    let mut rows = vec![];
    for shape in &SHAPES {
        let jobs: Vec<_> = jobs(shape).filter(|(_, places)| !places.is_empty()).collect();
        if jobs.is_empty() {
            continue;
        }
        let (k, n, ms) = *shape;
        let baseline = Baseline::new(k, n, ms[ms.len() - 1], machine.rotation);
        for (config, places) in jobs {
            machine.measure_peaks();
            let base = config.quantize(&baseline.values);
            for of_tier in places.chunk_by(|a, b| a.tier == b.tier) {
                let packed = Packed::new(config.pack(&base, n, of_tier[0].tier), base.clone(), machine.rotation);
                for place in of_tier {
                    let limits = (options.runs, clock.next_row());
                    let times = machine.on(place.threads, || {
                        measure(&machine, &baseline, &config, &packed, place.m, limits)
                    });
                    let row = Row::new(&machine, &config, *place, packed.bytes, times);
                    row.print();
                    rows.push(row);
                }
            }
        }
        if let Some(path) = &options.json {
            Report::new(&machine, rows.clone()).write(path);
        }
    }
    finish(&Report::new(&machine, rows))
}

/// The rows of a config on one shape that are wanted, those of a tier together.
fn places(options: &Options, config: &Config, (k, n, ms): &(usize, usize, &[usize])) -> Vec<Place> {
    let mut out = vec![];
    for tier in [options.tier].iter().chain(&options.others) {
        for threads in &options.threads {
            for m in *ms {
                let place = Place {
                    tier: *tier,
                    threads: *threads,
                    m: *m,
                    k: *k,
                    n: *n,
                };
                let here = *tier == options.tier || OTHER_TIERS.contains(&(*m, *k, *n));
                if here && options.wants(&place.label(config)) {
                    out.push(place);
                }
            }
        }
    }
    out
}

/// Shares out the time that is left.
struct Clock {
    end: Instant,
    left: usize,
}

impl Clock {
    /// Seconds for the next row.
    fn next_row(&mut self) -> f64 {
        let seconds = self.end.saturating_duration_since(Instant::now()).as_secs_f64();
        self.left -= 1;
        // A part goes to packing and to readings of the memory.
        0.8 * seconds / (self.left + 1) as f64
    }
}

/// Prints the machine again, and fails where a bound was wrong.
fn finish(report: &Report) -> ExitCode {
    report.print_machine();
    let bad = report.bad_bounds();
    if bad.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "{} rows are faster than their bound by more than 5 %: the bound is wrong",
        bad.len()
    );
    bad.into_iter().for_each(Row::print);
    ExitCode::FAILURE
}
