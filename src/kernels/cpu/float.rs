//! Float activations in the order that the weight-only products read.

use super::activation::{PARALLEL_ELEMENTS, scan};
use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Groups, TILE};
use rayon::prelude::*;

/// Float activations as `[block][padded K][rows of the block]`; a row that holds a NaN or an infinity is marked and becomes 0.
pub fn pack_floats<I: Isa>(isa: I, x: &[f32], groups: &Groups, blocks: &[(usize, usize)]) -> (Vec<f32>, Vec<bool>) {
    let rows: usize = blocks.iter().map(|block| block.1).sum();
    let padded = groups.padded_k();
    let mut out = vec![0.0; rows * padded];
    let mut bad = vec![false; rows];
    let mut parts = Vec::with_capacity(blocks.len());
    let (mut out_rest, mut bad_rest) = (&mut out[..], &mut bad[..]);
    for (first, count) in blocks {
        let (block, bad);
        (block, out_rest) = out_rest.split_at_mut(count * padded);
        (bad, bad_rest) = bad_rest.split_at_mut(*count);
        parts.push(PackFloats {
            x: &x[first * groups.k..(first + count) * groups.k],
            groups,
            out: block,
            bad,
        });
    }
    if rows * padded < PARALLEL_ELEMENTS {
        parts.into_iter().for_each(|part| isa.enter(part));
    } else {
        parts.into_par_iter().for_each(|part| isa.enter(part));
    }
    (out, bad)
}

struct PackFloats<'a> {
    x: &'a [f32],
    groups: &'a Groups,
    out: &'a mut [f32],
    bad: &'a mut [bool],
}

impl<I: Isa> Block<I> for PackFloats<'_> {
    #[inline(always)]
    fn run(self, _: I) {
        let (k, count) = (self.groups.k, self.bad.len());
        for (row, bad) in self.x.chunks_exact(k).zip(self.bad.iter_mut()) {
            *bad = scan(row).bad;
        }
        for group in 0..self.groups.count {
            let elements = self.groups.elements(group);
            let from = self.groups.tiles(group).start * TILE;
            let out = &mut self.out[from * count..][..elements.len() * count];
            if count == 1 {
                out.copy_from_slice(&self.x[elements]);
                continue;
            }
            for (r, row) in self.x.chunks_exact(k).enumerate() {
                let row = &row[elements.clone()];
                let (chunks, tail) = row.as_chunks::<CHANNELS>();
                let mut out = out.chunks_exact_mut(count * CHANNELS);
                for (chunk, out) in chunks.iter().zip(&mut out) {
                    let out = &mut out[r..r + (CHANNELS - 1) * count + 1];
                    for i in 0..CHANNELS {
                        out[i * count] = chunk[i];
                    }
                }
                for (value, out) in tail.iter().zip(out.into_remainder().chunks_exact_mut(count)) {
                    out[r] = *value;
                }
            }
        }
        for r in (0..count).filter(|r| self.bad[*r]) {
            self.out
                .iter_mut()
                .skip(r)
                .step_by(count)
                .for_each(|value| *value = 0.0);
        }
    }
}
