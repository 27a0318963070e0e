//! Room on disk for what a tenant's queries put aside: how much of it, how many files, and clearing up.
//!
//! `query` hands DataFusion files from here ([`SpillSpace::create`]) when a sort, an aggregate or a join does not fit
//! into memory. A file has no name from its creation on and a key that is nowhere but in memory ([`SpillFile`]), so a
//! crash leaves neither bytes that open nor, where the file system can make files without a name, any bytes at all.
//! Nothing here is durable, synced, or part of the store: it does not go through `disk`.
//!
//! ```text
//! <tenant>/spill/          made when first needed, emptied when the tenant is opened
//! ```

mod file;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use sepal_types::{Error, SqlState};

use crate::{
    StoreError,
    files::{device_bytes, reserve_bytes},
    paths::show,
};

pub use file::{SpillFile, SpillSink};

/// Spill files of one tenant that are open at once. Each holds a descriptor until its query is done with it.
const MOST_FILES: usize = 256;

/// A tenant's queries look at the device once they have written so much more: a file that had room when it was made may
/// grow to gigabytes.
const LOOK_BYTES: u64 = 64 << 20;

/// Bytes of the device of a path that are free for us, and all of them.
type Device = fn(&Path) -> io::Result<(u64, u64)>;

/// Files that all tenants may have open at once.
#[derive(Debug)]
pub struct SpillFiles {
    most: usize,
    open: AtomicUsize,
}

impl SpillFiles {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: AtomicUsize::new(0) })
    }

    /// Files open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Why nothing more can be put aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpillError {
    #[error(
        "temporary files of this tenant hold {used} bytes and would need {more} more; the limit is {limit}"
    )]
    TenantFull { used: u64, more: u64, limit: u64 },
    #[error("{open} temporary files are open; the limit is {most}")]
    TooManyFiles { open: usize, most: usize },
    #[error("{free} bytes of the device are free, and {reserve} are kept for what is durable")]
    DeviceLow { free: u64, reserve: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SpillError> for Error {
    fn from(error: SpillError) -> Self {
        let detail = format!("It does not fit into memory, and {error}.");
        match error {
            SpillError::TenantFull { .. } => Error::new(SqlState::OutOfMemory, "out of memory")
                .with_detail(detail)
                .with_hint("Add a LIMIT or a filter, or raise the server's setting tenant_spill_mib."),
            SpillError::TooManyFiles { .. } => Error::new(SqlState::OutOfMemory, "out of memory")
                .with_detail(detail)
                .with_hint("Add a LIMIT or a filter, or raise the server's setting tenant_query_mib."),
            SpillError::DeviceLow { .. } => {
                Error::new(SqlState::DiskFull, "no room on the device for a temporary file")
                    .with_detail(detail)
                    .with_hint("Add a LIMIT or a filter, or make room on the device.")
            }
            SpillError::Store(error) => error.into(),
        }
    }
}

/// One tenant's room. Shared by its queries and their files.
#[derive(Debug)]
pub struct SpillSpace {
    directory: PathBuf,
    limit_bytes: u64,
    used_bytes: AtomicU64,
    written_bytes: AtomicU64,
    files: AtomicUsize,
    process: Arc<SpillFiles>,
    device: Device,
}

impl SpillSpace {
    /// Empties the tenant's spill directory. `limit_bytes`: what its files may hold at once; 0: queries do not spill.
    pub fn open(tenant: &Path, limit_bytes: u64, process: Arc<SpillFiles>) -> Result<Arc<Self>, StoreError> {
        Self::on(device_bytes, tenant, limit_bytes, process)
    }

    fn on(
        device: Device,
        tenant: &Path,
        limit_bytes: u64,
        process: Arc<SpillFiles>,
    ) -> Result<Arc<Self>, StoreError> {
        let directory = tenant.join("spill");
        clear(&directory)?;
        Ok(Arc::new(Self {
            directory,
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            files: AtomicUsize::new(0),
            process,
            device,
        }))
    }

    /// Bytes that files hold now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes written since the tenant was opened.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// A new file, sealed under a key of its own.
    pub fn create(self: &Arc<Self>) -> Result<Arc<SpillFile>, SpillError> {
        self.check_device()?;
        let seat = FileSeat::take(self)?;
        let file = self.make_directory().and_then(|()| file::unnamed(&self.directory));
        let file = file.map_err(|error| StoreError::io("create", &self.shown(), &error))?;
        Ok(SpillFile::new(file, seat))
    }

    fn make_directory(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn shown(&self) -> String {
        format!("a temporary file in {}", show(&self.directory))
    }

    /// Errors: less than the reserve is free. A device whose state is not told is not asked again.
    fn check_device(&self) -> Result<(), SpillError> {
        let parent = self.directory.parent().unwrap_or(&self.directory);
        let Ok((free, total)) = (self.device)(parent) else { return Ok(()) };
        let reserve = reserve_bytes(total);
        if free < reserve {
            return Err(SpillError::DeviceLow { free, reserve });
        }
        Ok(())
    }

    fn grow(&self, more: u64) -> Result<(), SpillError> {
        let fits = |used: u64| used.checked_add(more).filter(|sum| *sum <= self.limit_bytes);
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|used| SpillError::TenantFull { used, more, limit: self.limit_bytes })?;
        let before = self.written_bytes.fetch_add(more, Ordering::Relaxed);
        if before / LOOK_BYTES != (before + more) / LOOK_BYTES {
            self.check_device().inspect_err(|_| self.shrink(more))?;
        }
        Ok(())
    }

    fn shrink(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for SpillSpace {
    fn drop(&mut self) {
        // It is empty unless the file system cannot make files without a name and a removal failed; either way the
        // next opening clears it.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// A file's share of the limits, returned on drop.
#[derive(Debug)]
struct FileSeat {
    space: Arc<SpillSpace>,
    bytes: AtomicU64,
}

impl FileSeat {
    fn take(space: &Arc<SpillSpace>) -> Result<Self, SpillError> {
        take_one(&space.files, MOST_FILES)?;
        if let Err(error) = take_one(&space.process.open, space.process.most) {
            space.files.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        Ok(Self { space: Arc::clone(space), bytes: AtomicU64::new(0) })
    }

    fn grow(&self, more: u64) -> Result<(), SpillError> {
        self.space.grow(more)?;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for FileSeat {
    fn drop(&mut self) {
        self.space.shrink(*self.bytes.get_mut());
        self.space.files.fetch_sub(1, Ordering::Relaxed);
        self.space.process.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take_one(open: &AtomicUsize, most: usize) -> Result<(), SpillError> {
    open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < most).then_some(open + 1))
        .map(drop)
        .map_err(|open| SpillError::TooManyFiles { open, most })
}

/// Removes what a crash left.
fn clear(directory: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", &show(directory), &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
