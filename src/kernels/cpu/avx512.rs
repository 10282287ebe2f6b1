//! AVX-512, with and without VNNI.

use super::bf16::Bf16;
use super::isa::{Block, Decoder, Isa, widen};
use super::layout::{CHANNELS, Lanes, Line};
use crate::dtype::FloatDtype;
use core::arch::x86_64::*;
use core::mem::transmute;

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

/// Whether the processor is AMD's.
pub fn is_amd() -> bool {
    // SAFETY: every x86-64 has the instruction, and its leaf 0.
    #[allow(unused_unsafe)]
    let vendor = unsafe { __cpuid(0) };
    [vendor.ebx, vendor.edx, vendor.ecx] == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes)
}

/// Bits of 2^23: with a byte in its low bits, the float 2^23 + byte.
const MAGIC: i32 = 0x4b00_0000;

/// The values of the codes 0 to 15, of which only the low bits count, less `zero`.
#[inline(always)]
fn table(bits: usize, zero: i32) -> Lanes<f32> {
    let mut table = Lanes([0.0; CHANNELS]);
    for (code, value) in table.0.iter_mut().enumerate() {
        *value = (code as i32 & ((1 << bits.min(4)) - 1)) as f32 - zero as f32;
    }
    table
}

/// The 64 bytes of a line.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn load_line(line: &Line) -> __m512i {
    // SAFETY: as the caller says; `Line` is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512((&raw const line.0).cast()) }
}

/// Each 32 bits shifted so that bit `from` becomes bit `to`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn shift(value: __m512i, from: usize, to: usize) -> __m512i {
    // SAFETY: as the caller says.
    unsafe {
        if from >= to {
            _mm512_srlv_epi32(value, _mm512_set1_epi32((from - to) as i32))
        } else {
            _mm512_sllv_epi32(value, _mm512_set1_epi32((to - from) as i32))
        }
    }
}

/// Quad `Q` of a tile, one code a byte; up to 4 bits, higher bits are of other codes.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn quad<const BITS: usize, const Q: usize>(tile: &[Line; BITS]) -> __m512i {
    // SAFETY: as the caller says.
    unsafe {
        let low = |bits: i32| _mm512_set1_epi8(((1 << bits) - 1) as i8);
        // The bits of `keep` from `a`, the others from `b`.
        let select = |keep: __m512i, a: __m512i, b: __m512i| _mm512_ternarylogic_epi32::<0xca>(keep, a, b);
        // A code's shard of `width` bits, from line `first` on, moved to bit `to`.
        let shard =
            |width: usize, first: usize, to: usize| shift(load_line(&tile[first + Q * width / 8]), Q * width % 8, to);
        match BITS {
            1 => shard(1, 0, 0),
            2 => shard(2, 0, 0),
            3 => select(low(2), shard(2, 0, 0), shard(1, 2, 2)),
            4 => shard(4, 0, 0),
            5 => _mm512_and_si512(low(5), select(low(4), shard(4, 0, 0), shard(1, 4, 4))),
            6 => _mm512_and_si512(low(6), select(low(4), shard(4, 0, 0), shard(2, 4, 4))),
            7 => {
                let six = select(low(4), shard(4, 0, 0), shard(2, 4, 4));
                _mm512_and_si512(low(7), select(low(6), six, shard(1, 6, 6)))
            }
            _ => load_line(&tile[Q]),
        }
    }
}

/// Byte i of each channel as a float, less `zero`, which has 2^23 added to it.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn bytes_to_floats(bytes: __m512i, zero: __m512) -> [__m512; 4] {
    // SAFETY: as the caller says.
    unsafe {
        let magic = _mm512_set1_epi32(MAGIC);
        // Byte i of each channel becomes the low byte of 2^23.
        let first = _mm512_set_epi32(12, 8, 4, 0, 12, 8, 4, 0, 12, 8, 4, 0, 12, 8, 4, 0);
        let mut out = [zero; 4];
        for (i, out) in out.iter_mut().enumerate() {
            let from = _mm512_add_epi32(first, _mm512_set1_epi32(i as i32));
            let float = _mm512_mask_shuffle_epi8(magic, 0x1111_1111_1111_1111, bytes, from);
            *out = _mm512_sub_ps(_mm512_castsi512_ps(float), zero);
        }
        out
    }
}

