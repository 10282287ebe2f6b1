//! A weight packed for the CPU: the one copy of its codes.

use super::layout::{CHANNELS, Groups, Lanes, Line, QUADS, TILE, pack_tile, unpack};
use super::select::{Kernel, Preference, select};
use super::tier::{TIER_VARIABLE, Tier};
use super::values::Values;
use crate::dtype::pack::PackedRows;
use crate::dtype::{FloatDtype, IntDtype};
use crate::kernels::Unsupported;
use crate::primitives::ZeroPoints;
use crate::spec::ActivationQuantization;
use crate::tensor::{AffineParts, AffineQuantizedTensor};
use core::ops::Range;

/// Largest K: sums of 8-bit products stay inside an i32.
const MAX_K: usize = 65_536;
/// Largest K with uint8 activations, whose products take 16 bits.
const MAX_K_UINT8: usize = 32_768;
/// Largest group of several along K that meets quantized activations: (x − zx)(w − zw) takes 16 bits.
const MAX_GROUP: usize = 32_768;
/// Smallest group of several along K: a group fills whole tiles, so smaller ones would cost more than floats.
const MIN_GROUP: usize = 8;

/// Largest scale whose product with 1.5 · 2^23 and the largest sum is far from infinite.
const MAGIC_SCALE: f32 = 1.0e30;

/// A logical `[N, K]` weight with its activation treatment, in the layout that every tier reads.
#[derive(Clone, Debug)]
pub struct CpuWeight {
    pub(super) n: usize,
    pub(super) groups: Groups,
    /// Channels that share a scale.
    block_n: usize,
    pub(super) dtype: IntDtype,
    quant_min: i32,
    quant_max: i32,
    scale_dtype: FloatDtype,
    zero_point_dtype: FloatDtype,
    pub(super) activation: ActivationQuantization,
    pub(super) codes: Vec<Line>,
    /// `[panel][group]`.
    pub(super) scale: Values,
    pub(super) zero: Zeros,
    /// `[panel]`: `Σ (code − zero)` along K, empty where no product needs it. Products in groups sum the codes of a chunk as they unpack it.
    pub(super) sums: Vec<Lanes<i32>>,
    /// Whether integer sums of a group can start at [`MAGIC`](super::int_blocks::MAGIC): they stay below 2^22, and products of
    /// 1.5 · 2^23 and a scale are exact.
    pub(super) magic: bool,
    /// Whether scales and float zero points are 0 or of a usual magnitude, so that no sum or product of them comes near a subnormal or
    /// infinite float.
    pub(super) usual: bool,
    /// `[panel]`, where zero points are floats.
    pub(super) exact: Vec<Exact>,
    kernel: Kernel,
}

/// What f32 holds exactly of the weights of a panel with float zero points. All scales are positive and usual, see [`CpuWeight::usual`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exact {
    /// Nothing is known.
    Nothing,
    /// `mid · scale`.
    Middle,
    /// `code · scale` for each code, and `value − mid · scale`: what code 0 stands for.
    Start,
}

/// Zero points of a packed weight; integers count from the smallest code of the dtype.
#[derive(Clone, Debug)]
pub(super) enum Zeros {
    /// There was none: the code 0.
    None(u8),
    /// The same for every block.
    Same(u8),
    /// `[panel][group]`.
    Codes(Vec<[u8; CHANNELS]>),
    /// `[panel][group]`: the value of code `mid`.
    Float { value: Values, mid: u8 },
}

impl CpuWeight {
    /// Packs a rank-2 weight for the best tier, or for the one that [`TIER_VARIABLE`] names.
    ///
    /// Errors: a weight that no kernel serves comes back with the reason.
    ///
    /// # Panics
    /// If the variable names a tier that does not exist or cannot run here: a pin never falls back.
    pub fn pack(weight: AffineQuantizedTensor, activation: ActivationQuantization) -> Result<Self, Box<Unsupported>> {
        let preference = std::env::var(TIER_VARIABLE).map_or(Preference::Auto, Preference::Specific);
        match Self::pack_for(weight, activation, &preference) {
            Ok(packed) => packed,
            Err(message) => panic!("{TIER_VARIABLE}: {message}"),
        }
    }

    /// [`CpuWeight::pack`] for a preference.
    ///
    /// Errors: outside, a preference that cannot run; inside, a weight that no kernel serves.
    pub fn pack_for(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        preference: &Preference,
    ) -> Result<Result<Self, Box<Unsupported>>, String> {
        let kernel = select(weight.parts().dtype, &activation, &Tier::available(), preference)?;
        Ok(match refusal(&weight, &activation) {
            Some(reason) => Err(Box::new(Unsupported { weight, reason })),
            None => Ok(Self::pack_with(&weight, activation, kernel)),
        })
    }

