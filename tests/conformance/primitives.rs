//! Topics `affine_primitives`, `ties` and `tinygemm`.

use crate::fixtures::{Case, run};
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::primitives::{
    Affine, QParams, ZeroPoints, choose_qparams_affine, choose_qparams_affine_dont_preserve_zero,
    choose_qparams_affine_with_min_max, dequantize_affine, fake_quantize_affine, quantize_affine,
};
use burn_quantized::spec::{ActivationQuantization, AffineSpec, BlockGrid, Granularity, MappingType, ZeroPointDomain};
use burn_quantized::tensor::{AffineQuantizedTensor, reference_linear};

#[test]
fn affine_primitives() {
    run("affine_primitives", |case| {
        match case.text("op") {
            "choose_qparams" => choose(case, choose_qparams_affine),
            "dont_preserve_zero" => choose(case, choose_qparams_affine_dont_preserve_zero),
            "min_max" => min_max(case),
            "no_zero_point" => given(case, ZeroPoints::None),
            "fake_quantize" => given(case, ZeroPoints::Int(case.field("zero_point").ints())),
            op => return Err(format!("unknown op {op}")),
        }
        Ok(())
    });
}

#[test]
fn ties() {
    run("ties", |case| {
        let zero = case.field("zero_point").ints();
        match case.text("op") {
            "quantize" => given(case, ZeroPoints::Int(zero)),
            op => return Err(format!("unknown op {op}")),
        }
        if case.has("chosen_scale") {
            let spec = spec(case, MappingType::Asymmetric, Granularity::PerRow(-1));
            let input = case.field("input").floats();
            let params = choose_qparams_affine(&input, case.dtype("input_dtype"), &case.sizes("shape"), &spec);
            let params = params.map_err(|error| error.to_string())?;
            case.check_floats("chosen_scale", &params.scale);
            check_zero_point(case, "chosen_zero_point", &params.zero_point);
        }
        Ok(())
    });
}

#[test]
fn tinygemm() {
    run("tinygemm", |case| {
        let (dtype, shape) = (case.dtype("input_dtype"), case.sizes("shape"));
        let spec = spec(
            case,
            MappingType::Asymmetric,
            Granularity::PerGroup(case.size("group_size")),
        )
        .with_zero_point_domain(ZeroPointDomain::Float)
        .with_zero_point_dtype(case.dtype("zero_point_dtype"));
        let weight = case.field("weight").floats();
        let params = choose_qparams_affine(&weight, dtype, &shape, &spec).map_err(|error| error.to_string())?;
        let grid = grid(case);
        let affine = view(case, &grid, &params, &spec, dtype);
        case.check_floats("scale", &params.scale);
        check_zero_point(case, "zero_point", &params.zero_point);
        check_codes(case, &quantize_affine(&weight, dtype, &affine), &affine, dtype);
        if affine.mid() as f64 != case.param("mid").as_f64().unwrap_or(f64::NAN) {
            return Err(format!("mid: got {}", affine.mid()));
        }
        if case.flag("linear") {
            let ZeroPoints::Float(zero) = &params.zero_point else {
                return Err("no float zero point".into());
            };
            let groups = grid.dims()[1];
            let group_first: Vec<f32> = (0..groups)
                .flat_map(|group| (0..shape[0]).map(move |row| row * groups + group))
                .flat_map(|block| [params.scale[block], zero[block]])
                .collect();
            case.check_floats("scales_and_zeros", &group_first);
            let activation = case.field("activation");
            let bias = case.flag("bias").then(|| case.field("bias").floats());
            let rows = activation.values.len() / shape[1];
            let quantized = AffineQuantizedTensor::quantize(&weight, dtype, &shape, &spec).expect("a weight");
            let none = ActivationQuantization::None;
            let x = activation.floats();
            case.check_floats(
                "output",
                &reference_linear(&x, rows, dtype, &quantized, &none, bias.as_deref()),
            );
        }
        Ok(())
    });
}

type Choose = fn(&[f32], FloatDtype, &[usize], &AffineSpec) -> burn_quantized::Result<QParams>;

