//! That a compaction keeps every row, whatever happens meanwhile, and leaves nothing of what was deleted.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use proptest::prelude::*;
use sepal_types::{IndexDef, RowId, TableDef, TableId};

use super::{CompactionLimits, Rewrite};
use crate::{
    BlobBuilder, FaultInjector, Freely, NoBlobs, Op, Pace, StoreError, StoreOptions, TenantStore,
    disk::Fault,
    fixtures::{
        Meddler, TENANT, alarms, batch_of, commit, count, create, delete, files, ids, insert, items, open,
        options, scan, tenant_key, valid,
    },
};

const ITEMS: TableId = TableId(20_000);
/// Three of these make a segment that a flush leaves alone.
const LABEL_BYTES: usize = 400 << 10;

fn with_table(dir: &Path) -> Arc<TenantStore> {
    let store = create(dir);
    commit(&store, vec![Op::CreateTable(valid(items(20_000, "items")))]);
    store
}

/// Rows in a segment of their own.
fn segment(store: &TenantStore, ids: &[i64]) {
    insert_large(store, store.reserve_rows(ITEMS, ids.len() as u64), ids);
    store.checkpoint(&NoBlobs).unwrap();
}

fn insert_large(store: &TenantStore, first_row: RowId, ids: &[i64]) {
    let labels: Vec<String> = ids.iter().map(|id| format!("{id} {}", "x".repeat(LABEL_BYTES))).collect();
    commit(store, vec![Op::Insert { table: ITEMS, first_row, rows: batch_of(ids, &labels) }]);
}

/// Five segments of the rows 0..15.
fn with_segments(dir: &Path) -> Arc<TenantStore> {
    let store = with_table(dir);
    (0..5).for_each(|part| segment(&store, &[part * 3, part * 3 + 1, part * 3 + 2]));
    assert_eq!(segments(&store), 5);
    store
}

fn segments(store: &TenantStore) -> usize {
    store
        .snapshot()
        .table(ITEMS)
        .map_or(0, |version| version.chunks.iter().filter(|chunk| chunk.chunk.segment().is_some()).count())
}

fn live(store: &TenantStore) -> Vec<i64> {
    // From the files, not from memory.
    store.cache.forget_tenant(store.tenant());
    ids(store, 20_000)
}

/// Merges all segments into one, and does something else meanwhile. Gives whether the merge came about.
fn merge_while(store: &TenantStore, act: impl FnOnce(&TenantStore) + Send) -> bool {
    let meddler = Meddler::new(store, act);
    let groups = store.segments_to_merge(ITEMS, Rewrite::All);
    assert_eq!(groups.len(), 1);
    let merged = store.merge(ITEMS, &groups[0], &meddler, &Freely).unwrap();
    assert!(meddler.has_acted(), "the builder was called");
    merged.is_some()
}

