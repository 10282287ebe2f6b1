//! `y = x · Wᵀ + bias`: blocking and threads of integer products, once for every instruction set; float products are in `float_linear`.
//!
//! Threads share columns; a thread takes 4 panels at a time, some rows at a time, and walks K in chunks whose codes fit a near cache.
//! Every output is one chain of sums in K order, so a row depends neither on the number of threads nor on the other rows.

use super::activation::{Activations, Wanted, needs_sums, quantize};
use super::ahead::Ahead;
use super::blocks::{GroupZeros, Panels};
use super::finish::{FinishDot, FinishGroups};
use super::float_linear::float_linear;
use super::int_blocks::{GroupSums, narrow_quads};
use super::isa::{Block, Isa, Program};
use super::layout::{CHANNELS, Lanes, Line, QUADS, unpack};
use super::values::ReadValues;
use super::weight::{CpuWeight, Zeros};
use crate::dtype::FloatDtype;
use core::ops::Range;
use rayon::prelude::*;

/// Panels that a thread takes at a time.
pub(super) const PANELS: usize = 4;
/// Rows whose accumulators a thread keeps.
const ROWS: usize = 128;
/// Nanoseconds of one thread's work below which waking another costs more than it saves.
pub(super) const FORK_NS: usize = 120_000;
/// Rows up to which the next codes are fetched into the first-level cache.
const FEW_ROWS: usize = 8;

/// The operation; see [`CpuWeight::linear`].
pub struct Linear<'a> {
    pub weight: &'a CpuWeight,
    pub x: &'a [f32],
    pub rows: usize,
    pub dtype: FloatDtype,
    pub bias: Option<&'a [f32]>,
    pub y: &'a mut [f32],
}

impl Program for Linear<'_> {
    fn run<I: Isa>(self, isa: I) {
        let w = self.weight;
        if self.rows == 0 || w.n == 0 {
            return;
        }
        if w.groups.k == 0 {
            for row in self.y.chunks_exact_mut(w.n) {
                match self.bias {
                    Some(bias) => row
                        .iter_mut()
                        .zip(bias)
                        .for_each(|(y, bias)| *y = self.dtype.round(*bias)),
                    None => row.fill(0.0),
                }
            }
            return;
        }
        if !w.activation.is_quantized() {
            return float_linear(isa.float(), self);
        }
        let blocks = row_blocks(self.rows, I::ROWS);
        let wanted = Wanted {
            groups: &w.groups,
            blocks: &blocks,
            narrow: narrow_quads::<I>(w.bits()) > 0,
            factor: match &w.zero {
                _ if w.groups.count == 1 => 1,
                Zeros::Codes(_) => -1,
                zero => I::WEIGHT_SHIFT - zero.code(0, 0) as i32,
            },
        };
        let x = quantize(isa, self.x, self.dtype, &w.activation, wanted);
        let chunks = chunks(w);
        let product = Product {
            isa,
            w,
            x: &x,
            blocks: &blocks,
            chunks: &chunks,
            near: self.rows <= FEW_ROWS,
            dtype: self.dtype,
            bias: self.bias,
        };
        let small = estimated_ns(w, self.rows, I::WIDE) < FORK_NS;
        let threads = if small { 1 } else { rayon::current_num_threads() };
        let mut pieces = pieces(w, self.rows, threads, self.y);
        match pieces.as_mut_slice() {
            [piece] => product.piece(piece),
            pieces => pieces.par_iter_mut().for_each(|piece| product.piece(piece)),
        }
    }
}

/// What one thread needs, roughly: each code is read and unpacked once at 14 a nanosecond, then each further row costs its products at the rate
/// of 64-byte vectors (a third of it for narrower ones).
fn estimated_ns(w: &CpuWeight, rows: usize, wide: bool) -> usize {
    const CODES_PER_NS: usize = 14;
    const PRODUCTS_PER_NS: usize = 128;
    let codes = w.n * w.groups.k;
    let ns = codes / CODES_PER_NS + (rows - 1) * codes / PRODUCTS_PER_NS;
    if wide { ns } else { 3 * ns }
}

