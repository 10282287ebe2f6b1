//! AVX2 with FMA, with and without the VEX form of VNNI.

use super::isa::{Block, Decoder, Isa};
use super::layout::{CHANNELS, Lanes, Line};
use crate::dtype::FloatDtype;
use core::arch::x86_64::*;

/// AVX2, FMA and AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(());

/// AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl AvxVnni {
    /// A token, where this machine has the instructions.
    pub fn new() -> Option<Self> {
        (Avx2::new().is_some() && is_x86_feature_detected!("avxvnni")).then_some(Self(()))
    }
}

impl Avx2 {
    /// A token, where this machine has the instructions.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

/// Half a line.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn load_half(line: &Line, half: usize) -> __m256i {
    let line: *const [__m256i; 2] = (&raw const line.0).cast();
    // SAFETY: as the caller says; `Line` is 64 bytes, aligned to 64, and `half` is below 2.
    unsafe { _mm256_load_si256(line.cast::<__m256i>().add(half & 1)) }
}

/// Half of quad `Q` of a tile, one code a byte.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn quad<const BITS: usize, const Q: usize>(tile: &[Line; BITS], half: usize) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        // A code's shard of `width` bits, from line `first` on, moved to bit `to`; other bits are 0.
        let shard = |width: usize, first: usize, to: usize| {
            let (line, from) = (load_half(&tile[first + Q * width / 8], half), Q * width % 8);
            let moved = if from >= to {
                _mm256_srlv_epi32(line, _mm256_set1_epi32((from - to) as i32))
            } else {
                _mm256_sllv_epi32(line, _mm256_set1_epi32((to - from) as i32))
            };
            _mm256_and_si256(moved, _mm256_set1_epi8((((1 << width) - 1) << to) as i8))
        };
        match BITS {
            1 => shard(1, 0, 0),
            2 => shard(2, 0, 0),
            3 => _mm256_or_si256(shard(2, 0, 0), shard(1, 2, 2)),
            4 => shard(4, 0, 0),
            5 => _mm256_or_si256(shard(4, 0, 0), shard(1, 4, 4)),
            6 => _mm256_or_si256(shard(4, 0, 0), shard(2, 4, 4)),
            7 => _mm256_or_si256(_mm256_or_si256(shard(4, 0, 0), shard(2, 4, 4)), shard(1, 6, 6)),
            _ => load_half(&tile[Q], half),
        }
    }
}

/// Byte i of each channel as a float, less `zero`.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn bytes_to_floats(bytes: [__m256i; 2], zero: [__m256; 2]) -> [[__m256; 2]; 4] {
    let mut out = [zero; 4];
    // SAFETY: as the caller says.
    unsafe {
        // Byte i of each channel, zero-extended: −128 selects a zero.
        let first = _mm256_set_epi32(12, 8, 4, 0, 12, 8, 4, 0);
        let zeros = _mm256_set1_epi32(0x8080_8000_u32 as i32);
        for (i, out) in out.iter_mut().enumerate() {
            let from = _mm256_or_si256(_mm256_add_epi32(first, _mm256_set1_epi32(i as i32)), zeros);
            for half in 0..2 {
                let code = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes[half], from));
                out[half] = _mm256_sub_ps(code, zero[half]);
            }
        }
    }
    out
}

/// Byte i of each channel, signed, as a float times 2^24.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn high_bytes_to_floats(bytes: [__m256i; 2]) -> [[__m256; 2]; 4] {
    // SAFETY: as the caller says.
    unsafe {
        let mut out = [[_mm256_setzero_ps(); 2]; 4];
        // Byte i of each channel above zeros: −128 and numbers up to −1 select a zero.
        let first = _mm256_set_epi32(12, 8, 4, 0, 12, 8, 4, 0);
        let zeros = _mm256_set1_epi32(0x0080_8080);
        for (i, out) in out.iter_mut().enumerate() {
            let from = _mm256_slli_epi32::<24>(_mm256_add_epi32(first, _mm256_set1_epi32(i as i32)));
            let from = _mm256_or_si256(from, zeros);
            for half in 0..2 {
                out[half] = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes[half], from));
            }
        }
        out
    }
}

/// As [`FloatDtype::round`] for bf16.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn round_bf16(value: __m256) -> __m256 {
    // SAFETY: as the caller says.
    unsafe {
        let bits = _mm256_castps_si256(value);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_and_si256(_mm256_add_epi32(bits, half), _mm256_set1_epi32(!0xffff));
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
        _mm256_blendv_ps(_mm256_castsi256_ps(rounded), value, nan)
    }
}

