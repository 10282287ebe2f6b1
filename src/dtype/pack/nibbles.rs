//! 4-bit codes, two neighbours along the last dim in a byte.
//!
//! ```text
//! low first     7 6 5 4   3 2 1 0        high first    7 6 5 4   3 2 1 0
//!               odd       even                         even      odd
//! ```
//!
//! Signed codes keep their low four bits (two's complement): −8 is 8, −1 is 15.

use crate::error::{QuantError, Result};

/// Which code of a pair sits in the low four bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NibbleOrder {
    /// The even one: `even | odd << 4`.
    LowFirst,
    /// The odd one: `even << 4 | odd`.
    HighFirst,
}

/// Packs codes 0 to 15 in rows of `cols`, two a byte.
///
/// Errors: an odd `cols`, a number of codes that `cols` does not divide, a code above 15.
///
/// ```
/// use burn_quantized::dtype::pack::{NibbleOrder, pack_nibbles};
/// assert_eq!(pack_nibbles(&[1, 2], 2, NibbleOrder::LowFirst).unwrap(), [0x21]);
/// assert_eq!(pack_nibbles(&[1, 2], 2, NibbleOrder::HighFirst).unwrap(), [0x12]);
/// ```
pub fn pack_nibbles(codes: &[u8], cols: usize, order: NibbleOrder) -> Result<Vec<u8>> {
    check(codes.len(), cols)?;
    if let Some(code) = codes.iter().find(|code| **code > 15) {
        return Err(QuantError::InvalidSpec(format!("code {code} does not fit uint4")));
    }
    let (pairs, _) = codes.as_chunks::<2>();
    Ok(pairs.iter().map(|pair| join(*pair, order)).collect())
}

/// The codes that [`pack_nibbles`] packed.
pub fn unpack_nibbles(bytes: &[u8], order: NibbleOrder) -> Vec<u8> {
    bytes.iter().flat_map(|byte| split(*byte, order)).collect()
}

/// Packs codes −8 to 7 in rows of `cols`, two a byte.
///
/// Errors: an odd `cols`, a number of codes that `cols` does not divide, a code outside −8 to 7.
pub fn pack_signed_nibbles(codes: &[i8], cols: usize, order: NibbleOrder) -> Result<Vec<u8>> {
    check(codes.len(), cols)?;
    if let Some(code) = codes.iter().find(|code| !(-8..8).contains(*code)) {
        return Err(QuantError::InvalidSpec(format!("code {code} does not fit int4")));
    }
    let (pairs, _) = codes.as_chunks::<2>();
    Ok(pairs
        .iter()
        .map(|pair| join(pair.map(|code| code as u8 & 15), order))
        .collect())
}

/// The codes that [`pack_signed_nibbles`] packed.
pub fn unpack_signed_nibbles(bytes: &[u8], order: NibbleOrder) -> Vec<i8> {
    let sign_extended = |code: u8| (code << 4) as i8 >> 4;
    bytes
        .iter()
        .flat_map(|byte| split(*byte, order))
        .map(sign_extended)
        .collect()
}

fn check(codes: usize, cols: usize) -> Result<()> {
    if !cols.is_multiple_of(2) {
        return Err(QuantError::InvalidSpec(format!(
            "a row of {cols} nibbles: pad it to an even length"
        )));
    }
    match codes.checked_rem(cols).unwrap_or(codes) {
        0 => Ok(()),
        _ => Err(QuantError::ShapeMismatch {
            what: "codes in whole rows".into(),
            expected: vec![cols],
            got: vec![codes],
        }),
    }
}

fn join([even, odd]: [u8; 2], order: NibbleOrder) -> u8 {
    match order {
        NibbleOrder::LowFirst => even | odd << 4,
        NibbleOrder::HighFirst => even << 4 | odd,
    }
}

fn split(byte: u8, order: NibbleOrder) -> [u8; 2] {
    match order {
        NibbleOrder::LowFirst => [byte & 15, byte >> 4],
        NibbleOrder::HighFirst => [byte >> 4, byte & 15],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_comes_back() {
        for order in [NibbleOrder::LowFirst, NibbleOrder::HighFirst] {
            let codes: Vec<u8> = (0..=255).flat_map(|byte| [byte & 15, byte >> 4]).collect();
            assert_eq!(unpack_nibbles(&pack_nibbles(&codes, 512, order).unwrap(), order), codes);
            let codes: Vec<i8> = codes.iter().map(|code| *code as i8 - 8).collect();
            assert_eq!(
                unpack_signed_nibbles(&pack_signed_nibbles(&codes, 2, order).unwrap(), order),
                codes
            );
        }
    }

    #[test]
    fn bad_sizes_are_errors() {
        let order = NibbleOrder::LowFirst;
        assert!(pack_nibbles(&[0; 6], 3, order).is_err(), "odd rows");
        assert!(pack_nibbles(&[0; 6], 4, order).is_err(), "half a row");
        assert!(pack_nibbles(&[0; 2], 0, order).is_err(), "codes in no row");
        assert!(pack_nibbles(&[16, 0], 2, order).is_err(), "five bits");
        assert!(pack_signed_nibbles(&[8, 0], 2, order).is_err(), "five bits");
        assert_eq!(pack_signed_nibbles(&[], 0, order).unwrap(), [] as [u8; 0]);
    }
}
