//! The products: integer where the activation is quantized and the weight has integer codes, else float.

use crate::dtype::FloatDtype;
use crate::kernels::dtypes::float_dtype;
use crate::kernels::portable::activation::{self, Codes};
use crate::kernels::portable::panel::Panels;
use crate::kernels::portable::{PortableWeight, ops};
use crate::tensor::AffineQuantizedTensor;
use burn_backend::tensor::{BoolTensor, Device, FloatTensor, IntTensor};
use burn_backend::{Backend, TensorData, TensorMetadata, get_device_settings, read_sync};
use burn_std::{DType, FloatDType, IntDType, Shape};

/// Integers up to here are exact in f32, and so is any sum of products whose magnitudes add up to no more.
const EXACT: usize = 1 << 24;

/// `y[.., N] = x[.., K] · Wᵀ + bias` in the dtype of `x`.
pub(super) fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: &PortableWeight,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let panels = Panels::new(&weight.weight);
    let rows = Rows::<B>::new("linear", &x, panels.k, panels.n);
    if rows.output.num_elements() == 0 {
        return B::float_zeros(rows.output, &rows.device, rows.dtype.into());
    }
    if panels.k == 0 {
        let y = ops::zeros::<B>([rows.count, panels.n], &rows.device);
        return rows.finish(rows.add_bias(y, bias));
    }
    let t = float_dtype(rows.dtype);
    let x = rows.matrix(x, panels.k);
    let not_finite = ops::not_finite::<B>(&x);
    let y = match activation::quantize::<B>(x.clone(), &not_finite, t, &weight.activation) {
        None => float_product::<B>(x, &panels, t, &rows.device),
        Some(x) => match (panels.has_integers(), panels.per_row()) {
            (true, true) if weight.activation.is_signed() => per_row::<B>(&x, &panels, t, &rows.device),
            (true, true) => per_row::<B>(&x.centered(), &panels, t, &rows.device),
            (true, false) => grouped::<B>(&x.centered(), &panels, rows.count, &rows.device),
            (false, _) => float_product::<B>(x.dequantize(t), &panels, t, &rows.device),
        },
    };
    let nan = ops::constant::<B>(f32::NAN, &rows.device);
    rows.finish(ops::choose::<B>(not_finite, nan, rows.add_bias(y, bias)))
}

/// `y[.., K] = g[.., N] · W` in the dtype of `g`; weight values and sums are f32.
pub(super) fn linear_transposed<B: Backend>(g: FloatTensor<B>, weight: &AffineQuantizedTensor) -> FloatTensor<B> {
    let panels = Panels::new(weight);
    let rows = Rows::<B>::new("linear_transposed", &g, panels.n, panels.k);
    if rows.output.num_elements() == 0 || panels.n == 0 {
        return B::float_zeros(rows.output, &rows.device, rows.dtype.into());
    }
    let g = rows.matrix(g, panels.n);
    let mut sum: Option<FloatTensor<B>> = None;
    for outputs in panels.rows(panels.k) {
        let values = panels.values(outputs.clone(), 0..panels.k, FloatDtype::F32);
        let w = ops::matrix::<B>(values, outputs.len(), panels.k, &rows.device);
        let part = B::float_matmul(ops::columns::<B>(&g, outputs), w);
        sum = Some(match sum {
            Some(sum) => B::float_add(sum, part),
            None => part,
        });
    }
    rows.finish(sum.expect("there is an output"))
}

/// The dequantized rows `indices[..]`, `[.., K]` in `dtype`.
///
/// # Panics
/// If an index is no row of the weight.
pub(super) fn gather<B: Backend>(
    weight: &AffineQuantizedTensor,
    indices: IntTensor<B>,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let panels = Panels::new(weight);
    let device = B::int_device(&indices);
    let mut shape = indices.shape().to_vec();
    shape.push(panels.k);
    let shape = Shape::from(shape);
    if shape.num_elements() == 0 {
        return B::float_zeros(shape, &device, dtype);
    }
    let indices = read_sync(B::int_into_data(indices)).unwrap_or_else(|error| panic!("gather: {error}"));
    let t = float_dtype(dtype.into());
    let mut values = Vec::with_capacity(shape.num_elements());
    for index in indices.iter::<i64>() {
        let row = usize::try_from(index).ok().filter(|row| *row < panels.n);
        let row = row.unwrap_or_else(|| panic!("gather: index {index}, but the weight has {} rows", panels.n));
        values.extend(panels.values(row..row + 1, 0..panels.k, t));
    }
    let rows = values.len() / panels.k;
    let values = ops::matrix::<B>(values, rows, panels.k, &device);
    B::float_cast(B::float_reshape(values, shape), dtype)
}

