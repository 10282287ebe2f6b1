//! A random weight, its copies on the device, and what its products must add up to.

use crate::configs::Config;
use crate::device::Gpu;
use burn_cubecl::CubeRuntime;
use burn_quantized::dtype::FloatDtype;
use burn_quantized::kernels::cube::CubeWeight;
use burn_quantized::kernels::{Native, QuantKernels};
use burn_quantized::primitives::ZeroPoints;
use burn_quantized::tensor::{AffineParts, AffineQuantizedTensor};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rayon::prelude::*;

/// Least number of copies.
const MIN_COPIES: usize = 4;

/// A weight of one size: on the host, and in as many copies on the device as the rotation takes.
pub struct Weight<R: CubeRuntime> {
    pub host: AffineQuantizedTensor,
    pub copies: Vec<CubeWeight<R>>,
    /// Random signs, one a channel.
    pub signs: Vec<f32>,
    /// `W v` for the signs v: one sum for each k.
    pub sums: Vec<f32>,
}

impl<R: CubeRuntime> Weight<R> {
    /// Codes of `K × N` at random, and scales that keep outputs near 1.
    ///
    /// Errors: the reason why no kernel serves it.
    pub fn new(
        config: &Config,
        (k, n): (usize, usize),
        rotation: usize,
        device: &R::CubeDevice,
    ) -> Result<Self, String> {
        let mut rng = StdRng::seed_from_u64(k as u64);
        let host = random(config, (k, n), &mut rng);
        let packed = <Native as QuantKernels<Gpu<R>>>::pack(host.clone(), config.activation, device)
            .map_err(|refused| refused.reason)?;
        let count = rotation.div_ceil(packed.bytes()).max(MIN_COPIES);
        let mut copies: Vec<_> = (1..count).map(|_| packed.duplicate()).collect();
        copies.push(packed);
        let signs: Vec<f32> = (0..n).map(|_| if rng.random() { 1.0 } else { -1.0 }).collect();
        let sums = sums(&host, &signs);
        Ok(Self {
            host,
            copies,
            signs,
            sums,
        })
    }

    /// Bytes that a product reads of the weight.
    pub fn bytes(&self) -> usize {
        self.copies[0].bytes()
    }
}

fn random(config: &Config, (k, n): (usize, usize), rng: &mut StdRng) -> AffineQuantizedTensor {
    let group = config.group.unwrap_or(k);
    let blocks = n * k.div_ceil(group);
    let bits = config.weight.bits();
    let scale_dtype = if config.group.is_some() {
        config.dtype
    } else {
        FloatDtype::F32
    };
    let step = 1.6 / ((k as f32).sqrt() * (1u32 << (bits - 1)) as f32);
    let mut random = |low: f32, high: f32| -> Vec<f32> {
        (0..blocks)
            .map(|_| scale_dtype.round(rng.random_range(low * step..high * step)))
            .collect()
    };
    let (scale, zero) = (random(0.5, 1.5), random(-1.0, 1.0));
    let parts = AffineParts {
        shape: vec![n, k],
        block_size: vec![1, group.min(k)],
        dtype: config.weight,
        quant_min: config.weight.min(),
        quant_max: config.weight.max(),
        scale,
        scale_dtype,
        zero_point: if config.float_zero {
            ZeroPoints::Float(zero)
        } else {
            ZeroPoints::None
        },
        zero_point_dtype: scale_dtype,
    };
    let mut bytes = vec![0; parts.packed_bytes()];
    rng.fill_bytes(&mut bytes);
    AffineQuantizedTensor::from_packed(parts, bytes).expect("parts that fit")
}

/// `Σ v[n] · W[n, k]` for each k, from the packed bytes of 4- or 8-bit codes.
fn sums(weight: &AffineQuantizedTensor, signs: &[f32]) -> Vec<f32> {
    let parts = weight.parts();
    let (n, k) = (parts.shape[0], parts.shape[1]);
    let (bits, group) = (parts.dtype.bits() as usize, parts.block_size[1]);
    assert!(
        bits == 4 || bits == 8,
        "the plain loop knows codes of 4 and 8 bits, not of {bits}"
    );
    let width = k * bits / 8;
    let bytes = weight.packed_codes().as_bytes();
    // Codes rest offset by the smallest; 0 is in the middle, and a float zero point is the value there.
    let middle = (1u32 << (bits - 1)) as f32;
    let add = |mut sums: Vec<f64>, channel: usize| {
        let row = &bytes[channel * width..][..width];
        for (at, sum) in sums.iter_mut().enumerate() {
            let code = match bits {
                4 => row[at / 2] >> (at % 2 * 4) & 15,
                _ => row[at],
            };
            let block = channel * k.div_ceil(group) + at / group;
            let zero = match &parts.zero_point {
                ZeroPoints::Float(zero) => zero[block],
                _ => 0.0,
            };
            let value = (f32::from(code) - middle) * parts.scale[block] + zero;
            *sum += f64::from(signs[channel] * value);
        }
        sums
    };
    let join = |mut a: Vec<f64>, b: Vec<f64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let sums = (0..n)
        .into_par_iter()
        .fold(|| vec![0.0; k], add)
        .reduce(|| vec![0.0; k], join);
    sums.into_iter().map(|sum| sum as f32).collect()
}
