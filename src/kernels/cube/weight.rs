//! A weight packed for a CubeCL device: codes, scales and zero points in its memory.

use super::buffer::Buffer;
use super::device::{Chunks, Packing};
use super::fragments::{Operand, container};
use super::layout::{Arrangement, Layout};
use super::product_float::{SizesLaunch, Zero};
use super::product_int::is_shifted;
use super::select::{self, Hardware, Problem, Tiling};
use crate::dtype::FloatDtype;
use crate::dtype::pack::PackedRows;
use crate::kernels::Unsupported;
use crate::primitives::ZeroPoints;
use crate::spec::ActivationQuantization;
use crate::tensor::{AffineParts, AffineQuantizedTensor};
use cubecl::prelude::*;
use std::sync::Arc;

/// Largest K: sums of 8-bit products stay inside an i32.
const MAX_K: usize = 65_536;
/// Largest K of one sum of uint8 activations, or of codes less their zero points: factors take 8 bits and a sign.
const MAX_CENTERED: usize = 32_768;
/// Largest N: units of a product stay inside one dim of cubes.
const MAX_N: usize = 4_000_000;

/// A logical `[N, K]` weight with its activation treatment, on a device.
#[derive(Clone)]
pub struct CubeWeight<R: Runtime> {
    pub(super) client: ComputeClient<R>,
    pub(super) layout: Layout,
    pub(super) hardware: Hardware,
    problem: Problem,
    zero: Zero,
    pub(super) activation: ActivationQuantization,
    /// Everything but the codes, on the host, for records.
    parts: Arc<AffineParts>,
    pub(super) words: Buffer,
    /// `[group][N]`.
    pub(super) scales: Buffer,
    /// `[group][N]`: integer zero points, counted from the smallest code, or values of the middle code, as bits; then the sums.
    pub(super) zeros: Buffer,
    /// Where `Σ (code − zero point)` of each channel begins in `zeros`.
    pub(super) sums: usize,
    /// The dtypes of two bytes that hold every scale and float zero point.
    halves: Vec<FloatDtype>,
    /// The zero point of every block, where it is the same; `None` where `zeros` says it.
    pub(super) zero_point: Option<i32>,
}

