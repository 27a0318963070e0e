//! A scan that streams gives the rows of one that does not, holds little of them, and ends with its reader.

use std::time::{Duration, Instant};

use datafusion::{
    arrow::{
        array::{AsArray, FixedSizeListArray, Float32Array, Int64Array, StringArray},
        compute::concat_batches,
        datatypes::{DataType, Field, Schema, UInt64Type},
    },
    execution::{SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnv},
    physical_expr::expressions::lit,
    physical_plan::{
        ExecutionPlan, coalesce_partitions::CoalescePartitionsExec, collect, filter::FilterExec,
        limit::GlobalLimitExec,
    },
};
use futures::StreamExt;
use roaring::RoaringTreemap;
use sepal_crypto::Key;
use sepal_storage::{
    ColumnCache, NoBlobs, Op, StoreOptions, TenantStore, arrow_field, arrow_type, stored_name,
};
use sepal_types::{ColumnDef, Constraints, RowId, SqlType, TableDef, TableId, TenantId};
use tempfile::TempDir;

use super::*;
use crate::{
    budget::{QueryMemory, TenantMemory},
    table::{TableScan, prepare_to_hold},
};

const TABLE: TableId = TableId(20_001);
const DIMENSIONS: u16 = 256;
/// Two row groups, the first of which ends after 16,384 rows or so.
const ROWS: u64 = 18_000;
/// Rows that are in memory.
const LATER: u64 = 300;
const IDS: usize = 0;
const VECTORS: usize = 1;
/// A scan of one partition reads a megabyte at a time of this much.
const POOL: usize = 16 << 20;
const RUN: usize = POOL / POOL_PART;
/// A run ends with a page of vectors.
const MORE: usize = 64 * (4 * DIMENSIONS as usize + 64);

/// A table of one segment, whose row ids have gaps and of which some rows were deleted since, and one memory chunk.
struct World {
    store: Arc<TenantStore>,
    cache: Arc<ColumnCache>,
    _directory: TempDir,
}

fn definition() -> TableDef {
    let column = |id: u32, name: &str, ty: SqlType| ColumnDef::new(ColumnId(id), name, ty);
    let columns = vec![
        column(1, "id", SqlType::Int8),
        column(2, "v", SqlType::Vector(Some(DIMENSIONS))),
        column(3, "label", SqlType::Text),
    ];
    TableDef {
        id: TABLE,
        environment: "default".into(),
        schema: "public".into(),
        name: "t".into(),
        columns,
        next_column: ColumnId(4),
        uniques: Vec::new(),
        indexes: Vec::new(),
        captured: false,
        constraints: Constraints::default(),
    }
}

fn rows(def: &TableDef, rows: Range<u64>) -> RecordBatch {
    let DataType::FixedSizeList(item, size) = arrow_type(&def.columns[VECTORS].ty) else { unreachable!() };
    let elements =
        rows.clone().flat_map(|row| (0..u64::from(DIMENSIONS)).map(move |at| (row * 7 + at) as f32));
    let elements: Float32Array = elements.collect();
    let label = |row: u64| (!row.is_multiple_of(7)).then(|| format!("label {}", row % 1_000));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(rows.clone().map(|row| row as i64).collect::<Int64Array>()),
        Arc::new(FixedSizeListArray::new(item, size, Arc::new(elements), None)),
        Arc::new(rows.map(label).collect::<StringArray>()),
    ];
    let field = |(column, array): (&ColumnDef, &ArrayRef)| {
        Field::new(stored_name(column.id), array.data_type().clone(), true)
    };
    let fields: Vec<Field> = def.columns.iter().zip(&arrays).map(field).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

impl World {
    fn new(cache_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = ColumnCache::new(cache_bytes);
        let options = StoreOptions::new(Arc::clone(&cache));
        let key = Key::from_bytes([5; 32]);
        let store = TenantStore::create(directory.path(), TenantId([7; 16]), key, options).unwrap();
        let world = Self { store, cache, _directory: directory };
        world.commit(Op::CreateTable(definition()));
        let first = world.insert(0..ROWS);
        world.delete(first, (500..ROWS).step_by(1_000));
        world.store.checkpoint(&NoBlobs).unwrap();
        let at_edges = [0, 1, ROWS - 1].into_iter().chain(16_300..16_500);
        world.delete(first, (2..ROWS - 1).step_by(271).filter(|row| row % 1_000 != 500).chain(at_edges));
        world.insert(ROWS..ROWS + LATER);
        world.cache.forget_tenant(TenantId([7; 16]));
        let version = world.version();
        assert_eq!((version.chunks.len(), sealed(&version).count()), (2, 1));
        world
    }