    fn pack_with(weight: &AffineQuantizedTensor, activation: ActivationQuantization, kernel: Kernel) -> Self {
        let parts = weight.parts();
        let (n, k) = (parts.shape[0], parts.shape[1]);
        let (block_n, groups) = (parts.block_size[0], Groups::new(k, parts.block_size[1]));
        let panels = n.div_ceil(CHANNELS);
        let bits = parts.dtype.bits() as usize;
        let mut codes = vec![Line::ZERO; panels * groups.total_tiles * bits];
        let mut sums = vec![
            Lanes([0; CHANNELS]);
            if groups.count == 1 && super::activation::needs_sums(&activation) {
                panels
            } else {
                0
            }
        ];
        let zero = pack_zeros(parts, panels, &groups);
        let mut rows = vec![0; CHANNELS * k];
        for panel in 0..panels {
            let channels = CHANNELS.min(n - panel * CHANNELS);
            for (c, row) in rows.chunks_exact_mut(k.max(1)).take(channels).enumerate() {
                weight.packed_codes().read(panel * CHANNELS + c, 0, row);
            }
            let lines = &mut codes[panel * groups.total_tiles * bits..];
            for group in 0..groups.count {
                for (t, tile) in groups.tiles(group).enumerate() {
                    let mut quads = [Line::ZERO; QUADS];
                    let start = groups.elements(group).start + t * TILE;
                    for k_at in start..(start + TILE).min(groups.elements(group).end) {
                        let (quad, i) = ((k_at - start) / 4, (k_at - start) % 4);
                        for c in 0..channels {
                            quads[quad].0[c * 4 + i] = rows[c * k + k_at];
                        }
                    }
                    pack_tile(&quads, &mut lines[tile * bits..(tile + 1) * bits]);
                }
                if !sums.is_empty() {
                    let at = panel * groups.count + group;
                    for c in 0..channels {
                        let range = groups.elements(group);
                        let sum: i32 = rows[c * k..][range.clone()].iter().map(|code| *code as i32).sum();
                        sums[at].0[c] = sum - zero.code(at, c) as i32 * range.len() as i32;
                    }
                }
            }
        }
        let scale = Values::new(spread(&parts.scale, 0.0, block_n, n, &groups), parts.scale_dtype);
        let most = parts.dtype.max() - parts.dtype.min();
        let farthest = match &zero {
            Zeros::None(zero) | Zeros::Same(zero) => (*zero as i32).max(most - *zero as i32),
            _ => most,
        };
        let usual = scale.are_usual()
            && match &zero {
                Zeros::Float { value, .. } => value.are_usual(),
                _ => true,
            };
        let exact = match &zero {
            Zeros::Float { value, mid } => (0..panels)
                .map(|panel| {
                    let at = panel * groups.count..(panel + 1) * groups.count;
                    exact(usual, (&scale, value, *mid), at, CHANNELS.min(n - panel * CHANNELS))
                })
                .collect(),
            _ => Vec::new(),
        };
        Self {
            n,
            block_n,
            exact,
            magic: groups.count > 1
                && groups.size * 255 * (farthest as usize) < 1 << 22
                && scale.has_16_bits_up_to(MAGIC_SCALE),
            usual,
            dtype: parts.dtype,
            quant_min: parts.quant_min,
            quant_max: parts.quant_max,
            scale_dtype: parts.scale_dtype,
            zero_point_dtype: parts.zero_point_dtype,
            activation,
            codes,
            scale,
            zero,
            sums,
            kernel,
            groups,
        }
    }

