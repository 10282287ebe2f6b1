//! What the machine can do at most: instructions on registers alone, and readers of memory. The bench's only `unsafe` code.

/// 64 bytes of memory to read.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u64; 8]);

/// An instruction, or the shortest exact sequence for a product, that runs on registers alone.
pub struct Unit {
    /// Its name here.
    pub name: &'static str,
    /// The name of a bound that it sets.
    pub bound: &'static str,
    /// Additions and multiplications of one iteration.
    pub ops: f64,
    /// Whether this machine has it.
    pub available: fn() -> bool,
    /// Runs that many iterations.
    pub run: fn(u64),
}

/// How a reader goes through memory: streams at a time, and lines that it prefetches ahead (0: none).
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    streams: usize,
    ahead: usize,
}

/// Every reader; the fastest one sets the bound.
pub const READERS: [Reader; 5] = [
    Reader { streams: 1, ahead: 0 },
    Reader { streams: 1, ahead: 16 },
    Reader { streams: 1, ahead: 64 },
    Reader { streams: 4, ahead: 0 },
    Reader { streams: 4, ahead: 16 },
];

#[cfg(target_arch = "x86_64")]
pub use x86::{UNITS, read};

#[cfg(target_arch = "aarch64")]
pub use arm::UNITS;

/// None is known here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const UNITS: [Unit; 0] = [];

/// Reads all lines; gives a value that depends on each.
#[cfg(not(target_arch = "x86_64"))]
pub fn read(reader: Reader, lines: &[Line]) -> u64 {
    portable(reader, lines)
}

/// Reads all lines in plain Rust.
fn portable(reader: Reader, lines: &[Line]) -> u64 {
    let part = lines.len() / reader.streams;
    let mut sum = [0u64; 8];
    let mut take = |line: &Line| sum.iter_mut().zip(line.0).for_each(|(sum, word)| *sum ^= word);
    for i in 0..part {
        for stream in 0..reader.streams {
            let line = &lines[stream * part + i];
            if reader.ahead > 0 {
                prefetch((&raw const *line).wrapping_add(reader.ahead));
            }
            take(line);
        }
    }
    lines[part * reader.streams..].iter().for_each(take);
    sum.into_iter().fold(0, |a, b| a ^ b)
}

