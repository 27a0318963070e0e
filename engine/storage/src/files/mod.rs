//! The file system that a store lives on: what [`crate::StoreOptions::files`] takes.
//!
//! `disk` is the only caller; it decides what is synced and when. [`LocalFiles`] is the machine's own. The simulation
//! puts in one that forgets what was not synced. Nothing here retries, and nothing here knows a format.

mod local;

use std::{fmt, io, path::Path, sync::Arc};

pub use local::LocalFiles;

/// Files and directories by path. Every call may block.
pub trait Files: Send + Sync {
    /// A new file, for its owner alone, to be read and written.
    ///
    /// Errors: `AlreadyExists`.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// An existing file, to be read.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// An existing file, to be read and written.
    fn open_writable(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// An existing directory. Only [`FileHandle::sync`] is asked of it: it makes the names in it durable.
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// A file's length in bytes, without opening it.
    fn length(&self, path: &Path) -> io::Result<u64>;

    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    fn is_directory(&self, path: &Path) -> bool;

    /// Durable only when the directory above was synced.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes the place of a file of that name. Durable only when the directory was synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Durable only when the directory was synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait FileHandle: Send + Sync {
    /// Errors: `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// May write a part before it fails.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Content and length are durable on return. After an error nobody knows what is: never call it again.
    fn sync(&self) -> io::Result<()>;

    fn truncate(&self, length: u64) -> io::Result<()>;

    fn length(&self) -> io::Result<u64>;

    /// Advice to begin writing a range to the medium. Errors surface in the next [`Self::sync`].
    fn start_writeback(&self, offset: u64, length: usize);
}

impl fmt::Debug for dyn FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileHandle")
    }
}
