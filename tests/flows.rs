//! The flows as a user meets them: configs, filters, reports, calibration, errors that hand the module back.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_quantized::backend::reads;
use burn_quantized::flow::{
    Calibration, Config, ConfigMap, Filter, Int4WeightOnly, Int8DynamicActivationInt8Weight,
    Int8DynamicActivationIntxWeight, Int8StaticActivationInt8Weight, Int8WeightOnly, IntxWeightOnly, LayerConfig,
    ObservedLinear, Report, plan, quantize,
};
use burn_quantized::observe::{ObserverConfig, ObserverKind};
use burn_quantized::spec::{Granularity, MappingType};
use burn_quantized::{QuantError, Quantized};

type Flex = Quantized<burn_flex::Flex>;
type NdArray = Quantized<burn_ndarray::NdArray>;

#[derive(Module, Debug)]
struct Net<B: Backend> {
    conv: Conv2d<B>,
    words: Embedding<B>,
    first: Linear<B>,
    second: Linear<B>,
}

impl<B: Backend> Net<B> {
    /// With every parameter drawn: a clone of a lazy one would draw its own.
    fn new() -> Self {
        let device = Default::default();
        let net = Self {
            conv: Conv2dConfig::new([1, 4], [3, 3]).init(&device),
            words: EmbeddingConfig::new(50, 64).init(&device),
            first: LinearConfig::new(64, 96).init(&device),
            second: LinearConfig::new(96, 40).with_bias(false).init(&device),
        };
        net.num_params();
        net
    }

    fn forward(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.second.forward(burn::tensor::activation::relu(
            self.first.forward(self.words.forward(ids)),
        ))
    }

    fn ids() -> Tensor<B, 2, Int> {
        Tensor::from_data([[1, 7, 49], [0, 3, 3]], &Default::default())
    }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Signal to noise of `got` against `want`, in dB.
fn sqnr(want: &[f32], got: &[f32]) -> f64 {
    let signal: f64 = want.iter().map(|x| (*x as f64).powi(2)).sum();
    let noise: f64 = want.iter().zip(got).map(|(x, y)| (*x as f64 - *y as f64).powi(2)).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

fn every_config<B>(check: impl Fn(Net<B>, &dyn Config, f64) -> Report)
where
    B: Backend,
{
    let group = Granularity::PerGroup(32);
    let configs: Vec<(Box<dyn Config>, f64)> = vec![
        (Box::new(Int8WeightOnly::default()), 35.0),
        (Box::new(Int8WeightOnly::grouped(32)), 35.0),
        (Box::new(Int4WeightOnly::new(32)), 15.0),
        (Box::new(Int4WeightOnly::new(32).symmetric()), 12.0),
        (Box::new(Int4WeightOnly::new(32).integer_zero_point()), 12.0),
        (
            Box::new(IntxWeightOnly::new(3, group.clone(), MappingType::Asymmetric)),
            8.0,
        ),
        (
            Box::new(IntxWeightOnly::new(
                5,
                group.clone(),
                MappingType::SymmetricNoClippingErr,
            )),
            18.0,
        ),
        (
            Box::new(IntxWeightOnly::new(6, Granularity::PerAxis(0), MappingType::Symmetric)),
            22.0,
        ),
        (
            Box::new(IntxWeightOnly::new(7, Granularity::PerTensor, MappingType::Symmetric)),
            25.0,
        ),
        (Box::new(Int8DynamicActivationInt8Weight::default()), 28.0),
        (Box::new(Int8DynamicActivationInt8Weight::default().asymmetric()), 28.0),
        (Box::new(Int8DynamicActivationInt8Weight::default().per_tensor()), 25.0),
        (Box::new(Int8DynamicActivationIntxWeight::new(4, 32)), 12.0),
        (Box::new(Int8DynamicActivationIntxWeight::new(8, 20)), 28.0),
    ];
    for (config, bar) in &configs {
        let report = check(Net::new(), &**config, *bar);
        assert_eq!(report.layers.len(), 4, "{report}");
        assert_eq!(report.quantized().count(), 2, "{report}");
        let conv = &report.layers[0];
        assert!(
            conv.skipped
                .as_ref()
                .is_some_and(|reason| reason.contains("convolutions stay in float")),
            "{report}"
        );
        for layer in report.quantized() {
            assert!(
                layer.bytes_after < layer.bytes_before && layer.sqnr_db.unwrap() > 3.0,
                "{report}"
            );
        }
    }
}

macro_rules! on_backend {
    ($name:ident, $backend:ty) => {
        #[test]
        fn $name() {
            type B = $backend;
            every_config::<B>(|net, config, bar| {
                let ids = Net::<B>::ids();
                let float = values(net.forward(ids.clone()));
                let planned = plan(&net, config).unwrap();
                let (net, report) = quantize(net, config).unwrap();
                let got = values(net.forward(ids));
                let db = sqnr(&float, &got);
                assert!(db > bar, "{}: {db:.1} dB", report.layers[2].config);
                for (plan, done) in planned.layers.iter().zip(&report.layers) {
                    assert_eq!(
                        (&plan.path, &plan.kernel, plan.bytes_after),
                        (&done.path, &done.kernel, done.bytes_after)
                    );
                }
                report
            });
        }
    };
}
on_backend!(every_config_on_flex, Flex);
on_backend!(every_config_on_ndarray, NdArray);

#[derive(Default)]
struct Ids(Vec<(ParamId, bool)>);
impl<B: Backend> ModuleVisitor<B> for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push((param.id, param.is_require_grad()));
    }
}

