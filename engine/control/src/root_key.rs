//! The root key's file: 64 hexadecimal digits and a newline, readable by its owner alone.
//!
//! The process reads it once at start and `init` makes it, in the data directory unless told otherwise. It
//! belongs outside that directory and its backups: who holds both can read everything; who loses it can read
//! nothing.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sepal_crypto::Key;
use zeroize::Zeroizing;

use crate::RootKeyError;

const MODE: u32 = 0o600;
const DIGITS: usize = 64;

/// Reads the root key. Refuses a file that others may use, before looking at its content.
pub fn read(path: &Path) -> Result<Key, RootKeyError> {
    let unreadable = |source| RootKeyError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    // The open file is judged, not the path: nobody can exchange it in between.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(RootKeyError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & !MODE != 0 {
        return Err(RootKeyError::ModeTooWide { path: path.to_owned(), mode });
    }
    let user = effective_user();
    if metadata.uid() != user {
        return Err(RootKeyError::WrongOwner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mut text = Zeroizing::new([0; DIGITS + 2]);
    let length = read_up_to(&mut file, text.as_mut_slice()).map_err(unreadable)?;
    decode(&text[..length]).ok_or_else(|| RootKeyError::Malformed { path: path.to_owned() })
}

/// Makes a new root key and its file (mode 0600), durably. Never overwrites.
pub fn create(path: &Path) -> Result<Key, RootKeyError> {
    let unwritable = |source| RootKeyError::Unwritable { path: path.to_owned(), source };
    let opened = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => RootKeyError::Exists { path: path.to_owned() },
        _ => unwritable(source),
    })?;
    let key = Key::random();
    let mut text = Zeroizing::new(String::with_capacity(DIGITS + 1));
    for byte in key.expose() {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
    }
    text.push('\n');
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    File::open(parent(path)).and_then(|directory| directory.sync_all()).map_err(unwritable)?;
    Ok(key)
}

fn decode(text: &[u8]) -> Option<Key> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() != DIGITS {
        return None;
    }
    let mut bytes = Zeroizing::new([0u8; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
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