/// What both tiers share.
macro_rules! lanes {
    () => {
        type I32 = __m512i;
        type F32 = __m512;

        type Bytes = __m512i;

        const FLOAT_SHIFT: f32 = 8_388_608.0;
        const WIDE: bool = true;
        const FUSED: bool = true;
        const LOOKUP: bool = true;
        const BF16: bool = true;
        const ROWS: &'static [usize] = &[6, 5, 4, 3, 2, 1];
        /// 32 KiB of codes: a second-level cache feeds blocks of 6 rows by 4 panels as well, and they start half as often.
        const CHUNK: usize = 64;
        /// 256 KiB: blocks read these codes from a second-level cache as fast as they multiply, and their sums stay in registers the longer.
        const LONG_CHUNK: usize = 512;

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
            super::avx2::transpose(rows)
        }
        #[inline(always)]
        fn load_bytes(self, line: &Line) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { load_line(line) }
        }
        #[inline(always)]
        fn store_bytes(self, bytes: __m512i, to: &mut Line) {
            // SAFETY: the token proves AVX-512 F; `Line` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_si512((&raw mut to.0).cast(), bytes) }
        }
        #[inline(always)]
        fn bytes<const BITS: usize, const Q: usize>(self, tile: &[Line; BITS]) -> __m512i {
            // SAFETY: the token proves AVX-512 F and BW.
            unsafe {
                match BITS {
                    1..=4 => _mm512_and_si512(quad::<BITS, Q>(tile), _mm512_set1_epi8(((1 << BITS) - 1) as i8)),
                    _ => quad::<BITS, Q>(tile),
                }
            }
        }
        #[inline(always)]
        fn small(value: i32) -> i32 {
            value & 0xffff
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
        fn bits_of_float(self, value: __m512) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_castps_si512(value) }
        }
        #[inline(always)]
        fn float_of_bits(self, bits: __m512i) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_castsi512_ps(bits) }
        }
        #[inline(always)]
        fn power(self, value: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe {
                let exponent = _mm512_set1_epi32(0x7f80_0000);
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(value), exponent))
            }
        }
        #[inline(always)]
        fn low_bytes(self, value: __m512i, to: &mut [i8; CHANNELS]) {
            // SAFETY: the token proves AVX-512 F; `to` is 16 bytes.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(value)) }
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
        fn write(self, value: __m512, to: &mut [f32; CHANNELS]) {
            // SAFETY: the token proves AVX-512 F; `to` is 64 bytes.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
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
        fn smaller(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_min_ps(b, a) }
        }
        #[inline(always)]
        fn larger(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_max_ps(b, a) }
        }
        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn floats(self, line: &Line, zero: __m512) -> [__m512; 4] {
            // SAFETY: the token proves AVX-512 F and BW.
            unsafe { bytes_to_floats(load_line(line), zero) }
        }
        #[inline(always)]
        fn decoder(self, bits: usize, zero: i32) -> Decoder<__m512> {
            let shift = if bits > 4 { Self::FLOAT_SHIFT } else { 0.0 };
            Decoder {
                table: self.load(&table(bits, zero)),
                zero: self.splat(zero as f32 + shift),
            }
        }
        #[inline(always)]
        fn channel_decoder(self, bits: usize, zero: &[u8; CHANNELS]) -> Decoder<__m512> {
            let shift = if bits > 4 { Self::FLOAT_SHIFT } else { 0.0 };
            let zero = self.to_f32(self.load_i32(&widen(zero, 0)));
            Decoder {
                table: self.load(&table(bits, 0)),
                zero: self.add(zero, self.splat(shift)),
            }
        }
        #[inline(always)]
        fn decode<const BITS: usize, const Q: usize, const SHARED: bool>(
            self,
            tile: &[Line; BITS],
            decoder: &Decoder<__m512>,
        ) -> [__m512; 4] {
            // SAFETY: the token proves AVX-512 F and BW.
            unsafe {
                let codes = quad::<BITS, Q>(tile);
                if BITS > 4 {
                    return bytes_to_floats(codes, decoder.zero);
                }
                let mut out = [decoder.table; 4];
                let index = [
                    codes,
                    _mm512_srli_epi32::<8>(codes),
                    _mm512_srli_epi32::<16>(codes),
                    _mm512_srli_epi32::<24>(codes),
                ];
                for (out, index) in out.iter_mut().zip(index) {
                    *out = _mm512_permutexvar_ps(index, decoder.table);
                    if !SHARED {
                        *out = _mm512_sub_ps(*out, decoder.zero);
                    }
                }
                out
            }
        }
        #[inline(always)]
        fn lookup<const SHIFT: u32>(self, codes: __m512i, table: __m512) -> __m512 {
            // The instruction reads the low four bits of each index.
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_permutexvar_ps(_mm512_srli_epi32::<SHIFT>(codes), table) }
        }
        #[inline(always)]
        fn pair_bf16(self, even: __m512, odd: __m512) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe {
                let (even, odd) = (_mm512_castps_si512(even), _mm512_castps_si512(odd));
                let high = _mm512_set1_epi32(!0xffff);
                // The high half of `odd`, the other from `even`.
                _mm512_ternarylogic_epi32::<0xca>(high, odd, _mm512_srli_epi32::<16>(even))
            }
        }
        #[inline(always)]
        fn dot_bf16(self, _proof: Bf16, acc: __m512, w: __m512i, x: u32) -> __m512 {
            // SAFETY: the token proves AVX-512 F, the other one AVX-512 BF16; all 64-byte vectors are any bits.
            unsafe {
                let x = _mm512_set1_epi32(x as i32);
                _mm512_dpbf16_ps(
                    acc,
                    transmute::<__m512i, __m512bh>(w),
                    transmute::<__m512i, __m512bh>(x),
                )
            }
        }
        #[inline(always)]
        fn enter_bf16<B: Block<Self>>(self, _proof: Bf16, block: B) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
            fn inner<I: Isa, B: Block<I>>(isa: I, block: B) {
                block.run(isa);
            }
            // SAFETY: the tokens prove every feature.
            unsafe { inner(self, block) }
        }
        #[inline(always)]
        fn round(self, dtype: FloatDtype, value: __m512) -> __m512 {
            // SAFETY: the token proves AVX-512 F.
            unsafe {
                match dtype {
                    FloatDtype::F32 => value,
                    FloatDtype::F16 => {
                        _mm512_cvtph_ps(_mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value))
                    }
                    FloatDtype::BF16 => {
                        let bits = _mm512_castps_si512(value);
                        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                        let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                        let rounded = _mm512_and_si512(_mm512_add_epi32(bits, half), _mm512_set1_epi32(!0xffff));
                        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
                        _mm512_castsi512_ps(_mm512_mask_mov_epi32(rounded, nan, bits))
                    }
                }
            }
        }
    };
}

