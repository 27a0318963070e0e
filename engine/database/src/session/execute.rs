//! Running a planned statement, and ending transactions.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use futures::{StreamExt, TryStreamExt};
use sepal_query::{
    StatementContext,
    dml::{Dml, DmlContext, Written},
    output::OutputColumn,
    planner::parameter_values,
};
use sepal_storage::{Op, Snapshot, StoreError, TenantStore};
use sepal_types::{Error, Result, SqlState, SqlType, TableId};
use tokio::sync::oneshot;

use super::{
    CopyIn, CopyOut, RowStream, Session,
    prepare::read_only_key,
    prepared::{Plan, PlanKind, Prepared, Query},
    utility::Utility,
};
use crate::{tenant::changes_definitions, write_memory::op_bytes};

/// Commits up to this size are encoded on the thread that serves the connection: a hop to another costs more.
const INLINE_COMMIT_BYTES: usize = 64 << 10;

/// What a statement gave.
pub enum Outcome {
    CopyIn(CopyIn),
    CopyOut(CopyOut),
    /// Done; the command tag.
    Done {
        tag: String,
    },
    /// An empty statement.
    Empty,
    Rows(RowStream),
}

impl Session {
    /// Runs a prepared statement. `parameters` are arrays of length 1 of `arrow_type(prepared.parameters()[i])`.
    pub async fn execute(&mut self, prepared: &Arc<Prepared>, parameters: Vec<ArrayRef>) -> Result<Outcome> {
        self.cancel.arm();
        self.tenant.check_open()?;
        let _busy = self.tenant.background.throttle.busy();
        let alone = self.open.is_none();
        if alone {
            self.start(false);
        }
        let outcome = self.run(prepared, parameters).await;
        if alone {
            self.end_implicit(outcome.is_ok()).await?;
        }
        outcome
    }

    async fn run(&mut self, prepared: &Arc<Prepared>, parameters: Vec<ArrayRef>) -> Result<Outcome> {
        let plan = self.current_plan(prepared)?;
        match &plan.kind {
            PlanKind::Utility(utility) => {
                let utility = utility.clone();
                self.run_utility(&utility).await
            }
            PlanKind::Catalog(_) => {
                let batch = self.run_catalog(Arc::clone(&plan), parameters).await?;
                let columns = prepared.columns.clone().unwrap_or_else(|| Arc::from(Vec::new()));
                Ok(Outcome::Rows(RowStream::selected(columns, batch, self.cancel.clone())))
            }
            PlanKind::Query(query) => Ok(Outcome::Rows(self.run_query(query, &parameters).await?)),
            PlanKind::CreateAs { create, source } => self.run_create_as(create, source, &parameters).await,
            PlanKind::Explain { query, analyze } => self.run_explain(query, *analyze, &parameters).await,
            PlanKind::ExplainWrite { dml, context, analyze } => {
                self.run_explain_write(dml, context, *analyze, &parameters).await
            }
            PlanKind::Dml { dml, context } => self.run_dml(dml, context, &parameters).await,
            PlanKind::Ddl => {
                let ddl = self.plan_ddl(prepared)?;
                self.run_ddl(ddl, &prepared.statement).await
            }
            PlanKind::Delivery => self.run_delivery(&prepared.statement, &parameters).await,
            PlanKind::CopyIn { table, columns, format } => {
                Ok(Outcome::CopyIn(self.begin_copy_in(table, columns.clone(), format.clone())?))
            }
            PlanKind::CopyOut { query, format } => {
                let rows = self.run_query(query, &parameters).await?;
                Ok(Outcome::CopyOut(CopyOut { rows, format: format.clone() }))
            }
        }
    }

    /// On a thread of its own: the evaluator does not pause, and whoever may cancel it must not wait for it.
    async fn run_catalog(&mut self, plan: Arc<Plan>, parameters: Vec<ArrayRef>) -> Result<RecordBatch> {
        let view = self.current_view()?;
        let context = self.catalog_context(view);
        let run = move || match &plan.kind {
            PlanKind::Catalog(query) => query.run(&parameters, &context),
            _ => Err(Error::bug("not a catalog query")),
        };
        let ran = tokio::task::spawn_blocking(run).await;
        ran.map_err(|problem| Error::bug(format!("a catalog query panicked: {problem}")))?
    }

    /// Points a plan at what this statement sees.
    pub(super) fn bind(&mut self, context: &StatementContext) -> Result<()> {
        let view = self.current_view()?;
        self.view.set(view.clone());
        context.snapshot.set(view);
        *self.search.write() = self.settings.lock().search();
        Ok(())
    }

