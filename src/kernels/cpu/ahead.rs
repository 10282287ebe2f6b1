//! Fetching the codes of the next chunk while this one is multiplied.

use super::isa::Isa;
use super::layout::Line;

/// Lines of some panels that will be read next.
#[derive(Clone, Copy)]
pub struct Ahead<'a> {
    lines: &'a [Line],
    stride: usize,
    len: usize,
    /// Start of the panel, and the line in it.
    at: (usize, usize),
    per_tile: usize,
    near: bool,
}

impl<'a> Ahead<'a> {
    /// Nothing.
    pub const NOTHING: Self = Self {
        lines: &[],
        stride: 0,
        len: 0,
        at: (0, 0),
        per_tile: 0,
        near: false,
    };

    /// `len` lines of each of `panels` panels, the first at the start of `lines`, the next `stride` lines on; into the nearest cache or the
    /// next one.
    pub fn new(lines: &'a [Line], stride: usize, panels: usize, len: usize, near: bool) -> Self {
        let end = if panels == 0 { 0 } else { (panels - 1) * stride + len };
        Self {
            lines: &lines[..end],
            stride,
            len,
            near,
            ..Self::NOTHING
        }
    }

    /// Spreads the fetches over `tiles` calls of [`Ahead::fetch`].
    pub fn spread(mut self, tiles: usize) -> Self {
        if self.stride > 0 {
            let panels = self.lines.len().div_ceil(self.stride);
            self.per_tile = (panels * self.len).div_ceil(tiles.max(1));
        }
        self
    }

    /// Fetches what falls to one tile.
    #[inline(always)]
    pub fn fetch<I: Isa>(&mut self, isa: I) {
        for _ in 0..self.per_tile {
            let Some(line) = self.lines.get(self.at.0 + self.at.1) else {
                return;
            };
            isa.prefetch(line, self.near);
            self.at.1 += 1;
            if self.at.1 == self.len {
                self.at = (self.at.0 + self.stride, 0);
            }
        }
    }
}