#[test]
fn what_is_left_alone_keeps_its_param() {
    let net = Net::<Flex>::new();
    let (mut before, mut after) = (Ids::default(), Ids::default());
    net.visit(&mut before);
    let (net, _) = quantize(net, &Int8WeightOnly::default()).unwrap();
    net.visit(&mut after);
    let ids = |ids: &Ids| ids.0.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after), "every id stays");
    let quantized = [3, 5]; // first.weight, second.weight
    for (at, (before, after)) in before.0.iter().zip(&after.0).enumerate() {
        assert!(
            quantized.contains(&at) || before.1 == after.1,
            "require_grad of parameter {at}"
        );
    }
}

#[test]
fn filters_and_maps_choose_by_path_and_container() {
    let (net, report) = quantize(
        Net::<Flex>::new(),
        &Int8WeightOnly::default().filter(Filter::embedding()).unwrap(),
    )
    .unwrap();
    assert_eq!(
        report.quantized().map(|layer| layer.path.as_str()).collect::<Vec<_>>(),
        ["words"]
    );
    let float = Net::<Flex>::new();
    assert_eq!(
        net.forward(Net::<Flex>::ids()).dims(),
        float.forward(Net::<Flex>::ids()).dims()
    );

    let map = ConfigMap::new()
        .exact("second", None::<&Int8WeightOnly>)
        .unwrap()
        .pattern("wor*", Some(&Int8WeightOnly::default()))
        .unwrap()
        .otherwise(Some(&Int4WeightOnly::new(32)))
        .unwrap();
    let (_, report) = quantize(Net::<Flex>::new(), &map).unwrap();
    let names: Vec<_> = report
        .layers
        .iter()
        .map(|layer| (layer.path.as_str(), layer.config.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("conv", ""),
            ("words", "int8_weight_only"),
            ("first", "int4_weight_only(group=32)"),
            ("second", "")
        ]
    );
    assert!(
        report.layers[3]
            .skipped
            .as_ref()
            .unwrap()
            .contains("left in float by the entry `second`")
    );
}

#[test]
fn embeddings_read_vocabulary_rows() {
    let net = Net::<Flex>::new();
    let ids = Net::<Flex>::ids();
    let float = values(net.words.forward(ids.clone()));
    let config = Int8WeightOnly::default().filter(Filter::embedding()).unwrap();
    let (net, _) = quantize(net, &config).unwrap();
    assert!(sqnr(&float, &values(net.words.forward(ids))) > 35.0);
}

