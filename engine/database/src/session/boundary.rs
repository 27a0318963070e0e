//! The ends of a transaction: BEGIN with its modes, COMMIT, ROLLBACK, and what a commit does.

use std::sync::Arc;

use sepal_storage::{Op, Snapshot, StoreError, TenantStore};
use sepal_types::{Error, Result, SqlState};
use tokio::sync::oneshot;

use super::{Open, Outcome, Session};
use crate::tenant::changes_definitions;

/// Commits up to this size are encoded on the thread that serves the connection: a hop to another costs more.
const INLINE_COMMIT_BYTES: usize = 64 << 10;

impl Session {
    pub(super) fn begin(&mut self, isolation: Option<&str>, read_only: Option<bool>) -> Result<String> {
        if self.open.as_ref().is_some_and(|open| open.explicit) {
            self.notice(
                "WARNING",
                Error::new(SqlState::ActiveSqlTransaction, "there is already a transaction in progress"),
            );
            return Ok("BEGIN".to_owned());
        }
        if self.open.is_none() {
            self.start(true);
        }
        let level = match isolation {
            Some(level) => Some(level.to_owned()),
            None => self.settings.lock().get("default_transaction_isolation"),
        };
        if let Some(open) = &mut self.open {
            open.explicit = true;
            open.repeatable = level.as_deref().is_some_and(is_repeatable);
        }
        if let Some(level) = level {
            self.settings.lock().set("transaction_isolation", &level, true)?;
        }
        if let Some(read_only) = read_only {
            self.set_read_only(read_only)?;
        }
        Ok("BEGIN".to_owned())
    }

    /// Whether the open transaction may write.
    ///
    /// Errors: 25001 when one that may not has looked at something already.
    pub(super) fn set_read_only(&mut self, read_only: bool) -> Result<()> {
        if let Some(open) = &mut self.open {
            if !read_only {
                open.check_may_write()?;
            }
            open.read_only = read_only;
        }
        self.settings.lock().set("transaction_read_only", on_off(read_only), true).map(drop)
    }

    pub(super) fn set_transaction(
        &mut self,
        isolation: Option<&str>,
        read_only: Option<bool>,
        session: bool,
    ) -> Result<String> {
        if session {
            let mut settings = self.settings.lock();
            if let Some(level) = isolation {
                settings.set("default_transaction_isolation", level, false)?;
            }
            if let Some(read_only) = read_only {
                settings.set("default_transaction_read_only", on_off(read_only), false)?;
            }
            return Ok("SET".to_owned());
        }
        if let Some(level) = isolation {
            self.set_isolation(level)?;
        }
        if let Some(read_only) = read_only {
            self.set_read_only(read_only)?;
        }
        Ok("SET".to_owned())
    }

    /// The isolation of the open transaction: `SET TRANSACTION`, or `SET transaction_isolation`.
    ///
    /// Errors: 25001 once a statement has looked at a snapshot; 22023.
    pub(super) fn set_isolation(&mut self, level: &str) -> Result<()> {
        let repeatable = is_repeatable(level);
        if let Some(open) = self.open.as_mut().filter(|open| open.explicit) {
            if open.queried && open.repeatable != repeatable {
                return Err(Error::new(
                    SqlState::ActiveSqlTransaction,
                    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                ));
            }
            if open.has_savepoints() && open.repeatable != repeatable {
                return Err(Error::new(
                    SqlState::ActiveSqlTransaction,
                    "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction",
                ));
            }
            self.settings.lock().set("transaction_isolation", level, true)?;
            open.repeatable = repeatable;
            return Ok(());
        }
        self.settings.lock().set("transaction_isolation", level, true).map(drop)
    }

    /// The modes of the open transaction, which AND CHAIN hands on: its isolation, and whether it may only read.
    fn modes(&self) -> (Option<String>, bool) {
        let isolation = self.settings.lock().get("transaction_isolation");
        (isolation, self.open.as_ref().is_some_and(|open| open.read_only))
    }

    pub(super) async fn commit_statement(&mut self, chain: bool) -> Result<Outcome> {
        if chain {
            self.in_block("COMMIT AND CHAIN")?;
        }
        let (isolation, read_only) = self.modes();
        let (explicit, failed) =
            self.open.as_ref().map_or((false, false), |open| (open.explicit, open.failed));
        if !explicit {
            // The statements before it in a query string or a pipeline are committed all the same, as in Postgres
            // ("Multiple Statements in a Simple Query"): what comes after it cannot undo them.
            self.notice(
                "WARNING",
                Error::new(SqlState::NoActiveSqlTransaction, "there is no transaction in progress"),
            );
        }
        let tag = if failed {
            // COMMIT of a failed transaction is a ROLLBACK, and says so.
            self.roll_back();
            "ROLLBACK"
        } else {
            self.commit().await?;
            "COMMIT"
        };
        if chain {
            self.begin(isolation.as_deref(), Some(read_only))?;
        }
        Ok(Outcome::Done { tag: tag.to_owned() })
    }

