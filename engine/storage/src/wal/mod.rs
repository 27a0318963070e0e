//! The log: one file after another, each frame sealed, each bound to its place.
//!
//! `group` appends through [`WalFile`], `store::open` replays through [`recover`], the feed reads along through
//! [`LogFile`] and [`Cursor`]. A file is written by one process run only: after a recovery a new file with a new key
//! follows, because a torn frame's place must not be sealed twice.
//!
//! Numbers are big-endian.
//!
//! ```text
//! <number>.wal := header (frame | marker)*
//! header := magic "sepalwal" 8 | version u16 = 2 | zero 6 | tenant 16 | file id 16 | number u64
//!           | base lsn u64                  the last commit before this file
//!           | previous length u64           how far the previous file is valid (0: none)
//!           | wrapped key 88                under the tenant's key; associated data = {"wal-key 1", the 72 before}
//! frame  := frame header 48 | sealed
//! frame header := sealed length u32 | index in commit u32 | lsn u64
//!           | synced u64                    the file's length that was durable when this frame was made
//!           | last frame of its commit u8 | zero 7
//!           | mark 16                       HMAC-SHA-256 of {"wal-mark 1", tenant, file, the frame's offset, the
//!                                           32 bytes before} under a key derived from the file's, first half
//! sealed := XAES-256-GCM (nonce 24 | up to 1 MiB | tag 16)
//!           associated data = {"wal-frame 1", tenant, file, frame header, previous tag}
//! marker := a frame between two commits: index ff ff ff ff, the lsn of the commit before it, last = 0, no payload
//! ```
//! A commit is one or more frames with one lsn; lsns count up by one. The previous tag is the 16 bytes before the
//! frame header: the last frame's tag, or the wrapped key's.
//!
//! `synced` tells a torn tail from damage. What follows a bad frame at offset *o* was acknowledged only if some
//! later frame was made when the file was durable beyond *o*. That frame itself may not open any more, because it
//! is bound to the damaged one's tag; its mark still proves what its header says.
//!
//! A marker is that later frame for the last group of a burst: it is written when nothing was committed for a moment,
//! and when the log is closed. Files of version 1 have none.

mod frame;
mod header;
mod key;
mod progress;
mod read;
mod recover;
mod scan;
mod settle;
mod survey;
mod writer;

use sepal_types::Lsn;

#[cfg(test)]
pub(crate) use frame::FRAME_HEADER_BYTES;
#[cfg(test)]
pub(crate) use header::HEADER_BYTES;
pub(crate) use key::is_under_current;
pub(crate) use read::{Cursor, Log, LogFile, Next};
pub(crate) use recover::{Recovered, Replay, kept_before, recover};
pub(crate) use settle::settle;
pub(crate) use survey::{Break, Survey, survey, survey_old};
pub(crate) use writer::{WalFile, WalStart};

/// A log file without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSpan {
    pub number: u64,
    /// The last commit before it.
    pub base_lsn: Lsn,
    pub bytes: u64,
}

/// Whether a log file has no frame.
pub(crate) fn is_empty(disk: &crate::disk::Disk, path: &std::path::Path) -> bool {
    disk.length(path).is_ok_and(|length| length <= header::HEADER_BYTES as u64)
}

/// What a log file's header says in the clear: its id, the last commit before it, and how far the file before it is
/// valid. `None` for what is no log file. Nothing vouches for it but where it stands.
pub(crate) fn peek(
    disk: &crate::disk::Disk,
    path: &std::path::Path,
) -> Result<Option<(sepal_types::FileId, Lsn, u64)>, crate::StoreError> {
    let unread = |error: std::io::Error| crate::disk::io_error("read", path, &error);
    let file = disk.open(path)?;
    let mut bytes = [0; header::HEADER_BYTES];
    if file.length().map_err(unread)? < bytes.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, 0).map_err(unread)?;
    Ok(header::peek(&bytes))
}

#[cfg(test)]
mod tests;
