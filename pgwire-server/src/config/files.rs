//! Files whose permissions matter, written so that they never exist with wider ones.
//!
//! Used by `certificates`, `cli::init` and `cli::dev`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Writes a file that must not exist yet, durably. `mode` is what it is created with.
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| naming(path, &error))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| naming(path, &error))
}

/// Replaces a file in one step: readers see the old or the new content, never half of it.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    // A leftover of a killed process that had our id.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(naming(&temporary, &error)),
        _ => {}
    }
    write_new(&temporary, content, mode)?;
    fs::rename(&temporary, path).map_err(|error| naming(path, &error))
}

/// Creates a directory (and its parents) that only its owner may enter. An existing one is left as it is.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| naming(path, &error))
}

/// The permission bits, `0o600` for a private file.
pub fn mode(path: &Path) -> io::Result<u32> {
    let metadata = fs::metadata(path).map_err(|error| naming(path, &error))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// The same error, saying which file.
fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
