//! Weights packed by hand, and modules whose weights are packed or replaced by what their codes say.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::{Backend, read_sync};
use burn_quantized::Quantized;
use burn_quantized::backend::{FloatPrimitive, Label, QTensor};
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::{ActivationQuantization, AffineSpec, Granularity, MappingType};
use burn_quantized::tensor::AffineQuantizedTensor;
use burn_std::FloatDType;
use std::sync::{Mutex, MutexGuard, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The counters and the random numbers of a backend belong to the process: a test that looks at either holds this.
pub fn alone() -> MutexGuard<'static, ()> {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    burn_quantized::backend::materialized::take();
    guard
}

/// int8, one scale an output.
pub fn int8() -> AffineSpec {
    AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, Granularity::PerAxis(0))
}

/// int4 with zero points in groups of 32 (and a tail).
pub fn int4() -> AffineSpec {
    AffineSpec::new(IntDtype::INT4, MappingType::Asymmetric, Granularity::PerGroup(32))
}

/// A weight `[N, K]` of values that differ.
pub fn weight(shape: [usize; 2], spec: &AffineSpec) -> AffineQuantizedTensor {
    let values: Vec<f32> = (0..shape[0] * shape[1])
        .map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 700.0)
        .collect();
    AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &shape, spec).unwrap()
}

/// A quantized tensor over `[N, K]`: Burn sees `[K, N]` when `transposed`.
pub fn pack<B: Backend, K: QuantKernels<B>>(
    weight: AffineQuantizedTensor,
    transposed: bool,
) -> Tensor<Quantized<B, K>, 2> {
    let activation = ActivationQuantization::None;
    pack_with::<B, K>(weight, activation, Label::default(), transposed)
}

/// As [`pack`], with an activation treatment and a label.
pub fn pack_with<B: Backend, K: QuantKernels<B>>(
    weight: AffineQuantizedTensor,
    activation: ActivationQuantization,
    label: Label,
    transposed: bool,
) -> Tensor<Quantized<B, K>, 2> {
    let device = B::Device::default();
    let tensor = QTensor::<B, K>::from_weight(weight, activation, label, transposed, device, FloatDType::F32);
    Tensor::from_primitive(TensorPrimitive::QFloat(tensor))
}

/// The quantized primitive of a tensor that has one.
pub fn primitive<B: Backend, K: QuantKernels<B>, const D: usize>(tensor: &Tensor<Quantized<B, K>, D>) -> QTensor<B, K> {
    match tensor.clone().into_primitive() {
        TensorPrimitive::QFloat(tensor) => tensor,
        TensorPrimitive::Float(_) => panic!("a float where a quantized tensor was expected"),
    }
}

/// Whether the tensor is a float that holds a packed weight.
pub fn is_packed_float<B: Backend, K: QuantKernels<B>, const D: usize>(tensor: &Tensor<Quantized<B, K>, D>) -> bool {
    matches!(
        tensor.clone().into_primitive(),
        TensorPrimitive::Float(FloatPrimitive::Packed(_))
    )
}

/// Parameters are drawn when first used: draws them now, so that clones of the module agree.
struct Initialize;

impl<B: Backend> ModuleVisitor<B> for Initialize {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let _ = param.val();
    }
}

/// Quantizes every weight of rank 2: an embedding's by its rows, any other by its outputs.
pub struct QuantizeAll {
    spec: AffineSpec,
    packed: bool,
    containers: Vec<String>,
    /// How many weights were quantized.
    pub weights: usize,
}

/// The module with packed weights, the same module with those weights' values in float, and how many there are.
pub fn both<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(module: M, spec: AffineSpec) -> (M, M, usize) {
    let mapper = |packed| QuantizeAll {
        spec: spec.clone(),
        packed,
        containers: Vec::new(),
        weights: 0,
    };
    module.visit(&mut Initialize);
    let mut packing = mapper(true);
    let packed = module.clone().map(&mut packing);
    (packed, module.map(&mut mapper(false)), packing.weights)
}

impl<B: Backend, K: QuantKernels<B>> ModuleMapper<Quantized<B, K>> for QuantizeAll {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.containers.pop();
    }

    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Quantized<B, K>, D>>,
    ) -> Param<Tensor<Quantized<B, K>, D>> {
        if D != 2 {
            return param;
        }
        self.weights += 1;
        let transposed = !self.containers.iter().any(|container| container == "Struct:Embedding");
        let (id, tensor, mapper) = param.consume();
        let device = tensor.device();
        let oriented = if transposed { tensor.transpose() } else { tensor };
        let shape = oriented.dims().to_vec();
        let TensorPrimitive::Float(float) = oriented.into_primitive() else {
            panic!("quantized already")
        };
        let data = read_sync(B::float_into_data(float.dense("quantize"))).unwrap();
        let values: Vec<f32> = data.iter::<f32>().collect();
        let weight = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &shape, &self.spec).unwrap();
        let tensor = if self.packed {
            let (activation, label) = (ActivationQuantization::None, Label::default());
            let tensor = QTensor::from_weight(weight, activation, label, transposed, device, FloatDType::F32);
            Tensor::from_primitive(TensorPrimitive::QFloat(tensor))
        } else {
            let data = burn::tensor::TensorData::new(weight.dequantize(FloatDtype::F32), shape);
            let dense = Tensor::<Quantized<B, K>, D>::from_data(data, &device);
            if transposed { dense.transpose() } else { dense }
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
