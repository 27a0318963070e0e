//! The transaction of a session: its base, its view, what it wants written.
//!
//! A view is a snapshot with the transaction's own operations applied: snapshots are immutable and share their
//! chunks, so a private one costs what was changed. COMMIT hands the operations to storage, which judges them
//! again against the head; what the transaction has locked passes.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use sepal_storage::{Op, Snapshot, StoreError};
use sepal_types::{ColumnId, Error, Result, SqlState, TableId};
use tokio::time::Instant;

use super::{
    delivery::AfterCommit,
    index_builds::Build,
    references::{ConstraintModes, Deferred},
    replaced::Replaced,
    sequences::OwnSequences,
};
use crate::{
    locks::TransactionLocks,
    tenant::changes_definitions,
    write_memory::{Charge, op_bytes},
};

/// Numbers for [`Open::edition`]. None is given twice: plans made in one transaction do not pass for another's.
static EDITIONS: AtomicU64 = AtomicU64::new(1);

/// What ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Active,
    Failed,
    Idle,
}

/// What the session had opened and set when a savepoint was made: the marks of its cursors and its settings.
type Marks = (u64, usize);

/// A savepoint: everything that ROLLBACK TO restores.
#[derive(Debug)]
struct Savepoint {
    name: String,
    base: Snapshot,
    view: Snapshot,
    unseen: usize,
    queried: bool,
    read_only: bool,
    ops: usize,
    replaced: usize,
    builds: usize,
    holds: usize,
    locks: usize,
    sequences: HashMap<(TableId, ColumnId), i64>,
    marks: Marks,
    deferred: Vec<Deferred>,
    constraint_modes: ConstraintModes,
}

/// That the view takes operations, and the view with them where it had to be made to find out.
#[derive(Debug)]
pub struct Admitted(Option<Snapshot>);

/// An open transaction.
#[derive(Debug)]
pub struct Open {
    /// BEGIN was said; else it ends with the statement, the query string or the pipeline.
    pub explicit: bool,
    pub base: Snapshot,
    /// `base` with all of `ops` but the last `unseen`.
    view: Snapshot,
    /// Operations that the view has admitted, and that nobody has looked at since. For most statements by themselves
    /// nobody ever does: the commit makes a state of its own.
    unseen: usize,
    /// The tenant's count of changed definitions when the view was last brought up to date, or from before that.
    pub definitions: u64,
    /// Which definitions `ops` have made; 0: they change none.
    edition: u64,
    /// When `base` became the transaction's.
    pub taken: Instant,
    /// It had to let go of its snapshot ([`Self::let_go`]).
    pub too_old: bool,
    pub ops: Vec<Op>,
    /// Which rows took the places of which, in `ops`.
    pub replaced: Replaced,
    /// What `ops` hold of the tenant's memory for writes.
    pub charge: Charge,
    /// Vector indexes to build after the commit.
    pub builds: Vec<Build>,
    /// What follows its definitions of sinks and pipelines.
    pub after: AfterCommit,
    /// Sequences that it restarted, as far as it has counted: nobody else sees that before the commit.
    sequences: OwnSequences,
    pub repeatable: bool,
    /// A statement has looked at the view: a REPEATABLE READ transaction stays with it.
    pub queried: bool,
    pub read_only: bool,
    pub failed: bool,
    savepoints: Vec<Savepoint>,
    /// What foreign keys are to be asked at the commit.
    pub(super) deferred: Vec<Deferred>,
    pub(super) constraint_modes: ConstraintModes,
    pub locks: TransactionLocks,
}

impl Open {
    /// `sequences` is the session's; what an earlier transaction left in it is forgotten.
    pub fn new(
        explicit: bool,
        snapshot: Snapshot,
        sequences: OwnSequences,
        charge: Charge,
        locks: TransactionLocks,
    ) -> Self {
        sequences.restore(HashMap::new());
        Self {
            explicit,
            base: snapshot.clone(),
            view: snapshot,
            unseen: 0,
            definitions: 0,
            edition: 0,
            taken: Instant::now(),
            too_old: false,
            ops: Vec::new(),
            replaced: Replaced::default(),
            charge,
            builds: Vec::new(),
            after: AfterCommit::default(),
            sequences,
            repeatable: false,
            queried: false,
            read_only: false,
            failed: false,
            savepoints: Vec::new(),
            deferred: Vec::new(),
            constraint_modes: ConstraintModes::default(),
            locks,
        }
    }