#[test]
fn who_waits_for_a_compaction_can_be_stopped() {
    struct Stopped;
    impl Pace for Stopped {
        fn is_stopped(&self) -> bool {
            true
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    let group = store.segments_to_merge(ITEMS, Rewrite::All).remove(0);
    let merged = merge_while(&store, |store| {
        let limits = CompactionLimits { pace: &Stopped, ..CompactionLimits::default() };
        assert_eq!(store.compact(&NoBlobs, limits), Err(StoreError::Stopped));
        assert_eq!(store.merge(ITEMS, &group, &NoBlobs, &Stopped), Err(StoreError::Stopped));
        assert!(matches!(store.rotate_file_keys(&NoBlobs, &Stopped), Err(StoreError::Stopped)));
    });
    assert!(merged && live(&store) == (0..15).collect::<Vec<_>>());
}

#[test]
fn too_many_segments_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    assert!(store.wants_compaction());
    let done = store.compact(&NoBlobs, CompactionLimits::default()).unwrap().unwrap();
    assert_eq!((done.segments_read, done.segments_written, done.segments_removed), (5, 1, 5));
    assert_eq!((done.rows_read, done.rows_written, done.rows_removed), (15, 15, 0));
    assert!(!store.wants_compaction());
    assert_eq!(store.compact(&NoBlobs, CompactionLimits::default()).unwrap(), None);
    assert_eq!((segments(&store), count(dir.path(), "parquet")), (1, 1));
    assert_eq!(live(&store), (0..15).collect::<Vec<_>>());
    let stats = store.stats();
    assert_eq!(stats.flushed_bytes, stats.ingested_bytes);
    let amplification = stats.write_amplification().unwrap();
    assert!((1.9..2.1).contains(&amplification), "{amplification}");
    drop(store);
    assert_eq!(live(&open(dir.path())), (0..15).collect::<Vec<_>>());
}

/// Another tenant may be at a large merge for an hour, and somebody looks every few seconds.
#[test]
fn a_merge_that_the_caller_does_not_want_is_no_reason_to_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    let op = insert(&store, 20_000, &[100]);
    commit(&store, vec![op]);
    let small = CompactionLimits { max_bytes: 1, ..CompactionLimits::default() };
    assert_eq!(store.compact(&NoBlobs, small).unwrap(), None);
    assert!(store.wants_compaction());
    assert_eq!((store.stats().memory_chunks, segments(&store)), (1, 5));
}

#[test]
fn a_merge_that_met_damage_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    // Looks at all keys, which stay known.
    let op = insert(&store, 20_000, &[100]);
    commit(&store, vec![op]);
    let is_segment = |path: &Path| path.extension().is_some_and(|found| found == "parquet");
    let (path, whole) = files(dir.path()).into_iter().find(|(path, _)| is_segment(path)).unwrap();
    std::fs::write(&path, vec![0; whole.len()]).unwrap();
    store.cache.forget_tenant(store.tenant());
    let error = store.compact(&NoBlobs, CompactionLimits::default()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(!store.wants_compaction());
    assert_eq!(store.compact(&NoBlobs, CompactionLimits::default()).unwrap(), None);
    // Others are merged as ever.
    (5..10).for_each(|part| segment(&store, &[part * 3, part * 3 + 1, part * 3 + 2]));
    assert!(store.wants_compaction());
    let done = store.compact(&NoBlobs, CompactionLimits::default()).unwrap().unwrap();
    assert_eq!((done.segments_read, segments(&store)), (9, 2));
    std::fs::write(&path, whole).unwrap();
    let expected: Vec<i64> = (0..30).chain([100]).collect();
    assert_eq!(live(&store), expected);
    drop(store);
    // A repair takes place while it is closed: it is judged anew.
    let store = open(dir.path());
    let groups = store.segments_to_merge(ITEMS, Rewrite::All);
    store.merge(ITEMS, &groups[0], &NoBlobs, &Freely).unwrap().unwrap();
    assert_eq!((segments(&store), live(&store)), (1, expected));
}

/// Notes where the rows of indexed inputs have gone, by input.
#[derive(Default)]
struct Recorder(Mutex<Vec<Vec<u32>>>);

