//! A key's file: 64 hexadecimal digits and a newline, readable by its owner alone. The root key's, or one that a
//! provider of somebody's own key reads.
//!
//! The root key's is read once at start and `init` makes it, in the data directory unless told otherwise. It
//! belongs outside that directory and its backups: who holds both can read everything; who loses it, and has no
//! recovery key, can read nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sepal_crypto::{Key, hex, unhex};
use zeroize::Zeroizing;

use crate::{KeyFileError, RootKeyError};

const MODE: u32 = 0o600;
const DIGITS: usize = 64;

/// Reads a key. Refuses a file that others may use, before looking at its content.
pub fn read(path: &Path) -> Result<Key, KeyFileError> {
    let text = read_private(path, DIGITS + 1)?;
    decode(&text).ok_or_else(|| KeyFileError::Malformed { path: path.to_owned() })
}

/// Makes a new key and its file (mode 0600), durably. Never overwrites.
pub fn create(path: &Path) -> Result<Key, RootKeyError> {
    let key = Key::random();
    write(path, &key)?;
    Ok(key)
}

/// Writes a key to a file (mode 0600), durably. Never overwrites.
pub(crate) fn write(path: &Path, key: &Key) -> Result<(), RootKeyError> {
    let digits = Zeroizing::new(hex(key.expose()));
    // With room for all of it: a text that grows leaves its bytes where it was.
    let mut text = Zeroizing::new(String::with_capacity(DIGITS + 1));
    text.push_str(&digits);
    text.push('\n');
    write_private(path, text.as_bytes())
}

/// The content of a file that only this process' user may read. One that is longer than `most` bytes comes with one
/// byte more than that.
pub(crate) fn read_private(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    // The open file is judged, not the path: nobody can exchange it in between.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & !MODE != 0 {
        return Err(KeyFileError::ModeTooWide { path: path.to_owned(), mode });
    }
    let user = effective_user();
    if metadata.uid() != user {
        return Err(KeyFileError::WrongOwner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mut content = Zeroizing::new(vec![0; most + 1]);
    let length = read_up_to(&mut file, &mut content).map_err(unreadable)?;
    content.truncate(length);
    Ok(content)
}

/// A new file of mode 0600, durable with its name. Never overwrites.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), RootKeyError> {
    let unwritable = |source| RootKeyError::Unwritable { path: path.to_owned(), source };
    let opened = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => RootKeyError::Exists { path: path.to_owned() },
        _ => unwritable(source),
    })?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(unwritable)?;
    sync_parent(path)
}

/// Makes what happened to names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), RootKeyError> {
    File::open(parent(path))
        .and_then(|directory| directory.sync_all())
        .map_err(|source| RootKeyError::Unwritable { path: path.to_owned(), source })
}

/// Removes a key's file, if it is there, and overwrites what it held.
pub(crate) fn remove(path: &Path) -> Result<(), RootKeyError> {
    let leaving = Leaving::of(path);
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(RootKeyError::Unwritable { path: path.to_owned(), source });
        }
        _ => {}
    }
    leaving.overwrite();
    Ok(())
}

/// Puts `from` in the place of `path`, whose bytes are overwritten. The name is not durable yet.
pub(crate) fn replace(from: &Path, path: &Path) -> std::io::Result<()> {
    let leaving = Leaving::of(path);
    fs::rename(from, path)?;
    leaving.overwrite();
    Ok(())
}

/// A key's file that is about to lose its name, and its bytes with it.
struct Leaving {
    path: PathBuf,
    file: Option<File>,
}

impl Leaving {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), file: OpenOptions::new().write(true).open(path).ok() }
    }

    /// Once the name is gone. A file that has another name stays as it is: somebody keeps it on purpose. File systems
    /// that write elsewhere, and flash, may have older blocks still.
    fn overwrite(self) {
        let Some(mut file) = self.file else { return };
        let overwritten = file.metadata().and_then(|metadata| {
            if metadata.nlink() > 0 {
                return Ok(());
            }
            let zeros = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
            file.write_all(&zeros)?;
            file.sync_all()
        });
        if let Err(error) = overwritten {
            tracing::warn!(%error, path = %self.path.display(), "what a key's file held was not overwritten");
        }
    }
}

fn decode(text: &[u8]) -> Option<Key> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() != DIGITS {
        return None;
    }
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(unhex(digits)?.as_slice().try_into().ok()?);
    Some(Key::from_bytes(*bytes))
}

/// Fills `buffer` as far as the file reaches; a full buffer means that the file is too long.
fn read_up_to(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The directory of a path, which a new name in it must be synced with.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn effective_user() -> u32 {
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (POSIX).
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests;
