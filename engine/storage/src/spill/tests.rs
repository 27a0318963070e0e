//! Temporary files: what is on disk, what the limits refuse, and what a crash leaves.

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use sepal_types::Error;

use super::{SpillError, SpillFile, SpillFiles, SpillSpace};
use crate::files::RESERVE_BYTES;

const CANARY: &[u8] = b"canary-5f0c-in-a-temporary-file";

fn space(limit: u64) -> (tempfile::TempDir, Arc<SpillSpace>) {
    let directory = tempfile::tempdir().unwrap();
    let space = SpillSpace::open(directory.path(), limit, SpillFiles::new(8)).unwrap();
    (directory, space)
}

fn read_all(file: &SpillFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in 0.. {
        match file.read(chunk).unwrap() {
            Some(plain) => bytes.extend(plain),
            None => return bytes,
        }
    }
    unreachable!("a file ends")
}

/// The raw bytes behind every descriptor of this process that is a file without a name.
fn unnamed_files() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        let Ok(target) = std::fs::read_link(&path) else { continue };
        if target.to_string_lossy().ends_with("(deleted)")
            && let Ok(bytes) = std::fs::read(&path)
        {
            found.push(bytes);
        }
    }
    found
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_file_has_no_name_and_its_bytes_are_sealed() {
    let (directory, space) = space(16 << 20);
    let file = space.create().unwrap();
    let mut sink = file.writer();
    for _ in 0..40_000 {
        sink.write_all(CANARY).unwrap();
    }
    sink.finish().unwrap();
    assert_eq!(read_all(&file), CANARY.repeat(40_000));
    let names: Vec<_> = std::fs::read_dir(directory.path().join("spill")).unwrap().collect();
    assert!(names.is_empty(), "{names:?}");
    let raw = unnamed_files();
    assert!(raw.iter().any(|bytes| bytes.len() as u64 == file.bytes()), "the file is looked at");
    assert!(raw.iter().all(|bytes| !holds(bytes, CANARY)));
    assert_eq!(space.used_bytes(), file.bytes());
    drop((file, sink));
    assert_eq!(space.used_bytes(), 0);
    drop(space);
    assert!(!directory.path().join("spill").exists());
}

#[test]
fn what_was_flushed_can_be_read_while_the_file_grows() {
    let (_directory, space) = space(1 << 20);
    let file = space.create().unwrap();
    let mut sink = file.writer();
    sink.write_all(b"one").unwrap();
    assert_eq!(file.read(0).unwrap(), None);
    sink.flush().unwrap();
    assert_eq!(file.read(0).unwrap().unwrap(), b"one");
    sink.write_all(b"two").unwrap();
    sink.finish().unwrap();
    assert_eq!(file.read(1).unwrap().unwrap(), b"two");
    assert_eq!(file.read(2).unwrap(), None);
}

#[test]
fn limits_refuse_and_give_back() {
    let (_directory, space) = space(100);
    let file = space.create().unwrap();
    let mut sink = file.writer();
    sink.write_all(&[7; 90]).unwrap();
    let full = sink.flush().unwrap_err();
    let told = full.into_inner().unwrap().downcast::<Error>().unwrap();
    assert_eq!(told.state().code(), "53200");
    assert!(told.hint().unwrap().contains("tenant_spill_mib"), "{told:?}");
    assert_eq!(space.used_bytes(), 0, "what was refused is nobody's charge");
    sink.write_all(&[7; 80]).unwrap();
    sink.flush().unwrap();
    assert_eq!(space.used_bytes(), 96);
    let held: Vec<_> = (1..8).map(|_| space.create().unwrap()).collect();
    assert_eq!(space.create().unwrap_err(), SpillError::TooManyFiles { open: 8, most: 8 });
    drop(held);
    space.create().unwrap();
}

/// A file that was made while there was room.
#[test]
fn a_file_does_not_grow_into_what_is_kept_for_the_durable() {
    static FREE: AtomicU64 = AtomicU64::new(u64::MAX);
    let device: super::Device = |_: &Path| Ok((FREE.load(Ordering::SeqCst), u64::MAX));
    let directory = tempfile::tempdir().unwrap();
    let space = SpillSpace::on(device, directory.path(), u64::MAX, SpillFiles::new(8)).unwrap();
    let file = space.create().unwrap();
    let mut sink = file.writer();
    let mut put = || sink.write_all(&[7; 100]).and_then(|()| sink.flush());
    put().unwrap();
    FREE.store(RESERVE_BYTES - 1, Ordering::SeqCst);
    put().unwrap();
    let used = space.used_bytes();
    space.written_bytes.store(super::LOOK_BYTES - 1, Ordering::Relaxed);
    let refused = put().unwrap_err();
    let told = refused.into_inner().unwrap().downcast::<Error>().unwrap();
    assert_eq!(told.state().code(), "53100");
    assert_eq!(space.used_bytes(), used, "what was refused is nobody's charge");
}

#[test]
fn what_a_crash_left_is_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join("spill").join("0123.spill");
    std::fs::create_dir(left.parent().unwrap()).unwrap();
    std::fs::write(&left, b"left").unwrap();
    let _space = SpillSpace::open(directory.path(), 1 << 20, SpillFiles::new(8)).unwrap();
    assert!(!left.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_written_comes_back(
        pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..70_000), any::<bool>()), 0..12)
    ) {
        let (_directory, space) = space(64 << 20);
        let file = space.create().unwrap();
        let mut sink = file.writer();
        let mut expected = Vec::new();
        for (piece, flush) in &pieces {
            sink.write_all(piece).unwrap();
            expected.extend_from_slice(piece);
            if *flush {
                sink.flush().unwrap();
            }
        }
        sink.finish().unwrap();
        prop_assert_eq!(read_all(&file), expected);
    }
}
