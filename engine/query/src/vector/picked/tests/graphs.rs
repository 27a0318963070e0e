//! Graphs over tables that are larger than memory: codes are walked, and the vectors of few rows are read.

use std::sync::atomic::{AtomicBool, Ordering};

use sepal_index::{Allowed, Effort, Part, VectorIndex, Work, search_parts};
use sepal_types::RowId;

use super::*;
use crate::vector::search::without_deleted;

/// Of each segment: five megabytes of vectors.
const SEGMENT: usize = 5_000;
/// Room for the vectors of one segment, not of two.
const ONE_COLUMN: usize = 6 << 20;
const VECTORS: ColumnId = ColumnId(2);

fn hnsw(metric: Metric) -> VectorIndexOptions {
    VectorIndexOptions::Hnsw { metric, m: 16, ef_construction: 64 }
}

/// Which positions of any chunk pass.
type Keeps = fn(usize) -> bool;

fn passing(keeps: Option<Keeps>, reference: &ChunkRef) -> Option<Selected> {
    let keeps = keeps?;
    let rows = reference.chunk.rows() as usize;
    let positions: Vec<u32> = (0..rows).filter(|row| keeps(*row)).map(|row| row as u32).collect();
    Some(Selected::at(&positions, rows))
}

fn ask(
    world: &World,
    indexes: &IndexCache,
    query: &[f32],
    k: usize,
    keeps: Option<Keeps>,
) -> (Vec<Hit>, Searched) {
    let filter = |_: usize, reference: &ChunkRef| Ok(passing(keeps, reference));
    let predicate: &Predicate<'_> = &filter;
    world.search(indexes, (query, k, 1), keeps.is_some().then_some(predicate)).unwrap()
}

/// Whole columns, and all indexes in memory.
struct AtHand {
    version: Arc<TableVersion>,
    columns: Vec<ArrayRef>,
    indexes: Vec<Option<Box<dyn VectorIndex>>>,
}

impl AtHand {
    fn of(world: &World) -> Self {
        let version = world.version();
        let chunks = version.chunks.iter().map(|held| &held.chunk);
        let columns =
            chunks.clone().map(|chunk| chunk.column_once(&version.def.columns[1]).unwrap()).collect();
        let indexes =
            chunks.map(|chunk| chunk.index_blob(INDEX).map(|bytes| open(&bytes.unwrap()).unwrap())).collect();
        Self { version, columns, indexes }
    }

    fn find(&self, query: &[f32], k: usize, keeps: Option<Keeps>) -> (Vec<Hit>, Searched) {
        let chunks = self.version.chunks.iter().zip(&self.columns);
        let allowed: Vec<Option<Selected>> = chunks
            .map(|(held, column)| without_nulls(column, without_deleted(held, passing(keeps, held)).as_ref()))
            .collect();
        let effort = Effort { ef_search: 40, probes: 1 };
        let parts: Vec<Part> = self
            .columns
            .iter()
            .zip(&self.indexes)
            .zip(&allowed)
            .map(|((column, index), allowed)| Part {
                index: index.as_deref().map(|index| (index, effort)),
                vectors: elements(column).unwrap().0,
                allowed: allowed.as_ref().map(|rows| Allowed { bits: rows.bits(), count: rows.count() }),
                rows: None,
            })
            .collect();
        let mut work = Work::default();
        let found = search_parts(&Query { metric: Metric::L2, vector: query, k }, &parts, &mut work);
        let rows = self.columns.iter().map(|column| column.len());
        let competing = allowed.iter().zip(rows.clone());
        let qualifying = competing.map(|(some, all)| some.as_ref().map_or(all, Selected::count) as u64);
        let searched =
            Searched { work, rows: rows.sum::<usize>() as u64, qualifying: qualifying.sum(), fetched: 0 };
        (found.into_iter().map(Hit::from).collect(), searched)
    }
}

/// Two segments, of which a hundred rows are deleted, and a few rows that are in no segment yet.
fn two_segments(cache: Arc<ColumnCache>) -> World {
    let world = World::of(hnsw(Metric::L2), cache, 2, SEGMENT);
    let RowId(first) = world.version().chunks[0].chunk.first_row();
    let rows: Vec<RowId> = (0..100).map(|row| RowId(first + 30 * row)).collect();
    world.commit(Op::Delete { table: TABLE, rows });
    world.insert(2 * SEGMENT..2 * SEGMENT + 40);
    assert_eq!(world.version().chunks.len(), 3);
    world
}

