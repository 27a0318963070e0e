//! That an order by regions holds every node, has near ones next to each other, and rounds of growing size.

use sepal_types::Metric;

use super::*;
use crate::distance;
use crate::graph::build::exact;
use crate::graph::tests::{Mixture, graph, params};

const DIM: usize = 32;
const ROWS: usize = 4000;

#[test]
fn near_nodes_come_one_after_the_other() {
    let vectors = Mixture { dim: DIM, clusters: 40, spread: 2.0 }.rows(ROWS, 1);
    let graph = graph(Metric::L2, DIM, &vectors);
    let given = params(Metric::L2, DIM, &vectors);
    let above = graph.layers.above_lowest();
    assert!((100..1000).contains(&above), "{above} above the lowest layer");
    let numbers: Vec<u32> = (0..ROWS as u32).collect();
    let space = exact(&given, &graph.nodes);
    let regions = Regions::find(&space, &graph.layers, &given, &numbers[above..]).unwrap();
    assert!(numbers[above..].iter().all(|node| (regions.home(*node) as usize) < above));

    let step = |order: &[u32]| -> f64 {
        let row = |node: u32| given.vector(graph.nodes.first_row(node));
        order.windows(2).map(|pair| distance(Metric::L2, row(pair[0]), row(pair[1]))).sum()
    };
    // As the rows come. Numbers of a finished graph are in an order of their own.
    let mut by_row = numbers.clone();
    by_row.sort_by_key(|node| graph.nodes.first_row(*node));
    let mut order = numbers.clone();
    regions.sort(&mut order, 1);
    assert!(step(&order) < 0.7 * step(&by_row), "{} and {} by row", step(&order), step(&by_row));
    order.sort_unstable();
    assert!(order == numbers, "each once");
    regions.sort(&mut order, 0);
    assert!(order == numbers, "left as they are");
}

#[test]
fn rounds_grow_and_each_goes_by_region() {
    let vectors = Mixture { dim: DIM, clusters: 40, spread: 2.0 }.rows(ROWS, 1);
    let graph = graph(Metric::L2, DIM, &vectors);
    let given = params(Metric::L2, DIM, &vectors);
    let mut order: Vec<u32> = (graph.layers.above_lowest() as u32..ROWS as u32).collect();
    let regions = Regions::find(&exact(&given, &graph.nodes), &graph.layers, &given, &order).unwrap();
    regions.sort(&mut order, 4);
    let places: Vec<(u32, u32)> = order.iter().map(|node| (round(*node, 4), regions.place(*node))).collect();
    assert!(places.is_sorted());
    for (number, share) in [0.125, 0.125, 0.25, 0.5].into_iter().enumerate() {
        let count = places.iter().filter(|(round, _)| *round == number as u32).count();
        let expected = share * order.len() as f64;
        assert!((count as f64 - expected).abs() < 0.2 * expected, "{count} in round {number}");
    }
}

/// A graph too small for a second layer, and one without nodes.
#[test]
fn one_layer_is_one_region() {
    for rows in [0, 1, 3] {
        let vectors = Mixture { dim: DIM, clusters: 1, spread: 0.0 }.rows(rows, 1);
        let given = params(Metric::L2, DIM, &vectors);
        let layers = Layers::empty(16, &[rows as u32]).unwrap();
        let graph = graph(Metric::L2, DIM, &vectors);
        let mut order: Vec<u32> = (0..rows as u32).rev().collect();
        let regions = Regions::find(&exact(&given, &graph.nodes), &layers, &given, &order).unwrap();
        regions.sort(&mut order, 1);
        assert!(order.is_sorted());
    }
}
