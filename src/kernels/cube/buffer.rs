//! Arrays in device memory whose length is known to fit: the one place where the length of a kernel's argument is asserted to CubeCL.
#![allow(unsafe_code)]

use bytemuck::Pod;
use cubecl::ir::{ElemType, StorageType, Type, UIntKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl::zspace::{Shape, Strides};

/// An array of `len` elements. Never empty: a kernel may be given an array that it does not read.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    handle: Handle,
    len: usize,
    /// Bytes of an element.
    size: usize,
}

impl Buffer {
    /// `values` on the device.
    pub fn upload<R: Runtime, T: Pod + Default>(client: &ComputeClient<R>, values: &[T]) -> Self {
        if values.is_empty() {
            return Self::upload(client, &[T::default()]);
        }
        Self::new(
            client.create_from_slice(bytemuck::cast_slice(values)),
            values.len(),
            size_of::<T>(),
        )
    }

    /// Space for `len` elements of `size` bytes, not initialized.
    pub fn empty<R: Runtime>(client: &ComputeClient<R>, len: usize, size: usize) -> Self {
        let len = len.max(1);
        Self::new(client.empty(len * size), len, size)
    }

    /// The same bytes in memory of their own; waits for the device.
    pub fn duplicate<R: Runtime>(&self, client: &ComputeClient<R>) -> Self {
        let handle = client.create(client.read_one_unchecked(self.handle.clone()));
        Self {
            handle,
            len: self.len,
            size: self.size,
        }
    }

    /// The first `len` elements of `size` bytes behind a handle.
    ///
    /// # Panics
    /// If the memory is smaller.
    pub fn new(handle: Handle, len: usize, size: usize) -> Self {
        let bytes = handle.size_in_used();
        assert!(
            len.checked_mul(size).is_some_and(|needed| needed as u64 <= bytes),
            "{len} elements of {size} bytes in {bytes} bytes of device memory"
        );
        Self { handle, len, size }
    }

    /// Whether bulk copies can read it: it begins at a multiple of 16 bytes.
    pub fn is_aligned(&self) -> bool {
        self.handle.offset_start.unwrap_or(0).is_multiple_of(16)
    }

    /// The memory.
    pub fn into_handle(self) -> Handle {
        self.handle
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The array as an argument of a kernel whose elements have the size that the buffer was made for.
    pub fn arg<R: Runtime>(&self) -> ArrayArg<R> {
        self.arg_of(self.size)
    }

    /// The array as an argument of a kernel whose elements have `size` bytes; what is left over at the end is not seen.
    pub fn arg_of<R: Runtime>(&self, size: usize) -> ArrayArg<R> {
        // SAFETY: `new` checked that the memory holds `len` elements of `self.size` bytes, and nothing changes either afterwards.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.len * self.size / size) }
    }

    /// A view of the array as 32-bit words in 3 dims, from which boxes are copied; what lies outside `shape` is 0.
    ///
    /// # Panics
    /// If the array is smaller than the view.
    pub fn map<R: Runtime>(
        &self,
        shape: [usize; 3],
        strides: [usize; 3],
        tile: [usize; 3],
        swizzle: TensorMapSwizzle,
    ) -> TensorMapArg<R, Tiled> {
        let end: usize = shape.iter().zip(&strides).map(|(n, stride)| (n - 1) * stride).sum();
        assert!(
            (end + 1) * 4 <= self.len * self.size,
            "a view of {shape:?} words with strides {strides:?} in {} bytes",
            self.len * self.size
        );
        // SAFETY: the last word of the view lies inside the memory, whose length `new` checked.
        let tensor = unsafe { TensorArg::from_raw_parts(self.handle.clone(), strides.into(), shape.into()) };
        let word = StorageType::Scalar(ElemType::UInt(UIntKind::U32));
        let mut map =
            TensorMapArg::new(TiledArgs { tile_size: tile.into() }, tensor, Type::new(word)).with_swizzle(swizzle);
        // Kernels never ask for the shape: with one, each launch would upload it first.
        // SAFETY: as above; a tensor without dims has one element.
        map.tensor = unsafe { TensorArg::from_raw_parts(self.handle.clone(), Strides::new(&[]), Shape::new([])) };
        map
    }

    /// The elements, on the host: waits for the device.
    pub fn read<R: Runtime, T: Pod>(&self, client: &ComputeClient<R>) -> Vec<T> {
        let bytes = client.read_one_unchecked(self.handle.clone());
        let elements = bytes[..self.len * size_of::<T>()].chunks_exact(size_of::<T>());
        elements.map(bytemuck::pod_read_unaligned).collect()
    }
}