/// Weight-only.
///
/// ```text
/// one scale a row, integer codes    t = T(Σ_k x · (code − z)),  y = T(t · T(scale))
/// groups, integer codes             y = Σ_k x · value,  values in f32
/// float zero points                 y = Σ_k x · value,  values in T
/// ```
fn float_product<B: Backend>(x: FloatTensor<B>, panels: &Panels, t: FloatDtype, device: &Device<B>) -> FloatTensor<B> {
    let scaled_after = panels.per_row() && panels.has_integers();
    let dtype = if panels.has_integers() { FloatDtype::F32 } else { t };
    let parts = panels.rows(panels.k).map(|outputs| {
        let count = outputs.len();
        let values = match scaled_after {
            true => panels.integers(outputs.clone(), 0..panels.k),
            false => panels.values(outputs.clone(), 0..panels.k, dtype),
        };
        let y = ops::product::<B>(x.clone(), ops::matrix::<B>(values, count, panels.k, device));
        if !scaled_after {
            return y;
        }
        let scales = panels
            .scales(outputs, 0)
            .into_iter()
            .map(|scale| t.round(scale))
            .collect();
        let y = B::float_mul(ops::round_to::<B>(y, t), ops::matrix::<B>(scales, 1, count, device));
        ops::round_to::<B>(y, t)
    });
    concatenate::<B>(parts.collect())
}

/// Integer product with one scale a row.
///
/// ```text
/// acc = Σ_k x_code · (w_code − zw)
/// t = T(f32(acc) · sx)
/// t = T(t − T((f32(zx) · sx) · f32(Σ_k (w_code − zw))))     with zero points of x
/// t = 0                                                     where acc = zx · Σ_k (w_code − zw)
/// y = t · sw
/// ```
fn per_row<B: Backend>(x: &Codes<B>, panels: &Panels, t: FloatDtype, device: &Device<B>) -> FloatTensor<B> {
    let chunk = chunk(x.largest, panels).min(panels.k);
    let parts = panels.rows(chunk).map(|outputs| {
        let count = outputs.len();
        let mut acc = Accumulator::<B>::default();
        let mut sums = vec![0i64; count];
        for start in (0..panels.k).step_by(chunk) {
            let columns = start..panels.k.min(start + chunk);
            let values = panels.integers(outputs.clone(), columns.clone());
            for (sum, row) in sums.iter_mut().zip(values.chunks_exact(columns.len())) {
                *sum += row.iter().map(|value| *value as i64).sum::<i64>();
            }
            let w = ops::matrix::<B>(values, count, columns.len(), device);
            acc.add(ops::product::<B>(ops::columns::<B>(&x.codes, columns), w));
        }
        let is_zero = x.zero_point.as_ref().map(|zero| acc.equals(zero, &sums, device));
        let mut y = ops::round_to::<B>(B::float_mul(acc.into_float(), x.scale.clone()), t);
        if let (Some(zero), Some(is_zero)) = (&x.zero_point, is_zero) {
            let sums = ops::matrix::<B>(sums.into_iter().map(|sum| sum as f32).collect(), 1, count, device);
            let shift = B::float_mul(B::float_mul(zero.clone(), x.scale.clone()), sums);
            let shifted = ops::round_to::<B>(B::float_sub(y, ops::round_to::<B>(shift, t)), t);
            y = ops::choose::<B>(is_zero, ops::constant::<B>(0.0, device), shifted);
        }
        B::float_mul(y, ops::matrix::<B>(panels.scales(outputs, 0), 1, count, device))
    });
    concatenate::<B>(parts.collect())
}

/// Integer products group by group, in the order of K.
///
/// ```text
/// sum = 0;   for each group:   sum = sum + f32(Σ_k x_code · (w_code − zw)) · scale
/// y = sum · sx
/// ```
/// The codes of `x` are centered.
fn grouped<B: Backend>(x: &Codes<B>, panels: &Panels, rows: usize, device: &Device<B>) -> FloatTensor<B> {
    let chunk = chunk(x.largest, panels).min(panels.group);
    let parts = panels.rows(chunk).map(|outputs| {
        let count = outputs.len();
        let mut sum = ops::zeros::<B>([rows, count], device);
        for group in (0..panels.k).step_by(panels.group) {
            let end = panels.k.min(group + panels.group);
            let mut acc = Accumulator::<B>::default();
            for start in (group..end).step_by(chunk) {
                let columns = start..end.min(start + chunk);
                let values = panels.integers(outputs.clone(), columns.clone());
                let w = ops::matrix::<B>(values, count, columns.len(), device);
                acc.add(ops::product::<B>(ops::columns::<B>(&x.codes, columns), w));
            }
            let scales = ops::matrix::<B>(panels.scales(outputs.clone(), group), 1, count, device);
            sum = B::float_add(sum, B::float_mul(acc.into_float(), scales));
        }
        B::float_mul(sum, x.scale.clone())
    });
    concatenate::<B>(parts.collect())
}

