//! Recall, filters, copies, tiny inputs and damaged bytes, through the crate's own `build` and `open`. What is
//! otherwise with codes of 8 bits is in `eight`.

mod eight;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;
use sepal_types::{Metric, VectorIndexOptions};

use super::repair::reachable;
use super::*;
use crate::quantize::{Width, mix};
use crate::{Bits, build, distance, open, search_exact};

/// Numbers from a seed, uniform in [0, 1).
pub(super) fn uniform(seed: u64, index: usize) -> f32 {
    (mix(seed ^ mix(index as u64)) >> 40) as f32 / (1u64 << 24) as f32
}

/// Near enough normal: the sum of four uniform numbers, with variance 1.
fn normal(seed: u64, index: usize) -> f32 {
    let sum: f32 = (0..4).map(|part| uniform(seed, 4 * index + part)).sum();
    (sum - 2.0) * 3f32.sqrt()
}

/// `rows × dim` from a mixture of `clusters` normal distributions; `spread` is how far apart their centres
/// are, in their own deviations. The queries of a test are rows of the same mixture with another `seed`.
pub(super) struct Mixture {
    pub(super) dim: usize,
    pub(super) clusters: usize,
    pub(super) spread: f32,
}

impl Mixture {
    pub(super) fn rows(&self, rows: usize, seed: u64) -> Vec<f32> {
        (0..rows * self.dim)
            .map(|index| {
                let (row, axis) = (index / self.dim, index % self.dim);
                let cluster = mix(seed ^ row as u64) as usize % self.clusters;
                self.spread * normal(77, cluster * self.dim + axis) + normal(seed, index)
            })
            .collect()
    }
}

pub(super) fn params(metric: Metric, dim: usize, vectors: &[f32]) -> BuildParams<'_> {
    let (progress, cancelled) = (&|_, _| {}, &|| false);
    BuildParams { metric, dim, vectors, valid: None, threads: 2, progress, cancelled }
}

pub(super) fn graph(metric: Metric, dim: usize, vectors: &[f32]) -> Graph {
    Graph::build(metric, 16, 64, &params(metric, dim, vectors)).unwrap()
}

pub(super) fn wanted(k: usize, ef_search: usize, allowed: Option<&Bits>) -> SearchParams<'_> {
    SearchParams { k, ef_search, probes: 1, allowed }
}

/// The mean share of the true `k` nearest that the graph finds. Checks order, distances and the filter on the
/// way.
pub(super) fn recall(graph: &Graph, vectors: &[f32], queries: &[f32], search: &SearchParams) -> f64 {
    let (metric, dim) = (graph.metric, graph.dim);
    let (mut found, mut all) = (0, 0);
    for query in queries.chunks(dim) {
        let truth = search_exact(metric, dim, vectors, query, search.k, search.allowed);
        let result = graph.search(vectors.into(), query, search);
        assert_eq!(result.len(), truth.len(), "{} allowed", search.allowed.map_or(0, Bits::count));
        assert!(result.windows(2).all(|pair| pair[0] < pair[1]), "ascending and distinct");
        for neighbor in &result {
            let position = neighbor.position as usize;
            assert!(
                search.allowed.is_none_or(|allowed| allowed.get(position)),
                "row {position} is not allowed"
            );
            let row = &vectors[position * dim..][..dim];
            assert_eq!(neighbor.distance.to_bits(), distance(metric, query, row).to_bits());
        }
        found += truth.iter().filter(|neighbor| result.contains(neighbor)).count();
        all += truth.len();
    }
    found as f64 / all as f64
}

#[test]
fn recall_on_a_mixture_is_high_for_each_metric() {
    for (dim, clusters, spread) in [(32, 50, 1.0), (32, 50, 8.0), (200, 300, 1.0)] {
        let mixture = Mixture { dim, clusters, spread };
        let vectors = mixture.rows(5000, 1);
        let queries = mixture.rows(100, 2);
        for metric in Metric::ALL {
            let graph = graph(metric, dim, &vectors);
            let recall = recall(&graph, &vectors, &queries, &wanted(10, 64, None));
            assert!(recall >= 0.95, "{metric:?} {dim} {spread}: {recall}, codes {}", graph.codes.is_some());
        }
    }
}

