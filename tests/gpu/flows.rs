//! The flows, on a model with an embedding and two linear layers: the same integers as on the CPU, fusion on or off.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
use burn::tensor::{Int, Tensor, backend::Backend as BurnBackend};
use burn_backend::Backend;
use burn_flex::Flex;
use burn_quantized::flow::{
    Calibration, Config, Filter, Int4WeightOnly, Int8DynamicActivationInt8Weight, Int8DynamicActivationIntxWeight,
    Int8StaticActivationInt8Weight, Int8WeightOnly, IntxWeightOnly, LayerConfig, plan, quantize,
};
use burn_quantized::kernels::QuantKernels;
use burn_quantized::spec::{Granularity, MappingType};
use burn_quantized::{Native, Quantized};

crate::on_devices!(every_config, no_rows, calibration, bad_batches, an_embedding, records);

#[derive(Module, Debug)]
struct Net<B: BurnBackend> {
    words: Embedding<B>,
    first: Linear<B>,
    second: Linear<B>,
}

impl<B: BurnBackend> Net<B> {
    fn forward(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let x = self.first.forward(self.words.forward(ids));
        // Element-wise neighbours, which fusion may join.
        self.second.forward(burn::tensor::activation::relu(x * 2.0 + 0.25))
    }

    fn new(device: &B::Device) -> Self {
        let net = Self {
            words: EmbeddingConfig::new(50, 64).init(device),
            first: LinearConfig::new(64, 96).init(device),
            second: LinearConfig::new(96, 40).with_bias(false).init(device),
        };
        net.num_params();
        net
    }

    fn ids(device: &B::Device) -> Tensor<B, 2, Int> {
        Tensor::from_data([[1, 7, 49], [0, 3, 3]], device)
    }
}

fn bytes<B: BurnBackend>(net: Net<B>) -> Vec<u8> {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    recorder.record(net.into_record(), ()).unwrap()
}

fn load<B: BurnBackend>(bytes: Vec<u8>, device: &B::Device) -> Net<B> {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    Net::new(device).load_record(recorder.load(bytes, device).unwrap())
}

fn values<B: BurnBackend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The distance of two results of one model, relative to the largest value.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    let largest = want.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    got.iter().zip(want).fold(0.0f32, |far, (x, y)| far.max((x - y).abs())) / largest
}

/// The same weights on the device and on the CPU.
fn twins<B: Backend>(device: &B::Device) -> (Net<Quantized<B>>, Net<Quantized<Flex>>)
where
    Native: QuantKernels<B>,
{
    let cpu = Net::<Quantized<Flex>>::new(&Default::default());
    (load(bytes(cpu.clone()), device), cpu)
}

fn configs() -> Vec<Box<dyn Config>> {
    let group = Granularity::PerGroup(32);
    vec![
        Box::new(Int8WeightOnly::default()),
        Box::new(Int4WeightOnly::new(32)),
        Box::new(Int4WeightOnly::new(32).symmetric()),
        Box::new(Int4WeightOnly::new(32).integer_zero_point()),
        Box::new(IntxWeightOnly::new(3, group, MappingType::Asymmetric)),
        Box::new(Int8DynamicActivationInt8Weight::default()),
        Box::new(Int8DynamicActivationInt8Weight::default().asymmetric()),
        Box::new(Int8DynamicActivationInt8Weight::default().per_tensor()),
        Box::new(Int8DynamicActivationIntxWeight::new(4, 32)),
    ]
}

fn every_config<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    for config in configs() {
        let (net, cpu) = twins::<B>(device);
        let planned = plan(&net, &*config).unwrap();
        let (net, report) = quantize(net, &*config).unwrap();
        let (cpu, cpu_report) = quantize(cpu, &*config).unwrap();
        assert_eq!(report.quantized().count(), 2, "{report}");
        for ((layer, planned), cpu) in report.layers.iter().zip(&planned.layers).zip(&cpu_report.layers) {
            assert_eq!(
                (&layer.kernel, layer.bytes_after),
                (&planned.kernel, planned.bytes_after),
                "{report}"
            );
            assert_eq!((&layer.path, layer.sqnr_db), (&cpu.path, cpu.sqnr_db), "{report}");
            assert!(
                layer.kernel.as_ref().is_none_or(|kernel| kernel.contains("cube")),
                "{report}"
            );
        }
        let got = values(net.forward(Net::<Quantized<B>>::ids(device)));
        let want = values(cpu.forward(Net::<Quantized<Flex>>::ids(&Default::default())));
        assert!(
            distance(&got, &want) < 1e-5,
            "{}: {}",
            report.layers[1].config,
            distance(&got, &want)
        );
    }
}

/// Layers take an activation without rows, with a bias and without, in both orientations.
/// What was launched before is read afterwards: a launch of nothing would end the device's stream.
fn no_rows<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    for config in configs() {
        let (net, _) = quantize(twins::<B>(device).0, &*config).unwrap();
        let rows = |columns| Tensor::<Quantized<B>, 2>::empty([0, columns], device);
        let y = net.first.forward(rows(64));
        assert_eq!(y.dims(), [0, 96]);
        let y = net.second.forward(rows(96));
        assert_eq!(y.dims(), [0, 40]);
        let y = rows(40).matmul(net.second.weight.val().transpose());
        assert_eq!(y.dims(), [0, 96]);
        let one = Tensor::<Quantized<B>, 2>::ones([1, 64], device);
        assert_eq!(values(net.first.forward(one)).len(), 96);
    }
}

