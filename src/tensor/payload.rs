//! A quantized weight as bytes: what a record holds. Versioned, checked part by part, independent of kernels.
//!
//! ```text
//! offset  0        7         8             12            16                 16 + h
//!         BQuantW  version   h (u32)       crc32 (u32)   header             sections: scale, zero_point, codes
//!                            length of the header, and its check            each at the length and check in the header
//! ```
//!
//! Integers are little-endian. The header is a MessagePack map (fields by name), so that a later version can add to it. Bytes after the
//! last section are padding: a carrier may need a few.

use crate::dtype::{FloatDtype, IntDtype};
use crate::error::{QuantError, Result};
use crate::primitives::ZeroPoints;
use crate::spec::ActivationQuantization;
use crate::tensor::{AffineParts, AffineQuantizedTensor};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 7] = b"BQuantW";
const VERSION: u8 = 1;
const PREFIX: usize = 16;

/// A weight and all that a record must bring back with it.
#[derive(Clone, PartialEq, Debug)]
pub struct Payload {
    /// The weight; a logical `[N, K]` for a matrix.
    pub weight: AffineQuantizedTensor,
    /// The treatment of activations that meet it.
    pub activation: ActivationQuantization,
    /// Path of the module field it belongs to.
    pub path: String,
    /// Container type as Burn names it.
    pub container: String,
    /// Whether Burn sees the last two dims of `weight` swapped.
    pub transposed: bool,
    /// The float dtype it claims when Burn asks a float.
    pub dtype: FloatDtype,
}

#[derive(Serialize, Deserialize)]
struct Header {
    path: String,
    container: String,
    transposed: bool,
    dtype: FloatDtype,
    activation: ActivationQuantization,
    shape: Vec<usize>,
    block_size: Vec<usize>,
    code_dtype: IntDtype,
    quant_min: i32,
    quant_max: i32,
    scale_dtype: FloatDtype,
    zero_point: ZeroPointKind,
    zero_point_dtype: FloatDtype,
    sections: [Section; 3],
}

#[derive(Serialize, Deserialize, PartialEq)]
enum ZeroPointKind {
    None,
    Int,
    Float,
}

#[derive(Serialize, Deserialize)]
struct Section {
    bytes: u64,
    crc32: u32,
}

const SECTIONS: [&str; 3] = ["scale", "zero_point", "codes"];

impl Payload {
    /// The payload as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let p = self.weight.parts();
        let scales = floats_to_bytes(&p.scale, p.scale_dtype);
        let zeros = match &p.zero_point {
            ZeroPoints::None => vec![],
            ZeroPoints::Int(zero) => zero.iter().map(|z| (z - p.dtype.min()) as u8).collect(),
            ZeroPoints::Float(zero) => floats_to_bytes(zero, p.zero_point_dtype),
        };
        let sections: [&[u8]; 3] = [&scales, &zeros, self.weight.packed_codes().as_bytes()];
        let header = self.header(
            self.dtype,
            sections.map(|s| Section {
                bytes: s.len() as u64,
                crc32: crc32fast::hash(s),
            }),
        );
        let mut bytes = Vec::with_capacity(PREFIX + header.len() + sections.iter().map(|s| s.len()).sum::<usize>());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        bytes.extend_from_slice(&header);
        sections.iter().for_each(|section| bytes.extend_from_slice(section));
        bytes
    }

    /// An upper bound of the bytes that [`Payload::encode`] gives, a few bytes above them: checksums are not computed for it.
    pub fn encoded_len(&self) -> usize {
        let codes = self.weight.packed_codes().as_bytes().len();
        let params = self.weight.bytes() - codes;
        let widest = |bytes: usize| Section {
            bytes: bytes as u64,
            crc32: u32::MAX,
        };
        // The claimed dtype may change after a carrier was chosen; `BF16` is the longest name.
        let header = self.header(FloatDtype::BF16, [widest(params), widest(params), widest(codes)]);
        PREFIX + header.len() + params + codes
    }

    fn header(&self, dtype: FloatDtype, sections: [Section; 3]) -> Vec<u8> {
        let p = self.weight.parts();
        let header = Header {
            path: self.path.clone(),
            container: self.container.clone(),
            transposed: self.transposed,
            dtype,
            activation: self.activation,
            shape: p.shape.clone(),
            block_size: p.block_size.clone(),
            code_dtype: p.dtype,
            quant_min: p.quant_min,
            quant_max: p.quant_max,
            scale_dtype: p.scale_dtype,
            zero_point: match p.zero_point {
                ZeroPoints::None => ZeroPointKind::None,
                ZeroPoints::Int(_) => ZeroPointKind::Int,
                ZeroPoints::Float(_) => ZeroPointKind::Float,
            },
            zero_point_dtype: p.zero_point_dtype,
            sections,
        };
        rmp_serde::to_vec_named(&header).expect("a header of plain fields serializes")
    }

    /// Whether these bytes begin as a payload of any version does.
    pub fn is_payload(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads what [`Payload::encode`] wrote, followed by any padding.
    ///
    /// Errors: [`QuantError::Record`] with the layer and the field, for a newer version, a cut-off or damaged part, or parts that do not match.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let unknown = |field, reason: String| QuantError::Record {
            layer: "?".into(),
            field,
            reason,
        };
        if !Self::is_payload(bytes) {
            return Err(unknown("magic", "not a quantized weight of this crate".into()));
        }
        let cut_off = || unknown("header", "cut off".into());
        let version = *bytes.get(7).ok_or_else(cut_off)?;
        if version != VERSION {
            let reason = format!("version {version}, this crate reads {VERSION}: load it with a newer burn-quantized");
            return Err(unknown("version", reason));
        }
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let (length, crc) = word(8).zip(word(12)).ok_or_else(cut_off)?;
        let end = PREFIX + length as usize;
        let header = bytes.get(PREFIX..end).ok_or_else(cut_off)?;
        if crc32fast::hash(header) != crc {
            return Err(unknown("header", "damaged (checksum)".into()));
        }
        let header: Header =
            rmp_serde::from_slice(header).map_err(|error| unknown("header", format!("not understood: {error}")))?;
        Self::from_header(header, &bytes[end..])
    }

    fn from_header(header: Header, mut rest: &[u8]) -> Result<Self> {
        let fail = |field, reason: &str| QuantError::Record {
            layer: header.path.clone(),
            field,
            reason: reason.into(),
        };
        let mut parts = [rest; 3];
        for ((section, field), part) in header.sections.iter().zip(SECTIONS).zip(&mut parts) {
            let length = usize::try_from(section.bytes).unwrap_or(usize::MAX);
            (*part, rest) = rest.split_at_checked(length).ok_or_else(|| fail(field, "cut off"))?;
            if crc32fast::hash(part) != section.crc32 {
                return Err(fail(field, "damaged (checksum)"));
            }
        }
        let [scale, zero, codes] = parts;
        let zero_point = match header.zero_point {
            ZeroPointKind::None => ZeroPoints::None,
            ZeroPointKind::Int => ZeroPoints::Int(zero.iter().map(|z| *z as i32 + header.code_dtype.min()).collect()),
            ZeroPointKind::Float => ZeroPoints::Float(
                bytes_to_floats(zero, header.zero_point_dtype).ok_or_else(|| fail("zero_point", "odd length"))?,
            ),
        };
        let parts = AffineParts {
            scale: bytes_to_floats(scale, header.scale_dtype).ok_or_else(|| fail("scale", "odd length"))?,
            shape: header.shape,
            block_size: header.block_size,
            dtype: header.code_dtype,
            quant_min: header.quant_min,
            quant_max: header.quant_max,
            scale_dtype: header.scale_dtype,
            zero_point,
            zero_point_dtype: header.zero_point_dtype,
        };
        let weight = AffineQuantizedTensor::from_packed(parts, codes.to_vec()).map_err(|error| QuantError::Record {
            layer: header.path.clone(),
            field: "shape",
            reason: error.to_string(),
        })?;
        Ok(Self {
            weight,
            activation: header.activation,
            path: header.path,
            container: header.container,
            transposed: header.transposed,
            dtype: header.dtype,
        })
    }
}

