//! A sealed file written once: a vector index's bytes for a segment, or a segment's deletion vector.
//!
//! Checkpoints and `attach_index` write them, chunks and `open` read them. The bytes inside are opaque here.
//!
//! ```text
//! file := sepal_crypto::stream blob     under the file's own key, which the manifest holds wrapped
//!         context = {format, tenant, table, owner (segment), file}
//! ```

mod reader;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use sepal_crypto::{Aad, Key, KeyRing, stream::BlobSealer};
use sepal_types::{FileId, TableId, TenantId};

use crate::{
    StoreError,
    disk::{Disk, io_error},
    manifest::BlobEntry,
    paths::{DataKind, Paths, file_key_aad, show},
};

pub use reader::BlobReader;

/// Bytes to be sealed, which may be made as they are written: a large index need not be in memory twice.
pub trait BlobBytes {
    /// How many there are.
    fn length(&self) -> u64;

    /// Writes so many. Errors: those of `out`.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()>;
}

impl BlobBytes for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self)
    }
}

impl<const N: usize> BlobBytes for [u8; N] {
    fn length(&self) -> u64 {
        N as u64
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self)
    }
}

/// A sealed file with its key unwrapped.
#[derive(Clone)]
pub(crate) struct Blob {
    kind: DataKind,
    path: PathBuf,
    key: Key,
    context: Vec<u8>,
    bytes: u64,
    entry: BlobEntry,
}

/// Which tenant, table and segment a sealed file belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub tenant: TenantId,
    pub table: TableId,
    pub segment: FileId,
}

impl Blob {
    /// Seals and writes. Durable except for its name: sync the directory before a manifest names it.
    pub(crate) fn write(
        disk: &Disk,
        paths: &Paths,
        keys: &KeyRing,
        owner: Owner,
        kind: DataKind,
        plain: &dyn BlobBytes,
    ) -> Result<Self, StoreError> {
        Self::write_as(disk.file_id(), disk, paths, keys, owner, kind, plain)
    }

    /// The same under an id that was chosen, and announced, before.
    pub(crate) fn write_as(
        file: FileId,
        disk: &Disk,
        paths: &Paths,
        keys: &KeyRing,
        owner: Owner,
        kind: DataKind,
        plain: &dyn BlobBytes,
    ) -> Result<Self, StoreError> {
        let key = Key::random();
        let context = context(kind, owner, file);
        let path = paths.data(kind, file);
        let mut stream = disk.stream("blob", &path)?;
        let written = BlobSealer::new(&key, &context, plain.length(), &mut stream)
            .and_then(|mut sealer| plain.write_to(&mut sealer).and_then(|()| sealer.finish().map(|_| ())))
            .map_err(|error| io_error("write", &path, &error))
            .and_then(|()| stream.finish());
        if written.is_err() {
            disk.discard("blob", &path);
        }
        let bytes = written?;
        let wrapped = keys.wrap(&file_key_aad(kind, owner.tenant, owner.table, file), &key);
        let entry = BlobEntry { file, bytes, key: wrapped };
        Ok(Self { kind, path, key, context, bytes, entry })
    }

    /// What a manifest says is there. Checks the key and the length, reads nothing.
    pub(crate) fn named(
        disk: &Disk,
        paths: &Paths,
        keys: &KeyRing,
        owner: Owner,
        kind: DataKind,
        entry: &BlobEntry,
    ) -> Result<Self, StoreError> {
        let path = paths.data(kind, entry.file);
        let aad = file_key_aad(kind, owner.tenant, owner.table, entry.file);
        let key = keys.unwrap(&aad, &entry.key).map_err(|error| StoreError::sealed(&show(&path), error))?;
        check_length(disk, &path, entry.bytes)?;
        let context = context(kind, owner, entry.file);
        Ok(Self { kind, path, key, context, bytes: entry.bytes, entry: entry.clone() })
    }

    /// Reads and opens the whole file.
    pub(crate) fn open(&self, disk: &Disk) -> Result<Vec<u8>, StoreError> {
        let reader = self.reader(disk)?;
        let mut plain = vec![0; reader.length()];
        reader.read(0, &mut plain)?;
        Ok(plain)
    }

    /// Opens the file to be read in pieces. It stays readable when it is removed meanwhile.
    pub(crate) fn reader(&self, disk: &Disk) -> Result<BlobReader, StoreError> {
        BlobReader::open(disk, &self.path, self.entry.file, &self.key, &self.context, self.bytes)
    }

    pub(crate) const fn entry(&self) -> &BlobEntry {
        &self.entry
    }

    /// Its key, wrapped under the ring's current one. `owner` is the blob's.
    pub(crate) fn wrapped(&self, keys: &KeyRing, owner: Owner) -> Vec<u8> {
        if keys.is_current(&self.entry.key) {
            return self.entry.key.clone();
        }
        keys.wrap(&file_key_aad(self.kind, owner.tenant, owner.table, self.entry.file), &self.key)
    }

    pub(crate) const fn kind(&self) -> DataKind {
        self.kind
    }

    pub(crate) fn discard(&self, disk: &Disk) {
        disk.discard("blob", &self.path);
    }
}

/// A file of another length than the manifest says is refused before a byte of it is read.
pub(crate) fn check_length(disk: &Disk, path: &std::path::Path, expected: u64) -> Result<(), StoreError> {
    let found = disk.length(path)?;
    if found == expected { Ok(()) } else { Err(wrong_length(path, expected, found)) }
}

pub(crate) fn wrong_length(path: &std::path::Path, expected: u64, found: u64) -> StoreError {
    StoreError::corrupt(&show(path), format!("{found} bytes, the manifest says {expected}"))
}

fn context(kind: DataKind, owner: Owner, file: FileId) -> Vec<u8> {
    Aad::new(kind.format()).tenant(owner.tenant).table(owner.table).file(owner.segment).file(file).finish()
}
