//! The product of f16 or bf16 activations with a weight of codes through matrix instructions and a ring of stages in shared memory.
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::fragments::BLOCK;
use super::mma_direct;
use super::mma_halves::{Rule, Sizes, add_group, finish, multiply, no_sums, numbers, parameters, take};
use super::ring::{Line, NoShapes, Source, SourceArgs, cubes, enter, leave, place_of, prepare, start, weight_boxes};
use super::select::{Tiling, Way};
use super::weight::CubeWeight;
use super::wgmma_float;
use crate::dtype::FloatDtype;
use cubecl::prelude::*;

#[cube(launch_unchecked)]
fn product<F: Float>(
    source: &Source,
    scales: &Array<f32>,
    zeros: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    _shapes: NoShapes,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let shape = comptime!(rule.shape);
    let tiling = comptime!(shape.tiling);
    let (stages, in_stage, lines_of) = comptime!((tiling.stages, tiling.blocks, shape.lines()));
    let (w_stage, x_stage) = comptime!((shape.w_stage(), shape.x_stage()));
    let (piece, row, share) = comptime!((shape.piece(), shape.row(), shape.share()));
    let mut ring = prepare(shape);
    let place = place_of(sizes.rows, sizes.n, sizes.blocks, shape);
    start(&mut ring, source, &place, shape);

    let plane_k = place.plane_k;
    let rounds = place.steps.div_ceil(stages);
    let mt = comptime!(tiling.rows);
    let rt = comptime!(tiling.tiles);
    let sums_groups = comptime!(rule.sums_groups());

    let mut acc = no_sums(tiling);
    let mut total = no_sums(tiling);

    let mut held = parameters(scales, zeros, &place, &sizes, rule);

    for round in 0..rounds {
        #[unroll]
        for s in 0..stages {
            let step = round * stages + s;
            if comptime!(shape.even).runtime() || step < place.steps {
                let own = take(&mut held, scales, zeros, &place, step, &sizes, s, rule);
                let first = step * in_stage;
                enter(&mut ring, source, &place, round, s, shape);
                #[unroll]
                for b in 0..share {
                    let block = first + b + plane_k * share;
                    if comptime!(shape.whole).runtime() || block < place.blocks {
                        #[unroll]
                        for q in 0..2usize {
                            let mut rows = Array::<Line>::new(mt);
                            #[unroll]
                            for j in 0..mt {
                                rows[j] =
                                    ring.x[place.own_x + comptime!(s * x_stage + (2 * b + q) * piece + j * 8 * row)];
                            }
                            let r = comptime!(rule.group_in_step(b, q));
                            let mut lines = Array::<Line>::new(rt);
                            #[unroll]
                            for i in 0..rt {
                                let at = comptime!(s * w_stage + (i * in_stage + b) * lines_of + rule.line_of(q) * 32);
                                lines[i] = ring.w[place.own_w + at];
                            }
                            multiply::<F>(&rows, &lines, &mut acc, &own.scales, &own.zeros, &sizes, r, q, rule);
                            if comptime!(rule.ends_group(b, q)) {
                                add_group(&mut acc, &mut total, &own.scales, r, rule);
                            }
                        }
                    }
                }
                leave(&ring, &place, s);
            }
        }
    }

    let sums = if sums_groups { total } else { acc };
    finish::<F>(&sums, &place, scales, bias, y, &sizes, rule);
}

/// `y [rows, N]` of activations `x [rows, K]` of f16 or bf16; `rows` is at least 1.
pub(super) fn float_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    tiling: Tiling,
    dtype: FloatDtype,
    bias: Option<&Buffer>,
) -> Buffer {
    let layout = weight.layout;
    // Few copies a stage.
    let runs = tiling.cube_rows() <= 16;
    let rule = Rule::new(weight, tiling, runs, dtype, bias.is_some());
    if tiling.way == Way::Direct {
        return mma_direct::float_product(weight, x, rows, rule, bias);
    }
    if tiling.way == Way::Warpgroups {
        return wgmma_float::float_product(weight, x, rows, rule, bias);
    }
    let blocks = layout.k / BLOCK;
    let source = if runs {
        SourceArgs::Runs(x.arg_of(16), weight.words.arg_of(16))
    } else {
        SourceArgs::Maps(
            x.map(
                [2 * blocks, rows, 16],
                [16, layout.k / 2, 1],
                [2 * tiling.blocks, tiling.cube_rows(), 16],
                TensorMapSwizzle::None,
            ),
            weight_boxes(weight, tiling),
        )
    };
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    // SAFETY: the kernel holds channels and groups below their number where it reads scales, zero points and the bias, and asks whether
    // row and channel exist before it writes. Copies are of tiles, blocks and rows that exist, or of maps, which are 0 outside their
    // shape. Loops end with the blocks of K.
    unsafe {
        product::launch_unchecked(
            &weight.client,
            cubes(weight, tiling, rows),
            CubeDim::new_2d(32, tiling.planes() as u32),
            source,
            weight.scales.arg(),
            weight.zeros.arg(),
            bias.unwrap_or(&y).arg(),
            y.arg(),
            (!runs).then(|| y.arg()),
            numbers(weight, rows, &rule),
            rule,
            super::storage(dtype),
        );
    }
    y
}
