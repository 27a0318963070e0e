//! What checkpoints write, carry over and remove.

use std::sync::Arc;

use arrow::array::Array;
use parking_lot::Mutex;
use sepal_types::{IndexDef, TableDef, TableId};

use super::{BlobBuilder, CompactionLimits, NoBlobs, plan};
use crate::{
    Op, Snapshot, StoreError, TenantStore,
    fixtures::{batch, commit, create, delete, files, ids, insert, items, open, scan},
};

const ITEMS: TableId = TableId(20_000);

fn valid(mut def: TableDef) -> TableDef {
    def.indexes[0].valid = true;
    def
}

/// A store with rows 0..rows, checkpointed into one segment.
fn with_segment(dir: &std::path::Path, rows: i64) -> Arc<TenantStore> {
    let store = create(dir);
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let ids: Vec<i64> = (0..rows).collect();
    let op = insert(&store, 20_000, &ids);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    store
}

fn segments(snapshot: &Snapshot) -> usize {
    snapshot.table(ITEMS).unwrap().chunks.iter().filter(|chunk| chunk.chunk.segment().is_some()).count()
}

fn count(dir: &std::path::Path, extension: &str) -> usize {
    files(dir).keys().filter(|path| path.extension().is_some_and(|found| found == extension)).count()
}

#[test]
fn rows_move_from_the_log_to_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segment(dir.path(), 100);
    assert_eq!(segments(&store.snapshot()), 1);
    assert_eq!(store.stats().memory_chunks, 0);
    assert_eq!(
        (count(dir.path(), "wal"), count(dir.path(), "manifest"), count(dir.path(), "parquet")),
        (1, 1, 1)
    );
    assert_eq!(
        store.checkpoint(&NoBlobs).unwrap(),
        super::CheckpointReport::default(),
        "nothing is left to do"
    );
    assert_eq!(ids(&store, 20_000), (0..100).collect::<Vec<_>>());
    drop(store);
    let store = open(dir.path());
    assert_eq!(ids(&store, 20_000), (0..100).collect::<Vec<_>>());
    assert_eq!(store.reserve_rows(ITEMS, 1).0, 101, "row ids are not reused");
    assert_eq!(store.next_object_id(), TableId(20_003));
}

#[test]
fn deletes_reach_the_next_segment_or_a_deletion_vector() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segment(dir.path(), 100);
    let few = delete(&store, 20_000, &[3, 4]);
    commit(&store, vec![few]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(
        (count(dir.path(), "deleted"), count(dir.path(), "parquet")),
        (1, 1),
        "few deletes leave the segment"
    );
    drop(store);
    let store = open(dir.path());
    let left: Vec<i64> = (0..100).filter(|id| ![3, 4].contains(id)).collect();
    assert_eq!(ids(&store, 20_000), left);

    let many = delete(&store, 20_000, &(50..80).collect::<Vec<_>>());
    commit(&store, vec![many]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!((count(dir.path(), "deleted"), count(dir.path(), "parquet")), (0, 1), "many rewrite it");
    let left: Vec<i64> = left.into_iter().filter(|id| !(50..80).contains(id)).collect();
    assert_eq!(ids(&store, 20_000), left);
    drop(store);
    assert_eq!(ids(&open(dir.path()), 20_000), left);
}

type Deed<'a> = Box<dyn FnOnce(&TenantStore) + Send + 'a>;

/// Deletes and inserts while the checkpoint is building.
struct Meddler<'a> {
    store: &'a TenantStore,
    with: Mutex<Option<Deed<'a>>>,
}

impl BlobBuilder for Meddler<'_> {
    fn build(
        &self,
        _: &TableDef,
        _: &IndexDef,
        segment: &crate::Chunk,
        _: &[crate::MergeInput<'_>],
    ) -> Result<Option<Box<dyn crate::BlobBytes>>, crate::StoreError> {
        if let Some(act) = self.with.lock().take() {
            act(self.store);
        }
        Ok(Some(Box::new(vec![7; segment.rows() as usize])))
    }
}

fn checkpoint_while(store: &TenantStore, act: impl FnOnce(&TenantStore) + Send) {
    let meddler = Meddler { store, with: Mutex::new(Some(Box::new(act))) };
    store.checkpoint(&meddler).unwrap();
    assert!(meddler.with.lock().is_none(), "the builder was called");
}

