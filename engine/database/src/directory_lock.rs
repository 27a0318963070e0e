//! One process per data directory: an advisory lock on `<data>/lock`, held as long as the file is open.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sepal_types::{Error, Result, SqlState};

/// The lock goes when this is dropped, or when the process dies.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    path: PathBuf,
}

impl DirectoryLock {
    /// Errors: 55006 when another process has it.
    pub fn take(data: &Path) -> Result<Self> {
        let path = data.join("lock");
        let failed = |problem: std::io::Error| {
            Error::new(SqlState::IoError, format!("cannot lock {}: {problem}", path.display()))
        };
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = std::fs::read_to_string(&path).unwrap_or_default();
                return Err(Error::new(
                    SqlState::ObjectInUse,
                    format!("the data directory {} is in use by process {}", data.display(), owner.trim()),
                )
                .with_hint("Stop that process first, or name another directory with --data."));
            }
            Err(TryLockError::Error(problem)) => return Err(failed(problem)),
        }
        Ok(Self { file, path })
    }

    /// Writes our process id for others to read. Only once the directory was opened: a refused start changes
    /// nothing.
    pub fn announce(&mut self) -> Result<()> {
        let failed = |problem: std::io::Error| {
            Error::new(SqlState::IoError, format!("cannot write {}: {problem}", self.path.display()))
        };
        self.file.set_len(0).map_err(failed)?;
        self.file.rewind().map_err(failed)?;
        writeln!(self.file, "{}", std::process::id()).map_err(failed)
    }
}