impl BlobBuilder for Recorder {
    fn build(
        &self,
        _: &TableDef,
        _: &IndexDef,
        _: &crate::Chunk,
        inputs: &[crate::MergeInput<'_>],
    ) -> Result<Option<Box<dyn crate::BlobBytes>>, crate::StoreError> {
        *self.0.lock() = inputs.iter().map(|input| input.positions.clone()).collect();
        Ok(Some(Box::new(*b"blob")))
    }
}

impl Recorder {
    /// Merges all segments.
    fn merged(&self, store: &TenantStore) -> Vec<Vec<u32>> {
        let groups = store.segments_to_merge(ITEMS, Rewrite::All);
        store.merge(ITEMS, &groups[0], self, &Freely).unwrap().unwrap();
        self.0.lock().clone()
    }
}

#[test]
fn a_builder_learns_where_indexed_rows_have_gone() {
    const GONE: u32 = u32::MAX;
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let recorder = Recorder::default();
    let builders: [&dyn BlobBuilder; 3] = [&recorder, &recorder, &NoBlobs];
    for (part, builder) in (0..).zip(builders) {
        let ids: Vec<i64> = (part * 6..part * 6 + 6).collect();
        insert_large(&store, store.reserve_rows(ITEMS, 6), &ids);
        store.checkpoint(builder).unwrap();
    }
    assert!(recorder.0.lock().is_empty(), "nothing was merged");
    let gone = delete(&store, 20_000, &[1, 9]);
    commit(&store, vec![gone]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(segments(&store), 3);
    // The third has no index.
    assert_eq!(recorder.merged(&store), [[0, GONE, 1, 2, 3, 4], [5, 6, 7, GONE, 8, 9]]);
    assert_eq!(live(&store).len(), 16);
}

#[test]
fn interleaved_rows_come_out_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let recorder = Recorder::default();
    let [first, second, third] = [2, 3, 2].map(|rows| store.reserve_rows(ITEMS, rows));
    insert_large(&store, third, &[5, 6]);
    insert_large(&store, first, &[0, 1]);
    store.checkpoint(&recorder).unwrap();
    insert_large(&store, second, &[2, 3, 4]);
    store.checkpoint(&recorder).unwrap();
    assert_eq!(segments(&store), 2);
    let gone = delete(&store, 20_000, &[1]);
    commit(&store, vec![gone]);
    store.checkpoint(&recorder).unwrap();
    // The flush has rewritten the first: a quarter of it was deleted.
    assert_eq!(recorder.merged(&store), [[0, 4, 5], [1, 2, 3]]);
    assert_eq!(segments(&store), 1);
    assert_eq!(live(&store), [0, 2, 3, 4, 5, 6]);
    let version = store.snapshot().table(ITEMS).unwrap().clone();
    assert!(version.chunks[0].chunk.row_ids().unwrap().values().is_sorted());
}

#[test]
fn deletions_during_a_compaction_are_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    let before = delete(&store, 20_000, &[0]);
    commit(&store, vec![before]);
    store.checkpoint(&NoBlobs).unwrap();
    let unflushed = delete(&store, 20_000, &[1]);
    commit(&store, vec![unflushed]);
    let merged = merge_while(&store, |store| {
        let flushed = delete(store, 20_000, &[2, 14]);
        commit(store, vec![flushed]);
        let new = insert(store, 20_000, &[2, 100]);
        commit(store, vec![new]);
        // Collects garbage, too: not what the compaction has written by now.
        store.checkpoint(&NoBlobs).unwrap();
        let later = delete(store, 20_000, &[5, 100]);
        commit(store, vec![later]);
    });
    assert!(merged);
    let left: Vec<i64> = [2, 3, 4].into_iter().chain(6..14).collect();
    assert_eq!(live(&store), left);
    let version = store.snapshot().table(ITEMS).unwrap().clone();
    let sizes: Vec<(u32, u64)> =
        version.chunks.iter().map(|held| (held.chunk.rows(), held.deleted.len())).collect();
    assert_eq!(sizes, [(14, 4), (2, 1)], "what the manifest knew is gone, what came later is marked");
    drop((store, version));
    let store = open(dir.path());
    assert_eq!(live(&store), left, "the manifest's deletions and the log's");
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(live(&store), left);
}

