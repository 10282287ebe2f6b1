//! torchao's sharded layout of sub-byte codes (`UintxTensor`): a code is cut into pieces of 4, 2 and 1 bits, each kind packed apart.
//!
//! ```text
//! a 7-bit code       6 5 4 3 2 1 0             bits → shards, from the low bits
//!                    ─ ─── ───────             1 → 1      5 → 4, 1
//!   shard 0 (4 bits)        3 2 1 0            2 → 2      6 → 4, 2
//!   shard 1 (2 bits)    5 4                    3 → 2, 1   7 → 4, 2, 1
//!   shard 2 (1 bit)   6                        4 → 4
//!
//! a shard of w bits holds 8/w codes in a byte. Neighbours do not share a byte: the packed dim of n elements is cut into 8/w
//! slices of n·w/8, and byte i holds element i of every slice, slice j shifted left by j·w:
//!
//!   w = 2, n = 8    byte 0                 byte 1
//!                   7 6   5 4   3 2   1 0  7 6   5 4   3 2   1 0
//!                   [6]   [4]   [2]   [0]  [7]   [5]   [3]   [1]
//! ```
//!
//! Source: torchao `prototype/dtypes/uintx/bitpacking.py`.

use crate::error::{QuantError, Result};

/// The widths of the shards of a `bits`-bit code, from its low bits: `[4, 2, 1]` for 7. Errors outside 1 to 7.
pub fn shard_widths(bits: u32) -> Result<&'static [u32]> {
    const WIDTHS: [&[u32]; 7] = [&[1], &[2], &[2, 1], &[4], &[4, 1], &[4, 2], &[4, 2, 1]];
    match bits {
        1..=7 => Ok(WIDTHS[bits as usize - 1]),
        _ => Err(QuantError::UnsupportedBits { bits }),
    }
}

/// Packs `codes` of `shape`, row-major, along `pack_dim` (negative counts from the end) into one byte array a shard.
///
/// A shard of w bits has the shape of the codes with n·w/8 in place of n at `pack_dim`, row-major.
///
/// Errors: bits outside 1 to 7, a wrong number of codes, a dim that does not exist or is no multiple of 8, a code of more bits.
///
/// ```
/// use burn_quantized::dtype::pack::pack_shards;
/// assert_eq!(pack_shards(2, &[0, 1, 2, 3, 0, 0, 1, 1], &[8], -1).unwrap(), [vec![0b01_00_10_00, 0b01_00_11_01]]);
/// ```
pub fn pack_shards(bits: u32, codes: &[u8], shape: &[usize], pack_dim: isize) -> Result<Vec<Vec<u8>>> {
    let widths = shard_widths(bits)?;
    let plan = Plan::new(shape, pack_dim)?;
    if codes.len() != plan.elements() {
        return Err(mismatch("codes to pack", shape, codes.len()));
    }
    if let Some(code) = codes.iter().find(|code| **code >> bits != 0) {
        return Err(QuantError::InvalidSpec(format!("code {code} does not fit uint{bits}")));
    }
    let mut shift = 0;
    let shards = widths.iter().map(|width| {
        let mut shard = vec![0; plan.bytes(*width)];
        plan.each(*width, |element, byte, place| {
            shard[byte] |= (codes[element] >> shift & mask(*width)) << place
        });
        shift += width;
        shard
    });
    Ok(shards.collect())
}

/// The codes that [`pack_shards`] packed; `shape` is theirs.
///
/// Errors: bits outside 1 to 7, a dim that does not exist or is no multiple of 8, a wrong number of shards or of bytes in one.
pub fn unpack_shards(bits: u32, shards: &[Vec<u8>], shape: &[usize], pack_dim: isize) -> Result<Vec<u8>> {
    let widths = shard_widths(bits)?;
    let plan = Plan::new(shape, pack_dim)?;
    if shards.len() != widths.len() {
        return Err(mismatch("shards", &[widths.len()], shards.len()));
    }
    let mut codes = vec![0; plan.elements()];
    let mut shift = 0;
    for (width, shard) in widths.iter().zip(shards) {
        if shard.len() != plan.bytes(*width) {
            return Err(mismatch("bytes of a shard", &[plan.bytes(*width)], shard.len()));
        }
        plan.each(*width, |element, byte, place| {
            codes[element] |= (shard[byte] >> place & mask(*width)) << shift
        });
        shift += width;
    }
    Ok(codes)
}

