//! What every observer keeps: merging, order, bad data, configs.

use super::*;
use crate::dtype::IntDtype;
use crate::error::QuantError;
use crate::primitives::ZeroPoints;
use crate::spec::{AffineSpec, Granularity, MappingType};
use proptest::prelude::*;

fn spec(granularity: Granularity) -> AffineSpec {
    AffineSpec::new(IntDtype::INT8, MappingType::Asymmetric, granularity).with_eps(f32::EPSILON)
}

fn build(kind: ObserverKind, granularity: Granularity) -> AnyObserver {
    ObserverConfig::new(kind, spec(granularity)).build().unwrap()
}

fn observe<'a, O: Observer>(mut observer: O, batches: impl IntoIterator<Item = &'a Vec<f32>>) -> O {
    for batch in batches {
        observer.forward(batch, FloatDtype::F32, &[batch.len() / 4, 4]).unwrap();
    }
    observer
}

/// Batches of 1 to 5 rows of 4 values.
fn batches(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<f32>>> {
    let batch = (1usize..6).prop_flat_map(|rows| prop::collection::vec(-1e3f32..1e3, rows * 4));
    prop::collection::vec(batch, count)
}

const KINDS: [ObserverKind; 5] = [
    ObserverKind::MinMax,
    ObserverKind::moving_average(),
    ObserverKind::Fixed {
        scale: 0.5,
        zero_point: 3,
    },
    ObserverKind::mse(),
    ObserverKind::histogram(),
];

proptest! {
    #[test]
    fn merged_min_max_is_what_one_would_have_seen(a in batches(0..4), b in batches(0..4)) {
        for granularity in [Granularity::PerTensor, Granularity::PerAxis(1)] {
            let empty = || build(ObserverKind::MinMax, granularity.clone());
            let mut merged = observe(empty(), &a);
            merged.merge(observe(empty(), &b)).unwrap();
            prop_assert_eq!(merged, observe(empty(), a.iter().chain(&b)));
        }
    }

    #[test]
    fn min_max_does_not_depend_on_order(
        (batches, shuffled) in batches(1..6).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    ) {
        let empty = || build(ObserverKind::MinMax, Granularity::PerAxis(-1));
        prop_assert_eq!(observe(empty(), &batches), observe(empty(), &shuffled));
    }

    #[test]
    fn merged_moving_average_follows_the_batches(a in batches(1..4), b in batches(1..4), constant in 0.01f32..1.0) {
        let empty = || MovingAverageObserver::new(spec(Granularity::PerAxis(1)), constant);
        let mut merged = observe(empty(), &a);
        merged.merge(observe(empty(), &b)).unwrap();
        let whole = observe(empty(), a.iter().chain(&b));
        let (merged, whole) = (merged.ranges().unwrap(), whole.ranges().unwrap());
        for (got, want) in merged.min().iter().zip(whole.min()).chain(merged.max().iter().zip(whole.max())) {
            prop_assert!((got - want).abs() < 1e-2, "{got} against {want}");
        }
    }

    #[test]
    fn merged_error_search_keeps_the_batch_that_decides(a in batches(0..3), b in batches(0..3), run_once: bool) {
        let empty = || MseObserver::new(spec(Granularity::PerTensor), 10, run_once);
        let mut merged = observe(empty(), &a);
        merged.merge(observe(empty(), &b)).unwrap();
        prop_assert_eq!(merged, observe(empty(), a.iter().chain(&b)));
    }

    #[test]
    fn merged_histogram_moves_no_count_further_than_its_bins(a in batches(1..4), b in batches(1..4)) {
        let empty = || HistogramObserver::new(spec(Granularity::PerTensor), 64, 16);
        let mut merged = observe(empty(), &a);
        merged.merge(observe(empty(), &b)).unwrap();
        let whole = observe(empty(), a.iter().chain(&b));
        let (merged, whole) = (merged.histogram().unwrap(), whole.histogram().unwrap());
        prop_assert_eq!((merged.min(), merged.max()), (whole.min(), whole.max()));
        // Each widening moves a count by at most one bin of the new range; one batch widens it at most once.
        let reach = a.len() + b.len();
        let below = |histogram: &Histogram, bins: usize| histogram.counts()[..bins].iter().sum::<f64>();
        for bin in 0..=64usize {
            let (low, high) = (bin.saturating_sub(reach), (bin + reach).min(64));
            prop_assert!(below(merged, low) <= below(whole, bin) + 1e-6);
            prop_assert!(below(whole, bin) <= below(merged, high) + 1e-6);
        }
    }
}

#[test]
fn without_batches_only_fixed_parameters_are_known() {
    for kind in KINDS {
        let mut observer = build(kind, Granularity::PerTensor);
        observer.forward(&[], FloatDtype::F32, &[0, 8]).unwrap();
        match observer.calculate_qparams() {
            Ok(params) => {
                assert!(matches!(kind, ObserverKind::Fixed { .. }));
                assert_eq!((params.scale, params.zero_point), (vec![0.5], ZeroPoints::Int(vec![3])));
            }
            Err(error) => assert_eq!(error, QuantError::NoObservations, "{kind:?}"),
        }
        assert_eq!(observer.batches(), 1);
    }
}

#[test]
fn every_observer_remembers_the_first_bad_batch() {
    for kind in KINDS {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut observer = build(kind, Granularity::PerTensor);
            observer.forward(&[1.0, 2.0], FloatDtype::F32, &[2]).unwrap();
            let bad = QuantError::NonFiniteBatch {
                batch: 1,
                value: value.to_string(),
            };
            assert_eq!(observer.forward(&[0.0, value], FloatDtype::F32, &[2]), Err(bad.clone()));
            observer.forward(&[3.0], FloatDtype::F32, &[1]).unwrap();
            assert_eq!(observer.calculate_qparams(), Err(bad), "{kind:?}");
        }
    }
}

