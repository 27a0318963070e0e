//! A sealed blob in pieces, straight to where they are wanted.
//!
//! Chunks hand it out; `query` opens vector indexes from it. Of a large piece every chunk is read and opened by one of
//! two threads, so that half a gigabyte is there in the time that one of them takes for half of it, and nothing of it
//! is in memory twice. What a caller gets is authentic; all of the blob is only once all of it was read.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
};

use parking_lot::Mutex;
use sepal_crypto::{
    Key, OpenError,
    stream::{BlobOpener, CHUNK_BYTES, HEADER_BYTES},
};
use sepal_types::FileId;

use super::wrong_length;
use crate::{
    StoreError,
    disk::{Disk, File, io_error},
    paths::show,
};

/// Whole chunks of a piece from which on a second thread is worth its start.
const SHARED_CHUNKS: usize = 8;

/// A sealed file that is open.
pub struct BlobReader {
    file: File,
    path: PathBuf,
    id: FileId,
    opener: BlobOpener,
    /// The next small piece is of the same chunk as the last, most likely.
    recent: Mutex<Recent>,
}

/// A chunk of which a part was read last, and room to read the next into.
#[derive(Default)]
struct Recent {
    /// `None`: `plain` holds nothing.
    index: Option<usize>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

/// A chunk, and where it goes.
type Whole<'a> = (usize, &'a mut [u8]);

impl BlobReader {
    /// Errors: [`StoreError::Corrupt`] for a file that is not `bytes` long, or whose header is not of this key.
    pub(super) fn open(
        disk: &Disk,
        path: &Path,
        id: FileId,
        key: &Key,
        context: &[u8],
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let file = disk.open(path)?;
        let failed = |error: std::io::Error| io_error("read", path, &error);
        let refused = |error: OpenError| StoreError::sealed(&show(path), error);
        let found = file.length().map_err(failed)?;
        if found != bytes {
            return Err(wrong_length(path, bytes, found));
        }
        let length = usize::try_from(found)
            .map_err(|_| StoreError::corrupt(&show(path), "it is larger than memory"))?;
        if length < HEADER_BYTES {
            return Err(refused(OpenError::TooShort { length, minimum: HEADER_BYTES }));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let opener = BlobOpener::new(key, context, &header, length).map_err(refused)?;
        let reader = Self { file, path: path.to_owned(), id, opener, recent: Mutex::default() };
        if reader.length() == 0 {
            // Nobody reads of it, but its header has to be authentic.
            reader.open_chunk(0, &mut [], &mut Vec::new())?;
        }
        Ok(reader)
    }

    /// Which file it is; no other ever has its id.
    pub fn file(&self) -> FileId {
        self.id
    }

    /// Bytes of the plaintext.
    pub fn length(&self) -> usize {
        self.opener.length()
    }

    /// Fills `into` from an offset on.
    ///
    /// Errors: [`StoreError::Corrupt`] for bytes that are not authentic, then `into` may hold anything;
    /// [`StoreError::Bug`] for a piece that ends behind the blob.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), StoreError> {
        if offset.checked_add(into.len()).is_none_or(|end| end > self.length()) {
            let why = format!("{} bytes at {offset} of a blob of {}", into.len(), self.length());
            return Err(StoreError::Bug(why));
        }
        let mut wholes: Vec<Whole<'_>> = Vec::with_capacity(into.len() / CHUNK_BYTES);
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let (index, skipped) = (at / CHUNK_BYTES, at % CHUNK_BYTES);
            let wanted = rest.len().min(self.opener.chunk_bytes(index) - skipped);
            let (piece, later) = std::mem::take(&mut rest).split_at_mut(wanted);
            if wanted == self.opener.chunk_bytes(index) {
                wholes.push((index, piece));
            } else {
                self.read_part(index, skipped..skipped + wanted, piece)?;
            }
            (at, rest) = (at + wanted, later);
        }
        self.read_whole(wholes)
    }

    fn read_whole(&self, wholes: Vec<Whole<'_>>) -> Result<(), StoreError> {
        let shared = wholes.len() >= SHARED_CHUNKS;
        let (chunks, failure) = (Mutex::new(wholes.into_iter()), OnceLock::new());
        let work = || {
            let mut sealed = Vec::new();
            while failure.get().is_none() {
                // Its own statement, so that the lock is not held while opening.
                let next = chunks.lock().next();
                let Some((index, piece)) = next else { return };
                if let Err(error) = self.open_chunk(index, piece, &mut sealed) {
                    // The first one is told.
                    let _ = failure.set(error);
                }
            }
        };
        if shared {
            thread::scope(|scope| {
                // Without it the reading only takes longer.
                let _ = thread::Builder::new().name("sepal-blob".to_owned()).spawn_scoped(scope, work);
                work();
            });
        } else {
            work();
        }
        failure.into_inner().map_or(Ok(()), Err)
    }

    /// A part of a chunk. One thread at a time: who reads much reads whole chunks.
    fn read_part(&self, index: usize, part: Range<usize>, into: &mut [u8]) -> Result<(), StoreError> {
        let mut recent = self.recent.lock();
        let Recent { index: held, plain, sealed } = &mut *recent;
        if *held != Some(index) {
            *held = None;
            plain.resize(self.opener.chunk_bytes(index), 0);
            self.open_chunk(index, plain, sealed)?;
            *held = Some(index);
        }
        into.copy_from_slice(&plain[part]);
        Ok(())
    }

    /// `sealed` is room for a chunk as it lies in the file.
    fn open_chunk(&self, index: usize, plain: &mut [u8], sealed: &mut Vec<u8>) -> Result<(), StoreError> {
        let place = self.opener.place(index);
        sealed.resize(place.len(), 0);
        self.file
            .read_exact_at(sealed, place.start as u64)
            .map_err(|error| io_error("read", &self.path, &error))?;
        self.opener.open(index, sealed, plain).map_err(|error| StoreError::sealed(&show(&self.path), error))
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("length", &self.length()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
