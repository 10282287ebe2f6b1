//! The CubeCL kernels on tensors of Burn's CubeCL backends.

use super::cube::CubeWeight;
use super::dtypes::float_dtype;
use super::{Native, QuantKernels, Unsupported};
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement, kernel};
use burn_std::{DType, FloatDType, Shape};
use cubecl::ir::ElemType;
use cubecl::server::Handle;

impl<R, F, I, BT> QuantKernels<CubeBackend<R, F, I, BT>> for Native
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    type Weight = CubeWeight<R>;

    fn pack(
        weight: AffineQuantizedTensor,
        activation: ActivationQuantization,
        device: &R::Device,
    ) -> Result<CubeWeight<R>, Box<Unsupported>> {
        CubeWeight::pack(weight, activation, R::client(device))
    }

    fn unpack(weight: &CubeWeight<R>) -> AffineQuantizedTensor {
        weight.unpack()
    }

    fn bytes(weight: &CubeWeight<R>) -> usize {
        weight.rest_bytes()
    }

    fn kernel_name(weight: &CubeWeight<R>, rows: usize) -> String {
        weight.kernel_name(rows)
    }

    fn linear(x: CubeTensor<R>, weight: &CubeWeight<R>, bias: Option<CubeTensor<R>>) -> CubeTensor<R> {
        linear(x, weight, bias)
    }

    fn linear_transposed(g: CubeTensor<R>, weight: &CubeWeight<R>) -> CubeTensor<R> {
        linear_transposed(g, weight)
    }

    fn gather(weight: &CubeWeight<R>, indices: CubeTensor<R>, dtype: FloatDType) -> CubeTensor<R> {
        gather(weight, indices, dtype)
    }
}

/// `y[.., N] = x[.., K] · Wᵀ + bias`.
///
/// # Panics
/// If the last dim of x is not K, the bias does not have N values, or the weight is on another device.
pub(super) fn linear<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: &CubeWeight<R>,
    bias: Option<CubeTensor<R>>,
) -> CubeTensor<R> {
    let [n, k] = weight.shape();
    check_device("linear", &x, weight);
    let (rows, shape) = replace_last("linear", &x, k, n);
    let (like, dtype) = (Like::new(&x, shape), float_dtype(x.dtype));
    if let Some(bias) = &bias {
        assert_eq!(bias.shape().num_elements(), n, "linear: a bias for {n} outputs");
    }
    if rows == 0 || n == 0 {
        return like.empty();
    }
    let bias = bias.map(|bias| contiguous(bias, like.compute));
    if k == 0 {
        return like.rows_of(bias.unwrap_or_else(|| like.zeros(n)));
    }
    let y = weight.linear(
        contiguous(x, like.compute).handle,
        rows,
        dtype,
        bias.map(|bias| bias.handle),
    );
    like.tensor(y)
}

/// `y[.., K] = g[.., N] · W`.
///
/// # Panics
/// If the last dim of g is not N.
pub(super) fn linear_transposed<R: CubeRuntime>(g: CubeTensor<R>, weight: &CubeWeight<R>) -> CubeTensor<R> {
    let [n, k] = weight.shape();
    check_device("linear_transposed", &g, weight);
    let (rows, shape) = replace_last("linear_transposed", &g, n, k);
    let (like, dtype) = (Like::new(&g, shape), float_dtype(g.dtype));
    if rows == 0 || k == 0 {
        return like.empty();
    }
    if n == 0 {
        return like.rows_of(like.zeros(k));
    }
    like.tensor(weight.linear_transposed(contiguous(g, like.compute).handle, rows, dtype))
}

/// `y[.., K]`: the dequantized rows `indices[..]`; NaN for a row that does not exist.
pub(super) fn gather<R: CubeRuntime>(
    weight: &CubeWeight<R>,
    indices: CubeTensor<R>,
    dtype: FloatDType,
) -> CubeTensor<R> {
    let [_, k] = weight.shape();
    check_device("gather", &indices, weight);
    let count = indices.shape().num_elements();
    let mut shape = indices.shape().to_vec();
    shape.push(k);
    let like = Like {
        dtype: dtype.into(),
        ..Like::new(&indices, shape)
    }
    .computed_in(dtype.into());
    if count == 0 || k == 0 {
        return like.empty();
    }
    let index_dtype = indices.dtype;
    let indices = contiguous(indices, index_dtype);
    let element: ElemType = index_dtype.into();
    like.tensor(weight.gather(indices.handle, count, element, float_dtype(dtype.into())))
}

