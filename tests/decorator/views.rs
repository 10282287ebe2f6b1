//! Views of a quantized tensor hold the codes of the elements that they show.

use crate::helpers::{alone, int4, int8, pack, primitive, weight};
use burn::tensor::{Int, Tensor, TensorData, s};
use burn_backend::ops::QTensorOps;
use burn_flex::Flex;
use burn_quantized::Quantized;
use burn_quantized::backend::Body;
use burn_quantized::dtype::{FloatDtype, IntDtype};
use burn_quantized::kernels::Native;
use burn_quantized::spec::{AffineSpec, Granularity, MappingType};
use burn_std::Shape;

type Q = Quantized<Flex>;

/// The same view of the quantized tensor, of its codes (as floats) and of its values.
fn check<const D: usize>(
    what: &str,
    quantized: impl Fn(Tensor<Q, 2>) -> Tensor<Q, D>,
    plain: impl Fn(Tensor<Flex, 2>) -> Tensor<Flex, D>,
) {
    let blocks = AffineSpec::new(
        IntDtype::INT4,
        MappingType::Symmetric,
        Granularity::PerBlock(vec![4, 5]),
    );
    let tensor = AffineSpec::new(IntDtype::INT3, MappingType::Asymmetric, Granularity::PerTensor);
    for spec in [int8(), int4(), blocks, tensor] {
        for transposed in [true, false] {
            let source = weight([12, 40], &spec);
            let seen = if transposed {
                source.transpose().unwrap()
            } else {
                source.clone()
            };
            let shape = seen.shape().to_vec();
            let codes = seen.codes().into_iter().map(|code| code as f32).collect::<Vec<_>>();
            let codes = Tensor::<Flex, 2>::from_data(TensorData::new(codes, shape.clone()), &Default::default());
            let values = TensorData::new(seen.dequantize(FloatDtype::F32), shape);
            let values = Tensor::<Flex, 2>::from_data(values, &Default::default());

            let view = quantized(pack::<Flex, Native>(source, transposed));
            let packed = primitive(&view);
            assert!(matches!(&*packed.body, Body::Packed(_)), "{what} is not packed");
            let expected = plain(codes).into_data();
            let viewed = packed.weight().unwrap();
            let got = viewed.codes().into_iter().map(|code| code as f32).collect::<Vec<_>>();
            assert_eq!(
                TensorData::new(got, viewed.shape().to_vec()),
                expected,
                "codes of {what}, transposed: {transposed}"
            );
            assert_eq!(
                view.dequantize().into_data(),
                plain(values).into_data(),
                "values of {what}"
            );
        }
    }
}

/// The same expression on both.
macro_rules! both {
    ($name:literal, $dims:literal, |$t:ident, $ints:ident| $view:expr) => {
        check::<$dims>(
            $name,
            |$t| {
                let $ints = |values: &[i64]| Tensor::<Q, 1, Int>::from_data(values, &Default::default());
                let _ = &$ints;
                $view
            },
            |$t| {
                let $ints = |values: &[i64]| Tensor::<Flex, 1, Int>::from_data(values, &Default::default());
                let _ = &$ints;
                $view
            },
        )
    };
}

#[test]
fn views_move_codes() {
    let _alone = alone();
    both!("transpose", 2, |t, _ints| t.transpose());
    both!("permute", 2, |t, _ints| t.permute([1, 0]));
    both!("unsqueeze", 3, |t, _ints| t.unsqueeze());
    both!("unsqueeze, swap", 3, |t, _ints| t.unsqueeze::<3>().swap_dims(0, 2));
    both!("reshape", 3, |t, _ints| t.reshape([8, 3, 20]));
    both!("flatten", 1, |t, _ints| t.reshape([480]));
    both!("slice", 2, |t, _ints| t.slice([3..9, 2..12]));
    both!("slice by steps", 2, |t, _ints| t.slice(s![1..11;3, ..;-2]));
    both!("flip", 2, |t, _ints| t.flip([0, 1]));
    both!("select", 2, |t, ints| t.select(0, ints(&[4, 0, 4])));
    both!("select columns", 2, |t, ints| t.select(1, ints(&[11, 3])));
    both!("repeat", 2, |t, _ints| t.repeat_dim(1, 2));
    both!("gather", 2, |t, ints| t
        .slice([0..4, 0..2])
        .gather(0, ints(&[0, 3, 2, 1]).reshape([2, 2])));
    both!("gather columns", 2, |t, ints| {
        let part = t.slice([0..2, 0..4]);
        part.gather(1, ints(&[0, 3, 2, 1]).reshape([2, 2]))
    });
}

/// Burn's `Tensor::expand` makes floats of a quantized tensor, so this asks the backend.
#[test]
fn expand_moves_codes() {
    let _alone = alone();
    for spec in [int8(), int4()] {
        let source = weight([1, 40], &spec);
        let tensor = primitive(&pack::<Flex, Native>(source.clone(), true));
        let expanded = <Q as QTensorOps<Q>>::q_expand(tensor, Shape::new([3, 40, 5]))
            .weight()
            .unwrap();
        assert_eq!(expanded.shape(), [3, 40, 5]);
        let codes = source.codes();
        assert!(
            expanded
                .codes()
                .iter()
                .enumerate()
                .all(|(at, code)| *code == codes[at / 5 % 40])
        );
    }
}

#[test]
fn a_view_of_a_weight_is_a_weight() {
    let _alone = alone();
    let q = pack::<Flex, Native>(weight([12, 40], &int8()), true);
    let part = q.clone().slice([0..40, 3..9]);
    let x = Tensor::<Q, 2>::ones([2, 40], &Default::default());
    let expected = x.clone().matmul(q).slice([0..2, 3..9]).into_data();
    assert_eq!(x.matmul(part).into_data(), expected);
}

#[test]
fn operations_without_codes_give_floats() {
    let _alone = alone();
    let q = pack::<Flex, Native>(weight([12, 40], &int4()), true);
    let cat = Tensor::cat(vec![q.clone(), q.clone()], 0);
    assert_eq!(cat.dims(), [80, 12]);
    assert_eq!(cat.slice([40..80, 0..12]).into_data(), q.dequantize().into_data());
}
