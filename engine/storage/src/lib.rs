//! Durable bytes of one tenant: log, memory chunks, sealed segments, manifests. No SQL, no index algorithm.
//!
//! `query` reads [`Snapshot`]s and hands [`Op`]s to [`TenantStore::commit`]; `database` opens stores, calls
//! [`TenantStore::checkpoint`] in the background and supplies the [`BlobBuilder`] that knows vector indexes.
//! The calls block: callers run them on threads of their own. Nothing here locks the data directory
//! (`database` does), takes two tenants, or lets a plaintext byte reach a file.
//!
//! ```text
//! <tenant>/manifest/<number>.manifest     what is durable besides the log: the newest; older ones are history
//! <tenant>/wal/<number>.wal               commits since that manifest; older ones that a hold or history keeps
//! <tenant>/segments/<file id>.parquet     rows
//!                   <file id>.deleted     deletion vector of a segment
//!                   <file id>.index       a vector index's bytes for one segment
//! <tenant>/spill/                         temporary files of queries, without names
//! ```
//!
//! # A write
//! 1. A session asks its private view whether it takes the ops ([`Snapshot::admits`]), and so learns of duplicate
//!    keys at once; what a later statement is to see it applies to the view ([`Snapshot::apply`]).
//! 2. [`TenantStore::commit`] encodes the ops (`ops`) and queues them. What they delete from captured tables goes
//!    with them (`feed::before`). Whoever gets the writer's lock first leads: it takes everything queued
//!    ([`commit`](TenantStore::commit), module `group`).
//! 3. The leader applies each commit to the head again, in order: a row that somebody else deleted meanwhile is
//!    a [`StoreError::WriteConflict`], a key that somebody else inserted a [`StoreError::UniqueViolation`].
//! 4. What passed is sealed into frames (`wal::frame`), written with one write and made durable with one
//!    fdatasync (`wal::writer`). Only then does the head move and does `commit` return.
//! 5. Each `Insert` became one immutable memory chunk; like-sized neighbours are merged (`snapshot::merge`).
//! 6. A checkpoint freezes the head, starts a new log file, writes the frozen memory chunks (and tiny
//!    segments) as Parquet under Parquet's own encryption (`segment`), builds their index blobs,
//!    commits a manifest, swaps the chunks in the head (carrying over what was deleted meanwhile), and removes
//!    manifests, segments and log files that nothing needs (`checkpoint`).
//!
//! # A recovery
//! 1. The newest manifest is opened (`manifest`); it names every segment, its length and its wrapped key.
//! 2. The log files from the manifest's number on are read in order (`wal::recover`). A frame that does not
//!    authenticate is a torn tail only in the last file and only if nothing durable follows it; anything else
//!    is [`StoreError::Corrupt`], and nothing is changed or removed.
//! 3. A new log file with a new key is opened, which records how far its predecessor was valid. No old file is
//!    ever appended to.
//! 4. Files that no manifest names are removed. Older log files wait for [`TenantStore::release_unheld_log`].
//!
//! # The past
//! Older manifests stay as long as [`HistoryPolicy`] says, as a name or a reader wants them.
//! [`TenantStore::snapshot_as_of`] opens one and applies the log after it up to the moment.
//! [`TenantStore::create_snapshot`] names one; [`TenantStore::clone_ops`] makes a table that shares another one's
//! segments (`history`).
//!
//! # When something is wrong
//! [`TenantStore::check`] reads every byte of a directory and says what does not open, does not fit, or is not named.
//! [`TenantStore::plan_repair`] says what a repair would give up, and [`RepairPlan::apply`] moves it aside and makes
//! the store open without it (`check`, `repair`).
//!
//! # A change, on its way out
//! A table whose definition says `captured` is read by a pipeline. [`TenantStore::hold_log`] keeps the log from a
//! commit on, [`TenantStore::changes`] reads it along behind the writer, and [`LogHold::advance`] lets it go (`feed`).

mod arrow_types;
mod blob;
mod check;
mod checkpoint;
mod chunk;
mod counters;
mod disk;
mod error;
mod feed;
pub mod files;
#[cfg(test)]
mod fixtures;
mod group;
mod history;
mod manifest;
mod ops;
mod paths;
mod pieces;
mod planted;
mod random;
mod repair;
mod rotation;
mod row_bytes;
mod segment;
#[cfg(test)]
mod simulation;
mod snapshot;
mod spill;
mod store;
mod wal;

pub use arrow_types::{
    TYPE_METADATA_KEY, VECTOR_ITEM, arrow_field, arrow_type, bit_type, has_arrow_type, is_enum,
    is_sparse_item, sql_type, stored_name, vector_kind,
};
pub use blob::{BlobBytes, BlobReader};
pub use check::{BlobChecker, CheckObserver, CheckOptions, Checked, Finding, Severity};
pub use checkpoint::{
    BlobBuilder, CheckpointReport, CompactionLimits, CompactionReport, Freely, MergeInput, NoBlobs, Pace,
    Phase, Rewrite,
};
pub use chunk::{Chunk, ChunkRef, ColumnCache, Counted, Deletions, FairCache, Live, Near};
pub use disk::{Fault, FaultInjector};
pub use error::StoreError;
pub use feed::{Change, ChangeReader, Commit, LogFileInfo, LogHold, closed_log_files, closed_manifest};
pub use files::{FileHandle, Files, LocalFiles};
pub use group::Told;
pub use history::{AsOf, HistoryPolicy, HistorySpan, ManifestPin, NamedSnapshot, PinnedFile};
pub use ops::{CloneSource, Op};
pub use random::{Random, SystemRandom};
pub use repair::{Loss, RepairOptions, RepairPlan, RepairRefused};
pub use rotation::{FileRotation, KeyUse, RekeyStep};
pub use row_bytes::batch_bytes;
pub use segment::{Run, RunSpace};
pub use sepal_types::Clock;
pub use snapshot::{Located, Snapshot, TableVersion};
pub use spill::{SpillError, SpillFile, SpillFiles, SpillSink, SpillSpace};
pub use store::{StoreOptions, StoreStats, TenantStore};
