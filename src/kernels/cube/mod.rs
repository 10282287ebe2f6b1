//! Kernels in CubeCL, generic over its runtimes, on plain device memory: CUDA, Vulkan (SPIR-V), WebGPU (WGSL).
//!
//! [`CubeWeight`] is a packed weight; what it computes is written in [`tensor`](crate::tensor). Integer sums are those of every other
//! family. The epilogue keeps the written order, with rounding and division by integer operations where a device may do either in its own
//! way, and barriers where a compiler could join or reorder two roundings. What is left to a device of Vulkan or WGSL is whether it takes
//! subnormal numbers for 0.

mod activation;
mod activation_blocks;
mod buffer;
mod device;
mod division;
mod epilogue;
mod fragments;
mod grid;
mod layout;
mod mma_direct;
mod mma_float;
mod mma_halves;
mod mma_int;
mod product_float;
mod product_int;
mod ring;
mod rows;
mod select;
mod store;
mod transpose;
mod weight;
mod wgmma;
mod wgmma_float;
mod wgmma_int;

pub use weight::CubeWeight;

use crate::dtype::FloatDtype;
use crate::spec::ActivationQuantization;
use activation::{Codes, Order};
use buffer::Buffer;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use layout::{Arrangement, Layout};
use select::Way;

/// Activations on a device as integers and their scales, see [`CubeWeight::quantize`].
pub struct CubeActivation {
    codes: Codes,
    rows: usize,
    dtype: FloatDtype,
    layout: Layout,
    activation: ActivationQuantization,
}

impl core::fmt::Debug for CubeActivation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CubeActivation")
            .field("rows", &self.rows)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

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
        if self.activation.is_quantized() {
            return self.product(&self.codes(&x, rows, dtype), bias);
        }
        let y = match self.tiling(rows, dtype) {
            Some(tiling) if x.is_aligned() => mma_float::float_product(self, &x, rows, tiling, dtype, bias.as_ref()),
            _ => product_float::float_product(self, &x, rows, dtype, bias.as_ref()),
        };
        y.into_handle()
    }

    /// `x [rows, K]` of dtype `dtype` as the integers that this weight multiplies; `None` where it takes float activations.
    ///
    /// # Panics
    /// As [`CubeWeight::linear`].
    pub fn quantize(&self, x: Handle, rows: usize, dtype: FloatDtype) -> Option<CubeActivation> {
        let [n, k] = self.shape();
        check("quantize", rows, n.max(self.layout.chunks() * layout::CHUNK), k.min(n));
        let x = Buffer::new(x, rows * k, dtype.size());
        self.activation.is_quantized().then(|| self.codes(&x, rows, dtype))
    }

    /// [`CubeWeight::linear`] of an activation that this weight, or one of its duplicates, quantized.
    ///
    /// # Panics
    /// If another kind of weight quantized it, or the memory of `bias` is smaller than `[N]`.
    pub fn linear_quantized(&self, x: &CubeActivation, bias: Option<Handle>) -> Handle {
        let bias = bias.map(|bias| Buffer::new(bias, self.layout.n, x.dtype.size()));
        self.product(x, bias)
    }

    fn codes(&self, x: &Buffer, rows: usize, dtype: FloatDtype) -> CubeActivation {
        let codes = if self.layout.arrangement == Arrangement::Streams {
            activation::quantize(self, x, rows, dtype, Order::Chunks)
        } else {
            let order = match self.tiling(rows, dtype) {
                Some(tiling) if tiling.way == Way::Warpgroups => Order::Boxes,
                _ => Order::Blocks,
            };
            activation_blocks::quantize(self, x, rows, dtype, order)
                .unwrap_or_else(|| activation::quantize(self, x, rows, dtype, Order::Blocks))
        };
        CubeActivation {
            codes,
            rows,
            dtype,
            layout: self.layout,
            activation: self.activation,
        }
    }

    fn product(&self, x: &CubeActivation, bias: Option<Buffer>) -> Handle {
        assert!(
            x.layout == self.layout && x.activation == self.activation,
            "an activation quantized for {:?} meets a weight of {:?}",
            x.layout,
            self.layout
        );
        let (rows, dtype) = (x.rows, x.dtype);
        let tiling = match x.codes.order {
            Order::Chunks => None,
            Order::Blocks => Some(self.ring_tiling(rows)),
            Order::Boxes => self.tiling(rows, dtype),
        };
        let y = match tiling {
            Some(tiling) => mma_int::int_product(self, &x.codes, rows, tiling, dtype, bias.as_ref()),
            None => product_int::int_product(self, &x.codes, rows, dtype, bias.as_ref()),
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
