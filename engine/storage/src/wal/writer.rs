//! The log file that this run appends to.
//!
//! `group` owns it under the writer's lock: append every commit of a group, then [`WalFile::sync`] once. It never
//! appends to a file that it did not create, and never retries a failed sync.

use std::{io, path::PathBuf};

use arrow::buffer::Buffer;
use sepal_crypto::{Key, KeyRing, WRAPPED_KEY_BYTES, random_bytes};
use sepal_types::{FileId, Lsn, TenantId};

use super::{
    FileSpan,
    frame::{FRAME_OVERHEAD_BYTES, FrameKey, MAX_PAYLOAD_BYTES, Place, Tag, room, tag},
    header::{HEADER_BYTES, Header, VERSION},
};
use crate::{
    disk::{Disk, File, PublishError},
    paths::Paths,
    pieces::{self, APART_BYTES, PIECE_BYTES, runs},
    planted::{self, Bug},
};

/// Pieces of a large commit that may be sealed and not yet written.
const AHEAD: usize = 4;

/// Where a new log file begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalStart {
    pub number: u64,
    pub base_lsn: Lsn,
    pub previous_length: u64,
}

impl WalStart {
    /// The file while nothing is in it.
    pub(crate) const fn span(self) -> FileSpan {
        FileSpan { number: self.number, base_lsn: self.base_lsn, bytes: HEADER_BYTES as u64 }
    }
}

/// An open log file.
pub(crate) struct WalFile {
    disk: Disk,
    file: File,
    path: PathBuf,
    number: u64,
    key: FrameKey,
    /// The file's key as the header has it.
    wrapped: Vec<u8>,
    /// Bytes written, and the tag they end with.
    length: u64,
    tag: Tag,
    /// What the last sync made durable: where a failed group is rolled back to.
    synced: (u64, Tag),
    /// Where the last marker ends; the header's end before the first.
    marked: u64,
    out: Vec<u8>,
    scratch: Vec<u8>,
}

impl WalFile {
    /// Creates the file durably. Its header is never torn, because it gets its name when it is complete. From the
    /// rename on its header bounds the previous file, so that one must not grow any more: hence
    /// [`PublishError::Unknown`].
    pub(crate) fn create(
        disk: &Disk,
        paths: &Paths,
        tenant: TenantId,
        keys: &KeyRing,
        start: WalStart,
    ) -> Result<Self, PublishError> {
        let path = paths.wal_file(start.number);
        let header = Header {
            version: VERSION,
            tenant,
            file: FileId(random_bytes()),
            number: start.number,
            base_lsn: start.base_lsn,
            previous_length: start.previous_length,
        };
        let key = Key::random();
        let bytes = header.encode(keys, &key);
        let file = disk.publish("wal-header", &path, &bytes)?;
        let length = HEADER_BYTES as u64;
        let tag = tag(&bytes);
        Ok(Self {
            disk: disk.clone(),
            file,
            path,
            number: start.number,
            key: FrameKey::new(tenant, header.file, key),
            wrapped: bytes[HEADER_BYTES - WRAPPED_KEY_BYTES..].to_vec(),
            length,
            tag,
            synced: (length, tag),
            marked: length,
            out: Vec::new(),
            scratch: Vec::new(),
        })
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether its key is wrapped under the ring's current one.
    pub(crate) fn is_under(&self, keys: &KeyRing) -> bool {
        keys.is_current(&self.wrapped)
    }

    /// Whether nothing was ever written behind its header, or all of it was taken back.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.length == HEADER_BYTES as u64 && self.synced.0 == HEADER_BYTES as u64
    }

