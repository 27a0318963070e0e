//! The socket's path. Unix socket addresses end at 107 bytes, data directories do not: a longer path is
//! reached through the directory's open descriptor.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// `sizeof(sun_path)` on Linux, less the closing zero.
const MAX_ADDRESS_BYTES: usize = 107;
/// The longest name used beside the socket (`admin.sock.new-<pid>`).
const MAX_NAME_BYTES: usize = 32;

/// A directory as a socket address may name it. Valid as long as this value lives.
pub struct SocketDir {
    path: PathBuf,
    _directory: Option<File>,
}

impl SocketDir {
    pub fn open(directory: &Path) -> io::Result<Self> {
        if directory.as_os_str().len() + 1 + MAX_NAME_BYTES <= MAX_ADDRESS_BYTES {
            return Ok(Self { path: directory.to_path_buf(), _directory: None });
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(directory)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Self { path, _directory: Some(file) })
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The socket's name in the data directory.
pub const NAME: &str = "admin.sock";
