//! Locks: who must wait for whom. One [`LockTable`] per open tenant, in memory only.
//!
//! Asked by `session` before it writes: rows, keys of unique constraints, tables, and the numbers of
//! `pg_advisory_lock`. Readers see snapshots; they ask for their tables, so that nobody takes those away from an open
//! transaction, and a statement by itself asks only while somebody wants a table to himself. What is locked cannot be
//! refused at COMMIT any more; storage's own judgement stays behind it as a check.
//!
//! ```text
//! want     what is asked for                      modes     which strengths exclude each other
//! held     who has what, and gives it back        queue     who waits, in which order
//! deadlock circles of waits                       updates   what became of rows that were replaced
//! exclusive how many want a table to themselves
//! ```
//!
//! One short mutex for all: a request of one row costs about a microsecond, a commit's fdatasync a thousand. Waiting
//! is a future and holds no thread. Everything is released by dropping: a transaction's locks with its
//! [`TransactionLocks`], a session's numbers with its [`SessionLocks`], a wait with its [`Waiting`].
//!
//! Nothing here is durable and nothing needs to be: after a crash no transaction is open.

mod deadlock;
mod exclusive;
mod held;
mod modes;
mod queue;
mod updates;
mod want;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use roaring::RoaringTreemap;
use sepal_types::{Error, Result, RowId, TableId};
use tokio::sync::oneshot;

use exclusive::Exclusive;
use held::{Freed, OwnerId, Shown};
use queue::State;

pub use modes::{RowMode, TableMode};
pub use updates::{Updates, Watches};
pub use want::{AdvisoryKey, NAMES, Span, Want};

/// The locks of one tenant.
#[derive(Debug)]
pub struct LockTable(Mutex<State>, Exclusive);

impl Default for LockTable {
    fn default() -> Self {
        let state = State::default();
        let exclusive = state.held.exclusive.clone();
        Self(Mutex::new(state), exclusive)
    }
}

/// A row of `pg_locks`.
#[derive(Clone, Debug)]
pub struct LockRow {
    pub pid: i32,
    pub object: LockObject,
    pub mode: &'static str,
    pub granted: bool,
}

#[derive(Clone, Debug)]
pub enum LockObject {
    Advisory(AdvisoryKey),
    Table(TableId),
    /// A wait for a row or key of the table.
    Row(TableId),
}

/// What one session may hold. Registered for as long as anything refers to it.
#[derive(Debug)]
struct Owner {
    id: OwnerId,
    table: Arc<LockTable>,
    /// Something was granted since the last release: most transactions only read.
    used: AtomicBool,
}

impl Drop for Owner {
    /// A plan that was stopped may have asked for a number when its session and transaction had given theirs back.
    fn drop(&mut self) {
        let mut state = self.table.0.lock();
        for freed in state.held.dismiss(self.id) {
            state.wake(&freed);
        }
    }
}

/// A session's place in the table. Dropped, it gives back the numbers that the session locked for itself.
#[derive(Debug)]
pub struct SessionLocks(Arc<Owner>);

/// By which the session's statements lock numbers.
#[derive(Clone, Debug)]
pub struct AdvisoryLocks(Arc<Owner>);

/// The locks of a transaction. Dropped, it gives them back.
#[derive(Debug)]
pub struct TransactionLocks(Arc<Owner>);

/// What became of a request.
#[derive(Debug)]
pub enum Asked {
    Granted,
    /// Not to be waited for: this part is somebody else's.
    Refused(Want),
    Waits(Waiting),
}

/// A place in line. Dropped, it is given up; what was granted meanwhile stays with the transaction.
#[derive(Debug)]
pub struct Waiting {
    ticket: u64,
    owner: Arc<Owner>,
    granted: oneshot::Receiver<()>,
}

impl LockTable {
    pub fn enlist(self: &Arc<Self>, pid: i32) -> SessionLocks {
        let id = self.0.lock().enlist(pid);
        let owner = Owner { id, table: Arc::clone(self), used: AtomicBool::new(false) };
        SessionLocks(Arc::new(owner))
    }

    /// Whether anybody has a table to himself, or waits for that. Costs nothing.
    pub fn has_exclusive(&self) -> bool {
        self.1.any()
    }

    /// What is held and waited for.
    pub fn rows(&self) -> Vec<LockRow> {
        let state = self.0.lock();
        let held = state.held.shown().into_iter().map(|(pid, shown)| match shown {
            Shown::Advisory { key, shared } => {
                let mode = if shared { TableMode::Share } else { TableMode::Exclusive };
                LockRow { pid, object: LockObject::Advisory(key), mode: mode.name(), granted: true }
            }
            Shown::Table { table, mode } => {
                LockRow { pid, object: LockObject::Table(table), mode: mode.name(), granted: true }
            }
        });
        let waiting = state.waiters.iter().map(|waiter| {
            let (object, mode) = match &waiter.want {
                Want::Advisory { key, shared, .. } => {
                    let mode = if *shared { TableMode::Share } else { TableMode::Exclusive };
                    (LockObject::Advisory(key.clone()), mode.name())
                }
                Want::Table { table, mode } => (LockObject::Table(*table), mode.name()),
                Want::Rows { table, mode, .. } => (LockObject::Row(*table), modes::row_mode_name(*mode)),
                Want::Keys { of, .. } => (LockObject::Row(of.0), TableMode::Share.name()),
                Want::Unwritten { table, .. } => (LockObject::Row(*table), TableMode::Share.name()),
            };
            LockRow { pid: state.held.pid(waiter.owner), object, mode, granted: false }
        });
        held.chain(waiting).collect()
    }