    /// Bytes written and durable, header included.
    pub(crate) const fn synced_length(&self) -> u64 {
        self.synced.0
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Seals a commit's payload into frames. They may still be in memory on return.
    pub(crate) fn append(&mut self, lsn: Lsn, parts: &[Buffer]) -> io::Result<()> {
        if parts.iter().map(Buffer::len).sum::<usize>() >= APART_BYTES {
            return self.append_large(lsn, parts);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut seal = self.sealer(lsn);
        let appended = runs(parts, MAX_PAYLOAD_BYTES, &mut scratch, |payload, last| {
            seal.seal(&self.key, payload, last, room(&mut self.out, payload.len()));
            Ok::<(), io::Error>(())
        });
        (self.tag, self.scratch) = (seal.tag, scratch);
        appended?;
        let (from, bytes) = (self.length, self.out.len());
        if bytes >= PIECE_BYTES {
            self.flush()?;
            self.file.start_writeback(from, bytes);
        }
        Ok(())
    }

    /// The same: one frame is sealed while the one before it is written.
    fn append_large(&mut self, lsn: Lsn, parts: &[Buffer]) -> io::Result<()> {
        self.flush()?;
        let mut seal = self.sealer(lsn);
        let Self { disk, file, length, key, scratch, .. } = &mut *self;
        let sealed = pieces::made_and_written(
            AHEAD,
            |pieces| {
                runs(parts, MAX_PAYLOAD_BYTES, scratch, |payload, last| {
                    let frame = pieces.space(payload.len() + FRAME_OVERHEAD_BYTES)?;
                    seal.seal(key, payload, last, frame);
                    Ok(())
                })
            },
            |piece| {
                disk.write_at("wal", file, piece, *length)?;
                file.start_writeback(*length, piece.len());
                *length += piece.len() as u64;
                Ok::<(), io::Error>(())
            },
        );
        self.tag = seal.tag;
        sealed?
    }

    /// Whether something durable has no marker behind it.
    pub(crate) const fn wants_marker(&self) -> bool {
        self.synced.0 > self.marked
    }

    /// Seals a marker behind everything that is durable; [`Self::flush`] and [`Self::sync`] make it count. Whatever
    /// does not open before it is damage from then on, and cannot be taken for a torn write. Call it when all is synced.
    pub(crate) fn append_marker(&mut self, lsn: Lsn) {
        let place = Place::marker(lsn, self.synced.0);
        let offset = self.length + self.out.len() as u64;
        self.tag = self.key.append(place, offset, &self.tag, &[], &mut self.out);
        self.marked = self.length + self.out.len() as u64;
    }

    /// Writes what is still in memory.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.disk.write_at("wal", &self.file, &self.out, self.length)?;
            self.length += self.out.len() as u64;
            self.out.clear();
            // One large commit must not keep its buffer for ever.
            self.out.shrink_to(PIECE_BYTES + MAX_PAYLOAD_BYTES * 2);
        }
        Ok(())
    }

    /// Makes everything that was flushed durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.length != self.synced.0 {
            self.disk.sync("wal", &self.file)?;
            self.synced = (self.length, self.tag);
        }
        Ok(())
    }

    /// Takes back everything since the last sync, durably: a group that hit a full device must not reappear.
    pub(crate) fn roll_back(&mut self) -> io::Result<()> {
        self.out.clear();
        self.scratch.clear();
        (self.length, self.tag) = self.synced;
        if self.marked > self.length {
            // The marker is gone, too: the next one is due.
            self.marked = HEADER_BYTES as u64;
        }
        if planted::is(Bug::FailedGroupKept) {
            return Ok(());
        }
        self.disk.truncate("wal", &self.file, self.length)?;
        self.disk.sync("wal", &self.file)
    }

    /// Of the frames of a commit that follows all that was appended.
    const fn sealer(&self, lsn: Lsn) -> Sealer {
        let offset = self.length + self.out.len() as u64;
        Sealer { lsn, index: 0, synced: self.synced.0, offset, tag: self.tag }
    }
}

/// Where the next frame of a commit stands.
struct Sealer {
    lsn: Lsn,
    index: u32,
    synced: u64,
    /// In the file.
    offset: u64,
    /// What the frame before it ends with.
    tag: Tag,
}

impl Sealer {
    /// `frame` is [`FRAME_OVERHEAD_BYTES`] longer than `payload`.
    fn seal(&mut self, key: &FrameKey, payload: &[u8], last: bool, frame: &mut [u8]) {
        let place = Place { lsn: self.lsn, index: self.index, last, synced: self.synced };
        self.tag = key.seal(place, self.offset, &self.tag, payload, frame);
        self.offset += frame.len() as u64;
        self.index += 1;
    }
}