fn calibration<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let (net, cpu) = twins::<B>(device);
    let calibration = Calibration::new(Int8StaticActivationInt8Weight::default().asymmetric());
    let observed = calibration.observe(net).unwrap();
    let cpu_observed = calibration.observe(cpu).unwrap();
    for i in 0..3 {
        let batch = [[i, 2 * i + 1], [49 - i, 5]];
        observed.forward(Tensor::from_data(batch, device));
        cpu_observed.forward(Tensor::from_data(batch, &Default::default()));
    }
    // What the first layer sees are rows of the embedding: the same numbers on both.
    let (seen, on_cpu) = (calibration.statistics(&observed), calibration.statistics(&cpu_observed));
    assert_eq!(seen["first"], on_cpu["first"]);
    assert_eq!(seen["second"].activation.batches(), 3);
    let (net, report) = calibration.convert(observed).unwrap();
    let (cpu, _) = calibration.convert(cpu_observed).unwrap();
    assert_eq!(report.quantized().count(), 2, "{report}");
    let got = values(net.forward(Net::<Quantized<B>>::ids(device)));
    let want = values(cpu.forward(Net::<Quantized<Flex>>::ids(&Default::default())));
    // The float sums that calibration saw may differ in the last place, and so may the scales.
    assert!(distance(&got, &want) < 2e-2, "{}", distance(&got, &want));
}

/// Statistics stay on the device, and still name a batch that was not finite.
fn bad_batches<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let bad = [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")];
    for ((bad, text), whole) in bad.into_iter().flat_map(|bad| [(bad, false), (bad, true)]) {
        let linear = LinearConfig::new(64, 96).init::<Quantized<B>>(device);
        let calibration = Calibration::new(Int8StaticActivationInt8Weight::default());
        let observed = calibration.observe(linear).unwrap();
        for batch in 0..3 {
            let mut x = vec![if whole && batch == 1 { bad } else { 0.5f32 }; 2 * 64];
            x[100] = if batch == 1 { bad } else { 1.0 };
            let x = burn::tensor::TensorData::new(x, [2, 64]);
            observed.forward(Tensor::<Quantized<B>, 2>::from_data(x, device));
        }
        let error = calibration.convert(observed).unwrap_err().to_string();
        let named = error.contains(text) && error.contains("batch 1") && error.contains("-inf") == (text == "-inf");
        assert!(named, "{error}");
    }
}

fn an_embedding<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let (net, cpu) = twins::<B>(device);
    let config = Int8WeightOnly::default().filter(Filter::embedding()).unwrap();
    let (net, report) = quantize(net, &config).unwrap();
    let (cpu, _) = quantize(cpu, &config).unwrap();
    assert_eq!(
        report.quantized().map(|layer| layer.path.as_str()).collect::<Vec<_>>(),
        ["words"]
    );
    let got = net.words.forward(Net::<Quantized<B>>::ids(device));
    let want = cpu.words.forward(Net::<Quantized<Flex>>::ids(&Default::default()));
    assert_eq!(values(got), values(want));
}

/// A model that was quantized on the device loads on the CPU with the same codes, and back.
fn records<B: Backend>(device: &B::Device)
where
    Native: QuantKernels<B>,
{
    let (net, _) = twins::<B>(device);
    let (net, _) = quantize(net, &Int8DynamicActivationIntxWeight::new(4, 32)).unwrap();
    let before = values(net.forward(Net::<Quantized<B>>::ids(device)));
    let stored = bytes(net);
    let cpu = load::<Quantized<Flex>>(stored.clone(), &Default::default());
    assert_eq!(bytes(cpu.clone()), stored);
    let want = values(cpu.forward(Net::<Quantized<Flex>>::ids(&Default::default())));
    assert!(distance(&before, &want) < 1e-5);
    let again = load::<Quantized<B>>(stored, device);
    assert_eq!(values(again.forward(Net::<Quantized<B>>::ids(device))), before);
}

/// The error names the layer and both devices. No second device is needed: the weight only says that it is on one.
#[cfg(feature = "wgpu")]
#[test]
#[should_panic(
    expected = "linear: a tensor on DefaultDevice meets the quantized weight [64, 96] of layer first on Existing(7): move one of them"
)]
fn another_device_is_refused_by_name() {
    use burn::tensor::TensorPrimitive;
    use burn_backend::ops::ModuleOps;
    use burn_quantized::backend::FloatPrimitive;
    type B = Quantized<crate::device::Wgpu>;
    let device = crate::device::wgpu();
    let (net, _) = quantize(Net::<B>::new(&device), &Int8WeightOnly::default()).unwrap();
    let TensorPrimitive::QFloat(mut weight) = net.first.weight.val().into_primitive() else {
        panic!("a quantized weight")
    };
    weight.device = burn_wgpu::WgpuDevice::Existing(7);
    let x = Tensor::<B, 2>::ones([2, 64], &device).into_primitive().tensor();
    B::linear(x, FloatPrimitive::Packed(weight), None);
}
