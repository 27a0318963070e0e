//! Flipped bytes, missing files, files from elsewhere, and plaintext that must not be there.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeBinaryArray, Int64Array, StringArray, UInt64Array},
    record_batch::RecordBatch,
};
use parquet::arrow::ArrowWriter;
use sepal_types::{TableId, TenantId};

use crate::{
    CheckpointReport, NoBlobs, Op, StoreError, TenantStore,
    fixtures::{
        TENANT, batch_of, commit, create, delete, files, ids, insert, items, open, options, scan, tenant_key,
        valid,
    },
};

const ITEMS: TableId = TableId(20_000);

/// A store with every kind of file: segment, deletion vector, index, log with two groups.
fn furnished(dir: &Path, tenant: TenantId) {
    let store = TenantStore::create(dir, tenant, tenant_key(), options()).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let op = insert(&store, 20_000, &(0..30).collect::<Vec<_>>());
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    let op = delete(&store, 20_000, &[3]);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    let segment = store.snapshot().table(ITEMS).unwrap().chunks[0].chunk.segment().unwrap();
    assert!(
        store.attach_index(ITEMS, segment, items(20_000, "items").indexes[0].id, b"index bytes").unwrap()
    );
    for id in [100, 101] {
        let op = insert(&store, 20_000, &[id]);
        commit(&store, vec![op]);
    }
}

/// Everything there is to read; whatever reads must read right.
fn read_all(dir: &Path) -> Result<BTreeMap<i64, (String, f32)>, StoreError> {
    let store = TenantStore::open(dir, TENANT, tenant_key(), options())?;
    let snapshot = store.snapshot();
    let version = snapshot.table(ITEMS).expect("the table is there");
    for chunk in &version.chunks {
        chunk.chunk.row_ids()?;
        for column in &version.def.columns {
            chunk.chunk.column(column)?;
        }
        for index in &version.def.indexes {
            if let Some(blob) = chunk.chunk.index_blob(index.id) {
                assert_eq!(blob?, b"index bytes");
            }
        }
    }
    Ok(scan(version))
}

fn restore(dir: &Path, content: &BTreeMap<std::path::PathBuf, Vec<u8>>) {
    for path in files(dir).into_keys().filter(|path| !content.contains_key(path)) {
        std::fs::remove_file(path).unwrap();
    }
    content.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
}

#[test]
fn a_flipped_byte_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path(), TENANT);
    let content = files(dir.path());
    assert_eq!(content.len(), 5, "{:?}", content.keys());
    let whole = read_all(dir.path()).unwrap();
    restore(dir.path(), &content);
    for (path, bytes) in &content {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let step = if name.ends_with("parquet") { 31 } else { 7 };
        for position in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x10;
            std::fs::write(path, flipped).unwrap();
            match read_all(dir.path()) {
                Err(StoreError::Corrupt { file, .. }) => {
                    assert!(file.ends_with(&name), "{name} {position}: {file}")
                }
                Err(error) => panic!("{name} byte {position}: {error}"),
                Ok(found) if name.ends_with("wal") => {
                    // Only the last group may be taken for a torn tail.
                    let mut expected = whole.clone();
                    expected.remove(&101);
                    assert_eq!(found, expected, "{name} byte {position}");
                }
                // parquet-rs skips a few bytes: column metadata that the footer repeats.
                Ok(found) => assert!(
                    name.ends_with("parquet") && found == whole,
                    "{name} byte {position} is not noticed"
                ),
            }
            restore(dir.path(), &content);
        }
    }
    assert_eq!(read_all(dir.path()).unwrap(), whole);
}

