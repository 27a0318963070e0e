//! Crashes at every step, failed writes, full devices.
//!
//! A crash image is a copy of the directory taken just before a step: what a kill leaves, or a power cut when
//! everything so far had reached the device. Torn writes are made by letting part of a write through.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_types::TableId;

use crate::{
    BlobBuilder, Fault, FaultInjector, Freely, Op, Rewrite, StoreError, StoreOptions, TenantStore,
    fixtures::{
        Blobs, TENANT, commit, copy, create, delete, ids, insert, items, open, options, tenant_key, valid,
    },
};

const ITEMS: TableId = TableId(20_000);

/// Copies the directory before every step, with how many commits were acknowledged by then.
struct Camera {
    dir: PathBuf,
    images: PathBuf,
    taken: Mutex<Vec<(PathBuf, i64, String)>>,
    acknowledged: AtomicI64,
}

impl Camera {
    /// And options with it, for a store in `dir`. What it takes lies below `root`.
    fn of(dir: &Path, root: &Path) -> (Arc<Self>, StoreOptions) {
        let camera = Arc::new(Self {
            dir: dir.to_owned(),
            images: root.join("images"),
            taken: Mutex::default(),
            acknowledged: AtomicI64::new(0),
        });
        let fault = Arc::clone(&camera) as Arc<dyn FaultInjector>;
        (camera, StoreOptions { fault: Some(fault), ..options() })
    }
}

impl FaultInjector for Camera {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        let mut taken = self.taken.lock();
        let image = self.images.join(taken.len().to_string());
        copy(&self.dir, &image);
        taken.push((image, self.acknowledged.load(Ordering::SeqCst), point.to_owned()));
        Ok(())
    }
}

/// Each commit inserts its number n and, from the third on, deletes n - 2: the live keys tell which commits are
/// there, and a half commit shows.
fn history(store: &TenantStore, acknowledged: &AtomicI64, blobs: &dyn BlobBuilder) {
    commit(store, vec![Op::CreateTable(valid(items(20_000, "items")))]);
    for n in 1..=12 {
        let mut ops = vec![insert(store, 20_000, &[n])];
        if n > 2 {
            ops.push(delete(store, 20_000, &[n - 2]));
        }
        commit(store, ops);
        acknowledged.store(n, Ordering::SeqCst);
        if n % 4 == 0 {
            store.checkpoint(blobs).unwrap();
            // The last two rows are live, so there is one segment, and deletions in it after the first round.
            for files in store.segments_to_merge(ITEMS, Rewrite::All) {
                store.merge(ITEMS, &files, blobs, &Freely).unwrap().unwrap();
            }
        }
    }
}

/// The number of the last commit that a recovered store holds, checking that none is half there.
fn last_commit(store: &TenantStore) -> i64 {
    if store.snapshot().table(ITEMS).is_none() {
        return 0;
    }
    let found = ids(store, 20_000);
    let last = found.last().copied().unwrap_or(0);
    let expected: Vec<i64> = (last - 1..=last).filter(|n| *n > 0).collect();
    assert_eq!(found, expected, "a commit is half there");
    last
}

#[test]
fn a_crash_before_any_step_keeps_every_acknowledged_commit() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    drop(create(&dir));
    let (camera, with_camera) = Camera::of(&dir, root.path());
    let store = TenantStore::open(&dir, TENANT, tenant_key(), with_camera).unwrap();
    store.release_unheld_log().unwrap();
    history(&store, &camera.acknowledged, &Blobs);
    drop(store);
    let taken = std::mem::take(&mut *camera.taken.lock());
    assert!(taken.len() > 60, "{} steps", taken.len());
    for (image, acknowledged, point) in taken {
        let store = open(&image);
        let found = last_commit(&store);
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{point}: {found} of {acknowledged}");
        // What was recovered can be written, checkpointed and recovered again.
        if store.snapshot().table(ITEMS).is_some() {
            let op = insert(&store, 20_000, &[found + 1]);
            let ops = if found > 1 { vec![op, delete(&store, 20_000, &[found - 1])] } else { vec![op] };
            commit(&store, ops);
            store.checkpoint(&Blobs).unwrap();
            drop(store);
            assert_eq!(last_commit(&open(&image)), found + 1, "{point}");
        }
        std::fs::remove_dir_all(&image).unwrap();
    }
}