#[test]
fn codes_are_used_where_they_can_tell_rows_apart() {
    let even = Mixture { dim: 96, clusters: 1, spread: 0.0 }.rows(2000, 1);
    let tight = Mixture { dim: 96, clusters: 10, spread: 1000.0 }.rows(2000, 1);
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let width = graph(metric, 96, &even).codes.as_ref().map(Codes::width);
        assert_eq!(width, Some(Width::Four), "{metric:?}");
    }
    assert!(graph(Metric::L2, 96, &tight).codes.is_none());
    assert!(graph(Metric::L1, 96, &even).codes.is_none());
    assert!(graph(Metric::L2, 3, &even).codes.is_none());
}

#[test]
fn a_filter_never_costs_rows() {
    let mixture = Mixture { dim: 32, clusters: 40, spread: 1.0 };
    let vectors = mixture.rows(6000, 3);
    let queries = mixture.rows(30, 4);
    for metric in Metric::ALL {
        let graph = graph(metric, 32, &vectors);
        for share in [0.9, 0.5, 0.05, 0.001] {
            let mut allowed = Bits::new(6000);
            (0..6000).filter(|row| uniform(9, *row) < share).for_each(|row| allowed.set(row));
            // A narrow walk, a wide one, and one so wide that codes are scanned.
            for ef in [10, 64, 400] {
                let recall = recall(&graph, &vectors, &queries, &wanted(10, ef, Some(&allowed)));
                let least = if ef == 10 { 0.6 } else { 0.95 };
                assert!(recall >= least, "{metric:?} at {share}, ef {ef}: {recall}");
            }
        }
    }
}

#[test]
fn a_filter_far_from_the_query_is_still_filled() {
    // Two groups; the query lies in one, only the other is allowed.
    let mixture = Mixture { dim: 24, clusters: 2, spread: 20.0 };
    let vectors = mixture.rows(4000, 5);
    let mut allowed = Bits::new(4000);
    let home = &vectors[..24];
    let far = |row: &usize| distance(Metric::L2, home, &vectors[row * 24..][..24]) > 50.0;
    (0..4000).filter(far).for_each(|row| allowed.set(row));
    assert!((500..3500).contains(&allowed.count()));
    let graph = graph(Metric::L2, 24, &vectors);
    for (k, ef) in [(1, 1), (10, 10), (10, 40), (300, 40), (5000, 1)] {
        let found = recall(&graph, &vectors, home, &wanted(k, ef, Some(&allowed)));
        assert!(found > 0.0 || ef < 40);
    }
}

#[test]
fn every_node_can_be_reached() {
    for (dim, spread) in [(2, 100.0), (20, 0.0), (40, 50.0)] {
        let vectors = Mixture { dim, clusters: 30, spread }.rows(3000, 6);
        for metric in [Metric::L2, Metric::Cosine, Metric::L1] {
            let graph = graph(metric, dim, &vectors);
            assert_eq!(reachable(&graph.layers).count(), graph.nodes.count(), "{metric:?} {dim} {spread}");
        }
    }
}

#[test]
fn copies_share_a_node_and_are_all_found() {
    let dim = 20;
    let mut vectors = Mixture { dim, clusters: 5, spread: 1.0 }.rows(1500, 7);
    // Rows 500 to 999 are one vector, 1000 to 1499 are fifty vectors ten times each.
    for row in 500..1500 {
        let from = if row < 1000 { 0 } else { row % 50 };
        vectors.copy_within(from * dim..(from + 1) * dim, row * dim);
    }
    for metric in Metric::ALL {
        let graph = graph(metric, dim, &vectors);
        assert_eq!((graph.nodes.count(), graph.len()), (500, 1500));
        let twins = graph.search((&vectors).into(), &vectors[..dim], &wanted(400, 40, None));
        assert_eq!(twins.len(), 400);
        if metric != Metric::InnerProduct {
            assert!(twins.iter().all(|twin| twin.distance == twins[0].distance), "{metric:?}");
        }
        let mut allowed = Bits::new(1500);
        (900..1300).for_each(|row| allowed.set(row));
        let recall = recall(&graph, &vectors, &vectors[..30 * dim], &wanted(50, 50, Some(&allowed)));
        assert!(recall > 0.95, "{metric:?}: {recall}");
        let again = Graph::decode(&graph.serialize()).unwrap();
        assert_eq!(again.search((&vectors).into(), &vectors[..dim], &wanted(400, 40, None)), twins);
    }
}

