//! Problem, hardware, preference → kernel: a pure function.

use super::tier::Tier;
use crate::dtype::IntDtype;
use crate::spec::ActivationQuantization;
use core::fmt;

/// What a caller asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Preference {
    /// The best tier that the machine has.
    #[default]
    Auto,
    /// Plain Rust.
    Reference,
    /// The tier of this name, or an error.
    Specific(String),
}

/// The kernel of one packed weight.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Kernel {
    /// Dtype of the activation codes; `None` where activations stay in float.
    pub activation: Option<IntDtype>,
    /// Dtype of the weight codes.
    pub weight: IntDtype,
    /// Instructions.
    pub tier: Tier,
}

impl fmt::Display for Kernel {
    /// `i8i4 avx512_vnni`: activation, weight, tier.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |dtype: IntDtype| format!("{}{}", if dtype.is_signed() { "i" } else { "u" }, dtype.bits());
        let activation = self.activation.map_or("f32".into(), short);
        write!(f, "{activation}{} {}", short(self.weight), self.tier)
    }
}

/// Chooses the kernel for a weight of dtype `weight` whose activations are treated as `activation`.
///
/// Errors: a pinned tier that does not exist or is not in `available`; the message lists those that are.
pub fn select(
    weight: IntDtype,
    activation: &ActivationQuantization,
    available: &[Tier],
    preference: &Preference,
) -> Result<Kernel, String> {
    let list = || available.iter().map(|tier| tier.name()).collect::<Vec<_>>().join(", ");
    let tier = match preference {
        Preference::Auto => available.first().copied().unwrap_or(Tier::Scalar),
        Preference::Reference => Tier::Scalar,
        Preference::Specific(name) => match Tier::from_name(name) {
            None => {
                return Err(format!(
                    "there is no CPU tier `{name}`; this machine can run: {}",
                    list()
                ));
            }
            Some(tier) if !available.contains(&tier) => {
                return Err(format!(
                    "this machine cannot run the CPU tier `{name}`; it can run: {}",
                    list()
                ));
            }
            Some(tier) => tier,
        },
    };
    let activation = match activation {
        ActivationQuantization::None => None,
        ActivationQuantization::Dynamic { dtype, .. } | ActivationQuantization::Static { dtype, .. } => Some(*dtype),
    };
    Ok(Kernel {
        activation,
        weight,
        tier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ActivationScale;

    #[test]
    fn a_pin_never_falls_back() {
        let int8 = ActivationQuantization::int8_dynamic(ActivationScale::PerToken);
        let choose = |preference| select(IntDtype::INT4, &int8, &[Tier::Avx2, Tier::Scalar], &preference);
        assert_eq!(choose(Preference::Auto).unwrap().to_string(), "i8i4 avx2");
        assert_eq!(choose(Preference::Reference).unwrap().tier, Tier::Scalar);
        assert_eq!(
            choose(Preference::Specific("scalar".into())).unwrap().tier,
            Tier::Scalar
        );
        let error = choose(Preference::Specific("avx512".into())).unwrap_err();
        assert!(error.contains("`avx512`") && error.contains("avx2, scalar"), "{error}");
        let error = choose(Preference::Specific("sse9".into())).unwrap_err();
        assert!(error.contains("no CPU tier `sse9`"), "{error}");
    }

    #[test]
    fn weight_only_is_named_by_its_float() {
        let kernel = select(
            IntDtype::UINT4,
            &ActivationQuantization::None,
            &[Tier::Scalar],
            &Preference::Auto,
        )
        .unwrap();
        assert_eq!(kernel.to_string(), "f32u4 scalar");
    }
}