    fn insert(&self, inserted: Range<u64>) -> RowId {
        let first_row = self.store.reserve_rows(TABLE, inserted.end - inserted.start);
        let rows = rows(&self.version().def, inserted);
        self.commit(Op::Insert { table: TABLE, first_row, rows });
        first_row
    }

    fn delete(&self, first: RowId, rows: impl Iterator<Item = u64>) {
        let mut rows: Vec<RowId> = rows.map(|row| RowId(first.0 + row)).collect();
        rows.sort_unstable();
        rows.dedup();
        self.commit(Op::Delete { table: TABLE, rows });
    }

    fn commit(&self, op: Op) {
        self.store.commit(&self.store.snapshot(), vec![op]).unwrap();
    }

    fn version(&self) -> Arc<TableVersion> {
        Arc::clone(self.store.snapshot().table(TABLE).unwrap())
    }

    fn is_decoded(&self, column: usize) -> bool {
        let version = self.version();
        version.chunks[0].chunk.is_decoded(version.def.columns[column].id)
    }

    fn live_rows(&self) -> usize {
        self.version().chunks.iter().map(|held| held.live_rows() as usize).sum()
    }

    /// Of all columns and the row ids.
    fn scan(&self, partitions: usize, limit: Option<usize>) -> TableScan {
        let version = self.version();
        let mut fields: Vec<Field> = version.def.columns.iter().map(arrow_field).collect();
        let mut columns: Vec<ScanColumn> =
            version.def.columns.iter().cloned().map(ScanColumn::Stored).collect();
        fields.push(Field::new("row", DataType::UInt64, false));
        columns.push(ScanColumn::RowId);
        TableScan::new(version, columns, Arc::new(Schema::new(fields)), partitions, limit)
    }
}

fn pool() -> Arc<TenantMemory> {
    TenantMemory::new(POOL, QueryMemory::new(4 * POOL))
}

fn task(pool: &Arc<TenantMemory>) -> Arc<TaskContext> {
    let memory_pool = Arc::clone(pool) as Arc<dyn MemoryPool>;
    let runtime = RuntimeEnv { memory_pool, ..RuntimeEnv::default() };
    Arc::new(TaskContext::default().with_runtime(Arc::new(runtime)))
}

fn started(scan: &TableScan, partition: usize, pool: &Arc<TenantMemory>) -> SendableRecordBatchStream {
    scan.execute(partition, task(pool)).unwrap()
}

/// All rows, and the most that was held when some of them came.
async fn read(scan: &TableScan, pool: &Arc<TenantMemory>) -> (RecordBatch, usize) {
    let (mut batches, mut most) = (Vec::new(), 0);
    for partition in 0..scan.properties().output_partitioning().partition_count() {
        let mut stream = started(scan, partition, pool);
        while let Some(batch) = stream.next().await {
            batches.push(batch.unwrap());
            most = most.max(pool.used());
        }
    }
    (concat_batches(&scan.schema(), &batches).unwrap(), most)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn it_gives_the_rows_of_whole_columns_and_holds_two_runs() {
    // Room for no vectors, and for all.
    let (small, large) = (World::new(4 << 20), World::new(1 << 30));
    let pool = pool();
    let (expected, held) = read(&large.scan(1, None), &pool).await;
    assert_eq!((held, large.is_decoded(VECTORS)), (0, true));
    let ids = expected.column(3).as_primitive::<UInt64Type>();
    assert!(ids.values().is_sorted());
    assert_eq!(ids.len(), large.live_rows());
    for partitions in [1, 3] {
        let scan = small.scan(partitions, None);
        let (found, held) = read(&scan, &pool).await;
        assert_eq!(found, expected, "{partitions} partitions");
        assert!(held <= 2 * (RUN / partitions + MORE), "{held} bytes for {partitions} partitions");
        assert_eq!(pool.used(), 0);
    }
    assert!(!small.is_decoded(VECTORS) && !small.is_decoded(IDS));
    assert_eq!(small.cache.used_bytes(), 0, "nothing came into the cache");
}

#[tokio::test]
async fn what_is_read_ahead_is_counted_and_ends_with_its_reader() {
    let world = World::new(4 << 20);
    let (pool, scan) = (pool(), world.scan(1, None));
    let version = world.version();
    let idle = Arc::strong_count(&version);
    let mut stream = started(&scan, 0, &pool);
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.num_rows() > 500 && first.num_rows() <= (RUN + MORE) / (4 * usize::from(DIMENSIONS)));
    assert_eq!(pool.used(), 0, "whoever wants a few rows stops here");
    drop(stream.next().await.unwrap().unwrap());
    until("a run is read ahead", || pool.used() > RUN / 2).await;
    assert!(pool.used() <= RUN + MORE);
    assert!(Arc::strong_count(&version) > idle);
    drop(stream);
    until("nothing is held", || pool.used() == 0).await;
    until("nobody reads", || Arc::strong_count(&version) == idle).await;
}

