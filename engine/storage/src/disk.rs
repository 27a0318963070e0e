//! Writing files so that they survive a power cut, and the place where tests make that fail.
//!
//! Every byte that this crate writes goes through [`Disk`]. It writes, calls fdatasync, renames and syncs the
//! directory, in that order; it never retries a failed fsync, because the kernel may have dropped the pages that
//! it failed to write and would call the second attempt a success.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_types::FileId;

use crate::{
    Random, StoreError, SystemRandom,
    files::{FileHandle, Files, LocalFiles},
    paths::show,
    planted::{self, Bug},
};

/// A file that is open.
pub(crate) type File = Arc<dyn FileHandle>;

/// What a test makes of a step.
#[derive(Debug)]
pub struct Fault {
    pub error: io::Error,
    /// How many bytes of a write still reach the file before it fails.
    pub written: usize,
}

/// Called before every step that changes the disk. Production passes none.
///
/// Points are named `<what>.<step>`: `wal`, `wal-header`, `manifest`, `segment`, `blob`, `directory` with `write`,
/// `create`, `sync`, `truncate`, `rename`, `open_directory`, `sync_directory`, `remove`.
pub trait FaultInjector: Send + Sync {
    /// `Err` makes the step fail; `bytes` is the size of a write, 0 otherwise.
    fn before(&self, point: &str, bytes: usize) -> Result<(), Fault>;
}

/// How [`Disk::publish`] failed.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// The file does not exist.
    Before(StoreError),
    /// The file may or may not exist after a restart: the store must stop before it contradicts one of the two.
    Unknown(StoreError),
}

/// For whoever has nothing left to take back.
impl From<PublishError> for StoreError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Before(error) | PublishError::Unknown(error) => error,
        }
    }
}

/// A directory that is open, to be synced after a step. It is opened before that step: a process that has run out of
/// descriptors then fails while nothing has happened yet, and not between the step and its sync.
pub(crate) struct Directory {
    file: File,
    path: PathBuf,
}

/// The file system with an optional saboteur.
#[derive(Clone)]
pub(crate) struct Disk {
    files: Arc<dyn Files>,
    random: Arc<dyn Random>,
    fault: Option<Arc<dyn FaultInjector>>,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new(Arc::new(LocalFiles), Arc::new(SystemRandom), None)
    }
}

impl Disk {
    pub(crate) fn new(
        files: Arc<dyn Files>,
        random: Arc<dyn Random>,
        fault: Option<Arc<dyn FaultInjector>>,
    ) -> Self {
        Self { files, random, fault }
    }

    /// Files as they are, for whoever makes none of a store's.
    pub(crate) fn on(files: &Arc<dyn Files>) -> Self {
        Self::new(Arc::clone(files), Arc::new(SystemRandom), None)
    }

    /// A name for a new data file.
    pub(crate) fn file_id(&self) -> FileId {
        FileId(self.random.bytes())
    }

    /// An existing file, for reading.
    pub(crate) fn open(&self, path: &Path) -> Result<File, StoreError> {
        self.files.open(path).map_err(|error| read_error(path, &error))
    }

    /// An existing file, to write again what is in it.
    pub(crate) fn open_writable(&self, path: &Path) -> Result<File, StoreError> {
        self.files.open_writable(path).map_err(|error| read_error(path, &error))
    }

    /// A whole file of at most so many bytes. Nothing vouches for its length yet: a longer one is damage, and costs no
    /// memory.
    pub(crate) fn read(&self, path: &Path, most: usize) -> Result<Vec<u8>, StoreError> {
        let file = self.open(path)?;
        let found = file.length().map_err(|error| io_error("read", path, &error))?;
        let length = usize::try_from(found).ok().filter(|length| *length <= most);
        let too_long = || format!("it has {found} bytes, a sound one has at most {most}");
        let length = length.ok_or_else(|| StoreError::corrupt(&show(path), too_long()))?;
        let mut bytes = Vec::new();
        // An allocation that fails otherwise ends the process, and with it every other tenant's sessions.
        bytes
            .try_reserve_exact(length)
            .map_err(|_| io_error("read", path, &io::Error::from(io::ErrorKind::OutOfMemory)))?;
        bytes.resize(length, 0);
        file.read_exact_at(&mut bytes, 0).map_err(|error| io_error("read", path, &error))?;
        Ok(bytes)
    }

    /// A file's length, without opening it.
    pub(crate) fn length(&self, path: &Path) -> Result<u64, StoreError> {
        self.files.length(path).map_err(|error| read_error(path, &error))
    }

