//! Rules that hold for every input: error bounds, packing, block grids, round trips of quantized tensors.

use burn_quantized::dtype::pack::{
    NibbleOrder, PackedRows, pack_nibbles, pack_shards, pack_signed_nibbles, unpack_nibbles, unpack_shards,
    unpack_signed_nibbles,
};
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::primitives::QParams;
use burn_quantized::spec::{
    ActivationQuantization, ActivationScale, AffineSpec, BlockGrid, Granularity, MappingType, ZeroPointDomain,
};
use burn_quantized::tensor::payload::Payload;
use burn_quantized::tensor::{AffineQuantizedTensor, quantize_activation};
use proptest::collection::vec;
use proptest::prelude::*;

fn dtypes() -> impl Strategy<Value = IntDtype> {
    (any::<bool>(), 1u32..=8).prop_map(|(signed, bits)| {
        let dtype = if signed {
            IntDtype::int(bits)
        } else {
            IntDtype::uint(bits)
        };
        dtype.expect("1 to 8 bits")
    })
}

fn float_dtypes() -> impl Strategy<Value = FloatDtype> {
    prop_oneof![Just(FloatDtype::F32), Just(FloatDtype::F16), Just(FloatDtype::BF16)]
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    vec(0usize..9, 1..4)
}

fn granularities() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        (-3isize..3).prop_map(Granularity::PerAxis),
        (-3isize..3).prop_map(Granularity::PerRow),
        Just(Granularity::PerToken),
        (1usize..12).prop_map(Granularity::PerGroup),
        vec(1usize..6, 1..4).prop_map(Granularity::PerBlock),
    ]
}

/// A spec that passes `validate`, of any dtype, range, mapping and domain.
fn specs() -> impl Strategy<Value = AffineSpec> {
    let mapping = prop_oneof![
        Just(MappingType::Symmetric),
        Just(MappingType::SymmetricNoClippingErr),
        Just(MappingType::Asymmetric),
    ];
    let domain = prop_oneof![
        Just(ZeroPointDomain::Int),
        Just(ZeroPointDomain::Float),
        Just(ZeroPointDomain::None),
    ];
    (dtypes(), mapping, domain, granularities())
        .prop_map(|(dtype, mapping, domain, granularity)| {
            AffineSpec::new(dtype, mapping, granularity).with_zero_point_domain(domain)
        })
        .prop_filter("parts that go together", |spec| spec.validate().is_ok())
}

