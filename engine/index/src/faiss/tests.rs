//! Every kind of FAISS index that a factory may name: built, stored, opened, searched with filters; damaged bytes and
//! refused factories.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sepal_types::Metric;

use super::{Faiss, check_factory};
use crate::fixtures::{params, topics};
use crate::{Bits, BuildParams, IndexError, Neighbor, SearchParams, VectorIndex, open, search_exact};

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

fn build(factory: &str, metric: Metric, dim: usize, vectors: &[f32]) -> Faiss {
    Faiss::build(factory, &params(metric, dim, vectors, None)).unwrap()
}

fn wanted(k: usize, effort: usize, allowed: Option<&Bits>) -> SearchParams<'_> {
    SearchParams { k, ef_search: effort, probes: effort, allowed }
}

fn recall(index: &dyn VectorIndex, metric: Metric, vectors: &[f32], queries: &[f32], effort: usize) -> f64 {
    let dim = index.shape().1;
    let (mut found, mut asked) = (0, 0);
    for query in queries.chunks_exact(dim) {
        let exact = search_exact(metric, dim, vectors, query, 10, None);
        let near = index.search(vectors.into(), query, &wanted(10, effort, None));
        assert!(near.len() == 10 && near.is_sorted_by(|a, b| a < b));
        found += near.iter().filter(|neighbor| exact.contains(neighbor)).count();
        asked += 10;
    }
    f64::from(found as u32) / f64::from(asked)
}

/// Of each kind one, with the recall that it has to reach: what is found is scored exactly, so codes need not be good.
#[test]
fn every_kind_of_factory_finds_and_comes_back_from_its_bytes() {
    let (rows, dim) = (3000, 32);
    let all = topics(rows + 30, dim, 1);
    let (vectors, queries) = all.split_at(rows * dim);
    let kinds = [
        ("Flat", 0.999),
        ("SQ8", 0.98),
        ("SQfp16", 0.98),
        ("SQbf16", 0.98),
        ("SQ4", 0.95),
        ("RaBitQ", 0.4),
        ("PQ16x4", 0.8),
        ("PQ16x4fs,RFlat", 0.8),
        ("LSH", 0.3),
        ("HNSW16", 0.95),
        ("HNSW16,SQ8,Refine(SQ8)", 0.95),
        ("HNSW,PQ16x4np", 0.5),
        ("IVF40,Flat", 0.95),
        ("IVF40_HNSW8,SQ6", 0.95),
        ("IVF40,PQ16x4fs,RFlat", 0.8),
        ("IVF40,PQ8x5", 0.6),
        ("IVF40,RaBitQ", 0.8),
        ("PCA24,IVF40,SQ8", 0.8),
        ("RR,L2norm,SQ8", 0.5),
        ("Pad48,PQ24x4fs", 0.8),
    ];
    for metric in METRICS {
        for (factory, least) in kinds {
            if let Err(refused) = check_factory(factory, metric, dim) {
                assert!(metric == Metric::InnerProduct, "{metric:?}, {factory}: {refused}");
                assert!(["LSH", "HNSW,PQ16x4np"].contains(&factory), "{factory}: {refused}");
                continue;
            }
            // The length that L2norm takes away decides inner products.
            let least = if metric == Metric::Cosine || factory != "RR,L2norm,SQ8" { least } else { 0.0 };
            let index = build(factory, metric, dim, vectors);
            assert!(index.engine.is_some() && (index.len(), index.shape()) == (rows, (rows, dim)));
            let recall = recall(&index, metric, vectors, queries, 64);
            assert!(recall >= least, "{metric:?}, {factory}: recall@10 is {recall}");
            let bytes = index.serialize();
            let opened = open(&bytes).unwrap();
            assert_eq!(opened.serialize(), bytes);
            let announced = [index.serialized_bytes(), opened.serialized_bytes()];
            assert_eq!(announced, [bytes.len() as u64; 2], "{metric:?}, {factory}");
            assert!(opened.memory_bytes() + 4_096 >= bytes.len(), "{factory}");
            for query in queries.chunks_exact(dim).take(5) {
                let wanted = wanted(20, 32, None);
                assert_eq!(
                    opened.search(vectors.into(), query, &wanted),
                    index.search(vectors.into(), query, &wanted)
                );
            }
        }
    }
}