    pub(super) fn rollback_statement(&mut self, chain: bool) -> Result<String> {
        if chain {
            self.in_block("ROLLBACK AND CHAIN")?;
        }
        let (isolation, read_only) = self.modes();
        if !self.open.as_ref().is_some_and(|open| open.explicit) {
            self.notice(
                "WARNING",
                Error::new(SqlState::NoActiveSqlTransaction, "there is no transaction in progress"),
            );
        }
        self.roll_back();
        if chain {
            self.begin(isolation.as_deref(), Some(read_only))?;
        }
        Ok("ROLLBACK".to_owned())
    }

    pub(super) fn roll_back(&mut self) {
        self.open = None;
        self.shown.clear();
        self.ended(false);
    }

    /// What the end of a transaction means to settings and cursors.
    fn ended(&self, committed: bool) {
        self.settings.lock().end(committed);
        self.cursors.lock().end_transaction(committed);
    }

    /// Makes the transaction durable, then builds its vector indexes.
    ///
    /// Errors: 40001, 23503, 23505, 53100, …: nothing of the transaction is kept.
    pub(super) async fn commit(&mut self) -> Result<()> {
        if let Err(error) = self.keep_cursors().await {
            self.roll_back();
            return Err(error);
        }
        if self.open.as_ref().is_some_and(|open| !open.deferred.is_empty())
            && let Err(error) = self.settle_deferred().await
        {
            self.roll_back();
            return Err(error);
        }
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        self.shown.clear();
        let ops = open.take_ops();
        if ops.is_empty() {
            self.ended(true);
            return Ok(());
        }
        // What its operations were charged with as they came is what they take.
        let bytes = open.charge.bytes();
        if let Err(error) = self.check_room(&ops, bytes, !open.builds.is_empty()).await {
            self.ended(false);
            return Err(error);
        }
        let definitions = changes_definitions(&ops);
        let Open { base, locks, charge, replaced, builds, after, .. } = open;
        let (tenant, replaced) = (Arc::clone(&self.tenant), replaced.into_statements());
        let settled = move |committed: &std::result::Result<Snapshot, StoreError>| {
            if let Ok(snapshot) = committed {
                // Before the locks go: whoever waited for one looks for what became of its rows, and at definitions.
                // Keys that others rely on, also those who began to after the statement, are those of new rows now.
                for (table, pairs) in &replaced {
                    locks.follow(*table, pairs);
                }
                tenant.updates.record(replaced);
                tenant.committed(definitions, snapshot.lsn());
            }
            // Here, not in the session: it may be gone by now, and the commit goes on.
            drop((locks, charge));
        };
        let result = commit_ops(Arc::clone(&self.tenant.store), base, (ops, bytes), settled).await;
        self.ended(result.is_ok());
        let snapshot = result?;
        self.follow(after, snapshot).await;
        self.build_all(builds).await
    }

    /// Waits for a flush where too much is not flushed yet. What adds no rows passes any quota.
    ///
    /// Errors: 53100 over the tenant's disk quota, or when it cannot be flushed; 57014 when cancelled meanwhile.
    async fn check_room(&mut self, ops: &[Op], bytes: usize, builds: bool) -> Result<()> {
        if builds || ops.iter().any(|op| matches!(op, Op::Insert { .. })) {
            let more = bytes as u64;
            if self.tenant.check_quota(more).is_err() {
                // What was deleted and dropped is given back by a flush.
                self.cancel.guard(self.tenant.flush()).await?;
                self.tenant.check_quota(more)?;
            }
        }
        if self.tenant.is_short_of_room() {
            self.cancel.guard(self.tenant.until_flushed()).await?;
        }
        Ok(())
    }
}

/// Waits for a group commit without a thread of its own, unless there is much to encode or something to read before.
/// `settled` runs as soon as it is over, on the leader's thread, whether or not anybody still waits.
async fn commit_ops(
    store: Arc<TenantStore>,
    base: Snapshot,
    (ops, bytes): (Vec<Op>, usize),
    settled: impl FnOnce(&std::result::Result<Snapshot, StoreError>) + Send + 'static,
) -> Result<Snapshot> {
    let (sender, outcome) = oneshot::channel();
    let told = Box::new(move |committed| {
        settled(&committed);
        // Nobody waits any more when the connection is gone; what was committed stays.
        let _ = sender.send(committed);
    });
    let reads = |op: &Op| {
        matches!(op, Op::Delete { .. }) && base.table(op.table()).is_some_and(|version| version.def.captured)
    };
    let here = bytes <= INLINE_COMMIT_BYTES && !ops.iter().any(reads);
    let panicked = |problem| Error::bug(format!("a commit panicked: {problem}"));
    if here {
        if store.submit(&base, ops, told)? {
            tokio::task::spawn_blocking(move || store.lead_submitted());
        }
    } else {
        let submit = move || {
            if store.submit(&base, ops, told)? {
                store.lead_submitted();
            }
            Ok::<_, StoreError>(())
        };
        tokio::task::spawn_blocking(submit).await.map_err(panicked)??;
    }
    match outcome.await {
        Ok(committed) => committed.map_err(Into::into),
        Err(_) => Err(Error::bug("a commit's leader left it without an outcome")),
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// SERIALIZABLE is a snapshot too: write skew is not detected.
pub(super) fn is_repeatable(level: &str) -> bool {
    matches!(level.to_ascii_lowercase().as_str(), "repeatable read" | "serializable")
}