/// A shape and its values over many magnitudes, some of them equal.
fn tensors() -> impl Strategy<Value = (Vec<usize>, Vec<f32>)> {
    let value = prop_oneof![
        4 => -1.0f32..1.0,
        1 => -1e4f32..1e4,
        1 => Just(0.0f32),
        1 => -1e-3f32..1e-3,
    ];
    shapes().prop_flat_map(move |shape| {
        let elements = shape.iter().product::<usize>();
        (Just(shape), vec(value.clone(), elements))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_global_rejects: 1 << 20, ..ProptestConfig::default() })]

    #[test]
    fn a_value_comes_back_within_half_a_step(
        (shape, values) in tensors(),
        spec in specs(),
        dtype in float_dtypes(),
    ) {
        prop_assume!(spec.granularity.block_size(&shape).is_ok());
        let spec = spec.with_scale_dtype(FloatDtype::F32);
        let values: Vec<f32> = values.into_iter().map(|x| dtype.round(x)).collect();
        let quantized = AffineQuantizedTensor::quantize(&values, dtype, &shape, &spec).unwrap();
        let (low, high) = (spec.quant_min, spec.quant_max);
        prop_assert!(quantized.codes().iter().all(|code| (low..=high).contains(code)));

        // The range is covered up to the rounding of its own arithmetic: some ulp of the largest value in T, and of the number of steps.
        let ulp = match dtype {
            FloatDtype::F32 => f32::EPSILON,
            FloatDtype::F16 => 2f32.powi(-10),
            FloatDtype::BF16 => 2f32.powi(-7),
        };
        let grid = quantized.grid();
        let mut largest = vec![0f32; grid.len()];
        for (run, block) in grid.runs() {
            largest[block] = values[run].iter().fold(largest[block], |largest, x| largest.max(x.abs()));
        }
        let back = quantized.dequantize(FloatDtype::F32);
        for (at, (x, y)) in values.iter().zip(&back).enumerate() {
            let block = grid.block_of(at);
            let scale = quantized.parts().scale[block];
            let slack = 4.0 * ulp * (largest[block] + scale * (high - low) as f32);
            prop_assert!((x - y).abs() <= scale / 2.0 + slack, "{x} came back as {y}, scale {scale}");
        }
    }

    #[test]
    fn quantizing_again_changes_nothing((shape, values) in tensors(), spec in specs()) {
        prop_assume!(spec.granularity.block_size(&shape).is_ok());
        let first = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &shape, &spec).unwrap();
        let params = QParams {
            scale: first.parts().scale.clone(),
            zero_point: first.parts().zero_point.clone(),
        };
        // A float zero point far from zero takes digits from the steps; then the codes cannot be told from the values.
        prop_assume!(spec.zero_point_domain != ZeroPointDomain::Float);
        let back = first.dequantize(FloatDtype::F32);
        let again = AffineQuantizedTensor::quantize_with(&back, FloatDtype::F32, &shape, &spec, params).unwrap();
        prop_assert_eq!(first, again);
    }

    #[test]
    fn a_tensor_comes_back_from_its_parts_and_bytes((shape, values) in tensors(), spec in specs(), path in ".{0,12}") {
        prop_assume!(spec.granularity.block_size(&shape).is_ok());
        let tensor = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &shape, &spec).unwrap();
        let from_codes = AffineQuantizedTensor::from_codes(tensor.parts().clone(), &tensor.codes()).unwrap();
        prop_assert_eq!(&from_codes, &tensor);
        let bytes = tensor.packed_codes().as_bytes().to_vec();
        let from_packed = AffineQuantizedTensor::from_packed(tensor.parts().clone(), bytes).unwrap();
        prop_assert_eq!(&from_packed, &tensor);
        let payload = Payload {
            weight: tensor,
            activation: ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
            path,
            container: "Linear".into(),
            transposed: false,
            dtype: FloatDtype::F32,
        };
        prop_assert_eq!(Payload::decode(&payload.encode()).unwrap(), payload);
    }

    #[test]
    fn a_missing_part_is_an_error((shape, values) in tensors(), spec in specs()) {
        prop_assume!(spec.granularity.block_size(&shape).is_ok_and(|_| !values.is_empty()));
        let tensor = AffineQuantizedTensor::quantize(&values, FloatDtype::F32, &shape, &spec).unwrap();
        let mut parts = tensor.parts().clone();
        parts.scale.pop();
        prop_assert!(AffineQuantizedTensor::from_codes(parts, &tensor.codes()).is_err());
        let mut codes = tensor.codes();
        codes[0] = spec.dtype.max() + 1;
        prop_assert!(AffineQuantizedTensor::from_codes(tensor.parts().clone(), &codes).is_err());
        let mut bytes = tensor.packed_codes().as_bytes().to_vec();
        bytes.pop();
        prop_assert!(AffineQuantizedTensor::from_packed(tensor.parts().clone(), bytes).is_err());
    }

    #[test]
    fn blocks_tile_the_tensor(shape in shapes(), granularity in granularities()) {
        let Ok(block) = granularity.block_size(&shape) else { return Ok(()) };
        prop_assert!(block.iter().zip(&shape).all(|(size, dim)| *size >= 1 && *size <= (*dim).max(1)));
        let grid = BlockGrid::new(&shape, &block).unwrap();
        prop_assert_eq!(grid.dims().iter().product::<usize>(), grid.len());
        prop_assert_eq!(grid.squeezed().iter().product::<usize>(), grid.len());
        let (mut next, mut seen) = (0, vec![false; grid.len()]);
        for (run, block) in grid.runs() {
            prop_assert_eq!(run.start, next);
            next = run.end;
            seen[block] = true;
            prop_assert!(run.into_iter().all(|element| grid.block_of(element) == block));
        }
        prop_assert_eq!(next, grid.elements());
        prop_assert!(seen.into_iter().all(|seen| seen), "every block has an element");
    }

    #[test]
    fn rows_of_codes_come_back(bits in 1u32..=8, rows in 0usize..5, codes in vec(any::<u8>(), 0..40), skip in 0usize..40) {
        let cols = codes.len();
        let codes: Vec<u8> = codes.into_iter().map(|code| code & ((1u16 << bits) - 1) as u8).collect();
        let all = codes.repeat(rows);
        let packed = PackedRows::pack(bits, rows, cols, all.iter().copied());
        prop_assert_eq!(packed.as_bytes().len(), rows * (cols * bits as usize).div_ceil(8));
        prop_assert_eq!(packed.unpack(), all);
        let skip = skip.min(cols);
        for row in 0..rows {
            let mut part = vec![0; cols - skip];
            packed.read(row, skip, &mut part);
            prop_assert_eq!(&part, &codes[skip..]);
        }
        let again = PackedRows::from_bytes(bits, rows, cols, packed.as_bytes().to_vec());
        prop_assert_eq!(again, Some(packed));
    }

    #[test]
    fn shards_come_back(bits in 1u32..=7, lead in 0usize..4, eighths in 0usize..5, tail in 0usize..4, seed in any::<u32>()) {
        let shape = [lead, eighths * 8, tail];
        let elements = shape.iter().product::<usize>() as u32;
        let codes = (0..elements).map(|i| (i.wrapping_mul(seed | 1) >> 7) as u8 & ((1 << bits) - 1));
        let codes: Vec<u8> = codes.collect();
        for dim in [1, -2] {
            let shards = pack_shards(bits, &codes, &shape, dim).unwrap();
            prop_assert_eq!(shards.iter().map(Vec::len).sum::<usize>(), codes.len() * bits as usize / 8);
            prop_assert_eq!(&unpack_shards(bits, &shards, &shape, dim).unwrap(), &codes);
        }
    }

    #[test]
    fn nibbles_come_back(bytes in vec(any::<u8>(), 0..40), low_first in any::<bool>()) {
        let order = if low_first { NibbleOrder::LowFirst } else { NibbleOrder::HighFirst };
        let cols = bytes.len() * 2;
        prop_assert_eq!(&pack_nibbles(&unpack_nibbles(&bytes, order), cols, order).unwrap(), &bytes);
        prop_assert_eq!(&pack_signed_nibbles(&unpack_signed_nibbles(&bytes, order), cols, order).unwrap(), &bytes);
    }

    #[test]
    fn a_token_is_quantized_alone(rows in vec(vec(-4.0f32..4.0, 7), 1..5), asymmetric in any::<bool>()) {
        let activation = match asymmetric {
            true => ActivationQuantization::int8_dynamic_asymmetric(),
            false => ActivationQuantization::int8_dynamic(ActivationScale::PerToken),
        };
        let all = quantize_activation(&rows.concat(), rows.len(), 7, FloatDtype::F32, &activation).unwrap();
        for (at, row) in rows.iter().enumerate() {
            let alone = quantize_activation(row, 1, 7, FloatDtype::F32, &activation).unwrap();
            prop_assert_eq!(&alone.codes[..], &all.codes[at * 7..(at + 1) * 7]);
            prop_assert_eq!((alone.scale[0], alone.zero_point[0]), (all.scale[at], all.zero_point[at]));
        }
    }
}
