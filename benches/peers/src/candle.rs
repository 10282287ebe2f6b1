//! candle: f32 and ggml's quantized types, whose products quantize the activations.

use crate::bench::{BASE_ROWS, Bench, Kernel, Problem};
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use std::borrow::Cow;

pub const PEER: &str = "candle";

pub fn run(bench: &mut Bench, problem: &Problem) {
    floats(bench, problem);
    for (dtype, name, dtypes, error) in [
        (GgmlDType::Q8_0, "Q8_0", "i8i8", 0.04),
        (GgmlDType::Q4K, "Q4_K", "i8i4", 0.2),
    ] {
        let kernel = Kernel {
            peer: PEER,
            dtypes,
            group: Some(32),
            name: name.into(),
            error,
        };
        quantized(bench, problem, dtype, &kernel);
    }
}

fn activation(problem: &Problem, m: usize) -> Tensor {
    Tensor::from_slice(&problem.x[..m * problem.k], (m, problem.k), &Device::Cpu).expect("sizes fit")
}

fn values(y: Tensor) -> Vec<f32> {
    y.flatten_all().and_then(|y| y.to_vec1()).expect("f32 on the CPU")
}

fn floats(bench: &mut Bench, problem: &Problem) {
    if !bench.wants(PEER, "f32f32") {
        return;
    }
    let (k, n) = (problem.k, problem.n);
    let weight = problem.base.repeat(problem.times());
    let weights: Vec<_> = (0..bench.copies(n * k * 4))
        .map(|_| {
            Tensor::from_slice(&weight, (n, k), &Device::Cpu)
                .and_then(|weight| weight.t())
                .expect("sizes fit")
        })
        .collect();
    let kernel = Kernel {
        peer: PEER,
        dtypes: "f32f32",
        group: None,
        name: "gemm".into(),
        error: 1e-5,
    };
    for m in problem.ms {
        let x = activation(problem, *m);
        bench.row(
            problem,
            &kernel,
            *m,
            |turn| x.matmul(&weights[turn % weights.len()]).expect("sizes fit"),
            values,
        );
    }
}

fn quantized(bench: &mut Bench, problem: &Problem, dtype: GgmlDType, kernel: &Kernel) {
    let (k, n) = (problem.k, problem.n);
    if k % dtype.block_size() != 0 || !bench.wants(PEER, kernel.dtypes) {
        return;
    }
    let base = Tensor::from_slice(&problem.base, (BASE_ROWS, k), &Device::Cpu).expect("sizes fit");
    let base = QTensor::quantize(&base, dtype).expect("K is whole blocks");
    let bytes = base.data().expect("on the CPU").repeat(problem.times());
    // Its first products repack the weight, so each copy is run before it is timed.
    let weights: Vec<_> = (0..bench.copies(bytes.len()))
        .map(|_| {
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).expect("whole blocks");
            let weight = QMatMul::from_qtensor(QTensor::new(storage, (n, k)).expect("sizes fit")).expect("a weight");
            for m in problem.ms.iter().filter(|m| **m <= 32) {
                weight.forward(&activation(problem, *m)).expect("sizes fit");
            }
            weight
        })
        .collect();
    for m in problem.ms {
        let x = activation(problem, *m);
        bench.row(
            problem,
            kernel,
            *m,
            |turn| weights[turn % weights.len()].forward(&x).expect("sizes fit"),
            values,
        );
    }
}