#[tokio::test]
async fn rows_that_go_out_are_streamed_where_others_stay_in_the_cache() {
    let world = World::new(64 << 20);
    let (pool, column) = (pool(), world.version().def.columns[IDS].clone());
    world.version().chunks[0].chunk.column(&column).unwrap();
    let before = world.cache.used_bytes();
    assert!(world.is_decoded(IDS) && before > 0);
    let scan = world.scan(1, None);
    scan.pass_on();
    let (passed_on, _) = read(&scan, &pool).await;
    assert!(world.is_decoded(IDS), "what others have read stays");
    assert_eq!((world.is_decoded(VECTORS), world.cache.used_bytes()), (false, before));
    let (kept, held) = read(&world.scan(1, None), &pool).await;
    assert_eq!((passed_on, held), (kept, 0));
    assert!(world.is_decoded(VECTORS), "and what fits is kept");
    // Whole columns that are there are cut into runs, too.
    let scan = world.scan(2, None);
    scan.pass_on();
    assert_eq!(read(&scan, &pool).await.0.num_rows(), world.live_rows());
}

#[tokio::test]
async fn a_plan_tells_its_scan_whether_rows_go_out() {
    let world = World::new(64 << 20);
    let pool = pool();
    let scan: Arc<dyn ExecutionPlan> = Arc::new(world.scan(2, None));
    let gathered = Arc::new(CoalescePartitionsExec::new(scan));
    let limited: Arc<dyn ExecutionPlan> = Arc::new(GlobalLimitExec::new(gathered, 1, Some(1_000_000)));
    prepare_to_hold(&limited, POOL);
    let batches = collect(limited, task(&pool)).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), world.live_rows() - 1);
    assert!(!world.is_decoded(VECTORS));
    // Who looks for some rows may look for others next.
    let filter = FilterExec::try_new(lit(true), Arc::new(world.scan(1, None))).unwrap();
    let filtered: Arc<dyn ExecutionPlan> = Arc::new(filter);
    prepare_to_hold(&filtered, POOL);
    let batches = collect(filtered, task(&pool)).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), world.live_rows());
    assert!(world.is_decoded(VECTORS));
}

#[tokio::test]
async fn a_limit_reads_few_rows() {
    let world = World::new(4 << 20);
    let scan = world.scan(1, Some(10));
    let mut stream = started(&scan, 0, &pool());
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.num_rows(), 7, "of ten three are deleted");
    // The rest follows, should more be wanted.
    assert!(stream.next().await.unwrap().unwrap().num_rows() > 500);
}

#[tokio::test]
async fn memory_that_others_hold_makes_runs_small() {
    let world = World::new(4 << 20);
    let pool = pool();
    let (expected, _) = read(&world.scan(1, None), &pool).await;
    let all = MemoryConsumer::new("join").register(&(Arc::clone(&pool) as Arc<dyn MemoryPool>));
    all.try_grow(POOL).unwrap();
    let scan = world.scan(1, None);
    let first = started(&scan, 0, &pool).next().await.unwrap().unwrap();
    assert!(first.num_rows() <= (*RUN_BYTES.start() + MORE) / (4 * usize::from(DIMENSIONS)));
    let (found, held) = read(&scan, &pool).await;
    assert_eq!((found, held), (expected, POOL));
}

#[tokio::test]
async fn rows_are_hidden_by_their_ids() {
    let world = World::new(4 << 20);
    let pool = pool();
    let (all, _) = read(&world.scan(1, None), &pool).await;
    let ids = all.column(3).as_primitive::<UInt64Type>();
    let hidden: RoaringTreemap = ids.values().iter().copied().step_by(3).collect();
    let shown = Arc::new(ShownRows { only: None, hidden });
    let (found, _) = read(&world.scan(2, None).showing(Some(Arc::clone(&shown))), &pool).await;
    let left: Vec<u64> = ids.values().iter().copied().filter(|id| shown.shows(*id)).collect();
    assert_eq!(found.column(3).as_primitive::<UInt64Type>().values().to_vec(), left);
}
