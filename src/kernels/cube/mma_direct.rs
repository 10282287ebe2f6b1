//! The product of a few rows of f16 or bf16 activations with a weight of codes: operands go from device memory to registers.
//!
//! With few rows a code is used once, so it need not pass through shared memory. Planes share K; each has the codes of its next blocks on
//! their way while it multiplies. The loop is not unrolled: see [`super::select`].
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::mma_halves::{Rule, Sizes, add_group, finish, multiply, no_sums, numbers, of_step};
use super::ring::{Line, Place, cubes, place_of, replace};
use super::weight::CubeWeight;
use cubecl::prelude::*;

/// The block `b` of a step from the first of the plane on, or the last that exists.
#[cube]
fn block_of(place: &Place, step: usize, #[comptime] b: usize, #[comptime] rule: Rule) -> usize {
    let shape = comptime!(rule.shape);
    let block = step * shape.tiling.blocks + b;
    if comptime!(shape.whole) {
        block
    } else {
        // No less than the plane's first: tilings give every plane a block.
        min(block + place.plane_k * comptime!(shape.share()), place.blocks - 1)
            - place.plane_k * comptime!(shape.share())
    }
}

/// The lines of a step of this plane, `[tile][block][line]`.
#[cube]
fn lines_of(
    words: &Array<Line>,
    starts: &Array<usize>,
    place: &Place,
    step: usize,
    #[comptime] rule: Rule,
) -> Array<Line> {
    let shape = comptime!(rule.shape);
    let tiles = comptime!(shape.tiling.tiles);
    let (share, lines) = comptime!((shape.share(), shape.lines() / 32));
    let mut own = Array::<Line>::new(comptime!(tiles * share * lines));
    #[unroll]
    for i in 0..tiles {
        #[unroll]
        for b in 0..share {
            let at = starts[i] + block_of(place, step, b, rule) * comptime!(shape.lines());
            #[unroll]
            for l in 0..lines {
                own[comptime!((i * share + b) * lines + l)] = words[at + comptime!(l * 32)];
            }
        }
    }
    own
}

