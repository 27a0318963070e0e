//! The kernels against each other, the rotation against its definition, and the estimates against the truth. What is
//! otherwise with 8 bits an element is in `eight`.

mod eight;

use proptest::prelude::*;
use sepal_types::Metric;

use super::encode::{LINE_BYTES, STEPS, encode, encode_plain};
use super::*;

/// The elements of a code, in order.
fn unpack(code: &[u8]) -> Vec<i32> {
    code.chunks(LINE_BYTES)
        .flat_map(|line| {
            let low = line.iter().map(|byte| i32::from(byte & 15));
            low.chain(line.iter().map(|byte| i32::from(byte >> 4)))
        })
        .collect()
}

/// Standard normal numbers from a seed (Box and Muller 1958).
fn normals(seed: u64, count: usize) -> Vec<f32> {
    let uniform = |index: usize| (mix(seed ^ mix(index as u64)) >> 11) as f64 / (1u64 << 53) as f64;
    (0..count)
        .map(|index| {
            let (radius, angle) = (1.0 - uniform(2 * index), uniform(2 * index + 1));
            ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
        })
        .collect()
}

fn params<'a>(metric: Metric, dim: usize, vectors: &'a [f32], threads: usize) -> BuildParams<'a> {
    let (progress, cancelled) = (&|_, _| {}, &|| false);
    BuildParams { metric, dim, vectors, valid: None, threads, progress, cancelled }
}

fn build(metric: Metric, dim: usize, vectors: &[f32]) -> (Codes, RowQueries) {
    let positions: Vec<u32> = (0..(vectors.len() / dim) as u32).collect();
    Codes::build(&params(metric, dim, vectors, 2), &positions).unwrap().expect("within f32's range")
}

proptest! {
    #[test]
    fn every_kernel_gives_the_same_integers(
        lines in 1usize..9,
        nodes in prop::collection::vec(0u32..5, 0..9),
        seed in any::<u64>(),
        extreme in any::<bool>(),
    ) {
        let codes: Vec<u8> = (0..5 * lines * LINE_BYTES)
            .map(|index| if extreme { 255 } else { mix(seed ^ index as u64) as u8 })
            .collect();
        let query: Vec<i8> = (0..2 * lines * LINE_BYTES)
            .map(|index| if extreme { -127 } else { (mix(!seed ^ index as u64) % 255) as i32 as i8 })
            .map(|value| value.max(-127))
            .collect();
        let expected: Vec<i32> = nodes
            .iter()
            .map(|node| {
                let code = unpack(&codes[*node as usize * lines * LINE_BYTES..][..lines * LINE_BYTES]);
                code.iter().zip(&query).map(|(level, value)| level * i32::from(*value)).sum()
            })
            .collect();
        for kernel in Kernel::available(Width::Four) {
            let mut out = vec![0; nodes.len()];
            kernel.dots(&codes, &query, &nodes, &mut out);
            prop_assert_eq!(&out, &expected, "{:?}", kernel);
        }
    }

    #[test]
    fn the_rotation_keeps_dot_products(dim in 1usize..700, seed in any::<u64>()) {
        let padded = padded(dim);
        let rotation = Rotation::new(padded);
        let (mut a, mut b) = (normals(seed, padded), normals(!seed, padded));
        let (before, square) = (dot(&a, &b), dot(&a, &a));
        rotation.apply(&mut a);
        rotation.apply(&mut b);
        prop_assert!((dot(&a, &b) - before).abs() < 1e-4 * padded as f32, "{} is not {}", dot(&a, &b), before);
        prop_assert!((dot(&a, &a) - square).abs() < 1e-4 * padded as f32);
    }

    /// Every element gets the nearest level, at the step whose levels point most nearly the row's way. So no element is
    /// further off than half a step, or than it lies past the last level: that bounds the angle for whatever row.
    #[test]
    fn every_element_is_rounded_to_a_neighbouring_level(seed in any::<u64>(), spike in 0f32..50.0) {
        let mut unit = normals(seed, 256);
        unit[7] += spike;
        make_unit(&mut unit);
        let (inverse, levels) = encoded(&unit);
        prop_assert!((inverse * dot(&unit, &levels) - 1.0).abs() < 1e-4);
        // A step is so many deviations, of 1 / 16 each.
        let steps = STEPS.map(|step| 16.0 / step);
        let is_nearest = |per_step: f32| {
            unit.iter().zip(&levels).all(|(value, level)| {
                let off = value * per_step - level;
                off.abs() < 0.5 + 1e-5 || level.abs() == 7.5 && off * level > 0.0
            })
        };
        prop_assert!(steps.into_iter().any(is_nearest));
        let found = lost(&unit, &levels);
        for per_step in steps {
            let scaled = unit.iter().map(|value| value * per_step);
            let rounded: Vec<f32> = scaled.clone().map(|value| value.floor().clamp(-8.0, 7.0) + 0.5).collect();
            prop_assert!(found < lost(&unit, &rounded) + 1e-5);
            let off: f32 = scaled.map(|value| (value.abs() - 7.5).max(0.5).powi(2)).sum();
            prop_assert!(found < f64::from(off / per_step.powi(2)) + 1e-5);
        }
    }

    #[test]
    fn wider_registers_round_to_the_same_codes(lines in 1usize..13, seed in any::<u64>()) {
        let mut unit = normals(seed, lines * 128);
        make_unit(&mut unit);
        let (mut chosen, mut plain) = (vec![0; lines * LINE_BYTES], vec![0; lines * LINE_BYTES]);
        let inverses = [encode(&unit, &mut chosen), encode_plain(&unit, &mut plain)];
        prop_assert_eq!(inverses[0].to_bits(), inverses[1].to_bits());
        prop_assert_eq!(chosen, plain);
    }
}