#[test]
fn what_happens_during_a_checkpoint_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(valid(items(20_000, "items")))]);
    for id in 0..40 {
        let op = insert(&store, 20_000, &[id]);
        commit(&store, vec![op]);
    }
    let before = delete(&store, 20_000, &[7]);
    commit(&store, vec![before]);
    checkpoint_while(&store, |store| {
        let gone = delete(store, 20_000, &[5, 6, 39]);
        commit(store, vec![gone]);
        let more = insert(store, 20_000, &[5, 100]);
        commit(store, vec![more]);
        let gone = delete(store, 20_000, &[100]);
        commit(store, vec![gone]);
    });
    let left: Vec<i64> = (0..39).filter(|id| ![6, 7].contains(id)).collect();
    assert_eq!(ids(&store, 20_000), left);
    let version = store.snapshot().table(ITEMS).unwrap().clone();
    let segment = version.chunks.iter().find(|chunk| chunk.chunk.segment().is_some()).unwrap();
    assert_eq!((segment.chunk.rows(), segment.deleted.len()), (39, 3));
    assert!(matches!(
        store.commit(&store.snapshot(), vec![insert(&store, 20_000, &[8])]),
        Err(StoreError::UniqueViolation { .. })
    ));
    drop((store, version));
    let store = open(dir.path());
    assert_eq!(ids(&store, 20_000), left, "after a restart the log gives the same");
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(ids(&store, 20_000), left);
}

#[test]
fn a_table_truncated_or_dropped_during_a_checkpoint_stays_so() {
    for drop_it in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = create(dir.path());
        commit(&store, vec![Op::CreateTable(valid(items(20_000, "items")))]);
        let op = insert(&store, 20_000, &[1, 2, 3]);
        commit(&store, vec![op]);
        checkpoint_while(&store, |store| {
            let op = if drop_it { Op::DropTable(ITEMS) } else { Op::Truncate(ITEMS) };
            commit(store, vec![op]);
        });
        let check = |store: &TenantStore| match store.snapshot().table(ITEMS) {
            Some(version) => assert!(!drop_it && version.live_rows() == 0),
            None => assert!(drop_it),
        };
        check(&store);
        drop(store);
        let store = open(dir.path());
        check(&store);
        store.checkpoint(&NoBlobs).unwrap();
        check(&store);
        assert_eq!((count(dir.path(), "parquet"), count(dir.path(), "index")), (0, 0));
    }
}

#[test]
fn index_blobs_are_built_attached_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segment(dir.path(), 10);
    let index = items(20_000, "items").indexes[0].id;
    let segment = store.snapshot().table(ITEMS).unwrap().chunks[0].chunk.segment().unwrap();
    assert!(store.attach_index(ITEMS, segment, index, b"first").unwrap());
    assert!(store.attach_index(ITEMS, segment, index, b"index bytes").unwrap());
    assert!(!store.attach_index(ITEMS, segment, TableId(29_999), b"x").unwrap());
    assert!(!store.attach_index(ITEMS, sepal_types::FileId([0; 16]), index, b"x").unwrap());
    assert_eq!(count(dir.path(), "index"), 1, "the replaced blob is gone");
    drop(store);

    let store = open(dir.path());
    let blob = |store: &TenantStore| store.snapshot().table(ITEMS).unwrap().chunks[0].chunk.index_blob(index);
    assert_eq!(blob(&store).unwrap().unwrap(), b"index bytes");
    let mut def = items(20_000, "items");
    def.indexes.clear();
    commit(&store, vec![Op::AlterTable(def)]);
    store.checkpoint(&NoBlobs).unwrap();
    assert!(blob(&store).is_none());
    assert_eq!(count(dir.path(), "index"), 0);

    commit(&store, vec![Op::AlterTable(valid(items(20_000, "items")))]);
    let more = insert(&store, 20_000, &[50, 51]);
    commit(&store, vec![more]);
    checkpoint_while(&store, |_| {});
    assert_eq!(
        blob(&store).unwrap().unwrap(),
        vec![7; 12],
        "small segments were merged, and the index built over all"
    );
}

#[test]
fn files_stay_as_long_as_a_reader_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segment(dir.path(), 100);
    let pinned = store.snapshot();
    let many = delete(&store, 20_000, &(0..50).collect::<Vec<_>>());
    commit(&store, vec![many]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(count(dir.path(), "parquet"), 2, "the old segment is pinned");
    store.cache.forget_tenant(store.tenant());
    assert_eq!(scan(pinned.table(ITEMS).unwrap()).len(), 100);
    drop(pinned);
    assert_eq!(count(dir.path(), "parquet"), 1);
}