#[test]
fn a_crash_during_creation_leaves_a_directory_that_can_be_used() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    std::fs::create_dir(&dir).unwrap();
    let (camera, with_camera) = Camera::of(&dir, root.path());
    drop(TenantStore::create(&dir, TENANT, tenant_key(), with_camera).unwrap());
    for (image, _, point) in std::mem::take(&mut *camera.taken.lock()) {
        let make =
            if TenantStore::is_made(&image).unwrap() { TenantStore::open } else { TenantStore::create };
        let made =
            make(&image, TENANT, tenant_key(), options()).unwrap_or_else(|error| panic!("{point}: {error}"));
        assert_eq!(last_commit(&made), 0, "{point}");
        assert!(TenantStore::is_made(&image).unwrap());
    }
}

/// Fails the step with this number, letting `written` bytes of a write through.
struct Saboteur {
    at: AtomicUsize,
    seen: AtomicUsize,
    errno: i32,
    written: usize,
    hit: Mutex<Option<String>>,
}

impl Saboteur {
    fn new(at: usize, errno: i32, written: usize) -> Arc<Self> {
        let (at, seen) = (AtomicUsize::new(at), AtomicUsize::new(0));
        Arc::new(Self { at, seen, errno, written, hit: Mutex::default() })
    }
}

impl FaultInjector for Saboteur {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        if self.seen.fetch_add(1, Ordering::SeqCst) != self.at.load(Ordering::SeqCst) {
            return Ok(());
        }
        *self.hit.lock() = Some(point.to_owned());
        Err(Fault { error: io::Error::from_raw_os_error(self.errno), written: self.written })
    }
}

/// A full device: the same commit goes through once there is room.
fn retried(store: &TenantStore, ops: Vec<Op>) -> Result<(), StoreError> {
    let outcome = match store.commit(&store.snapshot(), ops.clone()) {
        Err(StoreError::DiskFull { .. }) => {
            assert!(!store.stats().poisoned, "a store that stopped asks nobody to repeat what may be there");
            store.commit(&store.snapshot(), ops)
        }
        other => other,
    };
    outcome.map(drop)
}

/// Runs the history with one failing step and goes on after errors as far as the store lets it. Returns the last
/// acknowledged commit and whether the step was reached.
fn sabotaged(dir: &Path, saboteur: &Arc<Saboteur>) -> (i64, Option<String>) {
    let fault: Arc<dyn FaultInjector> = Arc::clone(saboteur) as _;
    let store =
        TenantStore::open(dir, TENANT, tenant_key(), StoreOptions { fault: Some(fault), ..options() });
    let Ok(store) = store else { return (0, saboteur.hit.lock().clone()) };
    // Where it fails a file stays, no more.
    let _ = store.release_unheld_log();
    let mut acknowledged = 0;
    if store.snapshot().table(ITEMS).is_none()
        && retried(&store, vec![Op::CreateTable(valid(items(20_000, "items")))]).is_err()
    {
        return (0, saboteur.hit.lock().clone());
    }
    for n in 1..=6 {
        let mut ops = vec![insert(&store, 20_000, &[n])];
        if n > 2 {
            ops.push(delete(&store, 20_000, &[n - 2]));
        }
        if retried(&store, ops).is_err() {
            assert!(store.stats().poisoned);
            assert_eq!(last_commit(&store), acknowledged, "readers see acknowledged commits only");
            break;
        }
        acknowledged = n;
        if n % 3 == 0 && store.checkpoint(&Blobs).is_err() && !store.stats().poisoned {
            assert_eq!(last_commit(&store), acknowledged);
            store.checkpoint(&Blobs).unwrap();
        }
    }
    (acknowledged, saboteur.hit.lock().clone())
}