/// What [`encode`] returns, and the levels that it chose.
fn encoded(unit: &[f32]) -> (f32, Vec<f32>) {
    let mut code = vec![0; unit.len() / 2];
    let inverse = encode(unit, &mut code);
    (inverse, unpack(&code).iter().map(|level| *level as f32 - 7.5).collect())
}

/// The share of the row's square that is across the levels' direction.
fn lost(unit: &[f32], levels: &[f32]) -> f64 {
    let sum =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    1.0 - sum(unit, levels).powi(2) / sum(levels, levels) / sum(unit, unit)
}

/// The least that any levels lose: every step there is, from so wide a one that all elements are half a step on. The
/// levels change where an element passes a whole number of steps.
fn least_lost(unit: &[f32]) -> f64 {
    let sizes: Vec<f64> = unit.iter().map(|value| f64::from(value.abs())).collect();
    let mut passes: Vec<(f64, f64, f64)> = sizes
        .iter()
        .flat_map(|size| [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0].map(|whole| (whole / size, whole, *size)))
        .collect();
    passes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut dot: f64 = sizes.iter().map(|size| size * 0.5).sum();
    let mut square = 0.25 * sizes.len() as f64;
    let mut greatest = dot * dot / square;
    for (_, whole, size) in passes {
        // From half a step below to half a step above.
        dot += size;
        square += 2.0 * whole;
        greatest = greatest.max(dot * dot / square);
    }
    1.0 - greatest / sizes.iter().map(|size| size * size).sum::<f64>()
}

/// Nine steps against all, on normal rows as rotations leave them. The last row has an element 4.5 deviations out: it
/// loses twice as much as others do, with any levels.
#[test]
fn no_other_levels_point_much_nearer() {
    let mut all_lost = Vec::new();
    for seed in (0..60).chain([8_797_534_738_162_573_470]) {
        let mut unit = normals(seed, 256);
        make_unit(&mut unit);
        let (lost, least) = (lost(&unit, &encoded(&unit).1), least_lost(&unit));
        assert!(
            lost > least - 1e-6 && lost < 1.1 * least,
            "seed {seed}: {lost} is lost where {least} has to be"
        );
        all_lost.push(lost);
    }
    assert!((0.022..0.024).contains(&all_lost[60]), "{}", all_lost[60]);
    // With one step for all it would be 0.0115 (Max 1960).
    let mean = all_lost[..60].iter().sum::<f64>() / 60.0;
    assert!((0.0100..0.0115).contains(&mean), "{mean}");
}

#[test]
fn a_rotated_axis_is_spread_over_all_elements() {
    for padded in [128, 384, 640, 1536] {
        let rotation = Rotation::new(padded);
        for axis in [0, padded / 2, padded - 1] {
            let mut values = vec![0f32; padded];
            values[axis] = 1.0;
            rotation.apply(&mut values);
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let even = 1.0 / (padded as f32).sqrt();
            assert!(largest < 6.0 * even, "{padded}: axis {axis} leaves {largest}, even is {even}");
        }
    }
}

