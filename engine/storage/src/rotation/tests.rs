//! Keys are replaced while the store works, and a crash at any step costs nothing.

mod crash;
mod files;
mod keys;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use sepal_crypto::{Key, KeyRing};
use sepal_types::{IndexDef, TableDef, TableId};

use super::{FileRotation, KeyUse};
use crate::{
    AsOf, BlobBuilder, Freely, HistoryPolicy, Op, Snapshot, StoreError, StoreOptions, TenantStore,
    fixtures::{Shown, TENANT, commit, items, options, put, shown, take, tenant_key},
};

const ITEMS: TableId = TableId(20_000);
const COPY: TableId = TableId(20_100);

struct Blobs;

impl BlobBuilder for Blobs {
    fn build(
        &self,
        _: &TableDef,
        _: &IndexDef,
        _: &crate::Chunk,
        _: &[crate::MergeInput<'_>],
    ) -> Result<Option<Box<dyn crate::BlobBytes>>, crate::StoreError> {
        Ok(Some(Box::new(*b"blob")))
    }
}

fn new_key() -> Key {
    Key::from_bytes([10; 32])
}

/// The new key, and the one before.
fn both() -> KeyRing {
    KeyRing::new(new_key(), vec![tenant_key()])
}

fn with_history() -> StoreOptions {
    StoreOptions { history: HistoryPolicy::default(), ..options() }
}

fn reopen(dir: &Path, keys: impl Into<KeyRing>) -> Result<Arc<TenantStore>, StoreError> {
    let store = TenantStore::open(dir, TENANT, keys, with_history())?;
    store.release_unheld_log()?;
    Ok(store)
}

fn valid(mut def: TableDef) -> TableDef {
    def.indexes[0].valid = true;
    def
}

/// A segment with an index and a deletion vector, a snapshot named `before` of it, a clone, and rows in memory.
fn made(dir: &Path) -> Arc<TenantStore> {
    let store = TenantStore::create(dir, TENANT, tenant_key(), with_history()).unwrap();
    commit(&store, vec![Op::CreateTable(valid(items(20_000, "items")))]);
    put(&store, ITEMS, &(0..200).collect::<Vec<_>>());
    store.checkpoint(&Blobs).unwrap();
    take(&store, ITEMS, &[3, 4]);
    store.create_snapshot(&Blobs, "default", "before", "ada", None).unwrap();
    let ops = store.clone_ops(&store.snapshot(), ITEMS, valid(items(COPY.0, "copy"))).unwrap();
    commit(&store, ops);
    store.checkpoint(&Blobs).unwrap();
    take(&store, ITEMS, &[5]);
    take(&store, COPY, &[6]);
    store.checkpoint(&Blobs).unwrap();
    put(&store, ITEMS, &[1_000]);
    store
}

fn before(store: &TenantStore) -> Shown {
    let at = AsOf::Named { environment: "default".into(), name: "before".into() };
    shown(&store.snapshot_as_of(&at).unwrap())
}

/// The names of what is under `segments/`.
fn data_files(dir: &Path) -> BTreeSet<PathBuf> {
    crate::fixtures::files(&dir.join("segments"))
        .into_keys()
        .map(|path| path.file_name().unwrap().into())
        .collect()
}

/// Every index blob of every segment opens.
fn check_indexes(snapshot: &Snapshot) {
    for version in snapshot.tables() {
        for held in version.chunks.iter().filter(|held| held.chunk.segment().is_some()) {
            let blob = held.chunk.index_blob(version.def.indexes[0].id).expect("an index");
            assert_eq!(blob.unwrap(), b"blob", "{}", version.def.name);
        }
    }
}

fn rekeyed(store: &TenantStore) -> FileRotation {
    for _ in 0..100 {
        let step = store.rotate_file_keys(&Blobs, &Freely).unwrap();
        if !step.rotation.running {
            return step.rotation;
        }
    }
    panic!("it does not end: {:?}", store.file_rotation());
}

/// Somebody who inserts a row after the other into [`ITEMS`], and now and then deletes one of the first.
struct Writer {
    over: Arc<AtomicBool>,
    thread: JoinHandle<i64>,
}

impl Writer {
    /// `besides`: what it does after each row, by the row's key.
    fn start(store: &Arc<TenantStore>, besides: impl Fn(&TenantStore, i64) + Send + 'static) -> Self {
        const FIRST: i64 = 5_000;
        let over = Arc::new(AtomicBool::new(false));
        let (writing, store) = (Arc::clone(&over), Arc::clone(store));
        let thread = std::thread::spawn(move || {
            let mut next = FIRST;
            while !writing.load(Ordering::Acquire) || next < FIRST + 20 {
                put(&store, ITEMS, &[next]);
                if next % 3 == 0 && next < FIRST + 170 {
                    take(&store, ITEMS, &[next - FIRST + 20]);
                }
                besides(&store, next);
                next += 1;
            }
            next - 1
        });
        Self { over, thread }
    }

    /// The key of its last row.
    fn end(self) -> i64 {
        self.over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn none() -> KeyUse {
    KeyUse::default()
}
