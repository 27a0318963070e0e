//! How long a transaction may hold its snapshot: what it sees keeps files that nobody else needs.
//!
//! Asked when a statement begins. The server also lets go while the client is silent ([`Session::expire_snapshot`]), so
//! that one who has gone away with a transaction open holds nothing for ever. READ COMMITTED takes a newer snapshot and
//! goes on; REPEATABLE READ cannot, and fails.

use std::time::Duration;

use sepal_types::{Error, Result, SqlState};

use super::{Session, TransactionStatus};

impl Session {
    /// How long results and snapshots may be held; `None` for no limit.
    pub fn max_snapshot_age(&self) -> Option<Duration> {
        self.database.max_snapshot_age()
    }

    /// How much longer the open transaction and its cursors may hold their snapshots; `None` without one, or without a
    /// limit.
    pub fn snapshot_expires_in(&self) -> Option<Duration> {
        let limit = self.max_snapshot_age()?;
        let cursors = self.cursors.lock().expire_in(limit);
        self.transaction_expires_in(limit).into_iter().chain(cursors).min()
    }

    fn transaction_expires_in(&self, limit: Duration) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| open.explicit && !open.too_old)?;
        Some(limit.saturating_sub(open.taken.elapsed()))
    }

    /// Between two statements: lets go of snapshots that are too old. A transaction that needs just that one has
    /// failed then. Whether one has: its portals are to go, too.
    pub fn expire_snapshot(&mut self) -> bool {
        let Some(limit) = self.max_snapshot_age() else { return false };
        self.cursors.lock().expire(limit);
        if self.transaction_expires_in(limit).is_none_or(|left| !left.is_zero()) {
            return false;
        }
        let head = self.tenant.store.snapshot();
        if let Some(open) = &mut self.open {
            open.let_go(head);
        }
        let failed = self.transaction_status() == TransactionStatus::Failed;
        if failed {
            self.cursors.lock().expire(Duration::ZERO);
        }
        failed
    }

    /// Errors: 72000.
    pub(super) fn check_snapshot_age(&self) -> Result<()> {
        let Some(open) = self.open.as_ref().filter(|open| open.explicit) else { return Ok(()) };
        let limit = self.database.max_snapshot_age().unwrap_or(Duration::MAX);
        if open.too_old || (open.stays() && open.taken.elapsed() > limit) {
            return Err(snapshot_too_old());
        }
        Ok(())
    }
}

/// 72000.
pub fn snapshot_too_old() -> Error {
    Error::new(SqlState::SnapshotTooOld, "snapshot too old")
        .with_detail(
            "What a snapshot shows keeps files from being removed, so it is held for some time only.",
        )
        .with_hint("Begin a new transaction. The server's setting max_snapshot_minutes says how long.")
}
