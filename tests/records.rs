//! Records: quantized modules saved and loaded by Burn's recorders and burn-store, and everything that a file can get wrong.

use burn::module::{AutodiffModule, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, LinearLayout};
use burn::record::{
    BinBytesRecorder, FullPrecisionSettings, HalfPrecisionSettings, NamedMpkBytesRecorder, NamedMpkFileRecorder,
    Recorder,
};
use burn::tensor::quantization::{QuantLevel, QuantScheme, QuantValue};
use burn::tensor::{DType, Int, Tensor, TensorData, TensorPrimitive, backend::Backend};
use burn_autodiff::Autodiff;
use burn_quantized::Quantized;
use burn_quantized::flow::{
    Calibration, Config, Filter, Int4WeightOnly, Int8DynamicActivationInt8Weight, Int8DynamicActivationIntxWeight,
    Int8StaticActivationInt8Weight, Int8WeightOnly, IntxWeightOnly, LayerConfig, freeze, quantize, thaw,
};
use burn_quantized::io::verify;
use burn_quantized::spec::{Granularity, MappingType};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Plain = burn_flex::Flex;
type Flex = Quantized<Plain>;
type PlainNdArray = burn_ndarray::NdArray;
type NdArray = Quantized<PlainNdArray>;

#[derive(Module, Debug)]
struct Net<B: Backend> {
    words: Embedding<B>,
    first: Linear<B>,
    col: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new() -> Self {
        let device = Default::default();
        let net = Self {
            words: EmbeddingConfig::new(40, 64).init(&device),
            first: LinearConfig::new(64, 100).init(&device),
            col: LinearConfig::new(100, 48).with_layout(LinearLayout::Col).init(&device),
        };
        net.num_params();
        net
    }

    fn forward(&self) -> Vec<f32> {
        let ids = Tensor::<B, 2, Int>::from_data([[1, 7, 39], [0, 3, 3]], &Default::default());
        values(self.col.forward(self.first.forward(self.words.forward(ids))))
    }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The quantized forms that a record must bring back.
fn every_form<B: Backend>() -> Vec<Net<Quantized<B>>>
where
    burn_quantized::Native: burn_quantized::kernels::QuantKernels<B>,
{
    let all = || Filter::linear().or(Filter::embedding());
    let group = Granularity::PerGroup(32);
    let configs: Vec<Box<dyn Config>> = vec![
        Box::new(Int8WeightOnly::default().filter(all()).unwrap()),
        Box::new(Int4WeightOnly::new(32).filter(all()).unwrap()),
        Box::new(Int4WeightOnly::new(32).integer_zero_point()),
        Box::new(IntxWeightOnly::new(3, group.clone(), MappingType::Asymmetric)),
        Box::new(IntxWeightOnly::new(1, group, MappingType::Symmetric)),
        Box::new(Int8DynamicActivationInt8Weight::default()),
        Box::new(Int8DynamicActivationIntxWeight::new(4, 32)),
    ];
    let mut nets: Vec<_> = configs
        .iter()
        .map(|config| quantize(Net::new(), &**config).unwrap().0)
        .collect();
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default().asymmetric());
    let observed = calibration.observe(Net::new()).unwrap();
    observed.forward();
    nets.push(calibration.convert(observed).unwrap().0);
    nets
}

macro_rules! round_trip {
    ($backend:ty, $recorder:ty) => {{
        let recorder = <$recorder>::default();
        for net in every_form::<$backend>() {
            // Biases stay in float: at half precision they are rounded once, so the second trip is the one that changes nothing.
            let bytes = recorder.record(net.into_record(), ()).unwrap();
            let once = Net::<Quantized<$backend>>::new()
                .load_record(recorder.load(bytes.clone(), &Default::default()).unwrap());
            assert_eq!(verify(&once), Ok(()));
            let again = recorder.record(once.clone().into_record(), ()).unwrap();
            assert!(again == bytes, "the second record equals the first");
            let twice = Net::<Quantized<$backend>>::new()
                .load_record(recorder.load(again, &Default::default()).unwrap());
            assert_eq!(once.forward(), twice.forward());
        }
    }};
}

#[test]
fn recorders_keep_every_bit() {
    round_trip!(Plain, NamedMpkBytesRecorder<FullPrecisionSettings>);
    round_trip!(Plain, NamedMpkBytesRecorder<HalfPrecisionSettings>);
    round_trip!(Plain, BinBytesRecorder<FullPrecisionSettings>);
    round_trip!(Plain, BinBytesRecorder<HalfPrecisionSettings>);
    round_trip!(PlainNdArray, NamedMpkBytesRecorder<FullPrecisionSettings>);
    round_trip!(PlainNdArray, BinBytesRecorder<HalfPrecisionSettings>);
}

