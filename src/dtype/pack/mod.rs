//! Sub-byte packing of codes.

mod nibbles;
mod rows;
mod shards;

pub use nibbles::{NibbleOrder, pack_nibbles, pack_signed_nibbles, unpack_nibbles, unpack_signed_nibbles};
pub use rows::PackedRows;
pub use shards::{pack_shards, shard_widths, unpack_shards};
