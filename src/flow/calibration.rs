//! Static quantization: insert observers, calibrate, convert.

use super::apply::{FlowError, check_finite, quantize_layer};
use super::config::{Choice, Config, LayerConfig};
use super::configs::Int8StaticActivationInt8Weight;
use super::filter::{Filter, Filtered};
use super::layer::{Layer, Walk, keep_ints_and_bools};
use super::observer::{LayerObserver, LayerStatistics, settle};
use super::plan::{Plan, Verdict};
use super::report::Report;
use super::weight::{Held, HostWeight, held, quantized_param};
use crate::backend::{Body, FloatPrimitive, InputObserver, Observed, QTensor, Quantized};
use crate::error::{QuantError, Result};
use crate::kernels::QuantKernels;
use crate::observe::{Observer, ObserverConfig};
use crate::primitives::ZeroPoints;
use crate::spec::{ActivationQuantization, ZeroPointDomain};
use crate::tensor::AffineQuantizedTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::Backend;
use core::marker::PhantomData;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The three steps of static quantization.
///
/// ```
/// use burn::{nn::LinearConfig, tensor::Tensor};
/// use burn_quantized::flow::{Calibration, Int8StaticActivationInt8Weight};
/// type B = burn_quantized::Quantized<burn_flex::Flex>;
///
/// # fn main() -> burn_quantized::Result<()> {
/// let model = LinearConfig::new(64, 32).init::<B>(&Default::default());
/// let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
/// let observed = calibration.observe(model)?;
/// for _ in 0..3 {
///     observed.forward(Tensor::<B, 2>::ones([8, 64], &Default::default()));
/// }
/// let (model, report) = calibration.convert(observed)?;
/// assert_eq!(report.quantized().count(), 1);
/// # let _ = model; Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Calibration {
    config: Int8StaticActivationInt8Weight,
    filter: Filter,
    strict: bool,
    takes_slower: bool,
}

/// A calibration's choice of layers, for the planner.
struct Chosen<'a>(&'a Calibration, Filtered);

impl Config for Chosen<'_> {
    fn choose(&self, layer: &Layer) -> Result<Choice> {
        self.1.choose(layer)
    }

    fn is_strict(&self) -> bool {
        self.0.strict
    }

    fn takes_slower(&self) -> bool {
        self.0.takes_slower
    }
}

impl Calibration {
    /// Every `Linear` weight, with the observers of `config`.
    pub fn new(config: Int8StaticActivationInt8Weight) -> Self {
        Self {
            config,
            filter: Filter::linear(),
            strict: false,
            takes_slower: false,
        }
    }

    /// Only the layers that `filter` takes.
    pub fn filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// A chosen layer that cannot be served is an error; see [`Config::strict`].
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// Chosen layers whose kernels are expected to be slower than float too; see [`Config::even_if_slower`].
    pub fn even_if_slower(self) -> Self {
        Self {
            takes_slower: true,
            ..self
        }
    }

