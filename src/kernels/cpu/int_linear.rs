//! Integer products of one chunk of K: row blocks by panels.

use super::activation::{Activations, offset};
use super::blocks::Tile;
use super::int_blocks::{Dot, GroupDot, narrow_quads};
use super::isa::Isa;
use super::layout::{Lanes, QUADS};
use super::linear::{Chunk, ChunkOf, PANELS, Product, by_block};
use core::ops::Range;

/// Largest group whose sums of 8-bit codes fit 16 bits.
const SMALL_GROUP: usize = 128;

/// Tiles that blocks of `rows` by `panels` go through in all, where each goes through `tiles`.
fn tiles_of_all<I: Isa>(blocks: &[(usize, usize)], panels: usize, tiles: usize) -> usize {
    let width = |rows: usize| match (I::WIDE, rows) {
        (false, 1) => 2,
        (false, _) => 1,
        (true, 8..) => 2,
        (true, _) => 4,
    };
    blocks
        .iter()
        .map(|(_, rows)| (panels / width(*rows) + panels % width(*rows)) * tiles)
        .sum()
}

impl<I: Isa> Product<'_, I> {
    pub(super) fn dot(
        &self,
        x: &Activations<I::Quad>,
        blocks: &[(usize, usize)],
        chunk: &Chunk,
        w: ChunkOf,
        panels: usize,
        acc: &mut [Lanes<i32>],
    ) {
        let (start, row_quads) = (blocks[0].0, self.w.groups.padded_k() / 4);
        let narrow = narrow_quads::<I>(self.w.bits());
        let mut ahead = w.ahead.spread(tiles_of_all::<I>(blocks, panels, chunk.tiles.len()));
        for (first, rows) in blocks {
            let from = first * row_quads + chunk.tiles.start * QUADS * rows;
            let x = &x.quads[from..][..chunk.tiles.len() * QUADS * rows];
            let lanes = &mut acc[(first - start) * PANELS..];
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {
                    self.isa.enter(Dot::<_, $mr, $nr> {
                        x,
                        w: w.codes.skip($panel),
                        narrow,
                        acc: Tile {
                            lanes: &mut lanes[$panel..],
                            stride: PANELS,
                        },
                        ahead: &mut ahead,
                    })
                };
            }
            if I::WIDE {
                by_block!(*rows, panels, call, 12 2, 8 2, 4 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels, call, 6 1, 4 1, 3 1, 2 1, 1 2);
            }
        }
    }

    pub(super) fn group_dot(
        &self,
        x: &Activations<I::Quad>,
        blocks: &[(usize, usize)],
        chunk: &Chunk,
        w: ChunkOf,
        panels: &Range<usize>,
        acc: &mut [Lanes<f32>],
    ) {
        let groups = self.w.groups.count;
        let (start, row_quads) = (blocks[0].0, self.w.groups.padded_k() / 4);
        let offset = offset(&self.w.activation);
        let narrow = narrow_quads::<I>(self.w.bits());
        let mut ahead = w
            .ahead
            .spread(tiles_of_all::<I>(blocks, panels.len(), chunk.tiles.len()));
        for (first, rows) in blocks {
            let from = first * row_quads + chunk.tiles.start * QUADS * rows;
            let quads = &x.quads[from..][..chunk.tiles.len() * QUADS * rows];
            let lanes = &mut acc[(first - start) * PANELS..];
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {{
                    let mut x_zeros = [0; $mr];
                    for (zero, row) in x_zeros.iter_mut().zip(&x.rows[*first..]) {
                        *zero = row.zero - offset;
                    }
                    self.isa.enter(GroupDot::<_, $mr, $nr> {
                        x: quads,
                        w: w.codes.skip($panel),
                        narrow,
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
                        small: self.w.groups.size <= SMALL_GROUP,
                        sums: Tile {
                            lanes: &mut lanes[$panel..],
                            stride: PANELS,
                        },
                        ahead: &mut ahead,
                    })
                }};
            }
            if I::WIDE {
                by_block!(*rows, panels.len(), call, 12 2, 8 2, 4 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels.len(), call, 6 1, 4 1, 3 1, 2 1, 1 2);
            }
        }
    }
}
