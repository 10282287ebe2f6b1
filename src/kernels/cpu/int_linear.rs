//! Integer products of one chunk of K, or of few rows and all of K: row blocks by panels.

use super::activation::offset;
use super::finish::{Factors, FinishDot, FinishGroups};
use super::int_blocks::{Dot, Form, GroupDot, SHORT_GROUP, keeps_sums};
use super::int_few::FewRows;
use super::isa::Isa;
use super::layout::{CHANNELS, Lanes, QUADS};
use super::linear::{Chunk, ChunkOf, LARGEST_BLOCK, PANELS, Piece, Product, Section, by_block};

/// Tiles that blocks of `rows` by `panels` go through in all, where each goes through `tiles`; `pairs` says whether a block of so many rows
/// takes two panels at a time, not as many as it can.
fn tiles_of_all<I: Isa>(
    blocks: &[(usize, usize)],
    panels: usize,
    tiles: usize,
    pairs: impl Fn(usize) -> bool,
) -> usize {
    let width = |rows: usize| match (I::WIDE, rows) {
        (false, 1) => 2,
        (false, _) => 1,
        (true, 8) => 2,
        (true, rows) if pairs(rows) => 2,
        (true, _) => 4,
    };
    blocks
        .iter()
        .map(|(_, rows)| (panels / width(*rows) + panels % width(*rows)) * tiles)
        .sum()
}

/// The sums of `NR` panels of a block from `panel` on; `lanes` are those of the block, `[panel][row]`.
fn sums_of<T, const MR: usize, const NR: usize>(lanes: &mut [Lanes<T>], panel: usize) -> &mut [[Lanes<T>; MR]; NR] {
    let (panels, _) = lanes.as_chunks_mut::<MR>();
    panels[panel..].first_chunk_mut().expect("a block has its panels")
}

