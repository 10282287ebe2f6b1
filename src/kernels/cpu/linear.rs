//! `y = x · Wᵀ + bias`: blocking and threads of integer products, once for every instruction set; float products are in `float_linear`.
//!
//! Threads share columns; a thread takes 4 panels at a time, some rows at a time, and walks K in chunks whose codes fit a near cache.
//! Every output is one chain of sums in K order, so a row depends neither on the number of threads nor on the other rows.

use super::activation::{Activations, Wanted, needs_sums, offset, quantize};
use super::ahead::Ahead;
use super::blocks::{GroupZeros, Panels, even_blocks};
use super::finish::{Factors, FinishGroups};
use super::float_linear::float_linear;
use super::int_blocks::{BYTES, Form, Grouping, PAIRS, by_form, form, lines_of, narrow_quads, rows_of};
use super::int_prepare::Prepare;
use super::int_row::OneRowGroups;
use super::isa::{Isa, Program};
use super::layout::{CHANNELS, Lanes, Line, QUADS};
use super::values::fetch;
use super::weight::{CpuWeight, Zeros};
use crate::dtype::FloatDtype;
use core::ops::Range;
use rayon::prelude::*;

/// Panels that a thread takes at a time; pieces of the work are made of them.
pub(super) const PANELS: usize = 4;
/// The same where it reads pairs and a sum takes all of K: activations, which a second-level cache may be too small for, are read half as
/// often.
const PAIR_PANELS: usize = 8;
/// Rows whose sums a thread keeps, or more: see [`FAR_BYTES`].
const ROWS: usize = 192;
/// Rows of the largest block.
pub(super) const LARGEST_BLOCK: usize = 8;
/// Bytes of activations that stay in a cache while the weight passes: with 64-byte vectors, a byte of theirs serves 64 channels, and a shared
/// cache is fast enough.
const FAR_BYTES: usize = 4 << 20;
/// The same for narrower vectors: those of a second-level cache.
const SMALL_NEAR_BYTES: usize = 256 << 10;
/// Panels that a slice of K meets before the next one.
const SLICED_PANELS: usize = 32;
/// Largest group whose sums of 8-bit codes fit 16 bits.
const SMALL_GROUP: usize = 128;
/// Nanoseconds of one thread's work below which waking another costs more than it saves: one that sleeps takes some 90 µs to help on a virtual
/// machine (Zen 3, two cores, the layers of the example, November 2026).
pub(super) const FORK_NS: usize = 200_000;
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
        let form = form::<I>(w.bits(), self.rows);
        let blocks = row_blocks(self.rows, rows_of::<I>(form, self.rows));
        let grouping = Grouping {
            magic: I::FUSED && w.magic,
            small: w.groups.size <= SMALL_GROUP,
        };
        let plain = |sum: i32| sum;
        let negated = |sum: i32| grouping.factor::<I>(-sum);
        let shifted = |sum: i32| {
            sum.wrapping_mul(I::WEIGHT_SHIFT - w.zero.code(0, 0) as i32)
                .wrapping_add(grouping.start())
        };
        let wanted = Wanted {
            groups: &w.groups,
            blocks: &blocks,
            narrow: narrow_quads::<I>(w.bits()) > 0,
            sum: match &w.zero {
                Zeros::Codes(_) if w.groups.count == 1 => &plain,
                Zeros::Codes(_) => &negated,
                _ => &shifted,
            },
        };
        let x = quantize(isa, self.x, self.dtype, &w.activation, wanted);
        let (at_once, tiles) = match form {
            PAIRS if w.groups.count == 1 => (PAIR_PANELS, I::CHUNK / PAIR_PANELS),
            _ if self.rows >= long_chunk_rows(w) => (PANELS, I::LONG_CHUNK / PANELS),
            _ => (PANELS, I::CHUNK / PANELS),
        };
        let tiles = match w.groups.count {
            // As even as they can be.
            1 => w.groups.total_tiles.div_ceil(w.groups.total_tiles.div_ceil(tiles)),
            _ => tiles,
        };
        let chunks = chunks(w, tiles);
        let product = Product {
            isa,
            w,
            x: &x,
            blocks: &blocks,
            chunks: &chunks,
            grouping,
            form,
            rows: self.rows,
            at_once,
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

/// What one thread needs, roughly: each code is read and unpacked once at 14 a nanosecond on any tier, then each further row costs its products
/// at the rate of 64-byte vectors (a third of it for narrower ones).
fn estimated_ns(w: &CpuWeight, rows: usize, wide: bool) -> usize {
    const CODES_PER_NS: usize = 14;
    const PRODUCTS_PER_NS: usize = 128;
    let codes = w.n * w.groups.k;
    let products = (rows - 1) * codes / PRODUCTS_PER_NS;
    codes / CODES_PER_NS + if wide { products } else { 3 * products }
}

/// Rows from which a chunk is [`Isa::LONG_CHUNK`]: more than few, and where codes are unpacked beyond the nearest cache, enough to pay for it.
fn long_chunk_rows(w: &CpuWeight) -> usize {
    if w.groups.count > 1 || w.bits() < 8 {
        64
    } else {
        FEW_ROWS + 1
    }
}

/// `rows` as blocks of the given sizes, largest first; where every size up to the largest is given, as even as they can be.
fn row_blocks(rows: usize, sizes: &[usize]) -> Vec<(usize, usize)> {
    if sizes.len() == sizes[0] {
        return even_blocks(rows, sizes[0]);
    }
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

/// K in chunks of `most` tiles: of whole groups, or of parts of the only group.
fn chunks(w: &CpuWeight, most: usize) -> Vec<Chunk> {
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
            let room = most.saturating_sub(chunk.tiles.len());
            if whole && tiles.len() > room && open {
                open = false;
                continue;
            }
            let take = if whole { tiles.len() } else { tiles.len().min(room) };
            chunk.groups.push((take, groups.elements(group).len()));
            chunk.tiles.end += take;
            tiles.start += take;
            open = chunk.tiles.len() < most;
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
    pub blocks: &'a [(usize, usize)],
    chunks: &'a [Chunk],
    pub grouping: Grouping,
    pub form: Form,
    rows: usize,
    /// Panels at a time.
    at_once: usize,
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
        let grouped = self.w.groups.count > 1;
        if grouped && self.rows == 1 && I::ONE_ROW > 0 {
            return self.one_row(piece);
        }
        let few = if I::WIDE { FEW_ROWS } else { 1 };
        if !grouped && self.rows <= few && in_place(self.w, self.form) {
            return self.few_rows(piece);
        }
        let mut scratch = Scratch::new(self.w, self.form, self.chunks, self.at_once);
        macro_rules! sections {
            ($form:tt) => {
                match grouped {
                    false => self.sections(piece, Lanes([0i32; CHANNELS]), |of, acc, out| {
                        self.walk(&of, &mut scratch, |chunk, w| {
                            self.dot::<$form>(&of, chunk, w, acc, out)
                        });
                    }),
                    true => self.sections(piece, Lanes([0f32; CHANNELS]), |of, acc, out| {
                        self.walk(&of, &mut scratch, |chunk, w| {
                            self.group_dot::<$form>(&of, chunk, w, acc, out)
                        });
                    }),
                }
            };
        }
        by_form!(I, self.form, sections);
    }

    /// One row by all panels.
    fn one_row(&self, piece: &mut Piece) {
        let x_zero = offset(&self.w.activation) - self.x.rows[0].zero;
        macro_rules! some {
            ($panel:expr, $nr:literal, $acc:expr) => {
                self.isa.enter(OneRowGroups::<_, $nr> {
                    x: &self.x.quads,
                    w: self.w,
                    panel: $panel,
                    x_sums: &self.x.sums,
                    x_zero: self.grouping.factor::<I>(x_zero),
                    grouping: self.grouping,
                    acc: $acc,
                })
            };
        }
        for from in piece.panels.clone().step_by(PANELS) {
            let panels = from..(from + PANELS).min(piece.panels.end);
            let mut acc = [Lanes([0f32; CHANNELS]); PANELS];
            let (pairs, rest) = acc[..panels.len()].as_chunks_mut::<2>();
            let last = from + 2 * pairs.len();
            for (i, pair) in pairs.iter_mut().enumerate() {
                some!(from + 2 * i, 2, pair);
            }
            if let Some(sum) = rest.first_mut() {
                some!(last, 1, core::array::from_mut(sum));
            }
            let of = Section::at_once(panels, piece, self.blocks);
            self.isa.enter(FinishGroups {
                product: self,
                of: &of,
                factors: &Factors::new(self, of.panels.clone()),
                acc: &acc,
                out: &mut piece.rows,
            });
        }
    }

    /// Calls `visit` with some rows by some panels by some chunks at a time, with sums that start at `zero`, over all panels of the
    /// piece. Rows are in the outer loop. Codes of theirs that a near cache cannot keep are cut along K: each slice meets
    /// [`SLICED_PANELS`] panels before the next one, and their sums wait.
    fn sections<T: Copy>(
        &self,
        piece: &mut Piece,
        zero: T,
        mut visit: impl FnMut(Section, &mut [T], &mut [&mut [f32]]),
    ) {
        let panels = piece.panels.clone();
        let rows = |blocks: &[(usize, usize)]| blocks.iter().map(|block| block.1).sum::<usize>();
        let most = rows(self.blocks).min(self.most_rows());
        let slices = self.slices(most);
        let wide = if slices.len() == 1 { self.at_once } else { SLICED_PANELS };
        let of_sums = if self.whole() { LARGEST_BLOCK.min(most) } else { most };
        let mut acc = vec![zero; of_sums * wide.min(panels.len())];
        let mut from = 0;
        while from < self.blocks.len() {
            let start = self.blocks[from].0;
            let more = self.blocks[from..].iter().take_while(|b| b.0 + b.1 <= start + most);
            let blocks = &self.blocks[from..from + more.count()];
            from += blocks.len();
            for side in panels.clone().step_by(wide) {
                let side = side..(side + wide).min(panels.end);
                for (s, chunks) in slices.iter().enumerate() {
                    for first in side.clone().step_by(self.at_once) {
                        let some = first..(first + self.at_once).min(side.end);
                        let (next, chunk) = match slices.get(s + 1) {
                            _ if some.end < side.end => (some.end, chunks.start),
                            Some(slice) => (side.start, slice.start),
                            None if side.end < panels.end => (side.end, 0),
                            None if from < self.blocks.len() => (panels.start, 0),
                            // Of the piece that follows.
                            None => (panels.end, 0),
                        };
                        let of = Section {
                            first: piece.panels.start,
                            chunks: chunks.clone(),
                            next: (next..(next + self.at_once).min(self.w.panels()), chunk),
                            blocks,
                            panels: some,
                        };
                        let acc = match self.whole() {
                            true => &mut acc[..],
                            false => &mut acc[(first - side.start) * rows(blocks)..][..rows(blocks) * of.panels.len()],
                        };
                        visit(of, acc, &mut piece.rows);
                    }
                }
            }
        }
    }

    /// Whether a block goes through all of K at once, so that no sums wait.
    fn whole(&self) -> bool {
        self.chunks.len() == 1
    }

    /// The `len` sums of a block that starts at `at`; those of the next one are asked for. Where no sums wait, all blocks use the same.
    pub(super) fn sums_at<'s, T>(&self, sums: &'s mut [Lanes<T>], at: usize, len: usize) -> &'s mut [Lanes<T>] {
        if self.whole() {
            return &mut sums[..len];
        }
        let (sums, next) = sums[at..].split_at_mut(len);
        next.iter().take(len).for_each(|next| self.isa.prefetch(next, true));
        sums
    }

    /// Rows that meet the codes of some panels before the next ones.
    fn most_rows(&self) -> usize {
        let bytes = self.w.groups.padded_k() / 4 * size_of::<I::Quad>();
        let far = if I::WIDE { FAR_BYTES / bytes } else { 0 };
        far.max(ROWS).max(self.blocks[0].1)
    }

    /// The chunks in slices whose codes of `rows` rows stay in a near cache.
    fn slices(&self, rows: usize) -> Vec<Range<usize>> {
        let near = if I::WIDE { FAR_BYTES } else { SMALL_NEAR_BYTES };
        let bytes = rows * self.w.groups.padded_k() / 4 * size_of::<I::Quad>();
        let count = bytes.div_ceil(near).clamp(1, self.chunks.len());
        let cut = |i| i * self.chunks.len() / count;
        (0..count).map(|i| cut(i)..cut(i + 1)).collect()
    }

    /// Calls `visit` with each chunk of K of some panels.
    fn walk(&self, of: &Section, scratch: &mut Scratch, mut visit: impl FnMut(&Chunk, ChunkOf)) {
        let (w, bits) = (self.w, self.w.bits() as usize);
        let (panels, near) = (&of.panels, self.near);
        for c in of.chunks.clone() {
            let chunk = &self.chunks[c];
            let (after, of) = match c + 1 < of.chunks.end {
                true => (&self.chunks[c + 1], panels),
                false => (&self.chunks[of.next.1], &of.next.0),
            };
            let stride = w.groups.total_tiles * bits;
            let ahead = Ahead::new(
                &w.codes[(of.start * stride + after.tiles.start * bits).min(w.codes.len())..],
                stride,
                of.len(),
                after.tiles.len() * bits,
                near,
            );
            let (lines, groups) = (chunk.tiles.len() * lines_of(self.form), chunk.groups.len());
            for (i, panel) in panels.clone().enumerate() {
                let at = panel * w.groups.count + chunk.first_group;
                self.isa.enter(Prepare {
                    bits: bits as u32,
                    packed: &w.panel(panel)[chunk.tiles.start * bits..chunk.tiles.end * bits],
                    groups: &chunk.groups,
                    quads: part(&mut scratch.quads, i, lines),
                    zero: self.zeros(at, 0),
                    sums: part(&mut scratch.sums, i, groups),
                    values: &w.scale,
                    at,
                    scale: part(&mut scratch.scale, i, groups),
                });
            }
            for panel in of.clone().filter(|_| w.groups.count > 1) {
                let at = panel * w.groups.count + after.first_group;
                let at = at..at + after.groups.len();
                w.scale.fetch(self.isa, at.clone());
                if let Zeros::Codes(zero) = &w.zero {
                    fetch(self.isa, zero, at);
                }
            }
            let codes = match in_place(w, self.form) {
                true => Panels {
                    lines: &w.codes[panels.start * stride + chunk.tiles.start * QUADS..],
                    stride,
                    quads: lines,
                },
                false => Panels {
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
        zeros(self.w, at, shift)
    }
}

/// The zero points of a weight from a place in `[panel][group]` on, less `shift` where they are one.
#[inline(always)]
pub(super) fn zeros(w: &CpuWeight, at: usize, shift: i32) -> GroupZeros<'_> {
    match &w.zero {
        Zeros::None(zero) | Zeros::Same(zero) | Zeros::Float { mid: zero, .. } => {
            GroupZeros::Same(*zero as i32 - shift)
        }
        Zeros::Codes(zero) => GroupZeros::Codes(&zero[at..]),
    }
}

/// Some rows by some panels.
pub(super) struct Section<'a> {
    pub panels: Range<usize>,
    /// First panel of the piece.
    pub first: usize,
    /// The chunks of K.
    pub chunks: Range<usize>,
    /// The panels and the chunk after them.
    pub next: (Range<usize>, usize),
    /// First row and number of rows.
    pub blocks: &'a [(usize, usize)],
}

