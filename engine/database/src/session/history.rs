//! Running statements about the past: CREATE SNAPSHOT, DROP SNAPSHOT, CREATE TABLE … CLONE. Also the rows of the views
//! `sepal_snapshots` and `sepal_history`.
//!
//! A snapshot's name is durable at once and no part of a transaction. A clone is: it is a definition like any other,
//! committed with the transaction, and shares the segments of the table that it was made from.

use std::sync::Arc;

use sepal_query::{
    catalog::history::{HistoryRow, HistoryRows, SnapshotRow},
    ddl::{Scope, clone_definition, clone_exists, relation_name},
    planner::undefined_table,
    sql::{
        Statement, StatementKind,
        history::{CloneTable, History},
    },
};
use sepal_storage::{Op, Snapshot, TenantStore};
use sepal_types::{ColumnId, Error, Result, SqlState, TableId};

use super::{Outcome, Session, define::has_type, prepare::write_only_key, write::serialization_failure};
use crate::{blocking::blocking, maintain};

const MINUTE_US: i64 = 60_000_000;

impl Session {
    pub(super) async fn run_history(&mut self, statement: &Statement) -> Result<Outcome> {
        let StatementKind::History(history) = &statement.kind else {
            return Err(Error::bug("a plan for another statement"));
        };
        match history.as_ref() {
            History::CreateSnapshot { name, if_not_exists, comment } => {
                self.create_snapshot(name, *if_not_exists, comment.as_deref()).await
            }
            History::DropSnapshot { name, if_exists } => self.drop_snapshot(name, *if_exists).await,
            History::CloneTable(clone) => self.clone_table(clone).await,
        }
    }

    async fn create_snapshot(
        &mut self,
        name: &str,
        if_not_exists: bool,
        comment: Option<&str>,
    ) -> Result<Outcome> {
        self.check_writable("CREATE SNAPSHOT")?;
        self.check_alone("CREATE SNAPSHOT")?;
        let (tenant, environment) = (Arc::clone(&self.tenant), Arc::clone(&self.environment));
        let (name, comment) = (name.to_owned(), comment.map(str::to_owned));
        let by = self.principal.key_id.to_string();
        let create = move || maintain::create_snapshot(&tenant, &environment, &name, &by, comment.as_deref());
        match blocking("CREATE SNAPSHOT", create).await {
            Err(error) if if_not_exists && error.state() == SqlState::DuplicateObject => {
                let message = format!("{}, skipping", error.message());
                self.notice("NOTICE", Error::new(SqlState::DuplicateObject, message));
            }
            created => created?,
        }
        Ok(Outcome::Done { tag: "CREATE SNAPSHOT".to_owned() })
    }

    async fn drop_snapshot(&mut self, name: &str, if_exists: bool) -> Result<Outcome> {
        self.check_writable("DROP SNAPSHOT")?;
        self.check_alone("DROP SNAPSHOT")?;
        let (tenant, environment) = (Arc::clone(&self.tenant), Arc::clone(&self.environment));
        let name = name.to_owned();
        let work = move || {
            tenant.store.drop_snapshot(&environment, &name)?;
            tenant.count_files();
            Ok(())
        };
        match blocking("DROP SNAPSHOT", work).await {
            Err(error) if if_exists && error.state() == SqlState::UndefinedObject => {
                let message = format!("{}, skipping", error.message());
                self.notice("NOTICE", Error::new(SqlState::UndefinedObject, message));
            }
            dropped => dropped?,
        }
        Ok(Outcome::Done { tag: "DROP SNAPSHOT".to_owned() })
    }

