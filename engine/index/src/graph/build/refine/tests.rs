//! That after a second look searches find as much with no more work, that it keeps to the lowest layer and a node's
//! slots, and that it is repeated, told and cancelled like the rest of a build.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sepal_types::Metric;

use super::*;
use crate::graph::build::graph_as;
use crate::graph::repair::reachable;
use crate::graph::tests::{Mixture, params, recall, wanted};
use crate::graph::{Graph, GraphPart, search_all};
use crate::{VectorIndex, Work};

fn none() -> Refinement {
    Refinement { width: 0, ..Refinement::usual() }
}

/// One thread: the same graph every time.
fn alone(metric: Metric, dim: usize, vectors: &[f32]) -> BuildParams<'_> {
    BuildParams { threads: 1, ..params(metric, dim, vectors) }
}

fn built(params: &BuildParams, refinement: Refinement) -> Graph {
    graph_as(params.metric, 16, 64, params, false, refinement).unwrap()
}

/// Nodes that all these searches meet.
fn met(graph: &Graph, vectors: &[f32], queries: &[f32], ef: usize) -> u64 {
    let mut work = Work::default();
    for query in queries.chunks(graph.dim) {
        let part = GraphPart { number: 0, graph, vectors: vectors.into(), allowed: None, ef };
        search_all(query, 10, &[part], &mut work);
    }
    assert!(work.walked > 0 && work.scanned == 0 && work.exact == 0, "{work:?}");
    work.codes
}

fn links(graph: &Graph, layer: usize, node: u32) -> Vec<u32> {
    graph.layers.links(layer, node).collect()
}

#[test]
fn searches_find_as_much_with_no_more_work() {
    for (dim, clusters, spread) in [(32, 50, 1.0), (32, 50, 8.0), (96, 1, 0.0)] {
        let mixture = Mixture { dim, clusters, spread };
        let (vectors, queries) = (mixture.rows(4000, 1), mixture.rows(200, 2));
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct] {
            let given = alone(metric, dim, &vectors);
            let plain = built(&given, none());
            let refined = built(&given, Refinement::usual());
            for ef in [20, 60] {
                let share = |graph: &Graph| recall(graph, &vectors, &queries, &wanted(10, ef, None));
                let (found, before) = (share(&refined), share(&plain));
                let what = format!("{metric:?} {dim} {spread}, ef {ef}");
                assert!(found >= before - 0.02, "{what}: {found}, {before} before");
                let (now, before) =
                    (met(&refined, &vectors, &queries, ef), met(&plain, &vectors, &queries, ef));
                // Rows without structure are far apart in all directions: nearly all links stay.
                assert!(clusters == 1 || now * 20 <= before * 21, "{what}: {now} met, {before} before");
            }
        }
    }
}

#[test]
fn links_keep_to_their_slots_and_upper_layers_stay() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(3000, 13);
    let given = alone(Metric::L2, 32, &vectors);
    let plain = built(&given, none());
    let refined = built(&given, Refinement::usual());
    let mut changed = 0;
    for node in 0..refined.nodes.count() as u32 {
        let mut lowest = links(&refined, 0, node);
        changed += usize::from(lowest != links(&plain, 0, node));
        let count = lowest.len();
        lowest.sort_unstable();
        lowest.dedup();
        assert!(!lowest.is_empty() && lowest.len() == count && !lowest.contains(&node), "{node}: {lowest:?}");
        for layer in 1..=refined.layers.top_of(node) {
            assert_eq!(links(&refined, layer, node), links(&plain, layer, node), "{node} in {layer}");
        }
    }
    assert!(changed > 1000, "{changed} of 3000 nodes have other links");
    assert_eq!(reachable(&refined.layers).count(), 3000);
}

#[test]
fn one_thread_repeats_itself() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(3000, 13);
    let given = alone(Metric::Cosine, 32, &vectors);
    let again = || built(&given, Refinement::usual()).serialize();
    assert!(again() == again());
}

#[test]
fn several_threads_make_a_sound_graph() {
    let mixture = Mixture { dim: 32, clusters: 40, spread: 1.0 };
    let vectors = mixture.rows(5000, 3);
    let given = BuildParams { threads: 4, ..params(Metric::L2, 32, &vectors) };
    let graph = built(&given, Refinement::usual());
    assert_eq!(reachable(&graph.layers).count(), 5000);
    for node in 0..5000 {
        assert!(!links(&graph, 0, node).contains(&node), "{node} links to itself");
    }
    let found = recall(&graph, &vectors, &mixture.rows(100, 4), &wanted(10, 64, None));
    assert!(found >= 0.95, "{found}");
}

#[test]
fn a_second_look_is_told_and_can_be_cancelled() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(5000, 13);
    let told = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total && total == 5000);
        told.fetch_max(done, Relaxed);
    };
    // When all are inserted, three quarters are done.
    let cancelled = || told.load(Relaxed) >= 4000;
    let stopped =
        BuildParams { progress: &progress, cancelled: &cancelled, ..params(Metric::L2, 32, &vectors) };
    let built = graph_as(Metric::L2, 16, 64, &stopped, false, Refinement::usual());
    assert!(matches!(built, Err(IndexError::Cancelled)));
    assert!((4000..5000).contains(&told.load(Relaxed)), "{told:?}");
}

#[test]
fn small_graphs_stay_as_they_were_inserted() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 0.5 }.rows(1000, 13);
    let given = alone(Metric::L2, 32, &vectors);
    assert!(built(&given, Refinement::usual()).serialize() == built(&given, none()).serialize());
}