#[test]
fn null_rows_and_rows_without_direction_are_left_out() {
    let dim = 24;
    let mut vectors = Mixture { dim, clusters: 5, spread: 0.5 }.rows(1000, 8);
    vectors[..100 * dim].fill(0.0);
    let mut valid = Bits::full(1000);
    (900..1000).for_each(|row| valid.clear(row));
    for (metric, indexed) in [(Metric::Cosine, 800), (Metric::L2, 900), (Metric::L1, 900)] {
        let given = BuildParams { valid: Some(&valid), ..params(metric, dim, &vectors) };
        let graph = Graph::build(metric, 16, 64, &given).unwrap();
        assert_eq!((graph.len(), graph.shape()), (indexed, (1000, dim)));
        for k in [5, 850, 2000] {
            let result = graph.search((&vectors).into(), &vectors[500 * dim..][..dim], &wanted(k, 40, None));
            assert_eq!(result.len(), k.min(indexed));
            assert!(result.iter().all(|neighbor| valid.get(neighbor.position as usize)));
            assert_eq!(result[0].position, 500);
            let full = Bits::full(1000);
            assert_eq!(
                graph.search((&vectors).into(), &vectors[500 * dim..][..dim], &wanted(k, 40, Some(&full))),
                result
            );
        }
        let again = Graph::decode(&graph.serialize()).unwrap();
        assert_eq!((again.len(), again.nodes == graph.nodes), (indexed, true));
    }
}

#[test]
fn a_query_without_direction_gets_rows_with_nan() {
    let vectors = Mixture { dim: 40, clusters: 5, spread: 0.5 }.rows(1000, 8);
    let graph = graph(Metric::Cosine, 40, &vectors);
    let result = graph.search((&vectors).into(), &[0.0; 40], &wanted(7, 40, None));
    assert!(result.len() == 7 && result.iter().all(|neighbor| neighbor.distance.is_nan()));
}

#[test]
fn tiny_segments_are_exact() {
    for metric in Metric::ALL {
        for dim in [1, 2, 3, 33] {
            for rows in [0, 1, 2, 3, 40, 130] {
                let vectors = Mixture { dim, clusters: 3, spread: 1.0 }.rows(rows, 9);
                let graph = graph(metric, dim, &vectors);
                let query: Vec<f32> = (0..dim).map(|axis| normal(10, axis)).collect();
                for k in [0, 1, 5, 200] {
                    let result = graph.search((&vectors).into(), &query, &wanted(k, 40, None));
                    assert_eq!(
                        result,
                        search_exact(metric, dim, &vectors, &query, k, None),
                        "{metric:?} {rows} × {dim}"
                    );
                }
                let again = Graph::decode(&graph.serialize()).unwrap();
                assert_eq!(again.shape(), (rows, dim));
            }
        }
    }
}

#[test]
fn few_dimensions_keep_their_recall() {
    for dim in [1, 2, 3] {
        let vectors: Vec<f32> = (0..5000 * dim).map(|index| uniform(11, index)).collect();
        let queries: Vec<f32> = (0..50 * dim).map(|index| uniform(12, index)).collect();
        for metric in [Metric::L2, Metric::L1] {
            let graph = graph(metric, dim, &vectors);
            let recall = recall(&graph, &vectors, &queries, &wanted(10, 64, None));
            assert!(recall >= 0.95, "{metric:?} {dim}: {recall}");
        }
    }
}

#[test]
fn numbers_past_the_range_of_estimates_are_walked_exactly() {
    let mut vectors = Mixture { dim: 32, clusters: 5, spread: 0.5 }.rows(3000, 8);
    vectors[40] = 1e30;
    vectors[4000] = -3e38;
    let graph = graph(Metric::L2, 32, &vectors);
    assert!(graph.codes.is_none());
    let recall = recall(&graph, &vectors, &vectors[3200..3520], &wanted(10, 64, None));
    assert!(recall >= 0.9, "{recall}");
    let coded = Mixture { dim: 32, clusters: 1, spread: 0.0 }.rows(3000, 8);
    let graph = super::tests::graph(Metric::L2, 32, &coded);
    assert_eq!(graph.search((&coded).into(), &[1e30; 32], &wanted(3, 40, None)).len(), 3);
}

