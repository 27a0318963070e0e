//! A table that is larger than memory is searched as one that is not: the same rows, little of it held, and what cannot
//! be read is an error.

mod graphs;

use std::{ops::Range, path::PathBuf, sync::Arc};

use datafusion::arrow::{
    array::{Array, AsArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Float32Type, Int64Type, Schema},
};
use sepal_crypto::Key;
use sepal_index::{Bits, BuildParams, build, open, search_exact};
use sepal_storage::{
    BlobBuilder, BlobBytes, Chunk, ColumnCache, MergeInput, Op, StoreError, StoreOptions, TableVersion,
    TenantStore, arrow_type, stored_name,
};
use sepal_types::{
    ColumnDef, ColumnId, Constraints, IndexDef, IndexMethod, Metric, SqlType, TableDef, TableId, TenantId,
    VectorIndexOptions,
};
use tempfile::TempDir;

use super::*;
use crate::{
    context::{Recall, SearchSettings},
    vector::{
        Hit, IndexCache, IndexMemory, Searched, elements,
        fetch::fetch,
        search,
        search::{Predicate, without_nulls},
    },
};

const TENANT: TenantId = TenantId([7; 16]);
const TABLE: TableId = TableId(20_001);
const INDEX: TableId = TableId(20_002);
/// More than two chunks of a sealed file are codes.
const ROWS: usize = 18_000;
const DIMENSIONS: u16 = 256;
const DIM: usize = DIMENSIONS as usize;
const LISTS: u32 = 40;
/// These have no vector.
const NULLS: Range<usize> = 100..105;
/// Enough for the vectors or the index as a whole.
const PLENTY: usize = 1 << 30;

/// A store with a few segments of one table, and room for some decoded columns.
struct World {
    store: Arc<TenantStore>,
    directory: TempDir,
}

/// What `database` does when a segment is written.
struct Builder;

fn options(lists: u32) -> VectorIndexOptions {
    VectorIndexOptions::IvfFlat { metric: Metric::L2, lists }
}

fn index_bytes(options: &VectorIndexOptions, column: &ArrayRef) -> Vec<u8> {
    let (vectors, dim) = elements(column).unwrap();
    let (vectors, valid) = (vectors.widened(), Selected::valued(column).map(Selected::into_bits));
    let params = BuildParams {
        metric: options.metric(),
        dim,
        vectors: &vectors,
        valid: valid.as_ref(),
        threads: 2,
        progress: &|_, _| (),
        cancelled: &|| false,
    };
    build(options, &params).unwrap().serialize()
}