/// The error of a dot product of unit vectors is near normal with deviation `0.108 / √d` (the rounding error
/// of a normal variable on 16 levels is 1.15 % of its variance), so six deviations are far and a bias is
/// seen.
#[test]
fn estimates_are_unbiased_and_within_the_rounding_error() {
    for dim in [17, 100, 384, 1000] {
        let rows = 400;
        let mut vectors = normals(dim as u64, rows * dim);
        // Far from the origin: without the centre the codes would spend their bits on the offset.
        vectors.iter_mut().for_each(|value| *value += 3.0);
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            let (codes, queries) = build(metric, dim, &vectors);
            let nodes: Vec<u32> = (0..rows as u32).collect();
            let (mut errors, mut scores) = (Vec::new(), Vec::new());
            for query in 0..20 {
                let vector = &vectors[query * dim..][..dim];
                let ready = codes.query(vector).unwrap();
                codes.score(&ready.borrow(), &nodes, &mut scores);
                let by_query = scores.clone();
                codes.score(&queries.get(query as u32), &nodes, &mut scores);
                for (row, (score, again)) in by_query.iter().zip(&scores).enumerate() {
                    let other = &vectors[row * dim..][..dim];
                    let mut truth = distance(metric, vector, other);
                    let mut deviation = 0.108 / (padded(dim) as f64).sqrt();
                    let (centred, row_length) =
                        (length(metric, vector, &codes), length(metric, other, &codes));
                    match metric {
                        Metric::L2 => {
                            truth *= truth;
                            deviation *= 2.0 * centred * row_length;
                        }
                        Metric::Cosine => deviation *= centred * row_length,
                        _ => deviation *= norm(vector) * row_length,
                    }
                    let error = (f64::from(*score) - truth) / deviation;
                    assert!(error.abs() < 8.0, "{metric:?} {dim}: {score} for {truth}, {error} deviations");
                    assert!(
                        (f64::from(score - again) / deviation).abs() < 1.0,
                        "row as query: {again}, {score}"
                    );
                    errors.push(error);
                }
            }
            let count = errors.len() as f64;
            let mean = errors.iter().sum::<f64>() / count;
            let variance = errors.iter().map(|error| error * error).sum::<f64>() / count;
            assert!(mean.abs() < 0.3, "{metric:?} {dim}: bias of {mean} deviations");
            assert!(
                (0.2..2.0).contains(&variance),
                "{metric:?} {dim}: {variance} times the expected variance"
            );
        }
    }
}

/// How far a vector, for cosine made unit length, is from the centre.
fn length(metric: Metric, vector: &[f32], codes: &Codes) -> f64 {
    let scale = if metric == Metric::Cosine { 1.0 / norm(vector) as f32 } else { 1.0 };
    let scaled: Vec<f32> = vector.iter().map(|value| value * scale).collect();
    distance(Metric::L2, &scaled, codes.centre())
}

#[test]
fn zeros_and_huge_numbers_are_met_with_reason() {
    let dim = 20;
    let zeros = vec![0f32; 3 * dim];
    let (codes, _) = build(Metric::L2, dim, &zeros);
    let mut scores = Vec::new();
    let query = vec![1f32; dim];
    codes.score(&codes.query(&query).unwrap().borrow(), &[0, 2], &mut scores);
    assert!(scores.iter().all(|score| (score - 20.0).abs() < 1e-3), "{scores:?}");
    assert!(codes.query(&vec![1e30; dim]).is_none());
    let mut huge = vec![1f32; 3 * dim];
    huge[5] = 1e30;
    assert!(Codes::build(&params(Metric::L2, dim, &huge, 1), &[0, 1, 2]).unwrap().is_none());
    assert!(build(Metric::Cosine, dim, &huge).0.query(&vec![0.0; dim]).is_none());
}

#[test]
fn any_number_of_threads_writes_the_same_codes() {
    let vectors = normals(5, 1000 * 40);
    let positions: Vec<u32> = (0..1000).rev().collect();
    let codes = |threads| {
        Codes::build(&params(Metric::Cosine, 40, &vectors, threads), &positions).unwrap().unwrap().0
    };
    let (one, many) = (codes(1), codes(4));
    assert!(one.bytes() == many.bytes() && one.corrections() == many.corrections());
    let mut bytes = Aligned::zeroed(one.bytes().len()).unwrap();
    bytes.copy_from_slice(one.bytes());
    let (centre, corrections) = (one.centre().to_vec(), one.corrections().to_vec());
    let again = Codes::from_parts(Metric::Cosine, Width::Four, centre, corrections, bytes).unwrap();
    let (mut expected, mut scores) = (Vec::new(), Vec::new());
    one.score(&one.query(&vectors[..40]).unwrap().borrow(), &[7, 999], &mut expected);
    again.score(&again.query(&vectors[..40]).unwrap().borrow(), &[7, 999], &mut scores);
    assert_eq!(scores, expected);
}

#[test]
fn cancelling_stops_the_encoder() {
    let vectors = normals(5, 100 * 40);
    let stopped = BuildParams { cancelled: &|| true, ..params(Metric::L2, 40, &vectors, 2) };
    let positions: Vec<u32> = (0..100).collect();
    assert!(matches!(Codes::build(&stopped, &positions), Err(IndexError::Cancelled)));
}

#[test]
fn large_buffers_are_zeroed_and_aligned() {
    for len in [0, 1, 1000, 5 << 20] {
        let buffer = Aligned::<u8>::zeroed(len).unwrap();
        assert!(buffer.len() == len && buffer.iter().all(|byte| *byte == 0));
        assert_eq!(buffer.as_ptr() as usize % 128, 0);
    }
    assert!(matches!(Aligned::<u8>::zeroed(usize::MAX), Err(IndexError::Resources(_))));
}
