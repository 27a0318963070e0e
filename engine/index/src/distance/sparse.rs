//! Distances between sparse vectors, with pgvector's meaning (`src/sparsevec.c`).
//!
//! Called by SQL for `<->`, `<#>`, `<=>` and `<+>`. Both vectors are walked once, by index; sums are in `f32` as in
//! pgvector. Vectors of different dimensions are refused by SQL before.

use sepal_types::{Metric, SparseWords};

/// The distance from `a` to `b`: Euclidean, negated inner product, taxicab, or one minus the cosine. The cosine is
/// clamped to [-1, 1] and the distance is NaN when a vector has length zero.
pub fn sparse_distance(metric: Metric, a: SparseWords<'_>, b: SparseWords<'_>) -> f64 {
    match metric {
        Metric::Cosine => cosine(a, b),
        Metric::InnerProduct => {
            let mut product = 0.0_f32;
            for_each_pair(a, b, |x, y| product += x * y);
            f64::from(-product)
        }
        Metric::L1 => {
            let mut sum = 0.0_f32;
            for_each_pair(a, b, |x, y| sum += (x - y).abs());
            f64::from(sum)
        }
        Metric::L2 => sparse_l2_squared(a, b).sqrt(),
    }
}

/// The square of the Euclidean distance.
pub fn sparse_l2_squared(a: SparseWords<'_>, b: SparseWords<'_>) -> f64 {
    let mut sum = 0.0_f32;
    for_each_pair(a, b, |x, y| sum += (x - y) * (x - y));
    f64::from(sum)
}

fn cosine(a: SparseWords<'_>, b: SparseWords<'_>) -> f64 {
    let (mut product, mut of_a, mut of_b) = (0.0_f32, 0.0_f32, 0.0_f32);
    for_each_pair(a, b, |x, y| {
        product += x * y;
        of_a += x * x;
        of_b += y * y;
    });
    let similarity = f64::from(product) / (f64::from(of_a) * f64::from(of_b)).sqrt();
    // A NaN with a sign would come first where Postgres has it last.
    if similarity.is_nan() { f64::NAN } else { 1.0 - similarity.clamp(-1.0, 1.0) }
}

/// What both have at an index, for each index at which either has something.
fn for_each_pair(a: SparseWords<'_>, b: SparseWords<'_>, mut each: impl FnMut(f32, f32)) {
    let (mut left, mut right) = (a.elements(), b.elements());
    let (mut one, mut other) = (left.next(), right.next());
    loop {
        match (one, other) {
            (Some((i, x)), Some((j, y))) if i == j => {
                each(x, y);
                (one, other) = (left.next(), right.next());
            }
            (Some((i, x)), Some((j, _))) if i < j => {
                each(x, 0.0);
                one = left.next();
            }
            (Some((_, x)), None) => {
                each(x, 0.0);
                one = left.next();
            }
            (_, Some((_, y))) => {
                each(0.0, y);
                other = right.next();
            }
            (None, None) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sepal_types::SparseVector;

    use super::*;

    fn words(vector: &SparseVector) -> Vec<i32> {
        let mut words = Vec::new();
        vector.append_words(&mut words);
        words
    }

    fn between(metric: Metric, a: &str, b: &str) -> f64 {
        let [a, b] = [a, b].map(|text| words(&SparseVector::parse(text, None).unwrap()));
        sparse_distance(metric, SparseWords::new(&a), SparseWords::new(&b))
    }

    /// As pgvector 0.8.5 has them.
    #[test]
    fn distances_are_pgvectors() {
        assert_eq!(between(Metric::L2, "{1:1}/3", "{2:2}/3"), 2.236_067_977_499_79);
        assert_eq!(between(Metric::L1, "{1:0.5,2:-3}/3", "{1:0.75,3:2}/3"), 5.25);
        assert_eq!(between(Metric::InnerProduct, "{1:0.5,2:3}/3", "{1:2,2:0.25}/3"), -1.75);
        assert_eq!(between(Metric::Cosine, "{1:1}/3", "{1:1,2:1}/3"), 0.292_893_218_813_452_54);
        assert_eq!(between(Metric::Cosine, "{1:1,3:1}/3", "{1:2,2:-1}/3"), 0.367_544_467_966_324_1);
        assert_eq!(between(Metric::L1, "{1:1e8,2:1}/2", "{}/2"), 100_000_000.0);
        assert_eq!(between(Metric::L2, "{1:3e38}/1", "{1:-3e38}/1"), f64::INFINITY);
        for (a, b) in [("{}/3", "{1:1}/3"), ("{}/3", "{}/3"), ("{1:1e-30}/3", "{1:1e-30}/3")] {
            let distance = between(Metric::Cosine, a, b);
            assert!(distance.is_nan() && distance.is_sign_positive(), "{a} and {b}");
        }
    }

    proptest! {
        #[test]
        fn a_distance_is_that_of_the_dense_vectors(
            pairs in prop::collection::vec((-3_i8..4, -3_i8..4), 1..20),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) =
                pairs.iter().map(|(a, b)| (f32::from(*a), f32::from(*b))).unzip();
            let [sparse, other] =
                [&a, &b].map(|dense| words(&SparseVector::of_dense(dense.iter().copied()).unwrap()));
            for metric in Metric::ALL {
                let dense = crate::distance(metric, &a, &b[..]);
                let found = sparse_distance(metric, SparseWords::new(&sparse), SparseWords::new(&other));
                let same = dense.is_nan() && found.is_nan() || (dense - found).abs() < 1e-12;
                prop_assert!(same, "{metric:?} of {a:?} and {b:?}: {dense} and {found}");
            }
        }
    }
}