/// As [`FloatDtype::round`] for f16, step by step as in [`round`](super::round::round).
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn round_f16(value: __m256) -> __m256 {
    // SAFETY: as the caller says.
    unsafe {
        let splat = |value| _mm256_set1_epi32(value);
        let bits = _mm256_castps_si256(value);
        let magnitude = _mm256_and_si256(bits, splat(i32::MAX));
        let odd = _mm256_and_si256(_mm256_srli_epi32::<13>(magnitude), splat(1));
        let normal = _mm256_add_epi32(magnitude, _mm256_add_epi32(odd, splat(0xfff)));
        let normal = _mm256_and_si256(normal, splat(!0x1fff));
        let half = _mm256_set1_ps(0.5);
        let subnormal = _mm256_sub_ps(_mm256_add_ps(_mm256_castsi256_ps(magnitude), half), half);
        let small = _mm256_cmpgt_epi32(splat(0x3880_0000), magnitude);
        let rounded = _mm256_blendv_epi8(normal, _mm256_castps_si256(subnormal), small);
        let large = _mm256_cmpgt_epi32(rounded, splat(0x477f_ffff));
        let rounded = _mm256_blendv_epi8(rounded, splat(0x7f80_0000), large);
        let signed = _mm256_or_si256(rounded, _mm256_andnot_si256(splat(i32::MAX), bits));
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
        _mm256_blendv_ps(_mm256_castsi256_ps(signed), value, nan)
    }
}

