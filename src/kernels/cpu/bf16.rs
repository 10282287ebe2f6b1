//! Whether this machine multiplies pairs of bf16, and fast.

/// Proof that it multiplies them.
#[derive(Clone, Copy, Debug)]
pub struct Bf16(());

impl Bf16 {
    /// A token, where the machine has the instruction and it is faster than products in f32: on AMD's, with nearly twice the operations a
    /// second (Zen 5: 499 against 270 GFLOP/s, a thread). An Intel Xeon has half of them (114 against 213): the peaks in `benches/results/cpu.md`.
    pub fn fast() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            // The maker is asked once: a virtual machine takes microseconds to answer.
            static AMD: std::sync::LazyLock<bool> = std::sync::LazyLock::new(super::avx512::is_amd);
            if *AMD && is_x86_feature_detected!("avx512bf16") {
                return Some(Self(()));
            }
        }
        None
    }
}
