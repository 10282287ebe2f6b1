//! Whether this machine multiplies pairs of bf16.

/// Proof that it does.
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
}
