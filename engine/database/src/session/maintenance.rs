//! VACUUM, ANALYZE, REINDEX and CHECKPOINT.
//!
//! None of them locks anybody out: VACUUM and REINDEX write beside what is read, and exchange it. They are not part
//! of a transaction; what they have done when they are cancelled stays done, as in PostgreSQL for all tables but the
//! last.

use std::sync::Arc;

use sepal_query::sql::{Maintenance, NamedTable, Reindexed};
use sepal_types::{
    ColumnDef, ColumnId, Error, PUBLIC_SCHEMA, RelationName, Result, SqlState, TableDef, TableId,
};

use super::{Outcome, Session, prepare::read_only_key};
use crate::{
    background::TaskKind,
    blocking::blocking,
    delivery::{now_us, system_tables::SYSTEM_ENVIRONMENT},
    maintain::{self, Vacuumed},
    statistics::{self, KnownColumn},
    tenant::OpenTenant,
};

/// A table to work on, and its columns for ANALYZE; none: all.
struct Target {
    def: Arc<TableDef>,
    columns: Vec<ColumnId>,
}

impl Session {
    pub(super) async fn run_maintenance(&mut self, statement: &Maintenance) -> Result<Outcome> {
        if !self.principal.scopes.write {
            return Err(read_only_key());
        }
        let tag = match statement {
            Maintenance::Vacuum { full, analyze, verbose, tables } => {
                self.leave_transaction("VACUUM").await?;
                let targets = self.targets(tables)?;
                self.vacuum(&targets, *full, *verbose, tables.is_empty()).await?;
                if *analyze {
                    self.analyze(&targets, *verbose).await?;
                }
                "VACUUM"
            }
            Maintenance::Analyze { verbose, tables } => {
                let targets = self.targets(tables)?;
                self.analyze(&targets, *verbose).await?;
                "ANALYZE"
            }
            Maintenance::Reindex { concurrently, what, .. } => {
                if matches!(what, Reindexed::Database(_) | Reindexed::Schema(_)) {
                    self.refuse_block(reindex_name(what))?;
                } else if *concurrently {
                    self.refuse_block("REINDEX CONCURRENTLY")?;
                }
                return self.reindex(what).await;
            }
            Maintenance::Checkpoint => {
                self.blocking("a checkpoint", |tenant| maintain::checkpoint(&tenant)).await?;
                "CHECKPOINT"
            }
        };
        Ok(Outcome::Done { tag: tag.to_owned() })
    }

    /// Errors: 25001 where the statement would be one of several in a transaction.
    pub(super) fn refuse_block(&self, statement: &str) -> Result<()> {
        let inside = self.open.as_ref().is_some_and(|open| open.explicit || !open.ops.is_empty());
        if !inside {
            return Ok(());
        }
        let message = format!("{statement} cannot run inside a transaction block");
        Err(Error::new(SqlState::ActiveSqlTransaction, message))
    }

    /// Lets go of the statement's own snapshot: it would keep what VACUUM is to remove.
    async fn leave_transaction(&mut self, statement: &str) -> Result<()> {
        self.refuse_block(statement)?;
        self.commit().await
    }

    /// The named tables; all of the environment when none is named.
    ///
    /// Errors: 42P01, 42703.
    fn targets(&mut self, named: &[NamedTable]) -> Result<Vec<Target>> {
        let view = self.current_view()?;
        if named.is_empty() {
            let own = view.tables().filter(|version| version.def.environment == *self.environment);
            let target = |def: &Arc<TableDef>| Target { def: Arc::clone(def), columns: Vec::new() };
            let mut all: Vec<Target> = own.map(|version| target(&version.def)).collect();
            all.sort_by(|one, other| one.def.name.cmp(&other.def.name));
            return Ok(all);
        }
        let mut targets = Vec::with_capacity(named.len());
        for NamedTable { table, columns } in named {
            let version = view.find(&self.environment, table).ok_or_else(|| {
                Error::new(SqlState::UndefinedTable, format!("relation \"{table}\" does not exist"))
            })?;
            let id = |name: &String| {
                let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
                let missing = || Error::new(SqlState::UndefinedColumn, message);
                version.def.column(name).map(|column| column.id).ok_or_else(missing)
            };
            let columns = columns.iter().map(id).collect::<Result<_>>()?;
            targets.push(Target { def: Arc::clone(&version.def), columns });
        }
        Ok(targets)
    }

    async fn vacuum(&mut self, targets: &[Target], full: bool, verbose: bool, all: bool) -> Result<()> {
        let (pid, cancel) = (self.pid.number(), self.cancel.clone());
        for target in targets {
            let (table, token) = (target.def.id, cancel.clone());
            let done = self
                .blocking("VACUUM", move |tenant| {
                    let done = maintain::vacuum(&tenant, table, full, pid, &token)?;
                    note_vacuum(&tenant, table, full)?;
                    Ok(done)
                })
                .await;
            let done = match done {
                // Dropped by somebody else meanwhile.
                Err(error) if all && error.state() == SqlState::UndefinedTable => continue,
                done => done?,
            };
            if verbose {
                self.tell(&target.def, &done);
            }
        }
        // What the session looked names up in would keep the segments that were replaced.
        self.shown.clear();
        if full {
            let forget = move |tenant: Arc<OpenTenant>| {
                // Of tables that were dropped, and where no table is left nothing has flushed that.
                maintain::checkpoint(&tenant)?;
                // What was known of deleted rows is in the statistics' own segments.
                vacuum_statistics(&tenant, pid, &cancel)?;
                let freed = tenant.store.forget_history()?;
                tenant.count_files();
                Ok(freed)
            };
            let freed = self.blocking("VACUUM", forget).await?;
            let message = "the history of all tables was let go of, but for named snapshots";
            let detail = format!("It held {} KiB.", freed.div_ceil(1024));
            self.notice("NOTICE", Error::new(SqlState::SuccessfulCompletion, message).with_detail(detail));
        }
        Ok(())
    }

