//! An index whose codes stay where they are stored names the rows that one in memory scores, holds little, and tells
//! what it cannot read.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sepal_types::{Metric, VectorIndexOptions};

use super::*;
use crate::fixtures::{params, scattered};
use crate::quantize::Width;
use crate::{Effort, Found, Part, Query, Work, build, open, open_in_place, search_parts};

const ROWS: usize = 6_000;
const DIM: usize = 48;
const LISTS: u32 = 30;

/// Bytes that count what is read of them, and of which some cannot be.
struct Elsewhere {
    bytes: Vec<u8>,
    damaged: usize,
    read: AtomicUsize,
}

impl Elsewhere {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, damaged: usize::MAX, read: AtomicUsize::new(0) }
    }
}

impl Stored for Elsewhere {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
        if (offset..offset + into.len()).contains(&self.damaged) {
            return Err("index 5 is damaged".into());
        }
        self.read.fetch_add(into.len(), Relaxed);
        into.copy_from_slice(&self.bytes[offset..offset + into.len()]);
        Ok(())
    }
}

fn built(metric: Metric, vectors: &[f32]) -> Elsewhere {
    let options = VectorIndexOptions::IvfFlat { metric, lists: LISTS };
    Elsewhere::new(build(&options, &params(metric, DIM, vectors, None)).unwrap().serialize())
}

fn wanted(k: usize, probes: usize, allowed: Option<&Bits>) -> SearchParams<'_> {
    SearchParams { k, ef_search: 0, probes, allowed }
}

fn every(step: usize) -> Bits {
    let mut bits = Bits::new(ROWS);
    (0..ROWS).step_by(step).for_each(|row| bits.set(row));
    bits
}

/// What a search over nothing but the candidates' vectors finds.
fn answer(metric: Metric, vectors: &[f32], query: &[f32], k: usize, candidates: &Candidates) -> Vec<Found> {
    let fetched: Vec<f32> =
        candidates.rows.iter().flat_map(|row| &vectors[*row as usize * DIM..][..DIM]).copied().collect();
    let part =
        Part { index: None, vectors: fetched.as_slice().into(), allowed: None, rows: Some(&candidates.rows) };
    let mut work = Work::default();
    let found = search_parts(&Query { metric, vector: query, k }, &[part], &mut work);
    assert_eq!((work.fetched, work.distances), (1, candidates.rows.len() as u64));
    found
}

#[test]
fn it_finds_what_the_index_in_memory_finds() {
    let all = scattered(ROWS + 20, DIM, 11);
    let (vectors, queries) = all.split_at(ROWS * DIM);
    let filters = [None, Some(every(2)), Some(every(7)), Some(every(700))];
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let stored = built(metric, vectors);
        let resident = open(&stored.bytes).unwrap();
        let in_place = open_in_place(&stored).unwrap();
        assert!(in_place.is_in_place() && !resident.is_in_place());
        assert_eq!((in_place.len(), in_place.shape()), (resident.len(), resident.shape()));
        assert_eq!(in_place.effort_for(0.9, 10), resident.effort_for(0.9, 10));
        for (query, allowed) in queries
            .chunks_exact(DIM)
            .flat_map(|query| filters.iter().map(move |allowed| (query, allowed.as_ref())))
        {
            for (k, probes) in [(1, 1), (10, 3), (10, 12), (100, 2)] {
                let wanted = wanted(k, probes, allowed);
                let named = in_place.candidates(Some(&stored), query, &wanted).unwrap().unwrap();
                assert_eq!(resident.candidates(None, query, &wanted).unwrap().as_ref(), Some(&named));
                assert!(named.rows.is_sorted_by(|one, next| one < next));
                assert_eq!(named.indexed, allowed.map_or(ROWS, Bits::count));
                let effort = Effort { ef_search: 0, probes };
                let part = Part {
                    index: Some((&*resident, effort)),
                    vectors: vectors.into(),
                    allowed: allowed.map(crate::Allowed::new),
                    rows: None,
                };
                let question = Query { metric, vector: query, k };
                let expected = search_parts(&question, &[part], &mut Work::default());
                assert_eq!(answer(metric, vectors, query, k, &named), expected, "{k} of {probes} cells");
                assert_eq!(expected.len(), k.min(named.indexed));
            }
        }
    }
}

