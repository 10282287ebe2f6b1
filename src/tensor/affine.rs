//! The affine quantized tensor: codes, scales and zero points over a grid of blocks.

use super::pieces;
use crate::dtype::pack::PackedRows;
use crate::dtype::{FloatDtype, IntDtype};
use crate::error::{QuantError, Result};
use crate::primitives::{self, Affine, QParams, ZeroPoints};
use crate::spec::{AffineSpec, BlockGrid};

/// `x ≈ (code − zero_point) · scale`, block by block (torchao's `AffineQuantizedTensor`).
///
/// Whatever takes a *weight* reads it as `[N, K]`, N outputs by K reduced inputs, as torch stores it; other tensors may have any rank.
/// Codes rest as one bit stream a row, offset so that `quant dtype min` is 0.
#[derive(Clone, PartialEq, Debug)]
pub struct AffineQuantizedTensor {
    parts: AffineParts,
    grid: BlockGrid,
    codes: PackedRows,
}

/// The parts of an [`AffineQuantizedTensor`] other than its codes, listed once: whoever builds, stores or reads one goes through this.
#[derive(Clone, PartialEq, Debug)]
pub struct AffineParts {
    /// Logical shape.
    pub shape: Vec<usize>,
    /// Elements along each dim that share a scale; see [`BlockGrid`] for the tail rule.
    pub block_size: Vec<usize>,
    /// Dtype of a code.
    pub dtype: IntDtype,
    /// Smallest code in use.
    pub quant_min: i32,
    /// Largest code in use.
    pub quant_max: i32,
    /// Scales, one a block.
    pub scale: Vec<f32>,
    /// Dtype that every scale is representable in.
    pub scale_dtype: FloatDtype,
    /// Zero points, one a block.
    pub zero_point: ZeroPoints,
    /// Dtype that a float zero point is representable in.
    pub zero_point_dtype: FloatDtype,
}

impl AffineParts {
    /// Bytes of the packed codes: one bit stream a row.
    pub fn packed_bytes(&self) -> usize {
        let (rows, cols) = rows_and_cols(&self.shape);
        rows * PackedRows::row_bytes(self.dtype.bits(), cols)
    }

    /// Bytes at rest: packed codes, scales in their dtype, integer zero points as one byte, float ones in their dtype.
    pub fn bytes(&self) -> usize {
        let zeros = match &self.zero_point {
            ZeroPoints::None => 0,
            ZeroPoints::Int(zero) => zero.len(),
            ZeroPoints::Float(zero) => zero.len() * self.zero_point_dtype.size(),
        };
        self.packed_bytes() + self.scale.len() * self.scale_dtype.size() + zeros
    }

    /// The middle code `(quant_min + quant_max + 1) / 2`, whose value a float zero point is.
    pub fn mid(&self) -> i32 {
        (self.quant_min + self.quant_max + 1).div_euclid(2)
    }

    /// These scales and zero points over `grid`, as the primitives take them.
    pub fn affine<'a>(&'a self, grid: &'a BlockGrid) -> Affine<'a> {
        Affine {
            grid,
            scale: &self.scale,
            scale_dtype: self.scale_dtype,
            zero_point: &self.zero_point,
            zero_point_dtype: self.zero_point_dtype,
            quant_min: self.quant_min,
            quant_max: self.quant_max,
        }
    }

    /// Whether these are the parts of a tensor over `grid`: a range of the dtype, a finite scale and a zero point in range for each block.
    fn check(&self, grid: &BlockGrid) -> Result<()> {
        let (low, high) = (self.quant_min, self.quant_max);
        if low >= high || low < self.dtype.min() || high > self.dtype.max() {
            return Err(QuantError::InvalidRange {
                dtype: self.dtype.to_string(),
                quant_min: low,
                quant_max: high,
                min: self.dtype.min(),
                max: self.dtype.max(),
            });
        }
        let zeros = match &self.zero_point {
            ZeroPoints::None => grid.len(),
            ZeroPoints::Int(zero) => zero.len(),
            ZeroPoints::Float(zero) => zero.len(),
        };
        for (what, got) in [("scales", self.scale.len()), ("zero points", zeros)] {
            if got != grid.len() {
                return Err(mismatch(&format!("{what} of a quantized tensor"), grid.len(), got));
            }
        }
        check_finite("the scales", &self.scale)?;
        match &self.zero_point {
            ZeroPoints::None => Ok(()),
            ZeroPoints::Float(zero) => check_finite("the zero points", zero),
            ZeroPoints::Int(zero) => match zero.iter().find(|zero| !(low..=high).contains(*zero)) {
                Some(zero) => Err(QuantError::InvalidSpec(format!(
                    "zero point {zero} lies outside {low}..={high}"
                ))),
                None => Ok(()),
            },
        }
    }
}

impl AffineQuantizedTensor {
    /// Quantizes `input` of `shape` (row-major, values of `input_dtype`) as `spec` says.
    ///
    /// Errors: a spec that does not fit, a wrong number of values, NaN or infinity (named by index).
    pub fn quantize(input: &[f32], input_dtype: FloatDtype, shape: &[usize], spec: &AffineSpec) -> Result<Self> {
        spec.validate()?;
        check_input(input, shape)?;
        let params = primitives::choose_qparams_affine(input, input_dtype, shape, spec)?;
        Self::quantize_with(input, input_dtype, shape, spec, params)
    }

