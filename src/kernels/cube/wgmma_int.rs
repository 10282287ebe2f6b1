//! The product of many rows of int8 activations with a weight of integer codes without groups on Hopper: codes are first operands in registers,
//! four planes multiply them by rows in shared memory.
#![allow(unsafe_code)]

use super::activation::Codes;
use super::buffer::Buffer;
use super::fragments::BLOCK;
use super::mma_int::{Rule, Sizes, channels_of, numbers, outputs_of, token_parameters};
use super::ring::{NoShapes, Pair, Source, SourceArgs, cubes, enter, leave, place_of, prepare, start, weight_boxes};
use super::store::{outputs, put, write};
use super::weight::CubeWeight;
use super::wgmma::{self, Rows};
use cubecl::prelude::*;

#[cube(launch_unchecked)]
fn product<F: Float>(
    source: &Source,
    parameters: &Array<f32>,
    scales: &Array<f32>,
    sums: &Array<i32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    _shapes: NoShapes,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let shape = comptime!(rule.shape);
    let tiling = comptime!(shape.tiling);
    let (stages, in_stage, lines) = comptime!((tiling.stages, tiling.blocks, shape.lines()));
    let (w_stage, x_stage) = comptime!((shape.w_stage(), shape.x_stage()));
    let (rt, mt) = comptime!((tiling.tiles, tiling.rows));
    let kind = Rows::Int8;
    let mut ring = prepare(shape);
    let place = place_of(sizes.rows, sizes.n, sizes.blocks, shape);
    start(&mut ring, source, &place, shape);

    let rounds = place.steps.div_ceil(stages);
    let mut acc = wgmma::zeros::<i32>(rt, comptime!(4 * mt));
    let rows_at = wgmma::address(&ring.x) + place.own_row as u32 * comptime!(kind.bytes() as u32 / 16);

    for round in 0..rounds {
        #[unroll]
        for s in 0..stages {
            let step = round * stages + s;
            if comptime!(shape.even).runtime() || step < place.steps {
                enter(&mut ring, source, &place, round, s, shape);
                #[unroll]
                for b in 0..in_stage {
                    if comptime!(shape.whole).runtime() || step * in_stage + b < place.blocks {
                        #[unroll]
                        for q in 0..2usize {
                            #[unroll]
                            for i in 0..rt {
                                let of = comptime!(if shape.container == 8 { q * 32 } else { 0 });
                                let at = comptime!(s * w_stage + (i * in_stage + b) * lines + of);
                                let mut a = channels_of(ring.w[place.own_w + at], shape.container, q);
                                let from = comptime!(
                                    (s * x_stage + (b * tiling.cube_rows() * kind.bytes() + q * Rows::STEP) / 16)
                                        as u32
                                );
                                wgmma::fence(&mut a, 4usize);
                                wgmma::multiply::<i32>(acc.index_mut(i), &a, rows_at + from, 0usize, mt, true, kind);
                                wgmma::commit();
                            }
                        }
                    }
                }
                wgmma::finish::<i32>(&mut acc, rt, comptime!(4 * mt));
                leave(&ring, &place, s);
            }
        }
    }

    let found = wgmma::pairs::<i32>(&acc, rt, mt);
    let total = Sequence::<Array<Pair<f32>>>::new();
    let rows = token_parameters(parameters, &place, &sizes, rule);
    let mut outputs = outputs::<F>(ring, tiling);
    #[unroll]
    for i in 0..rt {
        #[unroll]
        for h in 0..2usize {
            let values = outputs_of::<F>(&found, &total, &rows, &place, scales, sums, bias, &sizes, i, h, rule);
            put::<F>(&mut outputs, &values, &place, i, h, tiling);
        }
    }
    write::<F>(&outputs, y, &place, sizes.rows, sizes.n, tiling);
}

/// `y [rows, N]` of activations as codes in boxes.
pub(super) fn int_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Codes,
    rows: usize,
    rule: Rule,
    bias: Option<&Buffer>,
) -> Buffer {
    let (layout, tiling) = (weight.layout, rule.shape.tiling);
    let blocks = layout.k / BLOCK;
    let source = SourceArgs::Maps(
        x.codes.map(
            [blocks, rows, 16],
            [rows * 16, 16, 1],
            [tiling.blocks, tiling.cube_rows(), 16],
            TensorMapSwizzle::B64,
        ),
        weight_boxes(weight, tiling),
    );
    let y = Buffer::empty(&weight.client, rows * layout.n, rule.dtype.size());
    // SAFETY: as in `mma_int.rs`; every copy is of maps.
    unsafe {
        product::launch_unchecked(
            &weight.client,
            cubes(weight, tiling, rows),
            CubeDim::new_2d(32, tiling.planes() as u32),
            source,
            x.parameters.arg(),
            weight.scales.arg(),
            weight.zeros.arg(),
            bias.unwrap_or(&y).arg(),
            y.arg(),
            Some(y.arg()),
            numbers(weight, rows),
            rule,
            super::storage(rule.dtype),
        );
    }
    y
}
