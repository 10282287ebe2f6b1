//! `y = x · Wᵀ + bias` with float activations: blocking and threads.
//!
//! Few rows: codes become floats in registers, every packed byte is read once. More rows: a thread takes some panels and rows at a time, and
//! expands a chunk of K to floats in a near cache, once for all of its rows.

use super::bf16::Bf16;
use super::blocks::even_blocks;
use super::float::pack_floats;
use super::float_blocks::{EMPTY, Expand, FewRows, FloatDot, OneRow, PAIR, Singles, Terms, by_format, few_rows};
use super::float_finish::{FinishFloat, PANELS};
use super::float_lookup::{self, LOOKUPS, Lookup, Sums, looks_up};
use super::float_pairs::{PairUp, Pairs, pack_pairs};
use super::float_weights::{
    CODES, FLOAT, FLOAT_BF16_USUAL, FLOAT_EXACT, FloatMode, FloatWeights, InPlace, Part, SCALED, SCALED_CODES, SHARED,
    chain, parts,
};
use super::isa::Isa;
use super::layout::{CHANNELS, Lanes, Line, TILE, by_bits};
use super::linear::{FORK_NS, Linear, Piece, pieces};
use crate::dtype::FloatDtype;
use core::ops::Range;
use rayon::prelude::*;

/// Rows from which bf16 activations are multiplied in pairs, where the machine can: fewer would wait for memory anyway.
pub(super) const BF16_ROWS: usize = 8;
/// Panels that share the looked up sums of a block of rows.
const LOOKUP_PANELS: usize = 32;
/// Rows whose sums a thread keeps, and whose activations of a chunk a second-level cache does.
const fn rows_at_once<I: Isa>() -> usize {
    if I::WIDE { 256 } else { 144 }
}

