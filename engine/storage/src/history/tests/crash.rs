//! A crash before any step of names, clones and the collection of garbage: the head and all that is kept of the past.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use sepal_types::{Lsn, TableId};

use super::{
    AsOf, COPY, Hands, HistoryPolicy, ITEMS, MINUTE, at, clone_from, copy_def, made, put, reopened, shown,
    take, with,
};
use crate::{
    Fault, FaultInjector, NoBlobs, Op, Snapshot, StoreError, StoreOptions, TenantStore,
    fixtures::{TENANT, commit, copy, tenant_key},
};

type Shown = BTreeMap<String, BTreeMap<i64, String>>;

/// A commit and what there was after it. No snapshot: that would keep files.
type Moment = (Lsn, Shown);

/// What was acknowledged so far: commits, and whether the name was given and taken back.
#[derive(Clone, Default)]
struct Known {
    commits: Vec<Moment>,
    named: Option<Shown>,
    unnamed: bool,
}

/// Copies the directory before every step.
struct Camera {
    dir: PathBuf,
    images: PathBuf,
    known: Mutex<Known>,
    taken: Mutex<Vec<(PathBuf, Known, String)>>,
}

impl FaultInjector for Camera {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        let mut taken = self.taken.lock();
        let image = self.images.join(taken.len().to_string());
        copy(&self.dir, &image);
        taken.push((image, self.known.lock().clone(), point.to_owned()));
        Ok(())
    }
}

const KEPT: HistoryPolicy = HistoryPolicy { keep_us: 4 * MINUTE, keep_versions: 3, max_bytes: 1 << 30 };

/// How many commits there were when the name was taken back.
const UNNAMED_AFTER: usize = 8;

fn moment(snapshot: &Snapshot) -> Moment {
    (snapshot.lsn(), shown(snapshot))
}

fn before() -> AsOf {
    AsOf::Named { environment: "default".into(), name: "before".into() }
}

/// Three tables that share segments and go, a name, versions that pass.
fn life(store: &TenantStore, clock: &Hands, camera: &Camera) {
    let note = |snapshot: Snapshot| {
        clock.minutes(1);
        camera.known.lock().commits.push(moment(&snapshot));
    };
    note(put(store, ITEMS, &[1, 2, 3, 4, 5, 6, 7, 8]));
    store.checkpoint(&NoBlobs).unwrap();
    note(take(store, ITEMS, &[3]));
    note(clone_from(store, &store.snapshot(), copy_def("copy")));
    store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap();
    camera.known.lock().named = Some(shown(&store.snapshot()));
    note(commit(store, vec![Op::DropTable(ITEMS)]));
    note(put(store, COPY, &[3, 9]));
    store.checkpoint(&NoBlobs).unwrap();
    let third = TableId(20_200);
    let ops = store.clone_ops(
        &store.snapshot_as_of(&before()).unwrap(),
        ITEMS,
        crate::fixtures::items(20_200, "third"),
    );
    note(commit(store, ops.unwrap()));
    note(commit(store, vec![Op::DropTable(COPY)]));
    store.checkpoint(&NoBlobs).unwrap();
    store.drop_snapshot("default", "before").unwrap();
    camera.known.lock().unnamed = true;
    note(take(store, third, &[1]));
    store.checkpoint(&NoBlobs).unwrap();
    note(take(store, third, &[2]));
    store.forget_history().unwrap();
}

#[test]
fn a_crash_before_any_step_keeps_the_past_that_is_left() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    std::fs::create_dir(&dir).unwrap();
    let clock = Hands::new();
    drop(made(&dir, with(&clock, KEPT)));
    let camera = Arc::new(Camera {
        dir: dir.clone(),
        images: root.path().join("images"),
        known: Mutex::default(),
        taken: Mutex::default(),
    });
    let watched =
        StoreOptions { fault: Some(Arc::clone(&camera) as Arc<dyn FaultInjector>), ..with(&clock, KEPT) };
    let store = TenantStore::open(&dir, TENANT, tenant_key(), watched).unwrap();
    store.release_unheld_log().unwrap();
    camera.known.lock().commits.push(moment(&store.snapshot()));
    life(&store, &clock, &camera);
    let all = camera.known.lock().commits.clone();
    let taken = std::mem::take(&mut *camera.taken.lock());
    assert!(taken.len() > 80, "{} steps", taken.len());
    for (image, known, point) in taken {
        check(&image, &clock, &known, &all, &point);
        std::fs::remove_dir_all(&image).unwrap();
    }
}

fn check(image: &std::path::Path, clock: &Arc<Hands>, known: &Known, all: &[Moment], point: &str) {
    for round in 0..2 {
        let store = reopened(image, with(clock, KEPT));
        let head = store.snapshot();
        // Of the commit that was being written either outcome is right.
        let index = all.iter().position(|(lsn, _)| *lsn == head.lsn()).expect("a known commit");
        let acknowledged = known.commits.len().max(1);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&(index + 1)),
            "{point}: {index} of {acknowledged}"
        );
        assert_eq!(moment(&head), all[index], "{point}");
        let oldest = store.history().oldest_lsn;
        for (lsn, expected) in &all[..index] {
            match store.snapshot_as_of(&at(lsn.0)) {
                Ok(found) => assert_eq!(shown(&found), *expected, "{point}: {lsn}"),
                Err(StoreError::NoSuchPast { .. }) => assert!(*lsn < oldest, "{point}"),
                Err(error) => panic!("{point}: {error}"),
            }
        }
        match (store.snapshot_as_of(&before()), &known.named) {
            (Ok(_), Some(_)) if known.unnamed => panic!("{point}: the name came back"),
            (Ok(found), Some(named)) => assert_eq!(shown(&found), *named, "{point}"),
            (Ok(found), None) => assert_eq!(found.lsn(), head.lsn(), "{point}: it was being named"),
            (Err(StoreError::NoSuchSnapshot { .. }), None) => {}
            (Err(StoreError::NoSuchSnapshot { .. }), Some(_)) => {
                assert!(known.commits.len() >= UNNAMED_AFTER, "{point}: the name is gone");
            }
            (Err(error), _) => panic!("{point}: {error}"),
        }
        if round == 0 {
            store.checkpoint(&NoBlobs).unwrap();
        }
    }
}
