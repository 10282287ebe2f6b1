//! AVX-512, with and without VNNI.

use super::isa::{Block, Isa};
use super::layout::{Lanes, Line};
use core::arch::x86_64::*;

/// AVX-512 F, BW, VL, DQ and VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(());

/// AVX-512 F, BW, VL and DQ.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512Vnni {
    /// A token, where this machine has the instructions.
    pub fn new() -> Option<Self> {
        (Avx512::new().is_some() && is_x86_feature_detected!("avx512vnni")).then_some(Self(()))
    }
}

impl Avx512 {
    /// A token, where this machine has the instructions.
    pub fn new() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

/// Bits of 2^23: with a byte in its low bits, the float 2^23 + byte.
const MAGIC: i32 = 0x4b00_0000;

/// What both tiers share.
macro_rules! lanes {
    () => {
        type I32 = __m512i;
        type F32 = __m512;

        const FLOAT_SHIFT: f32 = 8_388_608.0;
        const WIDE: bool = true;
        const ROWS: &'static [usize] = &[12, 8, 4, 2, 1];

        #[inline(always)]
        fn prefetch(self, line: &Line, near: bool) {
            // SAFETY: a hint on memory that is borrowed; SSE is part of x86-64.
            unsafe {
                match near {
                    true => _mm_prefetch::<_MM_HINT_T0>((&raw const line.0).cast()),
                    false => _mm_prefetch::<_MM_HINT_T1>((&raw const line.0).cast()),
                }
            }
        }
        #[inline(always)]
        fn splat_i32(self, value: i32) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_set1_epi32(value) }
        }
        #[inline(always)]
        fn load_i32(self, from: &Lanes<i32>) -> __m512i {
            // SAFETY: the token proves AVX-512 F; `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_load_si512((&raw const from.0).cast()) }
        }
        #[inline(always)]
        fn store_i32(self, value: __m512i, to: &mut Lanes<i32>) {
            // SAFETY: the token proves AVX-512 F; `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_si512((&raw mut to.0).cast(), value) }
        }
        #[inline(always)]
        fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        fn mul_i32(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_mullo_epi32(a, b) }
        }
        #[inline(always)]
        fn to_f32(self, value: __m512i) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_cvtepi32_ps(value) }
        }
        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        fn load(self, from: &Lanes<f32>) -> __m512 {
            // SAFETY: the token proves AVX-512 F; `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_load_ps((&raw const from.0).cast()) }
        }
        #[inline(always)]
        fn store(self, value: __m512, to: &mut Lanes<f32>) {
            // SAFETY: the token proves AVX-512 F; `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_ps((&raw mut to.0).cast(), value) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn floats(self, line: &Line, zero: __m512) -> [__m512; 4] {
            // SAFETY: the token proves AVX-512 F and BW; `Line` is 64 bytes, aligned to 64.
            unsafe {
                let (line, magic) = (
                    _mm512_load_si512((&raw const line.0).cast()),
                    _mm512_set1_epi32(MAGIC),
                );
                // Byte i of each channel becomes the low byte of 2^23.
                let first = _mm512_set_epi32(12, 8, 4, 0, 12, 8, 4, 0, 12, 8, 4, 0, 12, 8, 4, 0);
                let mut out = [zero; 4];
                for (i, out) in out.iter_mut().enumerate() {
                    let from = _mm512_add_epi32(first, _mm512_set1_epi32(i as i32));
                    let float = _mm512_mask_shuffle_epi8(magic, 0x1111_1111_1111_1111, line, from);
                    *out = _mm512_sub_ps(_mm512_castsi512_ps(float), zero);
                }
                out
            }
        }
    };
}

impl Isa for Avx512Vnni {
    type Weights = __m512i;
    /// Four signed bytes.
    type Quad = i32;

    lanes!();

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
        fn inner<B: Block<Avx512Vnni>>(isa: Avx512Vnni, block: B) {
            block.run(isa);
        }
        // SAFETY: the token proves every feature.
        unsafe { inner(self, block) }
    }
    #[inline(always)]
    fn quad(codes: [i8; 4]) -> i32 {
        i32::from_ne_bytes(codes.map(|code| code as u8))
    }
    #[inline(always)]
    fn weights(self, line: &Line) -> __m512i {
        // SAFETY: the token proves AVX-512 F; `Line` is 64 bytes, aligned to 64.
        unsafe { _mm512_load_si512((&raw const line.0).cast()) }
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, x: i32) -> __m512i {
        // SAFETY: the token proves AVX-512 F and VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x)) }
    }
    #[inline(always)]
    fn mul_small(self, acc: __m512i, a: __m512i, b: i32) -> __m512i {
        // SAFETY: the token proves AVX-512 F and VNNI.
        unsafe { _mm512_dpwssd_epi32(acc, a, _mm512_set1_epi32(b & 0xffff)) }
    }
}

impl Isa for Avx512 {
    /// Codes 0 and 2 of each channel in 16 bits each, then codes 1 and 3.
    type Weights = [__m512i; 2];
    /// Activation codes 0 and 2, then 1 and 3, 16 bits each; for narrow sums, four bytes, then nothing.
    type Quad = (i32, i32);

    const NARROW: bool = true;

    lanes!();

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
        fn inner<B: Block<Avx512>>(isa: Avx512, block: B) {
            block.run(isa);
        }
        // SAFETY: the token proves every feature.
        unsafe { inner(self, block) }
    }
    #[inline(always)]
    fn quad(codes: [i8; 4]) -> (i32, i32) {
        super::isa::pairs(codes)
    }
    #[inline(always)]
    fn narrow_quad(codes: [i8; 4]) -> (i32, i32) {
        (i32::from_ne_bytes(codes.map(|code| code as u8)), 0)
    }
    #[inline(always)]
    fn weights(self, line: &Line) -> [__m512i; 2] {
        // SAFETY: the token proves AVX-512 F and BW; `Line` is 64 bytes, aligned to 64.
        unsafe {
            let line = _mm512_load_si512((&raw const line.0).cast());
            [
                _mm512_and_si512(line, _mm512_set1_epi16(0xff)),
                _mm512_srli_epi16::<8>(line),
            ]
        }
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, w: [__m512i; 2], x: (i32, i32)) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe {
            let even = _mm512_madd_epi16(w[0], _mm512_set1_epi32(x.0));
            let odd = _mm512_madd_epi16(w[1], _mm512_set1_epi32(x.1));
            _mm512_add_epi32(_mm512_add_epi32(acc, even), odd)
        }
    }
    #[inline(always)]
    fn narrow_dot(self, sums: __m512i, line: &Line, x: (i32, i32)) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW; `Line` is 64 bytes, aligned to 64.
        unsafe {
            let line = _mm512_load_si512((&raw const line.0).cast());
            _mm512_add_epi16(sums, _mm512_maddubs_epi16(line, _mm512_set1_epi32(x.0)))
        }
    }
    #[inline(always)]
    fn add_narrow(self, acc: __m512i, sums: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(sums, _mm512_set1_epi16(1))) }
    }
    #[inline(always)]
    fn mul_small(self, acc: __m512i, a: __m512i, b: i32) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(a, _mm512_set1_epi32(b & 0xffff))) }
    }
}