#[test]
fn full_precision_gives_the_same_outputs() {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    for net in every_form::<Plain>() {
        let want = net.forward();
        let bytes = recorder.record(net.into_record(), ()).unwrap();
        let net = Net::<Flex>::new().load_record(recorder.load(bytes.clone(), &Default::default()).unwrap());
        assert_eq!(net.forward(), want);
        let other = Net::<NdArray>::new().load_record(recorder.load(bytes, &Default::default()).unwrap());
        assert!(
            want.iter()
                .zip(other.forward())
                .all(|(x, y)| (x - y).abs() < 1e-4 * (1.0 + x.abs()))
        );
    }
}

#[test]
fn files_load_into_a_fresh_module() {
    let path = std::env::temp_dir().join(format!("burn-quantized-records-{}", std::process::id()));
    let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::default();
    let (net, _) = quantize(Net::<Flex>::new(), &Int4WeightOnly::new(32)).unwrap();
    let want = net.forward();
    net.save_file(&path, &recorder).unwrap();
    let net = Net::<Flex>::new()
        .load_file(&path, &recorder, &Default::default())
        .unwrap();
    std::fs::remove_file(path.with_extension("mpk")).unwrap();
    assert_eq!(net.forward(), want);
}

/// Through a burnpack in memory, into a fresh module.
fn burnpack<M: Module<Flex>>(net: &M, mut fresh: M) -> Result<M, String> {
    use burn_store::{BurnpackStore, ModuleSnapshot};
    let mut store = BurnpackStore::from_bytes(None);
    net.save_into(&mut store).map_err(|error| error.to_string())?;
    let mut store = BurnpackStore::from_bytes(Some(store.get_bytes().unwrap()));
    fresh.load_from(&mut store).map_err(|error| error.to_string())?;
    Ok(fresh)
}

#[test]
fn burnpack_keeps_every_bit() {
    // burn-store 0.21 checks shapes before the load mapper of LinearLayout::Col: it refuses a float Col weight that is not square, too.
    assert!(
        burnpack(&Net::<Flex>::new(), Net::new())
            .unwrap_err()
            .contains("ShapeMismatch")
    );
    for mut net in every_form::<Plain>() {
        net.col = LinearConfig::new(100, 100).init(&Default::default());
        let (net, _) = quantize(net, &Int8WeightOnly::default()).unwrap();
        let want = net.forward();
        let mut fresh = Net::new();
        fresh.col = LinearConfig::new(100, 100).init(&Default::default());
        let loaded = burnpack(&net, fresh).unwrap();
        assert_eq!(verify(&loaded), Ok(()));
        assert_eq!(loaded.forward(), want);
    }
}

#[test]
fn stock_quantized_records_load() {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    for value in [QuantValue::Q8S, QuantValue::Q4S] {
        for level in [QuantLevel::Tensor, QuantLevel::block([32])] {
            let scheme = QuantScheme::default().with_value(value).with_level(level);
            let stock = LinearConfig::new(64, 96).init::<Plain>(&Default::default());
            let stock = stock.quantize_weights(&mut burn::module::Quantizer {
                calibration: burn::tensor::quantization::Calibration::MinMax,
                scheme,
            });
            let x = Tensor::<Plain, 2>::random([5, 64], burn::tensor::Distribution::Default, &Default::default());
            let want = values(stock.forward(x.clone()));
            let bytes = recorder.record(stock.into_record(), ()).unwrap();
            let ours = LinearConfig::new(64, 96).init::<Flex>(&Default::default());
            let ours = ours.load_record(recorder.load(bytes, &Default::default()).unwrap());
            let got = values(ours.forward(Tensor::<Flex, 2>::from_data(x.into_data(), &Default::default())));
            let worst = want.iter().zip(&got).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{value:?} {level:?}: {worst}");
        }
    }
}

/// The data of a quantized `Linear` weight as a recorder stores it.
fn weight_data() -> TensorData {
    let linear = LinearConfig::new(64, 96).init::<Flex>(&Default::default());
    let (linear, _) = quantize(linear, &Int8WeightOnly::default()).unwrap();
    linear.weight.val().into_data()
}

