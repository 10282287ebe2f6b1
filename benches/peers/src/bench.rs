//! Shapes, data, clocks and rows: the same as in `benches/linear`.

use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// Weights repeat this many rows.
pub const BASE_ROWS: usize = 256;
const LARGE: &[usize] = &[1, 8, 32, 128, 512];
/// Sizes of the weights, each with the numbers of rows of activations that meet it.
pub const SHAPES: [(usize, usize, &[usize]); 6] = [
    (4096, 4096, LARGE),
    (4096, 11008, LARGE),
    (4096, 14336, LARGE),
    (2048, 5632, LARGE),
    (784, 256, &[64]),
    (384, 1536, &[256]),
];
const MAX_RUNS: usize = 15;
const MIN_RUNS: usize = 3;
/// A product that takes longer, in seconds, is run once.
const SLOW: f64 = 1.5;

/// One measured product.
#[derive(Serialize)]
pub struct Row {
    kernel: String,
    tier: String,
    threads: usize,
    m: usize,
    k: usize,
    n: usize,
    group: Option<usize>,
    ms: f64,
    runs: usize,
}

/// Settings of a run and what it has measured.
pub struct Bench {
    pub threads: usize,
    /// Bytes that weights rotate through.
    pub rotation: usize,
    /// Seconds a row, about.
    pub seconds: f64,
    pub only: Option<String>,
    pub rows: Vec<Row>,
}

/// One size: values of the first rows of the weight `[BASE_ROWS, K]`, activations, and the product of the first activation.
pub struct Problem {
    pub k: usize,
    pub n: usize,
    pub ms: &'static [usize],
    pub base: Vec<f32>,
    pub x: Vec<f32>,
}

impl Problem {
    pub fn new((k, n, ms): (usize, usize, &'static [usize])) -> Self {
        let mut state = 88_172_645_463_325_252u64;
        let mut random = |count| {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            };
            (0..count).map(|_| next()).collect::<Vec<f32>>()
        };
        let (base, x) = (random(BASE_ROWS * k), random(ms[ms.len() - 1] * k));
        Self { k, n, ms, base, x }
    }

    /// How often the base repeats.
    pub fn times(&self) -> usize {
        self.n / BASE_ROWS
    }

    /// The relative error of a row of an output against the product in f64.
    fn error(&self, row: usize, y: &[f32]) -> f64 {
        let x = &self.x[row * self.k..][..self.k];
        let (mut off, mut size) = (0.0, 0.0);
        for (col, got) in y.iter().enumerate() {
            let w = &self.base[col % BASE_ROWS * self.k..][..self.k];
            let want: f64 = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum();
            off += (*got as f64 - want).powi(2);
            size += want * want;
        }
        (off / size).sqrt()
    }
}

/// A kernel of a peer.
pub struct Kernel<'a> {
    pub peer: &'a str,
    /// `<activation><weight>`.
    pub dtypes: &'a str,
    pub group: Option<usize>,
    /// What the peer calls it.
    pub name: String,
    /// Largest relative error of an answer.
    pub error: f64,
}

impl Bench {
    /// Whether a kernel is wanted.
    pub fn wants(&self, peer: &str, dtypes: &str) -> bool {
        let label = format!("{peer} {dtypes}");
        self.only
            .as_ref()
            .is_none_or(|only| only.split(',').any(|only| label.contains(only)))
    }

    /// Copies of a weight of that many bytes.
    pub fn copies(&self, bytes: usize) -> usize {
        self.rotation.div_ceil(bytes)
    }

    /// Checks and times `run`, which multiplies the first `m` activations with the weight of a turn; `values` reads its output.
    pub fn row<T>(
        &mut self,
        problem: &Problem,
        kernel: &Kernel,
        m: usize,
        mut run: impl FnMut(usize) -> T,
        values: impl Fn(T) -> Vec<f32>,
    ) {
        let (k, n) = (problem.k, problem.n);
        let start = Instant::now();
        let y = run(0);
        let first = start.elapsed().as_secs_f64();
        let y = values(y);
        assert_eq!(y.len(), m * n, "{} {}", kernel.peer, kernel.dtypes);
        for row in [0, m - 1] {
            let error = problem.error(row, &y[row * n..][..n]);
            assert!(
                error <= kernel.error,
                "{} {}, row {row}: relative error {error}",
                kernel.peer,
                kernel.dtypes
            );
        }
        let mut turn = 0;
        let mut time = || {
            turn += 1;
            let start = Instant::now();
            drop(black_box(run(turn)));
            start.elapsed().as_secs_f64()
        };
        let mut times = vec![];
        if first > SLOW {
            times.push(first);
        } else {
            let once = time();
            if once > 0.2 {
                times.push(once);
            }
            let wanted = ((self.seconds / once) as usize).clamp(MIN_RUNS, MAX_RUNS) | 1;
            while times.len() < wanted {
                times.push(time());
            }
        }
        times.sort_by(f64::total_cmp);
        let ms = times[times.len() / 2] * 1e3;
        let group = kernel.group.map_or("-".into(), |group| group.to_string());
        println!(
            "{:<10} {:<6} {group:>5} {:>3} {m:>4} {k:>5} {n:>5} {ms:>10.4} ms {:>8.1} GOP/s  {}",
            kernel.peer,
            kernel.dtypes,
            self.threads,
            2.0 * (m * k * n) as f64 / ms / 1e6,
            kernel.name
        );
        self.rows.push(Row {
            kernel: format!("{} {}", kernel.dtypes, kernel.peer),
            tier: kernel.name.clone(),
            threads: self.threads,
            m,
            k,
            n,
            group: kernel.group,
            ms,
            runs: times.len(),
        });
    }
}

/// Symmetric codes of `bits` bits in `limit`-sized steps, and one scale for each run of `group` values.
pub fn quantize(values: &[f32], group: usize, limit: f32) -> (Vec<i8>, Vec<f32>) {
    let mut codes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / group);
    for run in values.chunks_exact(group) {
        let scale = run.iter().fold(0f32, |max, x| max.max(x.abs())) / limit;
        codes.extend(
            run.iter()
                .map(|x| (x / scale).round_ties_even().clamp(-limit, limit) as i8),
        );
        scales.push(scale);
    }
    (codes, scales)
}
