//! Arrays in device memory whose length is known to fit: the one place where the length of a kernel's argument is asserted to CubeCL.
#![allow(unsafe_code)]

use bytemuck::Pod;
use cubecl::prelude::*;
use cubecl::server::Handle;

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

    /// The elements, on the host: waits for the device.
    pub fn read<R: Runtime, T: Pod>(&self, client: &ComputeClient<R>) -> Vec<T> {
        let bytes = client.read_one_unchecked(self.handle.clone());
        let elements = bytes[..self.len * size_of::<T>()].chunks_exact(size_of::<T>());
        elements.map(bytemuck::pod_read_unaligned).collect()
    }
}
