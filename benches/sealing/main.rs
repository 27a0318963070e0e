//! What sealing costs: rows into a store and out of it again, as the engine does it, with nothing else around.
//!
//! `benches/compare/sealing.py` builds this twice, once with the feature `null-cipher`, runs both in turns and prints the
//! ratio. Alone it prints one JSON object: seconds of ingest (commits to the log, then a checkpoint to segments) and
//! of a scan (the store opened anew, every column read from its file, none from a cache).
//!
//! `SEPAL_BENCH_DIR`: where to write; on tmpfs an fsync costs nothing. `cargo bench` passes `--bench`, which is ignored.

use std::{path::PathBuf, sync::Arc, time::Instant};

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

fn main() {
    let root = std::env::var_os("SEPAL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(root).expect("SEPAL_BENCH_DIR can be written");
    let key = Key::random();
    let batches: Vec<RecordBatch> = (0..COMMITS).map(batch).collect();
    // Nothing is kept between reads.
    let options = || StoreOptions::new(ColumnCache::new(0));

    let store =
        TenantStore::create(dir.path(), TenantId([1; 16]), key.clone(), options()).expect("a new store");
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

    let store = TenantStore::open(dir.path(), TenantId([1; 16]), key, options()).expect("the store again");
    let began = Instant::now();
    let snapshot = store.snapshot();
    let version = snapshot.table(TableId(1)).expect("the table");
    let mut bytes = 0;
    for reference in &version.chunks {
        for column in &version.def.columns {
            bytes += reference.chunk.column(column).expect("a column").get_array_memory_size();
        }
    }
    let scan = began.elapsed().as_secs_f64();
    println!(
        "{{\"rows\":{},\"bytes\":{bytes},\"ingest_s\":{ingest:.4},\"scan_s\":{scan:.4},\"sealed\":{}}}",
        version.live_rows(),
        !cfg!(feature = "null-cipher")
    );
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
    // Numbers as embeddings are: no two alike, nothing that compresses.
    let floats = (0..ROWS_A_COMMIT * usize::from(DIM))
        .map(|place| ((first + place) as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32);
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