    /// The weight as it was before it was packed, bit for bit.
    pub fn unpack(&self) -> AffineQuantizedTensor {
        let (n, k) = (self.n, self.groups.k);
        let mut codes = vec![0; n * k];
        let mut quads = vec![Line::ZERO; self.groups.total_tiles * QUADS];
        for panel in 0..self.panels() {
            unpack(self.bits(), self.panel(panel), &mut quads);
            for c in 0..CHANNELS.min(n - panel * CHANNELS) {
                for (k_at, code) in codes[(panel * CHANNELS + c) * k..][..k].iter_mut().enumerate() {
                    *code = self.code(&quads, c, k_at);
                }
            }
        }
        let packed = PackedRows::pack(self.bits(), n, k, codes.into_iter());
        let min = self.dtype.min();
        let zero_point = match &self.zero {
            Zeros::None(_) => ZeroPoints::None,
            Zeros::Same(zero) => ZeroPoints::Int(vec![*zero as i32 + min; self.blocks()]),
            Zeros::Codes(zero) => ZeroPoints::Int(self.gather_blocks(|at, c| zero[at][c] as i32 + min)),
            Zeros::Float { value, .. } => ZeroPoints::Float(self.gather_blocks(|at, c| value.lanes(at).0[c])),
        };
        let parts = AffineParts {
            shape: vec![n, k],
            block_size: vec![self.block_n, self.groups.size],
            dtype: self.dtype,
            quant_min: self.quant_min,
            quant_max: self.quant_max,
            scale: self.gather_blocks(|at, c| self.scale.lanes(at).0[c]),
            scale_dtype: self.scale_dtype,
            zero_point,
            zero_point_dtype: self.zero_point_dtype,
        };
        AffineQuantizedTensor::from_packed(parts, packed.into_bytes()).expect("the parts of a packed weight fit")
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.groups.k]
    }

    /// The treatment of activations.
    pub fn activation(&self) -> &ActivationQuantization {
        &self.activation
    }

    /// The kernel that serves any number of rows of activations.
    pub fn kernel_name(&self) -> String {
        self.kernel.to_string()
    }

    /// The tier that the weight was packed for; every tier reads the same layout.
    pub fn tier(&self) -> Tier {
        self.kernel.tier
    }

    /// Bytes in memory: codes, scales, zero points and sums, padding included.
    pub fn bytes(&self) -> usize {
        let zeros = match &self.zero {
            Zeros::None(_) | Zeros::Same(_) => 0,
            Zeros::Codes(zero) => size_of_val(zero.as_slice()),
            Zeros::Float { value, .. } => value.bytes(),
        };
        size_of_val(self.codes.as_slice()) + self.scale.bytes() + size_of_val(self.sums.as_slice()) + zeros
    }

    /// Bytes of the weight at rest, as [`AffineQuantizedTensor::bytes`] counts those of [`CpuWeight::unpack`].
    pub fn rest_bytes(&self) -> usize {
        let codes = self.n * PackedRows::row_bytes(self.bits(), self.groups.k);
        let zero = match &self.zero {
            Zeros::None(_) => 0,
            Zeros::Same(_) | Zeros::Codes(_) => 1,
            Zeros::Float { .. } => self.zero_point_dtype.size(),
        };
        codes + self.blocks() * (self.scale_dtype.size() + zero)
    }

    pub(super) fn bits(&self) -> u32 {
        self.dtype.bits()
    }

    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(CHANNELS)
    }

    /// The lines of a panel.
    pub(super) fn panel(&self, panel: usize) -> &[Line] {
        let lines = self.groups.total_tiles * self.bits() as usize;
        &self.codes[panel * lines..(panel + 1) * lines]
    }

    /// The unsigned code of channel `c` at `k`, from the quads of its panel.
    pub(super) fn code(&self, quads: &[Line], c: usize, k: usize) -> u8 {
        let position = self.groups.position(k);
        quads[position / 4].0[c * 4 + position % 4]
    }

    /// The value of a code, as [`AffineQuantizedTensor::dequantize`] gives it; `at` is `panel · groups + group`.
    pub(super) fn value(&self, code: u8, at: usize, c: usize, dtype: FloatDtype) -> f32 {
        let t = |x: f32| dtype.round(x);
        let scale = self.scale.lanes(at).0[c];
        match &self.zero {
            Zeros::Float { value, mid } => t(t(t(code as f32 - *mid as f32) * scale) + value.lanes(at).0[c]),
            zero => {
                let min = self.dtype.min() as f32;
                let (code, zero) = (t(code as f32 + min), t(zero.code(at, c) as f32 + min));
                t(dtype.promote(self.scale_dtype).round(t(code - zero) * scale))
            }
        }
    }

    fn blocks(&self) -> usize {
        self.n.div_ceil(self.block_n) * self.groups.count
    }

    /// One value for each block, row-major.
    fn gather_blocks<T>(&self, get: impl Fn(usize, usize) -> T) -> Vec<T> {
        let count = self.groups.count;
        (0..self.blocks())
            .map(|block| {
                let (channel, group) = (block / count * self.block_n, block % count);
                get(channel / CHANNELS * count + group, channel % CHANNELS)
            })
            .collect()
    }
}

impl Zeros {
    /// The integer zero point at `panel · groups + group`; of a float zero point, the middle code.
    pub(super) fn code(&self, at: usize, c: usize) -> u8 {
        match self {
            Self::None(zero) | Self::Same(zero) | Self::Float { mid: zero, .. } => *zero,
            Self::Codes(zero) => zero[at][c],
        }
    }
}

