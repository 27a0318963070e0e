//! Writes that were taken back or torn, and files that were changed, cut or removed.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sepal_types::Lsn;

use super::{captured, drain, follow, is_gone, logs, lsns, open_held, put, with_captured};
use crate::{
    Fault, FaultInjector, NoBlobs, Op, StoreError, StoreOptions, TenantStore,
    fixtures::{TENANT, commit, copy, insert, options, tenant_key},
};

/// Fails one write of the log for want of room, after a part of it.
struct Full(AtomicBool);

impl FaultInjector for Full {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        if point == "wal.write" && self.0.swap(false, Ordering::SeqCst) {
            return Err(Fault { error: io::Error::from_raw_os_error(libc::ENOSPC), written: 60 });
        }
        Ok(())
    }
}

#[test]
fn what_was_never_acknowledged_is_never_given() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(Full(AtomicBool::new(false)));
    let with_fault = StoreOptions { fault: Some(Arc::clone(&full) as Arc<dyn FaultInjector>), ..options() };
    let store = TenantStore::create(dir.path(), TENANT, tenant_key(), with_fault).unwrap();
    commit(&store, vec![Op::CreateTable(captured())]);
    let (hold, mut reader) = follow(&store, 1);
    full.0.store(true, Ordering::SeqCst);
    store.commit(&store.snapshot(), vec![insert(&store, 20_000, &[1])]).unwrap_err();
    assert_eq!(reader.next().unwrap(), None);
    put(&store, &[2]);
    let found = drain(&mut reader);
    assert!(matches!(&found[..], [commit] if commit.lsn == Lsn(2)), "{found:?}");

    // A group that a crash tore: behind what is durable now, and before the next file later.
    let file = logs(dir.path()).remove(0);
    let mut log = std::fs::File::options().append(true).open(file).unwrap();
    log.write_all(&[7; 500]).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    drop((hold, reader, store));
    let store = open_held(dir.path());
    put(&store, &[3]);
    let (_hold, mut reader) = follow(&store, 1);
    assert_eq!(lsns(&drain(&mut reader)), [2, 3]);
}

#[test]
fn damage_to_a_held_file_is_told_and_stops_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let hold = store.hold_log(Lsn(0)).unwrap();
    for id in 0..3 {
        put(&store, &[id]);
        store.checkpoint(&NoBlobs).unwrap();
    }
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let held = logs(dir.path());
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 3] = [
        ("flipped", &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 9;
            bytes[last] ^= 4;
            std::fs::write(path, bytes).unwrap();
        }),
        ("cut", &|path| std::fs::File::options().write(true).open(path).unwrap().set_len(170).unwrap()),
        ("removed", &|path| std::fs::remove_file(path).unwrap()),
    ];
    drop((hold, store));
    for (what, damage) in damages {
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let store = open_held(image.path());
        let (_hold, mut reader) = follow(&store, 0);
        damage(&image.path().join("wal").join(name(&held[1])));
        let error = loop {
            match reader.next() {
                Ok(Some(commit)) => assert!(commit.lsn < Lsn(3), "{what}"),
                Ok(None) => panic!("{what} is not noticed"),
                Err(error) => break error,
            }
        };
        let named = matches!(&error, StoreError::Corrupt { file, .. } if file.ends_with(&name(&held[1])));
        assert!(named, "{what}: {error}");
        assert_eq!(reader.next().unwrap_err(), error, "{what}: nothing is passed over");
        put(&store, &[50]);
    }
    // One that is unreadable from the start: the store does not need it.
    let mut bytes = std::fs::read(&held[1]).unwrap();
    bytes[100] ^= 4;
    std::fs::write(&held[1], bytes).unwrap();
    let store = open_held(dir.path());
    assert!(matches!(store.hold_log(Lsn(1)), Err(StoreError::Corrupt { .. })));
    assert_eq!(drain(&mut follow(&store, 3).1).len(), 1);
    store.release_unheld_log().unwrap();
    assert!(is_gone(store.hold_log(Lsn(1))));
}