/// Four rows of four become columns.
#[inline(always)]
pub(super) fn transpose(rows: [&[f32; 4]; 4]) -> [[f32; 4]; 4] {
    let mut out = [[0.0; 4]; 4];
    // SAFETY: SSE is part of x86-64; each row is 16 bytes, as is each part of `out`.
    unsafe {
        let a = _mm_loadu_ps(rows[0].as_ptr());
        let b = _mm_loadu_ps(rows[1].as_ptr());
        let c = _mm_loadu_ps(rows[2].as_ptr());
        let d = _mm_loadu_ps(rows[3].as_ptr());
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        _mm_storeu_ps(out[0].as_mut_ptr(), _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(out[1].as_mut_ptr(), _mm_movehl_ps(cd, ab));
        let (ab, cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(out[2].as_mut_ptr(), _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(out[3].as_mut_ptr(), _mm_movehl_ps(cd, ab));
    }
    out
}

/// As [`Isa::pin`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pin(sums: &mut [[__m256; 2]; 2]) {
    let [[mut a, mut b], [mut c, mut d]] = *sums;
    // SAFETY: there is no instruction in it.
    unsafe {
        core::arch::asm!(
            "/* {0} {1} {2} {3} */",
            inout(ymm_reg) a,
            inout(ymm_reg) b,
            inout(ymm_reg) c,
            inout(ymm_reg) d,
            options(nostack, preserves_flags)
        );
    }
    *sums = [[a, b], [c, d]];
}

/// What both tiers share: 16 lanes are two registers.
macro_rules! lanes {
    () => {
        type I32 = [__m256i; 2];
        type F32 = [__m256; 2];
        type Bytes = [__m256i; 2];

        const FUSED: bool = true;
        const SCALED: bool = true;

        #[inline(always)]
        fn prefetch<T>(self, at: &T, near: bool) {
            // SAFETY: a hint on memory that is borrowed; SSE is part of x86-64.
            unsafe {
                match near {
                    true => _mm_prefetch::<_MM_HINT_T0>((&raw const *at).cast()),
                    false => _mm_prefetch::<_MM_HINT_T1>((&raw const *at).cast()),
                }
            }
        }
        #[inline(always)]
        fn transpose(self, rows: [&[f32; 4]; 4]) -> [[f32; 4]; 4] {
            transpose(rows)
        }
        #[inline(always)]
        fn load_bytes(self, line: &Line) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [load_half(line, 0), load_half(line, 1)] }
        }
        #[inline(always)]
        fn store_bytes(self, bytes: [__m256i; 2], to: &mut Line) {
            let to: *mut __m256i = (&raw mut to.0).cast();
            // SAFETY: the token proves AVX2; `Line` is 64 bytes, aligned to 64.
            unsafe {
                _mm256_store_si256(to, bytes[0]);
                _mm256_store_si256(to.add(1), bytes[1]);
            }
        }
        #[inline(always)]
        fn bytes<const BITS: usize, const Q: usize>(self, tile: &[Line; BITS]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [quad::<BITS, Q>(tile, 0), quad::<BITS, Q>(tile, 1)] }
        }
        #[inline(always)]
        fn small(value: i32) -> i32 {
            value & 0xffff
        }
        #[inline(always)]
        fn splat_i32(self, value: i32) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_set1_epi32(value); 2] }
        }
        #[inline(always)]
        fn load_i32(self, from: &Lanes<i32>) -> [__m256i; 2] {
            let from: *const __m256i = (&raw const from.0).cast();
            // SAFETY: the token proves AVX2; `Lanes` is 64 bytes, aligned to 64.
            unsafe { [_mm256_load_si256(from), _mm256_load_si256(from.add(1))] }
        }
        #[inline(always)]
        fn store_i32(self, value: [__m256i; 2], to: &mut Lanes<i32>) {
            let to: *mut __m256i = (&raw mut to.0).cast();
            // SAFETY: the token proves AVX2; `Lanes` is 64 bytes, aligned to 64.
            unsafe {
                _mm256_store_si256(to, value[0]);
                _mm256_store_si256(to.add(1), value[1]);
            }
        }
        #[inline(always)]
        fn add_i32(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn mul_i32(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn mul_small(self, acc: [__m256i; 2], a: [__m256i; 2], b: i32) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe {
                let b = _mm256_set1_epi32(b);
                [
                    _mm256_add_epi32(acc[0], _mm256_madd_epi16(a[0], b)),
                    _mm256_add_epi32(acc[1], _mm256_madd_epi16(a[1], b)),
                ]
            }
        }
        #[inline(always)]
        fn to_f32(self, value: [__m256i; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_cvtepi32_ps(value[0]), _mm256_cvtepi32_ps(value[1])] }
        }
        #[inline(always)]
        fn bits_of_float(self, value: [__m256; 2]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_castps_si256(value[0]), _mm256_castps_si256(value[1])] }
        }
        #[inline(always)]
        fn float_of_bits(self, bits: [__m256i; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_castsi256_ps(bits[0]), _mm256_castsi256_ps(bits[1])] }
        }
        #[inline(always)]
        fn power(self, value: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe {
                let exponent = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f80_0000));
                [
                    _mm256_and_ps(value[0], exponent),
                    _mm256_and_ps(value[1], exponent),
                ]
            }
        }
        #[inline(always)]
        fn low_bytes(self, value: [__m256i; 2], to: &mut [i8; CHANNELS]) {
            // SAFETY: the token proves AVX2; `to` is 16 bytes.
            unsafe {
                // The low bytes of a register's 8 lanes, 4 in the low part of each half.
                let from = _mm256_set_epi32(-1, -1, -1, 0x0c08_0400, -1, -1, -1, 0x0c08_0400);
                let (a, b) = (
                    _mm256_shuffle_epi8(value[0], from),
                    _mm256_shuffle_epi8(value[1], from),
                );
                let low = _mm256_unpacklo_epi32(a, b);
                let codes = _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
                _mm_storeu_si128(to.as_mut_ptr().cast(), codes);
            }
        }
        #[inline(always)]
        fn splat(self, value: f32) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_set1_ps(value); 2] }
        }
        #[inline(always)]
        fn load(self, from: &Lanes<f32>) -> [__m256; 2] {
            // SAFETY: the token proves AVX2; `Lanes` is 64 bytes, aligned to 64.
            unsafe {
                [
                    _mm256_load_ps(from.0.as_ptr()),
                    _mm256_load_ps(from.0.as_ptr().add(8)),
                ]
            }
        }
        #[inline(always)]
        fn store(self, value: [__m256; 2], to: &mut Lanes<f32>) {
            let to = to.0.as_mut_ptr();
            // SAFETY: the token proves AVX2; `Lanes` is 64 bytes, aligned to 64.
            unsafe {
                _mm256_store_ps(to, value[0]);
                _mm256_store_ps(to.add(8), value[1]);
            }
        }
        #[inline(always)]
        fn write(self, value: [__m256; 2], to: &mut [f32; CHANNELS]) {
            // SAFETY: the token proves AVX2; `to` is 64 bytes.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), value[1]);
            }
        }
        #[inline(always)]
        fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn smaller(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_min_ps(b[0], a[0]), _mm256_min_ps(b[1], a[1])] }
        }
        #[inline(always)]
        fn larger(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_max_ps(b[0], a[0]), _mm256_max_ps(b[1], a[1])] }
        }
        #[inline(always)]
        fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves FMA.
            unsafe {
                [
                    _mm256_fmadd_ps(a[0], b[0], c[0]),
                    _mm256_fmadd_ps(a[1], b[1], c[1]),
                ]
            }
        }
        #[inline(always)]
        fn floats(self, line: &Line, zero: [__m256; 2]) -> [[__m256; 2]; 4] {
            // SAFETY: the token proves AVX2.
            unsafe { bytes_to_floats([load_half(line, 0), load_half(line, 1)], zero) }
        }
        #[inline(always)]
        fn decode<const BITS: usize, const Q: usize, const SHARED: bool>(
            self,
            tile: &[Line; BITS],
            decoder: &Decoder<[__m256; 2]>,
        ) -> [[__m256; 2]; 4] {
            // SAFETY: the token proves AVX2.
            unsafe { bytes_to_floats([quad::<BITS, Q>(tile, 0), quad::<BITS, Q>(tile, 1)], decoder.zero) }
        }
        #[inline(always)]
        fn zeros(self, zero: &[u8; CHANNELS]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2; `zero` is 16 bytes.
            unsafe {
                let zero = _mm256_broadcastsi128_si256(_mm_loadu_si128(zero.as_ptr().cast()));
                // Each channel's zero point four times.
                let from = _mm256_set_epi32(
                    0x0707_0707,
                    0x0606_0606,
                    0x0505_0505,
                    0x0404_0404,
                    0x0303_0303,
                    0x0202_0202,
                    0x0101_0101,
                    0,
                );
                let next = _mm256_add_epi32(from, _mm256_set1_epi32(0x0808_0808));
                [_mm256_shuffle_epi8(zero, from), _mm256_shuffle_epi8(zero, next)]
            }
        }
        #[inline(always)]
        fn decode_high<const BITS: usize, const Q: usize>(
            self,
            tile: &[Line; BITS],
            zero: [__m256i; 2],
        ) -> [[__m256; 2]; 4] {
            // SAFETY: the token proves AVX2.
            unsafe {
                high_bytes_to_floats([
                    _mm256_sub_epi8(quad::<BITS, Q>(tile, 0), zero[0]),
                    _mm256_sub_epi8(quad::<BITS, Q>(tile, 1), zero[1]),
                ])
            }
        }
        #[inline(always)]
        fn byte<const I: usize>(self, codes: [__m256i; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe {
                let byte = |codes| match I {
                    0..3 => _mm256_and_si256(codes, _mm256_set1_epi32(0xff << (8 * I))),
                    _ => _mm256_srli_epi32::<24>(codes),
                };
                [
                    _mm256_cvtepi32_ps(byte(codes[0])),
                    _mm256_cvtepi32_ps(byte(codes[1])),
                ]
            }
        }
        #[inline(always)]
        fn pin(self, sums: &mut [[__m256; 2]; 2]) {
            // SAFETY: the token proves AVX2 and FMA.
            unsafe { pin(sums) }
        }
        #[inline(always)]
        fn round(self, dtype: FloatDtype, value: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: the token proves AVX2.
            unsafe {
                match dtype {
                    FloatDtype::F32 => value,
                    FloatDtype::F16 => [round_f16(value[0]), round_f16(value[1])],
                    FloatDtype::BF16 => [round_bf16(value[0]), round_bf16(value[1])],
                }
            }
        }
    };
}