#[test]
fn a_table_truncated_or_dropped_during_a_compaction_stays_so() {
    for (drop_it, flush) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let store = with_segments(dir.path());
        let merged = merge_while(&store, |store| {
            commit(store, vec![if drop_it { Op::DropTable(ITEMS) } else { Op::Truncate(ITEMS) }]);
            if flush {
                store.checkpoint(&NoBlobs).unwrap();
            }
        });
        assert_eq!(merged, !drop_it && !flush, "the inputs are in the manifest still");
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
fn a_flush_leaves_alone_what_is_being_merged() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    let first = insert(&store, 20_000, &[1, 2]);
    commit(&store, vec![first]);
    store.checkpoint(&NoBlobs).unwrap();
    let merged = merge_while(&store, |store| {
        let more = insert(store, 20_000, &[3]);
        commit(store, vec![more]);
        store.checkpoint(&NoBlobs).unwrap();
    });
    assert!(merged, "the flush did not take the small segment along");
    assert_eq!((live(&store), segments(&store)), (vec![1, 2, 3], 2));
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!((live(&store), segments(&store)), (vec![1, 2, 3], 1), "the next one does");
}

#[test]
fn rows_that_are_deleted_are_gone_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_table(dir.path());
    // Too large for a flush to rewrite.
    let rows: Vec<i64> = (0..60).collect();
    segment(&store, &rows);
    let gone = delete(&store, 20_000, &(0..13).collect::<Vec<_>>());
    commit(&store, vec![gone]);
    assert!(store.wants_compaction());
    let done = store.compact(&NoBlobs, CompactionLimits::default()).unwrap().unwrap();
    assert_eq!((done.rows_removed, done.rows_written), (13, 47), "after a flush, by itself");
    assert_eq!((count(dir.path(), "parquet"), count(dir.path(), "deleted")), (1, 0));
    assert_eq!(store.stats().deleted_rows, 0);
    assert_eq!(live(&store), (13..60).collect::<Vec<_>>());

    // A few are left to VACUUM.
    let few = delete(&store, 20_000, &[13]);
    commit(&store, vec![few]);
    assert!(!store.wants_compaction());
    assert!(store.segments_to_merge(ITEMS, Rewrite::Deleted).is_empty(), "no manifest knows of it yet");
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(store.stats().deleted_rows, 1);
    let groups = store.segments_to_merge(ITEMS, Rewrite::Deleted);
    store.merge(ITEMS, &groups[0], &NoBlobs, &Freely).unwrap().unwrap();
    assert!(store.segments_to_merge(ITEMS, Rewrite::Deleted).is_empty());
    assert_eq!((store.stats().deleted_rows, count(dir.path(), "deleted")), (0, 0));

    // And a segment whose last row went.
    let all = delete(&store, 20_000, &(14..60).collect::<Vec<_>>());
    commit(&store, vec![all]);
    let done = store.compact(&NoBlobs, CompactionLimits::default()).unwrap().unwrap();
    assert_eq!((done.segments_written, done.rows_removed), (0, 46));
    assert_eq!(count(dir.path(), "parquet"), 0);
    drop(store);
    assert!(live(&open(dir.path())).is_empty());
}

/// Stops after so many bytes.
struct Tired {
    left: AtomicU64,
}

impl Pace for Tired {
    fn spend(&self, bytes: u64) {
        let _ = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(bytes)));
    }

    fn is_stopped(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

#[test]
fn a_stopped_compaction_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    let before = files(dir.path());
    for bytes in [0, 1 << 20, 5 << 20] {
        let pace = Tired { left: AtomicU64::new(bytes) };
        let limits = CompactionLimits { pace: &pace, ..CompactionLimits::default() };
        assert_eq!(store.compact(&NoBlobs, limits).unwrap_err(), StoreError::Stopped);
        assert_eq!(files(dir.path()), before);
    }
    assert_eq!(live(&store), (0..15).collect::<Vec<_>>());
    store.compact(&NoBlobs, CompactionLimits::default()).unwrap().unwrap();
}

#[test]
fn closing_the_store_ends_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    let closer = Meddler::new(&store, |store: &TenantStore| {
        // As `close` does first; the rest of it waits for this compaction.
        store.poison.set("closed".to_owned());
    });
    let error = store.compact(&closer, CompactionLimits::default()).unwrap_err();
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    drop(closer);
    drop(store);
    assert_eq!(live(&open(dir.path())), (0..15).collect::<Vec<_>>());
    assert_eq!(count(dir.path(), "parquet"), 5);
}