impl BlobBuilder for Builder {
    fn build(
        &self,
        def: &TableDef,
        index: &IndexDef,
        segment: &Chunk,
        _: &[MergeInput<'_>],
    ) -> std::result::Result<Option<Box<dyn BlobBytes>>, StoreError> {
        let IndexMethod::Vector(options) = &index.method else { unreachable!() };
        let column = segment.column_once(&def.columns[1])?;
        Ok(Some(Box::new(index_bytes(options, &column))))
    }
}

fn definition(options: VectorIndexOptions) -> TableDef {
    let column = |id: u32, name: &str, ty: SqlType| ColumnDef::new(ColumnId(id), name, ty);
    TableDef {
        id: TABLE,
        environment: "default".into(),
        schema: "public".into(),
        name: "t".into(),
        columns: vec![column(1, "id", SqlType::Int8), column(2, "v", SqlType::Vector(Some(DIMENSIONS)))],
        next_column: ColumnId(3),
        uniques: Vec::new(),
        indexes: vec![IndexDef {
            id: INDEX,
            name: "i".into(),
            columns: vec![ColumnId(2)],
            method: IndexMethod::Vector(options),
            valid: true,
            clauses: None,
        }],
        captured: false,
        constraints: Constraints::default(),
    }
}

/// Numbers in -1 to 1 that look random, around one of many centres.
fn vector(row: usize) -> impl Iterator<Item = f32> {
    let uniform = |seed: usize, element: usize| {
        let mixed = ((seed * DIM + element) as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..DIM).map(move |element| uniform(row + 1_000, element) + 0.5 * uniform(row % 97, element))
}

fn rows(def: &TableDef, rows: Range<usize>) -> RecordBatch {
    let DataType::FixedSizeList(item, size) = arrow_type(&def.columns[1].ty) else { unreachable!() };
    let values: Float32Array = rows.clone().flat_map(vector).collect();
    let valid: NullBuffer = rows.clone().map(|row| !NULLS.contains(&row)).collect::<Vec<bool>>().into();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(rows.map(|row| row as i64).collect::<Int64Array>()),
        Arc::new(FixedSizeListArray::new(item, size, Arc::new(values), Some(valid))),
    ];
    let field = |(column, array): (&ColumnDef, &ArrayRef)| {
        Field::new(stored_name(column.id), array.data_type().clone(), true)
    };
    let fields: Vec<Field> = def.columns.iter().zip(&arrays).map(field).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

impl World {
    fn new(column_bytes: usize) -> Self {
        Self::of(options(LISTS), ColumnCache::new(column_bytes), 1, ROWS)
    }

    /// So many segments of as many rows each.
    fn of(options: VectorIndexOptions, cache: Arc<ColumnCache>, segments: usize, rows: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = Key::from_bytes([5; 32]);
        let store = TenantStore::create(directory.path(), TENANT, key, StoreOptions::new(cache)).unwrap();
        let world = Self { store, directory };
        world.commit(Op::CreateTable(definition(options)));
        for segment in 0..segments {
            world.insert(segment * rows..(segment + 1) * rows);
            world.store.checkpoint(&Builder).unwrap();
        }
        assert_eq!(world.version().chunks.len(), segments);
        world
    }

    fn insert(&self, inserted: Range<usize>) {
        let first_row = self.store.reserve_rows(TABLE, inserted.len() as u64);
        let rows = rows(&self.version().def, inserted);
        self.commit(Op::Insert { table: TABLE, first_row, rows });
    }

    fn commit(&self, op: Op) {
        self.store.commit(&self.store.snapshot(), vec![op]).unwrap();
    }

    fn version(&self) -> Arc<TableVersion> {
        Arc::clone(self.store.snapshot().table(TABLE).unwrap())
    }

    fn ask(&self, indexes: &IndexCache, question: &Question) -> Result<(Vec<Hit>, Searched)> {
        let filter = |_: usize, _: &ChunkRef| Ok(question.filter.clone().map(Selected::of));
        let predicate: &Predicate<'_> = &filter;
        let predicate = question.filter.is_some().then_some(predicate);
        self.search(indexes, (&question.query[..], question.k, question.probes), predicate)
    }

    fn search(
        &self,
        indexes: &IndexCache,
        (query, k, probes): (&[f32], usize, usize),
        predicate: Option<&Predicate<'_>>,
    ) -> Result<(Vec<Hit>, Searched)> {
        let version = self.version();
        let column = &version.def.columns[1];
        let (_, options) = version.def.vector_indexes(column.id).next().unwrap();
        let (metric, settings) = (options.metric(), SearchSettings { probes, ..SearchSettings::default() });
        let mut searched = Searched::default();
        let as_halves = false;
        let abandoned = None;
        let wanted =
            Search { version: &version, column, metric, as_halves, query, k, settings, predicate, abandoned };
        search(&wanted, indexes, &mut searched).map(|hits| (hits, searched))
    }

    /// What the index finds that is in memory, over the whole column.
    fn expected(&self, question: &Question) -> Vec<(u32, Option<f64>)> {
        let version = self.version();
        let chunk = &version.chunks[0].chunk;
        let column = chunk.column_once(&version.def.columns[1]).unwrap();
        let index = open(&chunk.index_blob(INDEX).unwrap().unwrap()).unwrap();
        let allowed = without_nulls(&column, question.filter.clone().map(Selected::of).as_ref());
        let allowed = allowed.as_ref().map(Selected::bits);
        let (vectors, _) = elements(&column).unwrap();
        let Question { query, k, probes, .. } = question;
        let wanted = SearchParams { k: *k, ef_search: 0, probes: *probes, allowed };
        let found = index.search(vectors, query, &wanted);
        found.iter().map(|found| (found.position, Some(found.distance))).collect()
    }

    /// One of its files of a kind.
    fn file(&self, extension: &str) -> PathBuf {
        let directory = std::fs::read_dir(self.directory.path().join("segments")).unwrap();
        let mut files = directory.map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|found| found == extension)).unwrap()
    }
}

struct Question {
    query: Vec<f32>,
    k: usize,
    probes: usize,
    filter: Option<Bits>,
}

/// Near to a row, and none.
fn question(row: usize, k: usize, probes: usize) -> Question {
    let query = vector(row).zip(vector(row + 97)).map(|(one, other)| 0.7 * one + 0.3 * other).collect();
    Question { query, k, probes, filter: None }
}

fn only(rows: impl Iterator<Item = usize>) -> Option<Bits> {
    let mut bits = Bits::new(ROWS);
    rows.for_each(|row| bits.set(row));
    Some(bits)
}

fn pairs(hits: &[Hit]) -> Vec<(u32, Option<f64>)> {
    hits.iter().map(|hit| (hit.position, hit.distance)).collect()
}

