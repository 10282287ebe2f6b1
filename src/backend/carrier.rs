//! The `QuantScheme` that Burn sees for a weight that no scheme of Burn's can describe.
//!
//! Recorders keep the bytes of a quantized tensor as they are. Only burn-store's burnpack computes how many there must be, from shape and
//! scheme (`burn-store` 0.21, `TensorSnapshot::data_len`): values at `num_quants` to a storage element, aligned to 4 bytes, then scales. So the
//! carrier is the scheme whose formula gives the smallest size that holds the payload; zeros pad the rest. A carrier is never the layout that
//! a plain backend would read as its own (one byte a value, f32 scales): with the others it panics instead of reading wrong numbers.

use burn_std::Shape;
use burn_std::quantization::{QuantLevel, QuantParam, QuantScheme, QuantStore, QuantValue};

/// The largest block side that a `QuantScheme` can say.
const MAX_BLOCK: usize = 255;

/// The scheme that carries `length` bytes in a tensor of `shape`, and the length that its formula gives; `None` when the tensor is too small.
pub(crate) fn carrier(shape: &Shape, length: usize) -> Option<(QuantScheme, usize)> {
    // `Native` storage of a 2-bit value counts no bytes of values, so only its scales do.
    let scales_only = QuantScheme::default()
        .with_store(QuantStore::Native)
        .with_value(QuantValue::Q2S);
    let byte_values = scales_only.with_value(QuantValue::E4M3);
    let values = shape.num_elements().div_ceil(4) * 4;
    let families = [
        (scales_only, 0, QuantParam::UE8M0, 1),
        (scales_only, 0, QuantParam::F16, 2),
        (scales_only, 0, QuantParam::F32, 4),
        (byte_values, values, QuantParam::UE8M0, 1),
        (byte_values, values, QuantParam::F16, 2),
    ];
    let mut best: Option<(QuantScheme, usize)> = None;
    for (base, fixed, param, size) in families {
        for (block, blocks) in blocks(shape, length.saturating_sub(fixed).div_ceil(size)) {
            let got = fixed + blocks * size;
            if got >= length && best.is_none_or(|(_, least)| got < least) {
                best = Some((base.with_level(QuantLevel::block(block)).with_param(param), got));
            }
        }
    }
    best
}

/// For each block height, the widest block that still leaves `wanted` blocks, and how many it leaves.
fn blocks(shape: &Shape, wanted: usize) -> impl Iterator<Item = (Vec<u8>, usize)> {
    let dims: Vec<usize> = shape.iter().copied().collect();
    let (cols, rows) = (
        dims.last().copied().unwrap_or(1),
        if dims.len() > 1 { dims[dims.len() - 2] } else { 1 },
    );
    let lead: usize = dims.iter().rev().skip(2).product();
    let flat = dims.len() < 2;
    (1..=rows.clamp(1, MAX_BLOCK)).filter_map(move |height| {
        let bands = lead * rows.div_ceil(height);
        let across = wanted.div_ceil(bands.max(1)).max(1);
        // ceil(cols / width) ≥ across  ⇔  width < cols / (across − 1)
        let width = if across == 1 {
            cols
        } else {
            cols.div_ceil(across - 1).saturating_sub(1)
        }
        .min(MAX_BLOCK);
        let block = if flat {
            vec![width as u8]
        } else {
            vec![height as u8, width as u8]
        };
        (width > 0).then(|| (block, bands * cols.div_ceil(width)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_every_length_with_little_padding() {
        for (rows, cols) in [(256, 1024), (1024, 256), (300, 24), (64, 64), (33, 1000)] {
            let shape = Shape::new([rows, cols]);
            for bits in 1..=8 {
                let length = rows * cols * bits / 8 + 700;
                let (scheme, got) = carrier(&shape, length).unwrap();
                assert!(
                    got >= length && got <= length + length / 5 + 64,
                    "{rows}x{cols}, {bits} bits: {length} in {got}"
                );
                assert!(scheme.store == QuantStore::Native);
                assert!(!(scheme.value == QuantValue::E4M3 && scheme.param == QuantParam::F32));
            }
        }
    }

    #[test]
    fn too_small_a_tensor_has_none() {
        assert!(carrier(&Shape::new([2, 3]), 400).is_none());
        assert!(carrier(&Shape::new([0, 3]), 400).is_none());
    }
}
