//! tract-linalg: f32 and int8 products with packed weights.

use crate::bench::{Bench, Kernel, Problem, quantize};
use rayon::prelude::*;
use tract_data::prelude::*;
use tract_linalg::MmmDispatch;
use tract_linalg::mmm::{AsInputValue, FusedSpec, MMMInputValue, MatMatMul};
use tract_linalg::multithread::{Executor, multithread_tract_scope};

pub const PEER: &str = "tract";

pub fn run(bench: &mut Bench, problem: &Problem) {
    // Its pool of one thread would mean the global one.
    let executor = if bench.threads == 1 {
        Executor::SingleThread
    } else {
        Executor::multithread(bench.threads)
    };
    multithread_tract_scope(executor, || {
        floats(bench, problem);
        integers(bench, problem);
    });
}

/// `c[N, M]`, written as `[M, N]`, of weights `a` and activations `b`.
fn product(
    mmm: &dyn MatMatMul,
    packing: usize,
    a: &dyn MMMInputValue,
    b: &dyn MMMInputValue,
    (m, n): (usize, usize),
    c: &mut Tensor,
) {
    // SAFETY: both operands were packed for this kernel, and c has its sizes.
    unsafe {
        let store = mmm.c_view(Some(1), Some(0)).wrap(&c.view_mut());
        let product = FusedSpec::AddMatMul {
            a: AsInputValue::Borrowed(a),
            b: AsInputValue::Borrowed(b),
            packing,
        };
        mmm.run(n, m, &[product, FusedSpec::Store(store)]).expect("sizes fit");
    }
}

fn kernel_for(dtype: DatumType, problem: &Problem, m: usize) -> Box<dyn MatMatMul> {
    let mmm = MmmDispatch::native().preferred_kernel(dtype, Some(problem.n), Some(problem.k), Some(m));
    mmm.expect("a kernel for every shape")
}

fn floats(bench: &mut Bench, problem: &Problem) {
    if !bench.wants(PEER, "f32f32") {
        return;
    }
    let (k, n) = (problem.k, problem.n);
    let values = problem.base.repeat(problem.times());
    let weight = Tensor::from_shape(&[n, k], &values).expect("sizes fit");
    drop(values);
    let mut packed: Option<(String, Vec<_>)> = None;
    for m in problem.ms {
        let mmm = kernel_for(f32::datum_type(), problem, *m);
        if packed.as_ref().is_none_or(|(name, _)| name != mmm.name()) {
            drop(packed.take());
            let prepare = |_| mmm.packings()[0].0.prepare_one(&weight, 1, 0).expect("packs");
            packed = Some((mmm.name().into(), (0..bench.copies(n * k * 4)).map(prepare).collect()));
        }
        let (name, weights) = packed.as_ref().expect("just packed");
        let kernel = Kernel {
            peer: PEER,
            dtypes: "f32f32",
            group: None,
            name: name.clone(),
            error: 0.01,
        };
        let x = Tensor::from_shape(&[*m, k], &problem.x[..m * k]).expect("sizes fit");
        bench.row(
            problem,
            &kernel,
            *m,
            |turn| {
                let b = mmm.packings()[0].1.prepare_one(&x, 1, 0).expect("packs");
                let mut c = Tensor::zero::<f32>(&[*m, n]).expect("memory");
                product(&*mmm, 0, &*weights[turn % weights.len()], &*b, (*m, n), &mut c);
                c
            },
            |c| {
                c.try_as_plain_ram()
                    .expect("plain")
                    .as_slice::<f32>()
                    .expect("f32")
                    .to_vec()
            },
        );
    }
}

/// One scale a row of activations and a channel of weights.
fn integers(bench: &mut Bench, problem: &Problem) {
    if !bench.wants(PEER, "i8i8") {
        return;
    }
    let (k, n) = (problem.k, problem.n);
    let (codes, scales) = quantize(&problem.base, k, 127.0);
    let scales = scales.repeat(problem.times());
    let weight = Tensor::from_shape(&[n, k], &codes.repeat(problem.times())).expect("sizes fit");
    let mut packed: Option<(String, Vec<_>)> = None;
    for m in problem.ms {
        let mmm = kernel_for(i32::datum_type(), problem, *m);
        if mmm.packings().len() < 2 {
            continue;
        }
        if packed.as_ref().is_none_or(|(name, _)| name != mmm.name()) {
            drop(packed.take());
            let prepare = |_| mmm.packings()[1].0.prepare_one(&weight, 1, 0).expect("packs");
            packed = Some((mmm.name().into(), (0..bench.copies(n * k)).map(prepare).collect()));
        }
        let (name, weights) = packed.as_ref().expect("just packed");
        let kernel = Kernel {
            peer: PEER,
            dtypes: "i8i8",
            group: None,
            name: name.clone(),
            error: 0.04,
        };
        let x = &problem.x[..m * k];
        bench.row(
            problem,
            &kernel,
            *m,
            |turn| {
                let mut a = vec![0i8; m * k];
                let mut row_scales = vec![0f32; *m];
                a.par_chunks_mut(k)
                    .zip(x.par_chunks(k))
                    .zip(&mut row_scales)
                    .for_each(|((a, x), scale)| {
                        *scale = x.iter().fold(0f32, |max, x| max.max(x.abs())) / 127.0;
                        let inverse = 1.0 / *scale;
                        a.iter_mut()
                            .zip(x)
                            .for_each(|(a, x)| *a = (x * inverse).round_ties_even() as i8);
                    });
                let a = Tensor::from_shape(&[*m, k], &a).expect("sizes fit");
                let b = mmm.packings()[1].1.prepare_one(&a, 1, 0).expect("packs");
                let mut c = Tensor::zero::<i32>(&[*m, n]).expect("memory");
                product(&*mmm, 1, &*weights[turn % weights.len()], &*b, (*m, n), &mut c);
                let plain = c.try_as_plain_ram().expect("plain");
                let acc = plain.as_slice::<i32>().expect("i32");
                let mut y = vec![0f32; m * n];
                y.par_chunks_mut(n)
                    .zip(acc.par_chunks(n))
                    .zip(&row_scales)
                    .for_each(|((y, acc), scale)| {
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
