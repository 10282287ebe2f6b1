//! Integer products of one chunk of K: row blocks by panels.

use super::activation::{Activations, offset};
use super::blocks::{Panels, Tile};
use super::int_blocks::{Dot, GroupDot};
use super::isa::Isa;
use super::layout::{Lanes, QUADS};
use super::linear::{Chunk, ChunkOf, PANELS, Product, by_block};
use core::ops::Range;

impl<I: Isa> Product<'_, I> {
    pub(super) fn dot(
        &self,
        x: &Activations<I::Quad>,
        blocks: &[(usize, usize)],
        chunk: &Chunk,
        w: Panels,
        panels: usize,
        acc: &mut [Lanes<i32>],
    ) {
        let (start, row_quads) = (blocks[0].0, self.w.groups.padded_k() / 4);
        for (first, rows) in blocks {
            let from = first * row_quads + chunk.tiles.start * QUADS * rows;
            let x = &x.quads[from..][..chunk.tiles.len() * QUADS * rows];
            let lanes = &mut acc[(first - start) * PANELS..];
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {
                    self.isa.enter(Dot::<_, $mr, $nr> {
                        x,
                        w: w.skip($panel),
                        acc: Tile {
                            lanes: &mut lanes[$panel..],
                            stride: PANELS,
                        },
                    })
                };
            }
            if I::WIDE {
                by_block!(*rows, panels, call, 6 4, 4 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels, call, 4 1, 2 1, 1 1);
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
        for (first, rows) in blocks {
            let from = first * row_quads + chunk.tiles.start * QUADS * rows;
            let quads = &x.quads[from..][..chunk.tiles.len() * QUADS * rows];
            let lanes = &mut acc[(first - start) * PANELS..];
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {{
                    let at = (panels.start + $panel) * groups + chunk.first_group;
                    let mut x_zeros = [0; $mr];
                    for (zero, row) in x_zeros.iter_mut().zip(&x.rows[*first..]) {
                        *zero = row.zero - offset;
                    }
                    self.isa.enter(GroupDot::<_, $mr, $nr> {
                        x: quads,
                        w: w.codes.skip($panel),
                        tiles: &chunk.sizes,
                        x_sums: &x.sums[first * groups + chunk.first_group..],
                        x_zeros,
                        scale: w.scale.get($panel * w.groups..).unwrap_or_default(),
                        scale_stride: w.groups,
                        zero: self.zeros(at, I::WEIGHT_SHIFT),
                        w_sums: self.w.sums.get(at..).unwrap_or_default(),
                        groups,
                        sums: Tile {
                            lanes: &mut lanes[$panel..],
                            stride: PANELS,
                        },
                    })
                }};
            }
            if I::WIDE {
                by_block!(*rows, panels.len(), call, 6 4, 4 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels.len(), call, 4 1, 2 1, 1 1);
            }
        }
    }
}