#[test]
fn a_second_time_is_a_no_op_with_a_reason() {
    let (net, first) = quantize(Net::<Flex>::new(), &Int8WeightOnly::default()).unwrap();
    let before = values(net.forward(Net::<Flex>::ids()));
    let (net, second) = quantize(net, &Int4WeightOnly::new(32)).unwrap();
    assert_eq!(values(net.forward(Net::<Flex>::ids())), before);
    for (first, second) in first.quantized().zip(second.quantized()) {
        assert_eq!((first.bytes_after, &first.kernel), (second.bytes_after, &second.kernel));
        assert_eq!(second.skipped.as_deref(), Some("quantized already"));
    }
    let error = quantize(net, &Int4WeightOnly::new(32).strict()).unwrap_err();
    assert!(
        matches!(error.error(), QuantError::Layer { layer, .. } if layer == "first"),
        "{error}"
    );
}

/// Every error hands the module back unchanged.
fn refused(net: Net<Flex>, config: &dyn Config) -> QuantError {
    let before = values(net.forward(Net::<Flex>::ids()));
    let error = quantize(net, config).unwrap_err();
    let cause = error.error().clone();
    let net = error.into_module();
    let after = values(net.forward(Net::<Flex>::ids()));
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(x, y)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()))
    );
    cause
}

#[test]
fn bad_configs_are_errors() {
    let net = Net::new;
    assert_eq!(
        refused(
            net(),
            &IntxWeightOnly::new(9, Granularity::PerTensor, MappingType::Symmetric)
        ),
        QuantError::UnsupportedBits { bits: 9 }
    );
    assert!(matches!(
        refused(net(), &Int4WeightOnly::new(0)),
        QuantError::InvalidSpec(_) | QuantError::Layer { .. }
    ));
    let along_k = IntxWeightOnly::new(8, Granularity::PerAxis(1), MappingType::Symmetric);
    let error = refused(net(), &along_k).to_string();
    assert!(
        error.contains("first") && error.contains("no kernel can factor"),
        "{error}"
    );
    let unsigned = IntxWeightOnly::new(1, Granularity::PerTensor, MappingType::SymmetricNoClippingErr);
    assert!(matches!(refused(net(), &unsigned), QuantError::InvalidSpec(_)));
}

#[test]
fn bad_weights_are_errors_that_name_the_layer() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut net = Net::<Flex>::new();
        net.second.weight = net.second.weight.map(|weight| {
            let mut data: Vec<f32> = weight.into_data().iter::<f32>().collect();
            data[17] = bad;
            Tensor::from_data(TensorData::new(data, [96, 40]), &Default::default())
        });
        let error = refused(net, &Int8WeightOnly::default());
        assert!(
            matches!(&error, QuantError::NonFinite { what, index: 17, .. } if what.contains("second")),
            "{error}"
        );
    }
}

#[derive(Module, Debug)]
struct Counter<B: Backend> {
    seen: Param<Tensor<B, 1, Int>>,
}

