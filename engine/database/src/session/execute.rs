//! Running a planned statement.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use futures::{StreamExt, TryStreamExt};
use sepal_query::{
    StatementContext,
    dml::Dml,
    output::{OutputColumn, conform},
    planner::parameter_values,
};
use sepal_types::{Error, Result, SqlState, SqlType};

use super::{
    CopyIn, CopyOut, RowStream, Session,
    past::Moments,
    prepare::read_only_key,
    prepared::{Plan, PlanKind, Prepared, Query},
    utility::Utility,
};
use crate::blocking::blocking;

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
        let parameters = match &prepared.given {
            Some(given) => vec![Arc::clone(given)],
            None => parameters,
        };
        self.cancel.arm();
        self.tenant.check_open()?;
        let _busy = self.tenant.background.throttle.busy();
        let alone = self.open.is_none();
        if alone {
            self.start(false);
        }
        self.show_running(&prepared.statement.sql, false);
        let outcome = match self.look_back_again(prepared, &parameters).await {
            Ok(()) => self.run(prepared, parameters).await,
            Err(error) => Err(error),
        };
        self.moments = Moments::default();
        if alone {
            self.end_implicit(outcome.is_ok()).await?;
        }
        outcome
    }

    async fn run(&mut self, prepared: &Arc<Prepared>, parameters: Vec<ArrayRef>) -> Result<Outcome> {
        self.begin_advisory();
        loop {
            let outcome = self.run_once(prepared, &parameters).await;
            if outcome.is_err() && self.await_advisory().await? {
                continue;
            }
            self.end_advisory();
            return outcome;
        }
    }

    /// The statement's plan, with its tables locked. Whoever altered one of them meanwhile is waited for, and then it is
    /// planned anew.
    async fn locked_plan(&mut self, prepared: &Prepared) -> Result<Arc<Plan>> {
        loop {
            let definitions = self.definitions();
            match self.current_plan(prepared) {
                Ok(plan) => {
                    self.lock_plan(&plan.locks).await?;
                    if plan.definitions == self.definitions() {
                        return Ok(plan);
                    }
                }
                Err(error) => {
                    self.await_definitions(&prepared.statement, &error).await?;
                    if definitions == self.definitions() {
                        return Err(error);
                    }
                }
            }
        }
    }

    pub(super) async fn run_once(
        &mut self,
        prepared: &Arc<Prepared>,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        let plan = self.locked_plan(prepared).await?;
        match &plan.kind {
            PlanKind::Utility(utility) => {
                let utility = utility.clone();
                self.run_utility(&utility).await
            }
            PlanKind::Catalog(_) => {
                let batch = self.run_catalog(Arc::clone(&plan), parameters.to_vec()).await?;
                let columns = plan.columns.clone().unwrap_or_else(|| Arc::from(Vec::new()));
                Ok(Outcome::Rows(RowStream::selected(columns, batch, self.cancel.clone())))
            }
            PlanKind::Query(query) => Ok(Outcome::Rows(self.run_query(query, parameters).await?)),
            PlanKind::CreateAs { create, source } => self.run_create_as(create, source, parameters).await,
            PlanKind::Explain { query, analyze } => self.run_explain(query, *analyze, parameters).await,
            PlanKind::ExplainWrite { dml, context, analyze } => {
                self.run_explain_write(dml, context, *analyze, parameters).await
            }
            PlanKind::Dml { dml, context } => self.run_dml(dml, context, parameters).await,
            PlanKind::Ddl => self.run_ddl(prepared).await,
            PlanKind::History => self.run_history(&prepared.statement).await,
            PlanKind::Unplanned => Err(Error::bug("a statement of the past was not planned")),
            PlanKind::Delivery => self.run_delivery(&prepared.statement, parameters).await,
            PlanKind::CopyIn { table, columns, format } => {
                Ok(Outcome::CopyIn(self.begin_copy_in(table, columns.clone(), format.clone()).await?))
            }
            PlanKind::CopyOut { query, format } => {
                let rows = self.run_query(query, parameters).await?;
                Ok(Outcome::CopyOut(CopyOut { rows, format: format.clone() }))
            }
            PlanKind::Declare { declare, source } => {
                self.run_declare(&prepared.statement, (declare, source.as_ref()), parameters).await
            }
            PlanKind::Execute(execute) => self.run_execute(execute).await,
            PlanKind::ExplainExecute { execute, explain } => self.run_explain_execute(execute, explain).await,
            PlanKind::Fetch(fetch) => self.run_fetch(fetch).await,
            PlanKind::Prepare => self.run_prepare(&prepared.statement).await,
        }
    }

    /// On a thread of its own: the evaluator does not pause, and whoever may cancel it must not wait for it.
    async fn run_catalog(&mut self, plan: Arc<Plan>, parameters: Vec<ArrayRef>) -> Result<RecordBatch> {
        let view = self.pinned_view()?;
        let context = self.catalog_context(view);
        let zone = self.engine.zone();
        let run = move || match &plan.kind {
            PlanKind::Catalog(query) => zone.within(|| query.run(&parameters, &context)),
            _ => Err(Error::bug("not a catalog query")),
        };
        blocking("a catalog query", run).await
    }

    /// Points a plan at what this statement sees.
    pub(super) fn bind(&mut self, context: &StatementContext) -> Result<()> {
        let view = self.pinned_view()?;
        self.shown.show(&self.view, view.clone());
        self.shown.show(&context.snapshot, view.clone());
        if context.catalog.is_kept() {
            self.shown.show_catalog(&context.catalog, self.catalogs.later(&view));
        }
        *self.search.write() = self.settings.lock().search();
        Ok(())
    }

    /// The rows of a query that has a way around its plan. On `None` the plan is bound and runs.
    fn run_unplanned(&mut self, query: &Query, parameters: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        if let Some(row) = &query.row {
            // It needs no snapshot, but under REPEATABLE READ this is the moment that counts.
            if self.open.as_ref().is_some_and(|open| open.repeatable && !open.queried) {
                self.pinned_view()?;
            }
            let values = parameter_values(parameters, parameters.len())?;
            return row.run(&self.engine, values).map(Some);
        }
        self.bind(&query.context)?;
        if let Some(lookup) = &query.lookup
            && let Some(batch) = lookup.run(&query.context, parameters)?
        {
            return Ok(Some(batch));
        }
        if let Some(point) = &query.point {
            let values = parameter_values(parameters, parameters.len())?;
            if let Some(batch) = point.find(&self.engine, &values)? {
                return conform(batch, &query.columns).map(Some);
            }
        }
        match &query.fast {
            Some(fast) => fast.run(&self.engine, &query.context, parameters),
            None => Ok(None),
        }
    }

    pub(super) async fn run_query(&mut self, query: &Query, parameters: &[ArrayRef]) -> Result<RowStream> {
        if let Some(locking) = &query.locking {
            let rows = self.select_for(locking, &query.context, parameters).await?;
            return Ok(self.collected(query, rows));
        }
        if !query.context.nested.is_empty() {
            let values = parameter_values(parameters, parameters.len())?;
            self.run_nested(&query.context, &values).await?;
        }
        if let Some(batch) = self.run_unplanned(query, parameters)? {
            return Ok(RowStream::selected(Arc::clone(&query.columns), batch, self.cancel.clone()));
        }
        let values = parameter_values(parameters, parameters.len())?;
        let engine = &self.engine;
        let physical = self.cancel.guard(engine.physical(&query.plan, values)).await?;
        let mut batches = engine.start(physical)?;
        if query.advisory {
            let rows = self.cancel.guard(async { batches.try_collect::<Vec<_>>().await }).await?;
            return Ok(self.collected(query, rows));
        }
        // The first batch is awaited here, so that an error in it comes before any row is described.
        let first = self.cancel.guard(async { batches.try_next().await }).await?;
        let batches = futures::stream::iter(first.map(Ok)).chain(batches);
        Ok(RowStream::running(Arc::clone(&query.columns), Box::pin(batches), self.cancel.clone()))
    }

    /// Rows that had to be there all before the first is sent.
    fn collected(&self, query: &Query, rows: Vec<RecordBatch>) -> RowStream {
        let batches = Box::pin(futures::stream::iter(rows.into_iter().map(Ok)));
        RowStream::running(Arc::clone(&query.columns), batches, self.cancel.clone())
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

    pub(super) fn check_writable(&self, verb: &str) -> Result<()> {
        if !self.principal.scopes.write {
            return Err(read_only_key());
        }
        let settings = self.settings.lock();
        let read_only = self.open.as_ref().is_some_and(|open| open.read_only);
        if read_only || settings.is_on("transaction_read_only") {
            return Err(Error::new(
                SqlState::ReadOnlySqlTransaction,
                format!("cannot execute {verb} in a read-only transaction"),
            ));
        }
        if settings.as_of().is_some() {
            let message = format!("cannot execute {verb} while sepal.as_of is set");
            return Err(Error::new(SqlState::ReadOnlySqlTransaction, message)
                .with_hint("The past cannot be changed. RESET sepal.as_of goes back to the present."));
        }
        Ok(())
    }

    async fn run_utility(&mut self, utility: &Utility) -> Result<Outcome> {
        let tag = match utility {
            Utility::Accepted(tag) => (*tag).to_owned(),
            Utility::Begin { isolation, read_only } => self.begin(isolation.as_deref(), *read_only)?,
            Utility::Commit { chain } => return self.commit_statement(*chain).await,
            Utility::Rollback { chain } => self.rollback_statement(*chain)?,
            Utility::Savepoint { name } => {
                let marks = (self.cursors.lock().mark(), self.settings.lock().mark());
                self.in_block("SAVEPOINT")?.savepoint(name.clone(), marks);
                "SAVEPOINT".to_owned()
            }
            Utility::Release { name } => {
                self.in_block("RELEASE SAVEPOINT")?.release(name)?;
                "RELEASE".to_owned()
            }
            Utility::RollbackTo { name } => {
                let (cursors, settings) = self.in_block("ROLLBACK TO SAVEPOINT")?.rollback_to(name)?;
                self.cursors.lock().close_since(cursors);
                self.settings.lock().undo_since(settings);
                "ROLLBACK".to_owned()
            }
            Utility::Set { name, value, local } => self.set(name, value.as_deref(), *local)?,
            Utility::SetTransaction { isolation, read_only, session } => {
                self.set_transaction(isolation.as_deref(), *read_only, *session)?
            }
            Utility::Reset { name: Some(name) } => {
                self.settings.lock().reset(name, false)?;
                "RESET".to_owned()
            }
            Utility::Reset { name: None } => {
                self.settings.lock().reset_all();
                "RESET".to_owned()
            }
            Utility::DiscardAll => {
                // A rollback would not bring back what it closes and unlocks.
                self.refuse_block("DISCARD ALL")?;
                self.settings.lock().reset_all();
                self.statements.clear();
                self.named.clear();
                self.cursors.lock().close_all();
                self.advisory.unlock_all();
                "DISCARD ALL".to_owned()
            }
            Utility::DiscardPlans => {
                self.statements.clear();
                "DISCARD PLANS".to_owned()
            }
            Utility::Deallocate { name } => self.deallocate(name.as_deref())?,
            Utility::Close { name: Some(name) } => {
                self.cursors.lock().close(name)?;
                "CLOSE CURSOR".to_owned()
            }
            Utility::Close { name: None } => {
                self.cursors.lock().close_all();
                "CLOSE CURSOR ALL".to_owned()
            }
            Utility::Maintenance(statement) => return self.run_maintenance(statement).await,
            Utility::SetConstraints { names, deferred } => {
                self.set_constraints(names.as_deref(), *deferred).await?
            }
            Utility::LockTables { names, mode, nowait } => self.lock_tables(names, *mode, *nowait).await?,
            Utility::Show { name } => return self.show(name),
        };
        Ok(Outcome::Done { tag })
    }

    pub(super) fn in_block(&mut self, statement: &str) -> Result<&mut super::Open> {
        self.open.as_mut().filter(|open| open.explicit).ok_or_else(|| {
            Error::new(
                SqlState::NoActiveSqlTransaction,
                format!("{statement} can only be used in transaction blocks"),
            )
        })
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
        if let (Some(value), true) = (value, name.eq_ignore_ascii_case("transaction_isolation")) {
            self.set_isolation(value)?;
            return Ok("SET".to_owned());
        }
        if let (Some(value), true) = (value, name.eq_ignore_ascii_case("transaction_read_only")) {
            let read_only = self.settings.lock().set(name, value, true)? == "on";
            self.set_read_only(read_only)?;
            return Ok("SET".to_owned());
        }
        let mut settings = self.settings.lock();
        match value {
            Some(value) => settings.set(name, value, local).map(|_| ())?,
            None => settings.reset(name, local)?,
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
}

/// Text columns as a batch.
pub(super) fn text_rows(columns: &[(&str, Vec<String>)]) -> Result<RecordBatch> {
    let arrays = columns.iter().map(|(name, values)| {
        let array: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        (*name, array)
    });
    RecordBatch::try_from_iter(arrays).map_err(sepal_query::arrow_error)
}