/// How many columns a float product of codes may have and stay exact.
fn chunk(largest_activation: i32, panels: &Panels) -> usize {
    (EXACT / (largest_activation.max(1) as usize * panels.largest_integer())).max(1)
}

fn concatenate<B: Backend>(mut parts: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match parts.len() {
        1 => parts.remove(0),
        _ => B::float_cat(parts, 1),
    }
}

/// The backend's own 64-bit integers, or its 32-bit ones: these hold any int8 product of K up to 2^17.
fn int_dtype<B: Backend>(device: &Device<B>) -> IntDType {
    match get_device_settings::<B>(device).int_dtype {
        IntDType::I64 => IntDType::I64,
        _ => IntDType::I32,
    }
}

/// An exact sum of exact float products: one stays a float, more are integers.
#[derive(Default)]
enum Accumulator<B: Backend> {
    #[default]
    Empty,
    Float(FloatTensor<B>),
    Int(IntTensor<B>),
}

impl<B: Backend> Accumulator<B> {
    fn add(&mut self, part: FloatTensor<B>) {
        *self = match core::mem::take(self) {
            Self::Empty => Self::Float(part),
            Self::Float(sum) => Self::Int(B::int_add(Self::integers(sum), Self::integers(part))),
            Self::Int(sum) => Self::Int(B::int_add(sum, Self::integers(part))),
        };
    }

    /// Where the sum is `zero · sums`: `zero` is `[M, 1]` or `[1, 1]`, there is a sum for each column.
    fn equals(&self, zero: &FloatTensor<B>, sums: &[i64], device: &Device<B>) -> BoolTensor<B> {
        let dtype = get_device_settings::<B>(device).bool_dtype;
        let shape = [1, sums.len()];
        match self {
            Self::Empty => unreachable!("a product has at least one column"),
            // The sum is exact in f32, so this product of the same bound is too.
            Self::Float(sum) => {
                let sums = TensorData::new(sums.iter().map(|sum| *sum as f32).collect(), shape);
                let sums = B::float_mul(zero.clone(), B::float_from_data(sums, device));
                B::float_equal(sum.clone(), B::float_expand(sums, sum.shape()), dtype)
            }
            Self::Int(sum) => {
                let zero = B::float_into_int(zero.clone(), int_dtype::<B>(device));
                let sums = TensorData::new(sums.to_vec(), shape).convert_dtype(int_dtype::<B>(device).into());
                let sums = B::int_mul(zero, B::int_from_data(sums, device));
                B::int_equal(sum.clone(), B::int_expand(sums, sum.shape()), dtype)
            }
        }
    }

    fn integers(part: FloatTensor<B>) -> IntTensor<B> {
        let dtype = int_dtype::<B>(&B::float_device(&part));
        B::float_into_int(part, dtype)
    }

    fn into_float(self) -> FloatTensor<B> {
        match self {
            Self::Empty => unreachable!("a product has at least one column"),
            Self::Float(sum) => sum,
            Self::Int(sum) => B::int_into_float(sum, FloatDType::F32),
        }
    }
}

/// The leading dims of a product's input, flattened to rows.
struct Rows<B: Backend> {
    count: usize,
    output: Shape,
    dtype: DType,
    device: Device<B>,
}

impl<B: Backend> Rows<B> {
    /// # Panics
    /// If the last dim of `x` is not `input`.
    fn new(op: &str, x: &FloatTensor<B>, input: usize, output: usize) -> Self {
        let mut shape = x.shape().to_vec();
        assert_eq!(
            shape.last(),
            Some(&input),
            "{op}: an input of shape {shape:?} does not meet a weight that reduces {input} values to {output}"
        );
        *shape.last_mut().expect("checked above") = output;
        Self {
            count: shape[..shape.len() - 1].iter().product(),
            output: shape.into(),
            dtype: x.dtype(),
            device: B::float_device(x),
        }
    }

    /// `x` as an f32 matrix.
    fn matrix(&self, x: FloatTensor<B>, columns: usize) -> FloatTensor<B> {
        let x = B::float_reshape(x, [self.count, columns].into());
        B::float_cast(x, FloatDType::F32)
    }

    /// `y + bias` in f32.
    fn add_bias(&self, y: FloatTensor<B>, bias: Option<FloatTensor<B>>) -> FloatTensor<B> {
        let Some(bias) = bias else { return y };
        let bias = B::float_cast(bias, FloatDType::F32);
        let columns = bias.shape().num_elements();
        B::float_add(y, B::float_reshape(bias, [1, columns].into()))
    }

    /// Rounds `y[M, N]` to the dtype of the input and gives it its shape.
    fn finish(&self, y: FloatTensor<B>) -> FloatTensor<B> {
        B::float_reshape(B::float_cast(y, self.dtype.into()), self.output.clone())
    }
}