/// Chooses parameters, quantizes and dequantizes with them.
fn choose(case: &Case, choose: Choose) {
    let (dtype, shape) = (case.dtype("input_dtype"), case.sizes("shape"));
    let spec = spec(case, case.mapping("mapping_type"), case.granularity("granularity"));
    assert_eq!(
        spec.granularity.block_size(&shape).expect("a block size"),
        case.sizes("block_size")
    );
    let input = case.field("input").floats();
    let params = choose(&input, dtype, &shape, &spec).expect("parameters");
    let grid = grid(case);
    let scale_shape = if case.flag("keepdim") {
        grid.dims().to_vec()
    } else {
        grid.squeezed()
    };
    case.check_shape("scale", &scale_shape);
    case.check_floats("scale", &params.scale);
    let affine = view(case, &grid, &params, &spec, dtype);
    if case.flag("unsafe_upstream") {
        let spread = input.iter().zip(fake_quantize_affine(&input, dtype, &affine));
        assert!(
            spread.map(|(x, y)| (x - y).abs()).all(|error| error <= params.scale[0]),
            "a finite range is kept"
        );
        return case.accept("zero_point");
    }
    check_zero_point(case, "zero_point", &params.zero_point);
    if case.has("codes") {
        check_codes(case, &quantize_affine(&input, dtype, &affine), &affine, dtype);
    }
    if case.has("fake_quantized") {
        case.check_floats("fake_quantized", &fake_quantize_affine(&input, dtype, &affine));
    }
}

fn min_max(case: &Case) {
    let spec = spec(case, case.mapping("mapping_type"), Granularity::PerTensor);
    let (min, max) = (case.field("min_val").floats(), case.field("max_val").floats());
    let params = choose_qparams_affine_with_min_max(&min, &max, case.dtype("input_dtype"), &spec).expect("parameters");
    case.check_floats("scale", &params.scale);
    check_zero_point(case, "zero_point", &params.zero_point);
}

/// Quantizes with the scales and zero points of the case.
fn given(case: &Case, zero_point: ZeroPoints) {
    let (dtype, grid, input) = (case.dtype("input_dtype"), grid(case), case.field("input").floats());
    let (mut scale, mut zero_point) = (case.field("scale").floats(), zero_point);
    if let (1, ZeroPoints::Int(zero)) = (scale.len(), &mut zero_point) {
        scale.resize(grid.len(), scale[0]);
        zero.resize(grid.len(), zero[0]);
    }
    let params = QParams { scale, zero_point };
    let spec = spec(case, MappingType::Asymmetric, Granularity::PerTensor);
    let affine = view(case, &grid, &params, &spec, dtype);
    check_codes(case, &quantize_affine(&input, dtype, &affine), &affine, dtype);
    if case.has("fake_quantized") {
        case.check_floats("fake_quantized", &fake_quantize_affine(&input, dtype, &affine));
    }
}

fn check_codes(case: &Case, codes: &[i32], affine: &Affine, dtype: FloatDtype) {
    case.check_ints("codes", codes);
    for (output, dtype) in [("dequantized_f32", FloatDtype::F32), ("dequantized", dtype)] {
        if case.has(output) {
            assert_eq!(case.field(output).dtype, Some(dtype));
            case.check_floats(output, &dequantize_affine(codes, affine, dtype));
        }
    }
}

fn check_zero_point(case: &Case, output: &str, zero_point: &ZeroPoints) {
    match zero_point {
        ZeroPoints::None => {}
        ZeroPoints::Int(zero) => case.check_ints(output, zero),
        ZeroPoints::Float(zero) => case.check_floats(output, zero),
    }
}

fn spec(case: &Case, mapping: MappingType, granularity: Granularity) -> AffineSpec {
    let (low, high) = (case.int("quant_min"), case.int("quant_max"));
    let dtype = if low < 0 { IntDtype::INT8 } else { IntDtype::UINT8 };
    let spec = AffineSpec::new(dtype, mapping, granularity)
        .with_range(low, high)
        .with_scale_dtype(case.dtype("scale_dtype"));
    match case.float("eps") {
        Some(eps) => spec.with_eps(eps),
        None => spec,
    }
}

fn grid(case: &Case) -> BlockGrid {
    BlockGrid::new(&case.sizes("shape"), &case.sizes("block_size")).expect("a grid")
}

fn view<'a>(
    case: &Case,
    grid: &'a BlockGrid,
    params: &'a QParams,
    spec: &AffineSpec,
    input_dtype: FloatDtype,
) -> Affine<'a> {
    Affine {
        grid,
        scale: &params.scale,
        scale_dtype: case.dtype("scale_dtype"),
        zero_point: &params.zero_point,
        zero_point_dtype: spec.zero_point_dtype.unwrap_or(input_dtype),
        quant_min: spec.quant_min,
        quant_max: spec.quant_max,
    }
}
