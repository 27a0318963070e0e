//! Backups: a repository in a directory or in an S3-compatible bucket, and the way back from it.
//!
//! `pgwire-server` runs a [`Keeper`] beside its listeners and gives people the rest as `sepal backup …`. Of the engine
//! this crate sees `sepal_database::backup` only. It never holds a tenant's key and never sees a row: files are copied
//! sealed as they are, and what a backup notes about tables is sealed before it comes here.
//!
//! # A backup
//! 1. [`create()`] pins each tenant at a commit and stores what the repository lacks of its files ([`Repository`]).
//! 2. The log goes up in parts (`log`), in between too: [`Archive`]; with it the files that it names (`clones`).
//! 3. Keys lie apart (`keys`): dropping a tenant removes one object, and its backups open no more.
//! 4. The [`Entry`] comes last. A backup is what an entry names (`names` has the layout).
//!
//! # The way back
//! 1. [`restore()`] opens the root key with the recovery key, and control.db with that.
//! 2. Each tenant's files are fetched and compared, and its log is replayed up to the moment asked for.
//! 3. [`verify()`] does the same to the side, compares every row with what was noted, and replays the log since.

mod archive;
mod census;
mod clones;
mod create;
mod entry;
mod failure;
mod identity;
mod keeper;
mod keys;
mod limits;
mod list;
mod lock;
mod log;
mod moment;
mod names;
mod pace;
mod prune;
mod reach;
mod repository;
mod restore;
mod schedule;
mod verify;
mod watch;

pub use archive::{Archive, Round};
pub use census::{Counted, Inventory, TableCount, read as read_census};
pub use create::{CreateOptions, create};
pub use entry::{Entry, FailedTenant, LogFile, Object, TenantEntry};
pub use keeper::{ArchiveStatus, JobStatus, Keeper, Settings, Status};
pub use list::{Summary, list, show};
pub use moment::{day, parse as parse_moment, show as show_moment};
pub use pace::Pace;
pub use prune::{Pruned, Retention, prune};
pub use repository::{Location, Repository};
pub use restore::{NotRestored, Opener, RestoreOptions, Restored, RestoredFacts, Target, restore};
pub use schedule::Schedule;
pub use verify::{Report, Since, TenantReport, Verified, VerifyOptions, note_verified, verify};
pub use watch::{Progress, Watch};

pub use sepal_database::backup::{RecoveryKey, RecoveryShare, Source, Wrappers};
