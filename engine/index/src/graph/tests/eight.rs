//! Graphs over codes of 8 bits an element: when they are made, what they find, and their bytes.

use super::*;
use crate::{Effort, Part, Query, Seed, Work, search_parts, verify};

const DIM: usize = 96;

/// Groups that lie so many of a row's own deviations apart. The best 20 by codes of 4 bits hold two thirds of the ten
/// nearest at 12 and a third at 30, by codes of 8 all; at 1,000 neither sees more than which group a row is of.
fn groups(spread: f32) -> Mixture {
    Mixture { dim: DIM, clusters: 30, spread }
}

fn width(graph: &Graph) -> Option<Width> {
    graph.codes.as_ref().map(Codes::width)
}

/// What searches for each of the queries do.
fn work_of(graph: &Graph, vectors: &[f32], queries: &[f32]) -> Work {
    let (index, effort): (&dyn VectorIndex, _) = (graph, Effort { ef_search: 40, probes: 1 });
    let part = Part { index: Some((index, effort)), vectors: vectors.into(), allowed: None, rows: None };
    let mut work = Work::default();
    for vector in queries.chunks(DIM) {
        let found = search_parts(&Query { metric: graph.metric, vector, k: 10 }, &[part], &mut work);
        assert_eq!(found.len(), 10);
    }
    work
}

#[test]
fn eight_bits_are_used_where_four_cannot_tell_rows_apart_and_find_what_exact_walks_find() {
    let mixture = groups(15.0);
    let (vectors, queries) = (mixture.rows(6000, 1), mixture.rows(60, 2));
    for metric in [Metric::L2, Metric::Cosine] {
        let built = graph(metric, DIM, &vectors);
        assert_eq!(width(&built), Some(Width::Eight), "{metric:?}");
        built.check(&params(metric, DIM, &vectors)).unwrap();
        verify(&built, &params(metric, DIM, &vectors)).unwrap();
        let mut exact = Graph::decode(&built.serialize()).unwrap();
        assert_eq!((width(&exact), exact.serialize()[8]), (Some(Width::Eight), 5));
        exact.codes = None;
        assert!(built.memory_bytes() >= exact.memory_bytes() + 6000 * Width::Eight.stride(DIM));
        let mut most = Bits::new(6000);
        (0..6000).filter(|row| uniform(9, *row) < 0.8).for_each(|row| most.set(row));
        // A walk, a wide one, one past a filter, and a scan.
        for (ef, allowed) in [(40, None), (64, None), (64, Some(&most)), (250, None)] {
            let wanted = wanted(10, ef, allowed);
            let by_codes = recall(&built, &vectors, &queries, &wanted);
            let by_vectors = recall(&exact, &vectors, &queries, &wanted);
            assert!(by_codes >= by_vectors - 0.01, "{metric:?} ef {ef}: {by_codes}, {by_vectors} exactly");
            assert!(by_codes > 0.9, "{metric:?} ef {ef}: {by_codes}");
        }
        let [of_codes, of_vectors] = [&built, &exact].map(|graph| work_of(graph, &vectors, &queries));
        assert!(of_codes.wide_codes == of_codes.codes && of_codes.codes > 0, "{of_codes:?}");
        // Walks on vectors score no codes, and walks on codes few vectors.
        assert!(of_vectors.codes == 0, "{of_vectors:?}");
        assert!(of_codes.distances * 2 < of_vectors.distances, "{of_codes:?} {of_vectors:?}");
    }
}

#[test]
fn there_are_no_codes_where_eight_bits_cannot_tell_rows_apart_either() {
    let vectors = groups(1000.0).rows(2000, 1);
    for metric in [Metric::L2, Metric::Cosine] {
        assert_eq!(width(&graph(metric, DIM, &vectors)), None, "{metric:?}");
    }
    // Nor where they would be as long as the vectors.
    let narrow = Mixture { dim: 32, clusters: 10, spread: 30.0 }.rows(2000, 1);
    assert_eq!(width(&graph(Metric::L2, 32, &narrow)), None);
}