impl<R: Runtime> core::fmt::Debug for CubeWeight<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CubeWeight")
            .field("layout", &self.layout)
            .field("activation", &self.activation)
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> CubeWeight<R> {
    /// Packs a rank-2 weight into the memory of a device.
    ///
    /// Errors: a weight that no kernel serves comes back with the reason.
    pub fn pack(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        client: ComputeClient<R>,
    ) -> Result<Self, Box<Unsupported>> {
        if let Some(reason) = refusal(&weight, &activation, client.properties().memory.max_page_size) {
            return Err(Box::new(Unsupported { weight, reason }));
        }
        let parts = weight.parts().clone();
        let hardware = Hardware::of(client.properties());
        let mut layout = layout(&parts);
        let problem = problem(&layout, &parts, &activation);
        layout.arrangement = select::arrangement(&hardware, &problem);
        let halves = layout.arrangement == Arrangement::Fragments(Operand::Halves);
        let min = parts.dtype.min();
        let spread = |at: usize| {
            let (group, channel) = (at / layout.n, at % layout.n);
            channel / parts.block_size[0] * layout.groups() + group
        };
        let blocks = || (0..if layout.k == 0 { 0 } else { layout.groups() * layout.n }).map(spread);
        let (mut zeros, zero_point): (Vec<u32>, _) = match &parts.zero_point {
            ZeroPoints::None => (Vec::new(), Some(-min)),
            ZeroPoints::Int(same) if zero(&parts) == Zero::Same => {
                (Vec::new(), Some(same.first().copied().unwrap_or(0) - min))
            }
            // The kernels of matrix instructions count in floats.
            ZeroPoints::Int(zero) if halves => (
                blocks().map(|block| ((zero[block] - min) as f32).to_bits()).collect(),
                None,
            ),
            ZeroPoints::Int(zero) => (blocks().map(|block| (zero[block] - min) as u32).collect(), None),
            ZeroPoints::Float(zero) => (blocks().map(|block| zero[block].to_bits()).collect(), None),
        };
        let sums = zeros.len();
        if needs_sums(&layout, &activation) {
            zeros.extend(group_sums(&weight, &layout).into_iter().map(|sum| sum as u32));
        }
        let fits = |dtype: &FloatDtype| {
            let float_zeros = match &parts.zero_point {
                ZeroPoints::Float(zero) => zero.as_slice(),
                _ => &[],
            };
            parts
                .scale
                .iter()
                .chain(float_zeros)
                .all(|value| dtype.round(*value) == *value)
        };
        let held = [FloatDtype::F16, FloatDtype::BF16].into_iter().filter(fits).collect();
        let scales: Vec<f32> = blocks().map(|block| parts.scale[block]).collect();
        Ok(Self {
            words: Buffer::upload(&client, &layout.pack(weight.packed_codes())),
            scales: Buffer::upload(&client, &scales),
            zeros: Buffer::upload(&client, &zeros),
            sums,
            halves: held,
            zero_point,
            layout,
            hardware,
            problem,
            zero: zero(&parts),
            activation,
            parts: Arc::new(parts),
            client,
        })
    }

    /// The weight as it was before it was packed, bit for bit; waits for the device.
    pub fn unpack(&self) -> AffineQuantizedTensor {
        let codes = self.layout.unpack(&self.words.read(&self.client));
        let packed = PackedRows::pack(self.layout.bits as u32, self.layout.n, self.layout.k, codes.into_iter());
        AffineQuantizedTensor::from_packed((*self.parts).clone(), packed.into_bytes())
            .expect("the parts of a packed weight fit")
    }

    /// The same weight in memory of its own, where a clone shares it; waits for the device.
    pub fn duplicate(&self) -> Self {
        let copy = |buffer: &Buffer| buffer.duplicate(&self.client);
        Self {
            words: copy(&self.words),
            scales: copy(&self.scales),
            zeros: copy(&self.zeros),
            ..self.clone()
        }
    }

    /// Whether `client` is that of the device which holds the weight: clients of one device share their properties.
    pub(crate) fn is_on(&self, client: &ComputeClient<R>) -> bool {
        core::ptr::eq(self.client.properties(), client.properties())
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.layout.n, self.layout.k]
    }

    /// The kernel that serves any number of rows of activations: activation and weight, then the family; f32 activations have their own where
    /// the name says so.
    pub fn kernel_name(&self, _rows: usize) -> String {
        let short =
            |dtype: crate::dtype::IntDtype| format!("{}{}", if dtype.is_signed() { "i" } else { "u" }, dtype.bits());
        let activation = match self.activation {
            ActivationQuantization::None => "f".into(),
            ActivationQuantization::Dynamic { dtype, .. } | ActivationQuantization::Static { dtype, .. } => {
                short(dtype)
            }
        };
        let family = self.family();
        format!("{activation}{} {family}", short(self.parts.dtype))
    }

    /// The tiling of a product through matrix instructions with activations of `dtype`; `None` where the portable kernels serve.
    pub(super) fn tiling(&self, rows: usize, dtype: FloatDtype) -> Option<Tiling> {
        let Arrangement::Fragments(operand) = self.layout.arrangement else {
            return None;
        };
        if operand == Operand::Halves && dtype == FloatDtype::F32 {
            return None;
        }
        Some(self.tiling_on(&self.hardware, rows))
    }

    /// The tiling of int8 activations that are in the order of the ring.
    pub(super) fn ring_tiling(&self, rows: usize) -> Tiling {
        let without = Hardware {
            warpgroups: false,
            ..self.hardware
        };
        self.tiling_on(&without, rows)
    }

    fn tiling_on(&self, hardware: &Hardware, rows: usize) -> Tiling {
        select::tiling(hardware, &self.problem, rows, container(self.layout.bits))
    }

    /// The integer that is subtracted from every code: the zero point, or the middle code of float zero points.
    pub(super) fn origin(&self) -> i32 {
        match self.zero() {
            Zero::Float => self.parts.mid() - self.parts.dtype.min(),
            _ => self.zero_point.unwrap_or(0),
        }
    }

    /// Whether scales and float zero points are values of `dtype`.
    pub(super) fn has_scales_of(&self, dtype: FloatDtype) -> bool {
        self.halves.contains(&dtype)
    }

    /// The family of kernels that serves.
    fn family(&self) -> &'static str {
        match self.layout.arrangement {
            Arrangement::Streams => "cube_portable",
            Arrangement::Fragments(Operand::Bytes) => "cube_mma",
            Arrangement::Fragments(Operand::Halves) => "cube_mma (f32: cube_portable)",
        }
    }

    /// Bytes of the weight at rest, as [`AffineQuantizedTensor::bytes`] counts those of [`CubeWeight::unpack`]; asks the host alone.
    pub fn rest_bytes(&self) -> usize {
        self.parts.bytes()
    }

    /// Bytes on the device, padding included.
    pub fn bytes(&self) -> usize {
        4 * (self.words.len() + self.scales.len() + self.zeros.len())
    }

    /// Whether a product takes the activation's zero point off its codes, not off the sum.
    pub(super) fn is_centered(&self) -> bool {
        is_centered(&self.layout, &self.activation)
    }

    pub(super) fn packing(&self) -> Packing {
        Packing {
            bits: self.layout.bits,
            arrangement: self.layout.arrangement,
        }
    }

    pub(super) fn chunks(&self) -> Chunks {
        Chunks {
            k: self.layout.k as u32,
            group: self.layout.group as u32,
            per_group: self.layout.chunks_per_group() as u32,
            count: self.layout.chunks() as u32,
        }
    }

    pub(super) fn zero(&self) -> Zero {
        self.zero
    }

    /// The numbers of a kernel over `rows` rows.
    pub(super) fn sizes(&self, rows: usize) -> SizesLaunch<R> {
        SizesLaunch::new(rows as u32, self.layout.n as u32, self.origin(), f32::NAN.to_bits(), 0)
    }
}

