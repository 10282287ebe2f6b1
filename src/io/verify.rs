//! Whether each quantized weight of a loaded module belongs where it is.

use crate::backend::{FloatPrimitive, QTensor, Quantized};
use crate::flow::{Layer, Walk};
use crate::kernels::QuantKernels;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::Backend;
use core::fmt;
use core::marker::PhantomData;

/// Every weight that does not belong to the layer that holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Path of the layer and what is wrong with its weight.
    pub layers: Vec<(String, String)>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self
            .layers
            .iter()
            .map(|(layer, reason)| format!("layer `{layer}`: {reason}"))
            .collect();
        f.write_str(&lines.join("; "))
    }
}

impl core::error::Error for Mismatch {}

/// Compares every quantized weight of `module` with the layer that holds it, after a load: Burn's `load_record` checks only the rank.
///
/// Errors: a weight that was saved from another path or container type; a `Linear` weight `[N, K]` (a record that was saved without
/// the transpose of `LinearLayout::Col`, as Burn 0.21 does after `valid()`, or loaded into another layout); an output size that the bias contradicts.
pub fn verify<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(module: &M) -> Result<(), Mismatch> {
    let mut check = Verify {
        walk: Walk::default(),
        outputs: None,
        mismatch: Mismatch { layers: vec![] },
        backend: PhantomData::<(B, K)>,
    };
    module.visit(&mut check);
    if check.mismatch.layers.is_empty() {
        Ok(())
    } else {
        Err(check.mismatch)
    }
}

struct Verify<P> {
    walk: Walk,
    /// The last `Linear` weight met, with its outputs: its bias comes next.
    outputs: Option<(String, usize)>,
    mismatch: Mismatch,
    backend: PhantomData<P>,
}

impl<P> Verify<P> {
    fn weight<B: Backend, K: QuantKernels<B>>(&mut self, layer: &Layer, tensor: &QTensor<B, K>) {
        let Some(packed) = tensor.packed() else { return };
        let label = &packed.label;
        let mut wrong = vec![];
        if !label.container.is_empty() && label.container != layer.container {
            wrong.push(format!(
                "the weight was saved from a {}, this is a {}",
                label.container, layer.container
            ));
        }
        if !label.path.is_empty() && label.path != layer.path {
            wrong.push(format!("the weight was saved from layer `{}`", label.path));
        }
        if layer.is_linear() && !tensor.transposed {
            wrong.push(
                "the weight is [N, K] where a Linear holds [K, N]: save and load it with the same LinearLayout, and not \
                 after `valid()` with LinearLayout::Col, where Burn 0.21 forgets the transpose"
                    .into(),
            );
        }
        self.mismatch
            .layers
            .extend(wrong.into_iter().map(|reason| (layer.path.clone(), reason)));
    }
}

impl<B: Backend, K: QuantKernels<B>> ModuleVisitor<Quantized<B, K>> for Verify<(B, K)> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Quantized<B, K>, D>>) {
        let tensor = param.val();
        let dims = tensor.dims();
        let layer = self.walk.layer(&dims);
        if D == 1 {
            let parent = layer.path.strip_suffix(".bias").unwrap_or_default();
            match self.outputs.take() {
                Some((weight, outputs)) if weight == parent && outputs != dims[0] => {
                    let reason = format!("the weight has {outputs} outputs, the bias {}", dims[0]);
                    self.mismatch.layers.push((weight, reason));
                }
                _ => {}
            }
            return;
        }
        if let TensorPrimitive::QFloat(tensor) | TensorPrimitive::Float(FloatPrimitive::Packed(tensor)) =
            tensor.into_primitive()
        {
            self.weight(&layer, &tensor);
            if layer.is_linear() && tensor.packed().is_some() {
                self.outputs = Some((layer.path, dims[1]));
            }
        }
    }
}