#[test]
fn a_filter_never_costs_rows() {
    let (rows, dim) = (3000, 16);
    let vectors = topics(rows, dim, 2);
    let mut valid = Bits::full(rows);
    (0..rows).step_by(7).for_each(|position| valid.clear(position));
    for factory in ["HNSW8", "IVF50,Flat", "PQ8x4fs", "IVF50,PQ8x4fs", "SQ8", "LSH"] {
        for valid in [None, Some(&valid)] {
            let params = params(Metric::L2, dim, &vectors, valid);
            let index = Faiss::build(factory, &params).unwrap();
            assert_eq!(index.len(), valid.map_or(rows, Bits::count));
            for step in [1, 2, 3, 10, 150, 1999] {
                let mut allowed = Bits::new(rows);
                (0..rows).step_by(step).for_each(|position| allowed.set(position));
                let qualifying = valid.map_or(allowed.count(), |valid| valid.count_and(&allowed));
                for k in [1, 10, 300] {
                    let found =
                        index.search((&vectors).into(), &vectors[..dim], &wanted(k, 1, Some(&allowed)));
                    assert_eq!(found.len(), k.min(qualifying), "{factory}: k {k}, every {step}th row");
                    let fits = |neighbor: &Neighbor| {
                        let position = neighbor.position as usize;
                        allowed.get(position) && valid.is_none_or(|valid| valid.get(position))
                    };
                    assert!(found.iter().all(fits));
                    assert!(found.is_sorted_by(|a, b| a < b));
                }
            }
            assert!(
                index
                    .search((&vectors).into(), &vectors[..dim], &wanted(5, 9, Some(&Bits::new(rows))))
                    .is_empty()
            );
            assert_eq!(
                index.search((&vectors).into(), &vectors[..dim], &wanted(9999, 9, None)).len(),
                index.len()
            );
        }
    }
}

#[test]
fn a_filtered_search_is_as_good_as_another() {
    let (rows, dim) = (4000, 24);
    let all = topics(rows + 40, dim, 3);
    let (vectors, queries) = all.split_at(rows * dim);
    let mut allowed = Bits::new(rows);
    (0..rows).filter(|position| position % 10 < 4).for_each(|position| allowed.set(position));
    for factory in ["HNSW16", "HNSW16,SQ8", "IVF40,Flat", "IVF40,PQ12x4fs", "PQ12x4fs"] {
        let index = build(factory, Metric::Cosine, dim, vectors);
        let mut found = 0;
        for query in queries.chunks_exact(dim) {
            let exact = search_exact(Metric::Cosine, dim, vectors, query, 10, Some(&allowed));
            let near = index.search(vectors.into(), query, &wanted(10, 48, Some(&allowed)));
            found += near.iter().filter(|neighbor| exact.contains(neighbor)).count();
        }
        assert!(found >= 340, "{factory}: {found} of 400");
    }
}

/// Widths of walks are kept in FAISS' index: each search must have its own all the same.
#[test]
fn searches_of_many_threads_have_their_own_effort() {
    let (rows, dim) = (3000, 16);
    let vectors = topics(rows, dim, 4);
    let index = build("HNSW8", Metric::L2, dim, &vectors);
    let alone = |effort: usize| -> Vec<Vec<Neighbor>> {
        let queries = vectors.chunks_exact(dim).step_by(300);
        queries.map(|query| index.search((&vectors).into(), query, &wanted(10, effort, None))).collect()
    };
    let efforts = [10, 40, 200];
    let expected = efforts.map(alone);
    std::thread::scope(|scope| {
        for round in 0..6 {
            let (alone, expected) = (&alone, &expected);
            scope.spawn(move || {
                for turn in 0..10 {
                    let number = (round + turn) % efforts.len();
                    assert_eq!(alone(efforts[number]), expected[number]);
                }
            });
        }
    });
}

#[test]
fn too_few_rows_for_a_factory_are_scanned() {
    let (rows, dim) = (500, 16);
    let vectors = topics(rows, dim, 5);
    for factory in ["IVF4096,Flat", "PQ8", "OPQ4,PQ4", "IVF501,SQ8"] {
        let index = build(factory, Metric::L2, dim, &vectors);
        assert!(index.engine.is_none(), "{factory}");
        let opened = open(&index.serialize()).unwrap();
        let query = &vectors[..dim];
        let exact = search_exact(Metric::L2, dim, &vectors, query, 20, None);
        assert_eq!(opened.search((&vectors).into(), query, &wanted(20, 1, None)), exact);
        assert_eq!((opened.len(), opened.effort_for(0.9, 10)), (rows, Some(1)));
    }
    let none = Faiss::build("Flat", &params(Metric::L2, dim, &vectors, Some(&Bits::new(rows)))).unwrap();
    assert!(
        none.is_empty() && none.search((&vectors).into(), &vectors[..dim], &wanted(5, 9, None)).is_empty()
    );
    assert_eq!(open(&none.serialize()).unwrap().len(), 0);
}

