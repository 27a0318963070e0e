//! Every kernel of this machine against `f64` sums, and all ways to a distance against each other.

use half::f16;
use proptest::prelude::*;
use sepal_types::Metric;

use super::{
    KernelLevel, Kernels, Scorer, available, distance, distances, has_direction, kernel_level, norm,
};

/// `sum` and the sum of the terms' magnitudes, which bounds the rounding error of any order of additions.
fn exactly(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(x, y)| term(f64::from(*x), f64::from(*y)));
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

fn check(kernels: &Kernels, a: &[f32], b: &[f32]) {
    let close = |what: &str, found: f32, (wanted, size): (f64, f64)| {
        let error = (f64::from(found) - wanted).abs();
        let name = kernels.name;
        assert!(error <= 1e-4 * size, "{name} {what} of {} elements: {found}, not {wanted}", a.len());
    };
    close("l2", kernels.single.l2_squared(a, b), exactly(a, b, |x, y| (x - y) * (x - y)));
    close("dot", kernels.single.dot(a, b), exactly(a, b, |x, y| x * y));
    close("l1", kernels.single.l1(a, b), exactly(a, b, |x, y| (x - y).abs()));
    // The fused kernels must add in the same order as `dot`: a row has one distance.
    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|value| value.to_bits()).collect() };
    let (dot, norm) = kernels.single.dot_norm(a, b);
    assert_eq!(bits(&[dot, norm]), bits(&[kernels.single.dot(a, b), kernels.single.dot(b, b)]));
    let (half, widened) = halved(b);
    assert_eq!(
        bits(&[kernels.half.l2_squared(a, &half), kernels.half.dot(a, &half), kernels.half.l1(a, &half)]),
        bits(&[
            kernels.single.l2_squared(a, &widened),
            kernels.single.dot(a, &widened),
            kernels.single.l1(a, &widened)
        ])
    );
    let ((dot_half, norm_half), (dot_wide, norm_wide)) =
        (kernels.half.dot_norm(a, &half), kernels.single.dot_norm(a, &widened));
    assert_eq!(bits(&[dot_half, norm_half]), bits(&[dot_wide, norm_wide]));
    let (dot, norm_a, norm_b) = kernels.cosine(a, b);
    assert_eq!(
        bits(&[dot, norm_a, norm_b]),
        bits(&[kernels.single.dot(a, b), kernels.single.dot(a, a), kernels.single.dot(b, b)])
    );
}

/// The nearest `f16`s, and what they are as `f32`. Numbers past its range become its greatest.
fn halved(values: &[f32]) -> (Vec<f16>, Vec<f32>) {
    let half: Vec<f16> =
        values.iter().map(|value| f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))).collect();
    let widened = half.iter().map(|value| value.to_f32()).collect();
    (half, widened)
}

