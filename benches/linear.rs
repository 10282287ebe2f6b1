//! Quantized linears against Flex's float product and stock Burn's quantized linear, in the same run on the same machine.
//!
//!     cargo bench --features ndarray --bench linear -- [--full] [--tiers all|NAME,...] [--only TEXT] [--runs N]
//!
//! Every row checks its answer before it is timed. A time is the median of runs that alternate with the float product; the ratio is
//! the median of the pairs, above 1 where the quantized linear is faster. Weights rotate through 256 MB of floats.

use burn::tensor::module::linear;
use burn::tensor::quantization::{BlockSize, QuantLevel, QuantScheme, QuantValue};
use burn::tensor::{Tensor, TensorData};
use burn_flex::Flex;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::cpu::{CpuWeight, Preference, Tier};
use burn_quantized::spec::{
    ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType, ZeroPointDomain,
};
use burn_quantized::tensor::{AffineQuantizedTensor, reference_linear};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes of float weights that runs rotate through, so that no cache keeps them.
const ROTATION_BYTES: usize = 256 << 20;

/// Copies of a small weight.
const MAX_COPIES: usize = 64;

type Matrix = Tensor<Flex, 2>;

/// A quantization worth a row.
struct Config {
    name: String,
    spec: AffineSpec,
    activation: ActivationQuantization,
    group: Option<usize>,
}

fn configs() -> Vec<Config> {
    let spec = |dtype, granularity| AffineSpec::new(dtype, MappingType::Symmetric, granularity);
    let grouped = |group: Option<usize>| group.map_or(Granularity::PerAxis(0), Granularity::PerGroup);
    let mut out = vec![Config {
        name: "int8 dynamic".into(),
        spec: spec(IntDtype::INT8, Granularity::PerAxis(0)),
        activation: ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
        group: None,
    }];
    for group in [Some(32), Some(128)] {
        out.push(Config {
            name: "int8 dynamic x int4".into(),
            spec: spec(IntDtype::INT4, grouped(group)),
            activation: ActivationQuantization::int8_dynamic_asymmetric(),
            group,
        });
    }
    for bits in 1..=8 {
        for group in [None, Some(32)] {
            out.push(Config {
                name: format!("int{bits} weight-only"),
                spec: spec(IntDtype::int(bits).unwrap(), grouped(group)),
                activation: ActivationQuantization::None,
                group,
            });
        }
    }
    for group in [Some(32), Some(128)] {
        out.push(Config {
            name: "tinygemm int4".into(),
            spec: AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, grouped(group))
                .with_zero_point_domain(ZeroPointDomain::Float)
                .with_eps(1e-6),
            activation: ActivationQuantization::None,
            group,
        });
    }
    out
}

struct Options {
    full: bool,
    tiers: Vec<Tier>,
    only: Option<String>,
    runs: usize,
}

fn options() -> Options {
    let best = Tier::available()[0];
    let mut options = Options {
        full: false,
        tiers: vec![best],
        only: None,
        runs: 15,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--full" => options.full = true,
            "--bench" => {}
            "--only" => options.only = Some(value()),
            "--runs" => options.runs = value().parse().expect("--runs takes a number"),
            "--tiers" => {
                let names = value();
                options.tiers = match names.as_str() {
                    "all" => Tier::available(),
                    names => names.split(',').map(tier).collect(),
                }
            }
            other => panic!("unknown argument {other}; see the top of benches/linear.rs"),
        }
    }
    options
}

fn tier(name: &str) -> Tier {
    let tier = Tier::from_name(name).filter(|tier| tier.is_available());
    tier.unwrap_or_else(|| {
        panic!(
            "this machine cannot run the tier {name}; it can run {:?}",
            Tier::available()
        )
    })
}

fn shapes(full: bool) -> Vec<(usize, usize, usize)> {
    let mut out: Vec<_> = [1, 32, 256].map(|m| (m, 2048, 2048)).into();
    out.extend([
        (1, 256, 10),
        (256, 256, 10),
        (1, 1024, 256),
        (256, 1024, 256),
        (64, 784, 256),
        (256, 384, 1536),
    ]);
    if full {
        for (k, n) in [(4096, 4096), (4096, 11008), (4096, 14336), (2048, 5632)] {
            out.extend([1, 8, 32, 128, 512].map(|m| (m, k, n)));
        }
    }
    out
}

fn random(rng: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// Float weights `[K, N]` of one shape, rotated, and one activation.
struct Float {
    rows: usize,
    x: Vec<f32>,
    activation: Matrix,
    weights: Vec<Matrix>,
}

impl Float {
    fn run(&self, turn: usize) -> Duration {
        let weight = self.weights[turn % self.weights.len()].clone();
        time(|| linear(self.activation.clone(), weight, None))
    }
}

fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("times are numbers"));
    values[values.len() / 2]
}

