//! That a merged graph finds as much as a fresh one, holds what it should, and that what makes no good base is none.

use sepal_types::{Metric, VectorIndexOptions};

use super::super::repair::reachable;
use super::super::tests::{Mixture, params, recall, uniform, wanted};
use super::*;
use crate::calibration::calibrated_with;
use crate::{BuildMeans, build, build_with, finds_less};

const DIM: usize = 32;
const MIXTURE: Mixture = Mixture { dim: DIM, clusters: 40, spread: 1.0 };

/// One thread: the same graph every time.
fn alone(metric: Metric, vectors: &[f32]) -> BuildParams<'_> {
    BuildParams { threads: 1, ..params(metric, DIM, vectors) }
}

fn fresh(metric: Metric, vectors: &[f32]) -> Graph {
    Graph::build(metric, 16, 64, &alone(metric, vectors)).unwrap()
}

fn merge(params: &BuildParams, seeds: &[(&Graph, &[u32])]) -> Option<Graph> {
    let seeds: Vec<Seed> = seeds.iter().map(|(index, positions)| Seed { index: *index, positions }).collect();
    let merged = graph(16, 64, params, &seeds, false).unwrap()?.graph;
    assert_eq!(reachable(&merged.layers).count(), merged.nodes.count());
    merged.check(params).unwrap();
    let again = Graph::decode(&merged.serialize()).unwrap();
    assert!(again.serialize() == merged.serialize());
    Some(merged)
}

/// Where rows are once some are gone: the others move up.
fn without(rows: usize, gone: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut next = 0;
    let place = |row| {
        if gone(row) {
            return NONE;
        }
        next += 1;
        next - 1
    };
    (0..rows).map(place).collect()
}

/// The rows that are left.
fn left(vectors: &[f32], positions: &[u32]) -> Vec<f32> {
    let rows = vectors.chunks(DIM).zip(positions).filter(|(_, position)| **position != NONE);
    rows.flat_map(|(row, _)| row).copied().collect()
}

/// A search for a row finds it, but for rare chance.
fn finds_each(graph: &Graph, vectors: &[f32], rows: impl Iterator<Item = usize>) {
    let (mut asked, mut missed) = (0, Vec::new());
    for row in rows {
        let found = graph.search(vectors.into(), &vectors[row * DIM..][..DIM], &wanted(1, 100, None));
        asked += 1;
        if found[0].distance != 0.0 {
            missed.push(row);
        }
    }
    assert!(missed.len() * 50 <= asked, "of {asked} rows not {missed:?}");
}

#[test]
fn a_merged_graph_finds_as_much_as_a_fresh_one() {
    let queries = MIXTURE.rows(300, 2);
    for metric in [Metric::L2, Metric::Cosine, Metric::L1] {
        let mut vectors = MIXTURE.rows(4000, 1);
        let mut base = fresh(metric, &vectors);
        // A fifth goes, and as many others come, twice.
        for generation in 0..2 {
            let positions = without(4000, |row| uniform(90 + generation, row) < 0.2);
            let mut rows = left(&vectors, &positions);
            rows.extend(MIXTURE.rows(4000 - rows.len() / DIM, 10 + generation));
            let given = alone(metric, &rows);
            let merged = merge(&given, &[(&base, &positions)]).expect("a fifth is new");
            let anew = fresh(metric, &rows);
            assert_eq!(merged.codes.is_some(), anew.codes.is_some());
            for ef in [40, 80] {
                let found = recall(&merged, &rows, &queries, &wanted(10, ef, None));
                let expected = recall(&anew, &rows, &queries, &wanted(10, ef, None));
                assert!(
                    found >= expected - 0.01,
                    "{metric:?} {generation} ef {ef}: {found}, {expected} anew"
                );
            }
            (vectors, base) = (rows, merged);
        }
    }
}

