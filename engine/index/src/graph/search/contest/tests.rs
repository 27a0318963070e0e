//! Rows that are fetched give the answer that all vectors at hand give, few are fetched, and what has to be at hand is
//! not named.

use std::convert::Infallible;

use sepal_types::Metric;

use super::*;
use crate::graph::Graph;
use crate::graph::tests::{Mixture, graph, wanted};
use crate::{Allowed, Bits, Effort, Part, VectorIndex, search_exact, search_parts};

const DIM: usize = 200;
/// Of each segment.
const ROWS: usize = 2_500;
const MIXTURE: Mixture = Mixture { dim: DIM, clusters: 300, spread: 1.0 };

/// A table of three segments.
struct World {
    metric: Metric,
    pieces: Vec<Vec<f32>>,
    graphs: Vec<Graph>,
}

impl World {
    fn new(metric: Metric) -> Self {
        let pieces: Vec<Vec<f32>> = (20..23).map(|seed| MIXTURE.rows(ROWS, seed)).collect();
        let graphs: Vec<Graph> = pieces.iter().map(|piece| graph(metric, DIM, piece)).collect();
        assert!(graphs.iter().all(|graph| graph.codes.is_some()), "{metric:?}");
        Self { metric, pieces, graphs }
    }

    fn question<'a>(&self, vector: &'a [f32], k: usize) -> Query<'a> {
        Query { metric: self.metric, vector, k }
    }

    /// With all vectors at hand.
    fn at_hand(&self, question: &Query, ef_search: usize, allowed: Option<&Bits>) -> (Vec<Found>, Work) {
        let effort = Effort { ef_search, probes: 1 };
        let parts: Vec<Part> = self
            .graphs
            .iter()
            .zip(&self.pieces)
            .map(|(graph, piece)| {
                let (index, allowed): (&dyn VectorIndex, _) = (graph, allowed.map(Allowed::new));
                Part { index: Some((index, effort)), vectors: piece.into(), allowed, rows: None }
            })
            .collect();
        let mut work = Work::default();
        (search_parts(question, &parts, &mut work), work)
    }

    /// With those alone that are scored.
    fn fetched(&self, question: &Query, ef_search: usize, allowed: Option<&Bits>) -> (Vec<Found>, Work) {
        let (mut work, mut named, mut found) = (Work::default(), Vec::new(), Vec::new());
        for (number, graph) in (0..).zip(&self.graphs) {
            let wanted = wanted(question.k, ef_search, allowed);
            let candidates = graph.candidates(None, question.vector, &wanted).unwrap().unwrap();
            let Candidates { rows, estimates, indexed, work: naming } = &candidates;
            assert!(rows.is_sorted_by(|one, next| one < next) && rows.len() >= question.k.min(*indexed));
            assert_eq!(*indexed, allowed.map_or(ROWS, Bits::count));
            work.add(naming);
            if !estimates.is_empty() {
                named.push((number, candidates));
                continue;
            }
            let vectors = self.vectors(number, rows);
            let part = Part { index: None, vectors: (&vectors).into(), allowed: None, rows: Some(rows) };
            let of_it = search_parts(question, &[part], &mut work).into_iter();
            found.extend(of_it.map(|found| Found { part: number, ..found }));
        }
        let Ok(of_graphs) = search_named(question, &named, &mut work, |part, rows, take| {
            assert!(!rows.is_empty() && rows.is_sorted_by(|one, next| one < next));
            take((&self.vectors(part, rows)).into());
            Ok::<(), Infallible>(())
        });
        found.extend(of_graphs);
        found.sort_unstable();
        found.truncate(question.k);
        (found, work)
    }

    fn vectors(&self, part: u32, rows: &[u32]) -> Vec<f32> {
        let piece = &self.pieces[part as usize];
        rows.iter().flat_map(|row| &piece[*row as usize * DIM..][..DIM]).copied().collect()
    }
}

fn only(rows: impl Iterator<Item = usize>) -> Bits {
    let mut bits = Bits::new(ROWS);
    rows.for_each(|row| bits.set(row));
    bits
}