#[test]
fn a_range_says_what_its_values_would_have_said() {
    let batches: [&[f32]; 5] = [&[0.25, -3.0], &[], &[7.5], &[-0.5, f32::NAN], &[1.0, 2.0]];
    for kind in KINDS {
        let (mut by_values, mut by_ranges) = (build(kind, Granularity::PerTensor), build(kind, Granularity::PerTensor));
        assert_eq!(
            by_ranges.takes_ranges(),
            !matches!(kind, ObserverKind::Mse { .. } | ObserverKind::Histogram { .. })
        );
        if !by_ranges.takes_ranges() {
            continue;
        }
        for values in batches {
            let range = BatchRange {
                min: values.iter().copied().fold(f32::INFINITY, f32::min),
                max: values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                bad: values.iter().copied().find(|x| !x.is_finite()),
                dtype: FloatDtype::BF16,
                empty: values.is_empty(),
            };
            let want = by_values.forward(values, FloatDtype::BF16, &[values.len()]);
            assert_eq!(by_ranges.forward_range(&range), want);
            assert_eq!(by_ranges, by_values, "{kind:?}");
        }
    }
    assert!(!build(ObserverKind::MinMax, Granularity::PerAxis(0)).takes_ranges());
}

#[test]
fn a_bad_batch_of_another_replica_is_numbered_after_this_ones() {
    for kind in KINDS {
        let (mut left, mut right) = (build(kind, Granularity::PerTensor), build(kind, Granularity::PerTensor));
        left.forward(&[1.0], FloatDtype::F32, &[1]).unwrap();
        left.forward(&[2.0], FloatDtype::F32, &[1]).unwrap();
        assert!(right.forward(&[f32::NAN], FloatDtype::F32, &[1]).is_err());
        left.merge(right).unwrap();
        let got = left.calculate_qparams();
        assert!(
            matches!(got, Err(QuantError::NonFiniteBatch { batch: 2, .. })),
            "{got:?}"
        );
    }
}

