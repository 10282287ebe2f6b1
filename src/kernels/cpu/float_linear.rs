//! `y = x · Wᵀ + bias` with float activations: blocking and threads.
//!
//! Few rows: codes become floats in registers, every packed byte is read once. More rows: a thread takes some panels and rows at a time, and
//! expands a chunk of K to floats in the first-level cache, once for all of its rows.

use super::blocks::Tile;
use super::float::pack_floats;
use super::float_blocks::{EMPTY, Expand, FewRows, FloatDot, few_rows};
use super::float_finish::FinishFloat;
use super::float_lookup::{self, LOOKUPS, Lookup, Sums, looks_up};
use super::float_weights::{FloatMode, FloatWeights, Part, parts};
use super::isa::Isa;
use super::layout::{CHANNELS, Lanes, Line, TILE};
use super::linear::{FORK_NS, Linear, Piece, pieces};
use super::weight::CpuWeight;
use crate::dtype::FloatDtype;
use core::ops::Range;
use rayon::prelude::*;

/// Panels that share the activations of a chunk in a second-level cache.
const PANELS: usize = 8;
/// Rows whose accumulators a thread keeps.
const ROWS: usize = 256;
/// Panels that share the looked up sums of a block of rows.
const LOOKUP_PANELS: usize = 32;
/// Most tiles of a chunk, whose floats fill a first-level cache.
const CHUNK: usize = 4;
/// The operation for a weight without a treatment of activations.
pub fn float_linear<I: Isa>(isa: I, call: Linear) {
    let w = call.weight;
    let weights = FloatWeights::new(w, call.dtype);
    let lookup = looks_up::<I>(&weights);
    let few = few_rows::<I>(&weights, call.rows).filter(|_| !lookup);
    let blocks = match few {
        Some(rows) => vec![(0, rows)],
        None if lookup => row_blocks(call.rows, float_lookup::ROWS),
        None => row_blocks(call.rows, most_rows::<I>()),
    };
    let (x, bad) = pack_floats(isa, call.x, &w.groups, &blocks);
    let parts = parts(&w.groups);
    let mut product = FloatProduct {
        isa,
        weights: &weights,
        x: &x,
        sums: Vec::new(),
        bad: &bad,
        blocks: &blocks,
        parts: &parts,
        chunks: chunks(&parts, CHUNK),
        dtype: call.dtype,
        bias: call.bias,
    };
    if let ([(_, rows)], true) = (blocks.as_slice(), lookup) {
        let mut sums = product.room_for_sums(*rows);
        product.fill_sums(0, *rows, &mut sums);
        product.sums = sums;
    }
    let small = estimated_ns(w, call.rows, I::WIDE) < FORK_NS;
    let threads = if small { 1 } else { rayon::current_num_threads() };
    let mut pieces = pieces(w, call.rows, threads, call.y);
    let run = |piece: &mut Piece| {
        if lookup {
            return product.lookup(piece);
        }
        let done = few.map_or(0, |rows| product.few_rows(piece, rows));
        product.many_rows(piece, done)
    };
    match pieces.as_mut_slice() {
        [piece] => run(piece),
        pieces => pieces.par_iter_mut().for_each(run),
    }
}

/// What one thread needs, roughly: each code becomes a float once, each row costs its products.
fn estimated_ns(w: &CpuWeight, rows: usize, wide: bool) -> usize {
    let (codes_per_ns, products_per_ns) = if wide { (30, 56) } else { (16, 40) };
    let codes = w.n * w.groups.k;
    codes / codes_per_ns + rows * codes / products_per_ns
}

/// Asks for the outputs of some rows by some panels.
fn fetch_outputs<I: Isa>(isa: I, piece: &Piece, panels: &Range<usize>, rows: &Range<usize>) {
    let columns = (panels.start - piece.panels.start) * CHANNELS..(panels.end - piece.panels.start) * CHANNELS;
    for row in piece.rows.iter().take(rows.end).skip(rows.start) {
        let row = &row[columns.start..columns.end.min(row.len())];
        for at in row.iter().step_by(CHANNELS).chain(row.last()) {
            isa.prefetch(at, false);
        }
    }
}

