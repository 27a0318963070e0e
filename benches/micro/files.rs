//! Directories on a real file system, for what is measured with its fsyncs.
//!
//! Below cargo's target directory and not below `/tmp`, which may be memory. All of them go in the end, also those
//! that a static still holds.

use std::{fs, path::PathBuf, sync::OnceLock};

use tempfile::TempDir;

/// The one that all others are in.
static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Where directories are made: `SEPAL_BENCH_DIR`, or cargo's directory for such.
pub fn place() -> PathBuf {
    std::env::var_os("SEPAL_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}

/// A new directory, removed with its guard.
pub fn directory() -> TempDir {
    let root = ROOT.get_or_init(|| {
        let made = tempfile::Builder::new().prefix("sepal-micro-").tempdir_in(place());
        made.expect("SEPAL_BENCH_DIR is a directory that can be written").keep()
    });
    tempfile::tempdir_in(root).expect("a directory in one of our own")
}

/// Removes whatever [`directory`] made.
pub fn remove() {
    if let Some(root) = ROOT.get()
        && let Err(error) = fs::remove_dir_all(root)
    {
        eprintln!("{} is left over: {error}", root.display());
    }
}
