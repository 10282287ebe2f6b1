//! The quotients that choose scales: those of the CPU, bit for bit.

// The file of the kernels itself: device code that the crate does not export.
#[path = "../../src/kernels/cube/division.rs"]
mod device_code;

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_std::DType;
use cubecl::prelude::*;
use device_code::{divide, is_native};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[cfg(feature = "wgpu")]
#[test]
fn quotients_on_wgpu_are_those_of_the_cpu() {
    agrees::<burn_wgpu::WgpuRuntime>(crate::device::wgpu());
}

#[cfg(feature = "cuda")]
#[test]
fn quotients_on_cuda_are_those_of_the_cpu() {
    agrees::<cubecl::cuda::CudaRuntime>(Default::default());
}

const UNITS: u32 = 64;

#[cube(launch)]
fn quotients(pairs: &Array<u32>, out: &mut Array<u32>, count: u32, #[comptime] native: bool) {
    let at = CUBE_POS_X * UNITS + UNIT_POS_X;
    if at < count {
        let a = f32::reinterpret(pairs[(2u32 * at) as usize]);
        let b = f32::reinterpret(pairs[(2u32 * at + 1u32) as usize]);
        out[at as usize] = u32::reinterpret(divide(a, b, native));
    }
}

fn agrees<R: CubeRuntime>(device: R::Device) {
    let client = R::client(&device);
    let pairs = pairs();
    let upload = |bits: &[u32]| {
        let handle = client.create_from_slice(bytemuck::cast_slice(bits));
        CubeTensor::<R>::new_contiguous(client.clone(), device.clone(), [bits.len()].into(), handle, DType::U32)
    };
    let flat: Vec<u32> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let flat = upload(&flat);
    for native in [false, true] {
        if native && !is_native(&client) {
            continue;
        }
        let out = upload(&vec![1; pairs.len()]);
        quotients::launch(
            &client,
            CubeCount::new_1d((pairs.len() as u32).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS),
            flat.clone().into_array_arg(),
            out.clone().into_array_arg(),
            pairs.len() as u32,
            native,
        );
        let bytes = client.read_one_unchecked(out.handle);
        let got = bytes
            .chunks_exact(4)
            .map(|bits| u32::from_ne_bytes(bits.try_into().unwrap()));
        let mut compared = 0;
        for (&(a, b), got) in pairs.iter().zip(got) {
            let (x, y) = (f32::from_bits(a), f32::from_bits(b));
            let want = x / y;
            let same = got == want.to_bits() || f32::from_bits(got).is_nan() && want.is_nan();
            assert!(
                same,
                "{a:#010x} / {b:#010x} ({x:e} / {y:e}): {got:#010x}, want {:#010x}",
                want.to_bits()
            );
            compared += 1;
        }
        assert_eq!(compared, pairs.len());
        println!("{}: {compared} quotients, native {native}", R::name(&client));
    }
}

/// Bits of dividends and divisors.
fn pairs() -> Vec<(u32, u32)> {
    let mut rng = StdRng::seed_from_u64(41);
    let mut pairs = vec![];
    // Every edge with every other, of both signs: zeros, subnormal numbers, powers of two, the largest, infinities, NaNs of both kinds.
    let edges = [
        0,
        1,
        2,
        3,
        0x7f_ffff,
        0x7f_fffe,
        0x40_0000,
        0x40_0001,
        0x80_0000,
        0x80_0001,
        0xff_ffff,
        0x100_0000,
        0x3f7f_ffff,
        0x3f80_0000,
        0x3f80_0001,
        0x3fff_ffff,
        0x4000_0000,
        0x4040_0000,
        0x42fe_0000,
        0x42ff_0000,
        0x437f_0000,
        0x4b80_0000,
        0x7e80_0000,
        0x7f00_0000,
        0x7f7f_fffe,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fc0_0000,
        0x7fff_ffff,
    ];
    let signed = edges.iter().flat_map(|bits| [*bits, bits | 0x8000_0000u32]);
    pairs.extend(signed.clone().flat_map(|a| signed.clone().map(move |b| (a, b))));
    // Any bits.
    pairs.extend((0..200_000).map(|_| (rng.random(), rng.random())));
    for _ in 0..50_000 {
        // Steps of ordinary rows, and the reciprocals of scales.
        let range = rng.random_range(1e-3f32..1e3);
        let codes = [127.5f32, 255.0, -128.0, 127.0, 15.0, 7.5][rng.random_range(0..6)];
        pairs.push((range.to_bits(), codes.to_bits()));
        pairs.push((1f32.to_bits(), (range / codes).to_bits()));
        // Quotients around and among the subnormal numbers, and around the largest.
        let fraction = |rng: &mut StdRng| rng.random::<u32>() & 0x7f_ffff;
        let exponent = rng.random_range(1u32..100);
        let below = exponent + rng.random_range(100u32..155);
        pairs.push((exponent << 23 | fraction(&mut rng), below << 23 | fraction(&mut rng)));
        let exponent = rng.random_range(1u32..125);
        let above = exponent + rng.random_range(126u32..130);
        pairs.push((above << 23 | fraction(&mut rng), exponent << 23 | fraction(&mut rng)));
        // Ties: a power of two cuts the last digits of the dividend off.
        pairs.push((fraction(&mut rng), rng.random_range(120u32..160) << 23));
        pairs.push((
            rng.random_range(1u32..40) << 23 | fraction(&mut rng),
            rng.random_range(120u32..180) << 23,
        ));
    }
    pairs
}