    /// What the transaction sees: its base with its own operations on top.
    ///
    /// Errors: those of storage.
    pub fn view(&mut self) -> Result<&Snapshot, StoreError> {
        if self.unseen > 0 {
            let unseen = &self.ops[self.ops.len() - self.unseen..];
            self.view = unseen.iter().try_fold(self.view.clone(), |view, op| view.apply_admitted(op))?;
            self.unseen = 0;
        }
        Ok(&self.view)
    }

    /// READ COMMITTED: each statement sees what is committed when it begins, with the transaction's own
    /// operations on top. REPEATABLE READ: what its first statement saw.
    ///
    /// Errors: 40001 when they no longer apply, or would undo an ALTER TABLE of somebody else.
    pub fn refresh(&mut self, head: Snapshot) -> Result<()> {
        if self.stays() || head.lsn() == self.base.lsn() {
            return Ok(());
        }
        self.view()?;
        self.view = match self.ops.as_slice() {
            [] => head.clone(),
            // The commit asks whether they still apply, but of the base that is set below: it could not tell.
            ops => head.rebase(&self.base, &self.view, ops)?,
        };
        self.base = head;
        self.taken = Instant::now();
        Ok(())
    }

    /// From now on it can only be rolled back, to its last savepoint or wholly. What it has locked since then it gives
    /// back at once, as Postgres does: others need not wait for a client to notice.
    pub fn fail(&mut self) {
        self.failed = true;
        match self.savepoints.last() {
            Some(savepoint) => self.locks.roll_back_to(savepoint.locks),
            None => self.locks.release(),
        }
    }

    /// Errors: 25001 where a transaction that may only read cannot be allowed to write any more.
    pub fn check_may_write(&self) -> Result<()> {
        let refused = |message: &str| Err(Error::new(SqlState::ActiveSqlTransaction, message));
        if !self.read_only {
            return Ok(());
        }
        if !self.savepoints.is_empty() {
            return refused("cannot set transaction read-write mode inside a read-only transaction");
        }
        if self.queried {
            return refused("transaction read-write mode must be set before any query");
        }
        Ok(())
    }

