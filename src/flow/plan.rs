//! What a config would do to a module, without touching a weight.

use super::config::{Choice, Config, Recipe, check_factors};
use super::layer::{Layer, Walk};
use super::report::{LayerReport, Report};
use super::weight::{Held, PORTABLE, expected, held, kernel_name, note};
use crate::backend::{Body, QTensor, Quantized, record};
use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::kernels::dtypes::{burn_dtype, float_dtype};
use crate::kernels::{Expected, QuantKernels};
use crate::primitives::ZeroPoints;
use crate::spec::{AffineSpec, BlockGrid, ZeroPointDomain};
use crate::tensor::{AffineParts, AffineQuantizedTensor};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor};
use burn_backend::tensor::Device;
use burn_backend::{Backend, TensorMetadata};
use burn_std::Shape;
use core::marker::PhantomData;

/// What `quantize(module, config)` would do: the report without SQNR. No weight is read or changed.
///
/// Errors: settings that do not go together; in strict mode, the first layer that `config` chooses and that would stay in float or run on the
/// portable products; a module in which nothing can be chosen.
pub fn plan<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>, C: Config + ?Sized>(
    module: &M,
    config: &C,
) -> Result<Report> {
    Ok(Plan::make(module, config)?.report)
}

/// The verdict on one layer of a module.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Leave,
    Quantize(Recipe),
}

/// A report and, for each of its layers, what to do.
pub(crate) struct Plan {
    pub(crate) report: Report,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Plan {
    pub(crate) fn make<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>, C: Config + ?Sized>(
        module: &M,
        config: &C,
    ) -> Result<Self> {
        let mut planner = Planner {
            config,
            walk: Walk::default(),
            plan: Plan {
                report: Report::default(),
                verdicts: vec![],
            },
            error: None,
            integers: 0,
            backend: PhantomData::<(B, K)>,
        };
        module.visit(&mut planner);
        if let Some(error) = planner.error {
            return Err(error);
        }
        let plan = planner.plan;
        if plan.report.layers.is_empty() {
            return Err(QuantError::NothingToQuantize {
                integers: planner.integers,
            });
        }
        Ok(plan)
    }
}

struct Planner<'a, C: ?Sized, P> {
    config: &'a C,
    walk: Walk,
    plan: Plan,
    error: Option<QuantError>,
    integers: usize,
    backend: PhantomData<P>,
}

impl<C: Config + ?Sized, B: Backend, K: QuantKernels<B>> Planner<'_, C, (B, K)> {
    fn visit(&mut self, layer: &Layer, held: Held<B, K>) -> Result<()> {
        let elements: usize = layer.shape.iter().product();
        let mut row = LayerReport {
            path: layer.path.clone(),
            container: layer.container.clone(),
            shape: layer.shape.clone(),
            config: String::new(),
            kernel: None,
            bytes_before: 0,
            bytes_after: 0,
            sqnr_db: None,
            skipped: None,
            note: None,
        };
        let choice = self.config.choose(layer)?;
        let mut verdict = Verdict::Leave;
        match held {
            Held::Float(tensor) => {
                row.bytes_before = elements * tensor.dtype().size();
                row.bytes_after = row.bytes_before;
                let recipe = match choice {
                    Choice::Quantize(recipe) => recipe,
                    Choice::Leave(reason) => {
                        row.skipped = Some(reason);
                        self.push(row, verdict);
                        return Ok(());
                    }
                };
                row.config = recipe.name.clone();
                match preview::<B, K>(layer, &recipe, float_dtype(tensor.dtype()), &B::float_device(&tensor))? {
                    Ok(Preview {
                        expected: Expected::Slower(reason),
                        ..
                    }) if !self.config.takes_slower() => row.skipped = Some(reason),
                    Ok(preview) => {
                        row.note = note(preview.expected);
                        if self.config.is_strict() && preview.kernel == PORTABLE {
                            let note = row.note.as_deref().unwrap_or_default();
                            return Err(self.refuse(layer, &format!("only the portable products serve it ({note})")));
                        }
                        (row.kernel, row.bytes_after) = (Some(preview.kernel), preview.bytes);
                        verdict = Verdict::Quantize(recipe);
                    }
                    Err(reason) => row.skipped = Some(reason),
                }
            }
            Held::Quantized(tensor) | Held::Packed(tensor) => {
                row.kernel = kernel_name(&tensor);
                row.bytes_before = bytes(&tensor);
                row.bytes_after = row.bytes_before;
                row.skipped = Some(match &*tensor.body {
                    Body::Observed(_) => "under calibration: `convert` or `discard` it first".into(),
                    _ => "quantized already".into(),
                });
                if let Choice::Leave(_) = choice {
                    self.push(row, verdict);
                    return Ok(());
                }
            }
        }
        if let (true, Some(reason)) = (self.config.is_strict(), &row.skipped) {
            return Err(self.refuse(layer, reason));
        }
        self.push(row, verdict);
        Ok(())
    }

    fn push(&mut self, row: LayerReport, verdict: Verdict) {
        self.plan.report.layers.push(row);
        self.plan.verdicts.push(verdict);
    }

    fn refuse(&self, layer: &Layer, reason: &str) -> QuantError {
        QuantError::Layer {
            layer: layer.path.clone(),
            reason: format!("strict mode: {reason}"),
        }
    }
}

