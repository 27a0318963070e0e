//! Several segments searched as one: what is found, and how much work it is.

use half::f16;
use sepal_types::VectorIndexOptions;

use super::*;
use crate::quantize::mix;
use crate::{BuildParams, build};

const DIM: usize = 24;

fn uniform(seed: u64, index: usize) -> f32 {
    (mix(seed ^ mix(index as u64)) >> 40) as f32 / (1u64 << 24) as f32
}

/// Rows in a hundred loose clusters.
fn rows(count: usize, seed: u64) -> Vec<f32> {
    (0..count * DIM)
        .map(|index| {
            let cluster = mix(seed ^ (index / DIM) as u64) as usize % 100;
            2.0 * uniform(7, cluster * DIM + index % DIM) + uniform(seed, index)
        })
        .collect()
}

fn index(options: VectorIndexOptions, vectors: &[f32]) -> Box<dyn VectorIndex> {
    let params = BuildParams {
        metric: options.metric(),
        dim: DIM,
        vectors,
        valid: None,
        threads: 2,
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    build(&options, &params).unwrap()
}

fn hnsw(vectors: &[f32]) -> Box<dyn VectorIndex> {
    index(VectorIndexOptions::Hnsw { metric: Metric::L2, m: 16, ef_construction: 64 }, vectors)
}

const EFFORT: Effort = Effort { ef_search: 60, probes: 2 };

fn part<'a>(index: Option<&'a dyn VectorIndex>, vectors: &'a [f32]) -> Part<'a> {
    Part { index: index.map(|index| (index, EFFORT)), vectors: vectors.into(), allowed: None, rows: None }
}

fn query(vector: &[f32], k: usize) -> Query<'_> {
    Query { metric: Metric::L2, vector, k }
}

/// What scanning all parts finds.
fn truth(query: &Query, parts: &[Part]) -> Vec<Found> {
    let bare: Vec<Part> = parts.iter().map(|part| Part { index: None, ..*part }).collect();
    search_parts(query, &bare, &mut Work::default())
}

/// The share of the truth found by 40 searches, and their work.
fn recall(parts: &[Part], k: usize) -> (f64, Work) {
    let (mut found, mut work) = (0, Work::default());
    let queries = rows(40, 99);
    for vector in queries.chunks(DIM) {
        let query = query(vector, k);
        let (truth, result) = (truth(&query, parts), search_parts(&query, parts, &mut work));
        assert_eq!(result.len(), truth.len(), "LIMIT is filled");
        assert!(result.windows(2).all(|pair| pair[0] < pair[1]), "ascending and distinct");
        found += result.iter().filter(|hit| truth.contains(hit)).count();
    }
    (found as f64 / (40 * k) as f64, work)
}

/// Four graphs of 3,000 rows find what one of 12,000 does, and no more rows are scored exactly.
#[test]
fn candidates_of_all_graphs_are_scored_together() {
    let vectors = rows(12_000, 1);
    let whole = hnsw(&vectors);
    let pieces: Vec<&[f32]> = vectors.chunks(3_000 * DIM).collect();
    let graphs: Vec<_> = pieces.iter().map(|piece| hnsw(piece)).collect();
    let parts: Vec<Part> =
        graphs.iter().zip(&pieces).map(|(graph, piece)| part(Some(&**graph), piece)).collect();
    let (one, of_one) = recall(&[part(Some(&*whole), &vectors)], 10);
    let (many, of_many) = recall(&parts, 10);
    assert_eq!((of_one.walked, of_many.walked), (40, 160), "{of_one:?} {of_many:?}");
    assert!(one > 0.9 && many > one - 0.02, "{one} {many}");
    assert!(of_many.distances * 2 < of_one.distances * 3, "{of_one:?} {of_many:?}");
}

