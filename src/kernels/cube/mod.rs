//! Kernels in CubeCL, generic over its runtimes, on plain device memory: CUDA, Vulkan (SPIR-V), WebGPU (WGSL).
//!
//! [`CubeWeight`] is a packed weight; what it computes is written in [`tensor`](crate::tensor). Integer sums are those of every other
//! family. The epilogue keeps the written order, with rounding and division by integer operations where a device may do either in its own
//! way, and barriers where a compiler could join or reorder two roundings. What is left to a device of Vulkan or WGSL is whether it takes
//! subnormal numbers for 0.

mod activation;
mod buffer;
mod device;
mod division;
mod grid;
mod layout;
mod product_float;
mod product_int;
mod rows;
mod weight;

pub use weight::CubeWeight;

use crate::dtype::FloatDtype;
use buffer::Buffer;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;

impl<R: Runtime> CubeWeight<R> {
    /// `y [rows, N] = x [rows, K] · Wᵀ + bias [N]`, all of dtype `dtype` and row-major.
    ///
    /// # Panics
    /// If the memory of `x` or `bias` is smaller than that, N or K is 0, or the device cannot launch or address so many rows.
    pub fn linear(&self, x: Handle, rows: usize, dtype: FloatDtype, bias: Option<Handle>) -> Handle {
        let [n, k] = self.shape();
        check("linear", rows, n.max(self.layout.chunks() * layout::CHUNK), k.min(n));
        let x = Buffer::new(x, rows * k, dtype.size());
        let bias = bias.map(|bias| Buffer::new(bias, n, dtype.size()));
        let y = if self.activation.is_quantized() {
            let codes = activation::quantize(self, &x, rows, dtype);
            product_int::int_product(self, &codes, rows, dtype, bias.as_ref())
        } else {
            product_float::float_product(self, &x, rows, dtype, bias.as_ref())
        };
        y.into_handle()
    }

    /// `y [rows, K] = g [rows, N] · W` of dtype `dtype`; weight values and sums are f32. The activation treatment does not apply.
    ///
    /// # Panics
    /// As [`CubeWeight::linear`].
    pub fn linear_transposed(&self, g: Handle, rows: usize, dtype: FloatDtype) -> Handle {
        let [n, k] = self.shape();
        check("linear_transposed", rows, n.max(k), k.min(n));
        let g = Buffer::new(g, rows * n, dtype.size());
        rows::linear_transposed(self, &g, rows, dtype).into_handle()
    }

    /// `y [count, K]` of dtype `dtype`: the dequantized rows `indices [count]`, integers of type `index`. A row that does not exist is NaN:
    /// the host never sees the indices.
    ///
    /// # Panics
    /// As [`CubeWeight::linear`].
    pub fn gather(&self, indices: Handle, count: usize, index: ElemType, dtype: FloatDtype) -> Handle {
        let [n, k] = self.shape();
        check("gather", count, k, k.min(n));
        let index = StorageType::Scalar(index);
        let indices = Buffer::new(indices, count, index.size());
        rows::gather(self, &indices, index, dtype).into_handle()
    }
}

/// Device code counts elements in 32 bits.
fn check(op: &str, rows: usize, columns: usize, smallest: usize) {
    assert!(rows > 0 && smallest > 0, "{op}: an empty product has no kernel");
    assert!(
        rows.saturating_mul(columns) <= u32::MAX as usize,
        "{op}: {rows} rows of {columns} values are more than 32 bits can count: split the rows"
    );
}

/// CubeCL's name of a dtype.
fn storage(dtype: FloatDtype) -> StorageType {
    StorageType::Scalar(ElemType::Float(match dtype {
        FloatDtype::F32 => FloatKind::F32,
        FloatDtype::F16 => FloatKind::F16,
        FloatDtype::BF16 => FloatKind::BF16,
    }))
}