impl Isa for Avx512Vnni {
    type Float = Avx512;
    const ONE_ROW: usize = 4;

    #[inline(always)]
    fn float(self) -> Avx512 {
        Avx512(())
    }
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
    fn weights(self, bytes: __m512i) -> __m512i {
        bytes
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, x: i32) -> __m512i {
        // SAFETY: the token proves AVX-512 F and VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x)) }
    }
    #[inline(always)]
    fn mul_small(self, acc: __m512i, a: __m512i, b: i32) -> __m512i {
        // Small products cannot saturate; compilers split the instruction that does not into two.
        // SAFETY: the token proves AVX-512 F and VNNI.
        unsafe { _mm512_dpwssds_epi32(acc, a, _mm512_set1_epi32(b)) }
    }
}

impl Isa for Avx512 {
    type Float = Avx512;
    const ONE_ROW: usize = 4;

    #[inline(always)]
    fn float(self) -> Avx512 {
        self
    }
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
    fn weights(self, bytes: __m512i) -> [__m512i; 2] {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe {
            [
                _mm512_and_si512(bytes, _mm512_set1_epi16(0xff)),
                _mm512_srli_epi16::<8>(bytes),
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
    fn narrow_dot(self, sums: __m512i, w: __m512i, x: (i32, i32)) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe { _mm512_add_epi16(sums, _mm512_maddubs_epi16(w, _mm512_set1_epi32(x.0))) }
    }
    #[inline(always)]
    fn add_narrow(self, acc: __m512i, sums: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(sums, _mm512_set1_epi16(1))) }
    }
    #[inline(always)]
    fn mul_small(self, acc: __m512i, a: __m512i, b: i32) -> __m512i {
        // SAFETY: the token proves AVX-512 F and BW.
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(a, _mm512_set1_epi32(b))) }
    }
}