#[test]
fn an_integer_module_is_an_error() {
    let seen = Param::initialized(
        ParamId::new(),
        Tensor::<Flex, 1, Int>::from_data([1, 2], &Default::default()),
    );
    let error = quantize(Counter { seen }, &Int8WeightOnly::default()).unwrap_err();
    assert_eq!(error.error(), &QuantError::NothingToQuantize { integers: 1 });
    assert_eq!(
        error
            .into_module()
            .seen
            .val()
            .into_data()
            .iter::<i32>()
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_layer_too_small_for_a_record_stays_in_float() {
    let tiny = LinearConfig::new(4, 3).init::<Flex>(&Default::default());
    let (_, report) = quantize(tiny.clone(), &Int8WeightOnly::default()).unwrap();
    assert!(report.layers[0].kernel.is_none());
    assert!(
        report.layers[0].skipped.as_ref().unwrap().contains("too small"),
        "{report}"
    );
    assert!(quantize(tiny, &Int8WeightOnly::default().strict()).is_err());
}

#[test]
fn a_tail_group_has_its_own_scale() {
    let net = LinearConfig::new(100, 48).init::<Flex>(&Default::default());
    net.num_params();
    let x = Tensor::<Flex, 2>::random([5, 100], burn::tensor::Distribution::Default, &Default::default());
    let float = values(net.forward(x.clone()));
    for config in [
        &Int8DynamicActivationIntxWeight::new(8, 32) as &dyn Config,
        &Int8WeightOnly::grouped(32),
    ] {
        let (net, report) = quantize(net.clone(), config).unwrap();
        assert_eq!(report.layers[0].bytes_after, 100 * 48 + 4 * 48 * 4);
        assert!(sqnr(&float, &values(net.forward(x.clone()))) > 30.0);
    }
}

#[test]
fn reports_print_and_serialize() {
    let (_, report) = quantize(Net::<Flex>::new(), &Int8WeightOnly::default()).unwrap();
    let text = report.to_string();
    assert!(
        text.contains("first") && text.contains("64x96") && text.contains("all parameters"),
        "{text}"
    );
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

fn batches() -> Vec<Tensor<Flex, 2, Int>> {
    (0..4)
        .map(|i| Tensor::from_data([[i, 2 * i + 1], [49 - i, 5]], &Default::default()))
        .collect()
}

#[test]
fn calibration_converts_what_it_saw() {
    for config in [
        Int8StaticActivationInt8Weight::default(),
        Int8StaticActivationInt8Weight::default().asymmetric(),
        Int8StaticActivationInt8Weight::default().with_activation_observer(ObserverKind::histogram()),
    ] {
        let net = Net::<Flex>::new();
        let ids = batches().remove(1);
        let float = values(net.forward(ids.clone()));
        let calibration = Calibration::new(config);
        let observed = calibration.observe(net).unwrap();
        for batch in batches() {
            observed.forward(batch);
        }
        assert_eq!(
            values(observed.forward(ids.clone())),
            float,
            "observing changes no number"
        );
        assert_eq!(calibration.statistics(&observed).len(), 2);
        let (net, report) = calibration.convert(observed).unwrap();
        assert_eq!(report.quantized().count(), 2, "{report}");
        let db = sqnr(&float, &values(net.forward(ids)));
        assert!(db > 25.0, "{db:.1} dB\n{report}");
    }
}

#[test]
fn replicas_merge_to_what_one_would_have_seen() {
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default().with_output_observer(
        ObserverConfig::activation(burn_quantized::dtype::IntDtype::INT8, MappingType::Symmetric),
    ));
    let net = Net::<Flex>::new();
    let [one, left, right] = [(); 3].map(|()| calibration.observe(net.clone()).unwrap());
    for (at, batch) in batches().into_iter().enumerate() {
        one.forward(batch.clone());
        (if at < 2 { &left } else { &right }).forward(batch);
    }
    let stored = serde_json::to_string(&calibration.statistics(&right)).unwrap();
    calibration
        .merge(&left, serde_json::from_str(&stored).unwrap())
        .unwrap();
    let ids = Net::<Flex>::ids();
    assert!(calibration.statistics(&one)["first"].output.is_some());
    let (one, _) = calibration.convert(one).unwrap();
    let (merged, _) = calibration.convert(left).unwrap();
    assert_eq!(values(one.forward(ids.clone())), values(merged.forward(ids)));
}

#[test]
fn threads_and_clones_share_observers() {
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
    let observed = calibration.observe(Net::<Flex>::new()).unwrap();
    std::thread::scope(|scope| {
        for batch in batches() {
            let replica = observed.clone();
            scope.spawn(move || replica.forward(batch));
        }
    });
    assert_eq!(calibration.statistics(&observed)["second"].activation.batches(), 4);
}

/// The inner decorator counts what the flows of the outer one read. Its kernels are not those of host memory, so ranges stay where they are.
type Inner = Quantized<burn_flex::Flex, burn_quantized::Portable>;
type Outer = Quantized<Inner, burn_quantized::Portable>;

fn two_layers<B: Backend>() -> (Linear<B>, Linear<B>) {
    let weight = |[k, n]: [usize; 2]| {
        let values = (0..k * n)
            .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
            .collect::<Vec<f32>>();
        let weight = Tensor::from_data(TensorData::new(values, [k, n]), &Default::default());
        Linear {
            weight: Param::from_tensor(weight),
            bias: None,
        }
    };
    (weight([64, 96]), weight([96, 40]))
}

fn forward_both<B: Backend>(layers: &(Linear<B>, Linear<B>), x: &[f32]) {
    let x = Tensor::<B, 2>::from_data(TensorData::new(x.to_vec(), [x.len() / 64, 64]), &Default::default());
    layers.1.forward(layers.0.forward(x));
}

#[test]
fn observers_read_nothing_until_they_are_asked_and_then_once() {
    let kinds = [
        ObserverKind::MinMax,
        ObserverKind::moving_average(),
        ObserverKind::Fixed {
            scale: 0.5,
            zero_point: 3,
        },
    ];
    // More than are kept as tensors of their own.
    let batches: Vec<Vec<f32>> = (0..150)
        .map(|batch| {
            (0..(batch % 3) * 64)
                .map(|i| ((i * 31 + batch * 17) % 97) as f32 - 40.0)
                .collect()
        })
        .collect();
    for kind in kinds {
        let output = ObserverConfig::activation(burn_quantized::dtype::IntDtype::INT8, MappingType::Asymmetric);
        let config = Int8StaticActivationInt8Weight::default()
            .asymmetric()
            .with_activation_observer(kind)
            .with_output_observer(output);
        let calibration = Calibration::new(config).even_if_slower();
        let observed = calibration.observe(two_layers::<Outer>()).unwrap();
        let on_host = calibration.observe(two_layers::<Flex>()).unwrap();
        reads::take();
        for batch in &batches {
            forward_both(&observed, batch);
        }
        assert_eq!(reads::take(), 0, "a forward pass reads nothing");
        batches.iter().for_each(|batch| forward_both(&on_host, batch));
        let want = calibration.statistics(&on_host);
        reads::take();
        let got = calibration.statistics(&observed);
        assert_eq!(reads::take(), 1, "one reading for both layers and their outputs");
        assert_eq!(got.len(), 2);
        for ((path, got), want) in got.iter().zip(want.values()) {
            assert_eq!(got, want, "{kind:?}, {path}");
        }
        forward_both(&observed, &batches[1]);
        reads::take();
        let (_, report) = calibration.convert(observed).unwrap();
        assert_eq!(reads::take(), 1 + 2, "the statistics, and each weight");
        assert!(
            report
                .layers
                .iter()
                .all(|layer| layer.note.as_ref().is_none_or(|note| !note.contains("host"))),
            "{report}"
        );
    }
}

#[test]
fn an_observer_that_needs_values_reads_them_and_the_report_says_so() {
    let config = Int8StaticActivationInt8Weight::default().with_activation_observer(ObserverKind::histogram());
    let calibration = Calibration::new(config).even_if_slower();
    let observed = calibration.observe(two_layers::<Outer>()).unwrap();
    reads::take();
    forward_both(&observed, &[0.5; 128]);
    assert_eq!(reads::take(), 2);
    let (_, report) = calibration.convert(observed).unwrap();
    for layer in &report.layers {
        let note = layer.note.as_deref().unwrap_or_default();
        assert!(note.contains("read every batch on the host"), "{report}");
    }
}

#[test]
fn a_bad_batch_that_stayed_on_the_device_is_named_too() {
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let calibration = Calibration::new(Int8StaticActivationInt8Weight::default()).even_if_slower();
        let observed = calibration.observe(two_layers::<Outer>()).unwrap();
        for batch in 0..3 {
            let mut x = vec![0.5; 128];
            x[100] = if batch == 1 { bad } else { 1.0 };
            forward_both(&observed, &x);
        }
        let error = calibration.convert(observed).unwrap_err();
        let QuantError::BadCalibration { batch: 1, reason, .. } = error.error() else {
            panic!("{error}")
        };
        assert!(reason.contains(text), "{error}");
    }
}

#[test]
fn conversion_without_batches_or_observers_is_an_error() {
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
    let observed = calibration.observe(Net::<Flex>::new()).unwrap();
    let error = calibration.convert(observed).unwrap_err();
    assert_eq!(error.error(), &QuantError::NoCalibration { layer: "first".into() });
    let observed = error.into_module();
    observed.forward(Net::<Flex>::ids());
    assert!(
        calibration.convert(observed).is_ok(),
        "the observed module came back and goes on"
    );
    assert!(calibration.convert(Net::<Flex>::new()).is_err());
}

#[test]
fn a_bad_batch_is_remembered_with_its_number() {
    for bad in [f32::NAN, f32::INFINITY] {
        let linear = LinearConfig::new(64, 32).init::<Flex>(&Default::default());
        let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
        let observed = calibration.observe(linear).unwrap();
        for batch in 0..3 {
            let mut x = vec![0.5; 2 * 64];
            x[100] = if batch == 1 { bad } else { 1.0 };
            observed.forward(Tensor::<Flex, 2>::from_data(
                TensorData::new(x, [2, 64]),
                &Default::default(),
            ));
        }
        let error = calibration.convert(observed).unwrap_err();
        assert!(
            matches!(error.error(), QuantError::BadCalibration { layer, batch: 1, .. } if layer == "weight"),
            "{error}"
        );
    }
}

#[test]
fn discarding_brings_the_float_module_back() {
    let net = Net::<Flex>::new();
    let before = values(net.forward(Net::<Flex>::ids()));
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
    let observed = calibration.observe(net).unwrap();
    assert!(
        quantize(observed.clone(), &Int8WeightOnly::default().strict()).is_err(),
        "observed layers are named"
    );
    let net = calibration.discard(observed);
    assert_eq!(values(net.forward(Net::<Flex>::ids())), before);
    assert_eq!(
        quantize(net, &Int8WeightOnly::default()).unwrap().1.quantized().count(),
        2
    );
}

#[test]
fn observed_linear_by_hand_equals_the_flow() {
    let linear = LinearConfig::new(64, 32).init::<Flex>(&Default::default());
    linear.num_params();
    let x = Tensor::<Flex, 2>::random([9, 64], burn::tensor::Distribution::Default, &Default::default());
    let config = Int8StaticActivationInt8Weight::default();
    let by_hand = ObservedLinear::new(linear.clone(), &config).unwrap();
    assert_eq!(values(by_hand.forward(x.clone())), values(linear.forward(x.clone())));
    let by_hand = by_hand.convert().unwrap();
    let calibration = Calibration::new(config);
    let observed = calibration.observe(linear).unwrap();
    observed.forward(x.clone());
    let (flow, _) = calibration.convert(observed).unwrap();
    assert_eq!(values(by_hand.forward(x.clone())), values(flow.forward(x)));
}

#[test]
fn strict_mode_refuses_the_portable_products() {
    type Portable = Quantized<burn_flex::Flex, burn_quantized::Portable>;
    let linear = LinearConfig::new(64, 96).init::<Portable>(&Default::default());
    let (linear, report) = quantize(linear, &Int8WeightOnly::default()).unwrap();
    assert_eq!(report.layers[0].kernel.as_deref(), Some("portable"));
    drop(linear);
    let linear = LinearConfig::new(64, 96).init::<Portable>(&Default::default());
    let error = quantize(linear, &Int8WeightOnly::default().strict()).unwrap_err();
    assert!(error.to_string().contains("portable"), "{error}");
}

#[test]
fn calibration_reaches_every_linear_of_stock_modules() {
    use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
    use burn::nn::{Lstm, LstmConfig, gru::Gru, gru::GruConfig};
    #[derive(Module, Debug)]
    struct Stock<B: Backend> {
        attention: MultiHeadAttention<B>,
        lstm: Lstm<B>,
        gru: Gru<B>,
    }
    impl Stock<Flex> {
        fn forward(&self, x: Tensor<Flex, 3>) -> Vec<f32> {
            let x = self.attention.forward(MhaInput::self_attn(x)).context;
            let (x, _) = self.lstm.forward(x, None);
            values(self.gru.forward(x, None))
        }
    }
    let device = Default::default();
    let stock = Stock {
        attention: MultiHeadAttentionConfig::new(64, 4).init(&device),
        lstm: LstmConfig::new(64, 64, true).init(&device),
        gru: GruConfig::new(64, 64, true).init(&device),
    };
    stock.num_params();
    let x = Tensor::<Flex, 3>::random([2, 5, 64], burn::tensor::Distribution::Normal(0.0, 1.0), &device);
    let float = stock.forward(x.clone());
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default().asymmetric()).strict();
    let observed = calibration.observe(stock).unwrap();
    assert_eq!(observed.forward(x.clone()), float);
    let (stock, report) = calibration.convert(observed).unwrap();
    assert_eq!(report.quantized().count(), 4 + 8 + 6, "{report}");
    let db = sqnr(&float, &stock.forward(x));
    assert!(db > 20.0, "{db:.1} dB\n{report}");
}

