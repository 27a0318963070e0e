//! Transactions against a live store: conflicts, groups, serials, restarts.

use std::sync::{Arc, Barrier};

use sepal_types::{ColumnId, SqlType, TableId};

use crate::{
    Op, StoreError, TenantStore,
    fixtures::{
        TENANT, alarms, column, commit, create, delete, files, ids, insert, items, open, options, tenant_key,
        valid,
    },
};

const ITEMS: TableId = TableId(20_000);

fn with_items(dir: &std::path::Path) -> Arc<TenantStore> {
    let store = create(dir);
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    store
}

#[test]
fn the_first_of_two_that_change_a_row_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    let op = insert(&store, 20_000, &[1, 2]);
    commit(&store, vec![op]);
    let base = store.snapshot();
    let change = |id: i64, new: i64| vec![delete(&store, 20_000, &[id]), insert(&store, 20_000, &[new])];
    let (first, second, other) = (change(1, 1), change(1, 11), change(2, 12));
    store.commit(&base, first).unwrap();
    let lost = store.commit(&base, second).unwrap_err();
    assert_eq!(lost, StoreError::WriteConflict { table: "items".into() });
    store.commit(&base, other).unwrap();
    assert_eq!(ids(&store, 20_000), [1, 12]);
    // A key that somebody else took meanwhile is a duplicate, not a conflict: Postgres says the same.
    let taken = store.commit(&base, vec![insert(&store, 20_000, &[12])]).unwrap_err();
    assert!(matches!(taken, StoreError::UniqueViolation { .. }));
    assert_eq!(base.table(ITEMS).unwrap().live_rows(), 2, "the old snapshot still has its rows");
    assert_eq!(store.snapshot().lsn().0, 4, "what was refused left no trace");
}

#[test]
fn definitions_conflict_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    let base = store.snapshot();
    let mut wider = items(20_000, "items");
    wider.columns.push(column(4, "price", SqlType::Float8));
    let rows = insert(&store, 20_000, &[1]);
    store.commit(&base, vec![Op::AlterTable(wider)]).unwrap();
    let conflict = |result: Result<_, StoreError>| matches!(result, Err(StoreError::WriteConflict { .. }));
    assert!(conflict(store.commit(&base, vec![Op::AlterTable(items(20_000, "goods"))])));
    assert!(conflict(store.commit(&base, vec![rows.clone()])), "rows of the older shape");
    // A transaction that looks at the new head before it commits must not put its old definition over it.
    let head = store.snapshot();
    assert!(head.check_base(&base, &Op::AlterTable(items(20_000, "goods"))).is_err());
    assert!(head.check_base(&base, &rows).is_err());
    assert!(head.check_base(&base, &Op::Truncate(ITEMS)).is_ok());
    let create = Op::CreateTable(items(20_010, "items"));
    assert!(matches!(store.commit(&base, vec![create]), Err(StoreError::DuplicateTable(_))));
    commit(&store, vec![Op::DropTable(ITEMS)]);
    assert!(matches!(store.commit(&base, vec![Op::Truncate(ITEMS)]), Err(StoreError::NoSuchTable(_))));
}

#[test]
fn sessions_commit_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for session in 0..8i64 {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                start.wait();
                for row in 0..25 {
                    let after = commit(store, vec![insert(store, 20_000, &[session * 1_000 + row])]);
                    let own = after.table(ITEMS).unwrap();
                    assert!(own.live_rows() > 0);
                }
                // Everybody wants this one.
                let contested = store.commit(&store.snapshot(), vec![insert(store, 20_000, &[99_999])]);
                assert!(matches!(contested, Ok(_) | Err(StoreError::UniqueViolation { .. })));
            });
        }
    });
    let expected: Vec<i64> =
        (0..8).flat_map(|session| (0..25).map(move |row| session * 1_000 + row)).chain([99_999]).collect();
    assert_eq!(ids(&store, 20_000), expected);
    assert_eq!(store.snapshot().lsn().0, 202);
    drop(store);
    assert_eq!(ids(&open(dir.path()), 20_000), expected);
}

#[test]
fn serials_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    assert_eq!(store.next_sequence(ITEMS, ColumnId(1), 5), 1);
    let op = insert(&store, 20_000, &[1, 2, 3, 4, 5]);
    commit(&store, vec![op]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.next_sequence(ITEMS, ColumnId(1), 1), 6);
    commit(&store, vec![Op::SetSequence { table: ITEMS, column: ColumnId(1), next: 100 }]);
    store.checkpoint(&crate::NoBlobs).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.peek_sequence(ITEMS, ColumnId(1)), 100);
    assert_eq!(store.reserve_rows(ITEMS, 3).0, 6);
    assert_eq!(store.next_object_id(), TableId(20_003), "ids of constraints and indexes count too");
}

#[test]
fn a_serial_that_was_set_stays_so_without_an_insert() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    let count = |store: &TenantStore| store.peek_sequence(ITEMS, ColumnId(1));
    store.set_sequence(ITEMS, ColumnId(1), 100).unwrap();
    assert_eq!(count(&store), 100);
    drop(store);
    let store = open(dir.path());
    assert_eq!(count(&store), 100, "read from the log");
    store.checkpoint(&crate::NoBlobs).unwrap();
    store.set_sequence(ITEMS, ColumnId(1), 7).unwrap();
    drop(store);
    assert_eq!(count(&open(dir.path())), 7, "and over the manifest's, downwards too");
    let error = open(dir.path()).set_sequence(TableId(29_999), ColumnId(1), 1).unwrap_err();
    assert_eq!(error, StoreError::NoSuchTable(TableId(29_999)));
}