    fn plan<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
        &self,
        module: &M,
        strict: bool,
    ) -> Result<Plan> {
        let calibration = Self { strict, ..self.clone() };
        let filtered = Filtered::new(self.config.recipe()?, self.filter.clone());
        Plan::make(module, &Chosen(&calibration, filtered))
    }

    /// Inserts an observer into each chosen layer. The module computes in float as before, and remembers what its layers see; clones share it.
    ///
    /// Errors (with the module as it came): those of [`plan`](super::plan()), and NaN or infinity in a chosen weight.
    pub fn observe<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
        &self,
        module: M,
    ) -> core::result::Result<M, FlowError<M>> {
        let checked = self
            .plan(&module, self.strict)
            .and_then(|plan| check_finite(&module, &plan).map(|()| plan));
        match checked {
            Err(error) => Err(FlowError::new(module, error)),
            Ok(plan) => Ok(module.map(&mut Insert {
                walk: Walk::default(),
                config: &self.config,
                plan,
                at: 0,
                backend: PhantomData::<(B, K)>,
            })),
        }
    }

    /// Quantizes an observed module with what its observers saw.
    ///
    /// Errors (with the module still observed): a layer that saw no batch, or a bad one (NaN or infinity), with its number; a module without observers.
    pub fn convert<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
        &self,
        observed: M,
    ) -> core::result::Result<(M, Report), FlowError<M>> {
        let prepared = self.activations::<B, K, M>(&observed).and_then(|activations| {
            Ok(Convert {
                walk: Walk::default(),
                config: &self.config,
                name: self.config.recipe()?.name,
                activations: activations.into(),
                report: self.plan(&observed, false)?.report,
                at: 0,
                backend: PhantomData::<(B, K)>,
            })
        });
        match prepared {
            Err(error) => Err(FlowError::new(observed, error)),
            Ok(mut convert) => {
                let module = observed.map(&mut convert);
                Ok((module, convert.report))
            }
        }
    }

    /// Takes the observers out again: the float module as it was.
    pub fn discard<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(&self, observed: M) -> M {
        observed.map(&mut Discard(PhantomData::<(B, K)>))
    }

    /// What the observers of each layer saw so far, by path: to look at, to store, or to merge into a replica.
    pub fn statistics<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
        &self,
        observed: &M,
    ) -> BTreeMap<String, LayerStatistics> {
        let observers = observers::<B, K, M>(observed);
        let observers = settled::<B>(&observers).into_iter();
        observers
            .map(|(layer, observer)| (layer.path.clone(), observer.statistics()))
            .collect()
    }

    /// Merges what a replica saw on other batches into the observers of `observed`.
    ///
    /// Errors: a layer that this module does not observe, or observers of other configs. Layers before it are merged.
    pub fn merge<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
        &self,
        observed: &M,
        mut statistics: BTreeMap<String, LayerStatistics>,
    ) -> Result<()> {
        let mut result = Ok(());
        for (layer, observer) in settled::<B>(&observers::<B, K, M>(observed)) {
            if let (Ok(()), Some(other)) = (&result, statistics.remove(&layer.path)) {
                result = observer.merge(other);
            }
        }
        match statistics.into_keys().next() {
            Some(layer) if result.is_ok() => Err(QuantError::Layer {
                layer,
                reason: "it is not under calibration in this module".into(),
            }),
            _ => result,
        }
    }

    fn activations<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(
        &self,
        observed: &M,
    ) -> Result<Vec<ActivationQuantization>> {
        let observers = observers::<B, K, M>(observed);
        let found: Vec<_> = settled::<B>(&observers)
            .into_iter()
            .map(|(_, observer)| observer.activation(&self.config.activation))
            .collect();
        if found.is_empty() {
            let reason = "no layer is under calibration: `observe` the module first".into();
            return Err(QuantError::InvalidSpec(reason));
        }
        found.into_iter().collect()
    }
}

type Found<B> = Vec<(Layer, Arc<dyn InputObserver<B>>)>;

/// The observers of a module, in its order.
fn observers<B: Backend, K: QuantKernels<B>, M: Module<Quantized<B, K>>>(module: &M) -> Found<B> {
    struct Each<B: Backend, P>(Walk, Found<B>, PhantomData<P>);
    impl<B: Backend, K: QuantKernels<B>> ModuleVisitor<Quantized<B, K>> for Each<B, (B, K)> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Quantized<B, K>, D>>) {
            let tensor = param.val();
            let layer = self.0.layer(&tensor.dims());
            if let Some(observed) = observed_body(held(tensor)) {
                self.1.push((layer, observed.observer));
            }
        }
    }
    let mut each = Each(Walk::default(), vec![], PhantomData::<(B, K)>);
    module.visit(&mut each);
    each.1
}

/// Those of this flow, with what waited on the device in their statistics.
fn settled<B: Backend>(found: &Found<B>) -> Vec<(&Layer, &LayerObserver)> {
    let own: Vec<_> = found
        .iter()
        .filter_map(|(layer, observer)| Some((layer, observer.as_any().downcast_ref::<LayerObserver>()?)))
        .collect();
    settle::<B>(&own.iter().map(|(_, observer)| *observer).collect::<Vec<_>>());
    own
}

fn observed_body<B: Backend, K: QuantKernels<B>>(held: Held<B, K>) -> Option<Observed<B>> {
    let (Held::Quantized(tensor) | Held::Packed(tensor)) = held else {
        return None;
    };
    match &*tensor.body {
        Body::Observed(observed) => Some(observed.clone()),
        _ => None,
    }
}

