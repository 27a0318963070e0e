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
//!
//! A restore to a point in time ends the reading at a commit. An attempt that did not come to its end may have begun
//! the new file already: it is empty, and the files of the time that was cut off do not follow it.

use std::ops::{ControlFlow, RangeInclusive};

use arrow::buffer::Buffer;
use sepal_types::{LogEnd, Lsn};

use super::{
    FileSpan,
    header::HEADER_BYTES,
    progress::Progress,
    read::{Cursor, Log, LogFile, Next},
};
use crate::{
    StoreError,
    paths::number,
    planted::{self, Bug},
};

/// What recovery starts from and whose log it is.
pub(crate) struct Replay<'a> {
    pub log: Log<'a>,
    /// The manifest's first log file and last commit.
    pub from: u64,
    pub lsn: Lsn,
    /// How far the log reaches at least, if the owner knows.
    pub end: Option<LogEnd>,
    /// Whether the caller may end it before the log ends.
    pub limited: bool,
}

/// How far the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub last_number: u64,
    /// The last file's length up to its last whole commit.
    pub last_length: u64,
    /// How much of that is known to be durable.
    pub proven: u64,
    pub lsn: Lsn,
    /// Every file that was read, up to its last whole commit.
    pub files: Vec<FileSpan>,
}

/// Hands every commit's payload to `apply`, with the name of its file, until that says that a commit is not wanted any
/// more: then the log ends before it.
pub(crate) fn recover(
    replay: &Replay<'_>,
    mut apply: impl FnMut(&str, Lsn, Buffer) -> Result<ControlFlow<()>, StoreError>,
) -> Result<Recovered, StoreError> {
    let last = last_number(replay)?;
    let mut progress = Progress::start(replay.log.tenant, content_bytes(&replay.log, replay.from..=last));
    let mut recovered =
        Recovered { last_number: replay.from, last_length: 0, proven: 0, lsn: replay.lsn, files: Vec::new() };
    let mut opened = Some(LogFile::open(&replay.log, replay.from)?);
    let mut follows_empty = false;
    while let Some(file) = opened.take() {
        // No more than two are open: a log of thousands of files must not take as many descriptors.
        let number = file.header.number;
        let next = if number < last { Some(LogFile::open(&replay.log, number + 1)?) } else { None };
        let cut_off = replay.limited && follows_empty;
        if cut_off && file.header.base_lsn > recovered.lsn {
            tracing::warn!(file = %file.name, "an earlier attempt has cut the log off before this file");
            break;
        }
        if file.header.base_lsn != recovered.lsn {
            let why = format!(
                "it follows commit {}, but commit {} came before",
                file.header.base_lsn, recovered.lsn
            );
            return Err(file.corrupt(why));
        }
        let end = next.as_ref().map(|next| next.header.previous_length);
        let extent = Extent {
            end: end.filter(|end| !(replay.limited && file.is_empty() && *end > file.length)),
            least: replay.end.filter(|end| end.file == number).map_or(0, |end| end.bytes),
        };
        let read = file.read(extent, &mut |lsn, payload| {
            progress.commit(payload.len());
            apply(&file.name, lsn, payload)
        })?;
        let (length, lsn) = read.whole;
        let span = FileSpan { number, base_lsn: file.header.base_lsn, bytes: length };
        recovered.files.push(span);
        recovered.last_number = number;
        recovered.last_length = length;
        recovered.proven = read.proven.max(extent.least);
        recovered.lsn = lsn;
        if read.flow.is_break() {
            break;
        }
        follows_empty = file.is_empty();
        opened = next;
    }
    progress.end(recovered.lsn);
    Ok(recovered)
}

/// The files before `from` that are still there, oldest first, as far back as they open without a gap; and what stands
/// before them and does not. No recovery needs them, so that is damage to whoever reads them only.
pub(crate) fn kept_before(
    log: &Log<'_>,
    from: u64,
) -> Result<(Vec<FileSpan>, Option<StoreError>), StoreError> {
    let names = log.disk.list(&log.paths.wal())?;
    let oldest = names.iter().filter_map(|name| number(name, "wal")).fold(from, u64::min);
    let mut spans = Vec::new();
    let mut damage = None;
    for number in (oldest..from).rev() {
        match LogFile::open(log, number) {
            Ok(file) => {
                spans.push(FileSpan { number, base_lsn: file.header.base_lsn, bytes: file.length });
            }
            Err(error) => {
                damage = Some(error);
                break;
            }
        }
    }
    spans.reverse();
    Ok((spans, damage))
}

