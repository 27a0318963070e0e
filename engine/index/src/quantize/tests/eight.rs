//! Codes of 8 bits an element: kernels, rounding, estimates, and whose code is whose.

use super::super::eight::{encode, encode_plain};
use super::*;

proptest! {
    #[test]
    fn every_kernel_gives_the_same_integers(
        lines in 1usize..9,
        nodes in prop::collection::vec(0u32..5, 0..9),
        seed in any::<u64>(),
        extreme in prop::option::of((any::<bool>(), any::<bool>())),
    ) {
        let stride = 128 * lines;
        let codes: Vec<u8> = (0..5 * stride)
            .map(|index| match extreme {
                Some((high, _)) => if high { 255 } else { 0 },
                None => mix(seed ^ index as u64) as u8,
            })
            .collect();
        let query: Vec<i8> = (0..stride)
            .map(|index| match extreme {
                Some((_, high)) => if high { 127 } else { -127 },
                None => (mix(!seed ^ index as u64) as i8).max(-127),
            })
            .collect();
        let expected: Vec<i32> = nodes
            .iter()
            .map(|node| {
                let code = &codes[*node as usize * stride..][..stride];
                code.iter().zip(&query).map(|(element, value)| i32::from(*element) * i32::from(*value)).sum()
            })
            .collect();
        for kernel in Kernel::available(Width::Eight) {
            let mut out = vec![0; nodes.len()];
            kernel.dots(&codes, &query, &nodes, &mut out);
            prop_assert_eq!(&out, &expected, "{:?}", kernel);
        }
    }

    /// And the largest element to the outermost one.
    #[test]
    fn every_element_is_rounded_to_the_nearest_level(seed in any::<u64>(), spike in 0f32..50.0) {
        let mut unit = normals(seed, 256);
        unit[7] += spike;
        make_unit(&mut unit);
        let (inverse, levels) = encoded(&unit);
        prop_assert!((inverse * dot(&unit, &levels) - 1.0).abs() < 1e-4);
        let largest = unit.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let off = |(value, level): (&f32, &f32)| (value * 127.5 / largest - level).abs();
        prop_assert!(unit.iter().zip(&levels).all(|pair| off(pair) < 0.5 + 1e-4));
        prop_assert!(levels.iter().any(|level| level.abs() == 127.5));
        prop_assert!(lost(&unit, &levels) < 256.0 * (f64::from(largest) / 255.0).powi(2) + 1e-6);
    }

    #[test]
    fn wider_registers_round_to_the_same_codes(lines in 1usize..13, seed in any::<u64>()) {
        let mut unit = normals(seed, lines * 128);
        make_unit(&mut unit);
        let (mut chosen, mut plain) = (vec![0; lines * 128], vec![0; lines * 128]);
        let inverses = [encode(&unit, &mut chosen), encode_plain(&unit, &mut plain)];
        prop_assert_eq!(inverses[0].to_bits(), inverses[1].to_bits());
        prop_assert_eq!(chosen, plain);
    }
}

/// What [`encode`] returns, and the levels that it chose.
fn encoded(unit: &[f32]) -> (f32, Vec<f32>) {
    let mut code = vec![0; unit.len()];
    let inverse = encode(unit, &mut code);
    (inverse, code.iter().map(|element| f32::from(*element) - 127.5).collect())
}

fn build_alone(metric: Metric, dim: usize, vectors: &[f32]) -> Codes {
    let positions: Vec<u32> = (0..(vectors.len() / dim) as u32).collect();
    let codes = Codes::build_alone(&params(metric, dim, vectors, 2), &positions, Width::Eight);
    codes.unwrap().expect("within f32's range")
}

/// Row and query are both off by a uniform error of a step, which is the largest element's part in 127: three
/// deviations of near normal ones in 384 dimensions. So the deviation of a dot product of unit vectors is
/// `0.0095 / √d`, an eleventh of what it is with 4 bits.
#[test]
fn estimates_are_unbiased_and_within_the_rounding_error() {
    for dim in [33, 100, 384, 1000] {
        let rows = 300;
        let mut vectors = normals(dim as u64, rows * dim);
        vectors.iter_mut().for_each(|value| *value += 3.0);
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            let codes = build_alone(metric, dim, &vectors);
            let nodes: Vec<u32> = (0..rows as u32).collect();
            let (mut errors, mut scores) = (Vec::new(), Vec::new());
            for vector in vectors.chunks(dim).take(20) {
                codes.score(&codes.query(vector).unwrap().borrow(), &nodes, &mut scores);
                for (other, score) in vectors.chunks(dim).zip(&scores) {
                    let mut truth = distance(metric, vector, other);
                    let lengths = length(metric, other, &codes)
                        * match metric {
                            Metric::InnerProduct => norm(vector),
                            _ => length(metric, vector, &codes),
                        };
                    let mut deviation = 0.0095 / (padded(dim) as f64).sqrt() * lengths;
                    if metric == Metric::L2 {
                        truth *= truth;
                        deviation *= 2.0;
                    }
                    errors.push((f64::from(*score) - truth) / deviation);
                }
            }
            let count = errors.len() as f64;
            let mean = errors.iter().sum::<f64>() / count;
            let variance = errors.iter().map(|error| error * error).sum::<f64>() / count;
            let furthest = errors.iter().fold(0f64, |furthest, error| furthest.max(error.abs()));
            assert!(furthest < 8.0, "{metric:?} {dim}: {furthest} deviations");
            assert!(mean.abs() < 0.3, "{metric:?} {dim}: bias of {mean} deviations");
            assert!(
                (0.2..2.0).contains(&variance),
                "{metric:?} {dim}: {variance} times the expected variance"
            );
        }
    }
}

#[test]
fn a_code_is_its_own_rows_and_stays_so_when_they_are_arranged() {
    let (dim, rows) = (40, 300);
    let vectors = normals(9, rows * dim);
    let mut codes = build_alone(Metric::L2, dim, &vectors);
    assert_eq!((codes.width(), codes.bytes().len()), (Width::Eight, rows * 128));
    let row = |row: usize| &vectors[row * dim..][..dim];
    assert!((0..rows).all(|node| codes.are_of(node as u32, row(node))));
    assert!((0..rows).all(|node| !codes.are_of(node as u32, row((node + 1) % rows))));
    let order: Vec<u32> = (0..rows as u32).rev().collect();
    let (nodes, query) = ([0, 7, 299], codes.query(row(3)).unwrap());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    codes.score(&query.borrow(), &nodes, &mut before);
    codes.arrange(&order);
    codes.score(&query.borrow(), &nodes.map(|node| 299 - node), &mut after);
    assert_eq!(before, after);
    assert!((0..rows).all(|node| codes.are_of((rows - 1 - node) as u32, row(node))));
}

#[test]
fn rows_of_zeros_and_rows_past_the_range_are_met_with_reason() {
    let dim = 40;
    let codes = build_alone(Metric::L2, dim, &vec![0f32; 3 * dim]);
    let mut scores = Vec::new();
    codes.score(&codes.query(&vec![1f32; dim]).unwrap().borrow(), &[0, 2], &mut scores);
    assert!(scores.iter().all(|score| (score - 40.0).abs() < 1e-3), "{scores:?}");
    let mut huge = vec![1f32; 3 * dim];
    huge[5] = 1e30;
    let given = params(Metric::L2, dim, &huge, 1);
    assert!(Codes::build_alone(&given, &[0, 1, 2], Width::Eight).unwrap().is_none());
}
