//! Activations in the order in which matrix instructions that read shared memory meet the codes of [`fragments`](super::fragments).
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::grid::Grid;
use super::ring::Line;
use cubecl::prelude::*;

/// Units of a cube.
const UNITS: usize = 256;

#[cube(launch_unchecked)]
fn transpose(x: &Array<Line>, y: &mut Array<Line>, pieces: u32) {
    let cube = CUBE_POS_Y as usize + CUBE_POS_Z as usize * CUBE_COUNT_Y as usize;
    let piece = cube * UNITS + UNIT_POS as usize;
    if piece < pieces as usize {
        let mut from = Array::<Line>::new(4usize);
        #[unroll]
        for line in 0..4usize {
            from[line] = x[piece * 4 + line];
        }
        #[unroll]
        for word in 0..4usize {
            let mut into = Line::empty();
            #[unroll]
            for line in 0..4usize {
                into[line] = from[line][word];
            }
            y[piece * 4 + word] = into;
        }
    }
}

/// The `bytes` of `x`, of which each 64 are a matrix of 4 × 4 words that is transposed: where a lane has its words of half a block of halves, or
/// of a block of int8, side by side, an instruction wants the first words of all lanes side by side.
///
/// # Panics
/// If 64 does not divide `bytes`.
pub(super) fn transposed<R: Runtime>(client: &ComputeClient<R>, x: &Buffer, bytes: usize) -> Buffer {
    let pieces = bytes / 64;
    assert!(pieces * 64 == bytes, "{bytes} bytes are no pieces of 64");
    let y = Buffer::empty(client, bytes / 4, size_of::<u32>());
    let cubes = pieces.div_ceil(UNITS);
    // SAFETY: a unit asks whether its piece exists; `x` holds `bytes`, as `arg_of` counts them, and so does `y`.
    unsafe {
        transpose::launch_unchecked(
            client,
            Grid::new(1, cubes).count(),
            CubeDim::new_1d(UNITS as u32),
            x.arg_of(16),
            y.arg_of(16),
            pieces as u32,
        );
    }
    y
}
