//! Whether this machine multiplies pairs of bf16, and fast.

#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

/// Proof that it multiplies them.
#[derive(Clone, Copy, Debug)]
pub struct Bf16(());

impl Bf16 {
    /// A token, where this machine has the instruction.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512bf16") {
            return Some(Self(()));
        }
        None
    }

    /// A token, where that is faster than products in f32 as well: on AMD's, with nearly twice the operations a second (Zen 5). Intel's
    /// (Sapphire Rapids) has half of them.
    pub fn fast() -> Option<Self> {
        // Asked once: a virtual machine takes microseconds to answer.
        #[cfg(target_arch = "x86_64")]
        static AMD: LazyLock<bool> = LazyLock::new(super::avx512::is_amd);
        #[cfg(target_arch = "x86_64")]
        if *AMD {
            return Self::new();
        }
        None
    }
}