#[test]
fn filters_of_every_share_cost_no_rows() {
    let vectors = rows(9_000, 2);
    let pieces: Vec<&[f32]> = vectors.chunks(3_000 * DIM).collect();
    let graphs: Vec<_> = pieces.iter().map(|piece| hnsw(piece)).collect();
    for one_in in [2, 10, 30, 1_000, 10_000] {
        // The last piece is not filtered, the first keeps all but one in so many.
        let bits: Vec<Bits> = (0..2)
            .map(|piece| {
                let mut bits = Bits::new(3_000);
                let allowed = |row: usize| (mix(row as u64) as usize).is_multiple_of(one_in) != (piece == 0);
                (0..3_000).filter(|row| allowed(*row)).for_each(|row| bits.set(row));
                bits
            })
            .collect();
        let allowed = [Some(Allowed::new(&bits[0])), Some(Allowed::new(&bits[1])), None];
        let parts: Vec<Part> = graphs
            .iter()
            .zip(&pieces)
            .zip(allowed)
            .map(|((graph, piece), allowed)| Part { allowed, ..part(Some(&**graph), piece) })
            .collect();
        let (share, work) = recall(&parts, 10);
        assert!(share > 0.9, "one in {one_in}: {share} {work:?}");
        let (share, _) = recall(&parts[..2], 10);
        assert!(share > 0.9, "one in {one_in}, all filtered: {share}");
    }
}

#[test]
fn a_few_rows_that_are_gone_do_not_change_the_walk() {
    let vectors = rows(6_000, 3);
    let graph = hnsw(&vectors);
    let mut live = Bits::full(6_000);
    (0..6_000).step_by(100).for_each(|row| live.clear(row));
    let all = [part(Some(&*graph), &vectors)];
    let some = [Part { allowed: Some(Allowed::new(&live)), ..all[0] }];
    let ((before, of_all), (after, of_some)) = (recall(&all, 10), recall(&some, 10));
    assert!(after > before - 0.01, "{before} {after}");
    assert!(of_some.codes * 10 < of_all.codes * 13, "{of_all:?} {of_some:?}");
}

#[test]
fn parts_of_all_kinds_are_searched_together() {
    let vectors = rows(4_000, 4);
    let pieces: Vec<&[f32]> = vectors.chunks(1_000 * DIM).collect();
    let metric = Metric::L2;
    let (graph, cells) =
        (hnsw(pieces[0]), index(VectorIndexOptions::IvfFlat { metric, lists: 8 }, pieces[1]));
    let flat = index(VectorIndexOptions::Flat { metric }, pieces[2]);
    let mut none = Bits::new(1_000);
    let mut parts = [
        part(Some(&*graph), pieces[0]),
        part(Some(&*cells), pieces[1]),
        part(Some(&*flat), pieces[2]),
        part(None, pieces[3]),
    ];
    for k in [1, 10, 300, 5_000] {
        let (share, work) = recall(&parts, k);
        assert!(share > 0.7, "{k}: {share}");
        // A graph, or cells, that would be asked for all their rows are scored instead.
        assert!(work.asked > 0 && work.exact >= 40, "{work:?}");
    }
    none.set(17);
    parts.iter_mut().for_each(|part| part.allowed = Some(Allowed::new(&none)));
    let found = search_parts(&query(&vectors[..DIM], 10), &parts, &mut Work::default());
    let mut found: Vec<(u32, u32)> = found.iter().map(|hit| (hit.part, hit.neighbor.position)).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, 17), (1, 17), (2, 17), (3, 17)]);
    let nothing = Bits::new(1_000);
    parts.iter_mut().for_each(|part| part.allowed = Some(Allowed::new(&nothing)));
    assert!(search_parts(&query(&vectors[..DIM], 10), &parts, &mut Work::default()).is_empty());
    assert!(search_parts(&query(&vectors[..DIM], 10), &[], &mut Work::default()).is_empty());
}

/// Kept as `f16` or as the `f32` that those are: the same rows, the same distances, the same work.
#[test]
fn rows_of_half_precision_are_found_as_the_rows_they_are() {
    let half: Vec<f16> = rows(9_000, 6).into_iter().map(f16::from_f32).collect();
    let pieces: Vec<Vectors> = half.chunks(3_000 * DIM).map(Vectors::from).collect();
    let wide: Vec<_> = pieces.iter().map(|piece| piece.widened()).collect();
    let cells = index(VectorIndexOptions::IvfFlat { metric: Metric::L2, lists: 20 }, &wide[1]);
    let indexes = [Some(hnsw(&wide[0])), Some(cells), None];
    let mut few = Bits::new(3_000);
    (0..3_000).step_by(20).for_each(|row| few.set(row));
    for allowed in [None, Some(Allowed::new(&few))] {
        let of_singles: Vec<Part> = indexes
            .iter()
            .zip(&wide)
            .map(|(index, wide)| Part { allowed, ..part(index.as_deref(), wide) })
            .collect();
        let of_halves: Vec<Part> = of_singles
            .iter()
            .zip(&pieces)
            .map(|(single, piece)| Part { vectors: *piece, ..*single })
            .collect();
        for vector in rows(20, 98).chunks(DIM) {
            let (mut of_single, mut of_half) = (Work::default(), Work::default());
            let found = search_parts(&query(vector, 10), &of_singles, &mut of_single);
            assert_eq!(found.len(), 10);
            assert_eq!(search_parts(&query(vector, 10), &of_halves, &mut of_half), found);
            assert_eq!(of_half, of_single);
        }
    }
}

