//! Fetching the codes of the next chunk while this one is multiplied.

use super::isa::Isa;
use super::layout::Line;

/// Lines of some panels that will be read next.
#[derive(Clone, Copy)]
pub struct Ahead<'a> {
    /// What is left of the panel.
    panel: &'a [Line],
    /// From the next panel on.
    rest: &'a [Line],
    stride: usize,
    len: usize,
    per_tile: usize,
    near: bool,
}

impl<'a> Ahead<'a> {
    /// Nothing.
    pub const NOTHING: Self = Self {
        panel: &[],
        rest: &[],
        stride: 0,
        len: 0,
        per_tile: 0,
        near: false,
    };

    /// `len` lines of each of `panels` panels, the first at the start of `lines`, the next `stride` lines on; into the nearest cache or the
    /// next one.
    pub fn new(lines: &'a [Line], stride: usize, panels: usize, len: usize, near: bool) -> Self {
        let end = if panels == 0 { 0 } else { (panels - 1) * stride + len };
        let (panel, _) = lines.split_at(len.min(end));
        Self {
            panel,
            rest: lines[..end].get(stride..).unwrap_or_default(),
            stride,
            len,
            near,
            ..Self::NOTHING
        }
    }

    /// Spreads the fetches over `tiles` calls of [`Ahead::fetch`].
    pub fn spread(mut self, tiles: usize) -> Self {
        if self.stride > 0 {
            let panels = 1 + self.rest.len().div_ceil(self.stride);
            self.per_tile = (panels * self.len).div_ceil(tiles.max(1));
        }
        self
    }

    /// Fetches what falls to one tile.
    #[inline(always)]
    pub fn fetch<I: Isa>(&mut self, isa: I) {
        for _ in 0..self.per_tile {
            let Some((line, later)) = self.panel.split_first() else {
                break;
            };
            isa.prefetch(line, self.near);
            self.panel = later;
        }
        if self.panel.is_empty() {
            self.panel = &self.rest[..self.len.min(self.rest.len())];
            self.rest = self.rest.get(self.stride..).unwrap_or_default();
        }
    }
}