/// `rows` as blocks of the given sizes, largest first.
fn row_blocks(rows: usize, sizes: &[usize]) -> Vec<(usize, usize)> {
    let (mut blocks, mut first) = (Vec::new(), 0);
    for size in sizes {
        while rows - first >= *size {
            blocks.push((first, *size));
            first += size;
        }
    }
    blocks
}

/// Some tiles of K and the groups that they belong to.
pub(super) struct Chunk {
    pub tiles: Range<usize>,
    pub first_group: usize,
    /// Tiles in the chunk, and elements, of each group.
    pub groups: Vec<(usize, usize)>,
}

/// Tiles of a chunk, where groups are not longer: the codes of 4 panels are 16 KiB, which the first-level cache keeps beside the activations.
const CHUNK: usize = 8;

/// K in chunks of whole groups, or of parts of the only group.
fn chunks(w: &CpuWeight) -> Vec<Chunk> {
    let groups = &w.groups;
    let whole = groups.count > 1;
    let mut out: Vec<Chunk> = Vec::new();
    let mut open = false;
    for group in 0..groups.count {
        let mut tiles = groups.tiles(group);
        while !tiles.is_empty() {
            if !open {
                out.push(Chunk {
                    tiles: tiles.start..tiles.start,
                    first_group: group,
                    groups: Vec::new(),
                });
            }
            let chunk = out.last_mut().expect("a chunk is open");
            let room = CHUNK - chunk.tiles.len();
            if whole && tiles.len() > room && open {
                open = false;
                continue;
            }
            let take = if whole { tiles.len() } else { tiles.len().min(room) };
            chunk.groups.push((take, groups.elements(group).len()));
            chunk.tiles.end += take;
            tiles.start += take;
            open = chunk.tiles.len() < CHUNK;
        }
    }
    out
}

/// The columns of some panels, row by row.
pub(super) struct Piece<'a> {
    pub panels: Range<usize>,
    pub rows: Vec<&'a mut [f32]>,
}

/// Splits the columns of `y` for `threads` threads, some pieces each.
pub(super) fn pieces<'a>(w: &CpuWeight, rows: usize, threads: usize, y: &'a mut [f32]) -> Vec<Piece<'a>> {
    let blocks = w.panels().div_ceil(PANELS);
    let count = if threads == 1 { 1 } else { blocks.min(threads * 4) };
    let bounds: Vec<usize> = (0..=count)
        .map(|i| (i * blocks / count * PANELS).min(w.panels()))
        .collect();
    let mut out: Vec<Piece> = bounds
        .windows(2)
        .map(|b| Piece {
            panels: b[0]..b[1],
            rows: Vec::with_capacity(rows),
        })
        .collect();
    for mut row in y.chunks_exact_mut(w.n) {
        for piece in &mut out {
            let (columns, rest) = row.split_at_mut((piece.panels.len() * CHANNELS).min(row.len()));
            piece.rows.push(columns);
            row = rest;
        }
    }
    out
}

/// One call: a weight, activations and where K is cut.
pub(super) struct Product<'a, I: Isa> {
    pub isa: I,
    pub w: &'a CpuWeight,
    pub x: &'a Activations<I::Quad>,
    /// First row and number of rows.
    blocks: &'a [(usize, usize)],
    chunks: &'a [Chunk],
    /// Whether chunks fit the nearest cache.
    near: bool,
    pub dtype: FloatDtype,
    pub bias: Option<&'a [f32]>,
}

/// Calls `$call!(MR, NR, panel)` over `$panels` panels for the block of `$rows` rows.
macro_rules! by_block {
    ($rows:expr, $panels:expr, $call:ident, $($mr:literal $nr:literal),+) => {
        match $rows {
            $($mr => {
                let mut panel = 0;
                while $panels - panel >= $nr {
                    $call!($mr, $nr, panel);
                    panel += $nr;
                }
                while panel < $panels {
                    $call!($mr, 1, panel);
                    panel += 1;
                }
            })+
            rows => unreachable!("no block of {rows} rows"),
        }
    };
}
pub(super) use by_block;

