//! What sealing costs the storage engine alone: rows to the log and to segments, and every column out of them again.
//!
//! `benches/compare/sealing.py` builds this twice, once with the feature `null-cipher`, runs both in turns and prints the
//! ratio; `benches/sealing` is the same over the wire. Alone it prints one JSON object of seconds, medians of some rounds:
//! `store_in` (commits to the log, then a checkpoint to segments) and `store_out` (every column). What is read is read
//! from files: no cache holds it. The first round is not counted: on a virtual machine memory that was not in use for
//! seconds is fetched from the host again, which takes longer than all that is measured here.
//!
//! `SEPAL_BENCH_DIR`: where to write; on tmpfs an fsync costs nothing. `cargo bench` passes `--bench`, which is ignored.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, StringArray},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use sepal_crypto::Key;
use sepal_storage::{ColumnCache, NoBlobs, Op, StoreOptions, TenantStore, arrow_type, stored_name};
use sepal_types::{ColumnDef, ColumnId, Constraints, SqlType, TableDef, TableId, TenantId};

const DIM: u16 = 384;
const ROWS_A_COMMIT: usize = 5_000;
const COMMITS: usize = 40;
const ROUNDS: usize = 5;

fn main() {
    let root = std::env::var_os("SEPAL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let round = || store(tempfile::tempdir_in(&root).expect("SEPAL_BENCH_DIR can be written").path());
    let bytes = round().bytes;
    let rounds: Vec<Stored> = (0..ROUNDS).map(|_| round()).collect();
    println!(
        "{{\"bytes\":{},\"sealed\":{},\"store_in\":{:.4},\"store_out\":{:.4}}}",
        bytes,
        sepal_crypto::SEALS,
        median(rounds.iter().map(|round| round.ingest)),
        median(rounds.iter().map(|round| round.read)),
    );
}

fn median(times: impl Iterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds, and the bytes that came out.
struct Stored {
    ingest: f64,
    read: f64,
    bytes: usize,
}

fn store(dir: &Path) -> Stored {
    let key = Key::random();
    let batches: Vec<RecordBatch> = (0..COMMITS).map(batch).collect();
    // Nothing is kept between reads.
    let options = || StoreOptions::new(ColumnCache::new(0));

    let store = TenantStore::create(dir, TenantId([1; 16]), key.clone(), options()).expect("a new store");
    store.commit(&store.snapshot(), vec![Op::CreateTable(table())]).expect("a table");
    let began = Instant::now();
    for rows in batches {
        let first_row = store.reserve_rows(TableId(1), rows.num_rows() as u64);
        let insert = Op::Insert { table: TableId(1), first_row, rows };
        store.commit(&store.snapshot(), vec![insert]).expect("a commit");
    }
    store.checkpoint(&NoBlobs).expect("a checkpoint");
    let ingest = began.elapsed().as_secs_f64();
    store.close().expect("a store that closes");
    drop(store);

    let store = TenantStore::open(dir, TenantId([1; 16]), key, options()).expect("the store again");
    let began = Instant::now();
    let snapshot = store.snapshot();
    let version = snapshot.table(TableId(1)).expect("the table");
    assert_eq!(version.live_rows(), (ROWS_A_COMMIT * COMMITS) as u64, "every row is there");
    let mut bytes = 0;
    for reference in &version.chunks {
        for column in &version.def.columns {
            bytes += reference.chunk.column(column).expect("a column").get_array_memory_size();
        }
    }
    Stored { ingest, read: began.elapsed().as_secs_f64(), bytes }
}

/// `id bigint, body text, embedding vector(384)`.
fn table() -> TableDef {
    let column = |id: u32, name: &str, ty: SqlType| ColumnDef::new(ColumnId(id), name, ty);
    TableDef {
        id: TableId(1),
        environment: "default".into(),
        schema: "public".into(),
        name: "items".into(),
        columns: vec![
            column(1, "id", SqlType::Int8),
            column(2, "body", SqlType::Text),
            column(3, "embedding", SqlType::Vector(Some(DIM))),
        ],
        next_column: ColumnId(4),
        uniques: Vec::new(),
        indexes: Vec::new(),
        captured: false,
        constraints: Constraints::default(),
    }
}

fn batch(number: usize) -> RecordBatch {
    let first = number * ROWS_A_COMMIT;
    let ids = Int64Array::from_iter_values((first..first + ROWS_A_COMMIT).map(|id| id as i64));
    let texts =
        (first..first + ROWS_A_COMMIT).map(|id| format!("row {id}, of which there is something to say"));
    let bodies = StringArray::from_iter_values(texts);
    // As embeddings are: hardly two alike, nothing that compresses.
    let places = first * usize::from(DIM)..(first + ROWS_A_COMMIT) * usize::from(DIM);
    let floats = places.map(|place| (place as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32);
    let values: ArrayRef = Arc::new(Float32Array::from_iter_values(floats));
    let DataType::FixedSizeList(item, width) = arrow_type(&SqlType::Vector(Some(DIM))) else {
        panic!("a vector is a list of fixed size");
    };
    let vectors = FixedSizeListArray::new(item, width, values, None);
    let columns: [(ColumnId, ArrayRef); 3] =
        [(ColumnId(1), Arc::new(ids)), (ColumnId(2), Arc::new(bodies)), (ColumnId(3), Arc::new(vectors))];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(id, array)| Field::new(stored_name(*id), array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}
