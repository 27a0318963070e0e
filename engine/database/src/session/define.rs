//! Running definitions: DDL and CREATE TABLE AS. Vector indexes are built by `index_builds`, after the commit.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::Field,
};
use sepal_query::{
    ddl::{self, CreateAs, Ddl, Scope},
    dml::{rows_as, write_rows},
    output::OutputColumn,
    planner::TemporaryTables,
    sql::{ParameterTypes, Statement, StatementKind, prepare_query},
};
use sepal_storage::{Op, Snapshot};
use sepal_types::{EnumType, Error, Result, SqlState, TableDef, TableId, UniqueDef};

use super::{
    Outcome, Session,
    index_builds::Build,
    prepared::{PlanKind, Prepared},
    utility::command,
    write::serialization_failure,
};
use crate::locks::{NAMES, TableMode, Want};

impl Session {
    /// Plans a definition. With it, what it was planned on.
    fn plan_ddl(&mut self, prepared: &Prepared) -> Result<(Ddl, Snapshot)> {
        self.check_writable(&command(&prepared.statement.kind))?;
        let view = self.pinned_view()?;
        let store = Arc::clone(&self.tenant.store);
        let new_id = || store.next_object_id();
        let scope = Scope { snapshot: &view, environment: &self.environment, new_id: &new_id };
        let mut ddl = match &prepared.statement.kind {
            StatementKind::DropIndexes { names, if_exists } => ddl::drop_indexes(names, *if_exists, &scope),
            StatementKind::Sequence(statement) => ddl::plan_sequence(statement, &scope),
            StatementKind::Schema(statement) => ddl::plan_schema(statement, &scope),
            StatementKind::Sql(statement) => ddl::plan_ddl(statement, &scope)?.ok_or_else(|| {
                let text = statement.to_string();
                let verb: String = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
                Error::unsupported(format!("{verb} is not supported"))
            }),
            _ => Err(Error::bug("a statement without a plan")),
        }?;
        self.fill_missing(&mut ddl, &view)?;
        self.check_generated(&ddl)?;
        self.check_settled(&ddl)?;
        Ok((ddl, view))
    }

    /// Plans and runs a definition. Its tables and names are locked first; if definitions changed while that was waited
    /// for, or a table that is altered got its first rows, it is planned again.
    pub(super) async fn run_ddl(&mut self, prepared: &Prepared) -> Result<Outcome> {
        loop {
            let (ddl, seen) = self.plan_ddl(prepared)?;
            let planned = self.definitions();
            self.lock_definitions(&ddl.ops).await?;
            if planned == self.definitions() && self.has_rows_as(&seen, &ddl.ops)? {
                return self.apply_ddl(ddl, &prepared.statement).await;
            }
        }
    }

    /// Whether the tables that are altered have rows where they had some when that was planned: what a new column is to
    /// them hangs on it.
    ///
    /// Errors: 40001 for rows that a REPEATABLE READ transaction does not see.
    fn has_rows_as(&mut self, planned: &Snapshot, ops: &[Op]) -> Result<bool> {
        let (now, head) = (self.current_view()?, self.tenant.store.snapshot());
        let has = |snapshot: &Snapshot, table: TableId| {
            snapshot.table(table).is_some_and(|version| version.live_rows() > 0)
        };
        let altered = || ops.iter().filter(|op| matches!(op, Op::AlterTable(_))).map(Op::table);
        if let Some(open) = self.open.as_ref().filter(|open| open.repeatable)
            && altered().any(|table| has(&head, table) && !has(&open.base, table))
        {
            return Err(serialization_failure("update"));
        }
        Ok(altered().all(|table| has(planned, table) == has(&now, table)))
    }

