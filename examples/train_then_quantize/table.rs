//! The results: one row a flow, printed aligned and written as JSON.

use crate::measure::{Latencies, Latency, median};
use serde::Serialize;
use std::{error::Error, fs, path::Path};

/// Everything that was found out.
#[derive(Serialize)]
pub struct Results {
    /// What it ran on.
    pub backend: String,
    pub rows: Vec<Row>,
    /// Whether the static model gave the same logits, bit for bit, after it was saved and loaded.
    pub reload_bit_identical: bool,
}

/// One flow. The first row is the float model.
#[derive(Serialize)]
pub struct Row {
    pub flow: &'static str,
    /// Fraction of 1.
    pub accuracy: f64,
    /// All parameters of the model; of a quantized one codes, scales and zero points.
    pub bytes: usize,
    pub latency_ms_1: f64,
    pub latency_ms_256: f64,
    pub linear_ms_1: f64,
    pub linear_ms_256: f64,
    /// Of the logits against the float model's; `None` for the float model itself.
    pub sqnr_db: Option<f64>,
    /// The kernels that ran, each named once.
    pub kernel: String,
    /// Latency divided by that of the float model in the same pairs, in the order of the four fields above.
    #[serde(skip)]
    pub ratios: [f64; 4],
}

/// The four latencies of a flow, or of the float model when `of` picks its side of each pair.
fn four([at_1, at_256]: [&Latencies; 2], of: impl Fn(Latency) -> f64) -> [f64; 4] {
    [at_1.whole, at_256.whole, at_1.linear, at_256.linear].map(of)
}

impl Row {
    /// A row without latencies.
    pub fn new(flow: &'static str, accuracy: f64, bytes: usize, sqnr_db: Option<f64>, kernel: String) -> Self {
        let (latency_ms_1, latency_ms_256, linear_ms_1, linear_ms_256) = (0.0, 0.0, 0.0, 0.0);
        let ratios = [1.0; 4];
        Self {
            flow,
            accuracy,
            bytes,
            latency_ms_1,
            latency_ms_256,
            linear_ms_1,
            linear_ms_256,
            sqnr_db,
            kernel,
            ratios,
        }
    }

    fn set_latencies(&mut self, milliseconds: [f64; 4]) {
        [
            self.latency_ms_1,
            self.latency_ms_256,
            self.linear_ms_1,
            self.linear_ms_256,
        ] = milliseconds;
    }
}

impl Results {
    /// Fills in the latencies at batch 1 and 256, an entry for each row but the float model's. The float row gets the medians of the float
    /// model's medians.
    pub fn set_latencies(&mut self, at_1: &[Latencies], at_256: &[Latencies]) {
        let [float, flows @ ..] = self.rows.as_mut_slice() else {
            return;
        };
        let mut float_samples = [const { Vec::new() }; 4];
        for (row, pair) in flows.iter_mut().zip(at_1.iter().zip(at_256)) {
            let pair = [pair.0, pair.1];
            row.set_latencies(four(pair, |latency| latency.flow_ms));
            row.ratios = four(pair, |latency| latency.flow_ms / latency.float_ms);
            let of_float = four(pair, |latency| latency.float_ms);
            float_samples
                .iter_mut()
                .zip(of_float)
                .for_each(|(samples, time)| samples.push(time));
        }
        float.set_latencies(float_samples.map(|mut samples| median(&mut samples)));
    }

    /// The table as `{"backend": …, "rows": […], "reload_bit_identical": …}`.
    pub fn write_json(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// The table as aligned text, below the backend.
    pub fn to_text(&self) -> String {
        let header = [
            "flow",
            "accuracy",
            "change",
            "bytes",
            "ms, batch 1",
            "ms, batch 256",
            "Linear ms, 1",
            "Linear ms, 256",
            "SQNR dB",
            "kernels",
        ];
        let mut lines = vec![header.map(String::from)];
        lines.extend(self.rows.iter().map(|row| self.cells(row)));
        format!("on {}\n{}", self.backend, align(&lines))
    }

    fn cells(&self, row: &Row) -> [String; 10] {
        let change = 100.0 * (row.accuracy - self.rows[0].accuracy);
        let milliseconds = [row.latency_ms_1, row.latency_ms_256, row.linear_ms_1, row.linear_ms_256];
        let [at_1, at_256, linear_at_1, linear_at_256] =
            [0, 1, 2, 3].map(|column| format!("{:.3} ({:.2}x)", milliseconds[column], row.ratios[column]));
        [
            row.flow.to_string(),
            format!("{:.2} %", 100.0 * row.accuracy),
            format!("{change:+.2}"),
            row.bytes.to_string(),
            at_1,
            at_256,
            linear_at_1,
            linear_at_256,
            row.sqnr_db.map_or("-".to_string(), |db| format!("{db:.1}")),
            row.kernel.clone(),
        ]
    }
}

/// Columns two spaces apart; the first and the last start at the left, the others end at the right.
fn align<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .map(|cells| cells[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for cells in lines {
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            match column {
                0 => text += &format!("{cell:width$}"),
                _ if column == COLUMNS - 1 => text += &format!("  {cell}"),
                _ => text += &format!("  {cell:>width$}"),
            }
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(flow_ms: f64, float_ms: f64) -> Latencies {
        let latency = Latency { flow_ms, float_ms };
        Latencies {
            whole: latency,
            linear: Latency {
                flow_ms: flow_ms / 2.0,
                ..latency
            },
        }
    }

    fn results() -> Results {
        let flows = ["float", "int8_weight_only", "int4_weight_only"];
        let rows = flows.map(|flow| Row::new(flow, 0.97, 100, (flow != "float").then_some(30.0), "k".into()));
        let mut results = Results {
            backend: "b".into(),
            rows: rows.into(),
            reload_bit_identical: true,
        };
        results.set_latencies(
            &[latencies(1.0, 4.0), latencies(2.0, 6.0)],
            &[latencies(8.0, 8.0), latencies(9.0, 9.0)],
        );
        results
    }

    #[test]
    fn a_row_holds_its_own_times_and_the_float_row_those_of_the_pairs() {
        let [float, int8, _] = &results().rows[..] else {
            panic!("three rows")
        };
        assert_eq!(
            [
                int8.latency_ms_1,
                int8.latency_ms_256,
                int8.linear_ms_1,
                int8.linear_ms_256
            ],
            [1.0, 8.0, 0.5, 4.0]
        );
        assert_eq!(int8.ratios, [0.25, 1.0, 0.125, 0.5]);
        assert_eq!([float.latency_ms_1, float.latency_ms_256], [4.0, 8.0]);
    }

    #[test]
    fn the_json_has_the_promised_fields_and_no_other() {
        let json = serde_json::to_value(results()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json), ["backend", "reload_bit_identical", "rows"]);
        let fields = "accuracy bytes flow kernel latency_ms_1 latency_ms_256 linear_ms_1 linear_ms_256 sqnr_db";
        let mut found = keys(&json["rows"][0]);
        found.sort();
        assert_eq!(found.join(" "), fields);
        assert!(json["rows"][0]["sqnr_db"].is_null());
    }

    #[test]
    fn columns_are_aligned() {
        let text = results().to_text();
        let ends = |line: &str| line.find("k").map(|at| line[..at].trim_end().chars().count());
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert!(rows.iter().all(|row| row.ends_with("  k")));
        assert_eq!(ends(rows[1]), ends(rows[2]));
    }
}