impl Isa for AvxVnni {
    type Float = Avx2;
    const ONE_ROW: usize = 2;

    #[inline(always)]
    fn float(self) -> Avx2 {
        Avx2(())
    }
    type Weights = [__m256i; 2];
    /// Four signed bytes.
    type Quad = i32;

    const ROWS: &'static [usize] = &[6, 4, 2, 1];

    lanes!();

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        #[target_feature(enable = "avx2,fma,avxvnni")]
        fn inner<B: Block<AvxVnni>>(isa: AvxVnni, block: B) {
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
    fn weights(self, bytes: [__m256i; 2]) -> [__m256i; 2] {
        bytes
    }
    #[inline(always)]
    fn dot(self, acc: [__m256i; 2], w: [__m256i; 2], x: i32) -> [__m256i; 2] {
        // SAFETY: the token proves AVX-VNNI.
        unsafe {
            let x = _mm256_set1_epi32(x);
            [
                _mm256_dpbusd_avx_epi32(acc[0], w[0], x),
                _mm256_dpbusd_avx_epi32(acc[1], w[1], x),
            ]
        }
    }
}

impl Isa for Avx2 {
    type Float = Avx2;
    const ONE_ROW: usize = 2;

    #[inline(always)]
    fn float(self) -> Avx2 {
        self
    }
    /// Codes 0 and 2 of each channel in 16 bits each (two registers), then codes 1 and 3. The saturating `maddubs` takes codes below 8 bits only, which it cannot saturate.
    type Weights = [[__m256i; 2]; 2];
    /// Activation codes 0 and 2, then 1 and 3, 16 bits each; for narrow sums, four bytes, then nothing.
    type Quad = (i32, i32);

