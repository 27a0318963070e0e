//! Machine code on disk, one sealed file per component and machine.
//!
//! ```text
//! <folder>/<owner>.<sha256 of the component, 64 hex>-<machine, 16 hex>      mode 0600
//! owner := tenant, 32 hex | "ours"
//! file := seal(machine code), associated with the file's name
//! ```
//! A file that does not open is as good as none: it was written under another key, or by somebody else. The oldest are
//! removed when the folder grows beyond its size, and those of one owner when they take more than its share; reading
//! makes a file young again. Tenants share no file: one that fills its share pushes out its own, and nobody learns from
//! the time it takes what others have uploaded.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use sepal_database::sealing::{self, Aad, Key};

/// The owner of what comes with Sepal.
pub(super) const OURS: &str = "ours";

/// One owner's part of the folder: a quarter.
const SHARE: u64 = 4;

/// Where the code of a component is.
pub(super) fn file_name(owner: &str, hash: &str, machine: &str) -> String {
    format!("{owner}.{hash}-{machine}")
}

/// Seals machine code for one name.
pub trait CodeVault: fmt::Debug + Send + Sync {
    fn seal(&self, name: &str, bytes: &[u8]) -> Vec<u8>;

    /// `None` when it was not sealed here and for this name.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// A key of this node.
#[derive(Debug)]
pub struct KeyVault(Key);

impl KeyVault {
    /// `key` is one derived for this purpose: whoever has it runs code in a worker.
    pub fn new(key: Key) -> Self {
        Self(key)
    }

    fn aad(name: &str) -> Vec<u8> {
        Aad::new("plugin-code 1").text(name).finish()
    }
}

impl CodeVault for KeyVault {
    fn seal(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        sealing::seal(&self.0, &Self::aad(name), bytes)
    }

    fn open(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        sealing::open(&self.0, &Self::aad(name), sealed).ok()
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct CodeCache {
    folder: PathBuf,
    vault: Arc<dyn CodeVault>,
    most_bytes: u64,
}

impl CodeCache {
    /// Room for about fifty of the largest.
    pub const DEFAULT_BYTES: u64 = 2 << 30;

    /// Makes the folder if it is not there.
    pub fn open(folder: impl Into<PathBuf>, vault: Arc<dyn CodeVault>, most_bytes: u64) -> io::Result<Self> {
        let folder = folder.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, vault, most_bytes })
    }

    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(name);
        let sealed = fs::read(&path).ok()?;
        let machine_code = self.vault.open(name, &sealed);
        if machine_code.is_none() {
            tracing::warn!(name, "kept machine code does not open and is made anew");
        }
        if let Ok(file) = fs::File::open(&path) {
            // Only the order of removal hangs on it.
            let _ = file.set_modified(SystemTime::now());
        }
        machine_code
    }

    pub(super) fn put(&self, name: &str, machine_code: &[u8]) -> io::Result<()> {
        let sealed = self.vault.seal(name, machine_code);
        let unfinished = self.folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
        let written =
            write_whole(&unfinished, &sealed).and_then(|()| fs::rename(&unfinished, self.folder.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        self.shrink(name)
    }

    /// Removes the oldest of the owner until its share suffices, then anybody's until the folder fits; never what was
    /// just written.
    fn shrink(&self, newest: &str) -> io::Result<()> {
        let owner = newest.split_once('.').map_or(newest, |(owner, _)| owner);
        let owned = |name: &str| name.split_once('.').is_some_and(|(other, _)| other == owner);
        self.shrink_to(self.most_bytes / SHARE, newest, owned)?;
        self.shrink_to(self.most_bytes, newest, |_| true)
    }

    fn shrink_to(&self, most_bytes: u64, newest: &str, counts: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let facts = entry.metadata()?;
            if facts.is_file() && entry.file_name().to_str().is_some_and(&counts) {
                files.push((facts.modified()?, facts.len(), entry.path()));
            }
        }
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort();
        for (_, bytes, path) in files {
            if total <= most_bytes {
                break;
            }
            if path.file_name().is_some_and(|name| name != newest) {
                fs::remove_file(&path)?;
                total -= bytes;
            }
        }
        Ok(())
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