    /// The rows of a query that has a way around its plan. On `None` the plan is bound and runs.
    fn run_unplanned(&mut self, query: &Query, parameters: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        if let Some(row) = &query.row {
            let values = parameter_values(parameters, parameters.len())?;
            return row.run(&self.tenant.engine, values).map(Some);
        }
        self.bind(&query.context)?;
        if let Some(lookup) = &query.lookup
            && let Some(batch) = lookup.run(&query.context, parameters)?
        {
            return Ok(Some(batch));
        }
        match &query.fast {
            Some(fast) => fast.run(&self.tenant.engine, &query.context, parameters),
            None => Ok(None),
        }
    }

    pub(super) async fn run_query(&mut self, query: &Query, parameters: &[ArrayRef]) -> Result<RowStream> {
        if let Some(batch) = self.run_unplanned(query, parameters)? {
            return Ok(RowStream::selected(Arc::clone(&query.columns), batch, self.cancel.clone()));
        }
        let values = parameter_values(parameters, parameters.len())?;
        let engine = &self.tenant.engine;
        let physical = self.cancel.guard(engine.physical(&query.plan, values)).await?;
        let mut batches = engine.start(physical)?;
        // The first batch is awaited here, so that an error in it comes before any row is described.
        let first = self.cancel.guard(async { batches.try_next().await }).await?;
        let batches = futures::stream::iter(first.map(Ok)).chain(batches);
        Ok(RowStream::running(Arc::clone(&query.columns), Box::pin(batches), self.cancel.clone()))
    }

    async fn run_dml(
        &mut self,
        dml: &Dml,
        context: &StatementContext,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        let written = self.write(dml, context, parameters).await?;
        let tag = dml.tag(written.rows);
        match (written.returned, dml.columns()) {
            (Some(batches), Some(columns)) => {
                Ok(Outcome::Rows(RowStream::ready(Arc::from(columns), batches, tag, self.cancel.clone())))
            }
            _ => Ok(Outcome::Done { tag }),
        }
    }

    /// Runs a write and applies its operations to the transaction's view.
    pub(super) async fn write(
        &mut self,
        dml: &Dml,
        context: &StatementContext,
        parameters: &[ArrayRef],
    ) -> Result<Written> {
        self.check_writable(dml.verb())?;
        if dml.changes_rows() {
            self.lock_table(dml.target()).await?;
        }
        self.bind(context)?;
        let values = parameter_values(parameters, parameters.len())?;
        let dml_context =
            DmlContext { engine: &self.tenant.engine, statement: context, store: &self.tenant.store };
        let mut written = self.cancel.guard(dml.run(&values, &dml_context)).await?;
        if let Some(open) = &mut self.open {
            open.apply(std::mem::take(&mut written.ops))?;
        }
        Ok(written)
    }

    /// An autocommitted UPDATE or DELETE waits for its predecessors on the table. In an explicit transaction it
    /// does not: there the first committer wins.
    pub(super) async fn lock_table(&mut self, table: TableId) -> Result<()> {
        let held = |session: &Self| {
            session
                .open
                .as_ref()
                .is_none_or(|open| open.explicit || open.locks.iter().any(|(locked, _)| *locked == table))
        };
        if held(self) {
            return Ok(());
        }
        let lock = self.tenant.table_lock(table);
        let waiting = async { Ok(lock.lock_owned().await) };
        let limit = self.settings.lock().timeout("lock_timeout");
        let guard = match limit {
            None => self.cancel.guard(waiting).await?,
            Some(limit) => {
                self.cancel.guard(async { Ok(tokio::time::timeout(limit, waiting).await) }).await?.map_err(
                    |_| Error::new(SqlState::LockNotAvailable, "canceling statement due to lock timeout"),
                )??
            }
        };
        if let Some(open) = &mut self.open {
            open.locks.push((table, guard));
        }
        Ok(())
    }

    pub(super) fn check_writable(&self, verb: &str) -> Result<()> {
        if !self.principal.scopes.write {
            return Err(read_only_key());
        }
        let settings = self.settings.lock();
        let read_only = self.open.as_ref().is_some_and(|open| open.read_only)
            || settings.is_on("transaction_read_only")
            || settings.is_on("default_transaction_read_only");
        if read_only {
            return Err(Error::new(
                SqlState::ReadOnlySqlTransaction,
                format!("cannot execute {verb} in a read-only transaction"),
            ));
        }
        Ok(())
    }