impl<'a> Section<'a> {
    /// Some panels of a piece by rows that go through all of K at once.
    pub fn at_once(panels: Range<usize>, piece: &Piece, blocks: &'a [(usize, usize)]) -> Self {
        Section {
            panels,
            first: piece.panels.start,
            chunks: 0..0,
            next: (0..0, 0),
            blocks,
        }
    }

    /// The `i`-th block alone.
    pub fn block(&self, i: usize) -> Self {
        Section {
            panels: self.panels.clone(),
            chunks: 0..0,
            next: (0..0, 0),
            blocks: &self.blocks[i..=i],
            ..*self
        }
    }

    /// Asks for the outputs of all rows.
    pub fn fetch_outputs<I: Isa>(&self, isa: I, out: &[&mut [f32]]) {
        let columns = (self.panels.start - self.first) * CHANNELS..(self.panels.end - self.first) * CHANNELS;
        for (first, rows) in self.blocks {
            for row in &out[*first..first + rows] {
                let row = &row[columns.start..columns.end.min(row.len())];
                row.iter()
                    .step_by(CHANNELS)
                    .chain(row.last())
                    .for_each(|at| isa.prefetch(at, true));
            }
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
    fn new(w: &CpuWeight, form: Form, chunks: &[Chunk], panels: usize) -> Self {
        let largest = |size: fn(&Chunk) -> usize| chunks.iter().map(size).max().unwrap_or(0) * panels;
        let (tiles, groups) = (largest(|chunk| chunk.tiles.len()), largest(|chunk| chunk.groups.len()));
        let floats = |needed: bool| vec![Lanes([0.0; CHANNELS]); if needed { groups } else { 0 }];
        let sums = w.groups.count > 1 && needs_sums(&w.activation);
        Self {
            quads: vec![Line::ZERO; if in_place(w, form) { 0 } else { tiles * lines_of(form) }],
            scale: floats(w.groups.count > 1),
            sums: vec![Lanes([0; CHANNELS]); if sums { groups } else { 0 }],
        }
    }
}

/// Whether blocks read the packed codes themselves.
fn in_place(w: &CpuWeight, form: Form) -> bool {
    w.bits() == 8 && form != PAIRS
}

/// The `i`-th part of `len`, or nothing of nothing.
fn part<T>(all: &mut [T], i: usize, len: usize) -> &mut [T] {
    match all.is_empty() {
        true => all,
        false => &mut all[i * len..][..len],
    }
}