/// A few rows and outputs against the scalar reference.
fn check(
    weight: &AffineQuantizedTensor,
    packed: &CpuWeight,
    tier: Tier,
    activation: &ActivationQuantization,
    x: &[f32],
    k: usize,
) {
    let rows = (x.len() / k).min(2);
    let n = weight.shape()[0];
    let mut y = vec![0.0; rows * n];
    packed.linear_on(tier, &x[..rows * k], rows, FloatDtype::F32, None, &mut y);
    let want = reference_linear(&x[..rows * k], rows, FloatDtype::F32, weight, activation, None);
    let values = weight.dequantize(FloatDtype::F32);
    for (i, (got, want)) in y.iter().zip(&want).enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &values[i % n * k..][..k]);
        let size: f32 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
        let bound = if activation.is_quantized() {
            0.0
        } else {
            2.0 * k as f32 * f32::EPSILON * size
        };
        assert!(
            (got - want).abs() <= bound,
            "{tier}: output {i} is {got}, not {want} ± {bound}"
        );
    }
}

fn main() {
    let options = options();
    let threads = rayon::current_num_threads();
    println!(
        "{threads} threads, tiers {:?}, medians of {} pairs",
        options.tiers, options.runs
    );
    println!(
        "{:<22} {:>5} {:<24} {:>4} {:>5} {:>5} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "config", "group", "kernel", "M", "K", "N", "ms", "float ms", "GOP/s", "GB/s", "x float", "x stock"
    );
    let mut rng = StdRng::seed_from_u64(1);
    for (m, k, n) in shapes(options.full) {
        let copies = ROTATION_BYTES.div_ceil(k * n * 4).min(MAX_COPIES);
        let device = Default::default();
        let values = random(&mut rng, n * k);
        let x = random(&mut rng, m * k);
        // Laid out [K, N] as `nn::Linear` keeps it; each copy is its own memory.
        let transposed = (0..k * n).map(|i| values[i % n * k + i / n]).collect();
        let weight = Matrix::from_data(TensorData::new::<f32, _>(transposed, [k, n]), &device);
        let weights = (0..copies).map(|i| weight.clone() * (1.0 + i as f32)).collect();
        let activation = Matrix::from_data(TensorData::new(x.clone(), [m, k]), &device);
        let stock_scheme = QuantScheme::default()
            .with_value(QuantValue::Q8S)
            .with_level(QuantLevel::Block(BlockSize::new([32])));
        let stock = weight.clone().quantize_dynamic(&stock_scheme);
        let stock_time = median(
            (0..3)
                .map(|_| time(|| linear(activation.clone(), stock.clone(), None)))
                .collect::<Vec<_>>(),
        );
        let float = Float {
            rows: m,
            x,
            activation,
            weights,
        };
        for config in configs() {
            let label = format!("{} g{}", config.name, config.group.unwrap_or(k));
            if options.only.as_ref().is_some_and(|only| !label.contains(only.as_str())) {
                continue;
            }
            let quantized = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &[n, k], &config.spec).unwrap();
            for tier in &options.tiers {
                row(&options, &config, &quantized, *tier, &float, stock_time);
            }
        }
    }
}

fn row(options: &Options, config: &Config, weight: &AffineQuantizedTensor, tier: Tier, float: &Float, stock: Duration) {
    let pin = Preference::Specific(tier.name().into());
    let packed = CpuWeight::pack_for(weight.clone(), config.activation, &pin)
        .unwrap()
        .expect("a kernel serves it");
    let ([n, k], m) = (packed.shape(), float.rows);
    check(weight, &packed, tier, &config.activation, &float.x, k);
    let bytes = packed.bytes();
    let packed: Vec<_> = float.weights.iter().map(|_| packed.clone()).collect();
    let mut pairs = Vec::new();
    for turn in 0..options.runs + 2 {
        let float_time = float.run(turn);
        let weight = &packed[turn % packed.len()];
        let quantized = time(|| {
            let mut y = vec![0.0; m * n];
            weight.linear(&float.x, m, FloatDtype::F32, None, &mut y);
            y
        });
        if turn >= 2 {
            pairs.push((quantized.as_secs_f64(), float_time.as_secs_f64()));
        }
    }
    let seconds = median(pairs.iter().map(|pair| pair.0).collect());
    let float_seconds = median(pairs.iter().map(|pair| pair.1).collect());
    println!(
        "{:<22} {:>5} {:<24} {m:>4} {k:>5} {n:>5} {:>10.3} {:>10.3} {:>9.1} {:>9.2} {:>9.2} {:>9.2}",
        config.name,
        config.group.map_or("-".into(), |group| group.to_string()),
        packed[0].kernel_name(),
        seconds * 1e3,
        float_seconds * 1e3,
        2.0 * (m * n * k) as f64 / seconds / 1e9,
        bytes as f64 / seconds / 1e9,
        median(pairs.iter().map(|pair| pair.1 / pair.0).collect::<Vec<f64>>()),
        stock.as_secs_f64() / seconds,
    );
}