#[test]
fn segments_stay_few() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    for round in 0..12 {
        let op = insert(&store, 20_000, &(round * 10..round * 10 + 10).collect::<Vec<_>>());
        commit(&store, vec![op]);
        store.checkpoint(&NoBlobs).unwrap();
    }
    assert_eq!(segments(&store.snapshot()), 1, "small segments are merged");
    assert_eq!(ids(&store, 20_000), (0..120).collect::<Vec<_>>());
    assert_eq!(count(dir.path(), "parquet"), 1);
}

#[test]
fn a_plan_leaves_large_segments_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    // Labels make each segment larger than what is merged as small.
    let label = "x".repeat(1 << 20);
    for round in 0..7 {
        let rows = crate::fixtures::batch_of(
            &(round * 17..round * 17 + 17).collect::<Vec<_>>(),
            &vec![label.clone(); 17],
        );
        let first_row = store.reserve_rows(ITEMS, 17);
        commit(&store, vec![Op::Insert { table: ITEMS, first_row, rows }]);
        store.checkpoint(&NoBlobs).unwrap();
        while store.compact(&NoBlobs, CompactionLimits::default()).unwrap().is_some() {}
        assert!(segments(&store.snapshot()) <= plan::MAX_SEGMENTS);
    }
    let version = store.snapshot().table(ITEMS).unwrap().clone();
    assert!(plan::flush(&version, &std::collections::HashSet::new(), 4 << 30).rewrite.is_empty());
    assert!(segments(&store.snapshot()) > 1, "not everything is rewritten each time");
    assert_eq!(version.live_rows(), 7 * 17);
}

/// Asked again, a column comes without the cache's lock: it counts as found all the same, and when the cache has to
/// forget it, it is gone.
#[test]
fn a_column_that_was_found_is_found_again_and_held_by_the_cache_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segment(dir.path(), 100);
    let version = store.snapshot().table(ITEMS).unwrap().clone();
    let cache = Arc::clone(&store.cache);
    cache.forget_tenant(crate::fixtures::TENANT);
    let (hits, misses) = cache.hits_and_misses();
    let read = || version.chunks[0].chunk.column(&version.def.columns[0]).unwrap();
    let first = read();
    for _ in 0..5 {
        assert!(Arc::ptr_eq(&first, &read()));
    }
    assert_eq!(cache.hits_and_misses(), (hits + 5, misses + 1));
    let gone = Arc::downgrade(&first);
    drop(first);
    assert_eq!(gone.strong_count(), 1, "the cache's");
    cache.forget_tenant(crate::fixtures::TENANT);
    assert_eq!(gone.strong_count(), 0);
    read();
    assert_eq!(cache.hits_and_misses(), (hits + 5, misses + 2));
}

#[test]
fn altered_tables_read_their_old_segments() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segment(dir.path(), 3);
    let mut def = items(20_000, "goods");
    let mut added = crate::fixtures::column(4, "stock", sepal_types::SqlType::Int4);
    added.missing = Some("12".into());
    def.columns.push(added.clone());
    def.columns.remove(1);
    commit(&store, vec![Op::AlterTable(def)]);
    let read = |store: &TenantStore| {
        let version = store.snapshot().find("default", "goods").unwrap().clone();
        let stock = version.chunks[0].chunk.column(&added).unwrap();
        assert_eq!(arrow::util::display::array_value_to_string(&stock, 2).unwrap(), "12");
        assert_eq!(stock.len(), version.chunks[0].chunk.rows() as usize);
    };
    read(&store);
    // A rewrite keeps what the column was missing, and drops what was dropped.
    let rows = batch(&[1]);
    assert_eq!(rows.num_columns(), 3);
    let op = delete(&store, 20_000, &[0, 1]);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(store.snapshot().table(ITEMS).unwrap().chunks[0].chunk.rows(), 1);
    drop(store);
    let store = open(dir.path());
    let stock = store.snapshot().table(ITEMS).unwrap().chunks[0].chunk.column(&added).unwrap();
    assert_eq!(arrow::util::display::array_value_to_string(&stock, 0).unwrap(), "12");
}