impl<I: Isa> Product<'_, I> {
    fn piece(&self, piece: &mut Piece) {
        let (x, blocks) = (self.x, self.blocks);
        let lanes = piece.rows.len().min(ROWS) * PANELS;
        let first = piece.panels.start;
        let mut scratch = Scratch::new(self.w, self.chunks);
        if self.w.groups.count == 1 {
            let mut acc = vec![Lanes([0i32; CHANNELS]); lanes];
            self.blocks(piece, blocks, |panels, next, blocks, rows, out| {
                let acc = &mut acc[..rows.len() * PANELS];
                acc.fill(Lanes([0; CHANNELS]));
                self.walk(&panels, &next, &mut scratch, |chunk, w| {
                    self.dot(x, blocks, chunk, w, panels.len(), acc)
                });
                let finish = FinishDot {
                    product: self,
                    panels,
                    first,
                    rows,
                    acc,
                    out,
                };
                self.isa.enter(finish);
            });
        } else {
            let mut acc = vec![Lanes([0f32; CHANNELS]); lanes];
            self.blocks(piece, blocks, |panels, next, blocks, rows, out| {
                let acc = &mut acc[..rows.len() * PANELS];
                acc.fill(Lanes([0.0; CHANNELS]));
                self.walk(&panels, &next, &mut scratch, |chunk, w| {
                    self.group_dot(x, blocks, chunk, w, &panels, acc)
                });
                let finish = FinishGroups {
                    product: self,
                    panels,
                    first,
                    rows,
                    acc,
                    out,
                };
                self.isa.enter(finish);
            });
        }
    }

    /// Calls `block(panels, the panels after them, blocks of rows, rows, the rows of the piece)` over the piece.
    fn blocks(
        &self,
        piece: &mut Piece,
        blocks: &[(usize, usize)],
        mut block: impl FnMut(Range<usize>, Range<usize>, &[(usize, usize)], Range<usize>, &mut [&mut [f32]]),
    ) {
        for first in piece.panels.clone().step_by(PANELS) {
            let panels = first..(first + PANELS).min(piece.panels.end);
            let after = panels.end..(panels.end + PANELS).min(piece.panels.end);
            let mut from = 0;
            while from < blocks.len() {
                let start = blocks[from].0;
                let count = blocks[from..].iter().take_while(|b| b.0 + b.1 <= start + ROWS).count();
                let last = blocks[from + count - 1];
                let is_last = from + count == blocks.len();
                block(
                    panels.clone(),
                    if is_last { after.clone() } else { panels.clone() },
                    &blocks[from..from + count],
                    start..last.0 + last.1,
                    &mut piece.rows,
                );
                from += count;
            }
        }
    }

    /// Calls `visit` with each chunk of K of some panels; the panels of `next` will follow.
    fn walk(
        &self,
        panels: &Range<usize>,
        next: &Range<usize>,
        scratch: &mut Scratch,
        mut visit: impl FnMut(&Chunk, ChunkOf),
    ) {
        let (w, bits) = (self.w, self.w.bits() as usize);
        let near = self.near;
        for (c, chunk) in self.chunks.iter().enumerate() {
            let (after, of) = match self.chunks.get(c + 1) {
                Some(after) => (after, panels),
                None => (&self.chunks[0], next),
            };
            let stride = w.groups.total_tiles * bits;
            let ahead = Ahead::new(
                &w.codes[(of.start * stride + after.tiles.start * bits).min(w.codes.len())..],
                stride,
                of.len(),
                after.tiles.len() * bits,
                near,
            );
            let (lines, groups) = (chunk.tiles.len() * QUADS, chunk.groups.len());
            for (i, panel) in panels.clone().enumerate() {
                if bits < 8 {
                    let packed = &w.panel(panel)[chunk.tiles.start * bits..chunk.tiles.end * bits];
                    self.isa.enter(Unpack {
                        bits: bits as u32,
                        packed,
                        out: &mut scratch.quads[i * lines..][..lines],
                    });
                }
                let at = panel * w.groups.count + chunk.first_group;
                if !scratch.scale.is_empty() {
                    self.isa.enter(ReadValues {
                        values: &w.scale,
                        at: at..at + groups,
                        out: &mut scratch.scale[i * groups..][..groups],
                    });
                }
                if !scratch.sums.is_empty() {
                    self.isa.enter(GroupSums {
                        w: match bits {
                            8 => &w.panel(panel)[chunk.tiles.start * QUADS..][..lines],
                            _ => &scratch.quads[i * lines..][..lines],
                        },
                        groups: &chunk.groups,
                        zero: self.zeros(at, 0),
                        out: &mut scratch.sums[i * groups..][..groups],
                    });
                }
            }
            let codes = match bits {
                8 => Panels {
                    lines: &w.codes[panels.start * stride + chunk.tiles.start * QUADS..],
                    stride,
                    quads: lines,
                },
                _ => Panels {
                    lines: &scratch.quads,
                    stride: lines,
                    quads: lines,
                },
            };
            visit(
                chunk,
                ChunkOf {
                    codes,
                    scale: &scratch.scale,
                    sums: &scratch.sums,
                    groups,
                    ahead,
                },
            );
        }
    }

    /// The zero points from a place in `[panel][group]` on, less `shift` where they are one.
    pub(super) fn zeros(&self, at: usize, shift: i32) -> GroupZeros<'_> {
        match &self.w.zero {
            Zeros::None(zero) | Zeros::Same(zero) | Zeros::Float { mid: zero, .. } => {
                GroupZeros::Same(*zero as i32 - shift)
            }
            Zeros::Codes(zero) => GroupZeros::Codes(&zero[at..]),
        }
    }
}

