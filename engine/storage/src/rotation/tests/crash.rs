//! A crash before any step, of either rotation: every row is there with the keys that there are, and the rotation ends.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::{
    Blobs, ITEMS, Shown, before, both, check_indexes, data_files, made, new_key, none, put, rekeyed, reopen,
    shown, take, with_history,
};
use crate::{
    Fault, FaultInjector, Freely, StoreOptions, TenantStore,
    fixtures::{TENANT, copy},
};

/// Copies the directory before every step.
struct Camera {
    dir: PathBuf,
    images: PathBuf,
    rows: Mutex<Vec<Shown>>,
    taken: Mutex<Vec<(PathBuf, usize, String)>>,
}

impl FaultInjector for Camera {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        let mut taken = self.taken.lock();
        let image = self.images.join(taken.len().to_string());
        copy(&self.dir, &image);
        taken.push((image, self.rows.lock().len(), point.to_owned()));
        Ok(())
    }
}

#[test]
fn a_crash_before_any_step_loses_nothing_and_both_rotations_end() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    std::fs::create_dir(&dir).unwrap();
    drop(made(&dir));
    let images = root.path().join("images");
    let camera =
        Arc::new(Camera { dir: dir.clone(), images, rows: Mutex::default(), taken: Mutex::default() });
    let watched =
        StoreOptions { fault: Some(Arc::clone(&camera) as Arc<dyn FaultInjector>), ..with_history() };
    // As `database` opens it once control has made the new epoch.
    let store = TenantStore::open(&dir, TENANT, both(), watched).unwrap();
    store.release_unheld_log().unwrap();
    let named = before(&store);
    let note = || camera.rows.lock().push(shown(&store.snapshot()));
    note();
    assert_eq!(store.rewrap(both(), &Blobs).unwrap(), none());
    put(&store, ITEMS, &[1_001]);
    note();
    let old = data_files(&dir);
    store.begin_file_rotation(&Blobs).unwrap();
    store.rotate_file_keys(&Blobs, &Freely).unwrap();
    take(&store, ITEMS, &[20]);
    note();
    store.rotate_file_keys(&Blobs, &Freely).unwrap();
    store.checkpoint(&Blobs).unwrap();
    assert!(!rekeyed(&store).running);
    assert!(old.is_disjoint(&data_files(&dir)));
    let rows = camera.rows.lock().clone();
    let taken = std::mem::take(&mut *camera.taken.lock());
    assert!(taken.len() > 60, "{} steps", taken.len());
    for (image, acknowledged, point) in taken {
        let store = reopen(&image, both()).unwrap_or_else(|error| panic!("{point}: {error}"));
        let found = shown(&store.snapshot());
        let at = rows.iter().position(|rows| *rows == found).expect("the rows of some commit");
        assert!(
            (acknowledged.max(1)..=acknowledged + 1).contains(&(at + 1)),
            "{point}: {at} of {acknowledged}"
        );
        assert_eq!(before(&store), named, "{point}");
        assert_eq!(store.rewrap(both(), &Blobs).unwrap(), none(), "{point}");
        let begun = store.file_rotation().unwrap();
        if begun.running {
            assert_eq!(rekeyed(&store).generation, 1, "{point}");
        }
        drop(store);
        let store = reopen(&image, new_key()).unwrap_or_else(|error| panic!("{point}: {error}"));
        assert_eq!(shown(&store.snapshot()), found, "{point}");
        assert_eq!(before(&store), named, "{point}");
        check_indexes(&store.snapshot());
        if begun.running {
            assert!(old.is_disjoint(&data_files(&image)), "{point}");
        }
        drop(store);
        std::fs::remove_dir_all(&image).unwrap();
    }
}
