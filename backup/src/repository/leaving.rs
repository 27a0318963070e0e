//! A file of keys that is about to lose its name, and its bytes with it: a dropped tenant's keys are not to be found in
//! blocks that the file system has given back. `directory` calls it, before and after.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::CHUNK_BYTES;
use crate::names;

/// See the module.
pub(super) struct Leaving {
    path: PathBuf,
    /// `None`: there is none, or nothing in it is a key.
    file: Option<File>,
}

impl Leaving {
    /// The file of an object, while it has its name.
    pub(super) fn of(name: &str, path: &Path) -> Self {
        let file = if names::holds_keys(name) {
            OpenOptions::new()
                .write(true)
                .open(path)
                .inspect_err(|error| {
                    if error.kind() != ErrorKind::NotFound {
                        not_overwritten(path, error);
                    }
                })
                .ok()
        } else {
            None
        };
        Self { path: path.to_owned(), file }
    }

    /// Whether there was a file of keys.
    pub(super) fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// Once the name is gone, durably. A file that has another name stays as it is: somebody keeps it on purpose. File
    /// systems that write elsewhere, and flash, may have older blocks still. What was stored or removed is so, so a
    /// failure is told and not returned.
    pub(super) fn overwrite(self) {
        let Some(file) = self.file else { return };
        if let Err(error) = zero(file) {
            not_overwritten(&self.path, &error);
        }
    }
}

fn zero(mut file: File) -> io::Result<()> {
    let facts = file.metadata()?;
    if facts.nlink() > 0 {
        return Ok(());
    }
    let zeros = vec![0; CHUNK_BYTES];
    let mut left = facts.len();
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        file.write_all(&zeros[..take])?;
        left -= take as u64;
    }
    file.sync_all()
}

fn not_overwritten(path: &Path, error: &io::Error) {
    tracing::warn!(%error, path = %path.display(), "what a file of keys held was not overwritten");
}