#[test]
fn any_failing_step_loses_nothing_acknowledged() {
    for (errno, written) in [(libc::EIO, 50), (libc::ENOSPC, 0)] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            drop(create(dir.path()));
            let (acknowledged, hit) = sabotaged(dir.path(), &Saboteur::new(at, errno, written));
            let Some(point) = hit else {
                assert!(at > 40, "{at} steps");
                break;
            };
            let found = last_commit(&open(dir.path()));
            let label = format!("{point} (step {at}) failing with {errno} after {written} bytes");
            assert!((acknowledged..=acknowledged + 1).contains(&found), "{label}: {found} of {acknowledged}");
            if errno == libc::ENOSPC && point == "wal.write" {
                assert_eq!((acknowledged, found), (6, 6), "{label}: a full device is survived");
            }
        }
    }
}

#[test]
fn a_full_device_takes_the_whole_group_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    drop(store);
    let saboteur = Saboteur::new(usize::MAX, libc::ENOSPC, 7);
    let fault: Arc<dyn FaultInjector> = Arc::clone(&saboteur) as _;
    let store =
        TenantStore::open(dir.path(), TENANT, tenant_key(), StoreOptions { fault: Some(fault), ..options() })
            .unwrap();
    let first = store.next_sequence(ITEMS, sepal_types::ColumnId(1), 3);
    saboteur.at.store(saboteur.seen.load(Ordering::SeqCst), Ordering::SeqCst);
    let full = store.commit(&store.snapshot(), vec![insert(&store, 20_000, &[first, 2, 3])]).unwrap_err();
    assert!(matches!(&full, StoreError::DiskFull { file } if file.contains(".wal")), "{full}");
    assert_eq!(store.snapshot().lsn().0, 1);
    let op = insert(&store, 20_000, &[4]);
    commit(&store, vec![op]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(ids(&store, 20_000), [4]);
    assert_eq!(
        store.peek_sequence(ITEMS, sepal_types::ColumnId(1)),
        4,
        "the serial was logged with the later commit"
    );
}

#[test]
fn a_failed_fsync_stops_the_store() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT] {
        let dir = tempfile::tempdir().unwrap();
        drop(create(dir.path()));
        let saboteur = Saboteur::new(usize::MAX, errno, 0);
        let fault: Arc<dyn FaultInjector> = Arc::clone(&saboteur) as _;
        let with_fault = StoreOptions { fault: Some(fault), ..options() };
        let store = TenantStore::open(dir.path(), TENANT, tenant_key(), with_fault).unwrap();
        let try_commit =
            || store.commit(&store.snapshot(), vec![Op::CreateTable(items(20_000, "items"))]).unwrap_err();
        // The write passes, the fdatasync after it does not.
        saboteur.at.store(saboteur.seen.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
        let failed = try_commit();
        assert_eq!(saboteur.hit.lock().as_deref(), Some("wal.sync"));
        // Not 53100, which asks for the same again.
        assert_eq!(sepal_types::Error::from(failed).state().code(), "58030", "errno {errno}");
        assert!(matches!(try_commit(), StoreError::Poisoned { .. }));
        assert!(store.checkpoint(&Blobs).is_err());
        assert!(store.snapshot().table(ITEMS).is_none());
        drop(store);
        // A restart finds it in the page cache and keeps it: made a second time it would be there twice.
        assert!(open(dir.path()).snapshot().table(ITEMS).is_some(), "errno {errno}");
    }
}

