//! Float activations in the order that the weight-only products read.

use super::activation::PARALLEL_ELEMENTS;
use super::isa::{Block, Isa};
use super::layout::{Groups, TILE};
use rayon::prelude::*;

/// Float activations as `[block][padded K][rows of the block]`; a row that holds a NaN or an infinity is marked and becomes 0.
/// Rows of the last block that `x` lacks are 0.
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
            x: &x[first * groups.k..((first + count) * groups.k).min(x.len())],
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
    fn run(self, isa: I) {
        let (k, count) = (self.groups.k, self.bad.len());
        for (row, bad) in self.x.chunks_exact(k).zip(self.bad.iter_mut()) {
            *bad = holds_bad(row);
        }
        for group in 0..self.groups.count {
            let elements = self.groups.elements(group);
            let from = self.groups.tiles(group).start * TILE;
            let out = &mut self.out[from * count..][..elements.len() * count];
            if count == 1 {
                out.copy_from_slice(&self.x[elements]);
                continue;
            }
            let given = self.x.len() / k;
            let mut rows = self.x.chunks_exact(k).map(|row| &row[elements.clone()]);
            let mut r = 0;
            while given - r >= 4 {
                let mut four: [&[f32]; 4] = [&[]; 4];
                four.iter_mut().zip(&mut rows).for_each(|(to, row)| *to = row);
                transpose::<I, 4>(isa, four, &mut out[r..], count);
                r += 4;
            }
            if given - r >= 2 {
                let mut two: [&[f32]; 2] = [&[]; 2];
                two.iter_mut().zip(&mut rows).for_each(|(to, row)| *to = row);
                transpose::<I, 2>(isa, [two[0], two[1], two[0], two[1]], &mut out[r..], count);
                r += 2;
            }
            for row in rows {
                for (value, out) in row.iter().zip(out[r..].iter_mut().step_by(count)) {
                    *out = *value;
                }
                r += 1;
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

/// Whether a value is NaN or infinite.
#[inline(always)]
fn holds_bad(x: &[f32]) -> bool {
    const LANES: usize = 32;
    let mut largest = [0i32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    let magnitude = |x: f32| x.to_bits() as i32 & i32::MAX;
    for chunk in chunks {
        for i in 0..LANES {
            largest[i] = largest[i].max(magnitude(chunk[i]));
        }
    }
    let tail = tail.iter().map(|x| magnitude(*x)).max().unwrap_or(0);
    largest.into_iter().fold(tail, i32::max) >= 0x7f80_0000
}

/// The first `ROWS` rows become neighbours every `stride` values.
#[inline(always)]
fn transpose<I: Isa, const ROWS: usize>(isa: I, [a, b, c, d]: [&[f32]; 4], out: &mut [f32], stride: usize) {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let ((c, c_tail), (d, d_tail)) = (c.as_chunks::<4>(), d.as_chunks::<4>());
    let mut at = 0;
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        let out = &mut out[at..at + 3 * stride + ROWS];
        let columns = isa.transpose([a, b, c, d]);
        for (i, column) in columns.iter().enumerate() {
            out[i * stride..i * stride + ROWS].copy_from_slice(&column[..ROWS]);
        }
        at += 4 * stride;
    }
    for (((a, b), c), d) in a_tail.iter().zip(b_tail).zip(c_tail).zip(d_tail) {
        out[at..at + ROWS].copy_from_slice(&[*a, *b, *c, *d][..ROWS]);
        at += stride;
    }
}