/// Rows of the largest block.
const fn most_rows<I: Isa>() -> usize {
    if I::WIDE { 12 } else { 6 }
}

/// `rows` in blocks of at most `most`, as even as they can be.
fn row_blocks(rows: usize, most: usize) -> Vec<(usize, usize)> {
    let count = rows.div_ceil(most);
    let cut = |i| i * rows / count;
    (0..count).map(|i| (cut(i), cut(i + 1) - cut(i))).collect()
}

/// Parts in chunks of at most `most` tiles, where a part is not longer.
fn chunks(parts: &[Part], most: usize) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        match out.last_mut() {
            Some(chunk) if part.tiles.end - parts[chunk.start].tiles.start <= most => chunk.end = i + 1,
            _ => out.push(i..i + 1),
        }
    }
    out
}

/// One call: a weight, packed activations, and how it is cut.
struct FloatProduct<'a, I: Isa> {
    isa: I,
    weights: &'a FloatWeights<'a>,
    /// `[block][padded K][rows of the block]`.
    x: &'a [f32],
    /// What codes look up, where there is one block of rows; else a thread makes it.
    sums: Vec<Lanes<f32>>,
    /// Which rows hold a NaN or an infinity.
    bad: &'a [bool],
    /// First row and number of rows.
    blocks: &'a [(usize, usize)],
    parts: &'a [Part],
    /// Parts of each chunk.
    chunks: Vec<Range<usize>>,
    dtype: FloatDtype,
    bias: Option<&'a [f32]>,
}

/// Calls `$call!(MR)` for the block of `$rows` rows.
macro_rules! by_rows {
    ($rows:expr, $call:ident, $($mr:literal)+) => {
        match $rows {
            $($mr => $call!($mr),)+
            rows => unreachable!("no block of {rows} rows"),
        }
    };
}