fn cache(memory: &Arc<IndexMemory>) -> IndexCache {
    IndexCache::new(TENANT, Arc::clone(memory))
}

#[test]
fn the_rows_are_those_of_a_search_in_memory() {
    let (small, large) = (World::new(1 << 20), World::new(PLENTY));
    let (tight, roomy) = (Arc::new(IndexMemory::new(4 << 20)), Arc::new(IndexMemory::new(PLENTY)));
    // Index in place or not, vectors decoded or not; and how the segment is searched then.
    let worlds = [
        (&small, cache(&tight), (1, 1)),
        (&small, cache(&roomy), (1, 1)),
        (&large, cache(&tight), (1, 1)),
        (&large, cache(&roomy), (1, 0)),
    ];
    for row in (0..ROWS).step_by(1_700) {
        let filters = [None, only((0..ROWS).step_by(2)), only((row..ROWS).step_by(4_000))];
        for (filter, (k, probes)) in filters.into_iter().zip([(10, 4), (30, 2), (3, 1)]) {
            let asked = Question { filter, ..question(row, k, probes) };
            let expected = large.expected(&asked);
            let competing = asked.filter.as_ref().map_or(ROWS - NULLS.len(), |filter| {
                filter.iter().filter(|row| !NULLS.contains(row)).count()
            });
            for (world, indexes, ways) in &worlds {
                let (hits, searched) = world.ask(indexes, &asked).unwrap();
                // A world of its own has cells of its own, which are the same.
                assert_eq!(pairs(&hits), expected, "{k} of {probes} cells near row {row}");
                assert_eq!((searched.work.asked, searched.work.fetched), *ways);
                assert!(searched.work.distances > 0 && (searched.fetched > 0) == (ways.1 > 0));
                assert_eq!((searched.rows, searched.qualifying), (ROWS as u64, competing as u64));
            }
        }
    }
    assert!(!small.version().chunks[0].chunk.is_decoded(ColumnId(2)));
    let file = std::fs::metadata(small.file("index")).unwrap().len() as usize;
    let (held, whole) = (tight.tenant_bytes(TENANT), roomy.tenant_bytes(TENANT));
    assert!(held > 0 && held < file / 4, "{held} of {file} bytes");
    assert!(whole > file * 9 / 10, "{whole} of {file} bytes");
}

#[test]
fn limit_is_filled_with_what_no_index_holds() {
    let world = World::new(1 << 20);
    let indexes = cache(&Arc::new(IndexMemory::new(4 << 20)));
    // Three rows with a vector, and the five without.
    let filter = only([5, 6, 7].into_iter().chain(NULLS));
    let (hits, searched) = world.ask(&indexes, &Question { filter, ..question(5, 6, 1) }).unwrap();
    assert_eq!((searched.work.fetched, searched.qualifying), (0, 3));
    let with: Vec<bool> = hits.iter().map(|hit| hit.distance.is_some()).collect();
    assert_eq!(with, [true, true, true, false, false, false]);
    let few = Question { filter: only([5, 6, 7].into_iter()), ..question(5, 6, 1) };
    let (hits, searched) = world.ask(&indexes, &few).unwrap();
    assert_eq!((hits.len(), searched.work.fetched, searched.work.distances), (3, 1, 3));
    // All cells: the exact answer.
    let all = question(5, 10, LISTS as usize);
    let (hits, searched) = world.ask(&indexes, &all).unwrap();
    let version = world.version();
    let column = version.chunks[0].chunk.column_once(&version.def.columns[1]).unwrap();
    let valid = Selected::valued(&column).map(Selected::into_bits);
    let (vectors, dim) = elements(&column).unwrap();
    let exact = search_exact(Metric::L2, dim, vectors, &all.query, 10, valid.as_ref());
    assert_eq!(searched.work.fetched, 0);
    assert_eq!(
        pairs(&hits),
        exact.iter().map(|found| (found.position, Some(found.distance))).collect::<Vec<_>>()
    );
}

