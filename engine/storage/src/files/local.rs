//! The machine's file system.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    mem::MaybeUninit,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, OpenOptionsExt},
        },
    },
    path::Path,
    sync::Arc,
};

use super::{FileHandle, Files};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl Files for LocalFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let file = OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(LocalFile(File::open(path)?)))
    }

    fn open_writable(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(LocalFile(OpenOptions::new().write(true).read(true).open(path)?)))
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(LocalDirectory(File::open(path)?)))
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(path)?;
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn device(&self, path: &Path) -> io::Result<(u64, u64)> {
        device_bytes(path)
    }
}

/// Bytes of the path's device that are free for us, and all of them.
pub(crate) fn device_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a NUL and `found` is a live `statvfs`, which the call fills.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid `statvfs`, a plain struct of integers, and the call has filled it.
    let found = unsafe { found.assume_init() };
    Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

struct LocalFile(File);

impl FileHandle for LocalFile {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn start_writeback(&self, offset: u64, length: usize) {
        let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
        // SAFETY: the descriptor is open for as long as `self.0` is borrowed; the call takes no pointer.
        unsafe { libc::sync_file_range(self.0.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    }
}

/// A directory: all that is asked of it is a sync of everything, for its entries are not its data.
struct LocalDirectory(File);

impl FileHandle for LocalDirectory {
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::IsADirectory.into())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::IsADirectory.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::IsADirectory.into())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn start_writeback(&self, _: u64, _: usize) {}
}