impl<I: Isa> FloatProduct<'_, I> {
    /// Rows of one block by panels side by side, as many as there are; how many panels it took.
    fn few_rows(&self, piece: &mut Piece, rows: usize) -> usize {
        macro_rules! some {
            ($mr:literal, $nr:literal) => {{
                let whole = piece.panels.len() / $nr * $nr;
                for panel in piece.panels.clone().step_by($nr).take(whole / $nr) {
                    let mut acc = [[EMPTY; $nr]; $mr];
                    self.isa.enter(FewRows::<$mr, $nr> {
                        x: self.x,
                        parts: self.parts,
                        weights: self.weights,
                        panel,
                        acc: &mut acc,
                    });
                    self.finish(piece, panel..panel + $nr, 0..$mr, acc.as_flattened(), $nr);
                }
                whole
            }};
        }
        if I::ONE_ROW == 4 {
            match rows {
                1 => some!(1, 4),
                2 => some!(2, 4),
                _ => some!(4, 2),
            }
        } else if I::ONE_ROW == 2 {
            match rows {
                1 => some!(1, 2),
                2 => some!(2, 2),
                _ => some!(4, 1),
            }
        } else {
            0
        }
    }

    fn room_for_sums(&self, rows: usize) -> Vec<Lanes<f32>> {
        let w = self.weights.w;
        vec![EMPTY; w.groups.total_tiles * w.bits() as usize * LOOKUPS * rows]
    }

    /// What codes look up for a block of rows.
    fn fill_sums<'s>(&self, first: usize, rows: usize, room: &'s mut [Lanes<f32>]) -> &'s [Lanes<f32>] {
        let w = self.weights.w;
        let (bits, padded) = (w.bits() as usize, w.groups.padded_k());
        let out = &mut room[..w.groups.total_tiles * bits * LOOKUPS * rows];
        self.isa.enter(Sums {
            x: &self.x[first * padded..][..padded * rows],
            rows,
            bits,
            zero: w.zero.code(0, 0),
            out,
        });
        out
    }

    /// Some panels at a time, whose codes stay in a near cache while the blocks of rows pass; the sums of a block are made for all of them.
    fn lookup(&self, piece: &mut Piece) {
        let mut own = match self.sums.is_empty() {
            true => self.room_for_sums(float_lookup::ROWS),
            false => Vec::new(),
        };
        for first_panel in piece.panels.clone().step_by(LOOKUP_PANELS) {
            let panels = first_panel..(first_panel + LOOKUP_PANELS).min(piece.panels.end);
            for (first, rows) in self.blocks {
                let sums = match self.sums.is_empty() {
                    true => self.fill_sums(*first, *rows, &mut own),
                    false => &self.sums,
                };
                macro_rules! some {
                    ($mr:literal, $nr:literal, $panel:expr) => {{
                        let mut acc = [[EMPTY; $nr]; $mr];
                        self.isa.enter(Lookup::<$mr, $nr> {
                            sums,
                            parts: self.parts,
                            weights: self.weights,
                            panel: $panel,
                            acc: &mut acc,
                        });
                        let rows = *first..first + $mr;
                        self.finish(piece, $panel..$panel + $nr, rows, acc.as_flattened(), $nr);
                    }};
                }
                macro_rules! panels {
                    ($mr:literal) => {{
                        let mut panel = panels.start;
                        while panels.end - panel >= float_lookup::PANELS {
                            some!($mr, 4, panel);
                            panel += float_lookup::PANELS;
                        }
                        for panel in panel..panels.end {
                            some!($mr, 1, panel);
                        }
                    }};
                }
                by_rows!(*rows, panels, 1 2 3 4);
            }
        }
    }

    fn many_rows(&self, piece: &mut Piece, skip: usize) {
        let all = piece.panels.start + skip..piece.panels.end;
        if all.is_empty() {
            return;
        }
        let rows = self.bad.len().min(ROWS);
        let longest = self
            .chunks
            .iter()
            .map(|chunk| self.tiles(chunk).len())
            .max()
            .unwrap_or(0);
        let nr = match (I::WIDE, self.blocks[0].1) {
            (false, 1) => 4,
            (false, 2) => 2,
            (false, _) => 1,
            (true, 1..4) => 4,
            (true, _) => 2,
        };
        let mut floats = vec![EMPTY; longest * TILE * nr];
        let mut acc = vec![EMPTY; rows * PANELS];
        for first in all.clone().step_by(PANELS) {
            let panels = first..(first + PANELS).min(all.end);
            let mut from = 0;
            while from < self.blocks.len() {
                let start = self.blocks[from].0;
                let count = self.blocks[from..]
                    .iter()
                    .take_while(|b| b.0 + b.1 <= start + ROWS)
                    .count();
                let blocks = &self.blocks[from..from + count];
                let rows = start..blocks[count - 1].0 + blocks[count - 1].1;
                let acc = &mut acc[..rows.len() * PANELS];
                acc.fill(EMPTY);
                for chunk in 0..self.chunks.len() {
                    for panel in panels.clone().step_by(nr) {
                        let some = panel..(panel + nr).min(panels.end);
                        if chunk + 1 == self.chunks.len() {
                            fetch_outputs(self.isa, piece, &some, &rows);
                        }
                        self.chunk(chunk, some, &panels, blocks, &mut floats, acc);
                    }
                }
                self.finish(piece, panels.clone(), rows, acc, PANELS);
                from += count;
            }
        }
    }

    /// One chunk of K: `panels` of `all` by `blocks`.
    fn chunk(
        &self,
        chunk: usize,
        panels: Range<usize>,
        all: &Range<usize>,
        blocks: &[(usize, usize)],
        floats: &mut [Lanes<f32>],
        acc: &mut [Lanes<f32>],
    ) {
        let parts = &self.parts[self.chunks[chunk].clone()];
        let tiles = self.tiles(&self.chunks[chunk]);
        let stride = tiles.len() * TILE;
        let mut ahead: [&[Line]; 4] = [&[]; 4];
        for (j, out) in floats.chunks_exact_mut(stride).take(panels.len()).enumerate() {
            let panel = panels.start + j;
            self.isa.enter(Expand {
                weights: self.weights,
                panel,
                parts,
                out,
            });
            // The next panels of the chunk, or the first panels of the next one.
            let (panel, chunk) = match panel + panels.len() {
                next if next < all.end => (next, chunk),
                _ if chunk + 1 < self.chunks.len() => (all.start + j, chunk + 1),
                _ => (all.end + j, 0),
            };
            ahead[j] = self.lines(panel, chunk);
            if self.weights.mode != FloatMode::Plain {
                let parts = &self.parts[self.chunks[chunk].clone()];
                let groups = parts[0].group..parts[parts.len() - 1].group + 1;
                self.weights.fetch(self.isa, panel, groups);
            }
        }
        let (start, padded) = (blocks[0].0, self.weights.w.groups.padded_k());
        for (i, (first, rows)) in blocks.iter().enumerate() {
            let share = |lines: &[Line]| {
                let cut = |i| i * lines.len() / blocks.len();
                cut(i)..cut(i + 1)
            };
            let x = &self.x[first * padded + tiles.start * TILE * rows..][..stride * rows];
            let lanes = &mut acc[(first - start) * PANELS + panels.start - all.start..];
            macro_rules! dot {
                ($mr:literal, $nr:literal) => {
                    self.isa.enter(FloatDot::<$mr, $nr> {
                        x,
                        w: floats,
                        stride,
                        parts,
                        weights: self.weights,
                        panel: panels.start,
                        ahead: core::array::from_fn(|j| &ahead[j][share(ahead[j])]),
                        acc: Tile {
                            lanes,
                            stride: PANELS,
                        },
                    })
                };
            }
            macro_rules! one {
                ($mr:literal) => {
                    dot!($mr, 1)
                };
            }
            macro_rules! two {
                ($mr:literal) => {
                    dot!($mr, 2)
                };
            }
            macro_rules! three {
                ($mr:literal) => {
                    dot!($mr, 3)
                };
            }
            macro_rules! four {
                ($mr:literal) => {
                    dot!($mr, 4)
                };
            }
            if I::WIDE {
                match panels.len() {
                    4 => by_rows!(*rows, four, 1 2 3),
                    3 => by_rows!(*rows, three, 1 2 3),
                    2 => by_rows!(*rows, two, 1 2 3 4 5 6 7 8 9 10 11 12),
                    _ => by_rows!(*rows, one, 1 2 3 4 5 6 7 8 9 10 11 12),
                }
            } else {
                match panels.len() {
                    4 => dot!(1, 4),
                    3 => dot!(1, 3),
                    2 => by_rows!(*rows, two, 1 2),
                    _ => by_rows!(*rows, one, 1 2 3 4 5 6),
                }
            }
        }
    }

    fn finish(&self, piece: &mut Piece, panels: Range<usize>, rows: Range<usize>, acc: &[Lanes<f32>], stride: usize) {
        let rows = rows.start..rows.end.min(piece.rows.len());
        self.isa.enter(FinishFloat {
            weights: self.weights,
            dtype: self.dtype,
            bias: self.bias,
            bad: self.bad,
            panels,
            first: piece.panels.start,
            rows,
            acc,
            stride,
            out: &mut piece.rows,
        });
    }

    fn tiles(&self, chunk: &Range<usize>) -> Range<usize> {
        self.parts[chunk.start].tiles.start..self.parts[chunk.end - 1].tiles.end
    }

    /// The lines of a chunk of a panel; none where there is no such panel.
    fn lines(&self, panel: usize, chunk: usize) -> &[Line] {
        if panel >= self.weights.w.panels() {
            return &[];
        }
        let (tiles, bits) = (self.tiles(&self.chunks[chunk]), self.weights.w.bits() as usize);
        &self.weights.w.panel(panel)[tiles.start * bits..tiles.end * bits]
    }
}
