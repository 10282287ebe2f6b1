//! How the codes of a weight lie in device memory: pure arithmetic, on the host.
//!
//! K is cut into groups (the elements that share a scale), a group into chunks of 32 codes; the last chunk of a group is padded.
//!
//! A chunk of one channel is a bit stream of `bits` words, code i at bit i · bits; neighbouring channels are neighbouring words, so units that
//! own a channel each read whole lines of memory:
//!
//! ```text
//! word(chunk, j, channel) = words[(chunk · bits + j) · N + channel]          j = 0..bits
//! ```

use super::fragments::{self, Operand};
use crate::dtype::pack::PackedRows;
use rayon::prelude::*;

/// Codes in a chunk.
pub(super) const CHUNK: usize = 32;
/// Words of a channel that are moved together: a line of a host's cache.
const LINE: usize = 16;

/// The order of a weight's codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Arrangement {
    /// Bit streams, a word of each channel side by side: every width, group and device.
    Streams,
    /// Operands of matrix instructions, see [`fragments`]. K is a multiple of 64, and so is the group, or it is 32.
    Fragments(Operand),
}

/// The sizes of a weight `[N, K]` on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Output channels.
    pub n: usize,
    /// Reduced inputs.
    pub k: usize,
    /// Bits of a code.
    pub bits: usize,
    /// Elements along K that share a scale, at least 1.
    pub group: usize,
    pub arrangement: Arrangement,
}

impl Layout {
    /// Groups along K, at least 1.
    pub fn groups(&self) -> usize {
        self.k.div_ceil(self.group).max(1)
    }

    /// Chunks of one group.
    pub fn chunks_per_group(&self) -> usize {
        self.group.min(self.k).div_ceil(CHUNK).max(1)
    }

    /// Chunks of one channel; 0 where K is 0.
    pub fn chunks(&self) -> usize {
        if self.k == 0 {
            return 0;
        }
        let last = self.k - (self.groups() - 1) * self.group;
        (self.groups() - 1) * self.chunks_per_group() + last.div_ceil(CHUNK)
    }

    /// Words of the whole weight.
    pub fn words(&self) -> usize {
        match self.arrangement {
            Arrangement::Streams => self.chunks() * self.bits * self.n,
            Arrangement::Fragments(_) => fragments::words(self),
        }
    }

    /// The codes in the order of the device.
    pub fn pack(&self, codes: &PackedRows) -> Vec<u32> {
        if let Arrangement::Fragments(operand) = self.arrangement {
            return fragments::pack(self, operand, codes);
        }
        if self.is_stream() && self.words() > 0 {
            return self.transpose(codes.as_bytes());
        }
        let mut words = vec![0; self.words()];
        let mut row = vec![0u8; self.k];
        for channel in 0..self.n {
            codes.read(channel, 0, &mut row);
            for (k, code) in row.iter().enumerate() {
                let (word, shift) = self.position(k, channel);
                words[word] |= (*code as u32) << shift;
                if shift + self.bits > 32 {
                    words[word + self.n] |= (*code as u32) >> (32 - shift);
                }
            }
        }
        words
    }

    /// Whether the words of a channel are its packed codes as they rest: no group ends inside a chunk.
    fn is_stream(&self) -> bool {
        self.groups() == 1 || self.group.is_multiple_of(CHUNK)
    }

    /// Rows of packed codes as rows of words, one for each place in a channel.
    fn transpose(&self, bytes: &[u8]) -> Vec<u32> {
        let width = PackedRows::row_bytes(self.bits as u32, self.k);
        let mut words = vec![0; self.words()];
        words
            .par_chunks_mut(LINE * self.n)
            .enumerate()
            .for_each(|(line, words)| {
                for (channel, row) in bytes.chunks_exact(width).enumerate() {
                    let rest = &row[(line * LINE * 4).min(width)..];
                    let line = rest[..rest.len().min(4 * words.len() / self.n)].chunks(4);
                    for (word, bytes) in words[channel..].iter_mut().step_by(self.n).zip(line) {
                        let mut four = [0; 4];
                        four[..bytes.len()].copy_from_slice(bytes);
                        *word = u32::from_le_bytes(four);
                    }
                }
            });
        words
    }