fn load(data: TensorData) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let tensor = Tensor::<Flex, 2>::from_data(data, &Default::default());
        assert!(matches!(tensor.into_primitive(), TensorPrimitive::QFloat(_)));
    }));
    result.map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn damaged_records_are_refused_by_layer_and_field() {
    assert_eq!(load(weight_data()), Ok(()));
    let change = |f: &dyn Fn(&mut Vec<u8>)| {
        let data = weight_data();
        let (shape, dtype) = (data.shape.clone(), data.dtype);
        let mut bytes = data.bytes.to_vec();
        f(&mut bytes);
        load(TensorData::from_bytes_vec(bytes, shape, dtype)).unwrap_err()
    };
    let codes_at = |bytes: &[u8]| 16 + u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize + 96 * 4;
    let damaged = change(&|bytes| {
        let at = codes_at(bytes) + 5;
        bytes[at] ^= 4;
    });
    assert!(
        damaged.contains("`weight`") && damaged.contains("codes") && damaged.contains("damaged"),
        "{damaged}"
    );
    let scale = change(&|bytes| {
        let at = codes_at(bytes) - 5;
        bytes[at] ^= 4;
    });
    assert!(scale.contains("scale"), "{scale}");
    let cut = change(&|bytes| {
        let at = codes_at(bytes) + 100;
        bytes.truncate(at);
    });
    assert!(cut.contains("codes") && cut.contains("cut off"), "{cut}");
    let newer = change(&|bytes| bytes[7] = 9);
    assert!(newer.contains("version"), "{newer}");
    let data = weight_data();
    let reshaped = load(TensorData::from_bytes_vec(data.bytes.to_vec(), [96, 64], data.dtype)).unwrap_err();
    assert!(reshaped.contains("shape") && reshaped.contains("weight"), "{reshaped}");
}

#[test]
fn a_plain_backend_never_reads_our_records_as_numbers() {
    for (k, n) in [(64, 96), (256, 32), (33, 65), (128, 128), (1000, 24), (24, 1000)] {
        for bits in 1..=8 {
            let linear = LinearConfig::new(k, n).init::<Flex>(&Default::default());
            let config = IntxWeightOnly::new(bits, Granularity::PerGroup(32), MappingType::Asymmetric);
            let (linear, report) = quantize(linear, &config).unwrap();
            if report.layers[0].kernel.is_none() {
                continue;
            }
            let data = linear.weight.val().into_data();
            assert!(matches!(data.dtype, DType::QFloat(_)));
            assert!(!reads::<Plain>(data.clone()), "Flex read {k}x{n}, {bits} bits");
            assert!(!reads::<PlainNdArray>(data), "NdArray read {k}x{n}, {bits} bits");
        }
    }
}

#[test]
fn a_plain_backend_refuses_every_carrier() {
    use burn::tensor::quantization::{QuantParam, QuantStore};
    let families = [
        (QuantValue::Q2S, QuantParam::UE8M0, 0, 1),
        (QuantValue::Q2S, QuantParam::F16, 0, 2),
        (QuantValue::Q2S, QuantParam::F32, 0, 4),
        (QuantValue::E4M3, QuantParam::UE8M0, 1, 1),
        (QuantValue::E4M3, QuantParam::F16, 1, 2),
    ];
    let payload = weight_data().bytes.to_vec();
    for (value, param, byte_a_value, size) in families {
        for [height, width] in [[1, 1], [1, 8], [2, 2], [64, 96]] {
            let level = QuantLevel::block([height as u8, width as u8]);
            let scheme = QuantScheme::default().with_store(QuantStore::Native);
            let scheme = scheme.with_value(value).with_param(param).with_level(level);
            let mut bytes = payload.clone();
            bytes.resize(64 * 96 * byte_a_value + (64 / height) * (96 / width) * size, 0);
            let data = TensorData::from_bytes_vec(bytes, [64, 96], DType::QFloat(scheme));
            assert!(!reads::<Plain>(data.clone()), "Flex read {scheme:?}");
            assert!(!reads::<PlainNdArray>(data), "NdArray read {scheme:?}");
        }
    }
}

/// Whether a plain backend turns a quantized record into numbers.
fn reads<B: Backend>(data: TensorData) -> bool {
    catch_unwind(AssertUnwindSafe(|| {
        values(Tensor::<B, 2>::from_data(data, &Default::default()).dequantize())
    }))
    .is_ok()
}

#[test]
fn a_transpose_that_burn_forgets_is_found() {
    // Burn 0.21 drops the mappers of a Param in `valid()`, so a Col weight is then saved without its transpose.
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    let config = LinearConfig::new(64, 64).with_layout(LinearLayout::Col);
    let trained = config.init::<Autodiff<Flex>>(&Default::default()).valid();
    let (linear, _) = quantize(trained, &Int8WeightOnly::default()).unwrap();
    let x = Tensor::<Flex, 2>::ones([2, 64], &Default::default());
    let want = values(linear.forward(x.clone()));
    let bytes = recorder.record(linear.into_record(), ()).unwrap();
    let load = |config: &LinearConfig| {
        let fresh = config.init::<Flex>(&Default::default());
        fresh.load_record(recorder.load(bytes.clone(), &Default::default()).unwrap())
    };
    let found = verify(&load(&config)).unwrap_err().to_string();
    assert!(found.contains("`weight`") && found.contains("LinearLayout"), "{found}");
    // The record itself is whole: with the Row layout it loads and computes what was saved.
    let row = load(&LinearConfig::new(64, 64));
    assert_eq!(verify(&row), Ok(()));
    assert_eq!(values(row.forward(x)), want);
}

