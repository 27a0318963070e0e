//! A search without SQL, storage or wire: the graph at several `ef_search`, and the exact scan as its floor.
//!
//! The graph's inner loop are the kernels over 4-bit codes (`engine/index/src/quantize/kernel.rs`), which are not
//! exported: this is where they show. The vectors are made up, so that this says how long a search takes and
//! nothing of its recall: that is for `benches/compare`.

use std::sync::OnceLock;

use divan::{Bencher, black_box, counter::ItemsCount};
use sepal_index::{BuildParams, SearchParams, VectorIndex, build, search_exact};
use sepal_types::{Metric, VectorIndexOptions};

use crate::numbers::clustered;

const ROWS: usize = 20_000;
const DIM: usize = 384;
const QUERIES: usize = 1_000;
const K: usize = 10;

struct Indexed {
    vectors: Vec<f32>,
    queries: Vec<f32>,
    graph: Box<dyn VectorIndex>,
}

fn indexed() -> &'static Indexed {
    static INDEXED: OnceLock<Indexed> = OnceLock::new();
    INDEXED.get_or_init(|| {
        let vectors = clustered(ROWS, DIM, 2);
        let graph = graph(&vectors);
        Indexed { queries: clustered(QUERIES, DIM, 3), graph, vectors }
    })
}

fn graph(vectors: &[f32]) -> Box<dyn VectorIndex> {
    let options = VectorIndexOptions::Hnsw { metric: Metric::Cosine, m: 16, ef_construction: 64 };
    let params = BuildParams {
        metric: Metric::Cosine,
        dim: DIM,
        vectors,
        valid: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    build(&options, &params).expect("an index over well-formed vectors")
}

/// Calls with one query after the other.
fn each_query(bencher: Bencher, mut search: impl FnMut(&[f32])) {
    let mut queries = indexed().queries.chunks_exact(DIM).cycle();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        if let Some(query) = queries.next() {
            search(query);
        }
    });
}

#[divan::bench(args = [10, 20, 40, 80, 160, 320])]
fn graph_ef(bencher: Bencher, ef_search: usize) {
    let Indexed { vectors, graph, .. } = indexed();
    let params = SearchParams { k: K, ef_search, probes: 1, allowed: None };
    each_query(bencher, |query| {
        black_box(graph.search(vectors.into(), query, &params));
    });
}

#[divan::bench]
fn exact_scan(bencher: Bencher) {
    let vectors = &indexed().vectors;
    each_query(bencher, |query| {
        black_box(search_exact(Metric::Cosine, DIM, vectors, query, K, None));
    });
}

/// The whole build, all threads; an item is a row.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn graph_build(bencher: Bencher) {
    let vectors = &indexed().vectors;
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| graph(vectors));
}
