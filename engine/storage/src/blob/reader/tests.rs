//! Pieces of every place and size, and what of a damaged blob comes out.

use sepal_types::{FileId, TableId};

use super::*;
use crate::{
    blob::{Blob, BlobBytes, Owner},
    fixtures::{TENANT, keys},
    paths::{DataKind, Paths},
};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position % 249) as u8).collect()
}

/// A blob in a store's directory.
fn written(dir: &Path, plain: &dyn BlobBytes) -> (Blob, PathBuf) {
    let paths = Paths::new(dir);
    std::fs::create_dir_all(paths.segments()).unwrap();
    let owner = Owner { tenant: TENANT, table: TableId(20_000), segment: FileId([5; 16]) };
    let blob = Blob::write(&Disk::default(), &paths, &keys(), owner, DataKind::Index, plain).unwrap();
    let path = paths.data(DataKind::Index, blob.entry().file);
    (blob, path)
}

#[test]
fn pieces_are_parts_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    // Enough for two threads, and a last chunk that is not full.
    let plain = pattern(11 * CHUNK_BYTES + 777);
    let (blob, _) = written(dir.path(), &plain);
    let reader = blob.reader(&Disk::default()).unwrap();
    assert_eq!(reader.length(), plain.len());
    let (chunk, end) = (CHUNK_BYTES, plain.len());
    for (start, stop) in [
        (0, end),
        (0, 24),
        (24, 28),
        (5, chunk),
        (chunk, 2 * chunk),
        (chunk - 1, 10 * chunk + 1),
        (11 * chunk, end),
        (end - 1, end),
        (end, end),
    ] {
        let mut piece = vec![0; stop - start];
        reader.read(start, &mut piece).unwrap();
        assert!(piece == plain[start..stop], "{start}..{stop}");
    }
    assert!(matches!(reader.read(end, &mut [0]), Err(StoreError::Bug(_))));
    assert!(matches!(reader.read(usize::MAX, &mut [0, 0]), Err(StoreError::Bug(_))));
    assert!(blob.open(&Disk::default()).unwrap() == plain);
}

#[test]
fn damage_is_told_by_whoever_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let plain = pattern(9 * CHUNK_BYTES);
    let (blob, path) = written(dir.path(), &plain);
    let mut sealed = std::fs::read(&path).unwrap();
    // In the fifth chunk.
    sealed[HEADER_BYTES + 4 * (CHUNK_BYTES + 16) + 100] ^= 1;
    std::fs::write(&path, &sealed).unwrap();
    let reader = blob.reader(&Disk::default()).unwrap();
    let mut piece = vec![0; 4 * CHUNK_BYTES];
    reader.read(0, &mut piece).unwrap();
    assert!(piece == plain[..4 * CHUNK_BYTES], "what comes before is sound");
    for range in [0..plain.len(), 4 * CHUNK_BYTES + 1..4 * CHUNK_BYTES + 2] {
        let read = reader.read(range.start, &mut vec![0; range.len()]);
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{range:?}");
    }
    assert!(matches!(blob.open(&Disk::default()), Err(StoreError::Corrupt { .. })));
    sealed.pop();
    std::fs::write(&path, &sealed).unwrap();
    assert!(matches!(blob.reader(&Disk::default()), Err(StoreError::Corrupt { .. })));
}

#[test]
fn an_empty_blob_is_authenticated() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, path) = written(dir.path(), &[]);
    assert!(blob.open(&Disk::default()).unwrap().is_empty());
    let mut sealed = std::fs::read(&path).unwrap();
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
    }
    std::fs::write(&path, &sealed).unwrap();
    assert!(matches!(blob.open(&Disk::default()), Err(StoreError::Corrupt { .. })));
}