fn check_device<R: CubeRuntime>(op: &str, x: &CubeTensor<R>, weight: &CubeWeight<R>) {
    assert!(
        weight.is_on(&x.client),
        "{op}: a tensor on {:?} meets a quantized weight {:?} packed on another device: move one with `to_device`",
        x.device,
        weight.shape()
    );
}

/// The number of rows, and the shape with its last dim, which must be `from`, replaced by `to`.
fn replace_last<R: CubeRuntime>(op: &str, x: &CubeTensor<R>, from: usize, to: usize) -> (usize, Vec<usize>) {
    let dims = x.shape().to_vec();
    match dims.split_last() {
        Some((last, lead)) if *last == from => (lead.iter().product(), [lead, &[to]].concat()),
        _ => panic!("{op}: a tensor of shape {dims:?} meets a quantized weight that takes {from} values a row"),
    }
}

/// Row-major values of dtype `dtype`.
fn contiguous<R: CubeRuntime>(tensor: CubeTensor<R>, dtype: DType) -> CubeTensor<R> {
    let tensor = if tensor.dtype == dtype {
        tensor
    } else {
        kernel::cast(tensor, dtype)
    };
    kernel::into_contiguous(tensor)
}

/// The result of an operation: on the device of an input, of some shape and dtype.
struct Like<R: CubeRuntime> {
    client: cubecl::client::ComputeClient<R>,
    device: R::Device,
    shape: Shape,
    dtype: DType,
    /// The dtype of the kernel: f32 for f64 and flex32.
    compute: DType,
}

impl<R: CubeRuntime> Like<R> {
    fn new(x: &CubeTensor<R>, shape: Vec<usize>) -> Self {
        Self {
            client: x.client.clone(),
            device: x.device.clone(),
            shape: shape.into(),
            dtype: x.dtype,
            compute: x.dtype,
        }
        .computed_in(x.dtype)
    }

    fn computed_in(self, dtype: DType) -> Self {
        let compute = match dtype {
            DType::F16 | DType::BF16 => dtype,
            _ => DType::F32,
        };
        Self { compute, ..self }
    }

    fn contiguous(&self, shape: Shape, handle: Handle) -> CubeTensor<R> {
        CubeTensor::new_contiguous(self.client.clone(), self.device.clone(), shape, handle, self.compute)
    }

    fn tensor(&self, handle: Handle) -> CubeTensor<R> {
        let y = self.contiguous(self.shape.clone(), handle);
        if self.dtype == self.compute {
            y
        } else {
            kernel::cast(y, self.dtype)
        }
    }

    /// Without elements: a kernel over none would be refused, so nothing is launched.
    fn empty(&self) -> CubeTensor<R> {
        let (client, device) = (self.client.clone(), self.device.clone());
        let handle = client.empty(0);
        CubeTensor::new_contiguous(client, device, self.shape.clone(), handle, self.dtype)
    }

    fn zeros(&self, count: usize) -> CubeTensor<R> {
        let handle = self.client.create_from_slice(&vec![0; count * self.compute.size()]);
        self.contiguous([count].into(), handle)
    }

    /// The same row everywhere.
    fn rows_of(&self, row: CubeTensor<R>) -> CubeTensor<R> {
        let mut y = row;
        let rank = self.shape.num_dims();
        let mut strides = vec![0; rank];
        strides[rank - 1] = 1;
        y.meta = Box::new(burn_std::Metadata::new(
            self.shape.clone(),
            burn_std::Strides::from(strides),
        ));
        let y = kernel::into_contiguous(y);
        if self.dtype == self.compute {
            y
        } else {
            kernel::cast(y, self.dtype)
        }
    }
}
