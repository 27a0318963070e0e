//! The log: how many commits a second `TenantStore::commit` makes durable, by one writer and by several.
//!
//! One iteration is a fixed number of commits, spread over the writers, on a new store: an item is a commit, a byte
//! one of the log. Everything is in it: encoding, checking, sealing, write, fdatasync, publishing. The floor is a loop
//! that writes as many bytes as a commit logs and calls fdatasync. Group commit is what lets several writers be
//! faster than that floor.

use std::{
    fs::File,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use arrow::{
    array::{ArrayRef, Int64Array},
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use sepal_crypto::Key;
use sepal_storage::{ColumnCache, Op, StoreOptions, TenantStore, stored_name};
use sepal_types::{ColumnDef, ColumnId, Constraints, SqlType, TableDef, TableId, TenantId};
use tempfile::TempDir;

use crate::{files, numbers::vector_array};

const DIM: u16 = 384;
const CACHE_BYTES: usize = 64 << 20;

/// A single INSERT: 1.6 KB of data.
const SMALL: Shape = Shape { rows: 1, commits: 256 };
/// A batch: 1.5 MB of data.
const LARGE: Shape = Shape { rows: 1_000, commits: 16 };

#[derive(Clone, Copy)]
struct Shape {
    /// Of one commit.
    rows: usize,
    /// Of one iteration.
    commits: usize,
}

#[divan::bench(args = [1, 2, 4, 8, 16, 32], sample_count = 10, sample_size = 1, max_time = 20)]
fn one_row(bencher: Bencher, writers: usize) {
    measure(bencher, SMALL, writers);
}

#[divan::bench(sample_count = 10, sample_size = 1, max_time = 20)]
fn one_row_floor(bencher: Bencher) {
    floor(bencher, SMALL);
}

#[divan::bench(args = [1, 2, 4], sample_count = 10, sample_size = 1, max_time = 20)]
fn thousand_rows(bencher: Bencher, writers: usize) {
    measure(bencher, LARGE, writers);
}

#[divan::bench(sample_count = 10, sample_size = 1, max_time = 20)]
fn thousand_rows_floor(bencher: Bencher) {
    floor(bencher, LARGE);
}

fn measure(bencher: Bencher, shape: Shape, writers: usize) {
    let rows = batch(shape.rows);
    counted(bencher, shape, logged_bytes(&rows))
        .with_inputs(Log::new)
        .bench_local_refs(|log| log.commit(&rows, shape.commits, writers));
}

fn floor(bencher: Bencher, shape: Shape) {
    let bytes = logged_bytes(&batch(shape.rows));
    let data = vec![b'x'; bytes];
    let new_file = || {
        let directory = files::directory();
        let file = File::create(directory.path().join("log")).expect("a new file");
        (file, directory)
    };
    counted(bencher, shape, bytes).with_inputs(new_file).bench_local_refs(|(file, _)| {
        for _ in 0..shape.commits {
            file.write_all(&data).expect("room on the device");
            file.sync_data().expect("fdatasync");
        }
    });
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, shape: Shape, bytes: usize) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(shape.commits)).counter(BytesCount::new(shape.commits * bytes))
}

/// What a commit of these rows adds to the log.
fn logged_bytes(rows: &RecordBatch) -> usize {
    const COMMITS: usize = 8;
    let log = Log::new();
    let before = log.store.stats().wal_bytes;
    log.commit(rows, COMMITS, 1);
    usize::try_from(log.store.stats().wal_bytes - before).expect("a small log") / COMMITS
}

/// A new store with one table. Its directory goes with it.
struct Log {
    store: Arc<TenantStore>,
    table: TableId,
    _directory: TempDir,
}

impl Log {
    fn new() -> Log {
        let directory = files::directory();
        let options = StoreOptions::new(ColumnCache::new(CACHE_BYTES));
        let store = TenantStore::create(directory.path(), TenantId([7; 16]), Key::random(), options)
            .expect("a store in an empty directory");
        let table = store.next_object_id();
        store.commit(&store.snapshot(), vec![Op::CreateTable(definition(table))]).expect("a new table");
        Log { store, table, _directory: directory }
    }

    /// Each writer begins its next commit when its last one is durable, as a session does.
    fn commit(&self, rows: &RecordBatch, commits: usize, writers: usize) {
        let begun = AtomicUsize::new(0);
        let write = || {
            while begun.fetch_add(1, Ordering::Relaxed) < commits {
                let first_row = self.store.reserve_rows(self.table, rows.num_rows() as u64);
                let insert = Op::Insert { table: self.table, first_row, rows: rows.clone() };
                self.store.commit(&self.store.snapshot(), vec![insert]).expect("a commit without conflict");
            }
        };
        thread::scope(|scope| {
            for _ in 1..writers {
                scope.spawn(write);
            }
            write();
        });
    }
}

/// `items (id bigint, embedding vector(384))`
fn definition(id: TableId) -> TableDef {
    let column = |id, name: &str, ty| ColumnDef::new(ColumnId(id), name, ty);
    TableDef {
        id,
        environment: "default".to_owned(),
        schema: "public".to_owned(),
        name: "items".to_owned(),
        columns: vec![column(1, "id", SqlType::Int8), column(2, "embedding", SqlType::Vector(Some(DIM)))],
        next_column: ColumnId(3),
        uniques: Vec::new(),
        indexes: Vec::new(),
        captured: false,
        constraints: Constraints::default(),
    }
}

fn batch(rows: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values((0..).take(rows));
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), vector_array(rows, DIM, 4)];
    let fields: Vec<Field> = columns
        .iter()
        .zip(1..)
        .map(|(array, id)| Field::new(stored_name(ColumnId(id)), array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}
