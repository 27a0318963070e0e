//! Whether an index asked for recall gives it to strangers, and the bytes.

use proptest::prelude::*;
use sepal_types::{Metric, VectorIndexOptions};

use super::*;
use crate::graph::Step;
use crate::layout::Measured as Tells;
use crate::quantize::mix;
use crate::{Bits, build, open, search_exact};

/// Uniform in [-1, 1), the same every time.
fn scattered(seed: u64, index: usize) -> f32 {
    (mix(seed ^ mix(index as u64)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// `rows × dim` around 60 centres, each with clouds of its own in it. Strangers are rows of another `seed`.
fn clusters(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    (0..rows * dim)
        .map(|index| {
            let (row, axis) = (index / dim, index % dim);
            let centre = mix(seed ^ row as u64) as usize % 60;
            let cloud = centre * 8 + mix(seed ^ row as u64 ^ 1) as usize % 8;
            scattered(77, centre * dim + axis)
                + 0.5 * scattered(78, cloud * dim + axis)
                + 0.5 * scattered(seed, index)
        })
        .collect()
}

fn params(metric: Metric, dim: usize, vectors: &[f32]) -> BuildParams<'_> {
    let (progress, cancelled) = (&|_, _| {}, &|| false);
    BuildParams { metric, dim, vectors, valid: None, threads: 1, progress, cancelled }
}

fn at(k: usize, effort: usize) -> SearchParams<'static> {
    SearchParams { k, ef_search: effort, probes: effort, allowed: None }
}

const GRAPH: fn(Metric) -> VectorIndexOptions =
    |metric| VectorIndexOptions::Hnsw { metric, m: 12, ef_construction: 48 };
const CELLS: fn(Metric) -> VectorIndexOptions = |metric| VectorIndexOptions::IvfFlat { metric, lists: 64 };

/// The mean share of the nearest `k` that strangers get at the effort for `target`.
fn reached(index: &dyn VectorIndex, metric: Metric, vectors: &[f32], target: f64, k: usize) -> f64 {
    let dim = index.shape().1;
    let effort = index.effort_for(target, k);
    let strangers = clusters(250, dim, 1001);
    let (mut found, mut all) = (0, 0);
    for query in strangers.chunks(dim) {
        let truth = search_exact(metric, dim, vectors, query, k, None);
        all += truth.len();
        found += match effort {
            Some(effort) => {
                let result = index.search(vectors.into(), query, &at(k, effort));
                truth.iter().filter(|neighbor| result.contains(neighbor)).count()
            }
            None => truth.len(),
        };
    }
    found as f64 / all as f64
}

#[test]
fn strangers_get_the_recall_that_was_asked_for() {
    let dim = 24;
    let vectors = clusters(9000, dim, 1);
    let kinds = [
        GRAPH(Metric::L2),
        GRAPH(Metric::Cosine),
        GRAPH(Metric::L1),
        CELLS(Metric::L2),
        CELLS(Metric::Cosine),
    ];
    for options in kinds {
        let metric = options.metric();
        let index = build(&options, &params(metric, dim, &vectors)).unwrap();
        for k in [1, 10, 40, 100, 150] {
            for target in [0.9, 0.95, 0.99] {
                let found = reached(&*index, metric, &vectors, target, k);
                assert!(
                    found >= target - 0.02,
                    "{options:?}, {k} at {target}: {found} with {:?}",
                    index.effort_for(target, k)
                );
            }
        }
        let efforts = [0.8, 0.9, 0.95, 0.99].map(|target| index.effort_for(target, 10).unwrap_or(usize::MAX));
        assert!(efforts.is_sorted(), "{options:?}: {efforts:?}");
        assert!(efforts[1] < 500, "{options:?}: {efforts:?}");
        assert_eq!(index.effort_for(1.0, 10), None, "only the exact scan promises everything");
    }
}

#[test]
fn the_same_build_measures_the_same_and_its_bytes_keep_it() {
    let vectors = clusters(4000, 20, 3);
    for options in [GRAPH(Metric::L2), CELLS(Metric::L2)] {
        let bytes = || build(&options, &params(Metric::L2, 20, &vectors)).unwrap().serialize();
        let first = bytes();
        let version = if options == GRAPH(Metric::L2) { 4 } else { 2 };
        assert_eq!((first[8], first == bytes()), (version, true), "{options:?}");
        let (built, opened) =
            (build(&options, &params(Metric::L2, 20, &vectors)).unwrap(), open(&first).unwrap());
        for (target, k) in [(0.9, 10), (0.97, 3), (0.97, 70), (0.9, 500)] {
            assert_eq!(opened.effort_for(target, k), built.effort_for(target, k));
        }
        // Version 1 opens as ever, and guesses.
        let (_, plain, _) = crate::layout::split(crate::layout::Source::Bytes(&first)).unwrap();
        let mut plain = plain.rest().unwrap().into_owned();
        plain[8] = 1;
        plain[20..24].fill(0);
        let guessing = open(&plain).unwrap();
        let query = &vectors[..20];
        assert_eq!(
            guessing.search((&vectors).into(), query, &at(9, 1000)),
            opened.search((&vectors).into(), query, &at(9, 1000)),
            "past what was measured a graph is walked as ever"
        );
        assert!(guessing.effort_for(0.9, 10) >= opened.effort_for(0.9, 10), "a guess is careful");
        assert_eq!((guessing.serialize() == plain, guessing.wear()), (true, None));
    }
}

#[test]
fn small_indexes_and_copies_are_not_measured() {
    let small = clusters(1500, 20, 4);
    let copies: Vec<f32> = clusters(1, 20, 5).repeat(3000);
    for vectors in [&small, &copies] {
        for options in [GRAPH(Metric::L2), GRAPH(Metric::L1), CELLS(Metric::L2)] {
            let index = build(&options, &params(options.metric(), 20, vectors)).unwrap();
            assert_eq!(index.serialize()[8], 1, "{options:?}");
            assert!(index.effort_for(0.95, 10).is_none_or(|effort| effort > 0));
        }
    }
    let flat = VectorIndexOptions::Flat { metric: Metric::L2 };
    let flat = build(&flat, &params(Metric::L2, 20, &small)).unwrap();
    assert_eq!(flat.effort_for(1.0, 10), Some(1), "always exact");
}

#[test]
fn copies_among_others_are_no_neighbours() {
    let dim = 20;
    let mut vectors = clusters(4000, dim, 6);
    // Every second row is a copy of the one before it; the first thousand are all one.
    for row in 0..4000 {
        let from = if row < 1000 { 0 } else { row - row % 2 };
        vectors.copy_within(from * dim..(from + 1) * dim, row * dim);
    }
    for metric in [Metric::L2, Metric::Cosine] {
        for options in [GRAPH(metric), CELLS(metric)] {
            let index = build(&options, &params(metric, dim, &vectors)).unwrap();
            assert!(reached(&*index, metric, &vectors, 0.95, 10) >= 0.93, "{options:?}");
            for row in [5, 1500, 3999] {
                let question = &vectors[row * dim..][..dim];
                let mut others = Bits::full(4000);
                (0..4000)
                    .filter(|other| same_bits(question, &vectors[other * dim..][..dim]))
                    .for_each(|equal| others.clear(equal));
                let truth = search_exact(metric, dim, &vectors, question, 30, Some(&others));
                let found = index.search_unseen((&vectors).into(), row, &at(30, 4000));
                assert_eq!(found, truth, "{options:?} {row}: with all effort it is the exact answer");
                let narrow = index.search_unseen((&vectors).into(), row, &at(30, 1));
                assert!(narrow.len() == 30 && narrow.iter().all(|other| others.get(other.position as usize)));
            }
        }
    }
}

#[test]
fn nulls_ask_nothing_and_cancelling_is_heard() {
    let vectors = clusters(4000, 20, 7);
    let mut valid = Bits::full(4000);
    (1000..2500).for_each(|row| valid.clear(row));
    let given = BuildParams { valid: Some(&valid), threads: 3, ..params(Metric::L2, 20, &vectors) };
    for options in [GRAPH(Metric::L2), CELLS(Metric::L2)] {
        let index = build(&options, &given).unwrap();
        let version = if options == GRAPH(Metric::L2) { 4 } else { 2 };
        assert_eq!((index.serialize()[8], index.len()), (version, 2500), "{options:?}");
        assert!(index.effort_for(0.9, 10).is_some());
    }
    let built = crate::graph::Graph::build(Metric::L2, 12, 48, &given).unwrap();
    let cancelled = BuildParams { cancelled: &|| true, ..given };
    assert!(matches!(calibrated(built, &cancelled), Err(IndexError::Cancelled)));
}

/// `(effort, what each question found)`
fn curve(k: u16, rungs: &[(u32, &[u32])]) -> Curve {
    let rung = |(effort, found): &(u32, &[u32])| Rung {
        effort: *effort,
        found: found.iter().sum(),
        squares: found.iter().map(|found| found * found).sum(),
    };
    Curve { k, questions: rungs[0].1.len() as u16, rungs: rungs.iter().map(rung).collect() }
}

#[test]
fn efforts_lie_between_what_was_measured() {
    let narrow = curve(10, &[(10, &[9, 9, 9, 9]), (40, &[10, 10, 10, 10])]);
    let alone = Calibration { wear: Wear::NONE, curves: vec![narrow.clone()], reach: Reach::default() };
    assert_eq!(
        [0.5, 0.9, 0.95, 1.0].map(|recall| alone.effort_for(recall, 10)),
        [Some(10), Some(10), Some(20), None]
    );
    assert_eq!(alone.effort_for(0.95, 2), Some(20), "fewer than ten are no harder to find");
    assert_eq!(alone.effort_for(0.95, 30), Some(60), "more want more");
    let wide = curve(1000, &[(2000, &[1000; 4])]);
    let both = Calibration { wear: Wear::NONE, curves: vec![narrow, wide], reach: Reach::default() };
    assert_eq!([10, 100, 1000, 2000].map(|k| both.effort_for(0.95, k)), [20, 200, 2000, 4000].map(Some));
}

#[test]
fn a_small_sample_promises_less_than_it_found() {
    // A mean of 0.95 with a standard error of 0.05.
    let uneven = curve(10, &[(10, &[10, 9]), (20, &[10, 9]), (80, &[10, 10])]);
    assert_eq!(uneven.effort(0.89), Some(10.0));
    let half = uneven.effort(0.95).map(f64::round);
    assert_eq!(half, Some(40.0), "half way from the bound of the second to all");
    let short = curve(10, &[(10, &[10, 9])]);
    assert_eq!((short.effort(0.95), short.effort(0.96)), (Some(10.0), None));
    let by_chance = curve(10, &[(10, &[9, 9]), (20, &[8, 8]), (40, &[10, 10])]);
    assert_eq!(by_chance.effort(0.95).map(f64::round), Some(28.0), "from 0.9, but with the later effort");
}

/// Three rows of two elements under L2, all held, and two curves.
fn golden() -> Vec<u8> {
    let mut bytes = b"SEPALIDX\x02\0\x01\x01\x03\0\0\0\x02\0\0\0\x38\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(b"\x02\0\0\0");
    bytes.extend(b"\x0a\0\x02\0\x02\0\0\0");
    bytes.extend(b"\x0a\0\0\0\x13\0\0\0\xb5\0\0\0");
    bytes.extend(b"\x28\0\0\0\x14\0\0\0\xc8\0\0\0");
    bytes.extend(b"\x64\0\x01\0\x01\0\0\0");
    bytes.extend(b"\x70\0\0\0\x63\0\0\0\x49\x26\0\0");
    bytes
}

/// Version 2, for ever: a change here is a new version.
#[test]
fn bytes_are_these_for_ever() {
    let bytes = golden();
    let opened = open(&bytes).unwrap();
    assert_eq!(opened.serialize(), bytes);
    let calibration = Calibration {
        wear: Wear::NONE,
        curves: vec![curve(10, &[(10, &[10, 9]), (40, &[10, 10])]), curve(100, &[(112, &[99])])],
        reach: Reach::default(),
    };
    assert_eq!(layout::encode(&calibration), bytes[32..]);
    assert_eq!(layout::decode(&bytes[32..], Tells::Recall).unwrap(), calibration);
    assert_eq!((opened.effort_for(0.9, 10), opened.effort_for(0.99, 100)), (Some(10), Some(112)));
    assert_eq!(opened.wear(), Some(Wear::NONE));
    for len in 0..bytes.len() {
        assert!(open(&bytes[..len]).is_err(), "{len} bytes");
    }
    for (offset, value) in
        [(32, 0), (34, 1), (36, 0), (38, 0), (40, 0), (44, 41), (48, 21), (52, 3), (60, 100)]
    {
        let mut damaged = bytes.clone();
        damaged[offset] = value;
        assert!(open(&damaged).is_err(), "byte {offset} as {value}");
    }
}

/// Version 3, for ever: the same, worn by 0.4660.
#[test]
fn bytes_of_a_worn_index_are_these_for_ever() {
    let mut bytes = golden();
    (bytes[8], bytes[34], bytes[35]) = (3, 0x34, 0x12);
    let opened = open(&bytes).unwrap();
    assert_eq!(opened.wear().map(Wear::share), Some(0.466));
    assert_eq!(opened.effort_for(0.9, 10), Some(10));
    assert_eq!(opened.serialize(), bytes);
    assert_eq!(layout::encode(&layout::decode(&bytes[32..], Tells::Wear).unwrap()), bytes[32..]);
    for (offset, value) in [(8, 1), (8, 2), (8, 4), (8, 5), (35, 0x28)] {
        let mut damaged = bytes.clone();
        damaged[offset] = value;
        assert!(open(&damaged).is_err(), "byte {offset} as {value}");
    }
    (bytes[34], bytes[35]) = (0, 0);
    assert!(open(&bytes).is_err(), "version 3 without wear");
}

/// Version 4, for ever: the same, with wear or without, and two steps of a reach: 0.125 at 10, 0.5 at 40.
#[test]
fn bytes_of_a_reaching_index_are_these_for_ever() {
    for wear in [0x1234u16, 0] {
        let mut bytes = golden();
        bytes[8] = 4;
        bytes[34..36].copy_from_slice(&wear.to_le_bytes());
        let start = bytes.len();
        bytes.extend(b"\x02\0\0\0\x0a\0\0\0\0\0\0\x3e\x28\0\0\0\0\0\0\x3f");
        let length = u32::try_from(bytes.len() - 32).unwrap();
        bytes[20..24].copy_from_slice(&length.to_le_bytes());
        let opened = open(&bytes).unwrap();
        assert_eq!(opened.wear().map(Wear::to_bits), Some(wear));
        assert_eq!(opened.serialize(), bytes);
        let calibration = layout::decode(&bytes[32..], Tells::Reach).unwrap();
        let steps = [Step { effort: 10, reach: 0.125 }, Step { effort: 40, reach: 0.5 }];
        assert_eq!(calibration.reach().steps(), steps);
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "{len} bytes");
        }
        // No steps, a wrong zero, effort 0, a reach below 0, one that is no number, efforts that fall.
        for (offset, value) in [(0, 0), (2, 1), (4, 0), (11, 0xbe), (19, 0x7f), (12, 9)] {
            let mut damaged = bytes.clone();
            damaged[start + offset] = value;
            if offset == 19 {
                damaged[start + 18] = 0xc0;
            }
            assert!(open(&damaged).is_err(), "byte {offset} as {value}");
        }
    }
}

proptest! {
    #[test]
    fn noise_is_refused_or_harmless(noise in prop::collection::vec(any::<u8>(), 0..120), recall in 0.0..1.0f64) {
        for measured in [Tells::Recall, Tells::Wear, Tells::Reach] {
            let Ok(calibration) = layout::decode(&noise, measured) else { continue };
            for k in [0, 1, 10, 11, 70_000] {
                calibration.effort_for(recall, k);
            }
            prop_assert_eq!(layout::encode(&calibration), noise.clone());
        }
    }
}
