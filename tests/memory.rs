//! What a forward pass of a quantized model allocates: never a weight in float. What `quantize` allocates: one layer above the model.
//!
//! A counting allocator sees every thread; the tests take turns.
#![cfg(all(feature = "flex", feature = "ndarray"))]

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{Linear, LinearConfig, Lstm, LstmConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use burn_flex::Flex;
use burn_ndarray::NdArray;
use burn_quantized::flow::{
    Config, Int4WeightOnly, Int8DynamicActivationInt8Weight, Int8DynamicActivationIntxWeight, Int8WeightOnly, plan,
    quantize,
};
use burn_quantized::kernels::{QuantKernels, expanded};
use burn_quantized::{Native, Quantized};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a forward pass may allocate beside its activations and output.
const SCRATCH: usize = 1 << 20;
const FLOAT: usize = size_of::<f32>();

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TURN: Mutex<()> = Mutex::new(());

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocated(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call goes to the system allocator unchanged; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller's promise on `layout`, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller's promise on `layout`, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise on `pointer` and `layout`, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new block may be live together.
        allocated(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise on its arguments, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most bytes that lived beyond those at the start of a call; the larger one of a first and a second call.
fn peak<R>(call: impl Fn() -> R) -> usize {
    let once = || {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let result = call();
        let peak = PEAK.load(Relaxed) - before;
        drop(result);
        peak
    };
    once().max(once())
}

fn configs() -> Vec<(&'static str, Box<dyn Config>)> {
    vec![
        ("int8 weight-only", Box::new(Int8WeightOnly::default())),
        ("int4 g32 weight-only", Box::new(Int4WeightOnly::new(32))),
        ("int4 g128 weight-only", Box::new(Int4WeightOnly::new(128))),
        ("int8 dynamic", Box::new(Int8DynamicActivationInt8Weight::default())),
        (
            "int8 x int4 dynamic",
            Box::new(Int8DynamicActivationIntxWeight::new(4, 32)),
        ),
    ]
}

/// A forward pass, with the bytes that it may allocate.
struct Pass<'a, M> {
    name: String,
    run: Box<dyn Fn(&M) + 'a>,
    allowed: usize,
}

/// Holds the passes of each quantized module to their limits; none may expand a code.
fn hold<B: Backend, M: Module<Quantized<B>>>(module: M, passes: Vec<Pass<M>>)
where
    Native: QuantKernels<B>,
{
    // Burn draws weights when they are first used; a backend's own float product keeps buffers for each thread.
    passes.iter().for_each(|pass| (pass.run)(&module));
    for (config_name, config) in configs() {
        let (module, report) = quantize(module.clone(), &*config).expect("the layers can be quantized");
        assert!(report.skipped().count() == 0, "{report}");
        let before = expanded::total();
        for pass in &passes {
            let (name, limit, got) = (&pass.name, pass.allowed, peak(|| (pass.run)(&module)));
            println!("{name}, {config_name}: {got} of {limit} bytes");
            assert!(
                got <= limit,
                "{name}, {config_name}: {got} bytes above the start of the call, allowed {limit}"
            );
        }
        assert_eq!(expanded::total(), before, "{config_name}: codes became floats");
    }
}

fn linear<B: Backend>(backend: &str)
where
    Native: QuantKernels<B>,
{
    let _turn = TURN.lock();
    let device = Default::default();
    let (d_input, d_output) = (4096, 4096);
    let module: Linear<Quantized<B>> = LinearConfig::new(d_input, d_output).init(&device);
    let pass = |rows: usize| {
        let x = Tensor::<Quantized<B>, 2>::random([rows, d_input], Distribution::Default, &device);
        Pass {
            name: format!("{backend}, Linear, {rows} rows"),
            run: Box::new(move |module: &Linear<_>| drop(module.forward(x.clone()))),
            allowed: rows * (d_input + d_output) * FLOAT + SCRATCH,
        }
    };
    hold(module, vec![pass(1), pass(128)]);
}

#[test]
fn linear_on_flex() {
    linear::<Flex>("Flex");
}

#[test]
fn linear_on_ndarray() {
    linear::<NdArray>("NdArray");
}

/// Each weight is 4 MiB in float, twice what is allowed: activations as large as 16 inputs, and scratch.
fn stock_modules<B: Backend>(backend: &str)
where
    Native: QuantKernels<B>,
{
    let _turn = TURN.lock();
    let device = Default::default();
    let (size, tokens) = (1024, 16);
    let allowed = 16 * tokens * size * FLOAT + SCRATCH;
    let x = Tensor::<Quantized<B>, 3>::random([1, tokens, size], Distribution::Default, &device);

    let attention: MultiHeadAttention<Quantized<B>> = MultiHeadAttentionConfig::new(size, 8).init(&device);
    let pass = Pass {
        name: format!("{backend}, attention"),
        run: Box::new(|module: &MultiHeadAttention<_>| drop(module.forward(MhaInput::self_attn(x.clone())))),
        allowed,
    };
    hold(attention, vec![pass]);

    let lstm: Lstm<Quantized<B>> = LstmConfig::new(size, size, true).init(&device);
    let pass = Pass {
        name: format!("{backend}, LSTM"),
        run: Box::new(|module: &Lstm<_>| drop(module.forward(x.clone(), None))),
        allowed,
    };
    hold(lstm, vec![pass]);
}

#[test]
fn stock_modules_on_flex() {
    stock_modules::<Flex>("Flex");
}

#[test]
fn stock_modules_on_ndarray() {
    stock_modules::<NdArray>("NdArray");
}

/// Eight layers of 4 MiB each.
#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<Linear<B>>,
}

const SIDE: usize = 1024;
const DENSE: usize = SIDE * SIDE * FLOAT;

/// While `quantize` runs: the model as it came, one weight in float once more, and its codes with their scales, at rest or packed. Burn's NdArray
/// makes two copies of a tensor that it reads while the module still holds it; `copies` says so.
/// Afterwards: codes, scales, zero points, the sums of codes that an integer product needs, and biases; no dense weight.
fn quantizing<B: Backend>(backend: &str, copies: usize)
where
    Native: QuantKernels<B>,
{
    let _turn = TURN.lock();
    let device = Default::default();
    for (name, config) in configs() {
        let layers = (0..8).map(|_| LinearConfig::new(SIDE, SIDE).init(&device)).collect();
        let stack = Stack::<Quantized<B>> { layers };
        stack.num_params();
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let (stack, report) = quantize(stack, &*config).expect("the layers can be quantized");
        let (peak, after) = (PEAK.load(Relaxed) - before, before - LIVE.load(Relaxed));
        let rest = report.layers[0].bytes_after;
        println!("{backend}, {name}: {peak} bytes above the model, {after} of it freed, {rest} a layer");
        assert!(
            peak <= copies * DENSE + rest + rest / 4 + SCRATCH,
            "{backend}, {name}: quantize took {peak} bytes above the model; a layer has {DENSE}, its codes {rest}"
        );
        let kept = 8 * DENSE - after;
        assert!(
            kept <= 8 * (rest + rest / 2) + SCRATCH,
            "{backend}, {name}: {kept} bytes are left of the weights, whose codes and scales have {}",
            8 * rest
        );

        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        plan(&stack, &*config).expect("a quantized module has a plan");
        let peak = PEAK.load(Relaxed) - before;
        assert!(
            peak < rest / 4,
            "{backend}, {name}: planning a quantized module took {peak} bytes"
        );
    }
}

#[test]
fn quantizing_on_flex() {
    quantizing::<Flex>("Flex", 1);
}

#[test]
fn quantizing_on_ndarray() {
    quantizing::<NdArray>("NdArray", 2);
}