#[test]
fn bytes_give_back_the_same_graph() {
    let mixture = Mixture { dim: 40, clusters: 20, spread: 0.5 };
    let vectors = mixture.rows(4000, 13);
    let queries = mixture.rows(40, 14);
    for metric in Metric::ALL {
        let options = VectorIndexOptions::Hnsw { metric, m: 8, ef_construction: 40 };
        let built = build(&options, &params(metric, 40, &vectors)).unwrap();
        let bytes = built.serialize();
        let opened = open(&bytes).unwrap();
        assert_eq!(opened.serialize(), bytes);
        assert_eq!((opened.len(), opened.shape()), (4000, (4000, 40)));
        assert!(opened.memory_bytes() >= bytes.len());
        for query in queries.chunks(40) {
            let search = wanted(10, 40, None);
            assert_eq!(
                opened.search((&vectors).into(), query, &search),
                built.search((&vectors).into(), query, &search)
            );
        }
    }
}

/// Version 1, for ever: a change here is a new version. Rows 0, 1, 2, 3 with levels 1, 2, 1, 0: node 0 is row 1,
/// node 1 row 0, nodes 2 and 3 rows 2 and 3. Worked out by hand.
#[test]
fn bytes_are_these_for_ever() {
    const NONE: u32 = u32::MAX;
    let vectors = [0.0, 1.0, 2.0, 3.0];
    let one = BuildParams { threads: 1, ..params(Metric::L1, 1, &vectors) };
    let mut expected = b"SEPALIDX\x01\x00\x02\x04".to_vec();
    let words = [
        [4, 1, 0].as_slice(),                                                // rows, dim, zero
        &[2 | 3 << 16, 4],                                                   // m, layers, flags; indexed rows
        &[4, 3, 1],                                                          // nodes of each layer
        &[1, 0, 2, 3],                                                       // positions
        &[1, 2, 3, NONE, 0, 2, NONE, NONE, 0, 1, 3, NONE, 2, 0, NONE, NONE], // lowest layer
        &[1, 2, 0, 2, 0, 1],                                                 // layer 1
        &[NONE, NONE],                                                       // layer 2
    ];
    expected.extend(words.concat().iter().flat_map(|word| word.to_le_bytes()));
    assert_eq!(Graph::build(Metric::L1, 2, 2, &one).unwrap().serialize(), expected);
    let opened = open(&expected).unwrap();
    let nearest = opened.search((&vectors).into(), &[2.2], &wanted(2, 2, None));
    assert_eq!(nearest.iter().map(|neighbor| neighbor.position).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn one_thread_repeats_itself() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(3000, 13);
    let bytes = || {
        let one = BuildParams { threads: 1, ..params(Metric::L2, 32, &vectors) };
        Graph::build(Metric::L2, 8, 40, &one).unwrap().serialize()
    };
    assert!(bytes() == bytes());
}

/// Built on exact distances, with the same codes to walk on.
#[test]
fn little_memory_makes_a_graph_all_the_same() {
    let mixture = Mixture { dim: 200, clusters: 300, spread: 1.0 };
    let vectors = mixture.rows(3000, 1);
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let given = params(metric, 200, &vectors);
        let usual = Graph::build(metric, 16, 64, &given).unwrap();
        let thrifty = Graph::build_within(metric, 16, 64, &given, 1).unwrap();
        // By row: other links, another order of the nodes.
        let of_rows = |graph: &Graph| -> Vec<(usize, Vec<u8>)> {
            let codes = graph.codes.as_ref().unwrap().bytes();
            let stride = codes.len() / graph.nodes.count();
            let of = |row| {
                let node = graph.nodes.node_of(row);
                (graph.layers.top_of(node), codes[node as usize * stride..][..stride].to_vec())
            };
            (0..3000).map(of).collect()
        };
        assert!(of_rows(&usual) == of_rows(&thrifty), "{metric:?}");
        let found = recall(&thrifty, &vectors, &mixture.rows(100, 2), &wanted(10, 64, None));
        assert!(found >= 0.95, "{metric:?}: {found}");
    }
    let needed = |dim| Graph::build_memory(Metric::L2, 16, 1_000_000, dim);
    assert!((1_200_000_000..1_500_000_000).contains(&needed(768).usual), "{:?}", needed(768));
    assert!((800_000_000..1_000_000_000).contains(&needed(768).least), "{:?}", needed(768));
    assert_eq!(needed(2).usual, needed(2).least, "without codes");
}

