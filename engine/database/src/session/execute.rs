//! Running a planned statement, and ending transactions.

use std::{sync::Arc, time::Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use futures::{StreamExt, TryStreamExt};
use sepal_query::{
    StatementContext,
    ddl::{self, Ddl, Scope},
    dml::{Dml, DmlContext},
    explain::{execution_time, explain_lines},
    output::OutputColumn,
    planner::{TemporaryTables, parameter_values},
    sql::{ParameterTypes, StatementKind, prepare_query},
};
use sepal_types::{Error, Result, SqlState, SqlType, TableId, UniqueDef};

use super::{
    CopyIn, CopyOut, RowStream, Session,
    index_builds::Build,
    prepare::read_only_key,
    prepared::{Plan, PlanKind, Prepared, Query},
    utility::Utility,
};
use crate::tenant::changes_definitions;

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
            PlanKind::Explain { query, analyze } => self.run_explain(query, *analyze, &parameters).await,
            PlanKind::Dml { dml, context } => self.run_dml(dml, context, &parameters).await,
            PlanKind::Ddl => {
                let ddl = self.plan_ddl(prepared)?;
                self.run_ddl(ddl).await
            }
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
        let context = self.catalog_context(view)?;
        let run = move || match &plan.kind {
            PlanKind::Catalog(query) => query.run(&parameters, &context),
            _ => Err(Error::bug("not a catalog query")),
        };
        let ran = tokio::task::spawn_blocking(run).await;
        ran.map_err(|problem| Error::bug(format!("a catalog query panicked: {problem}")))?
    }

    /// Points a plan at what this statement sees.
    fn bind(&mut self, context: &StatementContext) -> Result<()> {
        let view = self.current_view()?;
        self.view.set(view.clone());
        context.snapshot.set(view);
        *self.search.write() = self.settings.lock().search();
        Ok(())
    }

    async fn run_query(&mut self, query: &Query, parameters: &[ArrayRef]) -> Result<RowStream> {
        self.bind(&query.context)?;
        if let Some(fast) = &query.fast
            && let Some(batch) = fast.run(&query.context, parameters)?
        {
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

    async fn run_explain(
        &mut self,
        query: &Query,
        analyze: bool,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        self.bind(&query.context)?;
        let values = parameter_values(parameters, parameters.len())?;
        let engine = &self.tenant.engine;
        let physical = self.cancel.guard(engine.physical(&query.plan, values)).await?;
        let mut totals = Vec::new();
        if analyze {
            let started = Instant::now();
            let batches: Vec<RecordBatch> =
                self.cancel.guard(async { engine.start(Arc::clone(&physical))?.try_collect().await }).await?;
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            totals = execution_time(started.elapsed(), rows);
        }
        let mut lines = explain_lines(&physical, analyze);
        lines.extend(totals);
        let rows = text_rows(&[("QUERY PLAN", lines)])?;
        let columns: Arc<[OutputColumn]> = Arc::from(vec![OutputColumn::new("QUERY PLAN", SqlType::Text)]);
        Ok(Outcome::Rows(RowStream::ready(columns, vec![rows], "EXPLAIN".to_owned(), self.cancel.clone())))
    }

    async fn run_dml(
        &mut self,
        dml: &Dml,
        context: &StatementContext,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        self.check_writable(dml.verb())?;
        if dml.changes_rows() {
            self.lock_table(dml.target()).await?;
        }
        self.bind(context)?;
        let values = parameter_values(parameters, parameters.len())?;
        let dml_context =
            DmlContext { engine: &self.tenant.engine, statement: context, store: &self.tenant.store };
        let written = self.cancel.guard(dml.run(&values, &dml_context)).await?;
        if let Some(open) = &mut self.open {
            open.apply(written.ops)?;
        }
        let tag = dml.tag(written.rows);
        match (written.returned, dml.columns()) {
            (Some(batches), Some(columns)) => {
                Ok(Outcome::Rows(RowStream::ready(Arc::from(columns), batches, tag, self.cancel.clone())))
            }
            _ => Ok(Outcome::Done { tag }),
        }
    }

    /// An autocommitted UPDATE or DELETE waits for its predecessors on the table. In an explicit transaction it
    /// does not: there the first committer wins.
    async fn lock_table(&mut self, table: TableId) -> Result<()> {
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

    fn plan_ddl(&mut self, prepared: &Prepared) -> Result<Ddl> {
        self.check_writable("this statement")?;
        let view = self.current_view()?;
        let store = Arc::clone(&self.tenant.store);
        let new_id = || store.next_object_id();
        let scope = Scope { snapshot: &view, environment: &self.environment, new_id: &new_id };
        match &prepared.statement.kind {
            StatementKind::DropIndexes { names, if_exists } => ddl::drop_indexes(names, *if_exists, &scope),
            StatementKind::Sql(statement) => ddl::plan_ddl(statement, &scope)?.ok_or_else(|| {
                let text = statement.to_string();
                let verb: String = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
                Error::unsupported(format!("{verb} is not supported"))
            }),
            _ => Err(Error::bug("a statement without a plan")),
        }
    }

    async fn run_ddl(&mut self, ddl: Ddl) -> Result<Outcome> {
        for (table, unique) in &ddl.verify {
            self.verify_unique(*table, unique).await?;
        }
        for notice in ddl.notices {
            self.notice("NOTICE", notice);
        }
        if let Some(open) = &mut self.open {
            open.apply(ddl.ops)?;
            open.builds.extend(ddl.builds.into_iter().map(|(table, index)| Build::new(table, index)));
        }
        Ok(Outcome::Done { tag: ddl.tag.to_owned() })
    }

    /// Errors: 23505 when rows of the table share a key that is to become unique.
    async fn verify_unique(&mut self, table: TableId, unique: &UniqueDef) -> Result<()> {
        let context = self.statement_context()?;
        let snapshot = context.snapshot.get();
        let Some(version) = snapshot.table(table) else {
            return Ok(());
        };
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = unique
            .columns
            .iter()
            .filter_map(|id| version.def.column_by_id(*id))
            .map(|column| quote(&column.name))
            .collect();
        let not_null: Vec<String> = columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
        let sql = format!(
            "SELECT {0} FROM {1} WHERE {2} GROUP BY {0} HAVING count(*) > 1 LIMIT 1",
            columns.join(", "),
            quote(&version.def.name),
            not_null.join(" AND ")
        );
        let mut query = sepal_query::dml::parse_query(&sql)?;
        let mut parameters = ParameterTypes::default();
        prepare_query(&mut query, &mut parameters, &[], &|_| None);
        let plan = self.tenant.engine.plan(&context, &TemporaryTables::default(), &query, &mut parameters)?;
        let found = self.cancel.guard(self.tenant.engine.collect(&plan, Vec::new())).await?;
        let Some(row) = found.iter().find(|batch| batch.num_rows() > 0) else {
            return Ok(());
        };
        let values: Vec<String> = row.columns().iter().map(first_value).collect();
        Err(Error::new(
            SqlState::UniqueViolation,
            format!("could not create unique index \"{}\"", unique.name),
        )
        .with_detail(format!(
            "Key ({})=({}) is duplicated.",
            columns.join(", ").replace('"', ""),
            values.join(", ")
        )))
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
            Utility::Reindex { name } => return self.reindex(name).await,
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
        let definitions = changes_definitions(&ops);
        let (store, base) = (Arc::clone(&self.tenant.store), open.base);
        let committed = tokio::task::spawn_blocking(move || store.commit(&base, ops)).await;
        drop(open.locks);
        let result: Result<()> = match committed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(problem) => Err(Error::bug(format!("a commit panicked: {problem}"))),
        };
        self.settings.lock().end(result.is_ok());
        result?;
        self.tenant.committed(definitions);
        self.build_all(open.builds).await
    }
}

/// The first value of a column as text, for a DETAIL.
fn first_value(column: &ArrayRef) -> String {
    let mut out = bytes::BytesMut::new();
    let ty = sepal_query::output::natural_type(column.data_type());
    match sepal_query::values::encode_text(column.as_ref(), 0, &ty, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => "?".to_owned(),
    }
}

/// Text columns as a batch.
fn text_rows(columns: &[(&str, Vec<String>)]) -> Result<RecordBatch> {
    let arrays = columns.iter().map(|(name, values)| {
        let array: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        (*name, array)
    });
    RecordBatch::try_from_iter(arrays).map_err(sepal_query::arrow_error)
}