/// The insert drew its numbers before the serial was set, and is logged after it.
#[test]
fn an_insert_of_the_same_group_does_not_undo_setval() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    assert_eq!(store.next_sequence(ITEMS, ColumnId(1), 50), 1);
    let rows = insert(&store, 20_000, &[50]);
    let queued = |wanted: usize| {
        while store.queue.lock().len() < wanted {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        // Both wait for the writer, so whoever gets it leads both.
        let writer = store.writer.lock();
        scope.spawn(|| store.set_sequence(ITEMS, ColumnId(1), 5).unwrap());
        queued(1);
        scope.spawn(|| commit(&store, vec![rows]));
        queued(2);
        drop(writer);
    });
    assert_eq!(store.peek_sequence(ITEMS, ColumnId(1)), 5);
    drop(store);
    assert_eq!(open(dir.path()).peek_sequence(ITEMS, ColumnId(1)), 5, "nor in a recovery");
}

#[test]
fn a_closed_store_reads_but_does_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_items(dir.path());
    let alarms = alarms(|| store.close().unwrap());
    assert!(alarms.is_empty(), "closing is no fault: {alarms:?}");
    let refused = store.commit(&store.snapshot(), vec![Op::Truncate(ITEMS)]).unwrap_err();
    assert!(matches!(refused, StoreError::Poisoned { .. }));
    assert!(store.snapshot().table(ITEMS).is_some());
    assert!(store.stats().poisoned);
}

/// Closes the store in the middle of a checkpoint, from another thread as a shutdown does.
struct Closer<'a>(&'a TenantStore, std::sync::mpsc::Sender<()>);

impl crate::BlobBuilder for Closer<'_> {
    fn build(
        &self,
        _: &sepal_types::TableDef,
        _: &sepal_types::IndexDef,
        _: &crate::Chunk,
        _: &[crate::MergeInput<'_>],
    ) -> Result<Option<Box<dyn crate::BlobBytes>>, crate::StoreError> {
        self.1.send(()).unwrap();
        while !self.0.stats().poisoned {
            std::thread::yield_now();
        }
        Ok(None)
    }
}

#[test]
fn closing_waits_for_a_checkpoint_and_stops_it_before_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(valid(items(20_000, "items")))]);
    let op = insert(&store, 20_000, &[1, 2, 3]);
    commit(&store, vec![op]);
    let (started, closing) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let closer = Closer(&store, started);
        let checkpoint = scope.spawn(move || closer.0.checkpoint(&closer));
        closing.recv().unwrap();
        store.close().unwrap();
        let at_close = files(dir.path());
        let stopped = checkpoint.join().unwrap().unwrap_err();
        assert!(matches!(stopped, StoreError::Poisoned { .. }), "{stopped}");
        assert_eq!(files(dir.path()), at_close, "no file changes after close");
        assert!(at_close.keys().all(|path| path.extension().is_none_or(|found| found != "parquet")));
    });
    drop(store);
    assert_eq!(ids(&open(dir.path()), 20_000), [1, 2, 3]);
}

#[test]
fn the_log_asks_for_a_checkpoint_when_it_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let small = crate::StoreOptions { wal_segment_bytes: 20_000, ..options() };
    let store = TenantStore::create(dir.path(), TENANT, tenant_key(), small).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    assert!(!store.wants_checkpoint());
    let op = insert(&store, 20_000, &(0..1_000).collect::<Vec<_>>());
    commit(&store, vec![op]);
    assert!(store.wants_checkpoint());
    let report = store.checkpoint(&crate::NoBlobs).unwrap();
    assert_eq!((report.segments_written, report.rows_written, report.wal_files_removed), (1, 1_000, 1));
    assert!(!store.wants_checkpoint());
    assert_eq!(store.stats().wal_files, 1);
    drop(store);
    for _ in 0..20 {
        drop(open(dir.path()));
    }
    let store = open(dir.path());
    assert!(store.wants_checkpoint(), "every restart leaves a log file");
    store.checkpoint(&crate::NoBlobs).unwrap();
    assert_eq!(store.stats().wal_files, 1);
}

#[test]
fn a_directory_holds_one_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_items(dir.path()));
    assert!(TenantStore::create(dir.path(), TENANT, tenant_key(), options()).is_err());
    // Not even when the manifest was lost: the log is still there.
    let manifests = dir.path().join("manifest");
    let lost = dir.path().join("lost");
    std::fs::rename(&manifests, &lost).unwrap();
    assert!(TenantStore::create(dir.path(), TENANT, tenant_key(), options()).is_err());
    std::fs::remove_dir(&manifests).unwrap();
    std::fs::rename(&lost, &manifests).unwrap();
    let empty = tempfile::tempdir().unwrap();
    assert!(TenantStore::open(empty.path(), TENANT, tenant_key(), options()).is_err());
    let wrong = TenantStore::open(dir.path(), TENANT, sepal_crypto::Key::random(), options()).unwrap_err();
    assert!(matches!(wrong, StoreError::Corrupt { .. }));
    open(dir.path());
}
