//! NEON with dot products, signed or of mixed sign.

use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes, Line};
use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

/// Dot products and the int8 matrix extension: `usdot`.
#[derive(Clone, Copy, Debug)]
pub struct NeonI8mm(());

/// Dot products: `sdot`.
#[derive(Clone, Copy, Debug)]
pub struct NeonDot(());

impl NeonI8mm {
    /// A token, where this machine has the instructions.
    pub fn new() -> Option<Self> {
        (NeonDot::new().is_some() && is_aarch64_feature_detected!("i8mm")).then_some(Self(()))
    }
}

impl NeonDot {
    /// A token, where this machine has the instructions.
    pub fn new() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod")).then_some(Self(()))
    }
}

/// Each lane's four products added to it: `usdot` or `sdot` of four registers with one.
macro_rules! dot {
    ($instruction:literal, $acc:expr, $w:expr, $x:expr) => {{
        let mut out = $acc;
        for i in 0..4 {
            // SAFETY: the token proves the instruction; it touches registers only.
            unsafe {
                asm!(
                    concat!($instruction, " {acc:v}.4s, {w:v}.16b, {x:v}.16b"),
                    acc = inout(vreg) out[i],
                    w = in(vreg) $w[i],
                    x = in(vreg) $x,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        out
    }};
}

/// What both tiers share: 16 lanes are four registers.
macro_rules! lanes {
    () => {
        type I32 = [int32x4_t; 4];
        type F32 = [float32x4_t; 4];
        type Bytes = [uint8x16_t; 4];
        type Weights = [uint8x16_t; 4];
        /// Four signed bytes.
        type Quad = i32;

        const FUSED: bool = true;

        #[inline(always)]
        fn load_bytes(self, line: &Line) -> [uint8x16_t; 4] {
            registers(line)
        }
        #[inline(always)]
        fn store_bytes(self, bytes: [uint8x16_t; 4], to: &mut Line) {
            for (bytes, to) in bytes.into_iter().zip(to.0.chunks_exact_mut(16)) {
                // SAFETY: the token proves NEON; `to` is 16 bytes.
                unsafe { vst1q_u8(to.as_mut_ptr(), bytes) }
            }
        }

        #[inline(always)]
        fn quad(codes: [i8; 4]) -> i32 {
            i32::from_ne_bytes(codes.map(|code| code as u8))
        }
        #[inline(always)]
        fn splat_i32(self, value: i32) -> [int32x4_t; 4] {
            // SAFETY: the token proves NEON.
            unsafe { [vdupq_n_s32(value); 4] }
        }
        #[inline(always)]
        fn load_i32(self, from: &Lanes<i32>) -> [int32x4_t; 4] {
            let from = from.0.as_ptr();
            // SAFETY: the token proves NEON; `Lanes` holds 16 values.
            unsafe {
                [
                    vld1q_s32(from),
                    vld1q_s32(from.add(4)),
                    vld1q_s32(from.add(8)),
                    vld1q_s32(from.add(12)),
                ]
            }
        }
        #[inline(always)]
        fn store_i32(self, value: [int32x4_t; 4], to: &mut Lanes<i32>) {
            for (value, to) in value.into_iter().zip(to.0.chunks_exact_mut(4)) {
                // SAFETY: the token proves NEON; `to` is 4 values.
                unsafe { vst1q_s32(to.as_mut_ptr(), value) }
            }
        }
        #[inline(always)]
        fn add_i32(self, a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vaddq_s32(a[i], b[i]) };
            }
            out
        }
        #[inline(always)]
        fn mul_i32(self, a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vmulq_s32(a[i], b[i]) };
            }
            out
        }
        #[inline(always)]
        fn to_f32(self, value: [int32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = self.splat(0.0);
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vcvtq_f32_s32(value[i]) };
            }
            out
        }
        #[inline(always)]
        fn bits_of_float(self, value: [float32x4_t; 4]) -> [int32x4_t; 4] {
            let mut out = self.splat_i32(0);
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vreinterpretq_s32_f32(value[i]) };
            }
            out
        }
        #[inline(always)]
        fn float_of_bits(self, bits: [int32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = self.splat(0.0);
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vreinterpretq_f32_s32(bits[i]) };
            }
            out
        }
        #[inline(always)]
        fn power(self, value: [float32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = value;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe {
                    vreinterpretq_f32_s32(vandq_s32(
                        vreinterpretq_s32_f32(value[i]),
                        vdupq_n_s32(0x7f80_0000),
                    ))
                };
            }
            out
        }
        #[inline(always)]
        fn low_bytes(self, value: [int32x4_t; 4], to: &mut [i8; CHANNELS]) {
            let mut lanes = Lanes([0; CHANNELS]);
            self.store_i32(value, &mut lanes);
            *to = lanes.0.map(|lane| lane as i8);
        }
        #[inline(always)]
        fn splat(self, value: f32) -> [float32x4_t; 4] {
            // SAFETY: the token proves NEON.
            unsafe { [vdupq_n_f32(value); 4] }
        }
        #[inline(always)]
        fn load(self, from: &Lanes<f32>) -> [float32x4_t; 4] {
            let from = from.0.as_ptr();
            // SAFETY: the token proves NEON; `Lanes` holds 16 values.
            unsafe {
                [
                    vld1q_f32(from),
                    vld1q_f32(from.add(4)),
                    vld1q_f32(from.add(8)),
                    vld1q_f32(from.add(12)),
                ]
            }
        }
        #[inline(always)]
        fn store(self, value: [float32x4_t; 4], to: &mut Lanes<f32>) {
            for (value, to) in value.into_iter().zip(to.0.chunks_exact_mut(4)) {
                // SAFETY: the token proves NEON; `to` is 4 values.
                unsafe { vst1q_f32(to.as_mut_ptr(), value) }
            }
        }
        #[inline(always)]
        fn add(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vaddq_f32(a[i], b[i]) };
            }
            out
        }
        #[inline(always)]
        fn mul(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vmulq_f32(a[i], b[i]) };
            }
            out
        }
        #[inline(always)]
        fn smaller(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vbslq_f32(vcltq_f32(b[i], a[i]), b[i], a[i]) };
            }
            out
        }
        #[inline(always)]
        fn larger(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vbslq_f32(vcgtq_f32(b[i], a[i]), b[i], a[i]) };
            }
            out
        }
        #[inline(always)]
        fn mul_add(self, a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
            let mut out = a;
            for i in 0..4 {
                // SAFETY: the token proves NEON.
                out[i] = unsafe { vfmaq_f32(c[i], a[i], b[i]) };
            }
            out
        }
        #[inline(always)]
        fn floats(self, line: &Line, zero: [float32x4_t; 4]) -> [[float32x4_t; 4]; 4] {
            let mut out = [zero; 4];
            for i in 0..4 {
                // SAFETY: the token proves NEON; `Line` holds 64 bytes.
                unsafe {
                    let dwords = vreinterpretq_u32_u8(vld1q_u8(line.0.as_ptr().add(16 * i)));
                    let low = vdupq_n_u32(0xff);
                    let codes = [
                        vandq_u32(dwords, low),
                        vandq_u32(vshrq_n_u32::<8>(dwords), low),
                        vandq_u32(vshrq_n_u32::<16>(dwords), low),
                        vshrq_n_u32::<24>(dwords),
                    ];
                    for k in 0..4 {
                        out[k][i] = vsubq_f32(vcvtq_f32_u32(codes[k]), zero[i]);
                    }
                }
            }
            out
        }
    };
}