macro_rules! mapper {
    ($name:ident<$($life:lifetime)?> |$self:ident, $param:ident| $body:block $($walk:ident)?) => {
        impl<B: Backend, K: QuantKernels<B>> ModuleMapper<Quantized<B, K>> for $name<$($life,)? (B, K)> {
            $(
                fn enter_module(&mut self, name: &str, container: &str) {
                    self.$walk.enter(name, container);
                }

                fn exit_module(&mut self, _: &str, _: &str) {
                    self.$walk.exit();
                }
            )?

            fn map_float<const D: usize>(
                &mut $self,
                $param: Param<Tensor<Quantized<B, K>, D>>,
            ) -> Param<Tensor<Quantized<B, K>, D>> {
                $body
            }

            keep_ints_and_bools!();
        }
    };
}

struct Insert<'a, P> {
    walk: Walk,
    config: &'a Int8StaticActivationInt8Weight,
    plan: Plan,
    at: usize,
    backend: PhantomData<P>,
}

mapper!(Insert<'_> |self, param| {
    if D < 2 {
        return param;
    }
    let at = self.at;
    self.at += 1;
    if matches!(self.plan.verdicts[at], Verdict::Leave) {
        return param;
    }
    let tensor = param.val();
    let layer = self.walk.layer(&tensor.dims());
    let Held::Float(weight) = held(tensor) else { return param };
    let (activation, output) = (&self.config.activation, self.config.output.as_ref());
    let observer = LayerObserver::new(layer, activation, output, !K::READS_ARE_FREE);
    // The plan built both observers once, so they build again.
    let Ok(observer) = observer else { return param };
    quantized_param(param, QTensor::observed(Observed { weight, observer: Arc::new(observer) }))
} walk);

struct Convert<'a, P> {
    walk: Walk,
    config: &'a Int8StaticActivationInt8Weight,
    name: String,
    /// Of the observed layers that are still to come, in the module's order.
    activations: VecDeque<ActivationQuantization>,
    report: Report,
    at: usize,
    backend: PhantomData<P>,
}

mapper!(Convert<'_> |self, param| {
    if D < 2 {
        return param;
    }
    let row = &mut self.report.layers[self.at];
    self.at += 1;
    let tensor = param.val();
    let layer = self.walk.layer(&tensor.dims());
    let Some(observed) = observed_body(held(tensor)) else { return param };
    let Some(activation) = self.activations.pop_front() else { return param };
    row.config = self.name.clone();
    let converted = quantize_layer::<B, K>(observed.weight, &layer, activation, row, |weight| {
        quantize_observed(weight, &self.config.weight)
    });
    let note = observed.observer.as_any().downcast_ref().and_then(LayerObserver::note);
    row.note = row.note.take().into_iter().chain(note).reduce(|a, b| format!("{a}; {b}"));
    match converted {
        Some(tensor) => quantized_param(param, tensor),
        None => param,
    }
} walk);

struct Discard<P>(PhantomData<P>);

mapper!(Discard<> |self, param| {
    match observed_body(held(param.val())) {
        Some(observed) => {
            param.map(|_| Tensor::from_primitive(TensorPrimitive::Float(FloatPrimitive::Dense(observed.weight))))
        }
        None => param,
    }
});

/// The weight as its observer sees it: one batch, then codes by the parameters that follow.
pub(super) fn quantize_observed(weight: &HostWeight, config: &ObserverConfig) -> Result<AffineQuantizedTensor> {
    let mut observer = config.build()?;
    observer.forward(&weight.values, weight.dtype, &weight.shape)?;
    let mut params = observer.calculate_qparams()?;
    let mut spec = config.rule.spec.clone();
    let centred = spec.clone().with_zero_point_domain(ZeroPointDomain::None);
    let all_zero = matches!(&params.zero_point, ZeroPoints::Int(zero) if zero.iter().all(|zero| *zero == 0));
    if all_zero && centred.validate().is_ok() {
        (params.zero_point, spec) = (ZeroPoints::None, centred);
    }
    AffineQuantizedTensor::quantize_with(&weight.values, weight.dtype, &weight.shape, &spec, params)
}