/// A process that has no descriptor left, wherever a directory is opened to be synced.
struct NoDescriptors(Mutex<Option<&'static str>>);

impl FaultInjector for NoDescriptors {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        match *self.0.lock() {
            Some(hit) if hit == point => {
                Err(Fault { error: io::Error::from_raw_os_error(libc::EMFILE), written: 0 })
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn running_out_of_descriptors_does_not_stop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    let fault = Arc::new(NoDescriptors(Mutex::new(None)));
    let with_fault = StoreOptions { fault: Some(Arc::clone(&fault) as Arc<dyn FaultInjector>), ..options() };
    let store = TenantStore::open(dir.path(), TENANT, tenant_key(), with_fault).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let points = ["wal-header.open_directory", "segment.open_directory", "manifest.open_directory"];
    for (point, id) in points.into_iter().zip(1..) {
        let op = insert(&store, 20_000, &[id]);
        commit(&store, vec![op]);
        *fault.0.lock() = Some(point);
        let error = store.checkpoint(&Blobs).unwrap_err();
        assert!(matches!(error, StoreError::Io { action: "open", .. }), "{point}: {error}");
        assert!(!store.stats().poisoned, "{point}");
        *fault.0.lock() = None;
        store.checkpoint(&Blobs).unwrap();
    }
    drop(store);
    assert_eq!(ids(&open(dir.path()), 20_000), [1, 2, 3]);
}

/// A log file each time would be thousands in a day, and a recovery reads them all.
#[test]
fn flushes_that_fail_again_and_again_leave_one_log_file() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    let fault = Arc::new(NoDescriptors(Mutex::new(None)));
    let with_fault = StoreOptions { fault: Some(Arc::clone(&fault) as Arc<dyn FaultInjector>), ..options() };
    let store = TenantStore::open(dir.path(), TENANT, tenant_key(), with_fault).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let before = store.stats().wal_files;
    *fault.0.lock() = Some("segment.open_directory");
    for (id, files) in [(1, 1), (2, 2)] {
        let op = insert(&store, 20_000, &[id]);
        commit(&store, vec![op]);
        for _ in 0..4 {
            store.checkpoint(&Blobs).unwrap_err();
            assert_eq!(store.stats().wal_files, before + files, "after commit {id}");
        }
    }
    *fault.0.lock() = None;
    let op = insert(&store, 20_000, &[3]);
    commit(&store, vec![op]);
    store.release_unheld_log().unwrap();
    store.checkpoint(&Blobs).unwrap();
    assert_eq!((store.stats().wal_files, ids(&store, 20_000)), (1, vec![1, 2, 3]));
    let op = delete(&store, 20_000, &[2]);
    commit(&store, vec![op]);
    drop(store);
    assert_eq!(ids(&open(dir.path()), 20_000), [1, 3]);
}

#[test]
fn what_cannot_be_removed_keeps_no_writer_waiting() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    let fault = Arc::new(NoDescriptors(Mutex::new(None)));
    let with_fault = StoreOptions { fault: Some(Arc::clone(&fault) as Arc<dyn FaultInjector>), ..options() };
    let store = TenantStore::open(dir.path(), TENANT, tenant_key(), with_fault).unwrap();
    let op = insert(&store, 20_000, &(0..100).collect::<Vec<_>>());
    commit(&store, vec![Op::CreateTable(items(20_000, "items")), op]);
    for id in 0..2 {
        store.checkpoint(&Blobs).unwrap();
        let op = delete(&store, 20_000, &[id]);
        commit(&store, vec![op]);
    }
    // The deletion vector that the next one replaces.
    *fault.0.lock() = Some("blob.remove");
    let error = store.checkpoint(&Blobs).unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "remove", .. }), "{error}");
    assert_eq!((store.stats().wal_files, store.stats().memory_chunks), (1, 0), "all is flushed");
    *fault.0.lock() = None;
    store.checkpoint(&Blobs).unwrap();
    drop(store);
    assert_eq!(ids(&open(dir.path()), 20_000), (2..100).collect::<Vec<_>>());
}
