//! Reading the log back: every commit since the manifest, in order.
//!
//! Called once by `store::open`. Changes nothing on disk, whatever it finds. The owner may know how far the log
//! reaches at least ([`LogEnd`]): then a file up to that one that is missing, or ends before, is damage.
//!
//! | where a frame does not open | what it means |
//! |---|---|
//! | a file with a successor, within the length that the successor's header records | damage |
//! | within what the owner knows | damage |
//! | the last file, and a later frame was made when the file was durable beyond it | damage |
//! | the last file otherwise | a torn tail: never acknowledged, ignored |

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use arrow::buffer::{Buffer, MutableBuffer};
use sepal_crypto::Key;
use sepal_types::{LogEnd, Lsn, TenantId};

use super::{
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKey, Tag, tag},
    header::{HEADER_BYTES, Header},
};
use crate::{
    StoreError,
    disk::{self, io_error, read_error},
    paths::{Paths, number, show},
};

/// What recovery starts from and whose log it is.
pub(crate) struct Replay<'a> {
    pub paths: &'a Paths,
    pub tenant: TenantId,
    pub tenant_key: &'a Key,
    /// The manifest's first log file and last commit.
    pub from: u64,
    pub lsn: Lsn,
    /// How far the log reaches at least, if the owner knows.
    pub end: Option<LogEnd>,
}

/// How far the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub last_number: u64,
    /// The last file's length up to its last whole commit.
    pub last_length: u64,
    /// Of all files, for the checkpoint's threshold.
    pub bytes: u64,
    pub lsn: Lsn,
}

/// Hands every commit's payload to `apply`, with the name of its file.
pub(crate) fn recover(
    replay: &Replay<'_>,
    mut apply: impl FnMut(&str, Lsn, Buffer) -> Result<(), StoreError>,
) -> Result<Recovered, StoreError> {
    let files = open_all(replay)?;
    let mut recovered = Recovered { last_number: replay.from, last_length: 0, bytes: 0, lsn: replay.lsn };
    for (index, file) in files.iter().enumerate() {
        if file.header.base_lsn != recovered.lsn {
            let why = format!(
                "it follows commit {}, but commit {} came before",
                file.header.base_lsn, recovered.lsn
            );
            return Err(StoreError::corrupt(&file.name, why));
        }
        let extent = Extent {
            end: files.get(index + 1).map(|next| next.header.previous_length),
            least: replay.end.filter(|end| end.file == file.header.number).map_or(0, |end| end.bytes),
        };
        let (length, lsn) =
            file.read(extent, recovered.lsn, &mut |lsn, payload| apply(&file.name, lsn, payload))?;
        recovered.last_number = file.header.number;
        recovered.last_length = length;
        recovered.bytes += length;
        recovered.lsn = lsn;
    }
    Ok(recovered)
}

/// The log files from the manifest's to the last one known, which must be there without a gap.
fn open_all(replay: &Replay<'_>) -> Result<Vec<LogFile>, StoreError> {
    let names = disk::list(&replay.paths.wal())?;
    let known = replay.end.map_or(replay.from, |end| end.file.max(replay.from));
    let last = names.iter().filter_map(|name| number(name, "wal")).fold(known, u64::max);
    (replay.from..=last).map(|number| LogFile::open(replay, number)).collect()
}

/// What is known of a file's length before it is read.
#[derive(Clone, Copy)]
struct Extent {
    /// What the next file's header records; `None` for the last file.
    end: Option<u64>,
    /// What the owner knows; 0 for nothing.
    least: u64,
}

struct LogFile {
    file: File,
    path: PathBuf,
    name: String,
    length: u64,
    header: Header,
    key: FrameKey,
    /// The tag that the first frame is bound to.
    tag: Tag,
}

/// A step through a file.
enum Step {
    Frame {
        header: FrameHeader,
        payload: Vec<u8>,
        tag: Tag,
        end: u64,
    },
    /// The file ends where a frame would begin.
    End,
    /// No frame opens here.
    Bad,
}