/// The drive, once it is broken, syncs no directory of segments.
#[derive(Default)]
struct Broken(AtomicBool);

impl FaultInjector for Broken {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        if self.0.load(Ordering::SeqCst) && point == "segment.sync_directory" {
            return Err(Fault { error: io::Error::from_raw_os_error(5), written: 0 });
        }
        Ok(())
    }
}

/// The first is told what went wrong, not that the store has stopped for it; the next one why it stopped.
#[test]
fn a_compaction_that_stops_the_store_says_why() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_segments(dir.path()));
    let drive = Arc::new(Broken::default());
    let fault: Arc<dyn FaultInjector> = Arc::clone(&drive) as _;
    let options = StoreOptions { fault: Some(fault), ..options() };
    let store = TenantStore::open(dir.path(), TENANT, tenant_key(), options).unwrap();
    drive.0.store(true, Ordering::SeqCst);
    let error = store.compact(&NoBlobs, CompactionLimits::default()).unwrap_err();
    let StoreError::Io { action: "sync", why, .. } = &error else { panic!("{error}") };
    let next = store.compact(&NoBlobs, CompactionLimits::default()).unwrap_err();
    assert!(matches!(&next, StoreError::Poisoned { why: told } if told.contains(why)), "{next}");
}

/// What happens while segments are merged.
#[derive(Clone, Debug)]
enum Step {
    Insert(i64),
    Delete(i64),
    Update(i64),
    Truncate,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..20_i64;
    let step = prop_oneof![
        3 => key().prop_map(Step::Insert),
        6 => key().prop_map(Step::Delete),
        4 => key().prop_map(Step::Update),
        1 => Just(Step::Truncate),
        3 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..12)
}

/// A row by its key, with the number of the step that wrote it.
type Model = BTreeMap<i64, String>;

fn act(store: &TenantStore, model: &mut Model, steps: &[Step]) {
    let write = |key: i64, label: &str| {
        let first_row = store.reserve_rows(ITEMS, 1);
        Op::Insert { table: ITEMS, first_row, rows: batch_of(&[key], &[label.to_owned()]) }
    };
    for (number, step) in steps.iter().enumerate() {
        let label = format!("step {number}");
        match step {
            Step::Insert(key) if !model.contains_key(key) => {
                commit(store, vec![write(*key, &label)]);
                model.insert(*key, label);
            }
            Step::Delete(key) if model.contains_key(key) => {
                let op = delete(store, 20_000, &[*key]);
                commit(store, vec![op]);
                model.remove(key);
            }
            Step::Update(key) if model.contains_key(key) => {
                let op = delete(store, 20_000, &[*key]);
                commit(store, vec![op, write(*key, &label)]);
                model.insert(*key, label);
            }
            Step::Truncate => {
                commit(store, vec![Op::Truncate(ITEMS)]);
                model.clear();
            }
            Step::Flush => drop(store.checkpoint(&NoBlobs).unwrap()),
            Step::Insert(_) | Step::Delete(_) | Step::Update(_) => {}
        }
    }
}