#[test]
fn different_observers_do_not_merge() {
    for kind in KINDS {
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let other = build(other, Granularity::PerTensor);
            assert!(build(kind, Granularity::PerTensor).merge(other).is_err());
        }
    }
    let other = build(ObserverKind::MinMax, Granularity::PerAxis(0));
    assert!(
        build(ObserverKind::MinMax, Granularity::PerTensor)
            .merge(other)
            .is_err()
    );
    assert!(FixedObserver::default().merge(FixedObserver::new(2.0, 0)).is_err());
}

#[test]
fn another_number_of_channels_is_an_error() {
    for kind in [
        ObserverKind::MinMax,
        ObserverKind::moving_average(),
        ObserverKind::mse(),
    ] {
        let mut observer = build(kind, Granularity::PerAxis(1));
        observer.forward(&[1.0; 6], FloatDtype::F32, &[2, 3]).unwrap();
        let before = observer.ranges().cloned();
        let got = observer.forward(&[1.0; 8], FloatDtype::F32, &[2, 4]);
        assert!(matches!(got, Err(QuantError::ShapeMismatch { .. })));
        assert_eq!(observer.ranges().cloned(), before);
        observer.forward(&[1.0; 3], FloatDtype::F32, &[1, 3]).unwrap();
    }
}

#[test]
fn configs_that_cannot_work_are_refused() {
    let bad = [
        ObserverKind::MovingAverage {
            averaging_constant: 0.0,
        },
        ObserverKind::MovingAverage {
            averaging_constant: f32::NAN,
        },
        ObserverKind::Fixed {
            scale: 0.0,
            zero_point: 0,
        },
        ObserverKind::Fixed {
            scale: f32::INFINITY,
            zero_point: 0,
        },
        ObserverKind::Fixed {
            scale: 1.0,
            zero_point: 128,
        },
        ObserverKind::Mse {
            steps: 0,
            run_once: false,
        },
        ObserverKind::Histogram {
            bins: 0,
            upsample_rate: 16,
        },
        ObserverKind::Histogram {
            bins: 16,
            upsample_rate: 0,
        },
    ];
    for kind in bad {
        assert!(
            ObserverConfig::new(kind, spec(Granularity::PerTensor)).build().is_err(),
            "{kind:?}"
        );
    }
    for kind in [KINDS[2], KINDS[4]] {
        assert!(
            ObserverConfig::new(kind, spec(Granularity::PerAxis(0)))
                .build()
                .is_err(),
            "{kind:?}"
        );
    }
    let mut config = ObserverConfig::weight_int8();
    config.rule.spec.quant_min = -129;
    assert!(matches!(config.build(), Err(QuantError::InvalidRange { .. })));
}

#[test]
fn a_histogram_of_one_value_has_no_range_to_cut() {
    let config = ObserverConfig::activation(IntDtype::UINT8, MappingType::Asymmetric);
    let mut observer = config.with_kind(ObserverKind::histogram()).build().unwrap();
    observer.forward(&[5.1; 3], FloatDtype::F32, &[3]).unwrap();
    assert_eq!(observer.calculate_qparams().unwrap().scale, [5.1 / 255.0]);
}

#[test]
fn the_histogram_cuts_an_outlier() {
    let mut observer = HistogramObserver::new(spec(Granularity::PerTensor), 2048, 16);
    let mut values: Vec<f32> = (0..100_000).map(|i| (i as f32 / 50_000.0) - 1.0).collect();
    values.push(100.0);
    observer.forward(&values, FloatDtype::F32, &[values.len()]).unwrap();
    let (min, max) = observer.searched_range().unwrap();
    assert!(min <= -0.9 && (0.9..50.0).contains(&max), "{min} to {max}");
}

#[test]
fn a_state_survives_serde() {
    for kind in KINDS {
        let mut observer = build(kind, Granularity::PerTensor);
        observer.forward(&[1.5, -0.25, 0.1], FloatDtype::BF16, &[3]).unwrap();
        let text = serde_json::to_string(&observer).unwrap();
        assert_eq!(serde_json::from_str::<AnyObserver>(&text).unwrap(), observer);
        let config = ObserverConfig::new(kind, spec(Granularity::PerTensor));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ObserverConfig>(&text).unwrap(), config);
    }
}