#[test]
fn a_damaged_cell_gives_its_index_up_and_costs_no_row() {
    let world = World::new(1 << 20);
    let indexes = cache(&Arc::new(IndexMemory::new(4 << 20)));
    let ask = |row: usize| world.ask(&indexes, &question(row, 5, 1));
    ask(0).unwrap();
    // In the second chunk of a megabyte, which is codes and nothing else.
    let file = world.file("index");
    let mut sealed = std::fs::read(&file).unwrap();
    assert!(sealed.len() > (2 << 20) + 100_000, "{} bytes", sealed.len());
    sealed[(3 << 20) / 2] ^= 1;
    std::fs::write(&file, &sealed).unwrap();
    // Neither those that are held nor those that open anew notice before they read it.
    let fresh = cache(&Arc::new(IndexMemory::new(4 << 20)));
    let mut exact = 0;
    for row in (0..ROWS).step_by(200) {
        let (hits, searched) = ask(row).unwrap();
        let (same, _) = world.ask(&fresh, &question(row, 5, 1)).unwrap();
        assert_eq!(hits.len(), 5);
        // From when the damage is met: all rows are scored.
        exact += usize::from(searched.work.exact > 0);
        assert!(searched.work.exact == 0 || pairs(&hits) == pairs(&same), "{row}");
    }
    let asked = ROWS.div_ceil(200);
    assert!(exact > 0 && exact < asked, "{exact} of {asked} searches were exact");
}

/// What is held of the index before must not be searched with the codes of another.
#[test]
fn an_index_that_was_built_anew_is_opened_anew() {
    let world = World::new(1 << 20);
    let indexes = cache(&Arc::new(IndexMemory::new(4 << 20)));
    let asked = question(4_000, 10, 2);
    world.ask(&indexes, &asked).unwrap();
    let version = world.version();
    let segment = version.chunks[0].chunk.segment().unwrap();
    assert!(indexes.holds(segment, INDEX));
    let column = version.chunks[0].chunk.column_once(&version.def.columns[1]).unwrap();
    let anew = index_bytes(&options(25), &column);
    assert!(world.store.attach_index(TABLE, segment, INDEX, &anew).unwrap());
    let (hits, searched) = world.ask(&indexes, &asked).unwrap();
    assert_eq!((pairs(&hits), searched.work.fetched), (world.expected(&asked), 1));
}

/// What does not reach a recall is scanned, and what is not whole is read: nothing for a thread that serves others.
#[test]
fn an_index_serves_a_search_that_goes_by_it() {
    let world = World::new(PLENTY);
    let (whole, part) =
        (cache(&Arc::new(IndexMemory::new(PLENTY))), cache(&Arc::new(IndexMemory::new(4 << 20))));
    let segment = world.version().chunks[0].chunk.segment().unwrap();
    let usual = SearchSettings::default();
    let recall = |share: f64| SearchSettings { target_recall: Recall::new(share), ..usual };
    assert!(!whole.serves(segment, INDEX, (&usual, 10)), "it is not open");
    for indexes in [&whole, &part] {
        world.ask(indexes, &question(4_000, 10, 2)).unwrap();
    }
    assert!(whole.serves(segment, INDEX, (&usual, 10)) && whole.serves(segment, INDEX, (&recall(0.5), 10)));
    assert!(!whole.serves(segment, INDEX, (&recall(1.0), 10)));
    assert!(part.holds(segment, INDEX) && !part.serves(segment, INDEX, (&usual, 10)));
}

/// What a search returns is read by page as well, in the order of the rows found; a small column is decoded and kept.
#[test]
fn columns_too_large_to_keep_are_returned_by_page() {
    let column_bytes = ROWS * DIM * 2;
    let world = World::of(options(LISTS), ColumnCache::new(column_bytes), 2, ROWS / 2);
    let version = world.version();
    let (ids, vectors) = (&version.def.columns[0], &version.def.columns[1]);
    let half = (ROWS / 2) as u32;
    let hit = |row: u32| Hit { chunk: (row / half) as usize, position: row % half, distance: None };
    let wanted = [half + 7, 3, 102, half, 3, half - 1, 2 * half - 1];
    let hits: Vec<Hit> = wanted.iter().copied().map(hit).collect();
    let found = fetch(&version, vectors, &hits).unwrap();
    assert_eq!(found.len(), wanted.len());
    for (place, row) in wanted.iter().enumerate() {
        assert_eq!(found.is_null(place), NULLS.contains(&(*row as usize)));
        let found = found.as_fixed_size_list().value(place);
        let expected: Vec<f32> = vector(*row as usize).collect();
        let is_null = NULLS.contains(&(*row as usize));
        assert!(is_null || found.as_primitive::<Float32Type>().values()[..] == expected[..], "row {row}");
    }
    assert!(version.chunks.iter().all(|held| !held.chunk.is_decoded(vectors.id)), "nothing was kept");
    let found = fetch(&version, ids, &hits).unwrap();
    let expected: Vec<i64> = wanted.iter().map(|row| i64::from(*row)).collect();
    assert_eq!(found.as_primitive::<Int64Type>().values()[..], expected[..]);
    assert!(version.chunks.iter().all(|held| held.chunk.is_decoded(ids.id)), "eight bytes a row are kept");
}
