//! ALTER TABLE where it has a table's rows written anew: another type of a column, or a new one that is computed.
//!
//! Called by `define` with definitions that are planned. In the transaction's view the table is emptied, gets its new
//! definition, and then its rows again, chunk by chunk: a commit like that of TRUNCATE and COPY. Whoever reads an older
//! snapshot, by AS OF too, sees the rows as they were.

use std::sync::Arc;

use sepal_query::{
    ddl::Ddl,
    dml::{
        DmlContext, Rewriting, check_default_settled, check_generated, check_generated_settled, missing_value,
    },
};
use sepal_storage::{Op, Snapshot, TableVersion};
use sepal_types::{ColumnDef, Error, IndexMethod, Result, SqlState};

use super::{Session, index_builds::Build};
use crate::blocking::blocking;

impl Session {
    /// Whether the generated columns of new definitions can be computed. Errors: 42P17, 42804, and the planner's.
    pub(super) fn check_generated(&mut self, ddl: &Ddl) -> Result<()> {
        for op in &ddl.ops {
            let (Op::CreateTable(def) | Op::AlterTable(def)) = op else { continue };
            if def.columns.iter().all(|column| column.expression().is_none()) {
                continue;
            }
            let statement = self.statement_context()?;
            let (engine, store) = (&self.engine, &self.tenant.store);
            check_generated(def, &DmlContext { engine, statement: &statement, store })?;
        }
        Ok(())
    }

    /// Whether what new columns are made of means the same outside of the session's time zone.
    ///
    /// Errors: 42P17 for a generated column, 0A000 for texts of times without an offset.
    pub(super) fn check_settled(&mut self, ddl: &Ddl) -> Result<()> {
        for op in &ddl.ops {
            let (Op::CreateTable(def) | Op::AlterTable(def)) = op else { continue };
            let old = self.current_view()?.table(def.id).cloned();
            let old = |column: &ColumnDef| old.as_ref()?.def.column_by_id(column.id);
            let zone = self.time_zone();
            let is_new = |column: &&ColumnDef| old(column).is_none_or(|old| old.default != column.default);
            def.columns.iter().filter(is_new).try_for_each(|column| check_default_settled(column, zone))?;
            let is_new =
                |column: &ColumnDef| old(column).and_then(ColumnDef::expression) != column.expression();
            if def.columns.iter().any(is_new) {
                let statement = self.statement_context()?;
                let (engine, store) = (&self.engine, &self.tenant.store);
                check_generated_settled(def, is_new, &DmlContext { engine, statement: &statement, store })?;
            }
        }
        Ok(())
    }

    /// Evaluates what new columns are to the rows that are there, of which the plan has the SQL. `planned` is what it
    /// was made on.
    ///
    /// Errors: 0A000 for a default that is another one for each row, and the default's own.
    pub(super) fn fill_missing(&mut self, ddl: &mut Ddl, planned: &Snapshot) -> Result<()> {
        for op in &mut ddl.ops {
            let Op::AlterTable(def) = op else { continue };
            let Some(old) = planned.table(def.id) else { continue };
            for place in 0..def.columns.len() {
                let column = &def.columns[place];
                let Some(sql) = &column.missing else { continue };
                if old.def.column_by_id(column.id).is_some() {
                    continue;
                }
                let statement = self.statement_context()?;
                let (engine, store) = (&self.engine, &self.tenant.store);
                let value =
                    missing_value(def, column, sql, &DmlContext { engine, statement: &statement, store })?;
                def.columns[place].missing = value;
            }
        }
        Ok(())
    }