#[test]
fn progress_is_told_and_cancelling_is_heard() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(5000, 13);
    let (calls, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |done: u64, total: u64| {
        assert!(done <= total && total == 5000);
        calls.fetch_add(1, Relaxed);
        most.fetch_max(done, Relaxed);
    };
    let told = BuildParams { progress: &progress, ..params(Metric::L2, 32, &vectors) };
    Graph::build(Metric::L2, 16, 64, &told).unwrap();
    assert!(calls.load(Relaxed) >= 5 && most.load(Relaxed) == 5000);
    let cancelled = || calls.fetch_add(1, Relaxed) > 30;
    let stopped = BuildParams { cancelled: &cancelled, ..params(Metric::L2, 32, &vectors) };
    assert!(matches!(Graph::build(Metric::L2, 16, 64, &stopped), Err(IndexError::Cancelled)));
}

#[test]
fn many_queries_at_once_get_their_own_answers() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(4000, 13);
    let graph = graph(Metric::L2, 32, &vectors);
    let answer =
        |row: usize| graph.search((&vectors).into(), &vectors[row * 32..][..32], &wanted(5, 40, None));
    let alone: Vec<_> = (0..200).map(answer).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|row| assert_eq!(answer(row), alone[row])));
        }
    });
}

/// A graph's bytes, its vectors and their dimensions.
type Blob = (Vec<u8>, Vec<f32>, usize);

/// Small blobs of all shapes: with and without codes, of either width, mask and shared nodes.
fn small_blobs() -> &'static [Blob] {
    static BLOBS: std::sync::OnceLock<Vec<Blob>> = std::sync::OnceLock::new();
    BLOBS.get_or_init(|| {
        [
            (Metric::L2, 20, 300, true, Width::Four),
            (Metric::Cosine, 130, 260, false, Width::Four),
            (Metric::L1, 3, 200, true, Width::Four),
            (Metric::L2, 2, 0, false, Width::Four),
            (Metric::L2, 40, 300, true, Width::Eight),
        ]
        .into_iter()
        .map(|(metric, dim, rows, odd, width)| {
            let mut vectors = Mixture { dim, clusters: 4, spread: 0.2 }.rows(rows, 15);
            let mut valid = Bits::full(rows);
            if odd {
                vectors.copy_within(0..10 * dim, 20 * dim);
                (50..60).for_each(|row| valid.clear(row));
            }
            let given = BuildParams { valid: Some(&valid), ..params(metric, dim, &vectors) };
            let mut graph = Graph::build(metric, 4, 16, &given).unwrap();
            if width == Width::Eight {
                graph.codes = Codes::build_alone(&given, &graph.nodes.first_rows(), width).unwrap();
            }
            (graph.serialize(), vectors, dim)
        })
        .collect()
    })
}

/// Whatever opens must also search without a panic.
fn open_and_search(bytes: &[u8], vectors: &[f32], dim: usize) {
    let Ok(index) = open(bytes) else { return };
    if index.shape() != (vectors.len() / dim, dim) || vectors.is_empty() {
        return;
    }
    for ef in [2, 40] {
        index.search(vectors.into(), &vectors[..dim], &wanted(2, ef, None));
    }
}

#[test]
fn cut_bytes_are_refused() {
    for (bytes, _, _) in small_blobs() {
        assert!(open(bytes).is_ok());
        for len in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
            assert!(open(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(open(&longer).is_err());
    }
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(
        blob in 0usize..5,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_start in any::<bool>(),
    ) {
        let (bytes, vectors, dim) = &small_blobs()[blob];
        let mut bytes = bytes.clone();
        for (index, value) in flips {
            let reach = if near_start { bytes.len().min(64) } else { bytes.len() };
            bytes[index.index(reach)] = value;
        }
        open_and_search(&bytes, vectors, *dim);
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Graph::decode(&noise).is_err());
    }
}