    async fn run_utility(&mut self, utility: &Utility) -> Result<Outcome> {
        let tag = match utility {
            Utility::Accepted(tag) => (*tag).to_owned(),
            Utility::Begin { isolation, read_only } => self.begin(isolation.as_deref(), *read_only)?,
            Utility::Commit { chain } => return self.commit_statement(*chain).await,
            Utility::Rollback { chain } => self.rollback_statement(*chain),
            Utility::Savepoint { name } => {
                self.in_block("SAVEPOINT")?.savepoint(name.clone());
                "SAVEPOINT".to_owned()
            }
            Utility::Release { name } => {
                self.in_block("RELEASE SAVEPOINT")?.release(name)?;
                "RELEASE".to_owned()
            }
            Utility::RollbackTo { name } => {
                self.in_block("ROLLBACK TO SAVEPOINT")?.rollback_to(name)?;
                "ROLLBACK".to_owned()
            }
            Utility::Set { name, value, local } => self.set(name, value.as_deref(), *local)?,
            Utility::SetTransaction { isolation, read_only, session } => {
                self.set_transaction(isolation.as_deref(), *read_only, *session)?
            }
            Utility::Reset { name: Some(name) } => {
                self.settings.lock().reset(name)?;
                "RESET".to_owned()
            }
            Utility::Reset { name: None } => {
                self.settings.lock().reset_all();
                "RESET".to_owned()
            }
            Utility::DiscardAll => {
                self.settings.lock().reset_all();
                "DISCARD ALL".to_owned()
            }
            Utility::Deallocate => "DEALLOCATE".to_owned(),
            Utility::Maintenance(statement) => return self.run_maintenance(statement).await,
            Utility::Show { name } => return self.show(name),
        };
        Ok(Outcome::Done { tag })
    }

    fn in_block(&mut self, statement: &str) -> Result<&mut super::Open> {
        self.open.as_mut().filter(|open| open.explicit).ok_or_else(|| {
            Error::new(
                SqlState::NoActiveSqlTransaction,
                format!("{statement} can only be used in transaction blocks"),
            )
        })
    }