#[test]
fn the_rows_are_those_of_whole_columns_and_few_are_read() {
    let world = two_segments(ColumnCache::new(ONE_COLUMN));
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let at_hand = AtHand::of(&world);
    // All, half of them, some, and few.
    let filters: [Option<Keeps>; 4] =
        [None, Some(|row| row % 2 == 0), Some(|row| row % 6 == 1), Some(|row| row % 80 == 3)];
    for row in (0..2 * SEGMENT).step_by(900) {
        let Question { query, .. } = question(row, 0, 0);
        for (keeps, k) in filters.into_iter().flat_map(|keeps| [(keeps, 10), (keeps, 1), (keeps, 30)]) {
            let (expected, of_all) = at_hand.find(&query, k, keeps);
            let (hits, searched) = ask(&world, &indexes, &query, k, keeps);
            assert_eq!((hits.len(), &hits), (k, &expected), "{k} near row {row}");
            assert_eq!((searched.rows, searched.qualifying), (of_all.rows, of_all.qualifying));
            let ways = |work: &Work| (work.walked, work.scanned, work.exact, work.hops, work.codes);
            assert_eq!(ways(&searched.work), ways(&of_all.work));
            assert_eq!((searched.work.fetched, of_all.work.fetched), (2, 0));
            assert!((k as u64..200).contains(&searched.fetched), "{searched:?}");
        }
    }
    for held in &world.version().chunks[..2] {
        assert!(!held.chunk.is_decoded(VECTORS), "a whole column was decoded");
    }
}

#[test]
fn vectors_that_are_decoded_are_used_where_they_lie() {
    // A tenant keeps one column, however large it is.
    let memory = || ColumnCache::with_tenant_limit(PLENTY, 1 << 20);
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let one = World::of(hnsw(Metric::L2), memory(), 1, SEGMENT);
    let Question { query, .. } = question(1_234, 0, 0);
    let (hits, searched) = ask(&one, &indexes, &query, 10, None);
    assert_eq!((searched.work.walked, searched.work.fetched), (1, 1));
    decode(&one, 0);
    let (again, searched) = ask(&one, &indexes, &query, 10, None);
    assert_eq!((again, searched.work.walked, searched.work.fetched, searched.fetched), (hits, 1, 0, 0));
    // Where one segment is and another is not, both have a part in one contest.
    let two = two_segments(memory());
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    decode(&two, 1);
    let (hits, searched) = ask(&two, &indexes, &query, 10, None);
    assert_eq!((hits, searched.work.fetched), (AtHand::of(&two).find(&query, 10, None).0, 2));
}

#[test]
fn columns_have_what_opened_indexes_leave() {
    let columns = ColumnCache::new(PLENTY);
    let memory = Arc::new(IndexMemory::new(PLENTY).beside(&columns));
    let world = World::of(hnsw(Metric::L2), columns, 1, SEGMENT);
    let indexes = cache(&memory);
    let room = || world.version().chunks[0].chunk.decoded_most_bytes().unwrap();
    let Question { query, .. } = question(1_234, 0, 0);
    assert_eq!((room(), memory.index_bytes()), (PLENTY, 0));
    for _ in 0..2 {
        ask(&world, &indexes, &query, 10, None);
        assert!(memory.index_bytes() > 0);
        assert_eq!(room(), PLENTY - memory.index_bytes(), "it counts once");
    }
    memory.forget_tenant(TENANT);
    drop(indexes);
    assert_eq!(room(), PLENTY);
}

fn decode(world: &World, chunk: usize) {
    let version = world.version();
    version.chunks[chunk].chunk.column(&version.def.columns[1]).unwrap();
    assert!(version.chunks[chunk].chunk.is_decoded(VECTORS));
}

#[test]
fn rows_without_a_vector_fill_limit() {
    let world = World::of(hnsw(Metric::L2), ColumnCache::new(ONE_COLUMN), 2, SEGMENT);
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let Question { query, .. } = question(6, 0, 0);
    // Of the first segment three with a vector and five without, of the second eight with one.
    let keeps: Keeps = |row| (5..8).contains(&row) || NULLS.contains(&row);
    for (k, with, without) in [(20, 11, 5), (12, 11, 1), (4, 4, 0)] {
        let (hits, searched) = ask(&world, &indexes, &query, k, Some(keeps));
        let distances = hits.iter().filter(|hit| hit.distance.is_some()).count();
        assert_eq!((distances, hits.len()), (with, with + without), "LIMIT {k}");
        assert!(hits[..with].iter().all(|hit| hit.distance.is_some()));
        assert_eq!(searched.qualifying, 11);
    }
}