#[test]
fn codes_tell_the_best_of_many_rows_that_a_filter_leaves() {
    let all = scattered(ROWS + 20, DIM, 12);
    let (vectors, queries) = all.split_at(ROWS * DIM);
    let stored = built(Metric::L2, vectors);
    let in_place = open_in_place(&stored).unwrap();
    let third = every(3);
    let mut found = 0;
    for query in queries.chunks_exact(DIM) {
        // Two thirds of the cells: more rows than the filter leaves.
        let wanted = wanted(10, 20, Some(&third));
        let named = in_place.candidates(Some(&stored), query, &wanted).unwrap().unwrap();
        assert!(named.indexed > FEW_ROWS && named.rows.len() < 50, "{} rows", named.rows.len());
        let exact = crate::search_exact(Metric::L2, DIM, vectors, query, 10, Some(&third));
        found += exact.iter().filter(|row| named.rows.contains(&row.position)).count();
    }
    assert!(found >= 190, "{found} of 200");
}

#[test]
fn little_is_held_and_only_the_cells_probed_are_read() {
    let vectors = scattered(ROWS, DIM, 13);
    let stored = built(Metric::L2, &vectors);
    let resident = open(&stored.bytes).unwrap();
    let in_place = open_in_place(&stored).unwrap();
    let codes = ROWS * Width::Four.stride(DIM);
    assert!(in_place.memory_bytes() + codes <= resident.memory_bytes(), "{}", in_place.memory_bytes());
    // The header is looked at twice.
    assert!(stored.read.load(Relaxed) + codes <= stored.bytes.len() + 100, "opening read the codes");
    stored.read.store(0, Relaxed);
    in_place.candidates(Some(&stored), &vectors[..DIM], &wanted(10, 1, None)).unwrap();
    let read = stored.read.load(Relaxed);
    assert!(read > 0 && read < codes / 4, "one of {LISTS} cells: {read} of {codes} bytes");
    stored.read.store(0, Relaxed);
    let few = every(2_000);
    let named = in_place.candidates(Some(&stored), &vectors[..DIM], &wanted(10, 1, Some(&few))).unwrap();
    assert_eq!((named.unwrap().rows, stored.read.load(Relaxed)), (vec![0, 2_000, 4_000], 0));
    // Without its bytes it still answers, from vectors.
    let exact = crate::search_exact(Metric::L2, DIM, &vectors, &vectors[..DIM], 1, None);
    assert_eq!(in_place.search((&vectors).into(), &vectors[..DIM], &wanted(1, 1, None)), exact);
}

#[test]
fn the_exact_scan_is_not_a_matter_of_candidates() {
    let vectors = scattered(ROWS, DIM, 14);
    let stored = built(Metric::Cosine, &vectors);
    let in_place = open_in_place(&stored).unwrap();
    let ask =
        |query: &[f32], probes: usize| in_place.candidates(Some(&stored), query, &wanted(5, probes, None));
    assert_eq!(ask(&vectors[..DIM], LISTS as usize).unwrap(), None);
    assert_eq!(ask(&[0.0; DIM], 1).unwrap(), None, "a query without direction");
    let nothing = in_place.candidates(Some(&stored), &vectors[..DIM], &wanted(5, 1, Some(&Bits::new(ROWS))));
    assert_eq!(nothing.unwrap(), Some(Candidates::default()));
}

#[test]
fn what_cannot_be_read_is_told() {
    let vectors = scattered(ROWS, DIM, 15);
    let mut stored = built(Metric::L2, &vectors);
    let in_place = open_in_place(&stored).unwrap();
    // Of the codes, which end before the calibration.
    stored.damaged = stored.bytes.len() / 2;
    let (mut sound, mut unreadable) = (0, 0);
    for row in (0..ROWS).step_by(10) {
        match in_place.candidates(Some(&stored), &vectors[row * DIM..][..DIM], &wanted(3, 1, None)) {
            Ok(Some(named)) => {
                assert!(named.rows.len() >= 3);
                sound += 1;
            }
            Err(IndexError::Unreadable(why)) => {
                assert_eq!(why.to_string(), "index 5 is damaged");
                unreadable += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(sound > 0 && unreadable > 0, "{sound} answers, {unreadable} errors");
    let unaided = in_place.candidates(None, &vectors[..DIM], &wanted(3, 1, None));
    assert!(matches!(unaided, Err(IndexError::Shape(_))));
}
