//! The file system that a store lives on: what [`crate::StoreOptions::files`] takes.
//!
//! `disk` is the only caller; it decides what is synced and when. [`LocalFiles`] is the machine's own. The simulation
//! puts in one that forgets what was not synced. Nothing here retries, and nothing here knows a format.

mod local;

use std::{fmt, io, path::Path, sync::Arc};

pub use local::LocalFiles;
pub(crate) use local::device_bytes;

/// Bytes of a device that are left to what must be written: commits, and the flushes that they wait for. What can be
/// done later, or fail alone, leaves them free.
pub(crate) const RESERVE_BYTES: u64 = 1 << 30;

/// The same of a device with so many bytes in all: a twentieth of a small one.
pub(crate) const fn reserve_bytes(total: u64) -> u64 {
    if total / 20 < RESERVE_BYTES { total / 20 } else { RESERVE_BYTES }
}

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

    /// Bytes of the path's device that are free for us, and all of them.
    ///
    /// Errors: `Unsupported` where nobody can tell.
    fn device(&self, _path: &Path) -> io::Result<(u64, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
