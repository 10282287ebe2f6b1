//! SIMD kernels on plain slices: weights packed once, products chosen by instruction set at run time.

mod activation;
mod ahead;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512;
mod bf16;
mod blocks;
mod expected;
mod finish;
mod float;
mod float_blocks;
mod float_finish;
mod float_linear;
mod float_lookup;
mod float_pairs;
mod float_weights;
mod int_blocks;
mod int_few;
mod int_linear;
mod int_prepare;
mod int_row;
mod isa;
mod layout;
mod linear;
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
mod neon;
mod round;
mod rows;
mod scalar;
mod select;
pub(crate) mod tensors;
#[cfg(test)]
pub(crate) mod tests;
mod tier;
mod values;
mod weight;

use crate::dtype::FloatDtype;
pub use select::{Kernel, Preference, select};
pub use tier::{TIER_VARIABLE, Tier};
pub use weight::CpuWeight;

impl CpuWeight {
    /// `y[rows, N] = x[rows, K] · Wᵀ + bias`, with x, bias and y representable in `dtype`.
    ///
    /// A row that holds a NaN or an infinity gives a row of NaN. The float order is that of the module's epilogues; a row depends
    /// neither on the number of threads nor on the other rows (save through a per-tensor activation scale). Its last bits may depend on
    /// their number with float activations of bf16 alone: on AMD's processors with AVX-512 BF16, 8 and more rows are multiplied in pairs
    /// of inputs, in f32 still, and subnormal inputs and sums count as 0 there.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn linear(&self, x: &[f32], rows: usize, dtype: FloatDtype, bias: Option<&[f32]>, y: &mut [f32]) {
        self.linear_on(self.tier(), x, rows, dtype, bias, y);
    }

    /// [`CpuWeight::linear`] on a given tier, whatever the weight was packed for.
    ///
    /// # Panics
    /// If this machine cannot run the tier, or a slice has another length.
    pub fn linear_on(
        &self,
        tier: Tier,
        x: &[f32],
        rows: usize,
        dtype: FloatDtype,
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let [n, k] = self.shape();
        assert!(
            x.len() == rows * k && y.len() == rows * n && bias.is_none_or(|bias| bias.len() == n),
            "linear: x has {} values, y {}, bias {:?}, for {rows} rows of a [{n}, {k}] weight",
            x.len(),
            y.len(),
            bias.map(<[f32]>::len),
        );
        isa::run_on(
            tier,
            linear::Linear {
                weight: self,
                x,
                rows,
                dtype,
                bias,
                y,
            },
        );
    }
}
