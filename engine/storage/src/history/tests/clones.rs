//! Clones: the same rows, no file copied, and from then on two tables.

use std::{path::Path, sync::Arc};

use sepal_types::{ColumnId, RowId, TableDef, TableId};

use super::{
    COPY, Hands, HistoryPolicy, ITEMS, POLICY, at, clone_from, copy_def, count, keys, made, put, reopened,
    take, with,
};
use crate::{
    NoBlobs, Op, StoreError, StoreOptions, TenantStore,
    check::tests::check_with,
    feed::Change,
    fixtures::{Blobs, commit, files, items, valid},
};

/// Rows 1 to 3 in a segment, and no history.
fn with_segment(dir: &Path) -> (Arc<TenantStore>, StoreOptions) {
    let options = with(&Hands::new(), HistoryPolicy::NONE);
    let store = made(dir, options.clone());
    put(&store, ITEMS, &[1, 2, 3]);
    store.checkpoint(&NoBlobs).unwrap();
    (store, options)
}

/// Whoever copies the log away copies them as well.
#[test]
fn the_files_that_the_log_names_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let mut store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &[1, 2]);
    store.checkpoint(&NoBlobs).unwrap();
    assert!(store.cloned_files().is_empty());
    clone_from(&store, &store.snapshot(), copy_def("copy"));
    let told = store.cloned_files();
    let [file] = &told[..] else { panic!("{told:?}") };
    assert_eq!(std::fs::metadata(dir.path().join(&file.path)).unwrap().len(), file.bytes);
    for round in 0..3 {
        clock.minutes(1);
        put(&store, ITEMS, &[10 + round]);
        store.checkpoint(&NoBlobs).unwrap();
        assert_eq!(store.cloned_files(), told, "round {round}");
        drop(store);
        store = reopened(dir.path(), with(&clock, POLICY));
        assert_eq!(store.cloned_files(), told, "round {round}");
    }
}

