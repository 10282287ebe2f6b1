//! What the inner blocks of every product share: MR rows of activations by NR panels of 16 channels, over some tiles of K.

use super::layout::{CHANNELS, Line};

/// `rows` in blocks of at most `most`, as even as they can be: the first row of each and their number.
pub fn even_blocks(rows: usize, most: usize) -> Vec<(usize, usize)> {
    let count = rows.div_ceil(most);
    let cut = |i| i * rows / count;
    (0..count).map(|i| (cut(i), cut(i + 1) - cut(i))).collect()
}

/// Quads of some panels over the same tiles.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    /// One code a byte.
    pub lines: &'a [Line],
    /// Lines from one panel to the next.
    pub stride: usize,
    /// Lines of each panel.
    pub quads: usize,
}

impl<'a> Panels<'a> {
    /// From the `panel`-th on.
    pub fn skip(self, panel: usize) -> Self {
        Self {
            lines: &self.lines[panel * self.stride..],
            ..self
        }
    }

    #[inline(always)]
    pub fn split<const NR: usize>(self) -> [&'a [Line]; NR] {
        let mut out: [&[Line]; NR] = [&[]; NR];
        for (j, out) in out.iter_mut().enumerate() {
            *out = &self.lines[j * self.stride..][..self.quads];
        }
        out
    }
}

/// The zero points of weights in a grouped integer product, less [`Isa::WEIGHT_SHIFT`] where they are one.
#[derive(Clone, Copy)]
pub enum GroupZeros<'a> {
    /// The same for all.
    Same(i32),
    /// `[panel][group]`, as stored.
    Codes(&'a [[u8; CHANNELS]]),
}
