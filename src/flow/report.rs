//! What happened to each layer, or what would.

use core::fmt;
use serde::{Deserialize, Serialize};

/// One float parameter of rank 2 or more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LayerReport {
    /// Path of the layer.
    pub path: String,
    /// Container type as Burn names it.
    pub container: String,
    /// Shape that Burn sees.
    pub shape: Vec<usize>,
    /// Name of the config's recipe; empty for a layer that no config chose.
    pub config: String,
    /// The kernel that runs the layer at one row of activations; `None` in float.
    pub kernel: Option<String>,
    /// Bytes of the weight as it came.
    pub bytes_before: usize,
    /// Bytes of codes, scales and zero points; of the weight itself where it stays in float.
    pub bytes_after: usize,
    /// Signal to quantization noise of the weight, `10 · log10(Σ w² / Σ (w − ŵ)²)`, in dB; `None` in a plan and in float.
    pub sqnr_db: Option<f64>,
    /// Why the layer stays in float, or why it is as it was.
    pub skipped: Option<String>,
    /// What to know of a quantized layer: why only the portable products serve it, where its kernel is expected to be slower than float.
    #[serde(default)]
    pub note: Option<String>,
}

/// The report of a whole module: every float parameter of rank 2 or more, and the bytes of the rest.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Layers in the module's order.
    pub layers: Vec<LayerReport>,
    /// Bytes of all other parameters (biases, norms, integers), which no flow touches.
    pub other_bytes: usize,
}

impl Report {
    /// Bytes of the module before.
    pub fn bytes_before(&self) -> usize {
        self.other_bytes + self.layers.iter().map(|layer| layer.bytes_before).sum::<usize>()
    }

    /// Bytes of the module after.
    pub fn bytes_after(&self) -> usize {
        self.other_bytes + self.layers.iter().map(|layer| layer.bytes_after).sum::<usize>()
    }

    /// The layers that a kernel runs.
    pub fn quantized(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.kernel.is_some())
    }

    /// The layers that stay in float, or as they were, with the reason in `skipped`.
    pub fn skipped(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.skipped.is_some())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "layer",
            "shape",
            "config",
            "kernel",
            "bytes before",
            "after",
            "SQNR dB",
            "note",
        ];
        let mut rows = vec![head.map(String::from)];
        rows.extend(self.layers.iter().map(|layer| {
            [
                layer.path.clone(),
                layer.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
                layer.config.clone(),
                layer.kernel.clone().unwrap_or_else(|| "float".into()),
                layer.bytes_before.to_string(),
                layer.bytes_after.to_string(),
                layer.sqnr_db.map_or("-".into(), |db| format!("{db:.1}")),
                layer
                    .skipped
                    .as_ref()
                    .or(layer.note.as_ref())
                    .cloned()
                    .unwrap_or_default(),
            ]
        }));
        let mut total: [String; 8] = Default::default();
        total[0] = "all parameters".into();
        total[4] = self.bytes_before().to_string();
        total[5] = self.bytes_after().to_string();
        rows.push(total);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    4..=6 => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