    /// Quantizes `input` with scales and zero points that were chosen elsewhere (calibration, HQQ).
    ///
    /// Errors: as [`AffineQuantizedTensor::quantize`], or parameters that do not match the grid, are not finite or out of range.
    pub fn quantize_with(
        input: &[f32],
        input_dtype: FloatDtype,
        shape: &[usize],
        spec: &AffineSpec,
        params: QParams,
    ) -> Result<Self> {
        spec.validate()?;
        check_input(input, shape)?;
        let block_size = spec.granularity.block_size(shape)?;
        let grid = BlockGrid::new(shape, &block_size)?;
        let parts = AffineParts {
            shape: shape.to_vec(),
            block_size,
            dtype: spec.dtype,
            quant_min: spec.quant_min,
            quant_max: spec.quant_max,
            scale: params.scale,
            scale_dtype: spec.scale_dtype.unwrap_or(input_dtype),
            zero_point: params.zero_point,
            zero_point_dtype: spec.zero_point_dtype.unwrap_or(input_dtype),
        };
        parts.check(&grid)?;
        if shape.len() == 2 {
            let codes = pieces::quantize(input, input_dtype, &parts);
            return Self::from_packed(parts, codes);
        }
        let codes = primitives::quantize_affine(input, input_dtype, &parts.affine(&grid));
        Self::from_codes(parts, &codes)
    }

    /// Builds a tensor from parts and its codes (row-major, one an element).
    ///
    /// Errors: parts that do not match each other, a scale that is not finite, a zero point out of range, or a code outside the dtype.
    pub fn from_codes(parts: AffineParts, codes: &[i32]) -> Result<Self> {
        let (min, max) = (parts.dtype.min(), parts.dtype.max());
        let elements: usize = parts.shape.iter().product();
        if codes.len() != elements {
            return Err(QuantError::ShapeMismatch {
                what: "codes of a quantized tensor".into(),
                expected: parts.shape.clone(),
                got: vec![codes.len()],
            });
        }
        if let Some(code) = codes.iter().find(|code| !(min..=max).contains(*code)) {
            return Err(QuantError::InvalidSpec(format!(
                "code {code} does not fit {}",
                parts.dtype
            )));
        }
        let (rows, cols) = rows_and_cols(&parts.shape);
        let packed = PackedRows::pack(
            parts.dtype.bits(),
            rows,
            cols,
            codes.iter().map(|code| (code - min) as u8),
        );
        Self::from_packed(parts, packed.into_bytes())
    }

    /// Builds a tensor from parts and the bytes that [`AffineQuantizedTensor::packed_codes`] gave.
    ///
    /// Errors: parts or bytes that do not match each other, a scale that is not finite, or a zero point out of range.
    pub fn from_packed(parts: AffineParts, bytes: Vec<u8>) -> Result<Self> {
        let grid = BlockGrid::new(&parts.shape, &parts.block_size)?;
        parts.check(&grid)?;
        let (rows, cols) = rows_and_cols(&parts.shape);
        let (bits, got) = (parts.dtype.bits(), bytes.len());
        let codes = PackedRows::from_bytes(bits, rows, cols, bytes)
            .ok_or_else(|| mismatch("bytes of packed codes", rows * PackedRows::row_bytes(bits, cols), got))?;
        Ok(Self { parts, grid, codes })
    }

    /// Everything but the codes.
    pub fn parts(&self) -> &AffineParts {
        &self.parts
    }

    /// Logical shape.
    pub fn shape(&self) -> &[usize] {
        &self.parts.shape
    }

    /// The blocks that share a scale.
    pub fn grid(&self) -> &BlockGrid {
        &self.grid
    }

    /// The codes at rest: one bit stream a row, `code − dtype.min()`.
    pub fn packed_codes(&self) -> &PackedRows {
        &self.codes
    }

    /// The codes, row-major, one an element.
    pub fn codes(&self) -> Vec<i32> {
        let min = self.parts.dtype.min();
        self.codes.unpack().into_iter().map(|code| code as i32 + min).collect()
    }

    /// The values, row-major, representable in `dtype`.
    pub fn dequantize(&self, dtype: FloatDtype) -> Vec<f32> {
        primitives::dequantize_affine(&self.codes(), &self.affine(), dtype)
    }

    /// Scales, zero points and blocks, as the primitives take them.
    pub fn affine(&self) -> Affine<'_> {
        self.parts.affine(&self.grid)
    }

    /// Bytes at rest; see [`AffineParts::bytes`].
    pub fn bytes(&self) -> usize {
        self.parts.bytes()
    }
}

fn mismatch(what: &str, expected: usize, got: usize) -> QuantError {
    QuantError::ShapeMismatch {
        what: what.into(),
        expected: vec![expected],
        got: vec![got],
    }
}

/// As many values as the shape has elements, all finite.
fn check_input(input: &[f32], shape: &[usize]) -> Result<()> {
    if input.len() != shape.iter().product::<usize>() {
        return Err(QuantError::ShapeMismatch {
            what: "values of a tensor".into(),
            expected: shape.to_vec(),
            got: vec![input.len()],
        });
    }
    check_finite("the tensor", input)
}

fn check_finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(QuantError::NonFinite {
            what: what.into(),
            index,
            value: values[index].to_string(),
        }),
        None => Ok(()),
    }
}

/// A tensor as rows along its last dim; a scalar is one row of one element.
fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((cols, lead)) => (lead.iter().product(), *cols),
        None => (1, 1),
    }
}