impl<C: Config + ?Sized, B: Backend, K: QuantKernels<B>> ModuleVisitor<Quantized<B, K>> for Planner<'_, C, (B, K)> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Quantized<B, K>, D>>) {
        if self.error.is_some() {
            return;
        }
        let tensor = param.val();
        if D < 2 {
            self.plan.report.other_bytes += tensor.shape().num_elements() * tensor.dtype().size();
            return;
        }
        let layer = self.walk.layer(&tensor.dims());
        self.error = self.visit(&layer, held(tensor)).err();
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<Quantized<B, K>, D, Int>>) {
        self.integers += 1;
        self.plan.report.other_bytes += param.shape().num_elements() * param.dtype().size();
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<Quantized<B, K>, D, Bool>>) {
        self.plan.report.other_bytes += param.shape().num_elements();
    }
}

/// Bytes of codes, scales and zero points of a quantized tensor, of the float weight of an observed one.
pub(crate) fn bytes<B: Backend, K: QuantKernels<B>>(tensor: &QTensor<B, K>) -> usize {
    match &*tensor.body {
        Body::Packed(packed) => packed.bytes::<B, K>(),
        Body::Observed(observed) => observed.weight.shape().num_elements() * observed.weight.dtype().size(),
        Body::Dense(weight) => weight.shape().num_elements() * weight.dtype().size(),
    }
}

/// What a layer would be.
struct Preview {
    kernel: String,
    bytes: usize,
    expected: Expected,
}

/// What a layer would be, or why it cannot be quantized.
fn preview<B: Backend, K: QuantKernels<B>>(
    layer: &Layer,
    recipe: &Recipe,
    dtype: FloatDtype,
    device: &Device<B>,
) -> Result<core::result::Result<Preview, String>> {
    /// Output channels of the stand-in that kernels are asked about: their choice depends on K, dtype and blocks.
    const CHANNELS: usize = 16;
    if layer.shape.len() != 2 {
        return Ok(Err(format!("rank {}: only matrices are quantized", layer.shape.len())));
    }
    let [n, k] = layer.logical_shape();
    if n * k == 0 {
        return Ok(Err("no elements".into()));
    }
    let named = |error: QuantError| QuantError::Layer {
        layer: layer.path.clone(),
        reason: error.to_string(),
    };
    recipe.weight.validate().map_err(named)?;
    check_factors(&recipe.weight, n, k).map_err(named)?;
    let whole = stand_in_parts(&recipe.weight, dtype, n, k).map_err(named)?;
    let bytes = whole.bytes();
    let few = if n <= CHANNELS {
        whole
    } else {
        stand_in_parts(&recipe.weight, dtype, CHANNELS, k).map_err(named)?
    };
    let weight = AffineQuantizedTensor::from_packed(few.clone(), vec![0; few.packed_bytes()])?;
    let tensor = QTensor::<B, K>::from_weight(
        weight,
        layer.activation(recipe.activation),
        layer.label(),
        layer.transposed(),
        device.clone(),
        burn_dtype(dtype),
    );
    let header = record::payload(&tensor).map_or(0, |payload| payload.encoded_len()) - few.bytes();
    let length = header + bytes;
    if !record::fits(&Shape::from(layer.shape.clone()), length) {
        return Ok(Err(format!(
            "too small: {n}x{k} elements have no room for its record of {length} bytes"
        )));
    }
    Ok(Ok(Preview {
        kernel: kernel_name(&tensor).unwrap_or_else(|| PORTABLE.into()),
        bytes,
        expected: expected(&tensor, n),
    }))
}

/// The parts of a weight of `spec`, quantized from `dtype`, whose codes are all zero and whose scales are all one.
fn stand_in_parts(spec: &AffineSpec, dtype: FloatDtype, n: usize, k: usize) -> Result<AffineParts> {
    let shape = vec![n, k];
    let block_size = spec.granularity.block_size(&shape)?;
    let blocks = BlockGrid::new(&shape, &block_size)?.len();
    Ok(AffineParts {
        shape,
        block_size,
        dtype: spec.dtype,
        quant_min: spec.quant_min,
        quant_max: spec.quant_max,
        scale: vec![1.0; blocks],
        scale_dtype: spec.scale_dtype.unwrap_or(dtype),
        zero_point: match spec.zero_point_domain {
            ZeroPointDomain::None => ZeroPoints::None,
            ZeroPointDomain::Int => ZeroPoints::Int(vec![spec.quant_min; blocks]),
            ZeroPointDomain::Float => ZeroPoints::Float(vec![0.0; blocks]),
        },
        zero_point_dtype: spec.zero_point_dtype.unwrap_or(dtype),
    })
}