    /// Errors: 40001 when a REPEATABLE READ transaction's snapshot has other definitions than there are.
    async fn lock_definitions(&mut self, ops: &[Op]) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let view = open.view()?.clone();
        for op in ops {
            let old = view.table(op.table()).map(|version| Arc::clone(&version.def));
            match (op, &old) {
                (Op::CreateTable(new), _) => {
                    self.lock_schema(&view, new).await?;
                    self.lock_names(new, None).await?;
                    self.lock_parents(new, None).await?;
                    self.lock_types(new, None).await?;
                }
                (Op::AlterTable(new), Some(old)) => {
                    self.lock_table(new.id, alter_mode(old, new)).await?;
                    if new.schema != old.schema {
                        self.lock_schema(&view, new).await?;
                    }
                    self.lock_names(new, Some(old.as_ref())).await?;
                    self.lock_parents(new, Some(old.as_ref())).await?;
                    self.lock_types(new, Some(old.as_ref())).await?;
                }
                (Op::DropTable(table) | Op::Truncate(table), Some(_)) => {
                    self.lock_table(*table, TableMode::AccessExclusive).await?;
                }
                _ => {}
            }
        }
        let head = self.tenant.store.snapshot();
        self.check_known_references(&head, ops)?;
        match self.open.as_ref().filter(|open| open.repeatable) {
            Some(open) => Ok(ops.iter().try_for_each(|op| head.check_base(&open.base, op))?),
            None => Ok(()),
        }
    }

    /// Keeps the schema of a definition from being dropped or renamed before that is committed.
    pub(super) async fn lock_schema(&mut self, view: &Snapshot, new: &TableDef) -> Result<()> {
        match view.schema(&new.environment, &new.schema).map(|schema| schema.id) {
            Some(schema) => self.lock_table(schema, TableMode::AccessShare).await.map(drop),
            None => Ok(()),
        }
    }

    /// Keeps the types that a definition's columns have, and had not before, from being altered or dropped before that
    /// is committed: each column has a copy of its type's definition.
    ///
    /// Errors: 40001 for a REPEATABLE READ transaction that knows another definition of one.
    pub(super) async fn lock_types(&mut self, new: &TableDef, old: Option<&TableDef>) -> Result<()> {
        let known: Vec<TableId> = old.iter().flat_map(|old| old.used_enums()).map(|ty| ty.id).collect();
        for ty in new.used_enums().filter(|ty| !known.contains(&ty.id)) {
            self.lock_table(ty.id, TableMode::AccessShare).await?;
            let repeatable = self.open.as_ref().is_some_and(|open| open.repeatable);
            if repeatable && !has_type(&self.latest()?, ty) {
                return Err(serialization_failure("update"));
            }
        }
        Ok(())
    }

    /// Locks the names that a definition brings: a second one of a name waits for the first one's end, as if for a row
    /// of Postgres' catalog.
    pub(super) async fn lock_names(&mut self, new: &TableDef, old: Option<&TableDef>) -> Result<()> {
        let same_schema = old.filter(|old| old.schema == new.schema);
        let known: Vec<&str> = same_schema.map(|old| names(old).collect()).unwrap_or_default();
        let hashes: Vec<u64> = names(new)
            .filter(|name| !known.contains(name))
            .map(|name| {
                let mut hasher = DefaultHasher::new();
                (new.environment.as_str(), new.schema.as_str(), name).hash(&mut hasher);
                hasher.finish()
            })
            .collect();
        self.lock(Want::keys(NAMES, hashes)).await.map(drop)
    }

    async fn apply_ddl(&mut self, mut ddl: Ddl, statement: &Statement) -> Result<Outcome> {
        let rewriting = self.rewriting(&ddl)?;
        // Rows that are written anew are asked for their keys as they come.
        let anew = ddl.rewrite.as_ref().map(|rewrite| rewrite.table);
        for (table, unique) in ddl.verify.iter().filter(|(table, _)| Some(*table) != anew) {
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
        if let Some(rewriting) = rewriting {
            self.rewrite(rewriting).await?;
        }
        // Of what the table is now; on an error the transaction fails, and the operations with it.
        for (table, constraint) in ddl.hold {
            self.hold_constraint(table, constraint).await?;
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
        let view = self.pinned_view()?;
        if let Some(exists) = create.exists(&view, &self.environment)? {
            self.notice("NOTICE", exists);
            return Ok(Outcome::Done { tag: "CREATE TABLE AS".to_owned() });
        }
        let (columns, batches) = self.all_rows(source, parameters).await?;
        let id = self.tenant.store.next_object_id();
        let def = create.definition(&columns, (&view, &self.environment), id)?;
        self.lock_schema(&view, &def).await?;
        self.lock_names(&def, None).await?;
        self.lock_types(&def, None).await?;
        // Somebody may have made it while its rows were read.
        let view = self.current_view()?;
        if let Some(exists) = create.exists(&view, &self.environment)? {
            self.notice("NOTICE", exists);
            return Ok(Outcome::Done { tag: "CREATE TABLE AS".to_owned() });
        }
        if !def.used_enums().all(|ty| has_type(&view, ty)) {
            return Err(serialization_failure("update"));
        }
        let rows = rows_as(&def, &batches)?;
        let tag = format!("SELECT {}", rows.rows);
        let inserted = write_rows(&def, &rows, &self.tenant.store)?;
        if let Some(open) = &mut self.open {
            open.apply(std::iter::once(Op::CreateTable(def)).chain(inserted).collect())?;
        }
        Ok(Outcome::Done { tag })
    }

    /// A query's columns and all its rows.
    pub(super) async fn all_rows(
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
                let context = self.catalog_context(view);
                let batch = self.engine.zone().within(|| query.run(parameters, &context))?;
                let fields = query.schema().fields().iter();
                Ok((fields.map(|field| OutputColumn::from_field(field)).collect(), vec![batch]))
            }
            _ => Err(Error::bug("the rows of something that is no query")),
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
            "SELECT {0} FROM {1}.{2} WHERE {3} GROUP BY {0} HAVING count(*) > 1 LIMIT 1",
            columns.join(", "),
            quote(&version.def.schema),
            quote(&version.def.name),
            not_null.join(" AND ")
        );
        let mut query = sepal_query::dml::parse_query(&sql)?;
        let mut parameters = ParameterTypes::default();
        prepare_query(&mut query, &mut parameters, &[], &|_| None);
        let plan = self.engine.plan(&context, &TemporaryTables::default(), &query, &mut parameters)?;
        let found = self.cancel.guard(self.engine.collect(&plan, Vec::new())).await?;
        let Some(row) = found.iter().find(|batch| batch.num_rows() > 0) else {
            return Ok(());
        };
        let fields = row.schema_ref().fields().iter();
        let values: Vec<String> =
            row.columns().iter().zip(fields).map(|(column, field)| first_value(column, field)).collect();
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

/// Whether a snapshot has this definition of a type.
pub(super) fn has_type(snapshot: &Snapshot, ty: &EnumType) -> bool {
    snapshot.table(ty.id).is_some_and(|found| found.def.enum_type() == Some(ty))
}

/// CREATE INDEX lets others read and keeps them from writing, as in Postgres; unlike there two of a table come one after
/// the other, since each writes the table's whole definition. Everything else has the table to itself.
fn alter_mode(old: &TableDef, new: &TableDef) -> TableMode {
    let same = TableDef { indexes: old.indexes.clone(), uniques: old.uniques.clone(), ..new.clone() } == *old;
    let kept = old.indexes.iter().all(|index| new.indexes.contains(index))
        && old.uniques.iter().all(|unique| new.uniques.contains(unique));
    if same && kept { TableMode::ShareRowExclusive } else { TableMode::AccessExclusive }
}

/// The names that a table takes up.
fn names(def: &TableDef) -> impl Iterator<Item = &str> {
    std::iter::once(def.name.as_str()).chain(def.indexes.iter().map(|index| index.name.as_str()))
}

/// The first value of a column as text, for a DETAIL.
fn first_value(column: &ArrayRef, field: &Field) -> String {
    let mut out = bytes::BytesMut::new();
    let ty = sepal_query::output::sql_type(field);
    match sepal_query::values::encode_text(column.as_ref(), 0, &ty, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => "?".to_owned(),
    }
}