#[test]
fn inner_products_keep_their_recall() {
    let vectors = MIXTURE.rows(4000, 1);
    let positions = without(4000, |row| row % 5 == 0);
    let mut rows = left(&vectors, &positions);
    rows.extend(MIXTURE.rows(800, 10));
    let base = fresh(Metric::InnerProduct, &vectors);
    let merged = merge(&alone(Metric::InnerProduct, &rows), &[(&base, &positions)]).unwrap();
    let found = recall(&merged, &rows, &MIXTURE.rows(100, 2), &wanted(10, 80, None));
    assert!(found >= 0.93, "{found}");
}

#[test]
fn several_inputs_become_one() {
    let rows = MIXTURE.rows(5000, 3);
    // Which input each row comes from: their row ids interleave.
    let of_large = |row: usize| uniform(4, row) < 0.8;
    let places = |wanted: &dyn Fn(usize) -> bool| -> Vec<u32> {
        (0..5000u32).filter(|row| wanted(*row as usize)).collect()
    };
    let (large, small) = (places(&of_large), places(&|row| !of_large(row)));
    let vectors = |places: &[u32]| -> Vec<f32> {
        places.iter().flat_map(|row| &rows[*row as usize * DIM..][..DIM]).copied().collect()
    };
    let graphs = [fresh(Metric::L2, &vectors(&large)), fresh(Metric::L2, &vectors(&small))];
    let given = alone(Metric::L2, &rows);
    let merged = merge(&given, &[(&graphs[1], &small), (&graphs[0], &large)]).unwrap();
    assert_eq!(merged.shape(), (5000, DIM));
    finds_each(&merged, &rows, (0..5000).step_by(7));
    let found = recall(&merged, &rows, &MIXTURE.rows(100, 2), &wanted(10, 80, None));
    assert!(found >= 0.97, "{found}");
    // All of one input is gone.
    let (nowhere, rows) = (vec![NONE; small.len()], vectors(&large));
    let positions: Vec<u32> = (0..large.len() as u32).collect();
    let given = alone(Metric::L2, &rows);
    let merged = merge(&given, &[(&graphs[1], &nowhere), (&graphs[0], &positions)]).unwrap();
    assert_eq!(merged.len(), large.len());
    finds_each(&merged, &rows, (0..large.len()).step_by(11));
}

#[test]
fn two_threads_make_a_sound_graph() {
    let vectors = MIXTURE.rows(4000, 1);
    let positions = without(4000, |row| row % 4 == 0);
    let mut rows = left(&vectors, &positions);
    rows.extend(MIXTURE.rows(1000, 10));
    let base = fresh(Metric::L2, &vectors);
    let merged = merge(&params(Metric::L2, DIM, &rows), &[(&base, &positions)]).unwrap();
    finds_each(&merged, &rows, (0..4000).step_by(9));
}

#[test]
fn who_loses_all_neighbours_is_found_still() {
    let mixture = Mixture { dim: DIM, clusters: 10, spread: 6.0 };
    let vectors = mixture.rows(4000, 1);
    let home = vectors[..DIM].to_vec();
    let near = |row: usize| crate::distance(Metric::L2, &home, &vectors[row * DIM..][..DIM]) < 20.0;
    // Of the first row's cluster only every hundredth row stays.
    let members: Vec<usize> = (0..4000).filter(|row| near(*row)).collect();
    assert!((100..1000).contains(&members.len()), "{}", members.len());
    let stay: Vec<usize> = members.iter().step_by(100).copied().collect();
    let positions = without(4000, |row| near(row) && !stay.contains(&row));
    let rows = left(&vectors, &positions);
    let base = fresh(Metric::L2, &vectors);
    let merged = merge(&alone(Metric::L2, &rows), &[(&base, &positions)]).unwrap();
    for row in stay {
        let node = merged.nodes.node_of(positions[row] as usize);
        assert!(merged.layers.links(0, node).next().is_some(), "row {row} leads nowhere");
    }
    let far = |row: &usize| crate::distance(Metric::L2, &home, &rows[row * DIM..][..DIM]) >= 20.0;
    finds_each(&merged, &rows, (0..rows.len() / DIM).step_by(13).filter(far));
}

