//! The configs, named as torchao names them.

use super::config::{LayerConfig, Recipe, SCALE_F32};
use crate::dtype::IntDtype;
use crate::error::{QuantError, Result};
use crate::observe::{ObserverConfig, ObserverKind};
use crate::spec::{ActivationQuantization, ActivationScale, AffineSpec, Granularity, MappingType, ZeroPointDomain};
use derive_new::new;
use serde::{Deserialize, Serialize};

/// eps of torchao's tinygemm int4 weights.
const TINYGEMM_EPS: f32 = 1e-6;

fn int8_weight(granularity: Granularity) -> AffineSpec {
    let spec = AffineSpec::new(IntDtype::INT8, MappingType::Symmetric, granularity)
        .with_zero_point_domain(ZeroPointDomain::None)
        .with_eps(f32::EPSILON);
    AffineSpec {
        scale_dtype: SCALE_F32,
        ..spec
    }
}

fn checked(name: String, weight: AffineSpec, activation: ActivationQuantization) -> Result<Recipe> {
    weight.validate()?;
    if let Granularity::PerGroup(0) = weight.granularity {
        return Err(QuantError::InvalidSpec(format!(
            "{name}: a group needs at least one element"
        )));
    }
    Ok(Recipe {
        name,
        weight,
        activation,
    })
}

/// int8 weights, symmetric, f32 scale for each output channel; activations stay in float.
///
/// Source: torchao `Int8WeightOnlyConfig`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Int8WeightOnly {
    /// `PerRow(-1)` by default, on a weight read as `[N, K]`.
    pub granularity: Granularity,
}

impl Default for Int8WeightOnly {
    fn default() -> Self {
        Self {
            granularity: Granularity::PerRow(-1),
        }
    }
}

impl Int8WeightOnly {
    /// One scale a group of this many inputs.
    pub fn grouped(group: usize) -> Self {
        Self {
            granularity: Granularity::PerGroup(group),
        }
    }
}

impl LayerConfig for Int8WeightOnly {
    fn recipe(&self) -> Result<Recipe> {
        let name = match &self.granularity {
            Granularity::PerRow(-1) => "int8_weight_only".into(),
            other => format!("int8_weight_only({other})"),
        };
        checked(
            name,
            int8_weight(self.granularity.clone()),
            ActivationQuantization::None,
        )
    }
}

/// Which zero points int4 weights have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Int4Zero {
    Float,
    Integer,
    Symmetric,
}

/// 4-bit weights in groups along K; activations stay in float.
///
/// By default as torchao's tinygemm: uint4, asymmetric, *float* zero points, scale and zero point in the weight's dtype, eps 1e-6.
/// Source: torchao `Int4WeightOnlyConfig`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Int4WeightOnly {
    group: usize,
    zero: Int4Zero,
}

impl Int4WeightOnly {
    /// Groups of `group` inputs; a shorter last group has its own scale.
    pub fn new(group: usize) -> Self {
        Self {
            group,
            zero: Int4Zero::Float,
        }
    }

    /// int4 over −8..=7 without zero points.
    pub fn symmetric(self) -> Self {
        Self {
            zero: Int4Zero::Symmetric,
            ..self
        }
    }

    /// uint4 with integer zero points.
    pub fn integer_zero_point(self) -> Self {
        Self {
            zero: Int4Zero::Integer,
            ..self
        }
    }
}

impl LayerConfig for Int4WeightOnly {
    fn recipe(&self) -> Result<Recipe> {
        let group = Granularity::PerGroup(self.group);
        let (suffix, spec) = match self.zero {
            Int4Zero::Float => (
                "",
                AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, group)
                    .with_zero_point_domain(ZeroPointDomain::Float)
                    .with_eps(TINYGEMM_EPS),
            ),
            Int4Zero::Integer => (
                ", integer zero point",
                AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, group).with_eps(TINYGEMM_EPS),
            ),
            Int4Zero::Symmetric => (
                ", symmetric",
                AffineSpec::new(IntDtype::INT4, MappingType::Symmetric, group)
                    .with_zero_point_domain(ZeroPointDomain::None),
            ),
        };
        checked(
            format!("int4_weight_only(group={}{suffix})", self.group),
            spec,
            ActivationQuantization::None,
        )
    }
}

/// 1- to 8-bit weights of any granularity and mapping; activations stay in float.
///
/// Signed codes, scales in the weight's dtype, integer zero points where the mapping needs them.
/// Source: torchao `IntxWeightOnlyConfig`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, new)]
pub struct IntxWeightOnly {
    /// 1 to 8.
    pub bits: u32,
    /// On a weight read as `[N, K]`: `PerGroup` along K, `PerAxis(0)` or `PerRow(-1)` for a scale an output channel.
    pub granularity: Granularity,
    /// How a range becomes a scale.
    pub mapping: MappingType,
}

fn intx_weight(bits: u32, granularity: Granularity, mapping: MappingType) -> Result<AffineSpec> {
    let domain = match mapping {
        MappingType::Asymmetric => ZeroPointDomain::Int,
        _ => ZeroPointDomain::None,
    };
    Ok(AffineSpec::new(IntDtype::int(bits)?, mapping, granularity).with_zero_point_domain(domain))
}

impl LayerConfig for IntxWeightOnly {
    fn recipe(&self) -> Result<Recipe> {
        let spec = intx_weight(self.bits, self.granularity.clone(), self.mapping)?;
        let name = format!("int{}_weight_only({}, {})", self.bits, self.granularity, self.mapping);
        checked(name, spec, ActivationQuantization::None)
    }
}