    fn begin(&mut self, isolation: Option<&str>, read_only: Option<bool>) -> Result<String> {
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
            open.repeatable = matches!(level.as_deref(), Some("repeatable read" | "serializable"));
            open.read_only = read_only.unwrap_or(false);
        }
        let mut settings = self.settings.lock();
        if let Some(level) = level {
            settings.set("transaction_isolation", &level, true)?;
        }
        if let Some(read_only) = read_only {
            settings.set("transaction_read_only", if read_only { "on" } else { "off" }, true)?;
        }
        Ok("BEGIN".to_owned())
    }

    fn set_transaction(
        &mut self,
        isolation: Option<&str>,
        read_only: Option<bool>,
        session: bool,
    ) -> Result<String> {
        let mut settings = self.settings.lock();
        let names = if session {
            ("default_transaction_isolation", "default_transaction_read_only")
        } else {
            ("transaction_isolation", "transaction_read_only")
        };
        if let Some(level) = isolation {
            settings.set(names.0, level, !session)?;
        }
        if let Some(read_only) = read_only {
            settings.set(names.1, if read_only { "on" } else { "off" }, !session)?;
        }
        drop(settings);
        if let Some(open) = self.open.as_mut().filter(|open| open.explicit && !session) {
            open.repeatable |= matches!(isolation, Some("repeatable read" | "serializable"));
            open.read_only = read_only.unwrap_or(open.read_only);
        }
        Ok("SET".to_owned())
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<String> {
        if local && !self.open.as_ref().is_some_and(|open| open.explicit) {
            self.notice(
                "WARNING",
                Error::new(
                    SqlState::NoActiveSqlTransaction,
                    "SET LOCAL can only be used in transaction blocks",
                ),
            );
        }
        let mut settings = self.settings.lock();
        match value {
            Some(value) => settings.set(name, value, local).map(|_| ())?,
            None => settings.reset(name)?,
        }
        Ok("SET".to_owned())
    }

    fn show(&self, name: &str) -> Result<Outcome> {
        let settings = self.settings.lock();
        let (columns, batch) = if name == "all" {
            let rows = settings.rows();
            let column = |get: fn(&sepal_query::catalog::SettingRow) -> String| {
                rows.iter().map(get).collect::<Vec<_>>()
            };
            let batch = text_rows(&[
                ("name", column(|row| row.name.clone())),
                ("setting", column(|row| row.setting.clone())),
                ("description", column(|row| row.short_desc.clone())),
            ])?;
            (
                ["name", "setting", "description"]
                    .map(|name| OutputColumn::new(name, SqlType::Text))
                    .to_vec(),
                batch,
            )
        } else {
            let value = settings.get(name).ok_or_else(|| {
                Error::new(
                    SqlState::UndefinedObject,
                    format!("unrecognized configuration parameter \"{name}\""),
                )
            })?;
            (vec![OutputColumn::new(name, SqlType::Text)], text_rows(&[(name, vec![value])])?)
        };
        Ok(Outcome::Rows(RowStream::ready(
            columns.into(),
            vec![batch],
            "SHOW".to_owned(),
            self.cancel.clone(),
        )))
    }

    async fn commit_statement(&mut self, chain: bool) -> Result<Outcome> {
        let Some(open) = self.open.as_ref().filter(|open| open.explicit) else {
            self.notice(
                "WARNING",
                Error::new(SqlState::NoActiveSqlTransaction, "there is no transaction in progress"),
            );
            return Ok(Outcome::Done { tag: "COMMIT".to_owned() });
        };
        let failed = open.failed;
        let tag = if failed {
            // COMMIT of a failed transaction is a ROLLBACK, and says so.
            self.roll_back();
            "ROLLBACK"
        } else {
            self.commit().await?;
            "COMMIT"
        };
        if chain {
            self.start(true);
        }
        Ok(Outcome::Done { tag: tag.to_owned() })
    }

    fn rollback_statement(&mut self, chain: bool) -> String {
        if !self.open.as_ref().is_some_and(|open| open.explicit) {
            self.notice(
                "WARNING",
                Error::new(SqlState::NoActiveSqlTransaction, "there is no transaction in progress"),
            );
        }
        self.roll_back();
        if chain {
            self.start(true);
        }
        "ROLLBACK".to_owned()
    }

    pub(super) fn roll_back(&mut self) {
        self.open = None;
        self.settings.lock().end(false);
    }

    /// Makes the transaction durable, then builds its vector indexes.
    ///
    /// Errors: 40001, 23505, 53100, …: nothing of the transaction is kept.
    pub(super) async fn commit(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let ops = open.take_ops();
        if ops.is_empty() {
            self.settings.lock().end(true);
            return Ok(());
        }
        if let Err(error) = self.check_room(&ops, !open.builds.is_empty()).await {
            self.settings.lock().end(false);
            return Err(error);
        }
        let definitions = changes_definitions(&ops);
        let after = std::mem::take(&mut open.after);
        let (store, base) = (Arc::clone(&self.tenant.store), open.base);
        let result = commit_ops(store, base, ops).await;
        drop(open.locks);
        drop(open.charge);
        self.settings.lock().end(result.is_ok());
        let snapshot = result?;
        self.tenant.committed(definitions, snapshot.lsn());
        self.follow(after, snapshot).await;
        self.build_all(open.builds).await
    }

    /// Waits for a flush where too much is not flushed yet. What adds no rows passes any quota.
    ///
    /// Errors: 53100 over the tenant's disk quota, or when it cannot be flushed; 57014 when cancelled meanwhile.
    async fn check_room(&mut self, ops: &[Op], builds: bool) -> Result<()> {
        if builds || ops.iter().any(|op| matches!(op, Op::Insert { .. })) {
            let more = op_bytes(ops) as u64;
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
async fn commit_ops(store: Arc<TenantStore>, base: Snapshot, ops: Vec<Op>) -> Result<Snapshot> {
    let (told, outcome) = oneshot::channel();
    let told = Box::new(move |settled| {
        // Nobody waits any more when the connection is gone; what was committed stays.
        let _ = told.send(settled);
    });
    let reads = |op: &Op| {
        matches!(op, Op::Delete { .. }) && base.table(op.table()).is_some_and(|version| version.def.captured)
    };
    let here = op_bytes(&ops) <= INLINE_COMMIT_BYTES && !ops.iter().any(reads);
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
        Ok(settled) => settled.map_err(Into::into),
        Err(_) => Err(Error::bug("a commit's leader left it without an outcome")),
    }
}

/// Text columns as a batch.
pub(super) fn text_rows(columns: &[(&str, Vec<String>)]) -> Result<RecordBatch> {
    let arrays = columns.iter().map(|(name, values)| {
        let array: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        (*name, array)
    });
    RecordBatch::try_from_iter(arrays).map_err(sepal_query::arrow_error)
}