/// Whoever can write the directory, and has no key, puts rows of his own there: as many, in as many bytes.
#[test]
fn a_plaintext_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path(), TENANT);
    let content = files(dir.path());
    let (path, sealed) =
        content.iter().find(|(path, _)| path.to_string_lossy().ends_with("parquet")).unwrap();
    let row_ids: ArrayRef = Arc::new(UInt64Array::from_iter_values(1..=30));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..30));
    let labels: ArrayRef = Arc::new(StringArray::from(vec!["forged"; 30]));
    let vectors: ArrayRef =
        Arc::new(FixedSizeBinaryArray::try_from_iter(vec![[0_u8; 16]; 30].into_iter()).unwrap());
    let columns = [("row_id", row_ids), ("c1", keys), ("c2", labels), ("c3", vectors)];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut forged = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut forged, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    // Between the columns and the footer, which nothing reads.
    let footer = u32::from_le_bytes(*forged[..forged.len() - 4].last_chunk().unwrap()) as usize + 8;
    let room = sealed.len().checked_sub(forged.len()).expect("sealing makes a file longer");
    let at = forged.len() - footer;
    drop(forged.splice(at..at, vec![0; room]));
    assert_eq!(forged.len(), sealed.len());
    std::fs::write(path, forged).unwrap();
    match read_all(dir.path()) {
        Err(StoreError::Corrupt { file, .. }) => assert!(path.ends_with(&file), "{file}"),
        other => panic!("{other:?}"),
    }
}

/// A log that lost its end is one that was never longer, unless the owner knows better.
#[test]
fn what_is_missing_after_a_close_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path(), TENANT);
    let store = open(dir.path());
    let op = insert(&store, 20_000, &[102]);
    commit(&store, vec![op]);
    store.close().unwrap();
    let end = store.log_end();
    drop(store);
    let content = files(dir.path());
    let reopened = |end| {
        let known = crate::StoreOptions { log_end: Some(end), ..options() };
        TenantStore::open(dir.path(), TENANT, tenant_key(), known)
    };
    let newest = content.keys().filter(|path| path.to_string_lossy().ends_with("wal")).max().unwrap();
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    let refused = |what: &str| match reopened(end) {
        Err(StoreError::Corrupt { file, .. }) => assert!(file.ends_with(&name), "{what}: {file}"),
        other => panic!("{what}: {other:?}"),
    };
    std::fs::remove_file(newest).unwrap();
    refused("without the newest file");
    // Without its only commit, which is where a frame would begin.
    std::fs::write(newest, &content[newest][..160]).unwrap();
    refused("cut after its header");
    restore(dir.path(), &content);
    let store = reopened(end).unwrap();
    assert!(scan(store.snapshot().table(ITEMS).unwrap()).contains_key(&102));
    // What is known stays true while the log grows and when a checkpoint has trimmed it.
    store.checkpoint(&NoBlobs).unwrap();
    drop(store);
    reopened(end).unwrap();
}

#[test]
fn a_store_that_does_not_open_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path(), TENANT);
    let content = files(dir.path());
    // Without an index it opens.
    let is_index = |path: &Path| path.extension().is_some_and(|kind| kind == "index");
    for removed in content.keys().filter(|path| !is_index(path)) {
        std::fs::remove_file(removed).unwrap();
        let before = files(dir.path());
        let error = read_all(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(files(dir.path()), before, "nothing was written or removed without {removed:?}");
        restore(dir.path(), &content);
    }
}

/// An index is derived from rows: where its file is gone, or not what it was, everything else is read, and another one
/// takes its place.
#[test]
fn an_index_that_does_not_open_keeps_nobody_from_the_rows() {
    type Spoil = fn(&Path, &[u8]);
    let spoils: [(&str, Spoil); 3] = [
        ("gone", |path, _| std::fs::remove_file(path).unwrap()),
        ("cut", |path, bytes| std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap()),
        ("flipped", |path, bytes| {
            let mut flipped = bytes.to_vec();
            *flipped.last_mut().unwrap() ^= 1;
            std::fs::write(path, flipped).unwrap();
        }),
    ];
    let index = items(20_000, "items").indexes[0].id;
    for (what, spoil) in spoils {
        let dir = tempfile::tempdir().unwrap();
        furnished(dir.path(), TENANT);
        let whole = read_all(dir.path()).unwrap();
        let content = files(dir.path());
        let (path, bytes) =
            content.iter().find(|(path, _)| path.extension().is_some_and(|kind| kind == "index")).unwrap();
        spoil(path, bytes);
        let cache = crate::ColumnCache::new(64 << 20);
        let known = crate::StoreOptions { cache: Arc::clone(&cache), ..options() };
        let store = TenantStore::open(dir.path(), TENANT, tenant_key(), known).unwrap();
        let snapshot = store.snapshot();
        let chunk = Arc::clone(&snapshot.table(ITEMS).unwrap().chunks[0].chunk);
        if let Some(file) = chunk.index_file(index) {
            let error = chunk.index_blob(index).unwrap().unwrap_err();
            chunk.give_up_index(file, &error);
            chunk.give_up_index(file, &error);
        }
        assert!(!chunk.has_index(index), "{what}");
        assert_eq!(cache.damaged_indexes(), 1, "{what}");
        assert_eq!(scan(snapshot.table(ITEMS).unwrap()), whole, "{what}");
        let segment = chunk.segment().unwrap();
        assert!(store.attach_index(ITEMS, segment, index, b"index bytes").unwrap(), "{what}");
        assert!(chunk.has_index(index), "{what}");
        store.checkpoint(&NoBlobs).unwrap();
        assert!(!path.exists(), "{what}: nothing names it any more");
        drop((chunk, snapshot, store));
        assert_eq!(read_all(dir.path()).unwrap(), whole, "{what}");
    }
}