/// The codes are the same, and so are the distances that the graph is built on.
#[test]
fn little_memory_makes_the_same_graph() {
    let vectors = groups(15.0).rows(1500, 1);
    let given = BuildParams { threads: 1, ..params(Metric::L2, DIM, &vectors) };
    let usual = Graph::build(Metric::L2, 16, 64, &given).unwrap();
    let thrifty = Graph::build_within(Metric::L2, 16, 64, &given, 1).unwrap();
    assert_eq!(width(&usual), Some(Width::Eight));
    assert!(usual.serialize() == thrifty.serialize());
    let needed = Graph::build_memory(Metric::L2, 16, 1500, DIM);
    assert!(usual.memory_bytes() as u64 <= needed.least, "{} {needed:?}", usual.memory_bytes());
}

#[test]
fn a_merge_goes_on_over_such_codes_and_begins_anew_where_codes_have_to_be_wider() {
    let merged = |base: &Graph, positions: &[u32], rows: &[f32]| {
        let given = BuildParams { threads: 1, ..params(Metric::L2, DIM, rows) };
        let seeds = [Seed { index: base, positions }];
        let means = BuildMeans { seeds: &seeds, ..BuildMeans::default() };
        let merged = Graph::merge(Metric::L2, 16, 64, &given, &means).unwrap();
        merged.map(|merged| merged.graph)
    };
    let (mixture, queries) = (groups(15.0), groups(15.0).rows(60, 2));
    let base = graph(Metric::L2, DIM, &mixture.rows(4000, 1));
    // The first 400 rows go, as many others come.
    let positions: Vec<u32> = (0..4000u32).map(|row| row.checked_sub(400).unwrap_or(u32::MAX)).collect();
    let rows = [&mixture.rows(4000, 1)[400 * DIM..], &mixture.rows(400, 3)[..]].concat();
    let both = merged(&base, &positions, &rows).expect("a tenth is new");
    assert_eq!((width(&base), width(&both)), (Some(Width::Eight), Some(Width::Eight)));
    both.check(&params(Metric::L2, DIM, &rows)).unwrap();
    let anew = graph(Metric::L2, DIM, &rows);
    let wanted = wanted(10, 64, None);
    let (found, expected) =
        (recall(&both, &rows, &queries, &wanted), recall(&anew, &rows, &queries, &wanted));
    assert!(found >= expected - 0.02, "{found}, {expected} anew");
    // Rows that 4 bits told apart, until others came from far away.
    let near = Mixture { dim: DIM, clusters: 1, spread: 0.0 }.rows(1500, 1);
    let base = graph(Metric::L2, DIM, &near);
    let rows = [&near[..], &groups(30.0).rows(1400, 3)[..]].concat();
    let positions: Vec<u32> = (0..1500).collect();
    assert_eq!(width(&base), Some(Width::Four));
    assert_eq!(width(&graph(Metric::L2, DIM, &rows)), Some(Width::Eight));
    assert!(merged(&base, &positions, &rows).is_none());
}

/// Version 5, for ever: two nodes that link to each other, and codes of 8 bits.
#[test]
fn bytes_with_codes_of_eight_bits_are_these_for_ever() {
    const NONE: u32 = u32::MAX;
    let dim = 33;
    let mut expected = b"SEPALIDX\x05\x00\x02\x01".to_vec();
    let words = [
        vec![2, dim as u32, 0],                         // rows, dim, no calibration
        vec![2 | 1 << 16 | 4 << 24, 2],                 // m, layers, flags; indexed rows
        vec![2],                                        // nodes of the only layer
        vec![0, 1],                                     // positions
        vec![1, NONE, NONE, NONE, 0, NONE, NONE, NONE], // its links
    ];
    expected.extend(words.concat().iter().flat_map(|word| word.to_le_bytes()));
    let numbers: Vec<f32> =
        (0..dim).map(|number| number as f32 - 3.0).chain([-2.0, 1.0, -0.5, 0.25]).collect();
    expected.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    expected.extend(0..=255u8);
    let read = Graph::decode(&expected).unwrap();
    assert_eq!((width(&read), read.codes.as_ref().unwrap().bytes().len()), (Some(Width::Eight), 256));
    assert_eq!(read.serialize(), expected);
    assert_eq!(read.serialized_bytes(), expected.len() as u64);
    // Of 4 bits they would be half as long; a graph without codes, and one whose vectors are no longer than they, has
    // none of 8.
    for (offset, value) in [(8, 1), (27, 0), (16, 32), (10, 1)] {
        let mut other = expected.clone();
        other[offset] = value;
        assert!(matches!(open(&other), Err(IndexError::Corrupt { .. })), "{value} at {offset}");
    }
}