#[test]
fn what_is_fetched_gives_the_answer_of_all_vectors_at_hand() {
    let queries = MIXTURE.rows(20, 30);
    // All, nearly all, half of them, a tenth, and few.
    let filters = [
        None,
        Some(only((0..ROWS).filter(|row| row % 25 != 0))),
        Some(only((0..ROWS).step_by(2))),
        Some(only((0..ROWS).step_by(10))),
        Some(only((0..ROWS).step_by(40))),
    ];
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let world = World::new(metric);
        for (filter, (k, ef)) in
            filters.iter().flat_map(|filter| [(10, 40), (1, 12), (40, 60)].map(|effort| (filter, effort)))
        {
            let (mut at_hand, mut fetched) = (Work::default(), Work::default());
            for vector in queries.chunks(DIM) {
                let question = world.question(vector, k);
                let (expected, work) = world.at_hand(&question, ef, filter.as_ref());
                at_hand.add(&work);
                let (found, work) = world.fetched(&question, ef, filter.as_ref());
                fetched.add(&work);
                assert_eq!((found.len(), &found), (k, &expected), "{metric:?}: {k} with {ef}");
            }
            let ways = |work: &Work| (work.walked, work.scanned, work.exact, work.hops, work.codes);
            assert_eq!(ways(&fetched), ways(&at_hand), "{metric:?}: {k} with {ef}");
            assert_eq!(fetched.fetched, 60);
            // What the first time fetches at least, and somewhat more than is needed where that is not enough.
            let first = 20 * (2 * k).max(k + 10) as u64;
            assert!(fetched.distances <= 2 * at_hand.distances + first, "{fetched:?} {at_hand:?}");
        }
    }
}

#[test]
fn codes_tell_the_best_of_many_rows_of_which_all_would_be_scored() {
    let world = World::new(Metric::L2);
    let allowed = only(0..1_200);
    let vector = MIXTURE.rows(1, 31);
    let candidates = world.graphs[0].candidates(None, &vector, &wanted(700, 40, Some(&allowed)));
    let candidates = candidates.unwrap().unwrap();
    assert_eq!((candidates.rows.len(), candidates.estimates.len()), (1_200, 1_200));
    assert_eq!((candidates.work.scanned, candidates.work.codes), (1, 1_200));
    let named = [(0, candidates)];
    let Ok(found) =
        search_named(&world.question(&vector, 700), &named, &mut Work::default(), |part, rows, take| {
            take((&world.vectors(part, rows)).into());
            Ok::<(), Infallible>(())
        });
    let truth = search_exact(Metric::L2, DIM, &world.pieces[0], &vector, 700, Some(&allowed));
    let hits = found.iter().filter(|found| truth.contains(&found.neighbor)).count();
    assert!(found.len() == 700 && hits >= 693, "{hits} of {}", found.len());
}

#[test]
fn what_reads_vectors_on_its_way_names_only_few_rows() {
    let vectors = Mixture { dim: 32, clusters: 20, spread: 1.0 }.rows(2_000, 1);
    let mut few = Bits::new(2_000);
    (0..2_000).step_by(50).for_each(|row| few.set(row));
    let by_vectors = graph(Metric::L1, 32, &vectors);
    let named = |graph: &Graph, query: &[f32], allowed: Option<&Bits>| {
        graph.candidates(None, query, &wanted(10, 40, allowed)).unwrap()
    };
    assert_eq!(named(&by_vectors, &vectors[..32], None), None);
    let of_few = named(&by_vectors, &vectors[..32], Some(&few)).unwrap();
    assert_eq!(of_few.rows, (0..2_000).step_by(50).collect::<Vec<u32>>());
    assert_eq!((of_few.estimates.len(), of_few.indexed, of_few.work.exact), (0, 40, 1));
    let by_codes = graph(Metric::Cosine, 32, &vectors);
    assert_eq!(named(&by_codes, &[0.0; 32], None), None, "a query without direction");
    assert_eq!(named(&by_codes, &vectors[..32], Some(&Bits::new(2_000))), Some(Candidates::default()));
}

#[test]
fn what_cannot_be_fetched_is_told() {
    let world = World::new(Metric::L2);
    let vector = MIXTURE.rows(1, 32);
    let candidates = world.graphs[0].candidates(None, &vector, &wanted(10, 40, None)).unwrap().unwrap();
    let question = world.question(&vector, 10);
    let failed =
        search_named(&question, &[(0, candidates)], &mut Work::default(), |_, _, _| Err("a damaged page"));
    assert_eq!(failed, Err("a damaged page"));
    let none = search_named(&question, &[], &mut Work::default(), |_, _, _| Err("nothing is fetched"));
    assert_eq!(none, Ok(Vec::new()));
}
