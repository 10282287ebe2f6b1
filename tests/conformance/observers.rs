//! Topic `observers`: every batch of a case is fed in order, then ranges, scales and zero points are compared.

use crate::fixtures::{Case, run};
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::observe::{
    BlockRanges, FixedObserver, HistogramObserver, MinMaxObserver, MovingAverageObserver, MseObserver, Observer,
    RangeRule,
};
use burn_quantized::primitives::{QParams, ZeroPoints};
use burn_quantized::spec::{AffineSpec, Granularity, MappingType};

#[test]
fn observers() {
    run("observers", |case| match case.text("op") {
        "affine_minmax" => ranged(case, MinMaxObserver::new(affine(case)?), MinMaxObserver::ranges),
        "minmax" | "per_channel_minmax" => ranged(case, MinMaxObserver::new(pt2e(case)?), MinMaxObserver::ranges),
        "moving_average_minmax" | "moving_average_per_channel_minmax" => {
            let constant = case.float("averaging_constant").ok_or("no averaging constant")?;
            let observer = MovingAverageObserver::new(pt2e(case)?, constant);
            ranged(case, observer, MovingAverageObserver::ranges)
        }
        "affine_fixed" => {
            let zero_point = case.float("zero_point").unwrap_or(0.0) as i32;
            let observer = feed(case, FixedObserver::new(case.float("scale").unwrap_or(1.0), zero_point))?;
            params(case, &observer)
        }
        "affine_mse" => {
            let observer = MseObserver::new(affine(case)?, case.size("steps"), case.flag("run_once"));
            let observer = feed(case, observer)?;
            case.check_floats("losses", &observer.losses().concat());
            check_ranges(case, observer.ranges())?;
            params(case, &observer)
        }
        "histogram" => histogram(case),
        op => Err(format!("unknown op {op}")),
    });
}

fn ranged<O: Observer>(case: &Case, observer: O, ranges: fn(&O) -> Option<&BlockRanges>) -> Result<(), String> {
    let observer = feed(case, observer)?;
    check_ranges(case, ranges(&observer))?;
    params(case, &observer)
}

fn histogram(case: &Case) -> Result<(), String> {
    let observer = HistogramObserver::new(pt2e(case)?, case.size("bins"), case.size("upsample_rate"));
    let observer = feed(case, observer)?;
    let histogram = observer.histogram().ok_or("no histogram")?;
    let counts: Vec<f32> = histogram.counts().iter().map(|count| *count as f32).collect();
    case.check_floats("histogram", &counts);
    case.check_floats("min_val", &[histogram.min()]);
    case.check_floats("max_val", &[histogram.max()]);
    let (min, max) = observer.searched_range().ok_or("no searched range")?;
    case.check_floats("searched_min", &[min]);
    case.check_floats("searched_max", &[max]);
    params(case, &observer)
}

/// Observes every batch of the case.
pub fn feed<O: Observer>(case: &Case, mut observer: O) -> Result<O, String> {
    for batch in 0..case.size("batches") {
        let batch = case.field(&format!("batch{batch}"));
        let dtype = batch.dtype.ok_or("a batch of integers")?;
        let observed = observer.forward(&batch.floats(), dtype, &batch.shape);
        observed.map_err(|error| error.to_string())?;
    }
    Ok(observer)
}

fn check_ranges(case: &Case, ranges: Option<&BlockRanges>) -> Result<(), String> {
    let ranges = ranges.ok_or("no ranges")?;
    case.check_floats("min_val", ranges.min());
    case.check_floats("max_val", ranges.max());
    Ok(())
}

fn params(case: &Case, observer: &impl Observer) -> Result<(), String> {
    let QParams { scale, zero_point } = observer.calculate_qparams().map_err(|error| error.to_string())?;
    case.check_floats("scale", &scale);
    let ZeroPoints::Int(zeros) = zero_point else {
        return Err("the zero points are no integers".into());
    };
    // As floats: a histogram's zero point has a tolerance.
    case.check_floats("zero_point", &zeros.iter().map(|zero| *zero as f32).collect::<Vec<_>>());
    Ok(())
}

/// The rule of the affine observers.
fn affine(case: &Case) -> Result<RangeRule, String> {
    let dtype = target(case)?;
    let mut spec = AffineSpec::new(dtype, case.mapping("mapping_type"), case.granularity("granularity"))
        .with_range(case.int("quant_min"), case.int("quant_max"))
        .with_scale_dtype(case.dtype("scale_dtype"));
    spec.eps = case.float("eps");
    Ok(spec.into())
}

/// The rule of the observers that torchao took over from PyTorch.
fn pt2e(case: &Case) -> Result<RangeRule, String> {
    let mapping = match case.text("qscheme") {
        "per_tensor_affine" | "per_channel_affine" => MappingType::Asymmetric,
        "per_tensor_symmetric" | "per_channel_symmetric" => MappingType::Symmetric,
        other => return Err(format!("unknown qscheme {other}")),
    };
    let granularity = match case.param("ch_axis").as_i64() {
        Some(axis) => Granularity::PerAxis(axis as isize),
        None => Granularity::PerTensor,
    };
    let (low, high) = (case.int("quant_min"), case.int("quant_max"));
    let range = case.flag("custom_range").then_some((low, high));
    let mut rule = RangeRule::pt2e(target(case)?, mapping, granularity, range);
    if case.flag("reduce_range") {
        rule = rule.with_reduced_range();
    }
    let spec = &rule.spec;
    if (spec.quant_min, spec.quant_max, spec.eps) != (low, high, case.float("eps")) {
        return Err(format!(
            "range and eps: got {}, {}, {:?}",
            spec.quant_min, spec.quant_max, spec.eps
        ));
    }
    if spec.scale_dtype != Some(FloatDtype::F32) {
        return Err("a scale that is not f32".into());
    }
    Ok(rule)
}

fn target(case: &Case) -> Result<IntDtype, String> {
    let name = case.text("target");
    let (signed, bits) = match name.split_at_checked(name.find(|c: char| c.is_ascii_digit()).unwrap_or(0)) {
        Some(("i" | "int", bits)) => (true, bits),
        Some(("u" | "uint", bits)) => (false, bits),
        _ => return Err(format!("unknown target {name}")),
    };
    let bits = bits.parse().map_err(|_| format!("unknown target {name}"))?;
    let dtype = if signed {
        IntDtype::int(bits)
    } else {
        IntDtype::uint(bits)
    };
    dtype.map_err(|error| error.to_string())
}