    /// Names the definitions that the transaction has made; 0: it has changed none.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    pub fn has_savepoints(&self) -> bool {
        !self.savepoints.is_empty()
    }

    /// Whether it stays with the snapshot that it has.
    pub fn stays(&self) -> bool {
        self.repeatable && self.queried
    }

    /// Holds nothing older than `head` any more. A transaction that cannot go on with that has failed.
    pub fn let_go(&mut self, head: Snapshot) {
        // A savepoint holds what was seen when it was made.
        let renewed = !self.stays() && self.savepoints.is_empty() && self.refresh(head.clone()).is_ok();
        if !renewed {
            self.too_old = true;
            self.savepoints.clear();
            self.fail();
            self.builds.clear();
            self.charge.shrink(op_bytes(&self.ops));
            self.ops.clear();
            self.unseen = 0;
            self.edition = 0;
            self.replaced = Replaced::default();
            self.deferred.clear();
        }
        if self.ops.is_empty() {
            self.base = head.clone();
            self.view = head;
        }
        self.taken = Instant::now();
    }

    /// Takes the operations of the transaction's last statement without applying them to the view: its commit
    /// judges them, and nobody looks at the view before.
    pub fn extend_unseen(&mut self, ops: Vec<Op>) -> Result<()> {
        self.check_writable(&ops)?;
        // Those that the view lacks and can take are the last ones.
        self.view()?;
        self.charge.grow(op_bytes(&ops))?;
        self.add(ops);
        Ok(())
    }

    fn add(&mut self, ops: Vec<Op>) {
        // What it has written it sees, from now on over this very base: see `rollback_to`.
        self.queried |= !ops.is_empty();
        if changes_definitions(&ops) {
            self.edition = EDITIONS.fetch_add(1, Ordering::Relaxed);
        }
        self.ops.extend(ops);
    }

    fn check_writable(&self, ops: &[Op]) -> Result<()> {
        if self.read_only && !ops.is_empty() {
            return Err(Error::new(
                SqlState::ReadOnlySqlTransaction,
                "cannot execute a write in a read-only transaction",
            ));
        }
        Ok(())
    }

    /// Applies a statement's operations to the view. All or none.
    ///
    /// Errors: 53200 when the tenant's unfinished writes hold too much already; those of storage.
    pub fn apply(&mut self, ops: Vec<Op>) -> Result<()> {
        let admitted = self.with(&ops)?;
        self.accept(ops, admitted)
    }

    /// Whether a statement's operations apply to the view, for [`Self::accept`]. Of rows that only come that is asked
    /// without making the view that has them; other operations build on each other.
    ///
    /// Errors: those of storage.
    pub fn with(&mut self, ops: &[Op]) -> Result<Admitted, StoreError> {
        let view = self.view()?;
        if let [insert @ Op::Insert { .. }] = ops {
            return view.admits(insert).map(|()| Admitted(None));
        }
        let view = ops.iter().try_fold(view.clone(), |view, op| view.apply(op))?;
        Ok(Admitted(Some(view)))
    }

    /// Takes a statement's operations that the view, which is the same still, has admitted. Errors: 25006, 53200.
    pub fn accept(&mut self, ops: Vec<Op>, admitted: Admitted) -> Result<()> {
        self.check_writable(&ops)?;
        self.charge.grow(op_bytes(&ops))?;
        match admitted {
            Admitted(Some(view)) => self.view = view,
            Admitted(None) => self.unseen += ops.len(),
        }
        for op in &ops {
            if let Op::SetSequence { table, column, next } = op {
                self.sequences.set((*table, *column), *next);
            }
        }
        self.add(ops);
        Ok(())
    }

    /// The operations for the commit. A sequence that was restarted goes on from where this transaction has
    /// counted it; a new table's that was set by `setval` becomes durable with its table.
    pub fn take_ops(&mut self) -> Vec<Op> {
        let mut ops = std::mem::take(&mut self.ops);
        self.unseen = 0;
        for ((table, column), counted) in self.sequences.counted() {
            let mut restarted = false;
            for op in &mut ops {
                if let Op::SetSequence { table: of, column: at, next } = op
                    && (*of, *at) == (table, column)
                {
                    *next = counted;
                    restarted = true;
                }
            }
            if !restarted && self.view.table(table).is_some() {
                ops.push(Op::SetSequence { table, column, next: counted });
            }
        }
        ops
    }

    /// `marks` come back from [`Self::rollback_to`].
    pub fn savepoint(&mut self, name: String, marks: Marks) {
        self.savepoints.push(Savepoint {
            name,
            base: self.base.clone(),
            view: self.view.clone(),
            unseen: self.unseen,
            queried: self.queried,
            read_only: self.read_only,
            ops: self.ops.len(),
            replaced: self.replaced.mark(),
            builds: self.builds.len(),
            holds: self.after.holds(),
            locks: self.locks.savepoint(),
            sequences: self.sequences.counted(),
            marks,
            deferred: self.deferred.clone(),
            constraint_modes: self.constraint_modes.clone(),
        });
    }

    pub fn release(&mut self, name: &str) -> Result<()> {
        let position = self.find(name)?;
        self.savepoints.truncate(position);
        if self.savepoints.is_empty() {
            self.locks.forget_savepoints();
        }
        Ok(())
    }

    /// Restores the savepoint and keeps it, as Postgres does. Its marks.
    pub fn rollback_to(&mut self, name: &str) -> Result<Marks> {
        let position = self.find(name)?;
        self.savepoints.truncate(position + 1);
        let mut marks = Marks::default();
        if let Some(savepoint) = self.savepoints.last() {
            marks = savepoint.marks;
            self.read_only = savepoint.read_only;
            let undone = self.ops.split_off(savepoint.ops.min(self.ops.len()));
            self.charge.shrink(op_bytes(&undone));
            if changes_definitions(&undone) {
                let left = changes_definitions(&self.ops);
                self.edition = if left { EDITIONS.fetch_add(1, Ordering::Relaxed) } else { 0 };
            }
            self.replaced.truncate(savepoint.replaced);
            self.locks.roll_back_to(savepoint.locks);
            self.builds.truncate(savepoint.builds);
            self.after.let_go_since(savepoint.holds);
            self.deferred.clone_from(&savepoint.deferred);
            self.constraint_modes.clone_from(&savepoint.constraint_modes);
            if self.repeatable && self.queried && !savepoint.queried {
                // The snapshot that was taken since is the transaction's; nothing was written before it.
                self.view = self.base.clone();
            } else {
                // With its base: a view that is older than the base would not be brought up to date, and an ALTER
                // TABLE made from it would undo what others altered since.
                self.base = savepoint.base.clone();
                self.view = savepoint.view.clone();
            }
            self.unseen = savepoint.unseen;
            self.sequences.restore(savepoint.sequences.clone());
        }
        self.failed = false;
        Ok(marks)
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
