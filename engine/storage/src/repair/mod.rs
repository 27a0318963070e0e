//! Making a damaged store open again, and saying exactly what is gone.
//!
//! `database` asks for a plan, shows it to the operator, and applies it when nobody has the store open. Nothing is ever
//! guessed: what does not authenticate is moved aside whole, and rows of which it is not known whether they were
//! deleted are not served.
//!
//! | damaged | what becomes of it |
//! |---|---|
//! | a segment | the table goes on without it |
//! | a segment's deletion vector | the segment goes, too, unless [`RepairOptions::resurrect_deleted`] |
//! | an index blob | dropped from the manifest; the database builds the index again, as it does without a repair |
//! | the log | everything from there on is cut: later commits were made on top of those that are gone |
//! | a segment or index that a clone in the log shares | the clone goes on without it, too |
//! | a log file that no recovery needs | moved aside |
//! | an older manifest, or what only it names | the past that it keeps goes; a named snapshot stays as it is |
//! | an index blob that only the past names | nothing: that past is searched exactly |
//! | the newest manifest | an older one with the log after it, if both are whole; else the repair is refused |
//! | anything that a device does not read | refused: it may be read elsewhere |
//!
//! Only what nothing else names is moved aside: a file that a named snapshot has, too, stays with it, damaged or not.
//! `plan` turns a check's findings into steps, `apply` takes them.

mod apply;
#[cfg(test)]
mod past_tests;
mod plan;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::PathBuf};

use sepal_crypto::KeyRing;
use sepal_types::{FileId, Lsn, RowId, TableId, TenantId};
use serde::Serialize;

use crate::{
    CheckOptions, Finding,
    check::{DataFiles, Sound},
    manifest::Manifest,
};

/// How a repair is to be done.
#[derive(Clone, Default)]
pub struct RepairOptions {
    pub check: CheckOptions,
    /// Serve the rows of a segment whose deletion vector is damaged, deleted ones too.
    pub resurrect_deleted: bool,
}

/// Something that a repair gives up.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "lost", rename_all = "kebab-case")]
pub enum Loss {
    /// Rows of a table. `rows`: those that were live when the manifest was written; the table may have others with ids
    /// in between.
    Rows {
        table: TableId,
        environment: String,
        name: String,
        file: String,
        first_row: RowId,
        last_row: RowId,
        rows: u64,
        why: String,
    },
    /// Nothing but time: the index is built again.
    Index { table: TableId, name: String, index: TableId, file: String, why: String },
    /// The knowledge that rows were deleted: they are served again.
    Deletions { table: TableId, name: String, file: String, rows: u64, why: String },
    /// Every commit after `after`. `known`: of how many it can still be seen that they were there, up to `last_known`.
    Commits { after: Lsn, known: u64, last_known: Option<Lsn>, file: String, why: String },
    /// Changes that a pipeline may not have delivered yet: it has to be reset.
    OldLog { file: String, why: String },
    /// The newest manifest; `instead` and the log hold the same rows. Snapshots that were named or dropped after
    /// `instead` are not known: `snapshots` are those that it names.
    Manifest { file: String, instead: u64, snapshots: Vec<String>, why: String },
    /// The past that an older manifest keeps, with the names of its snapshots.
    Past { file: String, snapshots: Vec<String>, why: String },
}

/// Why a repair is not possible. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RepairRefused(pub String);

/// What a repair would do. Made by [`crate::TenantStore::plan_repair`].
pub struct RepairPlan {
    /// What is given up, the worst first.
    pub losses: Vec<Loss>,
    /// What is wrong and stays so: a repair has no sound way with it.
    pub left: Vec<Finding>,
    steps: Steps,
}

/// What [`RepairPlan::apply`] needs.
struct Steps {
    dir: PathBuf,
    tenant: TenantId,
    keys: KeyRing,
    check: CheckOptions,
    /// The manifest to go on from as it is, and without what is damaged; its file's hash.
    original: Manifest,
    base: Sound,
    hash: String,
    /// The next manifest's number is above it.
    highest: u64,
    /// Segments that tables lose, and of others their deletion vectors.
    given_up: BTreeSet<(TableId, FileId)>,
    undeleted: BTreeSet<(TableId, FileId)>,
    /// Data files to be moved aside.
    data: DataFiles,
    /// What the log names is gone: it cannot be replayed as it is.
    in_log: bool,
    manifest: Option<u64>,
    /// Manifests of the past.
    past: BTreeSet<u64>,
    old_logs: Vec<u64>,
    cut: Option<Cut>,
}

/// The log ends there.
struct Cut {
    number: u64,
    offset: u64,
    after: Lsn,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    /// The files that are moved aside, from the tenant's directory on.
    pub fn files(&self) -> Vec<String> {
        self.steps.files()
    }
}