#[test]
fn awkward_numbers_stay_away_from_faiss() {
    let (rows, dim) = (600, 8);
    let plain = topics(rows, dim, 6);
    for scale in [2e37, 1e-30, 1e-42, 0.0] {
        let vectors: Vec<f32> = plain.iter().map(|value| value * scale).collect();
        for metric in [Metric::L2, Metric::InnerProduct] {
            for factory in ["HNSW8", "IVF8,SQ8"] {
                let index = build(factory, metric, dim, &vectors);
                let opened = open(&index.serialize()).unwrap();
                for query in [&vectors[..dim], &[3e38; 8], &[0.0; 8]] {
                    let found = opened.search((&vectors).into(), query, &wanted(5, 20, None));
                    assert_eq!(found.len(), 5, "{metric:?}, {factory}, times {scale}");
                }
            }
        }
    }
    let mut vectors = plain.clone();
    vectors[8..16].fill(0.0);
    let index = build("HNSW8", Metric::Cosine, dim, &vectors);
    assert_eq!(index.len(), rows - 1, "a vector without direction has no place");
    assert_eq!(index.search((&vectors).into(), &[0.0; 8], &wanted(5, 9, None)).len(), 5);
    vectors[17] = f32::NAN;
    let refused = Faiss::build("HNSW8", &params(Metric::L2, dim, &vectors, None)).unwrap_err();
    assert!(refused.to_string().contains("row 2 holds NaN"), "{refused}");
}

#[test]
fn what_faiss_refuses_is_told_in_its_words() {
    let refused = |factory: &str, metric: Metric| check_factory(factory, metric, 16).unwrap_err().to_string();
    assert_eq!(
        refused("LSH", Metric::InnerProduct),
        "invalid FAISS factory \"LSH\": FAISS says: Error: 'metric == METRIC_L2' failed"
    );
    let told = refused("HNSW16,PQ8", Metric::InnerProduct);
    assert!(told.contains("no inner product"), "{told}");
    assert!(refused("Nonsense", Metric::L2).contains("\"Nonsense\" is not read by Sepal"));
    assert!(matches!(
        check_factory("Flat", Metric::L1, 16),
        Err(IndexError::UnsupportedMetric { method: "faiss", metric: Metric::L1 })
    ));
    assert!(check_factory("OPQ16,IVF65536_HNSW32,PQ16x4fs,RFlat", Metric::Cosine, 768).is_ok());
}

#[test]
fn progress_ends_at_all_rows_and_cancelling_ends_the_build() {
    let vectors = topics(3000, 8, 7);
    let seen = Mutex::new(Vec::new());
    let progress = |done, total| seen.lock().unwrap().push((done, total));
    let watched = BuildParams { progress: &progress, ..params(Metric::L2, 8, &vectors, None) };
    Faiss::build("IVF10,SQ8", &watched).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.len() > 10);
    assert_eq!(seen.last(), Some(&(3000, 3000)));

    for patience in [0, 1, 5, 11] {
        let asked = AtomicU64::new(0);
        let cancelled = || asked.fetch_add(1, Ordering::Relaxed) >= patience;
        let watched = BuildParams { cancelled: &cancelled, ..params(Metric::L2, 8, &vectors, None) };
        let built = Faiss::build("IVF10,SQ8", &watched);
        assert!(matches!(built, Err(IndexError::Cancelled)), "after {patience} questions");
    }
}

/// Kind 6, for ever: a change of our own bytes is a new version. Without FAISS, whose bytes are its own.
#[test]
fn golden_bytes() {
    let mut valid = Bits::full(3);
    valid.clear(1);
    let vectors = [1.0, 2.0, f32::NAN, 0.0, 3.0, 4.0];
    let index = Faiss::build("IVF4,SQ8,RFlat", &params(Metric::Cosine, 2, &vectors, Some(&valid))).unwrap();
    let mut bytes = b"SEPALIDX\x01\0\x06\x03\x03\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    bytes.extend(b"\x0e\0\x01\0\0\0\x80\x3f");
    bytes.extend(b"\0\0\0\0\0\0\0\0");
    bytes.extend(b"\x29\xc6\x2d\x1d\x9e\xc1\x45\xdc");
    bytes.extend(b"IVF4,SQ8,RFlat");
    bytes.extend(b"\x05\0\0\0\0\0\0\0");
    assert_eq!(index.serialize(), bytes);
    assert_eq!(open(&bytes).unwrap().serialize(), bytes);
}

#[test]
fn damaged_bytes_are_an_error_and_never_reach_faiss() {
    let vectors = topics(200, 4, 8);
    let bytes = build("IVF4,SQ8", Metric::L2, 4, &vectors).serialize();
    for len in (0..bytes.len()).step_by(3) {
        assert!(open(&bytes[..len]).is_err(), "{len} bytes");
    }
    for offset in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[offset] ^= flip;
            // A flipped scale or metric of ours may be another sound one.
            if let Ok(index) = open(&damaged)
                && index.shape() == (200, 4)
            {
                assert!(offset < 56, "byte {offset}");
                assert_eq!(index.search((&vectors).into(), &vectors[..4], &wanted(40, 4, None)).len(), 40);
            }
        }
    }
}
