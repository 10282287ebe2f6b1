//! rten-gemm: f32, int8 and block-quantized int4.

use crate::bench::{BASE_ROWS, Bench, Kernel, Problem, quantize};
use rayon::prelude::*;
use rten_gemm::{
    BlockQuantizedGemm, BlockQuantizedMatrix, ComputeMode, GemmExecutor, GemmInputA, GemmInputB, GemmOptions,
    GemmUninitOptions, QuantParams,
};
use rten_tensor::{Contiguous, NdTensorView};
use std::mem::MaybeUninit;

pub const PEER: &str = "rten-gemm";

/// Rows of activations above which its block-quantized product, one row at a time, is not measured.
const MAX_BLOCK_ROWS: usize = 32;

pub fn run(bench: &mut Bench, problem: &Problem) {
    floats(bench, problem);
    integers(bench, problem);
    for group in [32, 128] {
        blocks(bench, problem, group, ComputeMode::Int8);
        blocks(bench, problem, group, ComputeMode::Float);
    }
}

fn floats(bench: &mut Bench, problem: &Problem) {
    if !bench.wants(PEER, "f32f32") {
        return;
    }
    let (k, n) = (problem.k, problem.n);
    let gemm = GemmExecutor::<f32, f32, f32>::new();
    let weight = problem.base.repeat(problem.times());
    let view = NdTensorView::from_data([n, k], weight.as_slice());
    let packed: Vec<_> = (0..bench.copies(n * k * 4))
        .map(|_| gemm.prepack_b(view.transposed()))
        .collect();
    let kernel = Kernel {
        peer: PEER,
        dtypes: "f32f32",
        group: None,
        name: gemm.kernel_name().into(),
        error: 1e-5,
    };
    for m in problem.ms {
        let x = NdTensorView::from_data([*m, k], &problem.x[..m * k]);
        bench.row(
            problem,
            &kernel,
            *m,
            |turn| {
                let mut y = Vec::<f32>::with_capacity(m * n);
                let out = &mut y.spare_capacity_mut()[..m * n];
                let b = GemmInputB::Packed(&packed[turn % packed.len()]);
                let options = GemmUninitOptions {
                    alpha: 1.0,
                    bias: None,
                    a_quant: None,
                    b_quant: None,
                };
                gemm.gemm_uninit(out, GemmInputA::Unpacked(x), b, options)
                    .expect("sizes fit");
                // SAFETY: the product wrote every element.
                unsafe { y.set_len(m * n) };
                y
            },
            |y| y,
        );
    }
}

/// As ONNX's DynamicQuantizeLinear and MatMulInteger: uint8 activations with one scale and zero point, int8 weights with a scale a channel.
fn integers(bench: &mut Bench, problem: &Problem) {
    if !bench.wants(PEER, "i8i8") {
        return;
    }
    let (k, n) = (problem.k, problem.n);
    let gemm = GemmExecutor::<u8, i8, i32>::new();
    // Without VNNI its products saturate above 7 bits.
    let limit = if gemm.may_saturate() { 63.0 } else { 127.0 };
    let (codes, scales) = quantize(&problem.base, k, limit);
    let (codes, scales) = (codes.repeat(problem.times()), scales.repeat(problem.times()));
    let view = NdTensorView::from_data([n, k], codes.as_slice());
    let packed: Vec<_> = (0..bench.copies(n * k))
        .map(|_| gemm.prepack_b(view.transposed()))
        .collect();
    let kernel = Kernel {
        peer: PEER,
        dtypes: "i8i8",
        group: None,
        name: gemm.kernel_name().into(),
        error: 0.04,
    };
    for m in problem.ms {
        let x = &problem.x[..m * k];
        bench.row(
            problem,
            &kernel,
            *m,
            |turn| {
                let rows = x.par_chunks(k).map(|row| {
                    row.iter()
                        .fold((0f32, 0f32), |(low, high), x| (low.min(*x), high.max(*x)))
                });
                let (low, high) = rows.reduce(|| (0.0, 0.0), |a, b| (a.0.min(b.0), a.1.max(b.1)));
                let scale = (high - low) / 255.0;
                let zero = (-low / scale).round_ties_even() as u8;
                let (inverse, shift) = (1.0 / scale, zero as f32);
                let mut a = vec![0u8; m * k];
                a.par_chunks_mut(k).zip(x.par_chunks(k)).for_each(|(a, x)| {
                    a.iter_mut()
                        .zip(x)
                        .for_each(|(a, x)| *a = (x * inverse + shift).round_ties_even() as u8);
                });
                let mut acc = vec![0i32; m * n];
                let zeros = vec![zero; *m];
                let options = GemmOptions {
                    a_quant: Some(QuantParams { zero_point: &zeros }),
                    ..Default::default()
                };
                let a = GemmInputA::Unpacked(NdTensorView::from_data([*m, k], a.as_slice()));
                gemm.gemm(&mut acc, a, GemmInputB::Packed(&packed[turn % packed.len()]), options)
                    .expect("sizes fit");
                let mut y = vec![0f32; m * n];
                y.par_chunks_mut(n).zip(acc.par_chunks(n)).for_each(|(y, acc)| {
                    y.iter_mut()
                        .zip(acc)
                        .zip(&scales)
                        .for_each(|((y, acc), w)| *y = *acc as f32 * scale * w);
                });
                y
            },
            |y| y,
        );
    }
}

