//! The CubeCL kernels as custom operations on the stream of Burn's fusion.
//!
//! A packed weight is a constant of the operation: its memory never joins the stream's tensors, so only activations are tracked.

use super::cube::CubeWeight;
use super::cube_backend as tensors;
use super::{Native, QuantKernels, Unsupported};
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionHandle, FusionTensor};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, OperationOutput, TensorIr};
use burn_std::{DType, FloatDType, Shape};
use core::marker::PhantomData;

type Tensor<R> = FusionTensor<FusionCubeRuntime<R>>;

impl<R, F, I, BT> QuantKernels<Fusion<CubeBackend<R, F, I, BT>>> for Native
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

    fn linear(x: Tensor<R>, weight: &CubeWeight<R>, bias: Option<Tensor<R>>) -> Tensor<R> {
        let [n, k] = weight.shape();
        let shape = replaced_last("linear", &x.shape, k, n);
        let dtype = x.dtype;
        let inputs: Vec<_> = core::iter::once(x).chain(bias).collect();
        register::<CubeBackend<R, F, I, BT>, R>(inputs, shape, dtype, weight, Call::Linear)
    }

    fn linear_transposed(g: Tensor<R>, weight: &CubeWeight<R>) -> Tensor<R> {
        let [n, k] = weight.shape();
        let shape = replaced_last("linear_transposed", &g.shape, n, k);
        let dtype = g.dtype;
        register::<CubeBackend<R, F, I, BT>, R>(vec![g], shape, dtype, weight, Call::LinearTransposed)
    }

    fn gather(weight: &CubeWeight<R>, indices: Tensor<R>, dtype: FloatDType) -> Tensor<R> {
        let mut shape = indices.shape.to_vec();
        shape.push(weight.shape()[1]);
        register::<CubeBackend<R, F, I, BT>, R>(vec![indices], shape.into(), dtype.into(), weight, Call::Gather(dtype))
    }
}

/// Which function of [`tensors`] runs.
#[derive(Clone, Copy, Debug)]
enum Call {
    Linear,
    LinearTransposed,
    Gather(FloatDType),
}

impl Call {
    fn id(self) -> &'static str {
        match self {
            Self::Linear => "quantized_linear",
            Self::LinearTransposed => "quantized_linear_transposed",
            Self::Gather(_) => "quantized_gather",
        }
    }
}

#[derive(Debug)]
struct Quantized<B, R: CubeRuntime> {
    ir: CustomOpIr,
    weight: CubeWeight<R>,
    call: Call,
    backend: PhantomData<fn() -> B>,
}

impl<R, F, I, BT> Operation<FusionCubeRuntime<R>> for Quantized<CubeBackend<R, F, I, BT>, R>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    fn execute(&self, handles: &mut HandleContainer<FusionHandle<FusionCubeRuntime<R>>>) {
        let mut inputs = self.ir.inputs.iter().map(|input| -> CubeTensor<R> {
            match self.call {
                Call::Gather(_) => handles.get_int_tensor::<CubeBackend<R, F, I, BT>>(input),
                _ => handles.get_float_tensor::<CubeBackend<R, F, I, BT>>(input),
            }
        });
        let x = inputs.next().expect("an operation has an input");
        let bias = inputs.next();
        let y = match self.call {
            Call::Linear => tensors::linear(x, &self.weight, bias),
            Call::LinearTransposed => tensors::linear_transposed(x, &self.weight),
            Call::Gather(dtype) => tensors::gather(&self.weight, x, dtype),
        };
        handles.register_float_tensor::<CubeBackend<R, F, I, BT>>(&self.ir.outputs[0].id, y);
    }
}

fn register<B, R: CubeRuntime>(
    inputs: Vec<Tensor<R>>,
    shape: Shape,
    dtype: DType,
    weight: &CubeWeight<R>,
    call: Call,
) -> Tensor<R>
where
    B: 'static,
    Quantized<B, R>: Operation<FusionCubeRuntime<R>>,
{
    let client = inputs[0].client.clone();
    let streams = OperationStreams::with_inputs(inputs.iter());
    let output = TensorIr::uninit(client.create_empty_handle(), shape, dtype);
    let inputs: Vec<TensorIr> = inputs.into_iter().map(FusionTensor::into_ir).collect();
    let ir = CustomOpIr::new(call.id(), &inputs, &[output]);
    let operation = Quantized::<B, R> {
        ir: ir.clone(),
        weight: weight.clone(),
        call,
        backend: PhantomData,
    };
    client.register(streams, OperationIr::Custom(ir), operation).output()
}

/// `shape` with its last dim, which must be `from`, replaced by `to`.
///
/// # Panics
/// If it is another: here, not on the stream's thread.
fn replaced_last(op: &str, shape: &Shape, from: usize, to: usize) -> Shape {
    let mut dims = shape.to_vec();
    match dims.last_mut() {
        Some(last) if *last == from => *last = to,
        _ => panic!("{op}: a tensor of shape {dims:?} meets a quantized weight that takes {from} values a row"),
    }
    dims.into()
}
