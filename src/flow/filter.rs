//! Which layers a config is for.

use super::config::{Choice, Config, LayerConfig, Recipe};
use super::layer::Layer;
use crate::error::Result;
use core::fmt;
use std::sync::Arc;

/// A test of a layer by container type, path and shape.
///
/// A path pattern matches a layer's whole path; `*` stands for any run of characters.
///
/// ```
/// use burn_quantized::flow::{Filter, Layer};
/// let filter = Filter::linear().path("encoder.*").min_elements(1024);
/// let layer = |path: &str| Layer { path: path.into(), container: "Struct:Linear".into(), shape: vec![64, 64] };
/// assert!(filter.takes(&layer("encoder.0.query")) && !filter.takes(&layer("head")));
/// ```
#[derive(Clone)]
pub struct Filter(Arc<dyn Fn(&Layer) -> bool + Send + Sync>);

impl Filter {
    /// Whatever `test` takes.
    pub fn new(test: impl Fn(&Layer) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }

    /// Every `Linear` weight.
    pub fn linear() -> Self {
        Self::new(Layer::is_linear)
    }

    /// Every `Embedding` weight.
    pub fn embedding() -> Self {
        Self::new(Layer::is_embedding)
    }

    /// Every weight of a container type, such as `Struct:MyLinear`.
    pub fn container(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::new(move |layer| layer.container == name)
    }

    /// Only layers whose path matches.
    pub fn path(self, pattern: impl Into<String>) -> Self {
        let pattern = pattern.into();
        Self::new(move |layer| self.takes(layer) && matches(&pattern, &layer.path))
    }

    /// Only layers whose path does not match.
    pub fn except(self, pattern: impl Into<String>) -> Self {
        let pattern = pattern.into();
        Self::new(move |layer| self.takes(layer) && !matches(&pattern, &layer.path))
    }

    /// Only layers of at least this many elements.
    pub fn min_elements(self, elements: usize) -> Self {
        Self::new(move |layer| self.takes(layer) && layer.shape.iter().product::<usize>() >= elements)
    }

    /// What this filter or `other` takes.
    pub fn or(self, other: Self) -> Self {
        Self::new(move |layer| self.takes(layer) || other.takes(layer))
    }

    /// Whether the layer is taken.
    pub fn takes(&self, layer: &Layer) -> bool {
        (self.0)(layer)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

/// Whether `pattern`, in which `*` stands for any run of characters, matches the whole of `path`.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(tail) = path.strip_prefix(head) else {
        return false;
    };
    (0..=tail.len())
        .filter(|at| tail.is_char_boundary(*at))
        .any(|at| matches(rest, &tail[at..]))
}

/// A recipe for the layers of a filter; see [`LayerConfig::filter`].
#[derive(Clone, Debug)]
pub struct Filtered {
    recipe: Recipe,
    filter: Filter,
}

impl Filtered {
    /// `recipe` for the layers that `filter` takes.
    pub fn new(recipe: Recipe, filter: Filter) -> Self {
        Self { recipe, filter }
    }
}

impl Config for Filtered {
    fn choose(&self, layer: &Layer) -> Result<Choice> {
        Ok(if self.filter.takes(layer) {
            Choice::Quantize(self.recipe.clone())
        } else {
            Choice::Leave("not selected by the filter".into())
        })
    }
}

/// A config for each path: an exact path first, then patterns in their order, then the default; `None` leaves a layer in float.
///
/// ```
/// use burn_quantized::flow::{ConfigMap, Int4WeightOnly, Int8WeightOnly};
/// # fn main() -> burn_quantized::Result<()> {
/// let config = ConfigMap::new()
///     .exact("head", Some(&Int8WeightOnly::default()))?
///     .pattern("encoder.*.query", None::<&Int8WeightOnly>)?
///     .otherwise(Some(&Int4WeightOnly::new(32)))?;
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConfigMap {
    exact: Vec<(String, Option<Recipe>)>,
    patterns: Vec<(String, Option<Recipe>)>,
    default: Option<Recipe>,
}

impl ConfigMap {
    /// A map that leaves everything in float.
    pub fn new() -> Self {
        Self::default()
    }

    /// `config` for the layer of this path, whatever its container. Errors: settings that do not go together.
    pub fn exact(mut self, path: impl Into<String>, config: Option<&impl LayerConfig>) -> Result<Self> {
        self.exact
            .push((path.into(), config.map(LayerConfig::recipe).transpose()?));
        Ok(self)
    }

    /// `config` for the layers whose path matches, whatever their container; `*` stands for any run of characters.
    pub fn pattern(mut self, pattern: impl Into<String>, config: Option<&impl LayerConfig>) -> Result<Self> {
        self.patterns
            .push((pattern.into(), config.map(LayerConfig::recipe).transpose()?));
        Ok(self)
    }

    /// `config` for every other `Linear` weight.
    pub fn otherwise(mut self, config: Option<&impl LayerConfig>) -> Result<Self> {
        self.default = config.map(LayerConfig::recipe).transpose()?;
        Ok(self)
    }
}

impl Config for ConfigMap {
    fn choose(&self, layer: &Layer) -> Result<Choice> {
        let exact = self.exact.iter().find(|(path, _)| *path == layer.path);
        let found = exact.or_else(|| self.patterns.iter().find(|(pattern, _)| matches(pattern, &layer.path)));
        match (found, &self.default) {
            (Some((_, Some(recipe))), _) => Ok(Choice::Quantize(recipe.clone())),
            (Some((path, None)), _) => Ok(Choice::Leave(format!("left in float by the entry `{path}`"))),
            (None, Some(recipe)) => recipe.choose(layer),
            (None, None) => Ok(Choice::Leave("no entry for this path".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b.c", true),
            ("*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }
}