    /// The names in a directory, sorted.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<String>, StoreError> {
        let mut names = self.files.list(path).map_err(|error| read_error(path, &error))?;
        names.sort();
        Ok(names)
    }

    /// Bytes of the path's device that are free for us, and all of them; `None` where nobody can tell.
    pub(crate) fn device(&self, path: &Path) -> Option<(u64, u64)> {
        self.files.device(path).ok()
    }

    /// Creates the directory and its parents durably: each new name is synced in the directory above it.
    pub(crate) fn create_directory(&self, path: &Path) -> Result<(), StoreError> {
        if self.files.is_directory(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_directory(parent)?;
        }
        self.reach("directory.create", 0)
            .and_then(|()| self.files.create_directory(path))
            .map_err(|error| io_error("create", path, &error))?;
        match path.parent() {
            Some(parent) => self.sync_directory("directory", &self.open_directory("directory", parent)?),
            None => Ok(()),
        }
    }

    /// A new file, readable by the owner only. Fails if it exists.
    pub(crate) fn create(&self, what: &str, path: &Path) -> Result<File, StoreError> {
        self.reach(&format!("{what}.create"), 0)
            .and_then(|()| self.files.create(path))
            .map_err(|error| io_error("create", path, &error))
    }

    pub(crate) fn write_at(&self, what: &str, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(fault) = &self.fault
            && let Err(fault) = fault.before(&format!("{what}.write"), bytes.len())
        {
            file.write_all_at(&bytes[..fault.written.min(bytes.len())], offset)?;
            return Err(fault.error);
        }
        file.write_all_at(bytes, offset)
    }

    pub(crate) fn sync(&self, what: &str, file: &File) -> io::Result<()> {
        self.reach(&format!("{what}.sync"), 0)?;
        if what == "wal" && planted::is(Bug::LogNotSynced) {
            return Ok(());
        }
        match file.sync() {
            Err(_) if planted::is(Bug::FailedSyncRetried) => file.sync(),
            synced => synced,
        }
    }

    pub(crate) fn truncate(&self, what: &str, file: &File, length: u64) -> io::Result<()> {
        self.reach(&format!("{what}.truncate"), 0)?;
        file.truncate(length)
    }

    /// Changes nothing: a failure may be tried again, as one of [`Self::sync_directory`] may not.
    pub(crate) fn open_directory(&self, what: &str, path: &Path) -> Result<Directory, StoreError> {
        self.reach(&format!("{what}.open_directory"), 0)
            .and_then(|()| self.files.open_directory(path))
            .map(|file| Directory { file, path: path.to_owned() })
            .map_err(|error| io_error("open", path, &error))
    }

    pub(crate) fn sync_directory(&self, what: &str, directory: &Directory) -> Result<(), StoreError> {
        if planted::is(Bug::DirectoryNotSynced) {
            return Ok(());
        }
        self.reach(&format!("{what}.sync_directory"), 0)
            .and_then(|()| directory.file.sync())
            .map_err(|error| io_error("sync", &directory.path, &error))
    }

    /// Makes a file appear whole or not at all: written beside, made durable, renamed, name made durable. The file
    /// stays open for more.
    pub(crate) fn publish(
        &self,
        what: &'static str,
        path: &Path,
        bytes: &[u8],
    ) -> Result<File, PublishError> {
        let directory = path.parent().unwrap_or(path);
        let directory = self.open_directory(what, directory).map_err(PublishError::Before)?;
        let beside = path.with_extension("tmp");
        // One from an attempt that failed before its rename may lie there.
        self.remove(what, &beside).map_err(PublishError::Before)?;
        let file = self.write_new(what, &beside, bytes).map_err(PublishError::Before)?;
        self.reach(&format!("{what}.rename"), 0)
            .and_then(|()| self.files.rename(&beside, path))
            .map_err(|error| PublishError::Unknown(io_error("rename", &beside, &error)))?;
        self.sync_directory(what, &directory).map_err(PublishError::Unknown)?;
        Ok(file)
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, what: &str, path: &Path) -> Result<(), StoreError> {
        match self.reach(&format!("{what}.remove"), 0).and_then(|()| self.files.remove(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, &error)),
            _ => Ok(()),
        }
    }

    /// Moves a file to another directory, durably. A crash leaves it in one of the two, or in both.
    pub(crate) fn relocate(&self, what: &str, from: &Path, to: &Path) -> Result<(), StoreError> {
        let [source, target] =
            [from, to].map(|path| self.open_directory(what, path.parent().unwrap_or(path)));
        let (source, target) = (source?, target?);
        self.reach(&format!("{what}.rename"), 0)
            .and_then(|()| self.files.rename(from, to))
            .map_err(|error| io_error("rename", from, &error))?;
        self.sync_directory(what, &target)?;
        self.sync_directory(what, &source)
    }

    /// Copies a file durably, in pieces.
    pub(crate) fn copy(&self, what: &'static str, from: &Path, to: &Path) -> Result<(), StoreError> {
        let (source, mut target) = (self.open(from)?, self.stream(what, to)?);
        let length = source.length().map_err(|error| io_error("read", from, &error))?;
        let mut piece = vec![0; BUFFER_BYTES];
        let mut offset = 0;
        while offset < length {
            let bytes = usize::try_from(length - offset).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            source
                .read_exact_at(&mut piece[..bytes], offset)
                .map_err(|error| io_error("read", from, &error))?;
            target.put(&piece[..bytes]).map_err(|error| io_error("write", to, &error))?;
            offset += bytes as u64;
        }
        target.finish()?;
        self.sync_directory(what, &self.open_directory(what, to.parent().unwrap_or(to))?)
    }

    /// Writes a new file and makes its bytes durable. Its name is durable only after [`Self::sync_directory`].
    /// A file that could not be finished is removed again, to give back its room.
    pub(crate) fn write_new(
        &self,
        what: &'static str,
        path: &Path,
        bytes: &[u8],
    ) -> Result<File, StoreError> {
        let mut file = self.stream(what, path)?;
        let written = file
            .put(bytes)
            .map_err(|error| io_error("write", path, &error))
            .and_then(|()| file.finish_open());
        if written.is_err() {
            self.discard(what, path);
        }
        written.map(|(file, _)| file)
    }

    /// A new file to stream into: in pieces ([`NewFile::put`]), or through a buffer of 1 MiB.
    pub(crate) fn stream(&self, what: &'static str, path: &Path) -> Result<NewFile, StoreError> {
        let file = self.create(what, path)?;
        Ok(NewFile { disk: self.clone(), what, file, path: path.to_owned(), length: 0, buffer: Vec::new() })
    }

    /// Removes a half-made file. Its failure is logged only: the error that led here matters more, and what stays
    /// behind is removed when the store is next opened.
    pub(crate) fn discard(&self, what: &str, path: &Path) {
        if let Err(error) = self.remove(what, path) {
            tracing::warn!(%error, "an unfinished file stays until the store is opened again");
        }
    }

    fn reach(&self, point: &str, bytes: usize) -> io::Result<()> {
        match &self.fault {
            Some(fault) => fault.before(point, bytes).map_err(|fault| fault.error),
            None => Ok(()),
        }
    }
}

