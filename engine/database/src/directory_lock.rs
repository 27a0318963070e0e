//! One process per data directory: an advisory lock on `<data>/lock`, held as long as the file is open.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use sepal_types::{Error, Result, SqlState};

/// The lock goes when this is dropped, or when the process dies.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Errors: 55006 when another process has it.
    pub fn take(data: &Path) -> Result<Self> {
        let path = data.join("lock");
        let failed = |problem: std::io::Error| {
            Error::new(SqlState::IoError, format!("cannot lock {}: {problem}", path.display()))
        };
        let mut file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
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
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
