//! Tables, rows and stores that the tests of several modules share. Compiled for tests only.

mod watched;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, StringArray},
    datatypes::{DataType, Field, Float32Type, Int64Type, Schema},
    record_batch::RecordBatch,
};
use parking_lot::Mutex;
pub(crate) use sepal_crypto::hex;
use sepal_crypto::{Key, KeyRing};
use sepal_types::{
    ColumnDef, ColumnId, Constraints, IndexDef, IndexMethod, Metric, RowId, SqlType, TableDef, TableId,
    TenantId, UniqueDef, VectorIndexOptions,
};

use crate::{
    BlobBuilder, BlobBytes, Chunk, ColumnCache, HistoryPolicy, MergeInput, Op, Snapshot, StoreError,
    StoreOptions, TableVersion, TenantStore, arrow_type, stored_name,
};

pub(crate) use watched::{Watch, Watched};

pub(crate) const TENANT: TenantId = TenantId([7; 16]);
pub(crate) const DIMENSIONS: u16 = 4;

pub(crate) fn tenant_key() -> Key {
    Key::from_bytes([9; 32])
}

pub(crate) fn keys() -> KeyRing {
    tenant_key().into()
}

/// Without history: most tests look at which files there are.
pub(crate) fn options() -> StoreOptions {
    StoreOptions { history: HistoryPolicy::NONE, ..StoreOptions::new(ColumnCache::new(64 << 20)) }
}

pub(crate) fn create(dir: &Path) -> Arc<TenantStore> {
    TenantStore::create(dir, TENANT, tenant_key(), options()).unwrap()
}

/// As an owner without pipelines opens it.
pub(crate) fn open(dir: &Path) -> Arc<TenantStore> {
    let store = TenantStore::open(dir, TENANT, tenant_key(), options()).unwrap();
    store.release_unheld_log().unwrap();
    store
}

pub(crate) fn column(id: u32, name: &str, ty: SqlType) -> ColumnDef {
    ColumnDef::new(ColumnId(id), name, ty)
}

/// `id bigint primary key, label text, embedding vector(4)` with an HNSW index that is not valid yet.
pub(crate) fn items(id: u32, name: &str) -> TableDef {
    TableDef {
        id: TableId(id),
        environment: "default".into(),
        schema: "public".into(),
        name: name.into(),
        columns: vec![
            column(1, "id", SqlType::Int8),
            column(2, "label", SqlType::Text),
            column(3, "embedding", SqlType::Vector(Some(DIMENSIONS))),
        ],
        next_column: ColumnId(4),
        uniques: vec![UniqueDef {
            id: TableId(id + 1),
            name: format!("{name}_pkey"),
            columns: vec![ColumnId(1)],
            primary: true,
            index: None,
        }],
        indexes: vec![IndexDef {
            id: TableId(id + 2),
            name: format!("{name}_embedding_idx"),
            columns: vec![ColumnId(3)],
            method: IndexMethod::Vector(VectorIndexOptions::Hnsw {
                metric: Metric::Cosine,
                m: 16,
                ef_construction: 64,
            }),
            valid: false,
            clauses: None,
        }],
        captured: false,
        constraints: Constraints::default(),
    }
}

/// The same with an index that is to be built.
pub(crate) fn valid(mut def: TableDef) -> TableDef {
    def.indexes[0].valid = true;
    def
}

/// A batch for [`items`]: `id` as given, `label` "row <id>", `embedding` [id, id, id, id].
pub(crate) fn batch(ids: &[i64]) -> RecordBatch {
    let labels: Vec<String> = ids.iter().map(|id| format!("row {id}")).collect();
    batch_of(ids, &labels)
}