impl LogFile {
    fn open(replay: &Replay<'_>, number: u64) -> Result<Self, StoreError> {
        let path = replay.paths.wal_file(number);
        let name = show(&path);
        let file = File::open(&path).map_err(|error| read_error(&path, &error))?;
        let length = file.metadata().map_err(|error| io_error("read", &path, &error))?.len();
        let mut bytes = vec![0; HEADER_BYTES.min(usize::try_from(length).unwrap_or(HEADER_BYTES))];
        file.read_exact_at(&mut bytes, 0).map_err(|error| io_error("read", &path, &error))?;
        let decoded = Header::decode(replay.tenant, replay.tenant_key, number, &bytes);
        let (header, key) = decoded.map_err(|why| StoreError::corrupt(&name, why))?;
        let key = FrameKey::new(replay.tenant, header.file, key);
        Ok(Self { file, path, name, length, header, key, tag: tag(&bytes) })
    }

    /// Applies every whole commit. Returns the length up to the last whole commit, and its lsn.
    fn read(
        &self,
        extent: Extent,
        before: Lsn,
        apply: &mut dyn FnMut(Lsn, Buffer) -> Result<(), StoreError>,
    ) -> Result<(u64, Lsn), StoreError> {
        let end = extent.end.unwrap_or(self.length);
        if end > self.length || end < HEADER_BYTES as u64 {
            return Err(self.corrupt(format!("{} bytes, its successor says {end}", self.length)));
        }
        let mut whole = (HEADER_BYTES as u64, before);
        let (mut offset, mut previous) = (whole.0, self.tag);
        let mut commit = MutableBuffer::new(0);
        let mut frames = 0;
        loop {
            let (header, payload, tag, next) = match self.step(offset, end, &previous)? {
                Step::Frame { header, payload, tag, end } => (header, payload, tag, end),
                Step::End => break,
                Step::Bad if extent.end.is_some() || offset < extent.least => {
                    return Err(self.corrupt(format!("the frame at byte {offset} does not open")));
                }
                Step::Bad => {
                    self.check_tail(offset)?;
                    break;
                }
            };
            // Authentic but out of order can only be a bug or a replayed file: never guess.
            if header.place.lsn.0 != whole.1.0 + 1 || header.place.index != frames {
                return Err(self.corrupt(format!(
                    "frame {} of commit {} is out of order",
                    header.place.index, header.place.lsn
                )));
            }
            frames += 1;
            commit.extend_from_slice(&payload);
            (offset, previous) = (next, tag);
            if header.place.last {
                apply(header.place.lsn, std::mem::take(&mut commit).into())?;
                whole = (offset, header.place.lsn);
                frames = 0;
            }
        }
        if extent.end.is_some() && whole.0 != end {
            return Err(self.corrupt(format!("it ends within a commit at byte {}", whole.0)));
        }
        if whole.0 < extent.least {
            let why = format!("its commits end at byte {}, but reached byte {}", whole.0, extent.least);
            return Err(self.corrupt(why));
        }
        Ok(whole)
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

    /// Nothing opens at `offset` of the last file. Looks at every later place where a frame could begin; one that
    /// was made when the file was durable beyond `offset` proves that `offset` was acknowledged.
    fn check_tail(&self, offset: u64) -> Result<(), StoreError> {
        let rest =
            usize::try_from(self.length - offset).map_err(|_| self.corrupt("a tail longer than memory"))?;
        let mut tail = vec![0; rest];
        self.read_at(&mut tail, offset)?;
        for (start, bytes) in tail.array_windows::<FRAME_HEADER_BYTES>().enumerate() {
            let at = offset + start as u64;
            // The cheap tests first: the mark is a hash.
            let proof = FrameHeader::decode(bytes)
                .is_some_and(|header| header.place.synced > offset && header.place.synced <= at);
            if proof && self.key.is_marked(bytes, at) {
                return Err(
                    self.corrupt(format!("the frame at byte {offset} does not open, but was acknowledged"))
                );
            }
        }
        let ignored = self.length - offset;
        tracing::info!(file = %self.name, offset, ignored, "the log's tail was never acknowledged and is ignored");
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let read: io::Result<()> = self.file.read_exact_at(bytes, offset);
        read.map_err(|error| io_error("read", &self.path as &Path, &error))
    }

    fn corrupt(&self, why: impl Into<String>) -> StoreError {
        StoreError::corrupt(&self.name, why)
    }
}