/// LIMIT counts rows without a distance, whichever part they are in.
#[test]
fn rows_without_a_direction_fill_up() {
    let mut vectors = rows(600, 5);
    vectors[..300 * DIM].fill(0.0);
    let options = VectorIndexOptions::Hnsw { metric: Metric::Cosine, m: 8, ef_construction: 40 };
    let graphs: Vec<_> = vectors.chunks(300 * DIM).map(|piece| index(options.clone(), piece)).collect();
    let parts: Vec<Part> = graphs
        .iter()
        .zip(vectors.chunks(300 * DIM))
        .map(|(graph, piece)| part(Some(&**graph), piece))
        .collect();
    let query = Query { metric: Metric::Cosine, vector: &vectors[300 * DIM..][..DIM], k: 400 };
    let found = search_parts(&query, &parts, &mut Work::default());
    assert_eq!(found.len(), 400);
    assert!(found[..300].iter().all(|hit| hit.part == 1 && hit.neighbor.distance.is_finite()));
    assert!(found[300..].iter().all(|hit| hit.part == 0 && hit.neighbor.distance.is_nan()));
}

/// Another length of the query changes no order of inner products, and no walk.
#[test]
fn a_longer_query_is_searched_as_far() {
    let vectors = rows(4_000, 5);
    let options = VectorIndexOptions::Hnsw { metric: Metric::InnerProduct, m: 16, ef_construction: 64 };
    let index = index(options, &vectors);
    let hops = |scale: f32| {
        let mut work = Work::default();
        for number in 0..20 {
            let asked: Vec<f32> = (0..DIM).map(|at| scale * uniform(99, number * DIM + at)).collect();
            let asked = Query { metric: Metric::InnerProduct, vector: &asked, k: 10 };
            search_parts(&asked, &[part(Some(&*index), &vectors)], &mut work);
        }
        work.hops
    };
    let (short, usual, long) = (hops(1.0 / 1024.0), hops(1.0), hops(1024.0));
    assert!(short == usual && usual == long, "{short}, {usual} and {long} nodes followed");
}

/// A filter's rows lie far from the query in one graph, so that its walk gives up: another graph that fills LIMIT does
/// not stand in for it.
#[test]
fn a_walk_that_gives_up_costs_no_segment() {
    // Two dimensions have no codes: walks go by vectors. Of each segment the last fourth is allowed.
    let group = |x: f32, count: usize, seed: u64| {
        (0..2 * count).map(move |at| if at % 2 == 0 { x } else { 0.0 } + uniform(seed, at))
    };
    let one: Vec<f32> = group(0.0, 3_000, 1).chain(group(100.0, 1_000, 2)).collect();
    let two: Vec<f32> = group(1_000.0, 3_000, 3).chain(group(200.0, 1_000, 4)).collect();
    let built = |vectors: &[f32]| {
        let options = VectorIndexOptions::Hnsw { metric: Metric::L2, m: 4, ef_construction: 32 };
        let params = BuildParams {
            metric: Metric::L2,
            dim: 2,
            vectors,
            valid: None,
            threads: 1,
            progress: &|_, _| {},
            cancelled: &|| false,
        };
        build(&options, &params).unwrap()
    };
    let (near, far) = (built(&one), built(&two));
    let mut bits = Bits::new(4_000);
    (3_000..4_000).for_each(|row| bits.set(row));
    let effort = Effort { ef_search: 10, probes: 1 };
    let parts = [(&near, &one), (&far, &two)].map(|(index, vectors)| Part {
        index: Some((&**index, effort)),
        vectors: vectors.as_slice().into(),
        allowed: Some(Allowed::new(&bits)),
        rows: None,
    });
    let found = search_parts(&query(&[0.0, 0.0], 10), &parts, &mut Work::default());
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|hit| hit.part == 0), "{found:?}");
}