const BUFFER_BYTES: usize = 1 << 20;

/// A file being written from front to back.
pub(crate) struct NewFile {
    disk: Disk,
    what: &'static str,
    file: File,
    path: PathBuf,
    length: u64,
    buffer: Vec<u8>,
}

impl NewFile {
    /// Writes a piece as it is, without another copy.
    pub(crate) fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.append(piece)
    }

    /// Flushes, syncs, and gives the file's length.
    pub(crate) fn finish(self) -> Result<u64, StoreError> {
        self.finish_open().map(|(_, length)| length)
    }

    /// Makes what was written so far durable. Not to be tried again when it fails.
    pub(crate) fn sync_so_far(&mut self) -> io::Result<()> {
        self.flush()?;
        self.disk.sync(self.what, &self.file)
    }

    /// The medium begins with a large piece at once, while the next one is made.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(self.what, &self.file, bytes, self.length)?;
        if bytes.len() >= BUFFER_BYTES / 2 {
            self.file.start_writeback(self.length, bytes.len());
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn finish_open(mut self) -> Result<(File, u64), StoreError> {
        self.flush()
            .and_then(|()| self.disk.sync(self.what, &self.file))
            .map_err(|error| io_error("write", &self.path, &error))?;
        Ok((self.file, self.length))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.append(bytes)?;
        } else {
            // Once for all: whoever writes pieces needs none.
            self.buffer.reserve_exact(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.append(&buffer);
        if written.is_ok() {
            buffer.clear();
        }
        self.buffer = buffer;
        written
    }
}

/// Why a file is damaged that is not there.
pub(crate) const MISSING: &str = "the file is missing";

/// A file that should be there and is not is damage, not a failed read.
pub(crate) fn read_error(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::corrupt(&show(path), MISSING),
        _ => io_error("read", path, error),
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::io(action, &show(path), error)
}
