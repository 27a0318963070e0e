//! Log files as whoever copies them is told of them.

use super::{put, with_captured};
use crate::{NoBlobs, closed_log_files, closed_manifest};

#[test]
fn an_open_store_and_its_directory_tell_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let hold = store.hold_log(store.snapshot().lsn()).unwrap();
    put(&store, &[1]);
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, &[2]);
    let open = store.log_files(0).unwrap();
    assert!(open.len() >= 2, "{open:?}");
    let (last, older) = open.split_last().unwrap();
    assert!(!last.finished && older.iter().all(|file| file.finished));
    assert_eq!(last.bytes, store.log_end().bytes);
    assert_eq!(store.log_files(last.number).unwrap(), [*last]);
    store.close().unwrap();
    // Closing marks the log's end.
    let mut open = open;
    open.last_mut().unwrap().bytes = store.log_end().bytes;
    let closed = closed_log_files(dir.path()).unwrap();
    let facts = |files: &[crate::LogFileInfo]| -> Vec<_> {
        let facts = |file: &crate::LogFileInfo| {
            (file.number, file.file, file.base_lsn, file.bytes, file.previous_bytes)
        };
        files.iter().map(facts).collect()
    };
    assert_eq!(facts(&closed), facts(&open));
    assert!(closed.windows(2).all(|pair| pair[0].bytes == pair[1].previous_bytes), "{closed:?}");
    assert!(closed_log_files(&dir.path().join("nobody")).unwrap().is_empty());
    drop(hold);
}

#[test]
fn a_name_of_a_snapshot_shows_without_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    put(&store, &[1]);
    store.create_snapshot(&NoBlobs, "default", "first", "key", None).unwrap();
    let told = || {
        let log: Vec<_> =
            closed_log_files(dir.path()).unwrap().iter().map(|file| (file.number, file.bytes)).collect();
        (log.last().copied(), closed_manifest(dir.path()).unwrap())
    };
    let before = told();
    store.create_snapshot(&NoBlobs, "default", "second", "key", None).unwrap();
    let after = told();
    assert_eq!(after.0, before.0, "nothing was committed");
    assert_eq!(after.1, before.1.map(|number| number + 1));
    assert_eq!(closed_manifest(&dir.path().join("nobody")).unwrap(), None);
}