/// int8 weights and int8 activations whose scales are chosen in each call.
///
/// By default one scale a token, symmetric over −128..=127, f32, eps 2^-23. Source: torchao `Int8DynamicActivationInt8WeightConfig`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Int8DynamicActivationInt8Weight {
    scale: ActivationScale,
    mapping: MappingType,
}

impl Default for Int8DynamicActivationInt8Weight {
    fn default() -> Self {
        Self {
            scale: ActivationScale::PerToken,
            mapping: MappingType::Symmetric,
        }
    }
}

impl Int8DynamicActivationInt8Weight {
    /// One activation scale for the whole call, and one weight scale for the whole weight.
    pub fn per_tensor(self) -> Self {
        Self {
            scale: ActivationScale::PerTensor,
            ..self
        }
    }

    /// Activations with a zero point.
    pub fn asymmetric(self) -> Self {
        Self {
            mapping: MappingType::Asymmetric,
            ..self
        }
    }
}

impl LayerConfig for Int8DynamicActivationInt8Weight {
    fn recipe(&self) -> Result<Recipe> {
        let granularity = match self.scale {
            ActivationScale::PerToken => Granularity::PerRow(-1),
            ActivationScale::PerTensor => Granularity::PerTensor,
        };
        let activation = ActivationQuantization::Dynamic {
            mapping: self.mapping,
            scale: self.scale,
            dtype: IntDtype::INT8,
            quant_min: -128,
            quant_max: 127,
            eps: Some(f32::EPSILON),
            scale_in_input_dtype: false,
        };
        let mut name = String::from("int8_dynamic_int8");
        if *self != Self::default() {
            name += &format!("({:?}, {})", self.scale, self.mapping);
        }
        checked(name, int8_weight(granularity), activation)
    }
}

/// 1- to 8-bit weights, symmetric in groups along K, and asymmetric int8 activations, one scale a token, chosen in each call.
///
/// Scales in the weight's and activation's dtype. Source: torchao `Int8DynamicActivationIntxWeightConfig` (8da4w for 4 bits).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, new)]
pub struct Int8DynamicActivationIntxWeight {
    /// 1 to 8.
    pub bits: u32,
    /// Inputs that share a weight scale; a shorter last group has its own.
    pub group: usize,
}

impl LayerConfig for Int8DynamicActivationIntxWeight {
    fn recipe(&self) -> Result<Recipe> {
        let spec = intx_weight(self.bits, Granularity::PerGroup(self.group), MappingType::Symmetric)?;
        let name = format!("int8_dynamic_int{}(group={})", self.bits, self.group);
        checked(name, spec, ActivationQuantization::int8_dynamic_asymmetric())
    }
}

/// int8 weights and 8-bit activations whose scale and zero point calibration fixes, one for each layer.
///
/// By default min-max observers: activations per tensor, symmetric int8; weights a scale an output channel, symmetric int8.
/// Source: torchao `Int8StaticActivationInt8WeightConfig` and its calibration tutorial. Goes to
/// [`Calibration`](super::Calibration), since it needs data.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Int8StaticActivationInt8Weight {
    /// Observer of a layer's input: one block, 8 bits, integer zero point or none.
    pub activation: ObserverConfig,
    /// Observer of a layer's weight, read as `[N, K]`.
    pub weight: ObserverConfig,
    /// Observer of a layer's output; its statistics are for the caller and change no product.
    pub output: Option<ObserverConfig>,
}

impl Default for Int8StaticActivationInt8Weight {
    fn default() -> Self {
        Self {
            activation: ObserverConfig::activation(IntDtype::INT8, MappingType::Symmetric),
            weight: ObserverConfig::weight_int8(),
            output: None,
        }
    }
}

impl Int8StaticActivationInt8Weight {
    /// Activations over their whole observed range, with a zero point.
    pub fn asymmetric(mut self) -> Self {
        let kind = self.activation.kind;
        self.activation = ObserverConfig::activation(IntDtype::INT8, MappingType::Asymmetric).with_kind(kind);
        self
    }

    /// Observes activations in this way.
    pub fn with_activation_observer(mut self, kind: ObserverKind) -> Self {
        self.activation = self.activation.with_kind(kind);
        self
    }

    /// Observes outputs too.
    pub fn with_output_observer(mut self, observer: ObserverConfig) -> Self {
        self.output = Some(observer);
        self
    }
}

impl LayerConfig for Int8StaticActivationInt8Weight {
    /// The recipe before calibration: scale 1 and zero point 0 stand in for what `convert` computes.
    fn recipe(&self) -> Result<Recipe> {
        self.activation.build()?;
        self.weight.build()?;
        let spec = &self.activation.rule.spec;
        let one_block = matches!(spec.granularity, Granularity::PerTensor);
        if !one_block || spec.dtype.bits() != 8 || spec.zero_point_domain == ZeroPointDomain::Float {
            return Err(QuantError::InvalidSpec(
                "a static activation has one scale (PerTensor), 8 bits, and an integer zero point or none".into(),
            ));
        }
        let activation = ActivationQuantization::Static {
            scale: 1.0,
            zero_point: 0,
            dtype: spec.dtype,
            quant_min: spec.quant_min,
            quant_max: spec.quant_max,
        };
        checked("int8_static_int8".into(), self.weight.rule.spec.clone(), activation)
    }
}