/// As `truncate -s 1T` makes it, which costs whoever does it nothing.
#[test]
fn the_length_of_a_manifest_costs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path(), TENANT);
    let whole = read_all(dir.path()).unwrap();
    let newest = files(dir.path())
        .into_keys()
        .filter(|path| path.extension().is_some_and(|kind| kind == "manifest"))
        .max()
        .unwrap();
    let length = std::fs::metadata(&newest).unwrap().len();
    let file = std::fs::File::options().write(true).open(&newest).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = read_all(dir.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if newest.ends_with(file)), "{error}");
    assert_eq!(std::fs::metadata(&newest).unwrap().len(), 1 << 40, "it is left as it is");
    file.set_len(length).unwrap();
    assert_eq!(read_all(dir.path()).unwrap(), whole);
}

#[test]
fn files_from_elsewhere_do_not_open() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    furnished(dir.path(), TENANT);
    // The same history of another tenant, even under the same key.
    furnished(other.path(), TenantId([8; 16]));
    let content = files(dir.path());
    for (path, bytes) in files(other.path()) {
        let extension = path.extension().unwrap();
        let target = content.keys().find(|target| target.extension() == Some(extension)).unwrap();
        assert_ne!(&bytes, &content[target]);
        std::fs::write(target, &bytes).unwrap();
        let error = read_all(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{extension:?}: {error}");
        restore(dir.path(), &content);
    }
}

#[test]
fn a_segment_moved_between_tables_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    for (id, name) in [(20_000, "one"), (20_010, "two")] {
        commit(&store, vec![Op::CreateTable(items(id, name))]);
        let op = insert(&store, id, &[1, 2, 3]);
        commit(&store, vec![op]);
    }
    store.checkpoint(&NoBlobs).unwrap();
    drop(store);
    let segments: Vec<_> = files(dir.path())
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().ends_with("parquet"))
        .collect();
    let [(one, first), (two, second)] = &segments[..] else { panic!("two segments") };
    std::fs::write(one, second).unwrap();
    std::fs::write(two, first).unwrap();
    let opened = TenantStore::open(dir.path(), TENANT, tenant_key(), options());
    let read = opened.and_then(|store| {
        let version = Arc::clone(store.snapshot().table(ITEMS).unwrap());
        version.chunks[0].chunk.column(&version.def.columns[0]).map(drop)
    });
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
}