/// One segment's vectors after the other's, and the same rows as where all are at hand.
#[test]
fn segments_that_no_index_helps_with_are_searched_one_by_one() {
    let worlds = [ONE_COLUMN, PLENTY].map(|bytes| two_segments(ColumnCache::new(bytes)));
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let Question { query, .. } = question(1_234, 0, 0);
    let find = |world: &World, k: usize| {
        let (version, mut searched) = (world.version(), Searched::default());
        let wanted = Search {
            version: &version,
            column: &version.def.columns[1],
            metric: Metric::L2,
            as_halves: false,
            query: &query,
            k,
            settings: SearchSettings { use_indexes: false, ..SearchSettings::default() },
            predicate: None,
            abandoned: None,
        };
        (search(&wanted, &indexes, &mut searched).unwrap(), searched)
    };
    // The last one asks for more than there are, five of them without a vector.
    for k in [0, 1, 10, 3 * SEGMENT] {
        let [small, large] = worlds.each_ref().map(|world| find(world, k));
        assert_eq!(small, large, "LIMIT {k}");
        assert_eq!(small.0.len(), k.min(2 * SEGMENT + 40 - 100));
        let nulls = small.0.iter().filter(|hit| hit.distance.is_none()).count();
        assert_eq!(nulls, if k > SEGMENT { NULLS.len() } else { 0 });
    }
}

/// The statement is cancelled when all segments are at hand and none of them is searched yet.
#[test]
fn a_scan_that_nobody_waits_for_any_more_is_an_error() {
    let world = two_segments(ColumnCache::new(PLENTY));
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let (version, Question { query, .. }) = (world.version(), question(1_234, 0, 0));
    let abandoned = AtomicBool::new(false);
    let last = version.chunks.len() - 1;
    let predicate = |chunk: usize, _: &ChunkRef| {
        abandoned.store(chunk == last, Ordering::Relaxed);
        Ok(None)
    };
    let mut wanted = Search {
        version: &version,
        column: &version.def.columns[1],
        metric: Metric::L2,
        as_halves: false,
        query: &query,
        k: 3,
        settings: SearchSettings { use_indexes: false, ..SearchSettings::default() },
        predicate: Some(&predicate),
        abandoned: Some(&abandoned),
    };
    let refused = search(&wanted, &indexes, &mut Searched::default()).unwrap_err();
    assert_eq!(refused.state().code(), "57014");
    wanted.abandoned = None;
    assert_eq!(search(&wanted, &indexes, &mut Searched::default()).unwrap().len(), 3);
}

#[test]
fn a_walk_on_vectors_reads_the_whole_column() {
    let world = World::of(hnsw(Metric::L1), ColumnCache::new(1 << 20), 1, 3_000);
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let Question { query, .. } = question(77, 0, 0);
    let (hits, searched) = ask(&world, &indexes, &query, 10, None);
    assert_eq!((hits.len(), searched.work.walked, searched.work.fetched), (10, 1, 0));
    // But not for the few rows that a filter leaves.
    let few: Keeps = |row| row % 100 == 50;
    let (hits, searched) = ask(&world, &indexes, &query, 10, Some(few));
    assert_eq!((hits.len(), searched.work.exact, searched.work.fetched), (10, 1, 1));
    assert_eq!((searched.work.distances, searched.fetched), (30, 30));
}

#[test]
fn a_damaged_page_is_an_error_and_never_fewer_rows() {
    let world = World::of(hnsw(Metric::L2), ColumnCache::new(1 << 20), 1, SEGMENT);
    let indexes = cache(&Arc::new(IndexMemory::new(PLENTY)));
    let at_hand = AtHand::of(&world);
    let (file, mut sound, mut damaged) = (world.file("parquet"), 0, 0);
    let mut sealed = std::fs::read(&file).unwrap();
    // Nearly all of the file is pages of vectors, and all that is from here to there is.
    let middle = sealed.len() / 3..sealed.len() / 2;
    middle.step_by(1_000).for_each(|place| sealed[place] ^= 1);
    std::fs::write(&file, &sealed).unwrap();
    for row in (0..SEGMENT).step_by(100) {
        let Question { query, .. } = question(row, 0, 0);
        match world.search(&indexes, (&query[..], 2, 1), None) {
            Ok((hits, _)) => {
                assert_eq!(hits, at_hand.find(&query, 2, None).0);
                sound += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 10, "{sound} answers, {damaged} errors");
}
