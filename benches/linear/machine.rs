//! The machine in this run: its threads, the peaks of its instructions and how fast it reads memory.

use crate::isa::{Line, READERS, Reader, UNITS, read};
use crate::timing::{median, seconds};
use burn_quantized::kernels::cpu::Tier;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Least bytes that weights rotate through.
const ROTATION_BYTES: usize = 256 << 20;
/// Seconds that one reading of a peak takes, about.
const PEAK_SECONDS: f64 = 0.004;

/// Pools of threads, peaks and the memory that readers read.
pub struct Machine {
    /// One pool for each number of threads.
    pools: Vec<(usize, ThreadPool)>,
    /// Best seen operations a second, for each number of threads and unit.
    peaks: Mutex<BTreeMap<(usize, &'static str), f64>>,
    /// Bytes that weights rotate through.
    pub rotation: usize,
    memory: Vec<Line>,
    /// Where the next reader starts, in lines.
    turn: AtomicUsize,
}

impl Machine {
    /// Measures the peaks for each number of threads.
    pub fn new(threads: &[usize]) -> Self {
        let pool = |threads| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads start")
        };
        let rotation = ROTATION_BYTES.max(2 * last_level_cache());
        let machine = Self {
            pools: threads.iter().map(|threads| (*threads, pool(*threads))).collect(),
            peaks: Mutex::default(),
            rotation,
            memory: vec![Line([1; 8]); rotation / size_of::<Line>()],
            turn: AtomicUsize::new(0),
        };
        (0..5).for_each(|_| machine.measure_peaks());
        machine
    }

    /// The numbers of threads.
    pub fn threads(&self) -> impl Iterator<Item = usize> + '_ {
        self.pools.iter().map(|(threads, _)| *threads)
    }

    /// Runs inside the pool of that many threads, where kernels and Flex take their threads from.
    pub fn on<T: Send>(&self, threads: usize, run: impl FnOnce() -> T + Send) -> T {
        let (_, pool) = self
            .pools
            .iter()
            .find(|pool| pool.0 == threads)
            .expect("a pool of that size");
        pool.install(run)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(usize, &'static str), f64>> {
        self.peaks.lock().expect("no thread panicked")
    }

    /// Measures all peaks again; the best reading stays.
    pub fn measure_peaks(&self) {
        for unit in UNITS.iter().filter(|unit| (unit.available)()) {
            let once = seconds(|| (unit.run)(1000)) / 1000.0;
            let iterations = (PEAK_SECONDS / once) as u64;
            for (threads, pool) in &self.pools {
                let time = seconds(|| pool.broadcast(|_| (unit.run)(iterations)));
                let rate = *threads as f64 * iterations as f64 * unit.ops / time;
                let mut peaks = self.known();
                let best = peaks.entry((*threads, unit.name)).or_insert(rate);
                *best = best.max(rate);
            }
        }
    }

    /// The fastest of these units in operations a second, with the name of its bound.
    fn fastest(&self, threads: usize, units: &[&str]) -> Option<(&'static str, f64)> {
        let peaks = self.known();
        let known = UNITS.iter().filter(|unit| units.contains(&unit.name));
        known
            .filter_map(|unit| Some((unit.bound, *peaks.get(&(threads, unit.name))?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The peak of integer products on a tier, with weights of that many bits.
    pub fn integers(&self, threads: usize, tier: Tier, bits: u32) -> Option<(&'static str, f64)> {
        let narrow = bits <= 6;
        self.fastest(
            threads,
            match tier {
                Tier::Avx512Vnni => &["vnni_512"],
                Tier::AvxVnni => &["vnni_256"],
                Tier::Avx512 if narrow => &["madd_512", "maddubs_512", "madd_512_narrow"],
                Tier::Avx512 => &["madd_512", "maddubs_512"],
                Tier::Avx2 if narrow => &["madd_256", "maddubs_256", "madd_256_narrow"],
                Tier::Avx2 => &["madd_256", "maddubs_256"],
                Tier::NeonI8mm => &["sdot", "smmla"],
                Tier::NeonDot => &["sdot"],
                Tier::Scalar => &["madd_128", "sdot"],
            },
        )
    }

    /// The peak of float products on a tier; bf16 activations may take the faster of `dpbf16` and FMA.
    pub fn floats(&self, threads: usize, tier: Tier, bf16: bool) -> Option<(&'static str, f64)> {
        self.fastest(
            threads,
            match tier {
                Tier::Avx512Vnni | Tier::Avx512 if bf16 => &["fma_512", "dpbf16_512"],
                Tier::Avx512Vnni | Tier::Avx512 => &["fma_512"],
                Tier::AvxVnni | Tier::Avx2 => &["fma_256"],
                Tier::NeonI8mm | Tier::NeonDot => &["fmla"],
                Tier::Scalar => &["fma_128", "fmla"],
            },
        )
    }

    /// Every peak of that many threads in 10^9 operations a second.
    pub fn peaks(&self, threads: usize) -> BTreeMap<&'static str, f64> {
        let peaks = self.known();
        let of_threads = peaks.iter().filter(|((t, _), _)| *t == threads);
        of_threads.map(|((_, name), rate)| (*name, rate / 1e9)).collect()
    }

    /// Seconds in which the fastest reader takes `bytes`: the median of its passes, each over bytes that no cache holds. Runs on the
    /// threads of the current pool.
    pub fn read_seconds(&self, bytes: usize) -> f64 {
        let lines = bytes.div_ceil(size_of::<Line>()).clamp(1, self.memory.len());
        let of_reader = |reader| {
            let mut passes = vec![];
            while passes.len() < 3 || (passes.len() < 25 && passes.iter().sum::<f64>() < 5e-4) {
                let mut start = self.turn.load(Ordering::Relaxed);
                if start + lines > self.memory.len() {
                    start = 0;
                }
                self.turn.store(start + lines, Ordering::Relaxed);
                let part = &self.memory[start..start + lines];
                passes.push(seconds(|| read_split(reader, part, rayon::current_num_threads())));
            }
            median(passes)
        };
        READERS.into_iter().map(of_reader).fold(f64::INFINITY, f64::min)
    }
}

/// Each thread reads its share.
fn read_split(reader: Reader, lines: &[Line], threads: usize) -> u64 {
    if threads <= 1 {
        return black_box(read(reader, lines));
    }
    let (one, rest) = lines.split_at(lines.len() / threads);
    let (a, b) = rayon::join(
        || black_box(read(reader, one)),
        || read_split(reader, rest, threads - 1),
    );
    a ^ b
}

/// Bytes of the largest cache, or 0 where the system does not say.
fn last_level_cache() -> usize {
    let size = |index| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()
    };
    (0..5).filter_map(size).max().unwrap_or(0) << 10
}

/// The processor's name, where the system says.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or("unknown".into(), |name| {
        name.trim_start_matches([' ', '\t', ':']).to_string()
    })
}
