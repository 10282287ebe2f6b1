//! The product of many rows of f16 or bf16 activations with a weight of codes on Hopper: planes make codes halves in registers, four planes
//! multiply them by rows in shared memory.
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::fragments::BLOCK;
use super::grid::Grid;
use super::mma_halves::{
    Codes, JOINED, Rule, Sizes, codes_of, first_operand, join, numbers, outputs_of, parameters, take,
};
use super::ring::{
    Line, NoShapes, Place, Ring, Source, SourceArgs, cubes, enter, leave, place_of, prepare, start, weight_boxes,
};
use super::store::{outputs, put, write};
use super::transpose::transposed;
use super::weight::CubeWeight;
use super::wgmma::{self, Rows};
use cubecl::prelude::*;

#[cube(launch_unchecked)]
fn product<F: Float>(
    source: &Source,
    scales: &Array<f32>,
    zeros: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    partial: &mut Array<f32>,
    _shapes: NoShapes,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let shape = comptime!(rule.shape);
    let tiling = comptime!(shape.tiling);
    let (stages, in_stage, lines) = comptime!((tiling.stages, tiling.blocks, shape.lines()));
    let (w_stage, x_stage) = comptime!((shape.w_stage(), shape.x_stage()));
    let kind = comptime!(rule.rows());
    let mut ring = prepare(shape);
    let place = place_of(sizes.rows, sizes.n, sizes.blocks, shape);
    start(&mut ring, source, &place, shape);

    let rounds = place.steps.div_ceil(stages);
    let (rt, mt) = comptime!((tiling.tiles, tiling.rows));
    let count = comptime!(4 * mt);
    let sums_groups = comptime!(rule.sums_groups());
    // One sum of a group at a time.
    let mut total = wgmma::zeros::<f32>(rt, count);
    let mut sum = wgmma::zeros::<f32>(1usize, count);
    let mut held = parameters(scales, zeros, &place, &sizes, rule);
    let rows_at = wgmma::address(&ring.x) + place.own_row as u32 * comptime!(kind.bytes() as u32 / 16);

    for round in 0..rounds {
        #[unroll]
        for s in 0..stages {
            let step = round * stages + s;
            if comptime!(shape.even).runtime() || step < place.steps {
                let own = take(&mut held, scales, zeros, &place, step, &sizes, s, rule);
                enter(&mut ring, source, &place, round, s, shape);
                #[unroll]
                for i in 0..rt {
                    #[unroll]
                    for b in 0..in_stage {
                        if comptime!(shape.whole).runtime() || step * in_stage + b < place.blocks {
                            let block_at = comptime!((s * x_stage + b * tiling.cube_rows() * kind.bytes() / 16) as u32);
                            #[unroll]
                            for q in 0..2usize {
                                let at = comptime!(s * w_stage + (i * in_stage + b) * lines + rule.line_of(q) * 32);
                                let line = ring.w[place.own_w + at];
                                let r = comptime!(rule.group_in_step(b, q));
                                let codes = codes_of(&own.scales, &own.zeros, &sizes, r, i, rule);
                                let mut a = operands_of::<F>(line, &codes, &sizes, q, rule);
                                wgmma::fence(&mut a, 8usize);
                                #[unroll]
                                for half in 0..2usize {
                                    let from =
                                        rows_at + comptime!(block_at + ((2 * q + half) * Rows::STEP / 16) as u32);
                                    let first = comptime!(4 * half);
                                    if sums_groups {
                                        let adds = comptime!(half == 1 || !rule.begins_group(b, q));
                                        wgmma::multiply::<f32>(sum.index_mut(0usize), &a, from, first, mt, adds, kind);
                                    } else {
                                        wgmma::multiply::<f32>(total.index_mut(i), &a, from, first, mt, true, kind);
                                    }
                                }
                                wgmma::commit();
                                if comptime!(rule.ends_group(b, q)) {
                                    wgmma::wait();
                                    add(sum.index_mut(0usize), total.index_mut(i), &own.scales, r, i, rule);
                                }
                            }
                        }
                    }
                }
                if comptime!(!sums_groups) {
                    wgmma::finish::<f32>(&mut total, rt, count);
                }
                leave(&ring, &place, s);
            }
        }
    }

    finish::<F>(&total, ring, &place, scales, bias, y, partial, &sizes, rule);
}