/// The operation for a weight without a treatment of activations.
pub fn float_linear<I: Isa>(isa: I, call: Linear) {
    let w = call.weight;
    let weights = FloatWeights::new::<I>(w, call.dtype);
    let lookup = looks_up::<I>(&weights);
    let few = few_rows::<I>(&weights, call.rows).filter(|_| !lookup);
    let blocks = match few {
        Some(rows) => vec![(0, rows)],
        None if lookup => even_blocks(call.rows, float_lookup::ROWS),
        None => even_blocks(call.rows, most_rows::<I>()),
    };
    let (x, bad) = pack_floats(isa, call.x, &w.groups, &blocks);
    let bf16 = Bf16::fast().filter(|_| I::BF16 && !lookup && call.dtype == FloatDtype::BF16 && call.rows >= BF16_ROWS);
    let (x, pairs) = match bf16 {
        Some(_) => (Vec::new(), pack_pairs(&x, &blocks)),
        None => (x, Vec::new()),
    };
    let parts = parts::<I>(&weights);
    let mut product = FloatProduct {
        isa,
        weights: &weights,
        x: &x,
        bf16,
        pairs: &pairs,
        sums: Vec::new(),
        bad: &bad,
        blocks: &blocks,
        parts: &parts,
        chunks: chunks(&parts, chain::<I>()),
        dtype: call.dtype,
        bias: call.bias,
    };
    if let ([(_, rows)], true) = (blocks.as_slice(), lookup) {
        let mut sums = product.room_for_sums(*rows);
        product.fill_sums(0, *rows, &mut sums);
        product.sums = sums;
    }
    let small = estimated_ns::<I>(&weights, call.rows) < FORK_NS;
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
fn estimated_ns<I: Isa>(weights: &FloatWeights, rows: usize) -> usize {
    let (codes_per_ns, products_per_ns) = match weights.mode {
        _ if I::WIDE => (30, 56),
        FloatMode::FloatZero | FloatMode::Scaled => (11, 40),
        _ => (16, 40),
    };
    let codes = weights.w.n * weights.w.groups.k;
    codes / codes_per_ns + rows * codes / products_per_ns
}

/// Rows of the largest block.
const fn most_rows<I: Isa>() -> usize {
    if I::WIDE { 12 } else { 6 }
}

/// Some whole chains of K.
struct Chunk {
    parts: Range<usize>,
    tiles: Range<usize>,
    /// Tiles of each chain.
    chains: Vec<usize>,
}

/// Chains in chunks of at most `most` tiles, where a chain is not longer.
fn chunks(parts: &[Part], most: usize) -> Vec<Chunk> {
    let mut out: Vec<Chunk> = Vec::new();
    let mut start = 0;
    for end in (1..=parts.len()).filter(|end| parts[end - 1].ends) {
        let tiles = parts[start].tiles.start..parts[end - 1].tiles.end;
        match out.last_mut() {
            Some(chunk) if tiles.end - chunk.tiles.start <= most => {
                chunk.parts.end = end;
                chunk.tiles.end = tiles.end;
                chunk.chains.push(tiles.len());
            }
            _ => out.push(Chunk {
                parts: start..end,
                chains: vec![tiles.len()],
                tiles,
            }),
        }
        start = end;
    }
    out
}

/// One call: a weight, packed activations, and how it is cut.
struct FloatProduct<'a, I: Isa> {
    isa: I,
    weights: &'a FloatWeights<'a>,
    /// `[block][padded K][rows of the block]`, unless pairs of bf16 are multiplied.
    x: &'a [f32],
    /// Whether they are.
    bf16: Option<Bf16>,
    /// Then `[block][padded K / 2][rows of the block]`.
    pairs: &'a [u32],
    /// What codes look up, where there is one block of rows; else a thread makes it.
    sums: Vec<Lanes<f32>>,
    /// Which rows hold a NaN or an infinity.
    bad: &'a [bool],
    /// First row and number of rows.
    blocks: &'a [(usize, usize)],
    parts: &'a [Part],
    chunks: Vec<Chunk>,
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
    /// One row by [`PAIR`] panels whose codes become floats where they lie; whether they can.
    fn one_row(&self, piece: &mut Piece, panel: usize) -> bool {
        let panels = panel..panel + PAIR;
        let Some(once) = self.weights.in_place(panels.clone()) else {
            return false;
        };
        let (mut acc, mut ready) = ([EMPTY; PAIR], [InPlace::EMPTY; PAIR]);
        macro_rules! block {
            ($once:literal) => {
                self.isa.enter(OneRow::<$once> {
                    x: self.x,
                    parts: self.parts,
                    weights: self.weights,
                    panel,
                    ready: &mut ready,
                    acc: &mut acc,
                })
            };
        }
        match once {
            true => block!(true),
            false => block!(false),
        }
        self.finish(piece, panels, 0..1, &acc, (PAIR, 1));
        true
    }

    /// Rows of one block by panels side by side, as many as there are; how many panels it took.
    fn few_rows(&self, piece: &mut Piece, rows: usize) -> usize {
        macro_rules! some {
            ($mr:literal, $nr:literal) => {{
                let whole = piece.panels.len() / $nr * $nr;
                for panel in piece.panels.clone().step_by($nr).take(whole / $nr) {
                    if I::SCALED && $mr == 1 && $nr == PAIR && self.one_row(piece, panel) {
                        continue;
                    }
                    let mut acc = [[EMPTY; $nr]; $mr];
                    macro_rules! block {
                        ($bits:literal, $kind:ident) => {
                            self.isa.enter(FewRows::<$mr, $nr, $bits, $kind> {
                                x: self.x,
                                parts: self.parts,
                                weights: self.weights,
                                panel,
                                acc: &mut acc,
                            })
                        };
                    }
                    by_format!(I, $mr, self.weights, block);
                    self.finish(piece, panel..panel + $nr, 0..$mr, acc.as_flattened(), ($nr, 1));
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
                        self.finish(
                            piece,
                            $panel..$panel + $nr,
                            rows,
                            acc.as_flattened(),
                            ($nr, 1),
                        );
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
        let rows = self.bad.len().min(rows_at_once::<I>());
        let largest = |size: fn(&Chunk) -> usize| self.chunks.iter().map(size).max().unwrap_or(0);
        let (longest, most) = (largest(|chunk| chunk.tiles.len()), largest(|chunk| chunk.chains.len()));
        let nr = match (I::WIDE, self.blocks[0].1) {
            (false, 1) => 4,
            (false, 2) => 2,
            (false, _) => 1,
            (true, 1..4) => 4,
            (true, _) => 2,
        };
        let mut scratch = Scratch {
            floats: vec![EMPTY; longest * TILE * nr],
            pairs: vec![Line::ZERO; self.bf16.map_or(0, |_| longest * TILE / 2 * nr)],
            scales: vec![Lanes([1.0; CHANNELS]); most * nr],
            acc: vec![EMPTY; rows * PANELS],
        };
        for first in all.clone().step_by(PANELS) {
            let panels = first..(first + PANELS).min(all.end);
            let mut from = 0;
            while from < self.blocks.len() {
                let start = self.blocks[from].0;
                let count = self.blocks[from..]
                    .iter()
                    .take_while(|b| b.0 + b.1 <= start + rows_at_once::<I>())
                    .count();
                let blocks = &self.blocks[from..from + count];
                let rows = start..blocks[count - 1].0 + blocks[count - 1].1;
                for chunk in 0..self.chunks.len() {
                    for panel in panels.clone().step_by(nr) {
                        let some = panel..(panel + nr).min(panels.end);
                        self.chunk(chunk, some, &panels, blocks, &mut scratch);
                    }
                }
                self.finish(piece, panels.clone(), rows.clone(), &scratch.acc, (1, rows.len()));
                from += count;
            }
        }
    }

    /// One chunk of K: `panels` of `all` by `blocks`.
    fn chunk(
        &self,
        at: usize,
        panels: Range<usize>,
        all: &Range<usize>,
        blocks: &[(usize, usize)],
        scratch: &mut Scratch,
    ) {
        let chunk = &self.chunks[at];
        let parts = &self.parts[chunk.parts.clone()];
        let (stride, chains) = (chunk.tiles.len() * TILE, chunk.chains.len());
        let mut ahead: [&[Line]; 4] = [&[]; 4];
        let expanded = scratch.floats.chunks_exact_mut(stride);
        let expanded = expanded.zip(scratch.scales.chunks_exact_mut(chains));
        for (j, (out, scales)) in expanded.take(panels.len()).enumerate() {
            let panel = panels.start + j;
            self.isa.enter(Expand {
                weights: self.weights,
                panel,
                parts,
                out: &mut *out,
                scales,
            });
            if self.bf16.is_some() {
                self.isa.enter(PairUp {
                    floats: out,
                    out: &mut scratch.pairs[j * stride / 2..][..stride / 2],
                });
            }
            // The next panels of the chunk, or the first panels of the next one.
            let (panel, next) = match panel + panels.len() {
                next if next < all.end => (next, at),
                _ if at + 1 < self.chunks.len() => (all.start + j, at + 1),
                _ => (all.end + j, 0),
            };
            let next = &self.chunks[next];
            ahead[j] = self.lines(panel, next);
            if self.weights.mode != FloatMode::Plain {
                let parts = &self.parts[next.parts.clone()];
                let groups = parts[0].group..parts[parts.len() - 1].group + 1;
                self.weights.fetch(self.isa, panel, groups);
            }
        }
        let last = blocks[blocks.len() - 1];
        let rows = last.0 + last.1 - blocks[0].0;
        let Scratch {
            floats,
            pairs,
            scales,
            acc,
        } = scratch;
        let acc = &mut acc[(panels.start - all.start) * rows..][..panels.len() * rows];
        macro_rules! dots {
            ($terms:expr, $x:expr, $w:expr) => {{
                let (panels, ready) = (panels.len(), (&scales[..], ahead));
                self.dots($terms, ($x, $w), at, (panels, blocks), ready, acc)
            }};
        }
        match self.bf16 {
            Some(proof) if I::BF16 => dots!(Pairs(proof), self.pairs, &pairs[..]),
            _ => dots!(Singles, self.x, &floats[..]),
        }
    }

    /// Products of one chunk: `panels` of them by `blocks`, with what a chunk was expanded to, its scales, and what to fetch meanwhile.
    fn dots<T: Terms<I>>(
        &self,
        terms: T,
        (x, w): (&[T::X], &[T::W]),
        at: usize,
        (panels, blocks): (usize, &[(usize, usize)]),
        (scales, mut ahead): (&[Lanes<f32>], [&[Line]; 4]),
        acc: &mut [Lanes<f32>],
    ) {
        let chunk = &self.chunks[at];
        let (start, total) = (blocks[0].0, acc.len() / panels);
        let terms_of = |tiles: usize| tiles * TILE / T::K;
        let (stride, all) = (terms_of(chunk.tiles.len()), terms_of(self.weights.w.groups.total_tiles));
        let share = ahead[0].len().div_ceil(blocks.len());
        for (first, rows) in blocks {
            let mut next: [&[Line]; 4] = [&[]; 4];
            for (next, ahead) in next.iter_mut().zip(&mut ahead) {
                (*next, *ahead) = ahead.split_at(share.min(ahead.len()));
            }
            let x = &x[first * all + terms_of(chunk.tiles.start) * rows..][..stride * rows];
            macro_rules! dot {
                ($mr:literal, $nr:literal) => {
                    terms.enter(
                        self.isa,
                        FloatDot::<_, _, $mr, $nr> {
                            terms,
                            x,
                            w,
                            stride,
                            chains: &chunk.chains,
                            scales,
                            ahead: core::array::from_fn(|j| next[j]),
                            first: at == 0,
                            acc: block_of(acc, total, first - start),
                        },
                    )
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
                match panels {
                    4 => by_rows!(*rows, four, 1 2 3),
                    3 => by_rows!(*rows, three, 1 2 3),
                    2 => by_rows!(*rows, two, 1 2 3 4 5 6 7 8 9 10 11 12),
                    _ => by_rows!(*rows, one, 1 2 3 4 5 6 7 8 9 10 11 12),
                }
            } else {
                match panels {
                    4 => dot!(1, 4),
                    3 => dot!(1, 3),
                    2 => by_rows!(*rows, two, 1 2),
                    _ => by_rows!(*rows, one, 1 2 3 4 5 6),
                }
            }
        }
    }

    fn finish(
        &self,
        piece: &mut Piece,
        panels: Range<usize>,
        rows: Range<usize>,
        acc: &[Lanes<f32>],
        strides: (usize, usize),
    ) {
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
            strides,
            out: &mut piece.rows,
        });
    }

    /// The lines of a chunk of a panel; none where there is no such panel.
    fn lines(&self, panel: usize, chunk: &Chunk) -> &[Line] {
        if panel >= self.weights.w.panels() {
            return &[];
        }
        let bits = self.weights.w.bits() as usize;
        &self.weights.w.panel(panel)[chunk.tiles.start * bits..chunk.tiles.end * bits]
    }
}

/// What a thread expands a chunk into, and its sums.
struct Scratch {
    /// `[panel][k]`.
    floats: Vec<Lanes<f32>>,
    /// `[panel][k / 2]`.
    pairs: Vec<Line>,
    /// `[panel][chain]`.
    scales: Vec<Lanes<f32>>,
    /// `[panel][row]`.
    acc: Vec<Lanes<f32>>,
}

/// The sums of the rows from `first` on, in each of `NR` panels of `rows` rows.
fn block_of<const MR: usize, const NR: usize>(
    acc: &mut [Lanes<f32>],
    rows: usize,
    first: usize,
) -> [&mut [Lanes<f32>; MR]; NR] {
    let mut rest = acc;
    core::array::from_fn(|_| {
        let (panel, next) = core::mem::take(&mut rest).split_at_mut(rows);
        rest = next;
        panel[first..].first_chunk_mut().expect("the rows of the block")
    })
}
