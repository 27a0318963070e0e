//! A log file as its readers see it: opened with its key, and stepped through commit by commit.
//!
//! `recover` reads every file of a log once, the feed reads on while the last one grows. What it means that a frame
//! does not open they decide: here nothing is judged, and no file is changed.

use std::{io, path::PathBuf};

use arrow::buffer::{Buffer, MutableBuffer};
use sepal_crypto::KeyRing;
use sepal_types::{FileId, Lsn, TenantId};

use super::{
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKey, Place, Tag, tag},
    header::{HEADER_BYTES, Header},
};
use crate::{
    StoreError,
    disk::{Disk, File, io_error},
    paths::{Paths, show},
};

/// Whose log it is, and where.
#[derive(Clone, Copy)]
pub(crate) struct Log<'a> {
    pub disk: &'a Disk,
    pub paths: &'a Paths,
    pub tenant: TenantId,
    pub keys: &'a KeyRing,
}

/// A log file whose header opened.
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
    pub(super) name: String,
    /// When it was opened.
    pub(super) length: u64,
    pub(super) header: Header,
    pub(super) key: FrameKey,
    /// The tag that the first frame is bound to.
    tag: Tag,
}

/// A place between two frames of a file, with the frames so far of a commit that is not whole yet.
pub(crate) struct Cursor {
    offset: u64,
    previous: Tag,
    /// Where the last whole commit ends, or the marker behind it, and which commit it is.
    whole: (u64, Lsn),
    /// How far the file was durable when the last frame was made.
    proven: u64,
    commit: MutableBuffer,
    frames: u32,
}

/// What a [`Cursor`] finds.
pub(crate) enum Next {
    Commit(Lsn, Buffer),
    /// The file ends where a frame would begin.
    End,
    /// No frame opens here.
    Bad,
}

/// A step through a file.
enum Step {
    Frame { header: FrameHeader, payload: Vec<u8>, tag: Tag, end: u64 },
    End,
    Bad,
}

impl LogFile {
    pub(crate) fn open(log: &Log<'_>, number: u64) -> Result<Self, StoreError> {
        let path = log.paths.wal_file(number);
        let name = show(&path);
        let file = log.disk.open(&path)?;
        let length = file.length().map_err(|error| io_error("read", &path, &error))?;
        let mut bytes = vec![0; HEADER_BYTES.min(usize::try_from(length).unwrap_or(HEADER_BYTES))];
        file.read_exact_at(&mut bytes, 0).map_err(|error| io_error("read", &path, &error))?;
        let decoded = Header::decode(log.tenant, log.keys, number, &bytes);
        let (header, key) = decoded.map_err(|why| StoreError::corrupt(&name, why))?;
        let key = FrameKey::new(log.tenant, header.file, key);
        Ok(Self { file, path, name, length, header, key, tag: tag(&bytes) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn number(&self) -> u64 {
        self.header.number
    }

    /// The random id that tells it from every other file.
    pub(crate) const fn id(&self) -> FileId {
        self.header.file
    }

    /// The last commit before this file.
    pub(crate) const fn base_lsn(&self) -> Lsn {
        self.header.base_lsn
    }

    /// How far the file before this one is valid.
    pub(crate) const fn previous_length(&self) -> u64 {
        self.header.previous_length
    }

    /// Bytes that must be there: a file that ends before is damaged.
    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.corrupt(format!("it ends before byte {}", offset + bytes.len() as u64))
            }
            _ => io_error("read", &self.path, &error),
        })
    }

    pub(crate) fn corrupt(&self, why: impl Into<String>) -> StoreError {
        StoreError::corrupt(&self.name, why)
    }

    fn step(&self, offset: u64, end: u64, previous: &Tag) -> Result<Step, StoreError> {
        if offset == end {
            return Ok(Step::End);
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if end - offset < FRAME_HEADER_BYTES as u64 {
            return Ok(Step::Bad);
        }
        self.read_at(&mut bytes, offset)?;
        let Some(header) = FrameHeader::decode(&bytes) else { return Ok(Step::Bad) };
        let start = offset + FRAME_HEADER_BYTES as u64;
        if end - start < u64::from(header.sealed_bytes) {
            return Ok(Step::Bad);
        }
        let mut sealed = vec![0; header.sealed_bytes as usize];
        self.read_at(&mut sealed, start)?;
        Ok(match self.key.open(&bytes, previous, &sealed) {
            Ok(payload) => Step::Frame {
                header,
                payload,
                tag: tag(&sealed),
                end: start + u64::from(header.sealed_bytes),
            },
            Err(_) => Step::Bad,
        })
    }
}

impl Cursor {
    /// Before the file's first frame.
    pub(crate) fn new(file: &LogFile) -> Self {
        let start = HEADER_BYTES as u64;
        Self {
            offset: start,
            previous: file.tag,
            whole: (start, file.header.base_lsn),
            proven: start,
            commit: MutableBuffer::new(0),
            frames: 0,
        }
    }

    /// Where the next frame begins.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the last whole commit ends, or the marker behind it, and which commit it is.
    pub(crate) const fn whole(&self) -> (u64, Lsn) {
        self.whole
    }

    /// How far the file is durable, by what its frames say. What follows may be in the page cache only.
    pub(crate) const fn proven(&self) -> u64 {
        self.proven
    }

    /// A commit whose last frame was not found.
    pub(super) fn part(&mut self) -> Option<(Lsn, Buffer)> {
        let lsn = Lsn(self.whole.1.0 + 1);
        (self.frames > 0).then(|| (lsn, std::mem::take(&mut self.commit).into()))
    }

    /// The next whole commit's payload. `end` is where the file's frames end; it is not before [`Self::offset`]. On
    /// error, and where nothing was found, the cursor stays at the frame that was looked at.
    pub(crate) fn next(&mut self, file: &LogFile, end: u64) -> Result<Next, StoreError> {
        loop {
            let (header, payload, tag, next) = match file.step(self.offset, end, &self.previous)? {
                Step::Frame { header, payload, tag, end } => (header, payload, tag, end),
                Step::End => return Ok(Next::End),
                Step::Bad => return Ok(Next::Bad),
            };
            if header.place.is_marker() {
                self.pass_marker(file, &header, &payload)?;
                (self.offset, self.previous) = (next, tag);
                (self.whole.0, self.proven) = (next, header.place.synced);
                continue;
            }
            // Authentic but out of order can only be a bug or a replayed file: never guess.
            if header.place.lsn.0 != self.whole.1.0 + 1 || header.place.index != self.frames {
                return Err(file.corrupt(format!(
                    "frame {} of commit {} is out of order",
                    header.place.index, header.place.lsn
                )));
            }
            self.frames += 1;
            self.proven = header.place.synced;
            self.commit.extend_from_slice(&payload);
            (self.offset, self.previous) = (next, tag);
            if header.place.last {
                self.whole = (self.offset, header.place.lsn);
                self.frames = 0;
                return Ok(Next::Commit(header.place.lsn, std::mem::take(&mut self.commit).into()));
            }
        }
    }

    /// A marker stands between commits, says which was the last one, and is empty.
    fn pass_marker(&self, file: &LogFile, header: &FrameHeader, payload: &[u8]) -> Result<(), StoreError> {
        let Place { lsn, last, .. } = header.place;
        let in_place = file.header.has_markers() && self.frames == 0 && lsn == self.whole.1;
        if in_place && !last && payload.is_empty() {
            return Ok(());
        }
        Err(file.corrupt(format!("a marker after commit {lsn} is out of order")))
    }
}
