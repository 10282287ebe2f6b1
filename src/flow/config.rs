//! What a config says of a layer.

use super::filter::{Filter, Filtered};
use super::layer::Layer;
use crate::dtype::FloatDtype;
use crate::error::{QuantError, Result};
use crate::spec::{ActivationQuantization, AffineSpec};
use serde::{Deserialize, Serialize};

/// How one layer is quantized, as plain data.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// As reports print it, such as `int4_weight_only(group=32)`.
    pub name: String,
    /// The weight, read as `[N, K]`.
    pub weight: AffineSpec,
    /// The activations that meet it.
    pub activation: ActivationQuantization,
}

/// The verdict of a config on one layer.
#[derive(Clone, PartialEq, Debug)]
pub enum Choice {
    /// The layer is not for this config: it stays in float, and strict mode has nothing against it.
    Leave(String),
    /// Quantize it so.
    Quantize(Recipe),
}

/// One recipe for every layer that it meets; by default every `Linear` weight.
pub trait LayerConfig {
    /// The recipe. Errors: settings that do not go together.
    fn recipe(&self) -> Result<Recipe>;

    /// Uses this recipe for the layers that `filter` takes, instead of every `Linear` weight.
    fn filter(&self, filter: Filter) -> Result<Filtered> {
        Ok(Filtered::new(self.recipe()?, filter))
    }
}

/// Chooses what happens to each layer of a module.
pub trait Config {
    /// The verdict on one float parameter of rank 2 or more. Errors: settings that do not go together.
    fn choose(&self, layer: &Layer) -> Result<Choice>;

    /// Whether a layer that was chosen and cannot be served is an error instead of a row in the report.
    fn is_strict(&self) -> bool {
        false
    }

    /// Whether a layer is quantized too where its kernel is expected to be slower than float.
    fn takes_slower(&self) -> bool {
        false
    }

    /// Quantizes a chosen layer also where its kernel is expected to be slower than the float product; by default such a layer stays in
    /// float, with the reason in the report.
    fn even_if_slower(self) -> EvenIfSlower<Self>
    where
        Self: Sized,
    {
        EvenIfSlower(self)
    }

    /// Turns a chosen layer that stays in float, or that only the portable products serve, into an error.
    fn strict(self) -> Strict<Self>
    where
        Self: Sized,
    {
        Strict(self)
    }
}

impl LayerConfig for Recipe {
    fn recipe(&self) -> Result<Recipe> {
        self.weight.validate()?;
        Ok(self.clone())
    }
}

impl<T: LayerConfig> Config for T {
    fn choose(&self, layer: &Layer) -> Result<Choice> {
        let recipe = self.recipe()?;
        Ok(if layer.is_linear() {
            Choice::Quantize(recipe)
        } else {
            Choice::Leave(left_in_float(layer))
        })
    }
}

/// A config in strict mode; see [`Config::strict`].
#[derive(Clone, Debug)]
pub struct Strict<C>(pub(crate) C);

impl<C: Config> Config for Strict<C> {
    fn choose(&self, layer: &Layer) -> Result<Choice> {
        self.0.choose(layer)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn takes_slower(&self) -> bool {
        self.0.takes_slower()
    }
}

/// A config that takes slower kernels too; see [`Config::even_if_slower`].
#[derive(Clone, Debug)]
pub struct EvenIfSlower<C>(pub(crate) C);

impl<C: Config> Config for EvenIfSlower<C> {
    fn choose(&self, layer: &Layer) -> Result<Choice> {
        self.0.choose(layer)
    }

    fn is_strict(&self) -> bool {
        self.0.is_strict()
    }

    fn takes_slower(&self) -> bool {
        true
    }
}

/// Why the default filter leaves a layer alone.
pub(crate) fn left_in_float(layer: &Layer) -> String {
    match layer.container.strip_prefix("Struct:").unwrap_or(&layer.container) {
        name if name.starts_with("Conv") => "convolutions stay in float".into(),
        name => format!("not selected: `{name}` is no Linear weight"),
    }
}

/// Whether kernels can factor the scales of a weight `[n, k]` out of a product along K.
///
/// Errors: runs of fewer than 8 elements along K with a scale each.
pub(crate) fn check_factors(spec: &AffineSpec, n: usize, k: usize) -> Result<()> {
    const SHORTEST_GROUP: usize = 8;
    let block = spec.granularity.block_size(&[n, k])?;
    if block[1] < k && block[1] < SHORTEST_GROUP {
        return Err(QuantError::InvalidGranularity {
            granularity: spec.granularity.to_string(),
            shape: vec![n, k],
            reason: format!(
                "it splits K = {k} into runs of {}, which no kernel can factor out of a product: use per_row(-1), \
                 per_tensor, or groups of {SHORTEST_GROUP} or more along K",
                block[1]
            ),
        });
    }
    Ok(())
}

/// f32 scales of 8-bit weights, for every dtype of the weight.
pub(crate) const SCALE_F32: Option<FloatDtype> = Some(FloatDtype::F32);
