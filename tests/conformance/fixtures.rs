//! Reads a topic of fixtures and holds results to it; the format is described in `tests/fixtures/README.md`.

use burn_quantized::dtype::FloatDtype;
use burn_quantized::spec::{Granularity, MappingType};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs `drive` on every case of a topic; panics with every failure, and with every output that `drive` did not check.
pub fn run(topic: &str, drive: impl Fn(&Case) -> Result<(), String>) {
    run_cases(topic, true, drive);
}

/// As [`run`], but outputs may be left out.
pub fn run_some(topic: &str, drive: impl Fn(&Case) -> Result<(), String>) {
    run_cases(topic, false, drive);
}

fn run_cases(topic: &str, all: bool, drive: impl Fn(&Case) -> Result<(), String>) {
    let folder = match std::env::var_os("BURN_QUANTIZED_FIXTURES") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
    };
    let read = |extension| {
        let path = folder.join(topic).with_extension(extension);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (json, bytes) = (read("json"), read("safetensors"));
    let json: Value = serde_json::from_slice(&json).expect("a topic is JSON");
    let tensors = SafeTensors::deserialize(&bytes).expect("a topic's tensors are safetensors");
    let cases = json["cases"].as_array().expect("a topic has cases");
    let (mut failures, mut compared) = (Vec::new(), 0);
    for json in cases {
        let case = Case {
            json,
            tensors: &tensors,
            failures: RefCell::default(),
            checked: RefCell::default(),
        };
        if let Err(error) = drive(&case) {
            case.failures.borrow_mut().push(error);
        }
        let checked = case.checked.into_inner();
        compared += checked.len();
        let unchecked = strings(&json["outputs"]).filter(|name| all && !checked.contains(*name));
        let unchecked = unchecked.map(|name| format!("output {name} was not compared"));
        let name = json["name"].as_str().unwrap_or_default();
        failures.extend(
            case.failures
                .into_inner()
                .into_iter()
                .chain(unchecked)
                .map(|what| format!("{name}: {what}")),
        );
    }
    println!(
        "{topic}: {} cases, {compared} outputs, {} failures",
        cases.len(),
        failures.len()
    );
    assert!(
        !cases.is_empty() && failures.is_empty(),
        "{topic}:\n{}",
        failures.join("\n")
    );
}

/// One case of a topic.
pub struct Case<'a> {
    json: &'a Value,
    tensors: &'a SafeTensors<'a>,
    failures: RefCell<Vec<String>>,
    checked: RefCell<BTreeSet<String>>,
}

/// A stored tensor as numbers; `dtype` is that of floats.
pub struct Field {
    pub shape: Vec<usize>,
    pub dtype: Option<FloatDtype>,
    pub values: Vec<f64>,
}

impl Field {
    pub fn floats(&self) -> Vec<f32> {
        self.values.iter().map(|x| *x as f32).collect()
    }

    pub fn ints(&self) -> Vec<i32> {
        self.values.iter().map(|x| *x as i32).collect()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.values.iter().map(|x| *x as u8).collect()
    }
}