#[test]
fn weights_of_other_layers_are_found() {
    #[derive(Module, Debug)]
    struct Pair<B: Backend> {
        left: Linear<B>,
        right: Linear<B>,
    }
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init::<Flex>(&Default::default());
    let pair = Pair {
        left: linear(64, 96),
        right: linear(64, 80),
    };
    let (pair, _) = quantize(pair, &Int8WeightOnly::default()).unwrap();
    assert_eq!(verify(&pair), Ok(()));
    let mut swapped = Pair {
        left: pair.right,
        right: pair.left,
    };
    std::mem::swap(&mut swapped.left.bias, &mut swapped.right.bias);
    let found = verify(&swapped).unwrap_err();
    assert!(found.to_string().contains("saved from layer `right`"), "{found}");
    assert!(found.to_string().contains("80 outputs, the bias 96"), "{found}");
}

#[test]
fn forked_detached_and_valid_modules_save_codes() {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    let (net, _) = quantize(Net::<Flex>::new(), &Int4WeightOnly::new(32)).unwrap();
    let want = recorder.record(net.clone().into_record(), ()).unwrap();
    let forked = net.clone().fork(&Default::default());
    assert!(
        recorder.record(forked.into_record(), ()).unwrap() == want,
        "a fork saves its codes by its save mapper"
    );
    let valid = freeze::<Autodiff<Flex>, _, _, _>(net.clone()).valid();
    let thawed = thaw(valid);
    let output = thawed.forward();
    assert_eq!(output, net.forward());
    assert!(matches!(
        thawed.first.weight.val().into_primitive(),
        TensorPrimitive::QFloat(_)
    ));
}

#[test]
fn a_frozen_base_passes_gradients_and_adapters_train() {
    type Ad = Autodiff<Flex>;
    let linear = LinearConfig::new(64, 48).init::<Flex>(&Default::default());
    let (linear, _) = quantize(linear, &Int8WeightOnly::default()).unwrap();
    let dense: Tensor<Flex, 2> = Tensor::from_data(linear.weight.val().dequantize().into_data(), &Default::default());
    let bias = linear.bias.as_ref().map(|bias| Tensor::<Ad, 1>::from_inner(bias.val()));
    let frozen = freeze::<Ad, _, _, _>(linear);
    let dense = Tensor::<Ad, 2>::from_inner(dense);
    let x = Tensor::<Flex, 2>::random([6, 64], burn::tensor::Distribution::Default, &Default::default());
    let grad = |forward: &dyn Fn(Tensor<Ad, 2>) -> Tensor<Ad, 2>| {
        let x = Tensor::<Ad, 2>::from_inner(x.clone()).require_grad();
        let y = forward(x.clone());
        let gradients = (y.clone() * y.clone()).sum().backward();
        (values(y), values(x.grad(&gradients).unwrap()))
    };
    let (y, dx) = grad(&|x| frozen.forward(x));
    let (y_dense, dx_dense) = grad(&|x| burn::tensor::module::linear(x, dense.clone(), bias.clone()));
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-4 * (1.0 + y.abs()));
    assert!(close(&y, &y_dense) && close(&dx, &dx_dense));
    // An adapter beside the frozen base trains: its loss falls, the base stays.
    use burn::optim::{GradientsParams, Optimizer, SgdConfig};
    #[derive(Module, Debug)]
    struct Adapted<B: Backend> {
        base: Linear<B>,
        adapter: Linear<B>,
    }
    let adapter = LinearConfig::new(64, 48).init::<Ad>(&Default::default());
    let mut model = Adapted { base: frozen, adapter };
    let mut optimizer = SgdConfig::new().init::<Ad, Adapted<Ad>>();
    let mut losses = vec![];
    let x = Tensor::<Ad, 2>::from_inner(x);
    for _ in 0..20 {
        let y = model.base.forward(x.clone()) + model.adapter.forward(x.clone());
        let loss = (y.clone() * y).mean();
        losses.push(loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.5, model, gradients);
    }
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
    assert!(matches!(
        thaw(model.valid().base).weight.val().into_primitive(),
        TensorPrimitive::QFloat(_)
    ));
}