fn found(store: &TenantStore) -> Model {
    store.cache.forget_tenant(store.tenant());
    let rows = scan(store.snapshot().table(ITEMS).unwrap());
    rows.into_iter().map(|(key, (label, _))| (key, label)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_happens_meanwhile(before in steps(), during in steps(), after in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let store = with_table(dir.path());
        let mut model = Model::new();
        let first: Vec<Step> = (0..12).map(Step::Insert).chain([Step::Flush]).collect();
        act(&store, &mut model, &first);
        act(&store, &mut model, &before);
        let held = Mutex::new(&mut model);
        let meddler = Meddler::new(&store, |store: &TenantStore| act(store, &mut held.lock(), &during));
        for group in store.segments_to_merge(ITEMS, Rewrite::All) {
            store.merge(ITEMS, &group, &meddler, &Freely).unwrap();
        }
        drop(meddler);
        prop_assert_eq!(&found(&store), &model);
        act(&store, &mut model, &after);
        prop_assert_eq!(&found(&store), &model);
        drop(store);
        let store = open(dir.path());
        prop_assert_eq!(&found(&store), &model);
        let next = store.reserve_rows(ITEMS, 1);
        prop_assert!(next > RowId(0));
    }
}

/// A segment with a deletion vector that does not open any more, a deletion after it, and four other segments.
fn with_damaged_deletions(dir: &Path) -> Arc<TenantStore> {
    let store = with_table(dir);
    segment(&store, &(0..12).collect::<Vec<_>>());
    (4..8).for_each(|part| segment(&store, &[part * 3, part * 3 + 1, part * 3 + 2]));
    let first = delete(&store, 20_000, &[0]);
    commit(&store, vec![first]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!((segments(&store), count(dir, "deleted")), (5, 1));
    let second = delete(&store, 20_000, &[1]);
    commit(&store, vec![second]);
    let is_deletions = |path: &std::path::PathBuf| path.extension().is_some_and(|found| found == "deleted");
    let path = files(dir).into_keys().find(is_deletions).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    store
}

#[test]
fn a_damaged_deletion_vector_stops_no_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_damaged_deletions(dir.path());
    let mut done = None;
    let told = alarms(|| done = store.compact(&NoBlobs, CompactionLimits::default()).unwrap());
    let done = done.unwrap();
    assert_eq!((done.segments_read, done.rows_written, done.rows_removed), (5, 22, 2));
    assert!(told.iter().any(|event| event.contains(".deleted is damaged")), "{told:?}");
    assert_eq!(live(&store), (2..24).collect::<Vec<_>>());
    drop(store);
    assert_eq!(live(&open(dir.path())), (2..24).collect::<Vec<_>>());
}

#[test]
fn a_damaged_deletion_vector_stops_no_vacuum() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_damaged_deletions(dir.path());
    let groups = store.segments_to_merge(ITEMS, Rewrite::Deleted);
    assert_eq!(groups.len(), 1);
    let done = store.merge(ITEMS, &groups[0], &NoBlobs, &Freely).unwrap().unwrap();
    assert_eq!((done.segments_read, done.rows_written, done.rows_removed), (1, 10, 2));
    drop(store);
    assert_eq!(live(&open(dir.path())), (2..24).collect::<Vec<_>>());
}

/// A flush writes one while a merge is at work, and it is damaged before the merge is done.
#[test]
fn damage_to_deletions_leaves_segments_mergeable() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_segments(dir.path());
    let groups = store.segments_to_merge(ITEMS, Rewrite::All);
    let meddler = Meddler::new(&store, |store| {
        let gone = delete(store, 20_000, &[4]);
        commit(store, vec![gone]);
        store.checkpoint(&NoBlobs).unwrap();
        let is_deletions =
            |path: &std::path::PathBuf| path.extension().is_some_and(|found| found == "deleted");
        let path = files(dir.path()).into_keys().find(is_deletions).unwrap();
        std::fs::write(path, b"nothing").unwrap();
    });
    let done = store.merge(ITEMS, &groups[0], &meddler, &Freely);
    assert!(matches!(done, Err(StoreError::Corrupt { .. })), "{done:?}");
    let done = store.merge(ITEMS, &groups[0], &NoBlobs, &Freely).unwrap().unwrap();
    assert_eq!((done.segments_read, done.rows_removed), (5, 1));
    assert!(store.unmergeable().is_empty());
    drop(meddler);
    drop(store);
    let all_but_one: Vec<i64> = (0..15).filter(|id| *id != 4).collect();
    assert_eq!(live(&open(dir.path())), all_but_one);
}
