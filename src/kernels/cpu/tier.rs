//! Instruction sets: which there are, which this machine has, which one is forced.

use core::fmt;

/// Forces a tier for every weight packed after it is set.
pub const TIER_VARIABLE: &str = "BURN_QUANTIZED_CPU_TIER";

/// A family of instructions that the products are written in, best first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tier {
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX-512 F, BW and VL.
    Avx512,
    /// x86-64 with AVX2, FMA and the VEX form of VNNI.
    AvxVnni,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64 with the int8 matrix extension (mixed-sign dot products).
    NeonI8mm,
    /// aarch64 with dot products.
    NeonDot,
    /// Plain Rust.
    Scalar,
}

impl Tier {
    /// Every tier, best first.
    pub const ALL: [Self; 7] = [
        Self::Avx512Vnni,
        Self::Avx512,
        Self::AvxVnni,
        Self::Avx2,
        Self::NeonI8mm,
        Self::NeonDot,
        Self::Scalar,
    ];

    /// The name that reports, benches and [`TIER_VARIABLE`] use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512_vnni",
            Self::Avx512 => "avx512",
            Self::AvxVnni => "avx_vnni",
            Self::Avx2 => "avx2",
            Self::NeonI8mm => "neon_i8mm",
            Self::NeonDot => "neon_dot",
            Self::Scalar => "scalar",
        }
    }

    /// The tier of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        super::isa::can_run(self)
    }

    /// The tiers that this machine can run, best first; `scalar` is always among them.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|tier| tier.is_available()).collect()
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