/// Whoever replays a copy of the log comes past the clone, whatever has become of it since.
#[test]
fn a_copy_keeps_what_clones_name_in_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (store, options) = with_segment(dir.path());
    let past = store.snapshot();
    commit(&store, vec![Op::Truncate(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    let mut pin = store.pin_manifest().unwrap();
    clone_from(&store, &past, copy_def("copy"));
    store.pin_cloned(&mut pin);
    drop(past);
    commit(&store, vec![Op::DropTable(COPY)]);
    store.checkpoint(&NoBlobs).unwrap();
    assert!(store.snapshot().table(COPY).is_none());

    let target = tempfile::tempdir().unwrap();
    for folder in ["manifest", "wal", "segments"] {
        std::fs::create_dir(target.path().join(folder)).unwrap();
    }
    for file in &pin.files {
        std::fs::copy(dir.path().join(&file.path), target.path().join(&file.path)).unwrap();
    }
    let log = crate::paths::Paths::new(target.path()).wal_file(pin.wal_from);
    std::fs::copy(dir.path().join("wal").join(log.file_name().unwrap()), log).unwrap();
    let restored = reopened(target.path(), options);
    assert_eq!(keys(&restored.snapshot(), ITEMS), [0_i64; 0]);
    assert!(restored.snapshot().table(COPY).is_none());

    assert_eq!(count(dir.path(), "parquet"), 1);
    drop(pin);
    store.trim_history().unwrap();
    assert_eq!(count(dir.path(), "parquet"), 0);
}

/// A name keeps its version's files, and no log: what came after it ends with the past, before a restart and after it.
#[test]
fn what_has_gone_with_the_past_is_told_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap();
    put(&store, ITEMS, &[1, 2, 3]);
    store.checkpoint(&NoBlobs).unwrap();
    let past = store.snapshot();
    commit(&store, vec![Op::Truncate(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    clone_from(&store, &past, copy_def("copy"));
    drop(past);
    commit(&store, vec![Op::DropTable(COPY)]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(store.cloned_files().len(), 1, "history comes past the clone");
    store.forget_history().unwrap();
    assert_eq!((count(dir.path(), "parquet"), store.cloned_files()), (0, Vec::new()));
    drop(store);
    let store = reopened(dir.path(), with(&clock, POLICY));
    assert_eq!((store.snapshots().len(), store.cloned_files()), (1, Vec::new()));
}

#[test]
fn a_clone_goes_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let options = with(&clock, HistoryPolicy::NONE);
    let mut store = made(dir.path(), options.clone());
    commit(&store, vec![Op::AlterTable(valid(items(20_000, "items")))]);
    put(&store, ITEMS, &(0..100).collect::<Vec<_>>());
    store.checkpoint(&Blobs).unwrap();
    take(&store, ITEMS, &[1, 2]);
    store.checkpoint(&Blobs).unwrap();
    take(&store, ITEMS, &[3]);
    clone_from(&store, &store.snapshot(), valid(copy_def("copy")));
    let blob = |store: &TenantStore| {
        let snapshot = store.snapshot();
        let version = snapshot.table(COPY).unwrap();
        version.chunks[0].chunk.index_blob(version.def.indexes[0].id).unwrap().unwrap()
    };
    assert_eq!((count(dir.path(), "parquet"), count(dir.path(), "index")), (1, 1), "nothing was copied");
    let snapshot = store.snapshot();
    let version = snapshot.table(COPY).unwrap();
    let bytes = version.chunks[0].chunk.index_bytes(version.def.indexes[0].id);
    assert_eq!(store.stats().index_bytes, 2 * bytes, "each table has one");
    drop(snapshot);
    let then: Vec<i64> = (0..100).filter(|id| ![1, 2, 3].contains(id)).collect();
    for round in 0..3 {
        assert_eq!(keys(&store.snapshot(), ITEMS), then, "round {round}");
        assert_eq!(keys(&store.snapshot(), COPY), then, "round {round}");
        assert_eq!(blob(&store), Blobs::BYTES, "the index came along");
        if round == 1 {
            store.checkpoint(&Blobs).unwrap();
            assert_eq!((count(dir.path(), "parquet"), count(dir.path(), "index")), (1, 1));
            assert_eq!(count(dir.path(), "deleted"), 2, "each has its own");
        }
        drop(store);
        store = reopened(dir.path(), options.clone());
    }
    // Row ids are those of the source; new ones come after.
    let first = store.snapshot().table(COPY).unwrap().chunks[0].chunk.first_row();
    assert_eq!((first, store.reserve_rows(COPY, 1)), (RowId(1), RowId(101)));
    let duplicate = store.commit(&store.snapshot(), vec![crate::fixtures::insert(&store, COPY.0, &[4])]);
    assert!(matches!(duplicate, Err(StoreError::UniqueViolation { .. })));
    take(&store, ITEMS, &[10]);
    take(&store, COPY, &(20..90).collect::<Vec<_>>());
    put(&store, COPY, &[1, 500]);
    put(&store, ITEMS, &[2]);
    let source: Vec<i64> = (0..100).filter(|id| ![1, 3, 10].contains(id)).collect();
    let copy: Vec<i64> =
        (0..100).filter(|id| ![2, 3].contains(id) && !(20..90).contains(id)).chain([500]).collect();
    for round in 0..2 {
        assert_eq!(
            (keys(&store.snapshot(), ITEMS), keys(&store.snapshot(), COPY)),
            (source.clone(), copy.clone())
        );
        store.checkpoint(&Blobs).unwrap();
        assert_eq!(
            (keys(&store.snapshot(), ITEMS), keys(&store.snapshot(), COPY)),
            (source.clone(), copy.clone())
        );
        drop(store);
        store = reopened(dir.path(), options.clone());
        assert_eq!(store.snapshot().tables().count(), 2, "round {round}");
    }
}

#[test]
fn shared_segments_stay_as_long_as_either_table() {
    for drop_source in [true, false] {
        for checkpoint_first in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let clock = Hands::new();
            let options = with(&clock, HistoryPolicy::NONE);
            let store = made(dir.path(), options.clone());
            put(&store, ITEMS, &(0..50).collect::<Vec<_>>());
            take(&store, ITEMS, &[9]);
            store.checkpoint(&NoBlobs).unwrap();
            clone_from(&store, &store.snapshot(), copy_def("copy"));
            if checkpoint_first {
                store.checkpoint(&NoBlobs).unwrap();
            }
            let (gone, left) = if drop_source { (ITEMS, COPY) } else { (COPY, ITEMS) };
            commit(&store, vec![Op::DropTable(gone)]);
            drop(store);
            let store = reopened(dir.path(), options.clone());
            store.checkpoint(&NoBlobs).unwrap();
            assert_eq!(count(dir.path(), "parquet"), 1);
            drop(store);
            let store = reopened(dir.path(), options.clone());
            let expected: Vec<i64> = (0..50).filter(|id| *id != 9).collect();
            assert_eq!(keys(&store.snapshot(), left), expected);
            // One that shares what was sealed for a table that is gone can be cloned again.
            let third = items(20_200, "third");
            let ops = store.clone_ops(&store.snapshot(), left, third).unwrap();
            commit(&store, ops);
            commit(&store, vec![Op::DropTable(left)]);
            store.checkpoint(&NoBlobs).unwrap();
            drop(store);
            let store = reopened(dir.path(), options);
            assert_eq!(keys(&store.snapshot(), TableId(20_200)), expected);
            commit(&store, vec![Op::DropTable(TableId(20_200))]);
            store.checkpoint(&NoBlobs).unwrap();
            assert_eq!((count(dir.path(), "parquet"), count(dir.path(), "deleted")), (0, 0));
        }
    }
}

/// A clone that came and went within one log: its replay still needs the files.
#[test]
fn what_the_log_names_stays_while_the_log_does() {
    let dir = tempfile::tempdir().unwrap();
    let (store, options) = with_segment(dir.path());
    let then = store.snapshot();
    commit(&store, vec![Op::DropTable(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(count(dir.path(), "parquet"), 1, "a reader has it");
    // Retired, and named again.
    clone_from(&store, &then, copy_def("copy"));
    drop(then);
    commit(&store, vec![Op::DropTable(COPY)]);
    store.trim_history().unwrap();
    assert_eq!(count(dir.path(), "parquet"), 1);
    drop(store);
    let store = reopened(dir.path(), options.clone());
    assert_eq!(store.snapshot().tables().count(), 0);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(count(dir.path(), "parquet"), 0);
}

#[test]
fn the_past_of_a_clone_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let options = with(&clock, POLICY);
    let store = made(dir.path(), options.clone());
    put(&store, ITEMS, &[1, 2, 3]);
    assert_eq!(store.next_sequence(ITEMS, ColumnId(1), 8), 1);
    put(&store, ITEMS, &[4]);
    commit(&store, vec![Op::SetSequence { table: ITEMS, column: ColumnId(1), next: 70 }]);
    store.checkpoint(&NoBlobs).unwrap();
    commit(&store, vec![Op::Truncate(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    // Of a moment whose rows are in the log: they are inserted. Its serials are of that moment, too.
    let past = store.snapshot_as_of(&at(3)).unwrap();
    let made = clone_from(&store, &past, copy_def("copy"));
    assert_eq!((keys(&made, COPY), store.peek_sequence(COPY, ColumnId(1))), (vec![1, 2, 3, 4], 9));
    // Of one whose rows are in a segment that only history has.
    let third = TableId(20_200);
    let past = store.snapshot_as_of(&at(4)).unwrap();
    let ops = store.clone_ops(&past, ITEMS, items(third.0, "third")).unwrap();
    let lsn = commit(&store, ops).lsn();
    assert_eq!(store.peek_sequence(third, ColumnId(1)), 70);
    drop((past, made));
    store.forget_history().unwrap();
    commit(&store, vec![Op::DropTable(third)]);
    store.checkpoint(&NoBlobs).unwrap();
    for _ in 0..2 {
        assert!(store.snapshot().table(third).is_none());
        let then = store.snapshot_as_of(&super::AsOf::Commit(lsn)).unwrap();
        assert_eq!((keys(&then, third), keys(&then, COPY)), (vec![1, 2, 3, 4], vec![1, 2, 3, 4]));
        drop(then);
    }
    drop(store);
    let store = reopened(dir.path(), options);
    let then = store.snapshot_as_of(&super::AsOf::Commit(lsn)).unwrap();
    assert_eq!(keys(&then, third), [1, 2, 3, 4], "the manifest remembers what the log names");
    drop(then);
    store.forget_history().unwrap();
    assert_eq!(count(dir.path(), "parquet"), 1, "the copy's own");
}

/// Only the past comes to it, through the log: a check reads it, too, and says what damage of it costs.
#[test]
fn a_check_reads_what_only_a_clone_of_the_past_names() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &[1, 2, 3]);
    store.checkpoint(&NoBlobs).unwrap();
    let past = store.snapshot();
    commit(&store, vec![Op::Truncate(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    let lsn = clone_from(&store, &past, copy_def("copy")).lsn();
    drop(past);
    store.forget_history().unwrap();
    commit(&store, vec![Op::DropTable(COPY)]);
    store.checkpoint(&NoBlobs).unwrap();
    let then = store.snapshot_as_of(&super::AsOf::Commit(lsn)).unwrap();
    assert_eq!(keys(&then, COPY), [1, 2, 3]);
    drop(then);
    store.close().unwrap();
    let end = store.log_end();
    drop(store);

    let (checked, heard) = check_with(dir.path(), end, &NoBlobs);
    assert!(heard.findings.is_empty(), "{:?}", heard.findings);
    let content = files(dir.path());
    let bytes: usize = content.values().map(Vec::len).sum();
    assert_eq!(checked.bytes, bytes as u64, "{:?}", content.keys());
    let segment = content.keys().find(|path| path.extension().is_some_and(|found| found == "parquet"));
    let segment = dir.path().join(segment.unwrap());
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    let found = check_with(dir.path(), end, &NoBlobs).1.findings;
    let [finding] = &found[..] else { panic!("{found:?}") };
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(finding.file.ends_with(&name), "{finding:?}");
    assert!(finding.consequence.contains(&format!("\"copy\" ({COPY})")), "{finding:?}");
    // History may have ended for it: that it is gone tells nothing.
    std::fs::remove_file(&segment).unwrap();
    let found = check_with(dir.path(), end, &NoBlobs).1.findings;
    assert!(found.is_empty(), "{found:?}");
}

/// A transaction goes on with its clone: the rows that it adds get ids that no row of the clone has.
#[test]
fn a_clones_transaction_may_insert_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, options) = with_segment(dir.path());
    put(&store, ITEMS, &[4]);
    let base = store.snapshot();
    let mut ops = store.clone_ops(&base, ITEMS, copy_def("copy")).unwrap();
    ops.push(crate::fixtures::insert(&store, COPY.0, &[5]));
    let view = ops.iter().fold(base.clone(), |view, op| view.apply(op).unwrap());
    assert_eq!(keys(&view, COPY), [1, 2, 3, 4, 5]);
    store.commit(&base, ops).unwrap();
    drop((base, view));
    take(&store, COPY, &[1]);
    put(&store, COPY, &[6]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(keys(&store.snapshot(), COPY), [2, 3, 4, 5, 6]);
    drop(store);
    let store = reopened(dir.path(), options);
    assert_eq!(keys(&store.snapshot(), COPY), [2, 3, 4, 5, 6]);
    assert_eq!(keys(&store.snapshot(), ITEMS), [1, 2, 3, 4]);
}

/// A pipeline keeps the log after a named snapshot, but no file of a clone that came and went in it.
#[test]
fn a_name_promises_nothing_of_what_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &[1]);
    let hold = store.hold_log(store.snapshot().lsn()).unwrap();
    store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap();
    put(&store, ITEMS, &[2]);
    store.checkpoint(&NoBlobs).unwrap();
    let lsn = clone_from(&store, &store.snapshot(), copy_def("copy")).lsn();
    commit(&store, vec![Op::DropTable(COPY)]);
    put(&store, ITEMS, &[3]);
    store.checkpoint(&NoBlobs).unwrap();
    let then = store.snapshot_as_of(&super::AsOf::Commit(lsn)).unwrap();
    assert_eq!(keys(&then, COPY), [1, 2], "history has it");
    drop(then);
    store.forget_history().unwrap();
    let gone = store.snapshot_as_of(&super::AsOf::Commit(lsn)).unwrap_err();
    assert!(matches!(gone, StoreError::NoSuchPast { .. }), "{gone}");
    drop(hold);
}

#[test]
fn a_clone_must_have_the_same_columns_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, HistoryPolicy::NONE));
    put(&store, ITEMS, &[1]);
    let base = store.snapshot();
    let mut narrow = copy_def("copy");
    narrow.columns.pop();
    let mut keyed = copy_def("copy");
    keyed.uniques[0].columns = vec![ColumnId(2)];
    let mut strict = copy_def("copy");
    strict.columns[1].not_null = true;
    for def in [narrow, keyed, strict, items(20_000, "copy")] {
        assert!(matches!(store.clone_ops(&base, ITEMS, def), Err(StoreError::Bug(_))));
    }
    let unknown = store.clone_ops(&base, TableId(29_999), copy_def("copy")).unwrap_err();
    assert_eq!(unknown, StoreError::NoSuchTable(TableId(29_999)));
    let taken = store.clone_ops(&base, ITEMS, copy_def("items")).unwrap();
    assert!(matches!(store.commit(&base, taken), Err(StoreError::DuplicateTable(_))));
    assert!(store.snapshot().table(COPY).is_none());
}

/// The source's index is dropped while a transaction is about to clone it: its file has gone.
#[test]
fn a_clone_of_an_index_that_went_meanwhile_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, HistoryPolicy::NONE));
    commit(&store, vec![Op::AlterTable(valid(items(20_000, "items")))]);
    put(&store, ITEMS, &[1]);
    store.checkpoint(&Blobs).unwrap();
    let ops = store.clone_ops(&store.snapshot(), ITEMS, valid(copy_def("copy"))).unwrap();
    let mut without = items(20_000, "items");
    without.indexes.clear();
    commit(&store, vec![Op::AlterTable(without)]);
    store.checkpoint(&Blobs).unwrap();
    assert_eq!(count(dir.path(), "index"), 0);
    let late = store.commit(&store.snapshot(), ops).unwrap_err();
    assert_eq!(late, StoreError::WriteConflict { table: "copy".into() });
    clone_from(&store, &store.snapshot(), valid(copy_def("copy")));
    assert_eq!(keys(&store.snapshot(), COPY), [1]);
}

#[test]
fn the_feed_tells_of_a_clone_as_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, HistoryPolicy::NONE));
    put(&store, ITEMS, &[1]);
    store.checkpoint(&NoBlobs).unwrap();
    let after = store.snapshot().lsn();
    let hold = store.hold_log(after).unwrap();
    let mut reader = store.changes(after, &hold, Box::new(|table| table == COPY)).unwrap();
    let made = clone_from(&store, &store.snapshot(), TableDef { captured: true, ..copy_def("copy") });
    let commit = reader.next().unwrap().unwrap();
    assert_eq!(commit.time_us, Some(made.time_us()));
    let [Change::Define(def)] = &commit.changes[..] else { panic!("{:?}", commit.changes) };
    assert!(def.name == "copy" && !def.captured);
}