/// Numbers that repeat with no period a lane count could hide.
fn wave(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|index| {
            let mixed = (index.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(0x9e37_79b9))
                .wrapping_mul(747_796_405);
            (mixed >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

#[test]
fn every_length_to_2000() {
    for kernels in available() {
        for len in 0..=2000 {
            check(kernels, &wave(len, 1), &wave(len, 2));
        }
    }
}

#[test]
fn kernels_read_the_shorter_length_only() {
    let (long, short) = (wave(100, 3), wave(37, 4));
    for kernels in available() {
        assert_eq!(
            kernels.single.dot(&long, &short).to_bits(),
            kernels.single.dot(&long[..37], &short).to_bits()
        );
        assert_eq!(
            kernels.single.l1(&short, &long).to_bits(),
            kernels.single.l1(&short, &long[..37]).to_bits()
        );
        assert_eq!(kernels.single.dot_norm(&short, &long), kernels.single.dot_norm(&short, &long[..37]));
        assert_eq!(kernels.cosine(&long, &short), kernels.cosine(&long[..37], &short));
        assert_eq!(kernels.single.l2_squared(&[], &[]), 0.0);
    }
}

proptest! {
    #[test]
    fn kernels_agree_on_any_numbers(
        pairs in prop::collection::vec((-1e6f32..1e6, -1e6f32..1e6), 0..300),
        skip in 0usize..8,
    ) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        // Skipping elements moves the start off every alignment.
        let skip = skip.min(a.len());
        for kernels in available() {
            check(kernels, &a[skip..], &b[skip..]);
        }
    }

    #[test]
    fn one_row_has_one_distance(dim in 1usize..200, rows in 0usize..8) {
        let (query, vectors) = (wave(dim, 5), wave(dim * rows, 6));
        for metric in Metric::ALL {
            let mut out = vec![0.0; rows];
            distances(metric, &query, &vectors, &mut out);
            let scorer = Scorer::new(metric, &query);
            let (half, widened) = halved(&vectors);
            let (mut of_half, mut of_widened) = (vec![0.0; rows], vec![0.0; rows]);
            distances(metric, &query, half.as_slice(), &mut of_half);
            distances(metric, &query, &widened, &mut of_widened);
            for (position, (of_half, of_widened)) in of_half.iter().zip(&of_widened).enumerate() {
                prop_assert_eq!(of_half.to_bits(), of_widened.to_bits());
                let single = distance(metric, &query, &half[position * dim..][..dim]);
                prop_assert_eq!(single.to_bits(), of_widened.to_bits());
            }
            for (row, batch) in vectors.chunks_exact(dim).zip(out) {
                let single = distance(metric, &query, row);
                prop_assert_eq!(single.to_bits(), batch.to_bits());
                prop_assert_eq!(single.to_bits(), scorer.finish(scorer.score(row)).to_bits());
            }
        }
    }
}

/// What pgvector 0.8 prints for the same operands.
#[test]
fn means_what_pgvector_means() {
    let cases: [(Metric, &[f32], &[f32], f64); 8] = [
        (Metric::L2, &[0.0, 0.0], &[3.0, 4.0], 5.0),
        (Metric::L2, &[3e38], &[-3e38], f64::INFINITY),
        (Metric::InnerProduct, &[1.0, 2.0], &[3.0, 4.0], -11.0),
        (Metric::L1, &[0.0, 0.0], &[3.0, -4.0], 7.0),
        (Metric::Cosine, &[1.0, 2.0], &[2.0, 4.0], 0.0),
        (Metric::Cosine, &[1.0, 1.0], &[-1.0, -1.0], 2.0),
        (Metric::Cosine, &[1.0, 0.0], &[0.0, 2.0], 1.0),
        (Metric::Cosine, &[1e10, 0.0], &[1e10, 0.0], 0.0),
    ];
    for (metric, a, b, wanted) in cases {
        assert_eq!(distance(metric, a, b), wanted, "{metric:?} of {a:?} and {b:?}");
    }
    assert!(distance(Metric::Cosine, &[1.0, 2.0], &[0.0, 0.0]).is_nan());
    assert!(distance(Metric::Cosine, &[0.0], &[0.0]).is_nan());
}

#[test]
#[should_panic(expected = "different dimensions")]
fn different_dimensions_are_a_bug() {
    distance(Metric::L2, &[1.0], &[1.0, 2.0]);
}

#[test]
fn lengths_outside_f32_squares() {
    assert_eq!(norm(&[3.0, 4.0]), 5.0);
    assert_eq!(norm(&[0.0; 3]), 0.0);
    for size in [1e30f32, 1e-30] {
        let wanted = f64::from(size) * 5.0;
        assert!((norm(&[3.0 * size, 4.0 * size]) / wanted - 1.0).abs() < 1e-6);
    }
    assert!(has_direction(&[0.0, 1e-3]) && !has_direction(&[0.0, -0.0]) && !has_direction(&[]));
}

/// Every `f16` that is a number, on every way, at every place of a register.
#[test]
fn every_half_is_widened_exactly() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()).collect();
    let zeros = vec![0.0; 3];
    for kernels in available() {
        for half in &all {
            let row = [f16::ZERO, *half, f16::ZERO];
            assert_eq!(kernels.half.l1(&zeros, &row), half.to_f32().abs(), "{} {half:?}", kernels.name);
        }
        for (position, row) in all.chunks(37).enumerate() {
            let mut picks = vec![0.0; row.len()];
            let at = position % row.len();
            picks[at] = 1.0;
            assert_eq!(kernels.half.dot(&picks, row), row[at].to_f32(), "{} {at}", kernels.name);
        }
    }
}

#[test]
fn the_level_is_the_fastest_available() {
    assert_eq!(Some(kernel_level()), available().next().map(|kernels| kernels.name));
}

#[test]
fn a_distance_that_is_no_number_sorts_last() {
    for level in KernelLevel::available() {
        let nan = level.distance(Metric::Cosine, &[0.0, 0.0], &[1.0, 2.0]);
        assert!(nan.is_nan() && nan.is_sign_positive(), "{}", level.name());
    }
    let mut out = [0.0];
    distances(Metric::Cosine, &[1.0, 2.0], &[0.0, 0.0], &mut out);
    assert!(out[0].is_nan() && out[0].is_sign_positive());
}