    /// Errors: 25001 in a transaction block, or after writes of the same query string: what is not committed yet would
    /// be missing from the snapshot.
    fn check_alone(&self, statement: &str) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.explicit || !open.ops.is_empty()) {
            let message = format!("{statement} cannot run inside a transaction block");
            return Err(Error::new(SqlState::ActiveSqlTransaction, message)
                .with_detail("The names of snapshots take effect at once and cannot be rolled back.")
                .with_hint("Run it by itself: COMMIT first, or switch autocommit on."));
        }
        Ok(())
    }

    async fn clone_table(&mut self, clone: &CloneTable) -> Result<Outcome> {
        self.check_writable("CREATE TABLE CLONE")?;
        if !self.principal.scopes.read {
            return Err(write_only_key());
        }
        let done = || Outcome::Done { tag: "CREATE TABLE".to_owned() };
        let view = self.pinned_view()?;
        if let Some(notice) = clone_exists(clone, &view, &self.environment)? {
            self.notice("NOTICE", notice);
            return Ok(done());
        }
        let from = self.clone_source(clone).await?;
        let name = relation_name(&clone.source)?;
        let Some(source) = from.find(&self.environment, &name).cloned() else {
            if let Some(damage) = from.unreadable(&self.environment, &name) {
                return Err(damage.clone().into());
            }
            let error = undefined_table(&name.to_string());
            return Err(match clone.at {
                None => error,
                Some(_) => error.with_detail("There was no such table at the moment that AS OF names."),
            });
        };
        let store = Arc::clone(&self.tenant.store);
        // The moment may have taken a while to be read.
        let view = self.current_view()?;
        let def = {
            let new_id = || store.next_object_id();
            let scope = Scope { snapshot: &view, environment: &self.environment, new_id: &new_id };
            clone_definition(clone, &source.def, &scope)?
        };
        self.lock_schema(&view, &def).await?;
        self.lock_names(&def, None).await?;
        self.lock_types(&def, None).await?;
        // Somebody may have made it while that was waited for.
        let view = self.current_view()?;
        if let Some(notice) = clone_exists(clone, &view, &self.environment)? {
            self.notice("NOTICE", notice);
            return Ok(done());
        }
        if !def.used_enums().all(|ty| has_type(&view, ty)) {
            return Err(serialization_failure("update"));
        }
        let (store, table, made) = (Arc::clone(&store), source.def.id, def.id);
        let mut ops = blocking("a clone", move || Ok(store.clone_ops(&from, table, def)?)).await?;
        if clone.at.is_none() {
            let counted = self.sequences.own().counted().into_iter();
            let counted = counted.filter(|((of, _), _)| *of == table);
            counted.for_each(|((_, column), next)| count_on(&mut ops, made, column, next));
        }
        if let Some(open) = &mut self.open {
            open.apply(ops)?;
            open.after.note_clone(maintain::lacks_indexes(&source));
        }
        Ok(done())
    }

    /// The snapshot that has the table. Where that is the head, its rows are flushed first: then there is nothing to be
    /// copied. A transaction that has written sees the table as it left it, with what is in memory copied.
    async fn clone_source(&mut self, clone: &CloneTable) -> Result<Snapshot> {
        if let Some(moment) = &clone.at {
            let asked = self.ask(std::slice::from_ref(moment), None).await?.pop().flatten();
            let Some(asked) = asked else {
                return Err(Error::new(
                    SqlState::UndefinedParameter,
                    "CREATE TABLE CLONE takes no parameters",
                )
                .with_hint("Write the moment as a literal."));
            };
            return self.snapshot_of(asked).await;
        }
        let view = self.current_view()?;
        let flushed = view.find(&self.environment, &relation_name(&clone.source)?).is_none_or(|version| {
            !version.chunks.iter().any(|reference| reference.chunk.segment().is_none())
        });
        let own = self.open.as_ref().is_some_and(|open| open.repeatable || !open.ops.is_empty());
        if flushed || own {
            return Ok(view);
        }
        let tenant = Arc::clone(&self.tenant);
        blocking("a checkpoint", move || maintain::checkpoint(&tenant)).await?;
        Ok(self.tenant.store.snapshot().searching(self.search_path()))
    }
}

/// What only the transaction has counted, of a table that it made or began to count anew, storage does not know.
fn count_on(ops: &mut Vec<Op>, table: TableId, column: ColumnId, next: i64) {
    ops.retain(|op| match op {
        Op::SetSequence { table: of, column: at, .. } => (*of, *at) != (table, column),
        _ => true,
    });
    ops.push(Op::SetSequence { table, column, next });
}

/// What the views show to a session of the environment.
pub(super) fn rows(store: &TenantStore, environment: &str) -> HistoryRows {
    let named = store.snapshots().into_iter().filter(|named| named.environment == environment);
    let snapshots = named.map(|named| SnapshotRow {
        name: named.name,
        at: named.time_us,
        lsn: named.lsn.0,
        created_at: named.created_us,
        created_by: named.by,
        comment: named.comment,
        rows: named.rows,
        bytes: named.bytes,
    });
    let (span, policy) = (store.history(), store.history_policy());
    let history = HistoryRow {
        oldest_at: span.oldest_us,
        oldest_lsn: span.oldest_lsn.0,
        versions: span.versions as u64,
        bytes: span.bytes,
        keep_minutes: u64::try_from(policy.keep_us / MINUTE_US).unwrap_or(0),
        keep_versions: policy.keep_versions as u64,
        max_bytes: policy.max_bytes,
    };
    HistoryRows { snapshots: snapshots.collect(), history: Some(history) }
}