fn mask(width: u32) -> u8 {
    (1 << width) - 1
}

fn mismatch(what: &str, expected: &[usize], got: usize) -> QuantError {
    QuantError::ShapeMismatch {
        what: what.into(),
        expected: expected.to_vec(),
        got: vec![got],
    }
}

/// A tensor as `[outer, packed, inner]`.
struct Plan {
    outer: usize,
    packed: usize,
    inner: usize,
}

impl Plan {
    fn new(shape: &[usize], pack_dim: isize) -> Result<Self> {
        let at = if pack_dim < 0 {
            pack_dim + shape.len() as isize
        } else {
            pack_dim
        };
        let Some(at) = usize::try_from(at).ok().filter(|at| *at < shape.len()) else {
            return Err(QuantError::InvalidSpec(format!(
                "{shape:?} has no dim {pack_dim} to pack"
            )));
        };
        if !shape[at].is_multiple_of(8) {
            let size = shape[at];
            let reason = format!("the packed dim holds {size} codes: pad it to a multiple of 8");
            return Err(QuantError::InvalidSpec(reason));
        }
        Ok(Self {
            outer: shape[..at].iter().product(),
            packed: shape[at],
            inner: shape[at + 1..].iter().product(),
        })
    }

    fn elements(&self) -> usize {
        self.outer * self.packed * self.inner
    }

    fn bytes(&self, width: u32) -> usize {
        self.elements() / 8 * width as usize
    }

    /// Calls with each element, its byte in a shard of `width` bits and its lowest bit in that byte.
    fn each(&self, width: u32, mut call: impl FnMut(usize, usize, u32)) {
        let slice = self.packed / 8 * width as usize;
        for element in 0..self.elements() {
            let (inner, at) = (element % self.inner, element / self.inner % self.packed);
            let outer = element / self.inner / self.packed;
            let byte = (outer * slice + at % slice) * self.inner + inner;
            call(element, byte, (at / slice) as u32 * width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_dim_comes_back() {
        let shape = [8, 16, 24];
        for bits in 1..=7 {
            let codes: Vec<u8> = (0..8 * 16 * 24).map(|i| (i * 73 % (1 << bits)) as u8).collect();
            for dim in -3..3 {
                let shards = pack_shards(bits, &codes, &shape, dim).unwrap();
                let bytes: usize = shards.iter().map(Vec::len).sum();
                assert_eq!(bytes, codes.len() * bits as usize / 8);
                assert_eq!(
                    unpack_shards(bits, &shards, &shape, dim).unwrap(),
                    codes,
                    "{bits} bits along {dim}"
                );
            }
        }
        assert_eq!(pack_shards(3, &[], &[0], 0).unwrap(), [vec![], vec![]] as [Vec<u8>; 2]);
    }

    #[test]
    fn bad_sizes_are_errors() {
        assert_eq!(shard_widths(8), Err(QuantError::UnsupportedBits { bits: 8 }));
        assert!(pack_shards(2, &[0; 12], &[12], 0).is_err(), "12 is no multiple of 8");
        assert!(pack_shards(2, &[0; 8], &[8], 1).is_err(), "no such dim");
        assert!(pack_shards(2, &[0; 7], &[8], 0).is_err(), "a code is missing");
        assert!(pack_shards(2, &[4; 8], &[8], 0).is_err(), "4 needs 3 bits");
        assert!(unpack_shards(3, &[vec![0; 2]], &[8], 0).is_err(), "a shard is missing");
        assert!(
            unpack_shards(3, &[vec![0; 2], vec![0; 2]], &[8], 0).is_err(),
            "a byte too many"
        );
    }
}