    /// VERBOSE. Sepal has bytes where PostgreSQL has pages.
    fn tell(&mut self, def: &TableDef, done: &Vacuumed) {
        let name = format!("{}.{}.{}", self.environment, def.schema, def.name);
        let message = format!("finished vacuuming \"{name}\": index builds: {}", done.indexes_built);
        let detail = format!(
            "segments: {} before, {} now\nbytes: {} before, {} now\ntuples: {} removed, {} remain",
            done.segments_before,
            done.segments_after,
            done.bytes_before,
            done.bytes_after,
            done.rows_removed,
            done.rows_left
        );
        self.notice("INFO", Error::new(SqlState::SuccessfulCompletion, message).with_detail(detail));
    }

    async fn analyze(&mut self, targets: &[Target], verbose: bool) -> Result<()> {
        let (pid, cancel) = (self.pid.number(), self.cancel.clone());
        for target in targets {
            let (table, columns, token) = (target.def.id, target.columns.clone(), cancel.clone());
            let rows = self
                .blocking("ANALYZE", move |tenant| {
                    let step = |_: &ColumnDef| token.check();
                    analyze(&tenant, table, &columns, pid, &step)
                })
                .await?;
            if let (true, Some(rows)) = (verbose, rows) {
                let message = format!(
                    "\"{}\": {rows} live rows, {} at most in sample",
                    target.def.name,
                    rows.min(statistics::SAMPLED_ROWS)
                );
                self.notice("INFO", Error::new(SqlState::SuccessfulCompletion, message));
            }
        }
        Ok(())
    }

    /// On a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(Arc<OpenTenant>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let tenant = Arc::clone(&self.tenant);
        blocking(what, move || work(tenant)).await
    }
}

/// As the errors call it.
fn reindex_name(what: &Reindexed) -> &'static str {
    match what {
        Reindexed::Schema(_) => "REINDEX SCHEMA",
        _ => "REINDEX DATABASE",
    }
}

/// What is in the statistics, by its columns; `None` when the table is gone.
fn analyze(
    tenant: &OpenTenant,
    table: TableId,
    columns: &[ColumnId],
    pid: i32,
    step: &dyn Fn(&ColumnDef) -> Result<()>,
) -> Result<Option<u64>> {
    let task = tenant.tasks.post(pid, TaskKind::Analyze, Some(table), now_us());
    let snapshot = tenant.store.snapshot();
    let Some(version) = snapshot.table(table) else { return Ok(None) };
    let wanted = |column: &&ColumnDef| columns.is_empty() || columns.contains(&column.id);
    let wanted: Vec<&ColumnDef> = version.def.columns.iter().filter(wanted).collect();
    task.phase("acquiring sample rows");
    task.total(version.bytes());
    let share = version.bytes() / wanted.len().max(1) as u64;
    let step = |column: &ColumnDef| {
        task.advance(share);
        step(column)
    };
    let found = statistics::analyze(version, &wanted, &step)?;
    let now = now_us();
    statistics::change(&tenant.store, table, |known| known.analyzed(&found, now))?;
    tenant.committed(false, tenant.store.snapshot().lsn());
    Ok(Some(version.live_rows()))
}

/// Remembers a VACUUM. After a full one no statistic holds a value of a row that is gone.
fn note_vacuum(tenant: &OpenTenant, table: TableId, full: bool) -> Result<()> {
    let snapshot = tenant.store.snapshot();
    let known = statistics::all(&snapshot)?.remove(&table).unwrap_or_default();
    let fresh: Vec<KnownColumn> = match snapshot.table(table) {
        Some(version) if full => {
            let of_known =
                |column: &&ColumnDef| known.columns.iter().any(|known| known.column == column.id.0);
            let columns: Vec<&ColumnDef> = version.def.columns.iter().filter(of_known).collect();
            statistics::analyze(version, &columns, &|_: &ColumnDef| Ok(()))?
        }
        _ => Vec::new(),
    };
    let now = now_us();
    statistics::change(&tenant.store, table, |known| {
        if full {
            known.columns.clone_from(&fresh);
        }
        known.vacuumed(now);
    })?;
    tenant.committed(false, tenant.store.snapshot().lsn());
    Ok(())
}

/// The table of statistics itself.
fn vacuum_statistics(tenant: &OpenTenant, pid: i32, cancel: &super::CancelToken) -> Result<()> {
    let snapshot = tenant.store.snapshot();
    let system = snapshot
        .find(SYSTEM_ENVIRONMENT, &RelationName::qualified(PUBLIC_SCHEMA, "statistics"))
        .map(|version| version.def.id);
    if let Some(table) = system {
        drop(snapshot);
        maintain::vacuum(tenant, table, true, pid, cancel)?;
    }
    Ok(())
}