/// The last log file that is there, or is known to have been: all from the manifest's to this one must be there.
fn last_number(replay: &Replay<'_>) -> Result<u64, StoreError> {
    let names = replay.log.disk.list(&replay.log.paths.wal())?;
    let known = replay.end.map_or(replay.from, |end| end.file.max(replay.from));
    Ok(names.iter().filter_map(|name| number(name, "wal")).fold(known, u64::max))
}

/// Bytes of these files without their headers, for whoever watches. One that is missing is told when its turn comes.
fn content_bytes(log: &Log<'_>, numbers: RangeInclusive<u64>) -> u64 {
    let lengths = numbers.map(|number| log.disk.length(&log.paths.wal_file(number)).unwrap_or(0));
    lengths.map(|length| length.saturating_sub(HEADER_BYTES as u64)).fold(0, u64::saturating_add)
}

/// What is known of a file's length before it is read.
#[derive(Clone, Copy)]
struct Extent {
    /// What the next file's header records; `None` for the last file.
    end: Option<u64>,
    /// What the owner knows; 0 for nothing.
    least: u64,
}

/// What reading a file came to.
struct Read {
    /// Where the last whole commit that was wanted ends, and which it is.
    whole: (u64, Lsn),
    /// How far frames say that the file was durable.
    proven: u64,
    /// Whether more are wanted.
    flow: ControlFlow<()>,
}

impl LogFile {
    /// Whether it has no frame.
    const fn is_empty(&self) -> bool {
        self.length == HEADER_BYTES as u64
    }

    /// Applies every whole commit up to the last one that is wanted.
    fn read(
        &self,
        extent: Extent,
        apply: &mut dyn FnMut(Lsn, Buffer) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<Read, StoreError> {
        let end = extent.end.unwrap_or(self.length);
        if end > self.length || end < HEADER_BYTES as u64 {
            return Err(self.corrupt(format!("{} bytes, its successor says {end}", self.length)));
        }
        let mut cursor = Cursor::new(self);
        loop {
            let before = cursor.whole();
            match cursor.next(self, end)? {
                Next::Commit(lsn, payload) => {
                    if apply(lsn, payload)?.is_break() {
                        return Ok(Read {
                            whole: before,
                            proven: cursor.proven(),
                            flow: ControlFlow::Break(()),
                        });
                    }
                }
                Next::End => break,
                Next::Bad if extent.end.is_some() || cursor.offset() < extent.least => {
                    return Err(self.corrupt(format!("the frame at byte {} does not open", cursor.offset())));
                }
                Next::Bad => {
                    self.check_tail(cursor.offset())?;
                    if planted::is(Bug::TornTailAccepted)
                        && let Some((lsn, payload)) = cursor.part()
                    {
                        let _ = apply(lsn, payload)?;
                    }
                    break;
                }
            }
        }
        let whole = cursor.whole();
        if extent.end.is_some() && whole.0 != end {
            return Err(self.corrupt(format!("it ends within a commit at byte {}", whole.0)));
        }
        if whole.0 < extent.least {
            let why = format!("its commits end at byte {}, but reached byte {}", whole.0, extent.least);
            return Err(self.corrupt(why));
        }
        Ok(Read { whole, proven: cursor.proven(), flow: ControlFlow::Continue(()) })
    }

    /// Nothing opens at `offset` of the last file. Looks at every later place where a frame could begin; one that
    /// was made when the file was durable beyond `offset` proves that `offset` was acknowledged.
    pub(super) fn check_tail(&self, offset: u64) -> Result<(), StoreError> {
        let mut acknowledged = false;
        self.each_marked(
            offset,
            |place| place.synced > offset,
            |_| {
                acknowledged = true;
                ControlFlow::Break(())
            },
        )?;
        if acknowledged {
            let why = format!("the frame at byte {offset} does not open, but was acknowledged");
            return Err(self.corrupt(why));
        }
        let ignored = self.length - offset;
        tracing::info!(file = %self.name, offset, ignored, "the log's tail was never acknowledged and is ignored");
        Ok(())
    }
}