impl<I: Isa> Product<'_, I> {
    pub(super) fn dot<const FORM: Form>(
        &self,
        of: &Section,
        chunk: &Chunk,
        w: ChunkOf,
        acc: &mut [Lanes<i32>],
        out: &mut [&mut [f32]],
    ) {
        let (x, blocks, panels) = (self.x, of.blocks, of.panels.len());
        let (start, row_quads) = (blocks[0].0, self.w.groups.padded_k() / 4);
        let last = chunk.tiles.end == self.w.groups.total_tiles;
        let factors = last.then(|| Factors::new(self, of.panels.clone()));
        let tiles = tiles_of_all::<I>(blocks, panels, chunk.tiles.len(), |_| false);
        let mut ahead = w.ahead.spread(tiles);
        for (i, (first, rows)) in blocks.iter().enumerate() {
            let block = of.block(i);
            if last {
                block.fetch_outputs(self.isa, out);
            }
            let from = first * row_quads + chunk.tiles.start * QUADS * rows;
            let x = &x.quads[from..][..chunk.tiles.len() * QUADS * rows];
            let lanes = self.sums_at(acc, (first - start) * panels, rows * panels);
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {
                    self.isa.enter(Dot::<_, $mr, $nr, FORM> {
                        x,
                        w: w.codes.skip($panel),
                        first: chunk.tiles.start == 0,
                        acc: sums_of(lanes, $panel),
                        ahead: &mut ahead,
                    })
                };
            }
            if I::WIDE {
                by_block!(*rows, panels, call, 8 2, 6 4, 5 4, 4 4, 3 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels, call, 6 1, 4 1, 3 1, 2 1, 1 2);
            }
            if let Some(factors) = &factors {
                self.isa.enter(FinishDot {
                    product: self,
                    of: &block,
                    factors,
                    acc: lanes,
                    out,
                });
            }
        }
    }

    /// Few rows by all panels of the piece.
    pub(super) fn few_rows(&self, piece: &mut Piece) {
        let (x, row_quads) = (self.x, self.w.groups.padded_k() / 4);
        let mut acc = [Lanes([0; CHANNELS]); LARGEST_BLOCK * PANELS];
        for from in piece.panels.clone().step_by(PANELS) {
            let panels = PANELS.min(piece.panels.end - from);
            let of = Section::at_once(from..from + panels, piece, self.blocks);
            of.fetch_outputs(self.isa, &piece.rows);
            let factors = Factors::new(self, of.panels.clone());
            for (i, (first, rows)) in self.blocks.iter().enumerate() {
                let x = &x.quads[first * row_quads..][..rows * row_quads];
                macro_rules! call {
                    ($mr:literal, $nr:literal, $panel:expr) => {
                        self.isa.enter(FewRows::<_, $mr, $nr> {
                            x,
                            codes: &self.w.codes[(from + $panel) * self.w.groups.total_tiles * QUADS..],
                            acc: sums_of(&mut acc[..rows * panels], $panel),
                        })
                    };
                }
                if I::WIDE {
                    by_block!(*rows, panels, call, 8 2, 6 4, 5 4, 4 4, 3 4, 2 4, 1 4);
                } else {
                    by_block!(*rows, panels, call, 1 2);
                }
                self.isa.enter(FinishDot {
                    product: self,
                    of: &of.block(i),
                    factors: &factors,
                    acc: &acc,
                    out: &mut piece.rows,
                });
            }
        }
    }

    pub(super) fn group_dot<const FORM: Form>(
        &self,
        of: &Section,
        chunk: &Chunk,
        w: ChunkOf,
        acc: &mut [Lanes<f32>],
        out: &mut [&mut [f32]],
    ) {
        let (x, blocks, panels) = (self.x, of.blocks, &of.panels);
        let last = chunk.tiles.end == self.w.groups.total_tiles;
        let factors = last.then(|| Factors::new(self, of.panels.clone()));
        let groups = self.w.groups.count;
        let (start, row_quads) = (blocks[0].0, self.w.groups.padded_k() / 4);
        let offset = offset(&self.w.activation);
        let short = self.w.groups.tiles(0).len() <= SHORT_GROUP;
        let pairs = |rows| short && keeps_sums::<I>(FORM, rows, 2);
        let tiles = tiles_of_all::<I>(blocks, panels.len(), chunk.tiles.len(), pairs);
        let mut ahead = w.ahead.spread(tiles);
        for (i, (first, rows)) in blocks.iter().enumerate() {
            let block = of.block(i);
            if last {
                block.fetch_outputs(self.isa, out);
            }
            let from = first * row_quads + chunk.tiles.start * QUADS * rows;
            let quads = &x.quads[from..][..chunk.tiles.len() * QUADS * rows];
            let lanes = self.sums_at(acc, (first - start) * panels.len(), rows * panels.len());
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {{
                    let mut x_zeros = [0; $mr];
                    for (zero, row) in x_zeros.iter_mut().zip(&x.rows[*first..]) {
                        *zero = self.grouping.factor::<I>(offset - row.zero);
                    }
                    self.isa.enter(GroupDot::<_, $mr, $nr, FORM> {
                        x: quads,
                        w: w.codes.skip($panel),
                        chunk_groups: &chunk.groups,
                        x_sums: &x.sums[first * groups + chunk.first_group * rows..],
                        x_zeros,
                        scale: &w.scale[$panel * w.groups..],
                        w_sums: w.sums.get($panel * w.groups..).unwrap_or_default(),
                        stride: w.groups,
                        zero: self.zeros(
                            (panels.start + $panel) * groups + chunk.first_group,
                            I::WEIGHT_SHIFT,
                        ),
                        groups,
                        grouping: self.grouping,
                        first: chunk.tiles.start == 0,
                        acc: sums_of(lanes, $panel),
                        ahead: &mut ahead,
                    })
                }};
            }
            if pairs(*rows) {
                by_block!(*rows, panels.len(), call, 6 2, 5 2);
            } else if I::WIDE {
                by_block!(*rows, panels.len(), call, 8 2, 6 4, 5 4, 4 4, 3 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels.len(), call, 6 1, 4 1, 3 1, 2 1, 1 2);
            }
            if let Some(factors) = &factors {
                self.isa.enter(FinishGroups {
                    product: self,
                    of: &block,
                    factors,
                    acc: lanes,
                    out,
                });
            }
        }
    }
}
