//! Launches in flight and medians.

use std::time::Instant;

/// How often things run.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Launches in flight of one measurement, where one takes less than a millisecond.
    pub launches: usize,
    /// Measurements.
    pub runs: usize,
    /// Seconds of a row that fewer launches, then fewer measurements, keep to.
    pub most: f64,
}

impl Effort {
    pub fn new(tiny: bool) -> Self {
        if tiny {
            Self {
                launches: 3,
                runs: 2,
                most: 0.5,
            }
        } else {
            Self {
                launches: 200,
                runs: 20,
                most: 4.0,
            }
        }
    }
}

/// Medians of one row, in seconds a launch.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub wall: f64,
    pub submit: f64,
    pub launches: usize,
    pub runs: usize,
}

/// Times `launch`, which is given the number of the turn.
///
/// Errors: what `sync` says.
pub fn time(
    effort: Effort,
    sync: impl Fn() -> Result<(), String>,
    mut launch: impl FnMut(usize),
) -> Result<Times, String> {
    let mut turn = 0;
    let mut flight = |launches: usize| -> Result<(f64, f64), String> {
        let start = Instant::now();
        for _ in 0..launches {
            launch(turn);
            turn += 1;
        }
        let submitted = start.elapsed().as_secs_f64();
        sync()?;
        let share = |seconds: f64| seconds / launches as f64;
        Ok((share(start.elapsed().as_secs_f64()), share(submitted)))
    };
    flight(2)?;
    let first = flight(1)?.0;
    let once = if first < 5e-3 { flight(20)?.0 } else { first };
    let launches = if once <= 1e-3 {
        effort.launches
    } else {
        ((effort.most / effort.runs as f64 / once) as usize).clamp(1, effort.launches)
    };
    let runs = if once <= 1e-3 {
        effort.runs
    } else {
        ((effort.most / (once * launches as f64)) as usize).clamp(effort.runs.min(3), effort.runs)
    };
    let flights = (0..runs).map(|_| flight(launches)).collect::<Result<Vec<_>, _>>()?;
    Ok(Times {
        wall: median(flights.iter().map(|flight| flight.0).collect()),
        submit: median(flights.iter().map(|flight| flight.1).collect()),
        launches,
        runs,
    })
}

/// The middle value, the lower one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