    const ROWS: &'static [usize] = &[3, 2, 1];
    const PAIR_ROWS: &'static [usize] = &[6, 4, 3, 2, 1];
    /// 32 KiB of codes or 64 of pairs, out of the second-level cache: sums come and go half as often.
    const CHUNK: usize = 64;
    const NARROW: bool = true;

    lanes!();

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        #[target_feature(enable = "avx2,fma")]
        fn inner<B: Block<Avx2>>(isa: Avx2, block: B) {
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
    fn quads(self, codes: &[[i8; 4]; 4]) -> [(i32, i32); 4] {
        let mut pairs = [[0i32; 2]; 4];
        // SAFETY: the token proves AVX2; `codes` is 16 bytes, `pairs` is 32.
        unsafe {
            let from = _mm_set_epi8(15, 13, 14, 12, 11, 9, 10, 8, 7, 5, 6, 4, 3, 1, 2, 0);
            let codes = _mm_shuffle_epi8(_mm_loadu_si128(codes.as_ptr().cast()), from);
            _mm256_storeu_si256(pairs.as_mut_ptr().cast(), _mm256_cvtepi8_epi16(codes));
        }
        [
            (pairs[0][0], pairs[0][1]),
            (pairs[1][0], pairs[1][1]),
            (pairs[2][0], pairs[2][1]),
            (pairs[3][0], pairs[3][1]),
        ]
    }
    #[inline(always)]
    fn narrow_quad(codes: [i8; 4]) -> (i32, i32) {
        (i32::from_ne_bytes(codes.map(|code| code as u8)), 0)
    }
    #[inline(always)]
    fn weights(self, bytes: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let ([a, b], low) = (bytes, _mm256_set1_epi16(0xff));
            [
                [_mm256_and_si256(a, low), _mm256_and_si256(b, low)],
                [_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b)],
            ]
        }
    }
    #[inline(always)]
    fn dot(self, acc: [__m256i; 2], w: [[__m256i; 2]; 2], x: (i32, i32)) -> [__m256i; 2] {
        let mut out = acc;
        // SAFETY: the token proves AVX2.
        unsafe {
            let (even, odd) = (_mm256_set1_epi32(x.0), _mm256_set1_epi32(x.1));
            for half in 0..2 {
                let pairs = _mm256_add_epi32(_mm256_madd_epi16(w[0][half], even), _mm256_madd_epi16(w[1][half], odd));
                out[half] = _mm256_add_epi32(out[half], pairs);
            }
        }
        out
    }
    #[inline(always)]
    fn store_pairs(self, bytes: [__m256i; 2], to: &mut [Line; 2]) {
        let [even, odd] = self.weights(bytes);
        self.store_bytes(even, &mut to[0]);
        self.store_bytes(odd, &mut to[1]);
    }
    #[inline(always)]
    fn dot_pairs<const ODD: bool>(self, acc: [__m256i; 2], pairs: [__m256i; 2], x: (i32, i32)) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let x = _mm256_set1_epi32(if ODD { x.1 } else { x.0 });
            [
                _mm256_add_epi32(acc[0], _mm256_madd_epi16(pairs[0], x)),
                _mm256_add_epi32(acc[1], _mm256_madd_epi16(pairs[1], x)),
            ]
        }
    }
    #[inline(always)]
    fn narrow_dot(self, sums: [__m256i; 2], w: [__m256i; 2], x: (i32, i32)) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let x = _mm256_set1_epi32(x.0);
            [
                _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(w[0], x)),
                _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(w[1], x)),
            ]
        }
    }
    #[inline(always)]
    fn add_narrow(self, acc: [__m256i; 2], sums: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            [
                _mm256_add_epi32(acc[0], _mm256_madd_epi16(sums[0], ones)),
                _mm256_add_epi32(acc[1], _mm256_madd_epi16(sums[1], ones)),
            ]
        }
    }
}
