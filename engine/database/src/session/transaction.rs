//! The transaction of a session: its base, its view, what it wants written.
//!
//! A view is a snapshot with the transaction's own operations applied: snapshots are immutable and share their
//! chunks, so a private one costs what was changed. COMMIT hands the operations to storage, which judges them
//! again against the head: the first committer wins.

use sepal_storage::{Op, Snapshot};
use sepal_types::{Error, Result, SqlState, TableId};
use tokio::sync::OwnedMutexGuard;

/// What ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Active,
    Failed,
    Idle,
}

/// A savepoint: everything that ROLLBACK TO restores.
#[derive(Debug)]
struct Savepoint {
    name: String,
    view: Snapshot,
    ops: usize,
    builds: usize,
}

/// An open transaction.
#[derive(Debug)]
pub struct Open {
    /// BEGIN was said; else it ends with the statement, the query string or the pipeline.
    pub explicit: bool,
    pub base: Snapshot,
    pub view: Snapshot,
    pub ops: Vec<Op>,
    /// Vector indexes to build after the commit.
    pub builds: Vec<(TableId, TableId)>,
    pub repeatable: bool,
    pub read_only: bool,
    pub failed: bool,
    savepoints: Vec<Savepoint>,
    /// Held to the end: see `OpenTenant::table_lock`.
    pub locks: Vec<(TableId, OwnedMutexGuard<()>)>,
}

impl Open {
    pub fn new(explicit: bool, snapshot: Snapshot) -> Self {
        Self {
            explicit,
            base: snapshot.clone(),
            view: snapshot,
            ops: Vec::new(),
            builds: Vec::new(),
            repeatable: false,
            read_only: false,
            failed: false,
            savepoints: Vec::new(),
            locks: Vec::new(),
        }
    }

    /// READ COMMITTED: each statement sees what is committed when it begins, with the transaction's own
    /// operations on top.
    ///
    /// Errors: 40001 when they no longer apply.
    pub fn refresh(&mut self, head: Snapshot) -> Result<()> {
        if self.repeatable || head.lsn() == self.base.lsn() {
            return Ok(());
        }
        let mut view = head.clone();
        for op in &self.ops {
            view = view.apply(op)?;
        }
        self.base = head;
        self.view = view;
        Ok(())
    }

    /// Applies a statement's operations to the view. All or none.
    pub fn apply(&mut self, ops: Vec<Op>) -> Result<()> {
        if self.read_only && !ops.is_empty() {
            return Err(Error::new(
                SqlState::ReadOnlySqlTransaction,
                "cannot execute a write in a read-only transaction",
            ));
        }
        let mut view = self.view.clone();
        for op in &ops {
            view = view.apply(op)?;
        }
        self.view = view;
        self.ops.extend(ops);
        Ok(())
    }

    pub fn savepoint(&mut self, name: String) {
        let savepoint =
            Savepoint { name, view: self.view.clone(), ops: self.ops.len(), builds: self.builds.len() };
        self.savepoints.push(savepoint);
    }

    pub fn release(&mut self, name: &str) -> Result<()> {
        let position = self.find(name)?;
        self.savepoints.truncate(position);
        Ok(())
    }

    /// Restores the savepoint and keeps it, as Postgres does.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        let position = self.find(name)?;
        self.savepoints.truncate(position + 1);
        if let Some(savepoint) = self.savepoints.last() {
            self.ops.truncate(savepoint.ops);
            self.builds.truncate(savepoint.builds);
            self.view = savepoint.view.clone();
        }
        self.failed = false;
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize> {
        self.savepoints.iter().rposition(|savepoint| savepoint.name == name).ok_or_else(|| {
            Error::new(SqlState::InvalidSavepoint, format!("savepoint \"{name}\" does not exist"))
        })
    }
}

/// 25P02.
pub fn in_failed_transaction() -> Error {
    Error::new(
        SqlState::InFailedSqlTransaction,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}