fn blocks(bench: &mut Bench, problem: &Problem, group: usize, mode: ComputeMode) {
    let dtypes = if mode == ComputeMode::Int8 { "i8i4" } else { "f32i4" };
    if problem.k % group != 0 || !bench.wants(PEER, dtypes) {
        return;
    }
    let (k, n) = (problem.k, problem.n);
    let (codes, scales) = quantize(&problem.base, group, 7.0);
    let bytes: Vec<u8> = codes
        .chunks_exact(2)
        .map(|pair| (pair[0] + 8) as u8 | ((pair[1] + 8) as u8) << 4)
        .collect();
    assert_eq!(bytes.len(), BASE_ROWS * k / 2);
    let copies = bench.copies(n * k / 2 + n * k / group * 4);
    let weights: Vec<_> = (0..copies)
        .map(|_| (bytes.repeat(problem.times()), scales.repeat(problem.times())))
        .collect();
    let gemm = BlockQuantizedGemm::new().with_compute(mode);
    let name = if BlockQuantizedGemm::is_compute_optimized(mode) {
        "block"
    } else {
        "block, not optimized"
    };
    let kernel = Kernel {
        peer: PEER,
        dtypes,
        group: Some(group),
        name: name.into(),
        error: 0.2,
    };
    // Only a single row is quantized; more are multiplied in float, one at a time.
    let most = if mode == ComputeMode::Int8 { 1 } else { MAX_BLOCK_ROWS };
    for m in problem.ms.iter().filter(|m| **m <= most) {
        let x = NdTensorView::from_data([1, *m, k], &problem.x[..m * k]);
        bench.row(
            problem,
            &kernel,
            *m,
            |turn| {
                let (bytes, scales) = &weights[turn % weights.len()];
                let bytes = NdTensorView::from_data([n, k / group, group / 2], bytes.as_slice());
                let scales = NdTensorView::from_data([n, k / group], scales.as_slice());
                let contiguous = "made in order";
                let weight = BlockQuantizedMatrix::new(
                    Contiguous::new(bytes).expect(contiguous),
                    Contiguous::new(scales).expect(contiguous),
                    4,
                );
                let mut y = Vec::<f32>::with_capacity(m * n);
                let out: &mut [MaybeUninit<f32>] = &mut y.spare_capacity_mut()[..m * n];
                gemm.batched_gemm_uninit(out, x, weight.expect("4 bits"))
                    .expect("sizes fit");
                // SAFETY: the product wrote every element.
                unsafe { y.set_len(m * n) };
                y
            },
            |y| y,
        );
    }
}