#[cube(launch_unchecked)]
fn product<F: Float>(
    x: &Array<Line>,
    words: &Array<Line>,
    scales: &Array<f32>,
    zeros: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    sizes: Sizes,
    #[comptime] rule: Rule,
    #[define(F)] _dtype: StorageType,
) {
    let shape = comptime!(rule.shape);
    let tiling = comptime!(shape.tiling);
    let (share, lines) = comptime!((shape.share(), shape.lines() / 32));
    let (rt, mt) = comptime!((tiling.tiles, tiling.rows));
    let (in_step, held_lines) = comptime!((rule.in_step(), rt * share * lines));
    // Activations are read before the next codes where a multiprocessor has one cube, or codes are bytes: as measured.
    let first = comptime!(tiling.planes_n > 2 || shape.container == 8);
    let (uses_scales, uses_zeros) = comptime!((rule.uses_scales(), rule.uses_zeros()));
    let place = place_of(sizes.rows, sizes.n, sizes.blocks, shape);
    let plane_k = place.plane_k;
    let (g, t) = (place.lane / 4, place.lane % 4);
    let first_tile = place.first_tile + place.own_tile;
    let mut starts = Array::<usize>::new(rt);
    #[unroll]
    for i in 0..rt {
        // A tile that does not exist is never stored: any other will do.
        let tile = min(first_tile + i, place.tiles - 1);
        starts[i] = (tile * place.blocks + plane_k * share) * comptime!(shape.lines()) + place.lane;
    }
    let mut next = lines_of(words, &starts, &place, 0, rule);
    let mut row_starts = Array::<usize>::new(mt);
    #[unroll]
    for j in 0..mt {
        let row = min(place.first_row + comptime!(8 * j) + g, place.rows - 1);
        row_starts[j] = (row * place.blocks + plane_k * share) * 8 + t;
    }
    let mut next_scales = Array::<f32>::new(in_step);
    let mut next_zeros = Array::<f32>::new(in_step);
    if uses_scales {
        replace::<f32>(&mut next_scales, &of_step(scales, 0, &place, &sizes, rule), in_step);
    }
    if uses_zeros {
        replace::<f32>(&mut next_zeros, &of_step(zeros, 0, &place, &sizes, rule), in_step);
    }
    let mut acc = no_sums(tiling);
    let mut total = no_sums(tiling);
    for step in 0..place.steps {
        let mut own = Array::<Line>::new(held_lines);
        let mut step_scales = Array::<f32>::new(in_step);
        let mut step_zeros = Array::<f32>::new(in_step);
        replace::<Line>(&mut own, &next, held_lines);
        replace::<f32>(&mut step_scales, &next_scales, in_step);
        replace::<f32>(&mut step_zeros, &next_zeros, in_step);
        let mut rows = Sequence::<Array<Line>>::new();
        #[unroll]
        for b in 0..comptime!(if first { share } else { 0 }) {
            #[unroll]
            for q in 0..2usize {
                let mut held = Array::<Line>::new(mt);
                #[unroll]
                for j in 0..mt {
                    held[j] = x[row_starts[j] + block_of(&place, step, b, rule) * 8 + comptime!(4 * q)];
                }
                rows.push(held);
            }
        }
        if step + 1 < place.steps {
            replace::<Line>(&mut next, &lines_of(words, &starts, &place, step + 1, rule), held_lines);
            if uses_scales {
                replace::<f32>(
                    &mut next_scales,
                    &of_step(scales, step + 1, &place, &sizes, rule),
                    in_step,
                );
            }
            if uses_zeros {
                replace::<f32>(
                    &mut next_zeros,
                    &of_step(zeros, step + 1, &place, &sizes, rule),
                    in_step,
                );
            }
        }
        #[unroll]
        for b in 0..share {
            if comptime!(shape.whole).runtime() || step * tiling.blocks + plane_k * share + b < place.blocks {
                #[unroll]
                for q in 0..2usize {
                    let r = comptime!(rule.group_in_step(b, q));
                    let mut codes = Array::<Line>::new(rt);
                    #[unroll]
                    for i in 0..rt {
                        codes[i] = own[comptime!((i * share + b) * lines + rule.line_of(q))];
                    }
                    let mut held = Array::<Line>::new(mt);
                    #[unroll]
                    for j in 0..mt {
                        if first {
                            held[j] = rows.index(comptime!(2 * b + q))[j];
                        } else {
                            held[j] = x[row_starts[j] + block_of(&place, step, b, rule) * 8 + comptime!(4 * q)];
                        }
                    }
                    multiply::<F>(&held, &codes, &mut acc, &step_scales, &step_zeros, &sizes, r, q, rule);
                    if comptime!(rule.ends_group(b, q)) {
                        add_group(&mut acc, &mut total, &step_scales, r, rule);
                    }
                }
            }
        }
    }
    let sums = if comptime!(rule.sums_groups()) { total } else { acc };
    finish::<F>(&sums, &place, scales, bias, y, &sizes, rule);
}

/// `y [rows, N]`, as [`super::mma_float::float_product`].
pub(super) fn float_product<R: Runtime>(
    weight: &CubeWeight<R>,
    x: &Buffer,
    rows: usize,
    rule: Rule,
    bias: Option<&Buffer>,
) -> Buffer {
    let (layout, tiling, dtype) = (weight.layout, rule.shape.tiling, rule.dtype);
    let y = Buffer::empty(&weight.client, rows * layout.n, dtype.size());
    // SAFETY: the kernel holds tiles, blocks, rows, channels and groups below their number wherever it reads, and asks whether row and
    // channel exist before it writes.
    unsafe {
        product::launch_unchecked(
            &weight.client,
            cubes(weight, tiling, rows),
            CubeDim::new_2d(32, tiling.planes() as u32),
            x.arg_of(16),
            weight.words.arg_of(16),
            weight.scales.arg(),
            weight.zeros.arg(),
            bias.unwrap_or(&y).arg(),
            y.arg(),
            numbers(weight, rows, &rule),
            rule,
            super::storage(dtype),
        );
    }
    y
}
