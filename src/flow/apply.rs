//! `quantize`: a plan, a check of every weight, then the change, one layer at a time.

use super::config::Config;
use super::layer::{Layer, Walk, keep_ints_and_bools};
use super::plan::{Plan, Verdict};
use super::report::{LayerReport, Report};
use super::weight::{Held, HostWeight, expected, held, kernel_name, note, quantized_param};
use crate::backend::{QTensor, Quantized};
use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::kernels::QuantKernels;
use crate::kernels::dtypes::burn_dtype;
use crate::spec::ActivationQuantization;
use crate::tensor::AffineQuantizedTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_backend::Backend;
use burn_backend::tensor::{Device, FloatTensor};
use core::fmt;
use core::marker::PhantomData;

/// An error of a flow, with the module as it came: nobody loses a trained model to a bad config.
pub struct FlowError<M> {
    module: Box<M>,
    error: Box<QuantError>,
}

impl<M> FlowError<M> {
    pub(crate) fn new(module: M, error: QuantError) -> Self {
        Self {
            module: Box::new(module),
            error: Box::new(error),
        }
    }

    /// What was wrong.
    pub fn error(&self) -> &QuantError {
        &self.error
    }

    /// The module, unchanged.
    pub fn into_module(self) -> M {
        *self.module
    }
}

impl<M> fmt::Debug for FlowError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowError({:?})", self.error)
    }
}

impl<M> fmt::Display for FlowError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<M> core::error::Error for FlowError<M> {}

impl<M> From<FlowError<M>> for QuantError {
    fn from(error: FlowError<M>) -> Self {
        *error.error
    }
}

/// Quantizes the layers of `module` that `config` chooses, and says what became of each layer.
///
/// Works layer by layer; a parameter that stays in float is handed on untouched (id, `require_grad`, mappers).
///
/// Errors (with the module as it came): those of [`plan`](super::plan()), and NaN or infinity in a chosen weight.
pub fn quantize<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>, C: Config + ?Sized>(
    module: M,
    config: &C,
) -> core::result::Result<(M, Report), FlowError<M>> {
    let plan = match Plan::make(&module, config).and_then(|plan| check_finite(&module, &plan).map(|()| plan)) {
        Ok(plan) => plan,
        Err(error) => return Err(FlowError::new(module, error)),
    };
    let mut mapper = Apply {
        walk: Walk::default(),
        plan,
        at: 0,
        backend: PhantomData::<(B, K)>,
    };
    let module = module.map(&mut mapper);
    Ok((module, mapper.plan.report))
}

/// Changes the float weights of a plan, in the order in which the plan met them.
struct Apply<P> {
    walk: Walk,
    plan: Plan,
    at: usize,
    backend: PhantomData<P>,
}

impl<B: Backend, K: QuantKernels<B>> ModuleMapper<Quantized<B, K>> for Apply<(B, K)> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }

    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Quantized<B, K>, D>>,
    ) -> Param<Tensor<Quantized<B, K>, D>> {
        if D < 2 {
            return param;
        }
        let at = self.at;
        self.at += 1;
        let Verdict::Quantize(recipe) = &self.plan.verdicts[at] else {
            return param;
        };
        let tensor = param.val();
        let layer = self.walk.layer(&tensor.dims());
        let Held::Float(tensor) = held(tensor) else {
            return param;
        };
        let row = &mut self.plan.report.layers[at];
        let quantized = quantize_layer::<B, K>(tensor, &layer, recipe.activation, row, |weight| {
            AffineQuantizedTensor::quantize(&weight.values, weight.dtype, &weight.shape, &recipe.weight)
        });
        match quantized {
            Some(tensor) => quantized_param(param, tensor),
            None => param,
        }
    }

    keep_ints_and_bools!();
}

/// Quantizes the weight of a layer and fills in its row of the report.
///
/// `None` leaves the layer as it is, with the reason in the row. After a plan and [`check_finite`], only a device that fails between two reads
/// is left as one.
pub(crate) fn quantize_layer<B: Backend, K: QuantKernels<B>>(
    tensor: FloatTensor<B>,
    layer: &Layer,
    activation: ActivationQuantization,
    row: &mut LayerReport,
    quantize: impl FnOnce(&HostWeight) -> Result<AffineQuantizedTensor>,
) -> Option<QTensor<B, K>> {
    let device = B::float_device(&tensor);
    let quantized = HostWeight::read::<B>(tensor, layer).and_then(|weight| Ok((quantize(&weight)?, weight)));
    match quantized {
        Ok((quantized, weight)) => {
            row.sqnr_db = Some(weight.sqnr_db(&quantized));
            row.bytes_after = quantized.bytes();
            let dtype = weight.dtype;
            drop(weight);
            let tensor = place(quantized, activation, layer, device, dtype);
            (row.kernel, row.skipped) = (kernel_name(&tensor), None);
            row.note = note(expected(&tensor, layer.logical_shape()[0]));
            Some(tensor)
        }
        Err(error) => {
            (row.kernel, row.bytes_after, row.skipped) = (None, row.bytes_before, Some(error.to_string()));
            None
        }
    }
}

/// A quantized weight as the tensor of its layer.
pub(crate) fn place<B: Backend, K: QuantKernels<B>>(
    quantized: AffineQuantizedTensor,
    activation: ActivationQuantization,
    layer: &Layer,
    device: Device<B>,
    dtype: FloatDtype,
) -> QTensor<B, K> {
    let activation = layer.activation(activation);
    QTensor::from_weight(
        quantized,
        activation,
        layer.label(),
        layer.transposed(),
        device,
        burn_dtype(dtype),
    )
}

/// Reads every weight that the plan chose. Errors: the first NaN or infinity.
pub(crate) fn check_finite<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
    module: &M,
    plan: &Plan,
) -> Result<()> {
    let mut check = Check {
        walk: Walk::default(),
        plan,
        at: 0,
        result: Ok(()),
        backend: PhantomData::<(B, K)>,
    };
    module.visit(&mut check);
    check.result
}

struct Check<'a, P> {
    walk: Walk,
    plan: &'a Plan,
    at: usize,
    result: Result<()>,
    backend: PhantomData<P>,
}

impl<B: Backend, K: QuantKernels<B>> ModuleVisitor<Quantized<B, K>> for Check<'_, (B, K)> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Quantized<B, K>, D>>) {
        if D < 2 {
            return;
        }
        let at = self.at;
        self.at += 1;
        if self.result.is_err() || matches!(self.plan.verdicts[at], Verdict::Leave) {
            return;
        }
        let tensor = param.val();
        let layer = self.walk.layer(&tensor.dims());
        if let Held::Float(tensor) = held(tensor) {
            self.result = HostWeight::read::<B>(tensor, &layer).map(drop);
        }
    }
}
