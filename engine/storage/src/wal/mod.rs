//! The log: one file after another, each frame sealed, each bound to its place.
//!
//! `group` appends through [`WalFile`], `store::open` replays through [`recover`], the feed reads along through
//! [`LogFile`] and [`Cursor`]. A file is written by one process run only: after a recovery a new file with a new key
//! follows, because a torn frame's place must not be sealed twice.
//!
//! Numbers are big-endian.
//!
//! ```text
//! <number>.wal := header frame*
//! header := magic "sepalwal" 8 | version u16 = 1 | zero 6 | tenant 16 | file id 16 | number u64
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
//! ```
//! A commit is one or more frames with one lsn; lsns count up by one. The previous tag is the 16 bytes before the
//! frame header: the last frame's tag, or the wrapped key's.
//!
//! `synced` tells a torn tail from damage. What follows a bad frame at offset *o* was acknowledged only if some
//! later frame was made when the file was durable beyond *o*. That frame itself may not open any more, because it
//! is bound to the damaged one's tag; its mark still proves what its header says.

mod frame;
mod header;
mod key;
mod read;
mod recover;
mod settle;
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

#[cfg(test)]
mod tests;