    /// The codes, row-major, one a byte.
    pub fn unpack(&self, words: &[u32]) -> Vec<u8> {
        if let Arrangement::Fragments(operand) = self.arrangement {
            let code = |i: usize| {
                let (word, shift) = fragments::position(self, operand, i % self.k, i / self.k);
                fragments::load(self, words[word] >> shift)
            };
            return (0..self.n * self.k).map(code).collect();
        }
        let mask = (1u32 << self.bits) - 1;
        let code = |i: usize| {
            let (word, shift) = self.position(i % self.k, i / self.k);
            let mut code = words[word] >> shift;
            if shift + self.bits > 32 {
                code |= words[word + self.n] << (32 - shift);
            }
            (code & mask) as u8
        };
        (0..self.n * self.k).map(code).collect()
    }

    /// The word that holds the first bit of a code, and that bit.
    fn position(&self, k: usize, channel: usize) -> (usize, usize) {
        let (group, inner) = (k / self.group, k % self.group);
        let chunk = group * self.chunks_per_group() + inner / CHUNK;
        let bit = inner % CHUNK * self.bits;
        ((chunk * self.bits + bit / 32) * self.n + channel, bit % 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_group_comes_back() {
        for bits in 1..=8 {
            for (n, k, group) in [
                (1, 1, 1),
                (3, 33, 33),
                (5, 100, 24),
                (2, 64, 32),
                (4, 70, 70),
                (2, 0, 1),
                (0, 5, 5),
            ] {
                let layout = Layout {
                    n,
                    k,
                    bits,
                    group,
                    arrangement: Arrangement::Streams,
                };
                let codes: Vec<u8> = (0..n * k).map(|i| (i * 37 % (1 << bits)) as u8).collect();
                let packed = PackedRows::pack(bits as u32, n, k, codes.iter().copied());
                assert_eq!(layout.unpack(&layout.pack(&packed)), codes, "{layout:?}");
            }
        }
    }

    #[test]
    fn fragments_come_back() {
        for bits in 1..=8 {
            for operand in [Operand::Bytes, Operand::Halves] {
                let (n, k) = (21, 192);
                let arrangement = Arrangement::Fragments(operand);
                let layout = Layout {
                    n,
                    k,
                    bits,
                    group: 32,
                    arrangement,
                };
                let codes: Vec<u8> = (0..n * k).map(|i| (i * 37 % (1 << bits)) as u8).collect();
                let packed = PackedRows::pack(bits as u32, n, k, codes.iter().copied());
                assert_eq!(layout.unpack(&layout.pack(&packed)), codes, "{layout:?}");
            }
        }
    }

    #[test]
    fn rows_of_packed_codes_become_the_words_of_the_picture() {
        for bits in 1..=8 {
            for (n, k, group) in [(1, 1, 1), (3, 33, 33), (5, 200, 64), (2, 64, 32), (40, 1100, 128)] {
                let arrangement = Arrangement::Streams;
                let layout = Layout {
                    n,
                    k,
                    bits,
                    group,
                    arrangement,
                };
                let codes: Vec<u8> = (0..n * k).map(|i| (i * 37 % (1 << bits)) as u8).collect();
                let words = layout.pack(&PackedRows::pack(bits as u32, n, k, codes.iter().copied()));
                for (i, code) in codes.iter().enumerate() {
                    let (word, shift) = layout.position(i % k, i / k);
                    let high = words.get(word + n).copied().unwrap_or(0);
                    let pair = u64::from(high) << 32 | u64::from(words[word]);
                    assert_eq!(
                        (pair >> shift) as u8 & ((1u16 << bits) - 1) as u8,
                        *code,
                        "{layout:?} {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_tail_group_takes_only_the_chunks_it_needs() {
        let layout = Layout {
            n: 1,
            k: 130,
            bits: 4,
            group: 64,
            arrangement: Arrangement::Streams,
        };
        assert_eq!((layout.groups(), layout.chunks_per_group(), layout.chunks()), (3, 2, 5));
    }

    #[test]
    fn drawn_words() {
        let layout = Layout {
            n: 2,
            k: 3,
            bits: 4,
            group: 3,
            arrangement: Arrangement::Streams,
        };
        let packed = PackedRows::pack(4, 2, 3, [1, 2, 3, 4, 5, 6].into_iter());
        assert_eq!(layout.pack(&packed), [0x321, 0x654, 0, 0, 0, 0, 0, 0]);
    }
}