/// The four registers of a line.
#[inline(always)]
fn registers(line: &Line) -> [uint8x16_t; 4] {
    let line = line.0.as_ptr();
    // SAFETY: both tokens prove NEON; `Line` holds 64 bytes.
    unsafe {
        [
            vld1q_u8(line),
            vld1q_u8(line.add(16)),
            vld1q_u8(line.add(32)),
            vld1q_u8(line.add(48)),
        ]
    }
}

impl Isa for NeonI8mm {
    type Float = NeonDot;

    #[inline(always)]
    fn float(self) -> NeonDot {
        NeonDot(())
    }
    lanes!();

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        #[target_feature(enable = "neon,i8mm")]
        fn inner<B: Block<NeonI8mm>>(isa: NeonI8mm, block: B) {
            block.run(isa);
        }
        // SAFETY: the token proves every feature.
        unsafe { inner(self, block) }
    }
    #[inline(always)]
    fn weights(self, bytes: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        bytes
    }
    #[inline(always)]
    fn dot(self, acc: [int32x4_t; 4], w: [uint8x16_t; 4], x: i32) -> [int32x4_t; 4] {
        // SAFETY: the token proves NEON.
        let x = unsafe { vdupq_n_s32(x) };
        dot!(".arch_extension i8mm\nusdot", acc, w, x)
    }
}

impl Isa for NeonDot {
    type Float = NeonDot;

    #[inline(always)]
    fn float(self) -> NeonDot {
        self
    }
    lanes!();

    /// Codes become signed: 0..=255 less 128.
    const WEIGHT_SHIFT: i32 = 128;

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        #[target_feature(enable = "neon,dotprod")]
        fn inner<B: Block<NeonDot>>(isa: NeonDot, block: B) {
            block.run(isa);
        }
        // SAFETY: the token proves every feature.
        unsafe { inner(self, block) }
    }
    #[inline(always)]
    fn weights(self, bytes: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        let mut out = bytes;
        for out in &mut out {
            // SAFETY: the token proves NEON.
            *out = unsafe { veorq_u8(*out, vdupq_n_u8(0x80)) };
        }
        out
    }
    #[inline(always)]
    fn dot(self, acc: [int32x4_t; 4], w: [uint8x16_t; 4], x: i32) -> [int32x4_t; 4] {
        // SAFETY: the token proves NEON.
        let x = unsafe { vdupq_n_s32(x) };
        dot!(".arch_extension dotprod\nsdot", acc, w, x)
    }
}
