//! Floats of a packed weight, one for each channel of a panel, in 16 bits where their dtype has 16.

use super::isa::Isa;
use super::layout::{CHANNELS, Lanes};
use crate::dtype::FloatDtype;
use core::ops::Range;
use half::{bf16, f16};

/// Scales or float zero points, `[panel][group]`.
#[derive(Clone, Debug)]
pub enum Values {
    /// Bits of f32.
    F32(Vec<Lanes<f32>>),
    /// Bits of f16; every value is finite.
    F16(Vec<[u16; CHANNELS]>),
    /// Bits of bf16.
    Bf16(Vec<[u16; CHANNELS]>),
}

impl Values {
    /// Keeps `lanes` exactly, in the size of `dtype` if each of them has a value of it.
    pub fn new(lanes: Vec<[f32; CHANNELS]>, dtype: FloatDtype) -> Self {
        let fits = |fits: fn(f32) -> bool| lanes.as_flattened().iter().all(|x| fits(*x));
        let bits = |bits: fn(f32) -> u16| lanes.iter().map(|lanes| lanes.map(bits)).collect();
        match dtype {
            FloatDtype::F16 if fits(|x| x.is_finite() && f16::from_f32(x).to_f32().to_bits() == x.to_bits()) => {
                Self::F16(bits(|x| f16::from_f32(x).to_bits()))
            }
            FloatDtype::BF16 if fits(|x| x.to_bits() << 16 == 0) => Self::Bf16(bits(|x| (x.to_bits() >> 16) as u16)),
            _ => Self::F32(lanes.into_iter().map(Lanes).collect()),
        }
    }

    /// The values at `panel · groups + group`.
    #[inline(always)]
    pub fn lanes(&self, at: usize) -> Lanes<f32> {
        match self {
            Self::F32(lanes) => lanes[at],
            Self::F16(bits) => Lanes(bits[at].map(|bits| f16::from_bits(bits).to_f32())),
            Self::Bf16(bits) => Lanes(bits[at].map(|bits| bf16::from_bits(bits).to_f32())),
        }
    }

    /// The values at `panel · groups + group`, without a branch for each.
    #[inline(always)]
    pub fn read<I: Isa>(&self, isa: I, at: usize) -> I::F32 {
        let mut out = Lanes([0.0; CHANNELS]);
        match self {
            Self::F32(lanes) => return isa.load(&lanes[at]),
            Self::F16(bits) => {
                for (out, bits) in out.0.iter_mut().zip(&bits[at]) {
                    *out = f16_to_f32(*bits);
                }
            }
            Self::Bf16(bits) => {
                for (out, bits) in out.0.iter_mut().zip(&bits[at]) {
                    *out = f32::from_bits((*bits as u32) << 16);
                }
            }
        }
        isa.load(&out)
    }

    /// Asks for the values of `at`.
    #[inline(always)]
    pub fn fetch<I: Isa>(&self, isa: I, at: Range<usize>) {
        match self {
            Self::F32(lanes) => fetch(isa, lanes, at),
            Self::F16(bits) | Self::Bf16(bits) => fetch(isa, bits, at),
        }
    }

    /// Asks for the values at `at`, where there are some.
    #[inline(always)]
    pub fn fetch_one<I: Isa>(&self, isa: I, at: usize) {
        match self {
            Self::F32(lanes) => {
                if let Some(lanes) = lanes.get(at) {
                    isa.prefetch(lanes, true);
                }
            }
            Self::F16(bits) | Self::Bf16(bits) => {
                if let Some(bits) = bits.get(at) {
                    isa.prefetch(bits, true);
                }
            }
        }
    }

    /// Whether values have at most 11 significant bits.
    pub fn has_16_bits(&self) -> bool {
        !matches!(self, Self::F32(_))
    }

    /// Whether values have at most 11 significant bits, and none is above `limit`.
    pub fn has_16_bits_up_to(&self, limit: f32) -> bool {
        match self {
            Self::F32(_) => false,
            Self::F16(bits) | Self::Bf16(bits) => {
                (0..bits.len()).all(|at| self.lanes(at).0.iter().all(|value| value.abs() <= limit))
            }
        }
    }

    /// Whether each value is 0 or of a usual magnitude.
    pub fn are_usual(&self) -> bool {
        let count = match self {
            Self::F32(lanes) => lanes.len(),
            Self::F16(bits) | Self::Bf16(bits) => bits.len(),
        };
        let usual = |value: f32| value == 0.0 || (1.0e-30..1.0e30).contains(&value.abs());
        (0..count).all(|at| self.lanes(at).0.into_iter().all(usual))
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(lanes) => size_of_val(lanes.as_slice()),
            Self::F16(bits) | Self::Bf16(bits) => size_of_val(bits.as_slice()),
        }
    }
}

/// Asks for the cache lines of `at`, as far as there are such values.
#[inline(always)]
pub fn fetch<I: Isa, T>(isa: I, values: &[T], at: Range<usize>) {
    let at = at.start.min(values.len())..at.end.min(values.len());
    let line = (64 / size_of::<T>()).max(1);
    for value in values[at.clone()].iter().step_by(line).chain(values[at].last()) {
        isa.prefetch(value, true);
    }
}

/// A finite f16, whose exponent is 112 lower than that of the f32 of the same bits.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = f32::from_bits((bits as u32 & 0x7fff) << 13) * f32::from_bits(239 << 23);
    f32::from_bits(magnitude.to_bits() | (bits as u32 & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::super::scalar::Scalar;
    use super::*;

    #[test]
    fn every_finite_half_comes_back() {
        for dtype in [FloatDtype::F16, FloatDtype::BF16] {
            let all: Vec<f32> = (0..=u16::MAX)
                .map(|bits| match dtype {
                    FloatDtype::F16 => f16::from_bits(bits).to_f32(),
                    _ => bf16::from_bits(bits).to_f32(),
                })
                .map(|x| if x.is_finite() { x } else { 0.0 })
                .collect();
            let lanes: Vec<[f32; CHANNELS]> = all.as_chunks().0.to_vec();
            let values = Values::new(lanes.clone(), dtype);
            assert_eq!(values.bytes(), 2 * all.len(), "{dtype}");
            let out: Vec<_> = (0..lanes.len()).map(|at| Lanes(values.read(Scalar, at))).collect();
            for (i, want) in lanes.iter().enumerate() {
                assert_eq!(
                    values.lanes(i).0.map(f32::to_bits),
                    want.map(f32::to_bits),
                    "{dtype} {i}"
                );
                assert_eq!(out[i].0.map(f32::to_bits), want.map(f32::to_bits), "{dtype} {i}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_stays_f32() {
        for (value, dtype) in [
            (0.1, FloatDtype::F16),
            (f32::INFINITY, FloatDtype::F16),
            (0.1, FloatDtype::BF16),
        ] {
            let values = Values::new(vec![[value; CHANNELS]], dtype);
            assert!(matches!(values, Values::F32(_)));
            assert_eq!(values.lanes(0).0, [value; CHANNELS]);
        }
    }
}
