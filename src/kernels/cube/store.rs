//! Outputs of a cube through shared memory, so that neighbouring units write neighbouring channels, 16 bytes each.
#![allow(unsafe_code)]

use super::ring::{Place, Ring};
use super::select::Tiling;
use cubecl::prelude::*;

type One<F> = Vector<F, Const<1>>;

/// The outputs of a cube, `[row][channel]`.
#[derive(CubeType)]
pub(super) struct Outputs<F: Float> {
    values: SharedMemory<F>,
}

/// Elements from a row to the next: 16 bytes or more that nobody writes keep rows in different banks.
const fn pitch(tiling: Tiling) -> usize {
    tiling.planes_n * tiling.tiles * 16 + 8
}

/// Takes the place of the ring, when every plane is done with it.
#[cube]
pub(super) fn outputs<F: Float>(ring: Ring, #[comptime] tiling: Tiling) -> Outputs<F> {
    sync_cube();
    // SAFETY: no copy is on its way, no unit of the cube reads a stage any more, and nothing else refers to them.
    unsafe {
        ring.w.free();
        ring.x.free();
    }
    Outputs::<F> {
        values: SharedMemory::<F>::new_aligned(comptime!(tiling.cube_rows() * pitch(tiling)), 128usize),
    }
}

/// Puts the values of the plane's `i`-th tile, channel g (`h` = 0) or g + 8: of rows 2t and 2t + 1 of each tile of 8.
#[cube]
pub(super) fn put<F: Float>(
    outputs: &mut Outputs<F>,
    values: &Array<F>,
    place: &Place,
    #[comptime] i: usize,
    #[comptime] h: usize,
    #[comptime] tiling: Tiling,
) {
    let channel = (place.own_tile + i) * 16 + comptime!(8 * h) + place.lane / 4;
    #[unroll]
    for at in 0..comptime!(2 * tiling.rows) {
        let row = place.own_row + comptime!(at / 2 * 8 + at % 2) + 2 * (place.lane % 4);
        outputs.values[row * comptime!(pitch(tiling)) + channel] = values[at];
    }
}

/// Writes what all planes have put to the cube's slice of `y [slice][rows, n]`.
#[cube]
pub(super) fn write<F: Float>(
    outputs: &Outputs<F>,
    y: &mut Array<F>,
    place: &Place,
    rows: u32,
    n: u32,
    #[comptime] tiling: Tiling,
) {
    sync_cube();
    let (rows, n) = (rows as usize, n as usize);
    let (channels, pitch) = comptime!((tiling.cube_channels(), pitch(tiling)));
    let units = comptime!(tiling.planes() * 32);
    #[unroll]
    for turn in 0..comptime!((tiling.cube_rows() * channels / 8).div_ceil(units)) {
        let at = comptime!(turn * units) + UNIT_POS as usize;
        let (own_row, own) = (at / comptime!(channels / 8), at % comptime!(channels / 8) * 8);
        let (row, channel) = (place.first_row + own_row, place.first_tile * 16 + own);
        if own_row < comptime!(tiling.cube_rows()) && row < rows && channel < n {
            let from = own_row * pitch + own;
            let to = (place.slice * rows + row) * n + channel;
            if n % 8 == 0 {
                // SAFETY: an element is a vector of one.
                let (values, into) = unsafe {
                    (
                        outputs.values.slice(from, from + 8).downcast_unchecked::<One<F>>(),
                        y.slice_mut(to, to + 8).downcast_unchecked::<One<F>>(),
                    )
                };
                into.with_vector_size::<Const<8>>()[0] = values.with_vector_size::<Const<8>>()[0];
            } else {
                for c in 0..min(8usize, n - channel) {
                    y[to + c] = outputs.values[from + c];
                }
            }
        }
    }
}
