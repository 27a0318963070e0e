//! The past as its readers see it: what stays and for how long, moments, names, clones.

mod as_of;
mod clones;
mod crash;
mod keeping;
mod model;
mod named;
mod restore;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use sepal_types::{Clock, Lsn, TableDef, TableId};

use super::{AsOf, HistoryPolicy};
use crate::{
    Op, Snapshot, StoreOptions, TenantStore,
    fixtures::{TENANT, commit, count, options, put, scan, shown, take, tenant_key},
};

const ITEMS: TableId = TableId(20_000);
const COPY: TableId = TableId(20_100);

/// Half an hour, up to five versions, a gigabyte.
const POLICY: HistoryPolicy = HistoryPolicy { keep_us: 30 * MINUTE, keep_versions: 5, max_bytes: 1 << 30 };
const MINUTE: i64 = 60_000_000;
const START: i64 = 1_000_000 * MINUTE;

/// A clock that goes when it is told.
struct Hands(AtomicI64);

impl Hands {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(START)))
    }

    fn minutes(&self, minutes: i64) {
        self.0.fetch_add(minutes * MINUTE, Ordering::SeqCst);
    }

    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Clock for Hands {
    fn now_us(&self) -> i64 {
        self.now()
    }
}

fn with(clock: &Arc<Hands>, history: HistoryPolicy) -> StoreOptions {
    StoreOptions { clock: Arc::clone(clock) as Arc<dyn Clock>, history, ..options() }
}

fn made(dir: &Path, options: StoreOptions) -> Arc<TenantStore> {
    let store = TenantStore::create(dir, TENANT, tenant_key(), options).unwrap();
    commit(&store, vec![Op::CreateTable(crate::fixtures::items(20_000, "items"))]);
    store
}

fn reopened(dir: &Path, options: StoreOptions) -> Arc<TenantStore> {
    let store = TenantStore::open(dir, TENANT, tenant_key(), options).unwrap();
    store.release_unheld_log().unwrap();
    store
}

fn keys(snapshot: &Snapshot, table: TableId) -> Vec<i64> {
    scan(snapshot.table(table).unwrap()).into_keys().collect()
}

fn at(lsn: u64) -> AsOf {
    AsOf::Commit(Lsn(lsn))
}

/// [`crate::fixtures::items`] under other ids.
fn copy_def(name: &str) -> TableDef {
    crate::fixtures::items(COPY.0, name)
}

/// Commits a clone of [`ITEMS`] as `from` has it.
fn clone_from(store: &TenantStore, from: &Snapshot, def: TableDef) -> Snapshot {
    let ops = store.clone_ops(from, ITEMS, def).unwrap();
    commit(store, ops)
}