#[test]
fn copies_join_the_node_that_is_there() {
    let mut vectors = MIXTURE.rows(3000, 5);
    // Rows from 2,000 on are copies of the first thousand.
    vectors.copy_within(..1000 * DIM, 2000 * DIM);
    for metric in [Metric::L2, Metric::Cosine] {
        let base = fresh(metric, &vectors);
        assert_eq!(base.nodes.count(), 2000);
        // Of a sixth of the pairs the first goes, of a sixth both, of the others none.
        let positions = without(3000, |row| match row % 1000 % 6 {
            0 => row < 1000,
            1 => !(1000..2000).contains(&row),
            _ => false,
        });
        let mut rows = left(&vectors, &positions);
        let kept = rows.len() / DIM;
        // Copies of what is there, and of what is gone.
        rows.extend_from_slice(&vectors[1500 * DIM..1600 * DIM]);
        rows.extend_from_slice(&vectors[..90 * DIM]);
        let merged = merge(&alone(metric, &rows), &[(&base, &positions)]).unwrap();
        let anew = fresh(metric, &rows);
        assert_eq!((merged.nodes.count(), merged.len()), (anew.nodes.count(), kept + 190));
        for (position, expected) in [(kept, 2), (kept + 100, 2), (kept + 101, 1), (kept + 102, 3)] {
            let query = &rows[position * DIM..][..DIM];
            let found = merged.search((&rows).into(), query, &wanted(5, 80, None));
            let copies = found.iter().filter(|found| found.distance < 1e-6).count();
            assert_eq!(copies, expected, "{metric:?} {position}: {found:?}");
        }
    }
}

#[test]
fn null_rows_and_rows_without_direction_stay_out() {
    let mut vectors = MIXTURE.rows(2000, 6);
    vectors[..50 * DIM].fill(0.0);
    let mut valid = Bits::full(2000);
    (1900..2000).for_each(|row| valid.clear(row));
    for (metric, indexed) in [(Metric::Cosine, 1850), (Metric::L2, 1900)] {
        let given = BuildParams { valid: Some(&valid), ..alone(metric, &vectors) };
        let base = Graph::build(metric, 16, 64, &given).unwrap();
        assert_eq!(base.len(), indexed);
        // Every tenth goes; then come three hundred rows, of which some are NULL and some zero.
        let positions = without(2000, |row| row % 10 == 3);
        let mut rows = left(&vectors, &positions);
        let kept = rows.len() / DIM;
        rows.extend(MIXTURE.rows(300, 7));
        rows[(kept + 100) * DIM..(kept + 120) * DIM].fill(0.0);
        let mut now = Bits::full(kept + 300);
        (0..2000).filter(|row| !valid.get(*row) && positions[*row] != NONE).for_each(|row| {
            now.clear(positions[row] as usize);
        });
        (kept + 200..kept + 240).for_each(|row| now.clear(row));
        let given = BuildParams { valid: Some(&now), ..alone(metric, &rows) };
        let merged = merge(&given, &[(&base, &positions)]).unwrap();
        assert_eq!(merged.len(), given.indexable().count());
        assert_eq!(merged.shape(), (kept + 300, DIM));
        let found = merged.search((&rows).into(), &rows[500 * DIM..][..DIM], &wanted(3000, 80, None));
        assert_eq!(found.len(), merged.len());
        assert!(found.iter().all(|found| given.indexable().get(found.position as usize)));
    }
}