impl Case<'_> {
    /// What was asked for; null when the parameter is absent.
    pub fn param(&self, key: &str) -> &Value {
        &self.json["params"][key]
    }

    pub fn text(&self, key: &str) -> &str {
        self.param(key).as_str().unwrap_or_default()
    }

    pub fn int(&self, key: &str) -> i32 {
        self.param(key)
            .as_i64()
            .unwrap_or_else(|| panic!("{key} is no integer")) as i32
    }

    pub fn size(&self, key: &str) -> usize {
        self.int(key) as usize
    }

    pub fn flag(&self, key: &str) -> bool {
        self.param(key).as_bool().unwrap_or(false)
    }

    pub fn sizes(&self, key: &str) -> Vec<usize> {
        let list = self.param(key).as_array().unwrap_or_else(|| panic!("{key} is no list"));
        list.iter()
            .map(|size| size.as_u64().expect("a size") as usize)
            .collect()
    }

    pub fn float(&self, key: &str) -> Option<f32> {
        self.param(key).as_f64().map(|x| x as f32)
    }

    pub fn dtype(&self, key: &str) -> FloatDtype {
        float_dtype(self.text(key)).unwrap_or_else(|| panic!("{key} is no float dtype: {}", self.param(key)))
    }

    pub fn mapping(&self, key: &str) -> MappingType {
        match self.text(key) {
            "symmetric" => MappingType::Symmetric,
            "symmetric_no_clipping_err" => MappingType::SymmetricNoClippingErr,
            "asymmetric" => MappingType::Asymmetric,
            other => panic!("{key} is no mapping type: {other}"),
        }
    }

    pub fn granularity(&self, key: &str) -> Granularity {
        let json = self.param(key);
        let int = |key: &str| {
            json[key]
                .as_i64()
                .unwrap_or_else(|| panic!("granularity without {key}: {json}"))
        };
        match json["type"].as_str().unwrap_or_default() {
            "PerTensor" => Granularity::PerTensor,
            "PerAxis" => Granularity::PerAxis(int("axis") as isize),
            "PerRow" => Granularity::PerRow(int("dim") as isize),
            "PerToken" => Granularity::PerToken,
            "PerGroup" => Granularity::PerGroup(int("group_size") as usize),
            "PerBlock" => {
                let sizes = json["block_size"].as_array().expect("a block size");
                Granularity::PerBlock(
                    sizes
                        .iter()
                        .map(|size| size.as_u64().expect("a size") as usize)
                        .collect(),
                )
            }
            other => panic!("unknown granularity {other}"),
        }
    }

    pub fn has(&self, output: &str) -> bool {
        strings(&self.json["outputs"]).any(|name| name == output)
    }

    /// A tensor of the case.
    pub fn field(&self, field: &str) -> Field {
        let name = format!("{}/{field}", self.json["name"].as_str().unwrap_or_default());
        let view = self
            .tensors
            .tensor(&name)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let data = view.data();
        let dtype = match view.dtype() {
            Dtype::F32 => Some(FloatDtype::F32),
            Dtype::F16 => Some(FloatDtype::F16),
            Dtype::BF16 => Some(FloatDtype::BF16),
            _ => None,
        };
        let values = match view.dtype() {
            Dtype::F32 => numbers(data, |x| f32::from_le_bytes(x) as f64),
            Dtype::F16 => numbers(data, |x| f16::from_le_bytes(x).to_f64()),
            Dtype::BF16 => numbers(data, |x| bf16::from_le_bytes(x).to_f64()),
            Dtype::I8 => numbers(data, |x| i8::from_le_bytes(x) as f64),
            Dtype::U8 => numbers(data, |x| u8::from_le_bytes(x) as f64),
            Dtype::I32 => numbers(data, |x| i32::from_le_bytes(x) as f64),
            Dtype::I64 => numbers(data, |x| i64::from_le_bytes(x) as f64),
            other => panic!("{name}: {other:?} is not read here"),
        };
        Field {
            shape: view.shape().to_vec(),
            dtype,
            values,
        }
    }

    /// Compares floats with an output, in the way that the case asks for.
    pub fn check_floats(&self, output: &str, got: &[f32]) {
        let want = self.field(output);
        self.compare(output, want.values.len(), got.len(), |rule, i| {
            let (got, want) = (got[i], want.values[i] as f32);
            let safe = self.flag("unsafe_upstream") && !want.is_finite() && got.is_finite();
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            let ok = match rule {
                Rule::Bits => same,
                Rule::Within { rtol, atol } => {
                    same || (got as f64 - want as f64).abs() <= atol + rtol * (want as f64).abs()
                }
            };
            (!ok && !safe).then(|| format!("got {got:e}, want {want:e}"))
        });
    }

    /// Compares integers with an output, by value.
    pub fn check_ints(&self, output: &str, got: &[i32]) {
        let want = self.field(output);
        self.compare(output, want.values.len(), got.len(), |_, i| {
            (got[i] as f64 != want.values[i]).then(|| format!("got {}, want {}", got[i], want.values[i]))
        });
    }

    /// Takes an output as compared: the caller holds its result to a rule of its own.
    pub fn accept(&self, output: &str) {
        self.checked.borrow_mut().insert(output.into());
    }

    /// Compares the shape of an output.
    pub fn check_shape(&self, output: &str, got: &[usize]) {
        let want = self.field(output).shape;
        if want != got {
            let failure = format!("{output}: shape {got:?}, want {want:?}");
            self.failures.borrow_mut().push(failure);
        }
    }

    fn compare(&self, output: &str, want: usize, got: usize, differ: impl Fn(&Rule, usize) -> Option<String>) {
        self.checked.borrow_mut().insert(output.into());
        let mut failures = self.failures.borrow_mut();
        if want != got {
            return failures.push(format!("{output}: {got} values, want {want}"));
        }
        let Some(rule) = Rule::read(&self.json["compare"][output]) else {
            return failures.push(format!("{output}: no rule of comparison"));
        };
        let bad: Vec<_> = (0..want)
            .filter_map(|i| differ(&rule, i).map(|what| (i, what)))
            .collect();
        if let Some((i, what)) = bad.first() {
            failures.push(format!(
                "{output}: {} of {want} differ, first at {i}: {what}",
                bad.len()
            ));
        }
    }
}

/// How an output is compared.
enum Rule {
    Bits,
    Within { rtol: f64, atol: f64 },
}

impl Rule {
    fn read(json: &Value) -> Option<Self> {
        if json == "bits" {
            return Some(Self::Bits);
        }
        let (rtol, atol) = (json["rtol"].as_f64()?, json["atol"].as_f64()?);
        Some(Self::Within { rtol, atol })
    }
}

fn float_dtype(name: &str) -> Option<FloatDtype> {
    match name {
        "f32" => Some(FloatDtype::F32),
        "f16" => Some(FloatDtype::F16),
        "bf16" => Some(FloatDtype::BF16),
        _ => None,
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn numbers<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|bytes| read(*bytes)).collect()
}