/// The first operands of half `q` of a block: 4 registers for each 16 k.
#[cube]
fn operands_of<F: Float>(
    line: Line,
    codes: &Codes,
    sizes: &Sizes,
    #[comptime] q: usize,
    #[comptime] rule: Rule,
) -> Array<u32> {
    let mut a = Array::<u32>::new(8usize);
    #[unroll]
    for half in 0..2usize {
        let pairs = first_operand::<F>(line, codes, sizes, q, half, rule);
        #[unroll]
        for p in 0..4usize {
            a[comptime!(4 * half + p)] = u32::reinterpret(pairs[p]);
        }
    }
    a
}

/// Writes outputs to `y`, or, where K is cut, sums to the cube's slice of `partial`.
#[cube]
fn finish<F: Float>(
    total: &Sequence<Array<f32>>,
    ring: Ring,
    place: &Place,
    scales: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    partial: &mut Array<f32>,
    sizes: &Sizes,
    #[comptime] rule: Rule,
) {
    let tiling = comptime!(rule.shape.tiling);
    let (rt, mt) = comptime!((tiling.tiles, tiling.rows));
    if comptime!(tiling.slices > 1) {
        let mut outputs = outputs::<f32>(ring, tiling);
        #[unroll]
        for i in 0..rt {
            #[unroll]
            for h in 0..2usize {
                let mut values = Array::<f32>::new(comptime!(2 * mt));
                #[unroll]
                for at in 0..comptime!(2 * mt) {
                    values[at] = total.index(i)[comptime!(4 * (at / 2) + 2 * h + at % 2)];
                }
                put::<f32>(&mut outputs, &values, place, i, h, tiling);
            }
        }
        write::<f32>(&outputs, partial, place, sizes.rows, sizes.n, tiling);
    } else {
        let sums = wgmma::pairs::<f32>(total, rt, mt);
        let mut outputs = outputs::<F>(ring, tiling);
        #[unroll]
        for i in 0..rt {
            #[unroll]
            for h in 0..2usize {
                let values = outputs_of::<F>(&sums, place, scales, bias, sizes, i, h, rule);
                put::<F>(&mut outputs, &values, place, i, h, tiling);
            }
        }
        write::<F>(&outputs, y, place, sizes.rows, sizes.n, tiling);
    }
}

/// Adds the sum of the `r`-th group of the step to the total of tile `i`.
#[cube]
fn add(
    sum: &mut Array<f32>,
    total: &mut Array<f32>,
    scales: &Array<f32>,
    #[comptime] r: usize,
    #[comptime] i: usize,
    #[comptime] rule: Rule,
) {
    let tiling = comptime!(rule.shape.tiling);
    let count = comptime!(4 * tiling.rows);
    wgmma::settle::<f32>(sum, count);
    #[unroll]
    for at in 0..count {
        let scale = scales[comptime!((r * tiling.tiles + i) * 2 + at / 2 % 2)];
        total[at] = total[at] + sum[at] * scale;
    }
    wgmma::settle::<f32>(total, count);
}

/// `y [rows, N]` of activations `x [rows, K]`, from 33 rows on.
pub(super) fn float_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    rule: Rule,
    bias: Option<&Buffer>,
) -> Buffer {
    let (layout, tiling, dtype) = (weight.layout, rule.shape.tiling, rule.dtype);
    let blocks = layout.k / BLOCK;
    let x = transposed(&weight.client, x, rows * layout.k * dtype.size());
    let source = SourceArgs::Maps(
        x.map(
            [blocks, rows, 32],
            [32, layout.k / 2, 1],
            [tiling.blocks, tiling.cube_rows(), 32],
            TensorMapSwizzle::B128,
        ),
        weight_boxes(weight, tiling),
    );
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    let slices = tiling.slices;
    let partial = (slices > 1).then(|| Buffer::empty(&weight.client, slices * rows * layout.n, size_of::<f32>()));
    // SAFETY: as in `mma_float.rs`; every copy is of maps, and slices share the steps without a rest.
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
            partial.as_ref().unwrap_or(&weight.scales).arg(),
            Some(y.arg()),
            numbers(weight, rows, &rule),
            rule,
            super::storage(dtype),
        );
    }
    if let Some(partial) = partial {
        // SAFETY: a unit asks whether its row and channel exist; `partial` holds both for every slice.
        unsafe {
            join::launch_unchecked(
                &weight.client,
                Grid::new(layout.n.div_ceil(JOINED), rows).count(),
                CubeDim::new_1d(JOINED as u32),
                partial.arg(),
                weight.scales.arg(),
                bias.unwrap_or(&y).arg(),
                y.arg(),
                numbers(weight, rows, &rule),
                rule,
                super::storage(dtype),
            );
        }
    }
    y
}