fn layout(parts: &AffineParts) -> Layout {
    Layout {
        n: parts.shape[0],
        k: parts.shape[1],
        bits: parts.dtype.bits() as usize,
        group: parts.block_size[1].max(1),
        arrangement: Arrangement::Streams,
    }
}

/// What the weight asks of its kernels.
fn problem(layout: &Layout, parts: &AffineParts, activation: &ActivationQuantization) -> Problem {
    let middle = 1i32 << (layout.bits - 1);
    let is_middle = match &parts.zero_point {
        ZeroPoints::None => -parts.dtype.min() == middle,
        ZeroPoints::Int(zero) => zero.iter().all(|zero| zero - parts.dtype.min() == middle),
        ZeroPoints::Float(_) => false,
    };
    Problem {
        n: layout.n,
        k: layout.k,
        group: layout.group,
        int8: activation.is_quantized() && activation.is_signed(),
        float: !activation.is_quantized(),
        middle: is_middle,
    }
}

fn zero(parts: &AffineParts) -> Zero {
    match &parts.zero_point {
        ZeroPoints::Float(_) => Zero::Float,
        ZeroPoints::Int(zero) if zero.windows(2).any(|two| two[0] != two[1]) => Zero::Blocks,
        _ => Zero::Same,
    }
}

fn is_centered(layout: &Layout, activation: &ActivationQuantization) -> bool {
    is_shifted(activation)
        && layout.arrangement == Arrangement::Streams
        && (layout.groups() > 1 || !activation.is_signed())
}

/// Whether a product corrects its sums by the activation's zero point.
fn needs_sums(layout: &Layout, activation: &ActivationQuantization) -> bool {
    is_shifted(activation) && !is_centered(layout, activation)
}

/// `Σ (code − zero point)` of each block of a weight with integer zero points, `[group][N]`.
fn group_sums(weight: &AffineQuantizedTensor, layout: &Layout) -> Vec<i32> {
    let (parts, codes) = (weight.parts(), weight.codes());
    let (n, k, groups) = (layout.n, layout.k, layout.groups());
    let sum = |at: usize| {
        let (group, channel) = (at / n, at % n);
        let zero = match &parts.zero_point {
            ZeroPoints::Int(zero) => {
                let block = channel / parts.block_size[0] * groups + group;
                zero.get(block).copied().unwrap_or(0)
            }
            _ => 0,
        };
        let end = ((group + 1) * layout.group).min(k);
        codes[channel * k + group * layout.group..channel * k + end]
            .iter()
            .map(|code| code - zero)
            .sum()
    };
    (0..groups * n).map(sum).collect()
}

/// Why no kernel serves a weight on a device whose largest array takes `largest` bytes.
fn refusal(weight: &AffineQuantizedTensor, activation: &ActivationQuantization, largest: u64) -> Option<String> {
    let parts = weight.parts();
    let &[n, k] = parts.shape.as_slice() else {
        return Some(format!("a weight has 2 dims, this one has shape {:?}", parts.shape));
    };
    if n > MAX_N {
        return Some(format!("N = {n} is above {MAX_N}, the most that one launch covers"));
    }
    let layout = layout(parts);
    let bytes = (4 * layout.words()).max(4 * layout.groups() * n);
    if bytes as u64 > largest || layout.words() > u32::MAX as usize {
        return Some(format!(
            "packed codes of {bytes} bytes do not fit one array of the device ({largest} bytes)"
        ));
    }
    let float_zero = matches!(parts.zero_point, ZeroPoints::Float(_));
    if float_zero && (parts.quant_min + parts.quant_max) % 2 == 0 {
        let (lo, hi) = (parts.quant_min, parts.quant_max);
        return Some(format!(
            "a float zero point needs an even number of codes, so that one is in the middle: not {lo}..={hi}"
        ));
    }
    let (dtype, lo, hi) = match *activation {
        ActivationQuantization::None => return None,
        ActivationQuantization::Dynamic {
            dtype,
            quant_min,
            quant_max,
            ..
        }
        | ActivationQuantization::Static {
            dtype,
            quant_min,
            quant_max,
            ..
        } => (dtype, quant_min, quant_max),
    };
    if dtype.bits() != 8 || lo >= hi || lo < dtype.min() || hi > dtype.max() {
        return Some(format!("activations are int8 or uint8, not {dtype} in {lo}..={hi}"));
    }
    if float_zero {
        return Some("a float zero point needs float activations (weight-only)".into());
    }
    let limit = if is_centered(&layout, activation) || !activation.is_signed() {
        MAX_CENTERED
    } else {
        MAX_K
    };
    let sum = if layout.groups() > 1 { layout.group } else { k };
    (sum > limit)
        .then(|| format!("sums over {sum} values along K are above {limit}, where 8-bit products could leave 32 bits"))
}
