//! The feed as its readers see it: what it gives, how long the log is kept for it, and what damage looks like.

mod archive;
mod content;
mod damage;
mod keeping;
mod model;
mod reading;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::record_batch::RecordBatch;
use sepal_types::{Lsn, RowId, TableDef, TableId};

use super::{Change, ChangeReader, Commit, LogHold};
use crate::{
    Op, StoreError, TenantStore,
    fixtures::{TENANT, commit, create, delete, files, insert, items, options, tenant_key},
};

const ITEMS: TableId = TableId(20_000);

fn captured() -> TableDef {
    TableDef { captured: true, ..items(20_000, "items") }
}

fn with_captured(dir: &Path) -> Arc<TenantStore> {
    let store = create(dir);
    commit(&store, vec![Op::CreateTable(captured())]);
    store
}

/// As an owner with pipelines opens it: nothing of the log is let go yet.
fn open_held(dir: &Path) -> Arc<TenantStore> {
    TenantStore::open(dir, TENANT, tenant_key(), options()).unwrap()
}

fn follow(store: &Arc<TenantStore>, after: u64) -> (LogHold, ChangeReader) {
    let hold = store.hold_log(Lsn(after)).unwrap();
    let reader = store.changes(Lsn(after), &hold, Box::new(|table| table == ITEMS)).unwrap();
    (hold, reader)
}

/// Everything up to now. Checks that commits come in order, without a gap.
fn drain(reader: &mut ChangeReader) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    while let Some(commit) = reader.next().unwrap() {
        assert!(commits.last().is_none_or(|last| last.lsn.0 + 1 == commit.lsn.0));
        commits.push(commit);
    }
    commits
}

fn lsns(commits: &[Commit]) -> Vec<u64> {
    commits.iter().map(|commit| commit.lsn.0).collect()
}

fn inserted(first_row: u64, rows: RecordBatch) -> Change {
    Change::Insert { table: ITEMS, first_row: RowId(first_row), rows }
}

fn deleted(rows: &[u64], before: RecordBatch) -> Change {
    Change::Delete { table: ITEMS, rows: rows.iter().copied().map(RowId).collect(), before }
}

fn put(store: &TenantStore, ids: &[i64]) {
    let op = insert(store, 20_000, ids);
    commit(store, vec![op]);
}

fn take(store: &TenantStore, ids: &[i64]) {
    let op = delete(store, 20_000, ids);
    commit(store, vec![op]);
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("wal")).into_keys().collect()
}

fn is_gone<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::LogGone { .. }))
}
