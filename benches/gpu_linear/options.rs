//! Arguments.

use std::time::Duration;

/// What to measure, and how.
pub struct Options {
    pub backend: Option<String>,
    /// Only the rows of the goal table.
    pub goals: bool,
    /// Only rows whose label holds all parts, joined by `+`, of one of these.
    only: Vec<String>,
    m: Option<Vec<usize>>,
    shapes: Option<Vec<(usize, usize)>>,
    pub stock: Stock,
    pub time: Duration,
    pub json: Option<String>,
    pub ncu: bool,
    pub tiny: bool,
}

/// What of stock Burn is timed.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub enum Stock {
    None,
    Float,
    All,
}

const SHAPES: [(usize, usize); 3] = [(4096, 4096), (4096, 14336), (14336, 4096)];
const ROWS: [usize; 7] = [1, 4, 16, 64, 256, 1024, 4096];
const TINY_SHAPES: [(usize, usize); 2] = [(256, 192), (320, 128)];
const TINY_ROWS: [usize; 3] = [1, 4, 40];
const HELP: &str = "see the top of benches/gpu_linear.rs";

impl Options {
    /// # Panics
    /// If an argument is not known or not complete.
    pub fn from_arguments() -> Self {
        let mut options = Self {
            backend: None,
            goals: false,
            only: vec![],
            m: None,
            shapes: None,
            stock: Stock::All,
            time: Duration::from_secs(9 * 60),
            json: None,
            ncu: false,
            tiny: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .unwrap_or_else(|| panic!("{argument} needs a value; {HELP}"))
            };
            match argument.as_str() {
                "--bench" => {}
                "--backend" => options.backend = Some(value()),
                "--goals" => options.goals = true,
                "--only" => options.only = value().split(',').map(String::from).collect(),
                "--m" => options.m = Some(value().split(',').map(number).collect()),
                "--shapes" => options.shapes = Some(value().split(',').map(shape).collect()),
                "--stock" => {
                    options.stock = match value().as_str() {
                        "all" => Stock::All,
                        "float" => Stock::Float,
                        "none" => Stock::None,
                        other => panic!("--stock takes all, float or none, not {other}"),
                    }
                }
                "--minutes" => options.time = Duration::from_secs_f64(60.0 * value().parse::<f64>().expect("minutes")),
                "--json" => options.json = Some(value()),
                "--ncu" => options.ncu = true,
                "--tiny" => options.tiny = true,
                other => panic!("unknown argument {other}; {HELP}"),
            }
        }
        options
    }

    /// Sizes K and N.
    pub fn shapes(&self) -> Vec<(usize, usize)> {
        let all = if self.tiny { &TINY_SHAPES[..] } else { &SHAPES };
        self.shapes.clone().unwrap_or_else(|| all.to_vec())
    }

    /// Numbers of rows of x.
    pub fn rows(&self) -> Vec<usize> {
        let all = if self.tiny { &TINY_ROWS[..] } else { &ROWS };
        self.m.clone().unwrap_or_else(|| all.to_vec())
    }

    /// Whether a row is wanted.
    pub fn wants(&self, label: &str) -> bool {
        let holds = |only: &String| only.split('+').all(|part| label.contains(part));
        self.only.is_empty() || self.only.iter().any(holds)
    }

    /// Bytes that weights rotate through.
    pub fn rotation(&self) -> usize {
        if self.tiny { 1 << 18 } else { 256 << 20 }
    }
}

fn number(text: &str) -> usize {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.unwrap_or_else(|| panic!("{text} is not a number above 0; {HELP}"))
}

fn shape(text: &str) -> (usize, usize) {
    let (k, n) = text
        .split_once('x')
        .unwrap_or_else(|| panic!("{text} is not KxN; {HELP}"));
    (number(k), number(n))
}
