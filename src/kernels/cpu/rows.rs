//! What else a packed weight does: rows of it, and the product with its transpose.

use super::layout::{CHANNELS, Line, QUADS, unpack};
use super::weight::CpuWeight;
use crate::dtype::FloatDtype;
use crate::kernels::expanded;
use rayon::prelude::*;

/// k that a thread takes at a time in a transposed product: a panel of 16 channels by these many floats.
const COLUMNS: usize = 512;

impl CpuWeight {
    /// The dequantized rows `rows[..]` of the weight, `out[rows.len(), K]`, representable in `dtype`.
    ///
    /// # Panics
    /// If a row does not exist or `out` has another length.
    pub fn gather(&self, rows: &[usize], dtype: FloatDtype, out: &mut [f32]) {
        let k = self.groups.k;
        assert_eq!(out.len(), rows.len() * k, "gather: {} rows of {k} values", rows.len());
        let mut quads = vec![Line::ZERO; self.groups.total_tiles * QUADS];
        let mut unpacked = None;
        for (i, row) in rows.iter().enumerate() {
            assert!(*row < self.n, "gather: row {row} of a weight with {} rows", self.n);
            let (panel, c) = (row / CHANNELS, row % CHANNELS);
            if unpacked != Some(panel) {
                unpack(self.bits(), self.panel(panel), &mut quads);
                unpacked = Some(panel);
            }
            let out = &mut out[i * k..(i + 1) * k];
            for group in 0..self.groups.count {
                let at = panel * self.groups.count + group;
                for k_at in self.groups.elements(group) {
                    out[k_at] = self.value(self.code(&quads, c, k_at), at, c, dtype);
                }
            }
        }
        expanded::add(out.len());
    }

    /// `y[rows, K] = g[rows, N] · W`, with W dequantized to `dtype`; sums in f32, N in order, rounded to `dtype` at the end.
    ///
    /// # Panics
    /// If `g` or `y` has another length.
    pub fn linear_transposed(&self, g: &[f32], rows: usize, dtype: FloatDtype, y: &mut [f32]) {
        let (n, k) = (self.n, self.groups.k);
        assert!(
            g.len() == rows * n && y.len() == rows * k,
            "linear_transposed: g has {} values and y {}, for {rows} rows of a [{n}, {k}] weight",
            g.len(),
            y.len()
        );
        if rows == 0 || k == 0 {
            return;
        }
        let count = k.div_ceil(COLUMNS);
        let mut pieces: Vec<Vec<&mut [f32]>> = (0..count).map(|_| Vec::with_capacity(rows)).collect();
        for row in y.chunks_exact_mut(k) {
            for (piece, columns) in pieces.iter_mut().zip(row.chunks_mut(COLUMNS)) {
                piece.push(columns);
            }
        }
        pieces.into_par_iter().enumerate().for_each(|(i, mut y)| {
            let columns = i * COLUMNS..((i + 1) * COLUMNS).min(k);
            self.transposed_columns(g, dtype, columns, &mut y);
        });
    }

    fn transposed_columns(&self, g: &[f32], dtype: FloatDtype, columns: core::ops::Range<usize>, y: &mut [&mut [f32]]) {
        let width = columns.len();
        let bits = self.bits() as usize;
        let groups = &self.groups;
        let tiles = groups.position(columns.start) / 32..groups.position(columns.end - 1) / 32 + 1;
        let mut quads = vec![Line::ZERO; tiles.len() * QUADS];
        let mut panel_values = vec![0.0f32; CHANNELS * width];
        y.iter_mut().for_each(|row| row.fill(0.0));
        for panel in 0..self.panels() {
            let channels = CHANNELS.min(self.n - panel * CHANNELS);
            unpack(
                self.bits(),
                &self.panel(panel)[tiles.start * bits..tiles.end * bits],
                &mut quads,
            );
            for (c, values) in panel_values.chunks_exact_mut(width).take(channels).enumerate() {
                for (value, k_at) in values.iter_mut().zip(columns.clone()) {
                    let position = groups.position(k_at) - tiles.start * 32;
                    let code = quads[position / 4].0[c * 4 + position % 4];
                    *value = self.value(code, panel * groups.count + k_at / groups.size, c, dtype);
                }
            }
            expanded::add(channels * width);
            for (r, y) in y.iter_mut().enumerate() {
                for (c, values) in panel_values.chunks_exact(width).take(channels).enumerate() {
                    let g = g[r * self.n + panel * CHANNELS + c];
                    y.iter_mut().zip(values).for_each(|(y, w)| *y += g * w);
                }
            }
        }
        if dtype != FloatDtype::F32 {
            y.iter_mut()
                .flat_map(|row| row.iter_mut())
                .for_each(|y| *y = dtype.round(*y));
        }
    }
}