pub(crate) fn batch_of(ids: &[i64], labels: &[String]) -> RecordBatch {
    let DataType::FixedSizeList(item, _) = arrow_type(&SqlType::Vector(Some(DIMENSIONS))) else {
        unreachable!()
    };
    #[expect(clippy::cast_precision_loss, reason = "test ids are small")]
    let floats = ids.iter().flat_map(|id| [*id as f32; DIMENSIONS as usize]);
    let vectors = Float32Array::from_iter_values(floats);
    let vectors = FixedSizeListArray::new(item, i32::from(DIMENSIONS), Arc::new(vectors), None);
    let arrays: [ArrayRef; 3] = [
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(StringArray::from(labels.to_vec())),
        Arc::new(vectors),
    ];
    let fields: Vec<Field> = arrays
        .iter()
        .zip(1..)
        .map(|(array, id)| Field::new(stored_name(ColumnId(id)), array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.to_vec()).unwrap()
}

pub(crate) fn insert(store: &TenantStore, table: u32, ids: &[i64]) -> Op {
    let first_row = store.reserve_rows(TableId(table), ids.len() as u64);
    Op::Insert { table: TableId(table), first_row, rows: batch(ids) }
}

/// Commits against the current head.
pub(crate) fn commit(store: &TenantStore, ops: Vec<Op>) -> Snapshot {
    store.commit(&store.snapshot(), ops).unwrap()
}

/// Deletes the live rows with these ids.
pub(crate) fn delete(store: &TenantStore, table: u32, ids: &[i64]) -> Op {
    let snapshot = store.snapshot();
    let version = snapshot.table(TableId(table)).unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let mut rows: Vec<RowId> = version
        .lookup_unique(&version.def.uniques[0], &[keys])
        .unwrap()
        .into_iter()
        .map(|row| row.expect("the row to delete is live"))
        .collect();
    rows.sort_unstable();
    Op::Delete { table: TableId(table), rows }
}

/// Commits rows with these ids.
pub(crate) fn put(store: &TenantStore, table: TableId, ids: &[i64]) -> Snapshot {
    let op = insert(store, table.0, ids);
    commit(store, vec![op])
}

/// Commits the deletion of these rows.
pub(crate) fn take(store: &TenantStore, table: TableId, ids: &[i64]) -> Snapshot {
    let op = delete(store, table.0, ids);
    commit(store, vec![op])
}

/// Builds [`Blobs::BYTES`] as every index of every segment.
pub(crate) struct Blobs;

impl Blobs {
    pub(crate) const BYTES: &[u8] = b"blob";
}

impl BlobBuilder for Blobs {
    fn build(
        &self,
        _: &TableDef,
        _: &IndexDef,
        _: &Chunk,
        _: &[MergeInput<'_>],
    ) -> Result<Option<Box<dyn BlobBytes>>, StoreError> {
        Ok(Some(Box::new(Self::BYTES.to_vec())))
    }
}

type Deed<'a> = Box<dyn FnOnce(&TenantStore) + Send + 'a>;

/// Does something else once, when a new segment is written and its index is about to be built. That has a 7 for every
/// row.
pub(crate) struct Meddler<'a> {
    store: &'a TenantStore,
    with: Mutex<Option<Deed<'a>>>,
}

impl<'a> Meddler<'a> {
    pub(crate) fn new(store: &'a TenantStore, act: impl FnOnce(&TenantStore) + Send + 'a) -> Self {
        Self { store, with: Mutex::new(Some(Box::new(act))) }
    }

    pub(crate) fn has_acted(&self) -> bool {
        self.with.lock().is_none()
    }
}

impl BlobBuilder for Meddler<'_> {
    fn build(
        &self,
        _: &TableDef,
        _: &IndexDef,
        segment: &Chunk,
        _: &[MergeInput<'_>],
    ) -> Result<Option<Box<dyn BlobBytes>>, StoreError> {
        if let Some(act) = self.with.lock().take() {
            act(self.store);
        }
        Ok(Some(Box::new(vec![7; segment.rows() as usize])))
    }
}

/// What a snapshot shows: labels by key of every table, by the table's name.
pub(crate) type Shown = BTreeMap<String, BTreeMap<i64, String>>;

pub(crate) fn shown(snapshot: &Snapshot) -> Shown {
    let rows = |version: &Arc<TableVersion>| {
        let rows = scan(version).into_iter().map(|(key, (label, _))| (key, label)).collect();
        (version.def.name.clone(), rows)
    };
    snapshot.tables().map(rows).collect()
}

/// Every live row of [`items`]: id to label and first vector element. Checks on the way that all columns agree.
pub(crate) fn scan(version: &TableVersion) -> BTreeMap<i64, (String, f32)> {
    let mut found = BTreeMap::new();
    for chunk in &version.chunks {
        let columns: Vec<ArrayRef> =
            version.def.columns.iter().take(3).map(|column| chunk.chunk.column(column).unwrap()).collect();
        let ids = columns[0].as_primitive::<Int64Type>();
        let labels = columns[1].as_string::<i32>();
        let vectors = columns[2].as_fixed_size_list();
        assert!(chunk.chunk.row_ids().unwrap().values().is_sorted(), "row ids ascend");
        for position in 0..ids.len() {
            if chunk.deleted.contains(u32::try_from(position).unwrap()) {
                continue;
            }
            let vector = vectors.value(position);
            let row = (labels.value(position).to_owned(), vector.as_primitive::<Float32Type>().value(0));
            assert!(
                found.insert(ids.value(position), row).is_none(),
                "key {} is live twice",
                ids.value(position)
            );
        }
    }
    assert_eq!(found.len() as u64, version.live_rows());
    found
}

pub(crate) fn ids(store: &TenantStore, table: u32) -> Vec<i64> {
    scan(store.snapshot().table(TableId(table)).unwrap()).into_keys().collect()
}

/// What this thread logs at WARN or ERROR while `work` runs.
pub(crate) fn alarms(work: impl FnOnce()) -> Vec<String> {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    tracing::subscriber::with_default(Listener(Arc::clone(&heard)), work);
    let heard = heard.lock();
    heard.clone()
}

struct Listener(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().push(format!("{event:?}"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Every file below a directory, with its content.
pub(crate) fn files(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// How many files with this extension there are below a directory.
pub(crate) fn count(dir: &Path, extension: &str) -> usize {
    files(dir).keys().filter(|path| path.extension().is_some_and(|found| found == extension)).count()
}

/// Copies a directory: what a crash would leave if every write so far had reached the device.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
