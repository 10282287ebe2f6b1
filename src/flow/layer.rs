//! What a config and a report know of a layer.

use crate::spec::ActivationQuantization;

/// A float parameter of a module, as a filter sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// Path of the module that holds the parameter, such as `encoder.layers.0.mha.query`; the path of the parameter itself where its
    /// field is not called `weight` or where it has no parent.
    pub path: String,
    /// Container type as Burn names it, such as `Struct:Linear`.
    pub container: String,
    /// Shape that Burn sees: `[K, N]` for a `Linear` weight.
    pub shape: Vec<usize>,
}

impl Layer {
    /// Whether this is the weight of a `burn::nn::Linear`.
    pub fn is_linear(&self) -> bool {
        self.container == "Struct:Linear" && self.shape.len() == 2
    }

    /// Whether this is the weight of a `burn::nn::Embedding`.
    pub fn is_embedding(&self) -> bool {
        self.container == "Struct:Embedding" && self.shape.len() == 2
    }

    /// Whether the two dims that Burn sees are `[K, N]`: true but for an embedding, whose rows are vocabulary rows `[N, K]`.
    pub(crate) fn transposed(&self) -> bool {
        !self.is_embedding()
    }

    /// What happens to the activations of this layer where a recipe asks for `treatment`: an embedding has none.
    pub(crate) fn activation(&self, treatment: ActivationQuantization) -> ActivationQuantization {
        if self.is_embedding() {
            ActivationQuantization::None
        } else {
            treatment
        }
    }

    /// The logical shape `[N, K]` of a weight of rank 2.
    pub(crate) fn logical_shape(&self) -> [usize; 2] {
        if self.transposed() {
            [self.shape[1], self.shape[0]]
        } else {
            [self.shape[0], self.shape[1]]
        }
    }
}

/// Follows a visitor or mapper through a module.
#[derive(Default, Debug)]
pub(crate) struct Walk(Vec<(String, String)>);

impl Walk {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.into(), container.into()));
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The parameter that the walk stands at.
    pub(crate) fn layer(&self, shape: &[usize]) -> Layer {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        let path = match names.split_last() {
            Some((&"weight", parent)) if !parent.is_empty() => parent.join("."),
            _ => names.join("."),
        };
        let container = self
            .0
            .last()
            .map(|(_, container)| container.clone())
            .unwrap_or_default();
        Layer {
            path,
            container,
            shape: shape.to_vec(),
        }
    }
}

/// The rows of a `ModuleMapper<Quantized<B, K>>` that hands integer and boolean parameters on untouched.
macro_rules! keep_ints_and_bools {
    () => {
        fn map_int<const D: usize>(
            &mut self,
            param: Param<Tensor<Quantized<B, K>, D, burn::tensor::Int>>,
        ) -> Param<Tensor<Quantized<B, K>, D, burn::tensor::Int>> {
            param
        }

        fn map_bool<const D: usize>(
            &mut self,
            param: Param<Tensor<Quantized<B, K>, D, burn::tensor::Bool>>,
        ) -> Param<Tensor<Quantized<B, K>, D, burn::tensor::Bool>> {
            param
        }
    };
}
pub(crate) use keep_ints_and_bools;
