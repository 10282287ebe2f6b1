//! candle, rten-gemm and tract-linalg on the shapes of `benches/linear`.
//!
//!     cargo run --release -- --threads N [--only TEXT,...] [--n N,...] [--seconds N] [--json FILE]
//!
//! Times are medians; weights rotate through 256 MB, or twice the last cache where that is more; answers are checked first.
//! Quantizing the activation is part of every time. `--only` keeps what holds a text of `<peer> <dtypes>`, such as `rten-gemm i8i8`;
//! `--n` keeps the sizes of these N.

mod bench;
mod candle;
mod rten;
mod tract;

use bench::{Bench, Problem, SHAPES};

fn main() {
    let mut bench = Bench {
        threads: 0,
        rotation: (256 << 20).max(2 * last_level_cache()),
        seconds: 0.3,
        only: None,
        rows: vec![],
    };
    let mut json = None;
    let mut sizes: Option<Vec<usize>> = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => bench.threads = value.parse().expect("a number of threads"),
            "--only" => bench.only = Some(value),
            "--seconds" => bench.seconds = value.parse().expect("seconds a row"),
            "--n" => sizes = Some(value.split(',').map(|n| n.parse().expect("a size")).collect()),
            "--json" => json = Some(value),
            _ => panic!("unknown argument {argument}; see the top of src/main.rs"),
        }
    }
    assert!(bench.threads > 0, "--threads is missing");
    // SAFETY: no other thread runs yet. candle reads these when it starts its pools.
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", bench.threads.to_string());
        std::env::set_var("CANDLE_NUM_THREADS", bench.threads.to_string());
    }
    for shape in SHAPES
        .into_iter()
        .filter(|shape| sizes.as_ref().is_none_or(|sizes| sizes.contains(&shape.1)))
    {
        let problem = Problem::new(shape);
        rten::run(&mut bench, &problem);
        candle::run(&mut bench, &problem);
        tract::run(&mut bench, &problem);
        if let Some(path) = &json {
            write(path, &bench);
        }
    }
}

/// Writes what has been measured so far.
fn write(path: &str, bench: &Bench) {
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let report = serde_json::json!({
        "command": format!("peers {command}"),
        "peers": "rten-gemm 0.27.0, candle-core 0.11.1, tract-linalg 0.23.9",
        "machine": { "cpu": cpu_name() },
        "rows": bench.rows,
    });
    let text = serde_json::to_string_pretty(&report).expect("numbers and text");
    std::fs::write(path, text + "\n").expect("the file can be written");
}

/// Bytes of the largest cache, or 0 where the system does not say.
fn last_level_cache() -> usize {
    let size = |index| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .strip_suffix('K')?
            .parse::<usize>()
            .ok()
    };
    (0..5).filter_map(size).max().unwrap_or(0) << 10
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or("unknown".into(), |name| {
        name.trim_start_matches([' ', '\t', ':']).to_string()
    })
}
