//! A kernel that tells a profiler where a row begins and ends.

use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

#[cube(launch)]
fn row_marker(out: &mut Array<u32>) {
    if ABSOLUTE_POS == 0 {
        out[0] = 1u32;
    }
}

/// Launches the marker on `(row + 1) × 1` cubes at the begin of a row, on `(row + 1) × 2` at its end.
pub fn mark<R: CubeRuntime>(device: &R::CubeDevice, row: usize, end: bool) {
    let client = R::client(device);
    let out = client.empty(4);
    // SAFETY: the memory holds one element of 4 bytes.
    let out = unsafe { ArrayArg::from_raw_parts(out, 1) };
    let count = CubeCount::Static(row as u32 + 1, 1 + u32::from(end), 1);
    row_marker::launch::<R>(&client, count, CubeDim::new_3d(7, 3, 1), out);
}
