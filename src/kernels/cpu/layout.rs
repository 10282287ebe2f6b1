//! Where each code of a packed weight lies: panels of 16 channels, tiles of 32 k, bit shards inside a tile.
//!
//! ```text
//! weight [N, K]     panels of 16 channels, one after the other; in a panel, tiles along the padded K
//! tile              16 channels x 32 k = 8 quads; a quad is one 64-byte line [16 channels][4 k]
//! bits of a code    7 6 5 4 | 3 2 1 0        8 bits: the 8 quads as they are
//! 7 = 4 + 2 + 1       c b b   a a a a        a: 4 lines, b: 2 lines, c: 1 line, in this order
//! 4-bit line l      quad 2l in the low half of each byte, quad 2l+1 in the high half
//! 2-bit line l      quads 4l to 4l+3, low bits first;    1-bit line: quads 0 to 7
//! ```
//!
//! A tile of b-bit codes is b lines. Each group of a scale starts a tile; padding codes are 0 and meet activations of 0.

use bytemuck::{Pod, Zeroable};

/// Channels of a panel.
pub const CHANNELS: usize = 16;
/// k of a tile.
pub const TILE: usize = 32;
/// Quads of a tile.
pub const QUADS: usize = TILE / 4;

/// One cache line of codes.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

impl Line {
    /// All codes 0.
    pub const ZERO: Self = Self([0; 64]);
}

/// One value for each channel of a panel.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes<T>(pub [T; CHANNELS]);

/// How K falls into groups and tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    /// Reduced inputs.
    pub k: usize,
    /// Elements that share a scale; the last group may be shorter.
    pub size: usize,
    /// Number of groups, 0 when K is 0.
    pub count: usize,
    /// Tiles of every group but the last.
    tiles: usize,
    /// Tiles of all groups.
    pub total_tiles: usize,
}

impl Groups {
    /// Groups of `size` elements along `k`.
    pub fn new(k: usize, size: usize) -> Self {
        let size = size.min(k).max(1);
        let count = k.div_ceil(size);
        let tiles = size.div_ceil(TILE);
        let last = k - size * count.saturating_sub(1);
        let total_tiles = if count == 0 {
            0
        } else {
            (count - 1) * tiles + last.div_ceil(TILE)
        };
        Self {
            k,
            size,
            count,
            tiles,
            total_tiles,
        }
    }

    /// K with the padding of every group.
    pub fn padded_k(&self) -> usize {
        self.total_tiles * TILE
    }

    /// The k of a group.
    pub fn elements(&self, group: usize) -> core::ops::Range<usize> {
        group * self.size..((group + 1) * self.size).min(self.k)
    }

    /// The tiles of a group.
    pub fn tiles(&self, group: usize) -> core::ops::Range<usize> {
        group * self.tiles..((group + 1) * self.tiles).min(self.total_tiles)
    }

    /// Position of element `k` in the padded K.
    pub fn position(&self, k: usize) -> usize {
        k / self.size * self.tiles * TILE + k % self.size
    }
}

/// Calls `$step!(Q)` for each quad of a tile.
macro_rules! each_quad {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
    };
}
pub(super) use each_quad;

/// `$call!(BITS)` for codes of `$bits` bits.
macro_rules! by_bits {
    ($bits:expr, $call:ident) => {
        match $bits {
            1 => $call!(1),
            2 => $call!(2),
            3 => $call!(3),
            4 => $call!(4),
            5 => $call!(5),
            6 => $call!(6),
            7 => $call!(7),
            _ => $call!(8),
        }
    };
}
pub(super) use by_bits;

/// Packs the 8 quads of a tile, one code a byte, into `out.len()` lines: that many bits a code.
pub fn pack_tile(quads: &[Line; QUADS], out: &mut [Line]) {
    let bits = out.len();
    if bits == 8 {
        out.copy_from_slice(quads);
        return;
    }
    out.fill(Line::ZERO);
    let (mut line, mut low) = (0, 0);
    for width in [4, 2, 1].into_iter().filter(|width| bits & width != 0) {
        for (q, quad) in quads.iter().enumerate() {
            let (at, shift) = (line + q * width / 8, q * width % 8);
            for (byte, code) in out[at].0.iter_mut().zip(quad.0) {
                *byte |= (code >> low & ((1 << width) - 1)) << shift;
            }
        }
        line += width;
        low += width;
    }
}

/// One quad out of a tile: and, shift, or.
#[inline(always)]
pub fn unpack_quad<const BITS: usize, const Q: usize>(tile: &[Line; BITS], out: &mut Line) {
    let second = BITS & 4;
    let third = second + (BITS & 2);
    for i in 0..64 {
        let mut code = 0;
        if BITS & 4 != 0 {
            code = tile[Q / 2].0[i] >> (Q % 2 * 4) & 15;
        }
        if BITS & 2 != 0 {
            code |= (tile[second + Q / 4].0[i] >> (Q % 4 * 2) & 3) << second;
        }
        if BITS & 1 != 0 {
            code |= (tile[third].0[i] >> Q & 1) << third;
        }
        out.0[i] = code;
    }
}

#[inline(always)]
fn unpack_tiles<const BITS: usize>(lines: &[Line], out: &mut [Line]) {
    let (tiles, _) = lines.as_chunks::<BITS>();
    let (quads, _) = out.as_chunks_mut::<QUADS>();
    for (tile, out) in tiles.iter().zip(quads) {
        unpack_quad::<BITS, 0>(tile, &mut out[0]);
        unpack_quad::<BITS, 1>(tile, &mut out[1]);
        unpack_quad::<BITS, 2>(tile, &mut out[2]);
        unpack_quad::<BITS, 3>(tile, &mut out[3]);
        unpack_quad::<BITS, 4>(tile, &mut out[4]);
        unpack_quad::<BITS, 5>(tile, &mut out[5]);
        unpack_quad::<BITS, 6>(tile, &mut out[6]);
        unpack_quad::<BITS, 7>(tile, &mut out[7]);
    }
}

/// Unpacks whole tiles of `bits`-bit codes to quads of one code a byte.
#[inline(always)]
pub fn unpack(bits: u32, lines: &[Line], out: &mut [Line]) {
    macro_rules! tiles {
        (8) => {
            out[..lines.len()].copy_from_slice(lines)
        };
        ($bits:literal) => {
            unpack_tiles::<$bits>(lines, out)
        };
    }
    by_bits!(bits, tiles);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        for bits in 1..=8 {
            let mut quads = [[Line::ZERO; QUADS]; 2];
            for (i, byte) in quads.iter_mut().flatten().flat_map(|line| &mut line.0).enumerate() {
                *byte = (i * 151 % (1 << bits)) as u8;
            }
            let mut packed = vec![Line::ZERO; 2 * bits];
            pack_tile(&quads[0], &mut packed[..bits]);
            pack_tile(&quads[1], &mut packed[bits..]);
            let mut back = [Line::ZERO; 2 * QUADS];
            unpack(bits as u32, &packed, &mut back);
            assert_eq!(quads.as_flattened(), back, "{bits} bits");
        }
    }

    #[test]
    fn groups_start_at_tiles() {
        let groups = Groups::new(100, 48);
        assert_eq!((groups.count, groups.total_tiles), (3, 5));
        assert_eq!((groups.tiles(1), groups.tiles(2)), (2..4, 4..5));
        assert_eq!((groups.position(48), groups.position(96)), (64, 128));
        assert_eq!(groups.elements(2), 96..100);
        assert_eq!(Groups::new(0, 32).total_tiles, 0);
    }
}
