//! Makes what was replayed durable, before anything is built on it.
//!
//! Called once by `store::open`, and by a repair, before a new file's header says how far the last one is valid. A process that was
//! killed may have left its last group in the page cache only: recovery reads it, sessions see it, and a power cut
//! would take it away again, from under a successor that vouches for it. After an fdatasync that failed it is worse:
//! the kernel calls the pages clean and a second one would write nothing. So the bytes are written again, as they
//! are, and then synced. What a crash tears meanwhile was never acknowledged.

use std::{ops::Range, path::Path};

use crate::{
    StoreError,
    disk::{Disk, File, io_error},
    paths::Paths,
};

const STEP_BYTES: u64 = 8 << 20;

/// `tail`: of the log file `number`, the bytes of which it is not known that they are durable.
pub(crate) fn settle(disk: &Disk, paths: &Paths, number: u64, tail: Range<u64>) -> Result<(), StoreError> {
    if tail.is_empty() {
        return Ok(());
    }
    let Range { start: from, end: to } = tail;
    let path = paths.wal_file(number);
    let file = disk.open_writable(&path)?;
    let mut offset = from;
    while offset < to {
        let end = to.min(offset + STEP_BYTES);
        rewrite(disk, &path, &file, offset, end - offset)?;
        offset = end;
    }
    disk.sync("wal", &file).map_err(|error| io_error("sync", &path, &error))
}

fn rewrite(disk: &Disk, path: &Path, file: &File, offset: u64, length: u64) -> Result<(), StoreError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).map_err(|error| io_error("read", path, &error))?;
    disk.write_at("wal", file, &bytes, offset).map_err(|error| io_error("write", path, &error))
}
