//! One temporary file: written from front to back, read from any chunk on, also while it still grows.
//!
//! The file holds sealed chunks and nothing else; where each begins is in memory. A chunk is as large as
//! [`CHUNK_BYTES`], or smaller where the writer flushed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use sepal_crypto::{SCRATCH_OVERHEAD_BYTES, ScratchOpener, ScratchSealer, random_bytes, scratch};
use sepal_types::Error;

use super::{FileSeat, SpillError};
use crate::StoreError;

/// Plaintext bytes of a full chunk: what a reader holds at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A temporary file. Its room is given back when the last handle is gone.
pub struct SpillFile {
    file: File,
    seat: FileSeat,
    opener: ScratchOpener,
    written: Mutex<Written>,
}

struct Written {
    sealer: ScratchSealer,
    /// Where each chunk ends.
    ends: Vec<u64>,
}

impl SpillFile {
    pub(super) fn new(file: File, seat: FileSeat) -> Arc<Self> {
        let (sealer, opener) = scratch();
        Arc::new(Self { file, seat, opener, written: Mutex::new(Written { sealer, ends: Vec::new() }) })
    }

    /// Sealed bytes so far.
    pub fn bytes(&self) -> u64 {
        self.written.lock().ends.last().copied().unwrap_or(0)
    }

    /// Appends to the file.
    pub fn writer(self: &Arc<Self>) -> SpillSink {
        SpillSink { file: Arc::clone(self), gathered: Vec::new(), sealed: Vec::new() }
    }

    /// A chunk's plaintext; `None` when fewer were written so far. Blocking.
    pub fn read(&self, chunk: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let (start, end) = {
            let written = self.written.lock();
            let Some(end) = written.ends.get(chunk) else { return Ok(None) };
            (chunk.checked_sub(1).map_or(0, |before| written.ends[before]), *end)
        };
        let length = usize::try_from(end - start).map_err(|_| damaged("a chunk of more than memory"))?;
        let mut sealed = vec![0; length];
        self.file.read_exact_at(&mut sealed, start).map_err(|error| StoreError::io("read", SHOWN, &error))?;
        self.opener.open(chunk as u64, &sealed).map(Some).map_err(|error| damaged(error.to_string()))
    }

    fn append(&self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), SpillError> {
        self.seat.grow((plain.len() + SCRATCH_OVERHEAD_BYTES) as u64)?;
        sealed.clear();
        let mut written = self.written.lock();
        written.sealer.seal(plain, sealed);
        let start = written.ends.last().copied().unwrap_or(0);
        self.file.write_all_at(sealed, start).map_err(|error| StoreError::io("write", SHOWN, &error))?;
        written.ends.push(start + sealed.len() as u64);
        Ok(())
    }
}

impl std::fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillFile").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// Gathers a chunk, seals it, writes it. What is not flushed is lost.
///
/// A failed write carries our [`Error`] inside the [`io::Error`].
#[derive(Debug)]
pub struct SpillSink {
    file: Arc<SpillFile>,
    gathered: Vec<u8>,
    sealed: Vec<u8>,
}

impl SpillSink {
    /// Flushes and gives the buffers back.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.gathered = Vec::new();
        self.sealed = Vec::new();
        Ok(())
    }
}

impl Write for SpillSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..taken]);
        if self.gathered.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let appended = self.file.append(&self.gathered, &mut self.sealed);
        self.gathered.clear();
        appended.map_err(|error| io::Error::other(Error::from(error)))
    }
}

/// Temporary files have no name to tell.
const SHOWN: &str = "a temporary file";

fn damaged(why: impl Into<String>) -> StoreError {
    StoreError::corrupt(SHOWN, why)
}

/// A file without a name. Where the file system cannot make one, it has a name for a moment.
pub(super) fn unnamed(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE | libc::O_EXCL).open(directory) {
        Err(error) if cannot_be_unnamed(&error) => {
            let name = u128::from_be_bytes(random_bytes());
            let path = directory.join(format!("{name:032x}.spill"));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// What open(2) says of file systems without O_TMPFILE, and kernels.
fn cannot_be_unnamed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL))
}