#[cfg(target_arch = "x86_64")]
fn prefetch(line: *const Line) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 has SSE; a prefetch may name any address and changes nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
fn prefetch(line: *const Line) {
    // SAFETY: a prefetch may name any address and changes nothing.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(readonly, nostack, preserves_flags))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn prefetch(_: *const Line) {}

/// Six or twelve copies of a macro's text, for registers 0 to 5 or 11 of a width.
macro_rules! six {
    ($text:ident, $r:literal) => {
        concat!(
            $text!($r, 0),
            $text!($r, 1),
            $text!($r, 2),
            $text!($r, 3),
            $text!($r, 4),
            $text!($r, 5)
        )
    };
}
macro_rules! twelve {
    ($text:ident, $r:literal) => {
        concat!(
            six!($text, $r),
            $text!($r, 6),
            $text!($r, 7),
            $text!($r, 8),
            $text!($r, 9),
            $text!($r, 10),
            $text!($r, 11)
        )
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Line, READERS, Reader, Unit, portable, prefetch};
    use core::arch::asm;
    use core::arch::x86_64::*;
    use std::arch::is_x86_feature_detected as has;

    /// A loop over the text of a macro, between a start and an end. Registers 14 and 15 hold the operands (small numbers, as bytes
    /// and as floats), 13 ones of 16 bits; the others start at zero.
    macro_rules! unit {
        ($run:ident, $start:expr, $text:expr, $end:expr) => {
            fn $run(iterations: u64) {
                // SAFETY: runs only where `available` has found the instructions; touches registers that are all declared, no memory.
                unsafe {
                    asm!(
                        $start, "2:", $text, "dec {n}", "jnz 2b", $end,
                        n = inout(reg) iterations.max(1) => _,
                        small = in(reg) 0x3c01_3c01, ones = in(reg) 0x0001_0001,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nomem, nostack),
                    );
                }
            }
        };
    }

    macro_rules! start {
        ($r:literal) => {
            concat!(
                "vzeroall\n",
                "vmovd xmm14, {small:e}\n",
                "vpbroadcastd ",
                $r,
                "14, xmm14\n",
                "vpbroadcastd ",
                $r,
                "15, xmm14\n",
                "vmovd xmm13, {ones:e}\n",
                "vpbroadcastd ",
                $r,
                "13, xmm13\n"
            )
        };
    }
    macro_rules! vnni {
        ($r:literal, $i:literal) => {
            concat!("vpdpbusd ", $r, $i, ", ", $r, "14, ", $r, "15\n")
        };
    }
    macro_rules! vex_vnni {
        ($r:literal, $i:literal) => {
            concat!("{{vex}} ", vnni!($r, $i))
        };
    }
    macro_rules! madd {
        ($r:literal, $i:literal) => {
            concat!("vpmaddwd ", $r, "12, ", $r, "14, ", $r, "15\n", add!($r, $i))
        };
    }
    macro_rules! maddubs {
        ($r:literal, $i:literal) => {
            concat!(
                "vpmaddubsw ",
                $r,
                "12, ",
                $r,
                "14, ",
                $r,
                "15\n",
                "vpmaddwd ",
                $r,
                "12, ",
                $r,
                "12, ",
                $r,
                "13\n",
                add!($r, $i)
            )
        };
    }
    macro_rules! narrow {
        ($r:literal, $i:literal) => {
            concat!(
                "vpmaddubsw ",
                $r,
                "11, ",
                $r,
                "14, ",
                $r,
                "15\n",
                more!($r),
                more!($r),
                more!($r),
                more!($r),
                more!($r),
                more!($r),
                more!($r),
                "vpmaddwd ",
                $r,
                "12, ",
                $r,
                "11, ",
                $r,
                "13\n",
                add!($r, $i)
            )
        };
    }
    macro_rules! more {
        ($r:literal) => {
            concat!(
                "vpmaddubsw ",
                $r,
                "12, ",
                $r,
                "14, ",
                $r,
                "15\n",
                "vpaddw ",
                $r,
                "11, ",
                $r,
                "11, ",
                $r,
                "12\n"
            )
        };
    }
    macro_rules! add {
        ($r:literal, $i:literal) => {
            concat!("vpaddd ", $r, $i, ", ", $r, $i, ", ", $r, "12\n")
        };
    }
    macro_rules! fma {
        ($r:literal, $i:literal) => {
            concat!("vfmadd231ps ", $r, $i, ", ", $r, "14, ", $r, "15\n")
        };
    }
    macro_rules! dpbf16 {
        ($r:literal, $i:literal) => {
            concat!("vdpbf16ps ", $r, $i, ", ", $r, "14, ", $r, "15\n")
        };
    }
    macro_rules! sse_start {
        ($r:literal) => {
            concat!(
                twelve!(sse_zero, "xmm"),
                "movd xmm14, {small:e}\n",
                "pshufd xmm14, xmm14, 0\n",
                "movdqa xmm15, xmm14\n",
                "movd xmm13, {ones:e}\n"
            )
        };
    }
    macro_rules! sse_zero {
        ($r:literal, $i:literal) => {
            concat!("pxor ", $r, $i, ", ", $r, $i, "\n")
        };
    }
    macro_rules! sse_madd {
        ($r:literal, $i:literal) => {
            concat!(
                "movdqa xmm12, xmm14\n",
                "pmaddwd xmm12, xmm15\n",
                "paddd ",
                $r,
                $i,
                ", xmm12\n"
            )
        };
    }
    macro_rules! sse_mul_add {
        ($r:literal, $i:literal) => {
            concat!(
                "movaps xmm12, xmm14\n",
                "mulps xmm12, xmm15\n",
                "addps ",
                $r,
                $i,
                ", xmm12\n"
            )
        };
    }
    unit!(vnni_512, start!("zmm"), twelve!(vnni, "zmm"), "vzeroupper");
    unit!(vnni_256, start!("ymm"), twelve!(vex_vnni, "ymm"), "vzeroupper");
    unit!(madd_512, start!("zmm"), six!(madd, "zmm"), "vzeroupper");
    unit!(madd_256, start!("ymm"), six!(madd, "ymm"), "vzeroupper");
    unit!(madd_128, sse_start!("xmm"), twelve!(sse_madd, "xmm"), "");
    unit!(maddubs_512, start!("zmm"), six!(maddubs, "zmm"), "vzeroupper");
    unit!(maddubs_256, start!("ymm"), six!(maddubs, "ymm"), "vzeroupper");
    unit!(narrow_512, start!("zmm"), six!(narrow, "zmm"), "vzeroupper");
    unit!(narrow_256, start!("ymm"), six!(narrow, "ymm"), "vzeroupper");
    unit!(fma_512, start!("zmm"), twelve!(fma, "zmm"), "vzeroupper");
    unit!(fma_256, start!("ymm"), twelve!(fma, "ymm"), "vzeroupper");
    unit!(fma_128, sse_start!("xmm"), twelve!(sse_mul_add, "xmm"), "");
    unit!(dpbf16_512, start!("zmm"), twelve!(dpbf16, "zmm"), "vzeroupper");

    const fn unit(name: &'static str, bound: &'static str, ops: f64, available: fn() -> bool, run: fn(u64)) -> Unit {
        Unit {
            name,
            bound,
            ops,
            available,
            run,
        }
    }

    fn avx2() -> bool {
        has!("avx2") && has!("fma")
    }

    fn avx512() -> bool {
        has!("avx512f") && has!("avx512bw")
    }

    /// `*_narrow` is the sequence for codes of up to 6 bits, where sums of products fit 16 bits for a while.
    pub const UNITS: [Unit; 13] = [
        unit(
            "vnni_512",
            "vnni",
            12.0 * 128.0,
            || avx512() && has!("avx512vnni"),
            vnni_512,
        ),
        unit("vnni_256", "vnni", 12.0 * 64.0, || has!("avxvnni"), vnni_256),
        unit("madd_512", "madd", 6.0 * 64.0, avx512, madd_512),
        unit("maddubs_512", "madd", 6.0 * 128.0, avx512, maddubs_512),
        unit("madd_512_narrow", "madd", 6.0 * 8.0 * 128.0, avx512, narrow_512),
        unit("madd_256", "madd", 6.0 * 32.0, avx2, madd_256),
        unit("maddubs_256", "madd", 6.0 * 64.0, avx2, maddubs_256),
        unit("madd_256_narrow", "madd", 6.0 * 8.0 * 64.0, avx2, narrow_256),
        unit("madd_128", "madd", 12.0 * 16.0, || true, madd_128),
        unit("fma_512", "fma", 12.0 * 32.0, avx512, fma_512),
        unit("fma_256", "fma", 12.0 * 16.0, avx2, fma_256),
        unit("fma_128", "fma", 12.0 * 8.0, || true, fma_128),
        unit("dpbf16_512", "dpbf16", 12.0 * 64.0, || has!("avx512bf16"), dpbf16_512),
    ];

    /// Reads all lines; gives a value that depends on each.
    pub fn read(reader: Reader, lines: &[Line]) -> u64 {
        if !avx2() {
            return portable(reader, lines);
        }
        // SAFETY: AVX2 was found just above.
        unsafe {
            match (reader.streams, reader.ahead) {
                (1, 0) => wide::<1, 0>(lines),
                (1, 16) => wide::<1, 16>(lines),
                (1, _) => wide::<1, 64>(lines),
                (_, 0) => wide::<4, 0>(lines),
                (_, _) => wide::<4, 16>(lines),
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn wide<const STREAMS: usize, const AHEAD: usize>(lines: &[Line]) -> u64 {
        let part = lines.len() / STREAMS;
        let mut sum = [[_mm256_setzero_si256(); 2]; STREAMS];
        for i in 0..part {
            for (stream, sum) in sum.iter_mut().enumerate() {
                let line = &raw const lines[stream * part + i];
                if AHEAD > 0 {
                    prefetch(line.wrapping_add(AHEAD));
                }
                // SAFETY: a line is 64 bytes, aligned to 64.
                let (low, high) = unsafe {
                    (
                        _mm256_load_si256(line.cast()),
                        _mm256_load_si256(line.cast::<__m256i>().add(1)),
                    )
                };
                *sum = [_mm256_xor_si256(sum[0], low), _mm256_xor_si256(sum[1], high)];
            }
        }
        let all = sum
            .into_iter()
            .flatten()
            .fold(_mm256_setzero_si256(), |a, b| _mm256_xor_si256(a, b));
        let mut words = [0u64; 4];
        // SAFETY: 32 bytes, unaligned.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
        words
            .into_iter()
            .fold(portable(READERS[0], &lines[part * STREAMS..]), |a, b| a ^ b)
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Unit;
    use core::arch::asm;
    use std::arch::is_aarch64_feature_detected as has;

    /// A loop over the text of a macro; registers start as they are: these instructions take the same time on any values.
    macro_rules! unit {
        ($run:ident, $extension:literal, $text:expr) => {
            fn $run(iterations: u64) {
                // SAFETY: runs only where `available` has found the instructions; touches registers that are all declared, no memory.
                unsafe {
                    asm!(
                        concat!(".arch_extension ", $extension),
                        "2:", $text, "subs {n}, {n}, #1", "b.ne 2b",
                        n = inout(reg) iterations.max(1) => _,
                        out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                        out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                        options(nomem, nostack),
                    );
                }
            }
        };
    }
    macro_rules! sdot {
        ($r:literal, $i:literal) => {
            concat!("sdot ", $r, $i, ".4s, v16.16b, v17.16b\n")
        };
    }
    macro_rules! smmla {
        ($r:literal, $i:literal) => {
            concat!("smmla ", $r, $i, ".4s, v16.16b, v17.16b\n")
        };
    }
    macro_rules! fmla {
        ($r:literal, $i:literal) => {
            concat!("fmla ", $r, $i, ".4s, v16.4s, v17.4s\n")
        };
    }
    unit!(run_sdot, "dotprod", twelve!(sdot, "v"));
    unit!(run_smmla, "i8mm", twelve!(smmla, "v"));
    unit!(run_fmla, "simd", twelve!(fmla, "v"));

    const fn unit(name: &'static str, bound: &'static str, ops: f64, available: fn() -> bool, run: fn(u64)) -> Unit {
        Unit {
            name,
            bound,
            ops,
            available,
            run,
        }
    }

    /// The integer units of NEON set the bound `madd`, as on any tier without VNNI.
    pub const UNITS: [Unit; 3] = [
        unit("sdot", "madd", 12.0 * 32.0, || has!("dotprod"), run_sdot),
        unit("smmla", "madd", 12.0 * 64.0, || has!("i8mm"), run_smmla),
        unit("fmla", "fma", 12.0 * 8.0, || has!("neon"), run_fmla),
    ];
}