#[test]
fn no_plaintext_reaches_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(valid(items(20_000, "canary_table")))]);
    let labels: Vec<String> = (0..50).map(|n| format!("canary text {n}")).collect();
    let keys: Vec<i64> = (0..50).map(|n| 0x0123_4567_89ab_cdef + n).collect();
    let write = |store: &TenantStore, from: i64| {
        let first_row = store.reserve_rows(ITEMS, 50);
        let keys: Vec<i64> = keys.iter().map(|key| key + from).collect();
        commit(store, vec![Op::Insert { table: ITEMS, first_row, rows: batch_of(&keys, &labels) }]);
    };
    struct Plain;
    impl crate::BlobBuilder for Plain {
        fn build(
            &self,
            _: &sepal_types::TableDef,
            _: &sepal_types::IndexDef,
            _: &crate::Chunk,
            _: &[crate::MergeInput<'_>],
        ) -> Result<Option<Box<dyn crate::BlobBytes>>, crate::StoreError> {
            Ok(Some(Box::new(b"canary blob".repeat(10))))
        }
    }
    write(&store, 0);
    let in_log = files(dir.path());
    store.checkpoint(&Plain).unwrap();
    write(&store, 1_000);
    let op = delete(&store, 20_000, &[0x0123_4567_89ab_cdef]);
    commit(&store, vec![op]);
    store.checkpoint(&Plain).unwrap();
    drop(store);
    drop(open(dir.path()));
    #[expect(clippy::cast_precision_loss, reason = "the same rounding as in the stored vectors")]
    let vector = (0x0123_4567_89ab_cdef_i64 as f32).to_le_bytes();
    let needles: [&[u8]; 4] =
        [b"canary", b"embedding", &vector.repeat(2), &0x0123_4567_89ab_cdef_u64.to_le_bytes()];
    for (path, bytes) in in_log.into_iter().chain(files(dir.path())) {
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{path:?} holds {:?}", String::from_utf8_lossy(needle));
        }
    }
}

/// Without its marker the last group could have been torn; see `a_flipped_byte_is_an_error_that_names_the_file`.
#[test]
fn damage_to_the_last_group_is_noticed_once_the_log_was_marked() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    assert!(store.mark_log().unwrap());
    assert!(!store.mark_log().unwrap(), "a marker stands there already");
    let op = insert(&store, 20_000, &[1]);
    commit(&store, vec![op]);
    let before = store.log_end();
    assert!(store.mark_log().unwrap());
    drop(store);
    let (path, bytes) =
        files(dir.path()).into_iter().find(|(path, _)| path.extension().unwrap() == "wal").unwrap();
    for position in [160, 200, usize::try_from(before.bytes).unwrap() - 1] {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let error = TenantStore::open(dir.path(), TENANT, tenant_key(), options()).unwrap_err();
        assert!(error.to_string().contains(".wal"), "byte {position}: {error}");
    }
    std::fs::write(&path, bytes).unwrap();
    let store = open(dir.path());
    assert_eq!(scan(store.snapshot().table(ITEMS).unwrap()).len(), 1);
    store.close().unwrap();
    assert!(store.mark_log().is_err(), "a closed store writes nothing");
}

/// What is written to its table, and to others, goes on into segments: else the log would grow until nobody can write.
#[test]
fn a_damaged_segment_keeps_nothing_else_from_being_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    // Nobody looks for its keys.
    let log = sepal_types::TableDef { uniques: Vec::new(), ..items(20_000, "log") };
    commit(&store, vec![Op::CreateTable(log), Op::CreateTable(items(20_100, "others"))]);
    let op = insert(&store, 20_000, &[1, 2, 3]);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    let content = files(dir.path());
    let (path, whole) = content.iter().find(|(path, _)| path.to_string_lossy().ends_with("parquet")).unwrap();
    std::fs::write(path, vec![0; whole.len()]).unwrap();
    for id in 10..13 {
        store.cache.forget_tenant(TENANT);
        let ops = vec![insert(&store, 20_000, &[id]), insert(&store, 20_100, &[id])];
        commit(&store, ops);
        store.checkpoint(&NoBlobs).unwrap();
        assert_eq!((store.stats().memory_chunks, store.stats().wal_files), (0, 1), "row {id}");
        assert_eq!(store.checkpoint(&NoBlobs).unwrap(), CheckpointReport::default());
    }
    store.cache.forget_tenant(TENANT);
    let version = store.snapshot().table(ITEMS).unwrap().clone();
    let damaged = &version.chunks[0].chunk;
    assert!(matches!(damaged.column(&version.def.columns[0]), Err(StoreError::Corrupt { .. })));
    assert_eq!(ids(&store, 20_100), [10, 11, 12]);
    std::fs::write(path, whole).unwrap();
    assert_eq!(ids(&store, 20_000), [1, 2, 3, 10, 11, 12]);
    drop((store, version));
    assert_eq!(ids(&open(dir.path()), 20_000), [1, 2, 3, 10, 11, 12]);
}
