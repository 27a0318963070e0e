//! Signs as bytes, and searches by them against the plainest way to say it.

use proptest::prelude::*;
use sepal_types::{BitMetric, Metric, VectorIndexOptions};

use super::{BitRows, Signs, append_signs, search_bits};
use crate::{Bits, BuildParams, IndexError, SearchParams, Vectors, build, flat::BLOCK_ROWS, open, verify};

fn params<'a>(vectors: &'a [f32], dim: usize, valid: Option<&'a Bits>) -> BuildParams<'a> {
    BuildParams {
        metric: Metric::L2,
        dim,
        vectors,
        valid,
        threads: 1,
        progress: &|_, _| {},
        cancelled: &|| false,
    }
}

fn options() -> VectorIndexOptions {
    VectorIndexOptions::Signs { metric: BitMetric::Hamming, access_method: "hnsw".into() }
}

/// For ever: three rows of ten elements, of which the second is NULL.
#[rustfmt::skip]
const GOLDEN: [u8; 46] = [
    b'S', b'E', b'P', b'A', b'L', b'I', b'D', b'X', 1, 0, 7, 1, 3, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 0, 0, 0, 0,
    0b101, 0, 0, 0, 0, 0, 0, 0,
    0b1010_0000, 0b0100_0000,
    0, 0,
    0b0111_1111, 0b1100_0000,
];

fn golden_rows() -> (Vec<f32>, Bits) {
    let mut rows = vec![1.0, -1.0, 0.5, 0.0, -0.0, -2.0, -3.0, -4.0, 0.0, 1e-30];
    rows.extend([9.0; 10]);
    rows.extend([-1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let mut valid = Bits::full(3);
    valid.clear(1);
    (rows, valid)
}

#[test]
fn signs_are_these_bytes() {
    let (rows, valid) = golden_rows();
    let index = build(&options(), &params(&rows, 10, Some(&valid))).unwrap();
    assert_eq!(index.serialize(), GOLDEN);
    assert_eq!(index.serialized_bytes(), GOLDEN.len() as u64);
    let mut written = Vec::new();
    index.serialize_into(&mut written).unwrap();
    assert_eq!(written, GOLDEN);
    let opened = open(&GOLDEN).unwrap();
    assert_eq!((opened.shape(), opened.len()), ((3, 10), 2));
    assert_eq!(opened.signs(), index.signs());
    verify(&*opened, &params(&rows, 10, Some(&valid))).unwrap();
}

#[test]
fn damage_is_named_and_other_rows_are_refused() {
    for (offset, value) in [(24, 2), (25, 1), (32, 0b1101), (41, 0b0110_0000), (11, 3)] {
        let mut bytes = GOLDEN;
        bytes[offset] = value;
        assert!(matches!(open(&bytes), Err(IndexError::Corrupt { .. })), "byte {offset}");
    }
    for len in 0..GOLDEN.len() {
        assert!(open(&GOLDEN[..len]).is_err(), "{len} bytes");
    }
    assert!(open(&[&GOLDEN[..], &[0]].concat()).is_err(), "a byte more");
    let (mut rows, valid) = golden_rows();
    let opened = open(&GOLDEN).unwrap();
    let refused = |rows: &[f32], valid: Option<&Bits>| {
        assert!(matches!(verify(&*opened, &params(rows, 10, valid)), Err(IndexError::Disagrees(_))));
    };
    refused(&rows, None);
    rows[29] = -1.0;
    refused(&rows, Some(&valid));
}

#[test]
fn a_build_ends_when_nobody_wants_it() {
    let rows = [1.0_f32; 8];
    let cancelled = BuildParams { cancelled: &|| true, ..params(&rows, 4, None) };
    assert!(matches!(Signs::build(&cancelled), Err(IndexError::Cancelled)));
}

#[test]
fn by_vectors_it_finds_what_there_is() {
    let rows: Vec<f32> = (0..40).map(|element| element as f32).collect();
    let index = build(&options(), &params(&rows, 4, None)).unwrap();
    let wanted = SearchParams { k: 2, ef_search: 1, probes: 1, allowed: None };
    let found = index.search(Vectors::F32(&rows), &rows[12..16], &wanted);
    assert_eq!(found.iter().map(|found| found.position).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_scan_that_nobody_waits_for_ends_soon() {
    let count = 10 * BLOCK_ROWS;
    // Those of each block are nearer than those before: the nearest tells how far the scan came.
    let bytes: Vec<u8> = (0..count).flat_map(|row| (u16::MAX >> (row / BLOCK_ROWS)).to_be_bytes()).collect();
    let rows = BitRows { bytes: &bytes, width: 2 };
    for allowed in [None, Some(&Bits::full(count))] {
        for looks in [0_usize, 1, 3, 10] {
            let left = std::cell::Cell::new(looks);
            let stopped = || left.replace(left.get().saturating_sub(1)) == 0;
            let found = search_bits(BitMetric::Hamming, rows, &[0, 0], 1, allowed, &stopped);
            let last = found.first().map(|neighbor| neighbor.position as usize + BLOCK_ROWS);
            assert_eq!(last.unwrap_or(0), looks * BLOCK_ROWS);
        }
    }
}

proptest! {
    #[test]
    fn finds_what_a_sort_finds(
        bytes in prop::collection::vec(any::<u8>(), 3..120),
        query in prop::collection::vec(any::<u8>(), 3),
        mask in any::<u64>(),
        k in 0usize..50,
        all in any::<bool>(),
    ) {
        let count = bytes.len() / 3;
        let rows = BitRows { bytes: &bytes[..count * 3], width: 3 };
        let mut allowed = Bits::new(count);
        (0..count).filter(|row| mask >> row & 1 == 1).for_each(|row| allowed.set(row));
        let allowed = (!all).then_some(&allowed);
        for metric in BitMetric::ALL {
            let distance = |row: &[u8]| {
                let ones = |of: &dyn Fn((&u8, &u8)) -> u8| -> u32 {
                    row.iter().zip(&query).map(|pair| of(pair).count_ones()).sum()
                };
                let (both, either) = (ones(&|(a, b)| a & b), ones(&|(a, b)| a | b));
                match metric {
                    BitMetric::Hamming => f64::from(either - both),
                    BitMetric::Jaccard if both == 0 => 1.0,
                    BitMetric::Jaccard => 1.0 - f64::from(both) / f64::from(either),
                }
            };
            let mut expected: Vec<(f64, u32)> = (0..count)
                .filter(|row| allowed.is_none_or(|allowed| allowed.get(*row)))
                .map(|row| (distance(rows.row(row)), row as u32))
                .collect();
            expected.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            expected.truncate(k);
            let found = search_bits(metric, rows, &query, k, allowed, &|| false);
            let found: Vec<_> = found.iter().map(|found| (found.distance, found.position)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn signs_are_those_of_each_element(vector in prop::collection::vec(-2.0f32..2.0, 1..40)) {
        let mut bytes = Vec::new();
        append_signs(&vector, &mut bytes);
        prop_assert_eq!(bytes.len(), vector.len().div_ceil(8));
        for place in 0..bytes.len() * 8 {
            let set = bytes[place / 8] & (0x80 >> (place % 8)) != 0;
            prop_assert_eq!(set, vector.get(place).is_some_and(|element| *element > 0.0));
        }
    }
}
