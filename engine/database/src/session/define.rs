//! Running definitions: DDL, CREATE TABLE AS, REINDEX, and the index builds that follow a commit.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use sepal_query::{
    ddl::{self, CreateAs, Ddl, Scope},
    dml::{rows_as, write_rows},
    output::OutputColumn,
    planner::TemporaryTables,
    sql::{ParameterTypes, StatementKind, prepare_query},
};
use sepal_storage::{Op, StoreError};
use sepal_types::{Error, IndexMethod, Result, SqlState, TableId, UniqueDef};

use super::{
    Outcome, Session,
    prepared::{PlanKind, Prepared},
};
use crate::maintain;

impl Session {
    pub(super) fn plan_ddl(&mut self, prepared: &Prepared) -> Result<Ddl> {
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

    pub(super) async fn run_ddl(&mut self, ddl: Ddl) -> Result<Outcome> {
        for (table, unique) in &ddl.verify {
            self.verify_unique(*table, unique).await?;
        }
        for notice in ddl.notices {
            self.notice("NOTICE", notice);
        }
        let mut at_once = false;
        if let Some(open) = &mut self.open {
            at_once = !open.explicit && open.ops.is_empty() && !ddl.builds.is_empty();
            open.apply(ddl.ops)?;
            open.builds.extend(ddl.builds);
        }
        if at_once {
            // A lone CREATE INDEX is committed and built before it is reported as done.
            self.commit().await?;
            self.start(false);
        }
        Ok(Outcome::Done { tag: ddl.tag.to_owned() })
    }

    /// CREATE TABLE … AS: the table and the rows of `source`, in one.
    pub(super) async fn run_create_as(
        &mut self,
        create: &CreateAs,
        source: &PlanKind,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        self.check_writable("CREATE TABLE AS")?;
        let view = self.current_view()?;
        if let Some(exists) = create.exists(&view, &self.environment)? {
            self.notice("NOTICE", exists);
            return Ok(Outcome::Done { tag: "CREATE TABLE AS".to_owned() });
        }
        let (columns, batches) = self.all_rows(source, parameters).await?;
        let store = &self.tenant.store;
        let def = create.definition(&columns, &self.environment, store.next_object_id())?;
        let rows = rows_as(&def, &batches)?;
        let tag = format!("SELECT {}", rows.rows);
        let inserted = write_rows(&def, &rows, store)?;
        if let Some(open) = &mut self.open {
            open.apply(std::iter::once(Op::CreateTable(def)).chain(inserted).collect())?;
        }
        Ok(Outcome::Done { tag })
    }

    /// A query's columns and all its rows.
    async fn all_rows(
        &mut self,
        source: &PlanKind,
        parameters: &[ArrayRef],
    ) -> Result<(Arc<[OutputColumn]>, Vec<RecordBatch>)> {
        match source {
            PlanKind::Query(query) => {
                let mut stream = self.run_query(query, parameters).await?;
                let mut batches = Vec::new();
                while let Some(batch) = stream.next().await {
                    batches.push(batch?);
                }
                Ok((Arc::clone(&query.columns), batches))
            }
            PlanKind::Catalog(query) => {
                let view = self.current_view()?;
                let batch = query.run(parameters, &self.catalog_context(view)?)?;
                let fields = query.schema().fields().iter();
                Ok((fields.map(|field| OutputColumn::from_field(field)).collect(), vec![batch]))
            }
            _ => Err(Error::bug("CREATE TABLE AS over something that is no query")),
        }
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

    /// Builds one index and makes it usable; on failure takes its definition back.
    pub(super) async fn build(&mut self, table: TableId, index: TableId) -> Result<()> {
        let (tenant, cancel, pid) = (Arc::clone(&self.tenant), self.cancel.clone(), self.pid);
        let built =
            tokio::task::spawn_blocking(move || maintain::build_index(&tenant, table, index, pid, &cancel))
                .await
                .map_err(|problem| Error::bug(format!("an index build panicked: {problem}")))
                .flatten();
        let tenant = Arc::clone(&self.tenant);
        let usable = built.is_ok();
        let settled = tokio::task::spawn_blocking(move || settle_index(&tenant.store, table, index, usable))
            .await
            .map_err(|problem| Error::bug(format!("marking an index panicked: {problem}")))
            .flatten();
        self.tenant.committed(true);
        built.and(settled)
    }

    pub(super) async fn reindex(&mut self, name: &str) -> Result<Outcome> {
        self.check_writable("REINDEX")?;
        let view = self.current_view()?;
        let owner = view.tables().find(|version| {
            version.def.environment == *self.environment
                && (version.def.name == name || version.def.indexes.iter().any(|index| index.name == name))
        });
        let Some(owner) = owner else {
            return Err(Error::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist")));
        };
        let mut def = owner.def.as_ref().clone();
        let mut builds = Vec::new();
        let (table, whole_table) = (def.id, def.name == name);
        for index in def.indexes.iter_mut().filter(|index| whole_table || index.name == name) {
            if matches!(index.method, IndexMethod::Vector(_)) {
                index.id = self.tenant.store.next_object_id();
                index.valid = false;
                builds.push((table, index.id));
            }
        }
        let ops = if builds.is_empty() { Vec::new() } else { vec![Op::AlterTable(def)] };
        self.run_ddl(Ddl { ops, builds, tag: "REINDEX", ..Ddl::default() }).await
    }
}

/// Marks an index usable, or removes it. Repeats when another change of the table comes between.
fn settle_index(
    store: &sepal_storage::TenantStore,
    table: TableId,
    index: TableId,
    usable: bool,
) -> Result<()> {
    loop {
        let snapshot = store.snapshot();
        let Some(version) = snapshot.table(table) else {
            return Ok(());
        };
        let mut def = version.def.as_ref().clone();
        if usable {
            def.indexes
                .iter_mut()
                .filter(|candidate| candidate.id == index)
                .for_each(|found| found.valid = true);
        } else {
            def.indexes.retain(|candidate| candidate.id != index);
        }
        match store.commit(&snapshot, vec![Op::AlterTable(def)]) {
            Err(StoreError::WriteConflict { .. }) => {}
            other => return other.map(|_| ()).map_err(Into::into),
        }
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
