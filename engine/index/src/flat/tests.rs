//! Exact search against a sort of all distances, and the bytes of a flat index.

use proptest::prelude::*;
use sepal_types::Metric;

use super::{Flat, search::BLOCK_ROWS};
use crate::{
    Bits, BuildParams, IndexError, Neighbor, SearchParams, VectorIndex, Work, distance, search_exact,
    search_exact_until,
};

/// Every distance, sorted: what a database without an index does.
fn by_sorting(
    metric: Metric,
    vectors: &[f32],
    query: &[f32],
    k: usize,
    allowed: impl Fn(usize) -> bool,
) -> Vec<Neighbor> {
    let mut all: Vec<Neighbor> = vectors
        .chunks_exact(query.len())
        .enumerate()
        .filter(|(position, _)| allowed(*position))
        .map(|(position, row)| Neighbor { position: position as u32, distance: distance(metric, query, row) })
        .collect();
    all.sort();
    all.truncate(k);
    all
}

fn build(metric: Metric, dim: usize, vectors: &[f32], valid: Option<&Bits>) -> Flat {
    let params =
        BuildParams { metric, dim, vectors, valid, threads: 1, progress: &|_, _| (), cancelled: &|| false };
    Flat::build(&params).unwrap()
}

proptest! {
    #[test]
    fn is_the_sort_of_all_distances(
        dim in 1usize..40,
        small in prop::collection::vec(-4i8..4, 0..800),
        query in prop::collection::vec(-4i8..4, 40),
        k in 0usize..30,
        filter in prop::option::of(prop::collection::vec(any::<bool>(), 800)),
    ) {
        // Small whole numbers give many equal distances and some vectors of length zero.
        let vectors: Vec<f32> = small[..small.len() / dim * dim].iter().map(|value| f32::from(*value)).collect();
        let query: Vec<f32> = query[..dim].iter().map(|value| f32::from(*value)).collect();
        let rows = vectors.len() / dim;
        let allowed = filter.map(|filter| {
            let mut bits = Bits::new(rows);
            (0..rows).filter(|position| filter[*position]).for_each(|position| bits.set(position));
            bits
        });
        for metric in Metric::ALL {
            let found = search_exact(metric, dim, &vectors, &query, k, allowed.as_ref());
            let wanted = by_sorting(metric, &vectors, &query, k, |position| {
                allowed.as_ref().is_none_or(|bits| bits.get(position))
            });
            let bits = |found: &[Neighbor]| -> Vec<(u32, u64)> {
                found.iter().map(|neighbor| (neighbor.position, neighbor.distance.to_bits())).collect()
            };
            prop_assert_eq!(bits(&found), bits(&wanted), "{:?}", metric);
        }
    }

    #[test]
    fn any_bytes_are_an_index_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..80), head in 0usize..40) {
        let golden = build(Metric::L2, 2, &[0.0; 6], Some(&Bits::new(3))).serialize();
        let keep = head.min(golden.len()).min(bytes.len());
        bytes[..keep].copy_from_slice(&golden[..keep]);
        let _ = crate::open(&bytes);
    }
}

/// Version 1, for ever: a change here is a new version.
#[test]
fn golden_bytes() {
    let mut valid = Bits::full(3);
    valid.clear(1);
    let index = build(Metric::L2, 2, &[1.0, 2.0, f32::NAN, 0.0, 5.0, 6.0], Some(&valid));
    let mut wanted = b"SEPALIDX\x01\0\x01\x01\x03\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    wanted.extend(b"\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
    assert_eq!(index.serialize(), wanted);
    assert_eq!(Flat::decode(&wanted).unwrap(), index);

    let whole = build(Metric::InnerProduct, 2, &[1.0, 2.0, 3.0, 4.0], Some(&Bits::full(2)));
    assert_eq!(whole.serialize(), b"SEPALIDX\x01\0\x01\x02\x02\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(Flat::decode(&whole.serialize()).unwrap(), whole);
}

#[test]
fn every_damage_is_an_error() {
    let mut valid = Bits::full(70);
    valid.clear(3);
    let bytes = build(Metric::L1, 1, &[0.5; 70], Some(&valid)).serialize();
    for len in 0..bytes.len() {
        assert!(matches!(crate::open(&bytes[..len]), Err(IndexError::Corrupt { .. })), "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(crate::open(&longer).is_err());
    let mut stray = bytes;
    *stray.last_mut().unwrap() |= 0x80;
    assert!(crate::open(&stray).is_err());
}

#[test]
fn null_rows_and_zero_directions_are_never_found() {
    let vectors = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 3.0];
    let mut valid = Bits::full(4);
    valid.clear(3);
    let find = |metric, allowed: Option<&Bits>| -> Vec<u32> {
        let index = build(metric, 2, &vectors, Some(&valid));
        let params = SearchParams { k: 9, ef_search: 1, probes: 1, allowed };
        index
            .search((&vectors).into(), &[1.0, 0.1], &params)
            .iter()
            .map(|neighbor| neighbor.position)
            .collect()
    };
    assert_eq!(find(Metric::L2, None), [0, 1, 2]);
    assert_eq!(find(Metric::Cosine, None), [0, 2]);
    let mut allowed = Bits::full(4);
    allowed.clear(0);
    assert_eq!(find(Metric::Cosine, Some(&allowed)), [2]);
    assert_eq!(build(Metric::Cosine, 2, &vectors, Some(&valid)).len(), 2);
}

#[test]
fn cancelling_builds_nothing() {
    let params = BuildParams {
        metric: Metric::L2,
        dim: 1,
        vectors: &[1.0],
        valid: None,
        threads: 1,
        progress: &|_, _| (),
        cancelled: &|| true,
    };
    assert!(matches!(Flat::build(&params), Err(IndexError::Cancelled)));
}

#[test]
fn a_scan_that_nobody_waits_for_ends_soon() {
    let rows = 10 * BLOCK_ROWS;
    // Each row is nearer than the one before: the nearest tells how far the scan came.
    let vectors: Vec<f32> = (0..rows).map(|row| (rows - row) as f32).collect();
    let mut all = Bits::new(rows);
    (0..rows).for_each(|row| all.set(row));
    let flat = build(Metric::L2, 1, &vectors, None);
    for allowed in [None, Some(&all)] {
        for looks in [0_usize, 1, 3] {
            let left = std::cell::Cell::new(looks);
            let stopped = || left.replace(left.get().saturating_sub(1)) == 0;
            let found = search_exact_until(Metric::L2, 1, &vectors, &[0.0], 1, allowed, &stopped);
            let last = found.first().map(|neighbor| neighbor.position as usize + 1);
            assert_eq!(last.unwrap_or(0), looks * BLOCK_ROWS);
            left.set(looks);
            let params = SearchParams { k: 1, ef_search: 1, probes: 1, allowed };
            let indexed =
                flat.search_until((&vectors).into(), &[0.0], &params, &stopped, &mut Work::default());
            assert_eq!(indexed, found);
        }
        let found = search_exact_until(Metric::L2, 1, &vectors, &[0.0], 1, allowed, &|| false);
        assert_eq!(found[0].position as usize, rows - 1);
    }
}
