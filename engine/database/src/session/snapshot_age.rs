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

    /// Between two statements, while no result waits for its client: what plans were shown last is let go of, too. They
    /// are shown something newer when they run again.
    pub fn forget_shown(&mut self) {
        if self.cursors.lock().expire_in(Duration::ZERO).is_none() {
            self.shown.clear();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, run};

    /// A client that has gone away in the middle of its transaction.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_idle_transaction_keeps_nothing_of_what_its_statements_saw() {
        let fixture = Fixture::new_with(|options| options.max_snapshot_age = Some(Duration::ZERO));
        let mut session = fixture.session().await;
        let shows =
            |session: &Session| session.view.get().find(&session.environment, "t").map(|table| table.def.id);
        run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
        run(&mut session, "BEGIN; SELECT a + 1 FROM t").await;
        assert!(shows(&session).is_some());
        assert!(!session.expire_snapshot(), "READ COMMITTED goes on");
        session.forget_shown();
        assert!(shows(&session).is_none());
        assert_eq!(run(&mut session, "SELECT a + 1 FROM t").await, [2]);
        // A cursor may not have read all that it is to read.
        run(&mut session, "DECLARE c CURSOR FOR SELECT a FROM t").await;
        session.forget_shown();
        assert!(shows(&session).is_some());
    }
}