#[test]
fn what_makes_no_good_base_is_none() {
    let vectors = MIXTURE.rows(1500, 8);
    let base = fresh(Metric::L2, &vectors);
    let all: Vec<u32> = (0..1500).collect();
    let given = alone(Metric::L2, &vectors);
    assert!(merge(&given, &[(&base, &all)]).is_some());
    assert!(merge(&given, &[]).is_none());
    assert!(merge(&given, &[(&base, &all[1..])]).is_none(), "not one position for each of its rows");
    assert!(merge(&given, &[(&base, &[NONE; 1500])]).is_none(), "nothing is left of it");
    let half = without(1500, |row| row % 2 == 0);
    assert!(merge(&given, &[(&base, &half)]).is_none(), "half is new");
    let tenth = &vectors[..150 * DIM];
    let few = without(1500, |row| row >= 150);
    assert!(merge(&alone(Metric::L2, tenth), &[(&base, &few)]).is_none(), "nine tenths are gone");
    let start = fresh(Metric::L2, tenth);
    assert!(merge(&given, &[(&start, &all[..150])]).is_none(), "nine tenths are new");
    let both = merge(&given, &[(&start, &all[..150]), (&base, &all)]);
    assert!(both.is_some(), "one that knows little does not keep another from it");
    let thin = Graph::build(Metric::L2, 8, 64, &given).unwrap();
    assert!(merge(&given, &[(&thin, &all)]).is_none(), "other options");
    let cosine = fresh(Metric::Cosine, &vectors);
    assert!(merge(&given, &[(&cosine, &all)]).is_none(), "another metric");
    let stop = BuildParams { cancelled: &|| true, ..alone(Metric::L2, &vectors) };
    let seeds = [Seed { index: &base, positions: &all }];
    assert!(matches!(graph(16, 64, &stop, &seeds, false), Err(IndexError::Cancelled)));
}

/// A bug of the caller, or bytes of another segment: neither may end in a panic or in rows that are not found.
#[test]
fn wrong_positions_cost_neighbours_only() {
    let vectors = MIXTURE.rows(2000, 9);
    let base = fresh(Metric::L2, &vectors);
    let given = alone(Metric::L2, &vectors);
    let shuffled: Vec<u32> = (0..2000).map(|row| row * 7 % 2000).collect();
    let far: Vec<u32> = (0..2000).map(|row| if row % 5 == 0 { 1_000_000 + row } else { row }).collect();
    let twice: Vec<u32> = (0..2000).map(|row| row / 2 * 2).collect();
    for positions in [shuffled, far, twice] {
        let seeds = [Seed { index: &base, positions: &positions }];
        let merged =
            graph(16, 64, &given, &seeds, false).unwrap().expect("most rows are said to be there").graph;
        merged.check(&given).unwrap();
        let found = merged.search((&vectors).into(), &vectors[..DIM], &wanted(2000, 2000, None));
        assert_eq!(found.len(), 2000);
    }
}

const OPTIONS: VectorIndexOptions =
    VectorIndexOptions::Hnsw { metric: Metric::L2, m: 16, ef_construction: 64 };

/// What the crate makes of one index over rows that are now elsewhere, or gone.
fn built_from(base: &dyn VectorIndex, positions: &[u32], params: &BuildParams) -> Box<dyn VectorIndex> {
    let seeds = [Seed { index: base, positions }];
    build_with(&OPTIONS, params, &BuildMeans { seeds: &seeds, ..BuildMeans::default() }).unwrap()
}

#[test]
fn a_merge_is_measured_and_one_that_finds_less_is_told() {
    let vectors = MIXTURE.rows(3000, 1);
    let base = build(&OPTIONS, &alone(Metric::L2, &vectors)).unwrap();
    let positions = without(3000, |row| row % 5 == 0);
    let mut rows = left(&vectors, &positions);
    rows.extend(MIXTURE.rows(600, 10));
    let given = alone(Metric::L2, &rows);
    let built = built_from(&*base, &positions, &given);
    // It went on from the base, and did not begin anew.
    let seeds = [Seed { index: &*base, positions: &positions }];
    let merged = graph(16, 64, &given, &seeds, false).unwrap().expect("a fifth is new");
    let merged = calibrated_with(merged.graph, &given, merged.wear).unwrap();
    assert!(built.serialize() == merged.serialize());
    assert_eq!(
        (built.shape(), built.serialize()[8]),
        ((3000, DIM), 4),
        "with a calibration that tells of reaches, and of wear"
    );
    let found = recall(built.graph().unwrap(), &rows, &MIXTURE.rows(100, 2), &wanted(10, 80, None));
    assert!(found >= 0.97, "{found}");
    let poor = VectorIndexOptions::Hnsw { metric: Metric::L2, m: 2, ef_construction: 2 };
    let poor = build(&poor, &given).unwrap();
    assert!(finds_less(&*poor, &*base) && !finds_less(&*base, &*base));
}

