//! Float products of one chunk of K: row blocks by panels.

use super::blocks::Tile;
use super::float_blocks::{FloatDot, FloatMode};
use super::isa::Isa;
use super::layout::{Lanes, TILE};
use super::linear::{Chunk, ChunkOf, PANELS, Product, by_block};
use super::weight::Zeros;
use core::ops::Range;

impl<I: Isa> Product<'_, I> {
    pub(super) fn float_dot(
        &self,
        x: &[f32],
        blocks: &[(usize, usize)],
        chunk: &Chunk,
        w: ChunkOf,
        panels: &Range<usize>,
        acc: &mut [Lanes<f32>],
    ) {
        let groups = self.w.groups.count;
        let (start, padded) = (blocks[0].0, self.w.groups.padded_k());
        let mode = self.float_mode();
        for (first, rows) in blocks {
            let from = first * padded + chunk.tiles.start * TILE * rows;
            let x = &x[from..][..chunk.tiles.len() * TILE * rows];
            let lanes = &mut acc[(first - start) * PANELS..];
            macro_rules! call {
                ($mr:literal, $nr:literal, $panel:expr) => {{
                    let at = (panels.start + $panel) * groups + chunk.first_group;
                    self.isa.enter(FloatDot::<$mr, $nr> {
                        x,
                        w: w.codes.skip($panel),
                        mode,
                        dtype: self.dtype,
                        tiles: &chunk.sizes,
                        scale: w.scale.get($panel * w.groups..).unwrap_or_default(),
                        scale_stride: w.groups,
                        zero: self.zeros(at, 0),
                        value: w.value.get($panel * w.groups..).unwrap_or_default(),
                        groups,
                        acc: Tile {
                            lanes: &mut lanes[$panel..],
                            stride: PANELS,
                        },
                    })
                }};
            }
            if I::WIDE {
                by_block!(*rows, panels.len(), call, 24 1, 12 2, 8 2, 4 4, 2 4, 1 4);
            } else {
                by_block!(*rows, panels.len(), call, 6 1, 4 1, 2 1, 1 1);
            }
        }
    }

    /// How codes become floats.
    pub fn float_mode(&self) -> FloatMode {
        match (&self.w.zero, self.w.groups.count) {
            (Zeros::Float { .. }, _) => FloatMode::FloatZero,
            (_, 1) => FloatMode::Plain,
            _ => FloatMode::Scaled,
        }
    }
}
