//! Running definitions: DDL and CREATE TABLE AS. Vector indexes are built by `index_builds`, after the commit.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use sepal_query::{
    ddl::{self, CreateAs, Ddl, Scope},
    dml::{rows_as, write_rows},
    output::OutputColumn,
    planner::TemporaryTables,
    sql::{ParameterTypes, Statement, StatementKind, prepare_query},
};
use sepal_storage::Op;
use sepal_types::{Error, Result, SqlState, TableId, UniqueDef};

use super::{
    Outcome, Session,
    index_builds::Build,
    prepared::{PlanKind, Prepared},
};

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

    pub(super) async fn run_ddl(&mut self, mut ddl: Ddl, statement: &Statement) -> Result<Outcome> {
        for (table, unique) in &ddl.verify {
            self.verify_unique(*table, unique).await?;
        }
        self.guard_captured(&mut ddl, statement).await?;
        for notice in ddl.notices {
            self.notice("NOTICE", notice);
        }
        if let Some(open) = &mut self.open {
            open.apply(ddl.ops)?;
            open.builds.extend(ddl.builds.into_iter().map(|(table, index)| Build::new(table, index)));
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
                let batch = query.run(parameters, &self.catalog_context(view))?;
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