#[test]
fn what_adds_up_ends_in_a_fresh_graph() {
    let share = |index: &dyn VectorIndex| index.wear().map(Wear::share);
    let vectors = MIXTURE.rows(3000, 1);
    let base = build(&OPTIONS, &alone(Metric::L2, &vectors)).unwrap();
    assert_eq!((share(&*base), base.serialize()[8]), (Some(0.0), 4));
    // A tenth goes and comes: after three times more than a quarter would be new.
    let positions = without(3000, |row| row % 10 == 0);
    let (mut index, mut rows, mut shares) = (base, vectors, Vec::new());
    for generation in 0..3 {
        let mut after = left(&rows, &positions);
        after.extend(MIXTURE.rows(300, 10 + generation));
        let given = alone(Metric::L2, &after);
        let seeds = [Seed { index: &*index, positions: &positions }];
        let merged = graph(16, 64, &given, &seeds, false).unwrap();
        shares.push(merged.as_ref().map(|merged| merged.wear.share()));
        if let Some(merged) = merged {
            let built = calibrated_with(merged.graph, &given, merged.wear).unwrap();
            index = crate::open(&built.serialize()).unwrap();
        }
        rows = after;
    }
    assert_eq!(shares, [Some(0.1), Some(0.19), None], "0.271 is too much");
    // Not calibrated: nobody knows how often it was merged.
    let small = build(&OPTIONS, &alone(Metric::L2, &rows[..2000 * DIM])).unwrap();
    let all: Vec<u32> = (0..2000).collect();
    let grown = built_from(&*small, &all, &alone(Metric::L2, &rows[..2200 * DIM]));
    assert_eq!((share(&*small), share(&*grown)), (None, Some(0.0)));
}

#[test]
fn rows_without_a_vector_do_not_hide_wear() {
    let vectors = MIXTURE.rows(10_000, 1);
    // Three quarters are NULL and stay; of the others, most are replaced.
    let mut valid = Bits::new(10_000);
    (0..2500).for_each(|row| valid.set(row));
    let given = BuildParams { valid: Some(&valid), ..alone(Metric::L2, &vectors) };
    let base = build(&OPTIONS, &given).unwrap();
    let positions: Vec<u32> = (0..10_000).map(|row| if row < 2000 { NONE } else { row }).collect();
    let built = built_from(&*base, &positions, &given);
    assert_eq!(built.wear(), Some(Wear::NONE), "a fresh one");
}

/// Rows without any structure lose most in merges: what three of them cost stays within a hundredth.
#[test]
fn generations_of_normal_rows_find_what_a_fresh_graph_finds() {
    const ROWS: usize = 8000;
    const WIDE: usize = 96;
    fn given(vectors: &[f32]) -> BuildParams<'_> {
        BuildParams { threads: 1, ..params(Metric::L2, WIDE, vectors) }
    }
    let normal = Mixture { dim: WIDE, clusters: 1, spread: 1.0 };
    let mut vectors = normal.rows(ROWS, 1);
    let mut index = build(&OPTIONS, &given(&vectors)).unwrap();
    for generation in 0..3 {
        let positions = without(ROWS, |row| uniform(90 + generation, row) < 0.2);
        let stay = vectors.chunks(WIDE).zip(&positions).filter(|(_, position)| **position != NONE);
        let mut rows: Vec<f32> = stay.flat_map(|(row, _)| row).copied().collect();
        rows.extend(normal.rows(ROWS - rows.len() / WIDE, 10 + generation));
        index = built_from(&*index, &positions, &given(&rows));
        vectors = rows;
    }
    let anew = build(&OPTIONS, &given(&vectors)).unwrap();
    let queries = normal.rows(2000, 2);
    for ef in [40, 80] {
        let of = |index: &dyn VectorIndex| {
            recall(index.graph().unwrap(), &vectors, &queries, &wanted(10, ef, None))
        };
        let (found, expected) = (of(&*index), of(&*anew));
        assert!(found >= expected - 0.01, "ef {ef}: {found}, {expected} anew");
    }
}