    /// What is to become of the rows, where a definition says that they are to be written anew.
    ///
    /// Errors: 2BP01 for a table that a pipeline reads, 40001 for rows that a REPEATABLE READ transaction does not see,
    /// 55006 for rows of which a foreign key is to be asked at the commit.
    pub(super) fn rewriting(&mut self, ddl: &Ddl) -> Result<Option<Rewriting>> {
        let Some(rewrite) = &ddl.rewrite else { return Ok(None) };
        let new = ddl.ops.iter().find_map(|op| match op {
            Op::AlterTable(def) if def.id == rewrite.table => Some(Arc::new(def.clone())),
            _ => None,
        });
        let old = self.current_view()?.table(rewrite.table).cloned();
        let (Some(new), Some(old)) = (new, old) else {
            return Err(Error::bug("rows are to be written anew, and there is no table for them"));
        };
        if old.def.captured {
            let message = format!("cannot alter table {} because a pipeline reads it", old.def.name);
            return Err(Error::new(SqlState::DependentObjectsStillExist, message)
                .with_detail(
                    "Its rows would have to be written anew, and the pipeline would deliver them all.",
                )
                .with_hint("DROP PIPELINE first, and create it again afterwards."));
        }
        self.check_seen(&old)?;
        // What is deferred names rows by the ids that they would lose.
        let mut deferred = self.open.iter().flat_map(|open| &open.deferred);
        if deferred.any(|deferred| deferred.is_about_rows_of(rewrite.table)) {
            let message =
                format!("cannot ALTER TABLE \"{}\" because it has pending trigger events", old.def.name);
            return Err(Error::new(SqlState::ObjectInUse, message)
                .with_hint("SET CONSTRAINTS ALL IMMEDIATE before it asks what was deferred."));
        }
        let statement = self.statement_context()?;
        let (engine, store) = (&self.engine, &self.tenant.store);
        let context = DmlContext { engine, statement: &statement, store };
        Rewriting::prepare(old, new, rewrite, &context).map(Some)
    }

    /// A transaction that stays with its snapshot does not see what others have committed since: it would be lost.
    fn check_seen(&self, old: &TableVersion) -> Result<()> {
        let Some(open) = self.open.as_ref().filter(|open| open.repeatable) else { return Ok(()) };
        let head = self.tenant.store.snapshot();
        let same = match (head.table(old.def.id), open.base.table(old.def.id)) {
            (Some(newest), Some(base)) => Arc::ptr_eq(newest, base),
            (newest, base) => newest.is_none() && base.is_none(),
        };
        if same {
            return Ok(());
        }
        let message = "could not serialize access due to concurrent update";
        Err(Error::new(SqlState::SerializationFailure, message))
    }

    /// Fills the table, which the transaction's view has empty under its new definition.
    ///
    /// Errors: 22P02 and its kin for a value that cannot be cast, 23502, 23505, 53200, 57014.
    pub(super) async fn rewrite(&mut self, rewriting: Rewriting) -> Result<()> {
        let rewriting = Arc::new(rewriting);
        for chunk in 0..rewriting.chunks() {
            self.cancel.check()?;
            let (work, tenant) = (Arc::clone(&rewriting), Arc::clone(&self.tenant));
            let engine = Arc::clone(&self.engine);
            let insertions = move || work.insertions(chunk, &engine, &tenant.store);
            for op in blocking("rewriting a table", insertions).await? {
                if let Some(open) = &mut self.open {
                    open.apply(vec![op]).map_err(as_index_build)?;
                }
            }
        }
        let def = rewriting.def();
        let vector = |method: &IndexMethod| matches!(method, IndexMethod::Vector(_));
        let indexes = def.indexes.iter().filter(|index| index.valid && vector(&index.method));
        let builds = indexes.map(|index| Build::again(def.id, index.id));
        if let Some(open) = &mut self.open
            && rewriting.chunks() > 0
        {
            open.builds.extend(builds);
        }
        Ok(())
    }
}

/// A key that two rows have now, as PostgreSQL words it: there the index is built after the rows.
fn as_index_build(error: Error) -> Error {
    let name = error.message().strip_prefix("duplicate key value violates unique constraint ");
    let (SqlState::UniqueViolation, Some(name)) = (error.state(), name) else { return error };
    let detail = error.detail().unwrap_or_default().replace(" already exists.", " is duplicated.");
    Error::new(SqlState::UniqueViolation, format!("could not create unique index {name}")).with_detail(detail)
}