    /// `pg_blocking_pids`: whom the session with this number waits for.
    pub fn blocking(&self, pid: i32) -> Vec<i32> {
        let state = self.0.lock();
        let place = state
            .held
            .owner_of(pid)
            .and_then(|owner| state.waiters.iter().position(|waiter| waiter.owner == owner));
        let steps = place.map(|place| state.blockers(place)).unwrap_or_default();
        let mut pids: Vec<i32> = steps.iter().map(|step| state.held.pid(step.owner)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Owner {
    /// Asks for a lock. What is free of it is granted in any case.
    ///
    /// Errors: 40P01 when the wait would close a circle.
    fn ask(self: &Arc<Self>, want: Want, wait: bool) -> Result<Asked> {
        if want.is_empty() {
            return Ok(Asked::Granted);
        }
        self.used.store(true, Ordering::Release);
        let mut state = self.table.0.lock();
        let Some(left) = state.take(self.id, want) else {
            return Ok(Asked::Granted);
        };
        if !wait {
            return Ok(Asked::Refused(left));
        }
        let (ticket, granted) = state.stand(self.id, left);
        match state.settle(ticket) {
            Ok(()) => Ok(Asked::Waits(Waiting { ticket, owner: Arc::clone(self), granted })),
            Err(error) => {
                state.leave(ticket);
                Err(error)
            }
        }
    }
}

impl SessionLocks {
    /// A transaction begins.
    pub fn begin(&self) -> TransactionLocks {
        TransactionLocks(Arc::clone(&self.0))
    }

    pub fn advisory(&self) -> AdvisoryLocks {
        AdvisoryLocks(Arc::clone(&self.0))
    }
}

impl Drop for SessionLocks {
    fn drop(&mut self) {
        self.advisory().unlock_all();
    }
}

impl AdvisoryLocks {
    /// Asks for a number; see [`TransactionLocks::ask`].
    pub fn ask(&self, key: AdvisoryKey, shared: bool, span: Span, wait: bool) -> Result<Asked> {
        self.0.ask(Want::Advisory { key, shared, span }, wait)
    }

    /// `false` when the session does not have the number.
    pub fn unlock(&self, key: &AdvisoryKey, shared: bool) -> bool {
        let mut state = self.0.table.0.lock();
        let unlocked = state.held.unlock(self.0.id, key, shared);
        if unlocked {
            let given = Want::Advisory { key: key.clone(), shared, span: Span::Session };
            state.wake(&Freed::of(&given));
        }
        unlocked
    }

    pub fn unlock_all(&self) {
        let mut state = self.0.table.0.lock();
        let freed = state.held.release_session(self.0.id);
        state.wake(&freed);
    }
}

impl TransactionLocks {
    /// Asks for a lock, and says whether to stand in line for what is not free. Errors: 40P01.
    pub fn ask(&self, want: Want, wait: bool) -> Result<Asked> {
        self.0.ask(want, wait)
    }

    /// A savepoint: what [`Self::roll_back_to`] goes back to.
    pub fn savepoint(&self) -> usize {
        self.0.table.0.lock().held.savepoint(self.0.id)
    }

    /// Gives back what was locked since the savepoint.
    pub fn roll_back_to(&self, mark: usize) {
        let mut state = self.0.table.0.lock();
        let freed = state.held.undo(self.0.id, mark);
        state.wake(&freed);
    }

    /// No savepoint is left. Else the notes would grow with each lock until the transaction ends.
    pub fn forget_savepoints(&self) {
        self.0.table.0.lock().held.forget_savepoints(self.0.id);
    }

    /// Gives back keys that nothing has which the transaction has written.
    pub fn give_back(&self, keys: &Want) {
        let mut state = self.0.table.0.lock();
        state.held.take_back(self.0.id, keys);
        state.wake(&Freed::of(keys));
    }

    /// Gives everything back before the transaction ends: it has failed.
    pub fn release(&self) {
        if !self.0.used.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut state = self.0.table.0.lock();
        let freed = state.held.release_transaction(self.0.id);
        state.wake(&freed);
    }

    /// The transaction replaces rows, old ids and new: what others hold on the old ones follows.
    pub fn follow(&self, table: TableId, replaced: &[(RowId, RowId)]) {
        self.0.table.0.lock().held.follow(self.0.id, table, replaced);
    }

    /// Rows that others hold so that this transaction would wait for them.
    pub fn taken_rows(&self, table: TableId, mode: RowMode) -> RoaringTreemap {
        self.0.table.0.lock().held.taken_rows(self.0.id, table, mode)
    }

    /// Whether other transactions are replacing or removing rows of the table.
    pub fn others_write(&self, table: TableId) -> bool {
        self.0.table.0.lock().held.others_write(self.0.id, table)
    }
}

impl Drop for TransactionLocks {
    fn drop(&mut self) {
        self.release();
    }
}

impl Waiting {
    /// Waits until everything is granted. Looks for circles again every `patrol` (`deadlock_timeout`): one may close
    /// without a new wait, when somebody ahead is granted a part.
    ///
    /// Errors: 40P01.
    pub async fn granted(mut self, patrol: Duration) -> Result<()> {
        loop {
            match tokio::time::timeout(patrol, &mut self.granted).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(Error::bug("a wait for a lock was forgotten")),
                Err(_) => {
                    let settled = self.owner.table.0.lock().settle(self.ticket);
                    settled?;
                }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.owner.table.0.lock().leave(self.ticket);
    }
}
