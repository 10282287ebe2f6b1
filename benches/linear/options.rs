//! Arguments.

use burn_quantized::kernels::cpu::Tier;
use std::time::Duration;

/// What to measure, and for how long.
pub struct Options {
    /// The tier that meets every shape.
    pub tier: Tier,
    /// Tiers that meet the one shape of [`crate::configs::OTHER_TIERS`].
    pub others: Vec<Tier>,
    pub threads: Vec<usize>,
    /// Only rows whose label holds all parts, joined by `+`, of one of these.
    pub only: Vec<String>,
    /// Most pairs of a row.
    pub runs: usize,
    /// What the run aims to take.
    pub time: Duration,
    pub json: Option<String>,
}

const HELP: &str = "see the top of benches/linear/main.rs";

impl Options {
    /// # Panics
    /// If an argument is not known or not complete.
    pub fn from_arguments() -> Self {
        let available = Tier::available();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let mut options = Self {
            tier: available[0],
            others: vec![],
            threads: if cores > 1 { vec![1, 2] } else { vec![1] },
            only: vec![],
            runs: 15,
            time: Duration::from_secs(18 * 60),
            json: None,
        };
        let mut all = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .unwrap_or_else(|| panic!("{argument} needs a value; {HELP}"))
            };
            match argument.as_str() {
                "--bench" => {}
                "--tier" => options.tier = tier(&value()),
                "--tiers" => match value().as_str() {
                    "auto" => {}
                    "all" => all = true,
                    names => options.others = names.split(',').map(tier).collect(),
                },
                "--threads" => options.threads = value().split(',').map(number).collect(),
                "--only" => options.only = value().split(',').map(String::from).collect(),
                "--runs" => options.runs = number(&value()),
                "--minutes" => options.time = Duration::from_secs_f64(60.0 * value().parse::<f64>().expect("minutes")),
                "--json" => options.json = Some(value()),
                other => panic!("unknown argument {other}; {HELP}"),
            }
        }
        if all {
            options.others = available;
        }
        options.others.retain(|tier| *tier != options.tier);
        options
    }

    /// Whether a row is wanted.
    pub fn wants(&self, label: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|only| only.split('+').all(|part| label.contains(part)))
    }
}

fn number(text: &str) -> usize {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.unwrap_or_else(|| panic!("{text} is not a number above 0; {HELP}"))
}

fn tier(name: &str) -> Tier {
    let tier = Tier::from_name(name).filter(|tier| tier.is_available());
    let available = Tier::available();
    tier.unwrap_or_else(|| panic!("this machine cannot run the tier {name}; it can run {available:?}"))
}