fn floats_to_bytes(values: &[f32], dtype: FloatDtype) -> Vec<u8> {
    match dtype {
        FloatDtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        FloatDtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        FloatDtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

fn bytes_to_floats(bytes: &[u8], dtype: FloatDtype) -> Option<Vec<f32>> {
    let chunks = bytes.chunks_exact(dtype.size());
    chunks.remainder().is_empty().then(|| match dtype {
        FloatDtype::F32 => chunks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        FloatDtype::F16 => chunks.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        FloatDtype::BF16 => chunks.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ActivationScale;

    fn payload() -> Payload {
        let parts = AffineParts {
            shape: vec![3, 5],
            block_size: vec![1, 4],
            dtype: IntDtype::UINT3,
            quant_min: 0,
            quant_max: 7,
            scale: (0..6).map(|i| 0.5 + i as f32).collect(),
            scale_dtype: FloatDtype::BF16,
            zero_point: ZeroPoints::Int(vec![0, 1, 2, 3, 4, 7]),
            zero_point_dtype: FloatDtype::F32,
        };
        let codes: Vec<i32> = (0..15).map(|i| i % 8).collect();
        Payload {
            weight: AffineQuantizedTensor::from_codes(parts, &codes).unwrap(),
            activation: ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
            path: "encoder.0.linear.weight".into(),
            container: "Struct:Linear".into(),
            transposed: true,
            dtype: FloatDtype::F32,
        }
    }

    fn field_of(bytes: &[u8]) -> (String, &'static str) {
        match Payload::decode(bytes) {
            Err(QuantError::Record { layer, field, .. }) => (layer, field),
            other => panic!("expected a record error, got {other:?}"),
        }
    }

    #[test]
    fn comes_back_bit_for_bit_with_padding() {
        let payload = payload();
        let mut bytes = payload.encode();
        bytes.extend([0; 9]);
        assert_eq!(Payload::decode(&bytes).unwrap(), payload);
        let bound = payload.encoded_len();
        assert!(bound >= payload.encode().len() && bound < payload.encode().len() + 64);
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = payload().encode();
        for length in 0..bytes.len() {
            assert!(Payload::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert_eq!(
            field_of(&bytes[..bytes.len() - 1]),
            ("encoder.0.linear.weight".into(), "codes")
        );
    }

    #[test]
    fn every_flipped_byte_is_an_error() {
        let bytes = payload().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Payload::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn errors_name_layer_and_field() {
        let bytes = payload().encode();
        let mut newer = bytes.clone();
        newer[7] = 2;
        assert_eq!(field_of(&newer), ("?".into(), "version"));
        let codes = payload().weight.packed_codes().as_bytes().len();
        let mut damaged = bytes.clone();
        damaged[bytes.len() - codes - 1] ^= 1;
        assert_eq!(field_of(&damaged), ("encoder.0.linear.weight".into(), "zero_point"));
        damaged = bytes.clone();
        damaged[bytes.len() - codes - 7] ^= 1;
        assert_eq!(field_of(&damaged), ("encoder.0.linear.weight".into(), "scale"));
    }
}