/// A chunk of some panels, ready for the inner blocks.
#[derive(Clone, Copy)]
pub(super) struct ChunkOf<'a> {
    /// One code a byte.
    pub codes: Panels<'a>,
    /// `[panel][group of the chunk]`; empty where the scale is constant along K.
    pub scale: &'a [Lanes<f32>],
    /// The same: `Σ (w − zw)`; empty where no product needs them.
    pub sums: &'a [Lanes<i32>],
    /// Groups of the chunk: the stride of all.
    pub groups: usize,
    /// The codes of the chunk that follows.
    pub ahead: Ahead<'a>,
}

/// What a thread unpacks a chunk into.
struct Scratch {
    quads: Vec<Line>,
    scale: Vec<Lanes<f32>>,
    sums: Vec<Lanes<i32>>,
}

impl Scratch {
    fn new(w: &CpuWeight, chunks: &[Chunk]) -> Self {
        let largest = |size: fn(&Chunk) -> usize| chunks.iter().map(size).max().unwrap_or(0) * PANELS;
        let (tiles, groups) = (largest(|chunk| chunk.tiles.len()), largest(|chunk| chunk.groups.len()));
        let floats = |needed: bool| vec![Lanes([0.0; CHANNELS]); if needed { groups } else { 0 }];
        let sums = w.groups.count > 1 && needs_sums(&w.activation);
        Self {
            quads: vec![Line::ZERO; if w.bits() < 8 { tiles * QUADS } else { 0 }],
            scale: floats(w.groups.count > 1),
            sums: vec![Lanes([0; CHANNELS]); if sums { groups } else { 0 }],
        }
    }
}

struct Unpack<'a> {
    bits: u32,
    packed: &'a [Line],
    out: &'a mut [Line],
}

impl<I: Isa> Block<I> for Unpack<'_> {
    #[inline(always)]
    fn run(self, _: I) {
        unpack(self.bits, self.packed, self.out);
    }
}
