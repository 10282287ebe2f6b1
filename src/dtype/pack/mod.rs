//! Sub-byte packing of codes.

mod rows;

pub use rows::PackedRows;
