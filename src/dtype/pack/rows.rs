//! A dense bit stream for each row: how codes rest in a quantized tensor and in a record.

/// Rows of unsigned codes of 1 to 8 bits, packed without gaps along a row; a row starts at a byte.
///
/// ```text
/// bits = 3:   byte 0            byte 1            byte 2
///             7 6 5 4 3 2 1 0   7 6 5 4 3 2 1 0   7 6 5 4 3 2 1 0
///             c c b b b a a a   f e e e d d d c   h h h g g g f f      codes a b c d e f g h
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedRows {
    bits: u32,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
}

impl PackedRows {
    /// Bytes of one row: `ceil(cols · bits / 8)`.
    pub const fn row_bytes(bits: u32, cols: usize) -> usize {
        (cols * bits as usize).div_ceil(8)
    }

    /// Packs `rows × cols` codes, row-major; bits of a code above `bits` are cut off.
    ///
    /// # Panics
    /// If there are not `rows · cols` codes or `bits` is not 1 to 8.
    pub fn pack(bits: u32, rows: usize, cols: usize, codes: impl ExactSizeIterator<Item = u8>) -> Self {
        assert!(
            (1..=8).contains(&bits) && codes.len() == rows * cols,
            "PackedRows: {bits} bits, {rows}x{cols}"
        );
        let width = Self::row_bytes(bits, cols);
        let mut bytes = vec![0; rows * width];
        let mask = ((1u32 << bits) - 1) as u16;
        for (i, code) in codes.enumerate() {
            let bit = i % cols * bits as usize;
            let at = i / cols * width + bit / 8;
            let wide = (code as u16 & mask) << (bit % 8);
            bytes[at] |= wide as u8;
            if wide > 0xff {
                bytes[at + 1] |= (wide >> 8) as u8;
            }
        }
        Self {
            bits,
            rows,
            cols,
            bytes,
        }
    }

    /// Takes bytes that [`PackedRows::as_bytes`] gave; `None` when their number is not `rows · row_bytes`.
    pub fn from_bytes(bits: u32, rows: usize, cols: usize, bytes: Vec<u8>) -> Option<Self> {
        let fits = (1..=8).contains(&bits) && rows.checked_mul(Self::row_bytes(bits, cols)) == Some(bytes.len());
        fits.then_some(Self {
            bits,
            rows,
            cols,
            bytes,
        })
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packed bytes, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The codes of `row`, from column `from` on, into `out` (one a byte).
    ///
    /// # Panics
    /// If the row or the last column does not exist.
    pub fn read(&self, row: usize, from: usize, out: &mut [u8]) {
        assert!(
            row < self.rows && from + out.len() <= self.cols,
            "PackedRows: row {row}, columns {from}.."
        );
        let bits = self.bits as usize;
        let width = Self::row_bytes(self.bits, self.cols);
        let bytes = &self.bytes[row * width..(row + 1) * width];
        if bits == 8 {
            out.copy_from_slice(&bytes[from..from + out.len()]);
            return;
        }
        let mask = (1u16 << bits) - 1;
        for (i, code) in out.iter_mut().enumerate() {
            let bit = (from + i) * bits;
            let low = bytes[bit / 8] as u16;
            let high = bytes.get(bit / 8 + 1).copied().unwrap_or(0) as u16;
            *code = ((low | high << 8) >> (bit % 8) & mask) as u8;
        }
    }

    /// Every code, row-major, one a byte.
    pub fn unpack(&self) -> Vec<u8> {
        let mut codes = vec![0; self.rows * self.cols];
        if self.cols > 0 {
            for (row, out) in codes.chunks_exact_mut(self.cols).enumerate() {
                self.read(row, 0, out);
            }
        }
        codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        for bits in 1..=8u32 {
            for cols in [0, 1, 7, 8, 9, 33] {
                let codes: Vec<u8> = (0..3 * cols).map(|i| (i * 37 % (1 << bits)) as u8).collect();
                let packed = PackedRows::pack(bits, 3, cols, codes.iter().copied());
                assert_eq!(packed.unpack(), codes, "{bits} bits, {cols} columns");
                assert_eq!(packed.as_bytes().len(), 3 * PackedRows::row_bytes(bits, cols));
            }
        }
    }

    #[test]
    #[allow(clippy::unusual_byte_groupings)] // grouped by code, not by four bits
    fn drawn_bits() {
        let packed = PackedRows::pack(3, 1, 8, [1, 2, 3, 4, 5, 6, 7, 0].into_iter());
        let drawn = [(3 << 6) | (2 << 3) | 1, (5 << 4) | (4 << 1), (7 << 2) | 3];
        assert_eq!(packed.as_bytes(), drawn);
    }
}