#[test]
fn a_plan_of_half_precision_weights_counts_their_scales() {
    use burn::tensor::{DType, FloatDType};
    for dtype in [FloatDType::F16, FloatDType::BF16] {
        let mut linear = LinearConfig::new(64, 96)
            .with_bias(false)
            .init::<Flex>(&Default::default());
        linear.weight = linear.weight.map(|weight| weight.cast(dtype));
        for config in [&Int4WeightOnly::new(32) as &dyn Config, &Int8WeightOnly::default()] {
            let planned = plan(&linear, config).unwrap();
            let (quantized, report) = quantize(linear.clone(), config).unwrap();
            assert_eq!(
                planned.layers[0].bytes_after, report.layers[0].bytes_after,
                "{dtype:?}\n{report}"
            );
            let x = Tensor::<Flex, 2>::ones([2, 64], &Default::default()).cast(dtype);
            assert_eq!(quantized.forward(x).dtype(), DType::from(dtype));
        }
    }
}

#[test]
fn a_layer_of_few_outputs_stays_in_float_unless_the_config_insists() {
    let linear = || LinearConfig::new(256, 10).init::<Flex>(&Default::default());
    let config = Int8DynamicActivationInt8Weight::default;
    let why = "slower than float";
    let (_, report) = quantize(linear(), &config()).unwrap();
    let layer = &report.layers[0];
    assert!(
        layer.kernel.is_none() && layer.skipped.as_ref().unwrap().contains(why),
        "{report}"
    );
    let (_, report) = quantize(linear(), &config().even_if_slower()).unwrap();
    let layer = &report.layers[0];
    assert!(layer.kernel.is_some() && layer.skipped.is_none(), "{report}");
    assert!(
        layer.note.as_ref().unwrap().contains(why) && report.to_string().contains(why),
        "{report}"
    );
    assert_eq!(
        plan(&linear(), &config().even_if_slower()).unwrap().layers[0].note,
        layer.note
    );
    let error = plan(&linear(), &config().strict()).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
    assert!(plan(&linear(), &config().even_if_slower().strict()).is_ok());
    assert!(plan(&linear(), &config().strict().even_if_slower()).is_ok());

    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default()).even_if_slower();
    let observed = calibration.observe(linear()).unwrap();
    observed.forward(Tensor::<Flex, 2>::ones([2, 256], &Default::default()));
    let (_, report) = calibration.convert(observed).unwrap();
    assert!(report.layers[0].note.as_ref().unwrap().contains(why), "{report}");
}

#[test]
fn a_report_says_why_no_kernel_serves_a_weight() {
    use burn_quantized::dtype::IntDtype;
    use burn_quantized::flow::Recipe;
    use burn_quantized::spec::{ActivationQuantization, AffineSpec, ZeroPointDomain};
    let recipe = Recipe {
        name: "float zero points, integer activations".into(),
        weight: AffineSpec::new(IntDtype::UINT4, MappingType::Asymmetric, Granularity::PerGroup(32))
            .with_zero_point_domain(ZeroPointDomain::Float),
        activation: ActivationQuantization::int8_dynamic_asymmetric(),
    };
    let linear = || LinearConfig::new(64, 160).init::<Flex>(&Default::default());
    let planned = plan(&linear(), &recipe).unwrap();
    let (_, done) = quantize(linear(), &recipe).unwrap();
    for report in [planned, done] {
        let layer = &report.layers[0];
        assert_eq!(layer.kernel.as_deref(), Some("portable"));
        assert!(layer.note.as_ref().unwrap().contains("float activations"), "{report}");
    }
    let error = plan(&linear(), &recipe.strict()).unwrap_err();
    assert!(error.to_string().contains("float activations"), "{error}");
}