/// Why no kernel serves a weight.
fn refusal(weight: &AffineQuantizedTensor, activation: &ActivationQuantization) -> Option<String> {
    let parts = weight.parts();
    let &[_, k] = parts.shape.as_slice() else {
        return Some(format!("a weight has 2 dims, this one has shape {:?}", parts.shape));
    };
    let group = parts.block_size[1];
    if k > MAX_K {
        return Some(format!(
            "K = {k} is above {MAX_K}, where 8-bit sums could leave 32 bits"
        ));
    }
    if group < k && group < MIN_GROUP {
        return Some(format!(
            "groups of {group} along K are too small: choose {MIN_GROUP} or more"
        ));
    }
    if matches!(parts.zero_point, ZeroPoints::Float(_)) && (parts.quant_min + parts.quant_max) % 2 == 0 {
        let (lo, hi) = (parts.quant_min, parts.quant_max);
        return Some(format!(
            "a float zero point needs an even number of codes, so that one is in the middle: not {lo}..={hi}"
        ));
    }
    if let ZeroPoints::Int(zero) = &parts.zero_point {
        let (min, max) = (parts.dtype.min(), parts.dtype.max());
        if let Some(zero) = zero.iter().find(|zero| !(min..=max).contains(*zero)) {
            return Some(format!(
                "the zero point {zero} is outside {} ({min}..={max})",
                parts.dtype
            ));
        }
    }
    if !activation.is_quantized() {
        return None;
    }
    if matches!(parts.zero_point, ZeroPoints::Float(_)) {
        return Some("a float zero point needs float activations (weight-only)".into());
    }
    if group < k && group > MAX_GROUP {
        return Some(format!(
            "groups of {group} along K are above {MAX_GROUP}, where 8-bit sums could leave 32 bits"
        ));
    }
    if super::activation::offset(activation) != 0 && k > MAX_K_UINT8 {
        return Some(format!(
            "K = {k} is above {MAX_K_UINT8}, where sums of uint8 activations could leave 32 bits"
        ));
    }
    super::activation::refusal(activation)
}

/// What is exact in some groups of a panel that has `channels` channels.
fn exact(usual: bool, (scale, value, mid): (&Values, &Values, u8), groups: Range<usize>, channels: usize) -> Exact {
    let fits = |x: f64| (x as f32) as f64 == x;
    let of_weight = |scale_of: f32, value: f32| {
        // Exact in f64, as is the difference of two numbers of f32 that are as close as this.
        let (middle, value) = (mid as f64 * scale_of as f64, value as f64);
        let close = value == 0.0 || (1.0e-7..1.0e7).contains(&(value / middle).abs());
        match usual && scale_of > 0.0 && fits(middle) {
            false => Exact::Nothing,
            true if scale.has_16_bits() && close && fits(value - middle) => Exact::Start,
            true => Exact::Middle,
        }
    };
    let of_group = |at| {
        let pairs = scale.lanes(at).0.into_iter().zip(value.lanes(at).0).take(channels);
        pairs.map(|(scale, value)| of_weight(scale, value)).min()
    };
    groups.filter_map(of_group).min().unwrap_or(Exact::Nothing)
}

/// Block values, row-major, spread over `[panel][group][channel]`.
fn spread<T: Copy>(blocks: &[T], padding: T, block_n: usize, n: usize, groups: &Groups) -> Vec<[T; CHANNELS]> {
    let mut out = vec![[padding; CHANNELS]; n.div_ceil(CHANNELS) * groups.count];
    for channel in 0..n {
        for group in 0..groups.count {
            out[channel / CHANNELS * groups.count + group][channel % CHANNELS] =
                blocks[channel / block_n * groups.count + group];
        }
    }
    out
}

fn pack_zeros(parts: &AffineParts, panels: usize, groups: &Groups) -> Zeros {
    let (n, block_n, min) = (parts.shape[0], parts.block_size[0], parts.dtype.min());
    debug_assert_eq!(panels, n.div_ceil(CHANNELS));
    match &parts.zero_point {
        ZeroPoints::None => Zeros::None((-min) as u8),
        ZeroPoints::Int(zero) => match zero.first() {
            None => Zeros::Same((-min) as u8),
            Some(first) if zero.iter().all(|z| z == first) => Zeros::Same((first - min) as u8),
            Some(_) => {
                let codes: Vec<u8> = zero.iter().map(|z| (z - min) as u8).collect();
                Zeros::Codes(spread(&codes, 0, block_n, n, groups))
            }
        },
        ZeroPoints::Float(value) => Zeros::Float {
            value: Values::new(spread(value, 0.0, block_n, n, groups), parts.zero_point_dtype),
            mid: (parts.mid() - min) as u8,
        },
    }
}
