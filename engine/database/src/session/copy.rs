//! COPY: which rows go where. The bytes of its formats are the server's.

mod options;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use sepal_query::{
    CopyFormat,
    ddl::{identifier, relation_name},
    dml::{Checks, DmlContext, Generation, TargetRows, default_values, parse_query, write_rows},
    output::OutputColumn,
    sql::ast::{self, CopySource, CopyTarget, Ident, SelectItem, SetExpr},
};
use sepal_storage::Op;
use sepal_types::{ColumnDef, Error, RelationName, Result, SqlState, TableDef};

use super::{RowStream, Session, prepare::Planned, prepared::PlanKind};
use crate::{
    background::{Posted, TaskKind},
    delivery::now_us,
    locks::TableMode,
    write_memory::Charge,
};

/// Rows of one memory chunk: batches are joined up to this.
const CHUNK_BYTES: usize = 256 << 20;

/// A COPY FROM STDIN under way. Nothing is written before [`Session::copy_finish`].
pub struct CopyIn {
    /// The columns in the order of the data.
    pub columns: Vec<OutputColumn>,
    pub format: CopyFormat,
    /// For the context of errors: `COPY items, line 3`.
    pub table: String,
    def: Arc<TableDef>,
    /// Positions in the table of `columns`.
    targets: Vec<usize>,
    generation: Generation,
    batches: Vec<TargetRows>,
    rows: u64,
    /// What `batches` hold of the tenant's memory for writes.
    charge: Charge,
    /// What the caller holds of it.
    arriving: Charge,
    /// In `pg_stat_progress_copy`.
    posted: Posted,
}

/// A COPY TO STDOUT.
pub struct CopyOut {
    pub rows: RowStream,
    pub format: CopyFormat,
}

impl CopyIn {
    /// Says how many bytes of rows that are not whole yet, or not taken, the caller holds now.
    ///
    /// Errors: 53200 when the tenant's unfinished writes hold too much.
    pub fn hold(&mut self, bytes: usize) -> Result<()> {
        let held = self.arriving.bytes();
        if bytes > held {
            return self.arriving.grow(bytes - held);
        }
        if bytes < held {
            self.arriving.shrink(held - bytes);
        }
        Ok(())
    }
}

/// Plans COPY.
pub(super) fn plan_copy(session: &mut Session, statement: &ast::Statement) -> Result<Planned> {
    let ast::Statement::Copy { source, to, target, options, legacy_options, .. } = statement else {
        return Err(Error::bug("not a COPY"));
    };
    if !matches!(target, CopyTarget::Stdin | CopyTarget::Stdout) {
        return Err(Error::new(
            SqlState::InsufficientPrivilege,
            "COPY to or from a file of the server is not allowed",
        )
        .with_hint(
            "Use COPY … FROM STDIN or TO STDOUT; psql's \\copy does that with a file of the client.",
        ));
    }
    let format = options::read(options, legacy_options)?;
    if *to {
        let query = match source {
            CopySource::Query(query) => query.clone(),
            CopySource::Table { table_name, columns } => session.table_query(table_name, columns)?,
        };
        let planned = session.plan_query(&ast::Statement::Query(query), &[])?;
        return match planned.kind {
            PlanKind::Query(query) => Ok(Planned {
                kind: PlanKind::CopyOut { query, format },
                parameters: planned.parameters,
                columns: None,
            }),
            _ => Err(Error::unsupported("COPY of a catalog query is not supported")
                .with_hint("SELECT it instead.")),
        };
    }
    let CopySource::Table { table_name, columns } = source else {
        return Err(Error::new(SqlState::SyntaxError, "COPY FROM takes a table, not a query"));
    };
    session.check_writable("COPY FROM")?;
    let table = relation_name(table_name)?;
    let view = session.current_view()?;
    let version = view.find(&session.environment, &table).ok_or_else(|| {
        Error::new(SqlState::UndefinedTable, format!("relation \"{table}\" does not exist"))
    })?;
    let names: Vec<String> = columns.iter().map(identifier).collect();
    let columns = copy_columns(&version.def, &names)?;
    options::check_columns(&format, &columns)?;
    let kind = PlanKind::CopyIn { table, columns, format };
    Ok(Planned { kind, parameters: Vec::new(), columns: None })
}

fn copy_columns(def: &TableDef, names: &[String]) -> Result<Vec<OutputColumn>> {
    if names.is_empty() {
        return Ok(def
            .columns
            .iter()
            .filter(|column| column.expression().is_none())
            .map(|column| OutputColumn::new(column.name.clone(), column.ty.clone()))
            .collect());
    }
    let mut columns: Vec<OutputColumn> = Vec::with_capacity(names.len());
    for name in names {
        let column = def.column(name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", def.name);
            Error::new(SqlState::UndefinedColumn, message)
        })?;
        if columns.iter().any(|earlier| earlier.name == *name) {
            return Err(Error::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        refuse_computed(column)?;
        columns.push(OutputColumn::new(name.clone(), column.ty.clone()));
    }
    Ok(columns)
}

/// Errors: 42P10 for a generated column.
fn refuse_computed(column: &ColumnDef) -> Result<()> {
    if column.expression().is_none() {
        return Ok(());
    }
    let message = format!("column \"{}\" is a generated column", column.name);
    Err(Error::new(SqlState::InvalidColumnReference, message)
        .with_detail("Generated columns cannot be used in COPY."))
}

fn table_query(table: &ast::ObjectName, columns: &[Ident]) -> Result<Box<ast::Query>> {
    let mut query = parse_query(&format!("SELECT * FROM {table}"))?;
    if !columns.is_empty()
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        let item = |ident: &Ident| SelectItem::UnnamedExpr(ast::Expr::Identifier(ident.clone()));
        select.projection = columns.iter().map(item).collect();
    }
    Ok(query)
}

impl Session {
    /// The query for the rows of COPY … TO: without the generated columns.
    fn table_query(&mut self, table: &ast::ObjectName, columns: &[Ident]) -> Result<Box<ast::Query>> {
        let view = self.current_view()?;
        let found = relation_name(table).ok().and_then(|name| view.find(&self.environment, &name));
        let Some(def) = found.map(|version| &version.def) else { return table_query(table, columns) };
        for column in columns.iter().filter_map(|ident| def.column(&identifier(ident))) {
            refuse_computed(column)?;
        }
        if !columns.is_empty() || def.columns.iter().all(|column| column.expression().is_none()) {
            return table_query(table, columns);
        }
        let plain = def.columns.iter().filter(|column| column.expression().is_none());
        let plain: Vec<Ident> = plain.map(|column| Ident::with_quote('"', &column.name)).collect();
        table_query(table, &plain)
    }

    pub(super) async fn begin_copy_in(
        &mut self,
        table: &RelationName,
        columns: Vec<OutputColumn>,
        format: CopyFormat,
    ) -> Result<CopyIn> {
        let mut locked = None;
        // Whoever altered it while the lock was waited for may have put another table in its place.
        let def = loop {
            let view = self.pinned_view()?;
            let version = view.find(&self.environment, table).ok_or_else(|| {
                Error::new(SqlState::UndefinedTable, format!("relation \"{table}\" does not exist"))
            })?;
            if locked == Some(version.def.id) {
                break Arc::clone(&version.def);
            }
            locked = Some(version.def.id);
            let id = version.def.id;
            self.lock_table(id, TableMode::RowExclusive).await?;
        };
        let position =
            |column: &OutputColumn| def.columns.iter().position(|candidate| candidate.name == column.name);
        let targets = columns.iter().filter_map(position).collect::<Vec<_>>();
        if targets.len() != columns.len() {
            return Err(Error::unsupported("cached plan must not change result type"));
        }
        let statement = self.statement_context()?;
        let context = DmlContext { engine: &self.engine, statement: &statement, store: &self.tenant.store };
        let generation = Generation::compile(&def, &context)?;
        let posted = self.tenant.tasks.post(self.pid.number(), TaskKind::Copy, Some(def.id), now_us());
        Ok(CopyIn {
            columns,
            format,
            table: table.name.clone(),
            def,
            targets,
            generation,
            batches: Vec::new(),
            rows: 0,
            charge: Charge::none(&self.memory),
            arriving: Charge::none(&self.memory),
            posted,
        })
    }

    /// Takes rows; the batch has `copy.columns`, each of `arrow_type(column.ty)`.
    ///
    /// Errors: 53200 when the tenant's unfinished writes hold too much; 57014; a default's own.
    pub async fn copy_rows(&mut self, copy: &mut CopyIn, batch: RecordBatch) -> Result<()> {
        self.cancel.check()?;
        let (bytes, rows) = (batch.get_array_memory_size(), batch.num_rows());
        copy.charge.grow(bytes)?;
        copy.posted.advance(bytes as u64);
        copy.posted.advance_rows(rows as u64);
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; copy.def.columns.len()];
        for (target, array) in copy.targets.iter().zip(batch.columns()) {
            arrays[*target] = Some(Arc::clone(array));
        }
        let mut context = None;
        let mut complete = Vec::with_capacity(arrays.len());
        for (array, column) in arrays.into_iter().zip(&copy.def.columns) {
            complete.push(match array {
                Some(array) => array,
                None => {
                    if context.is_none() {
                        context = Some(self.statement_context()?);
                    }
                    let Some(statement) = &context else {
                        return Err(Error::bug("no context for defaults"));
                    };
                    let dml = DmlContext { engine: &self.engine, statement, store: &self.tenant.store };
                    default_values(&copy.def, column, rows, &dml)?
                }
            });
        }
        let mut taken = TargetRows { arrays: complete, rows };
        copy.generation.fill(&copy.def, &mut taken, &self.engine)?;
        let computed =
            copy.def.columns.iter().zip(&taken.arrays).filter(|(column, _)| column.expression().is_some());
        copy.charge.grow(computed.map(|(_, array)| array.get_array_memory_size()).sum())?;
        copy.rows += rows as u64;
        copy.batches.push(taken);
        // A default may have called pg_sleep.
        self.cancel.rest().await
    }

    /// Writes the rows. The command tag.
    ///
    /// `last`: no statement follows in the implicit transaction, which may hold others before; it is committed
    /// now, so that the tag is not followed by an error that drivers overlook. Without one open, the COPY is a
    /// transaction of its own.
    ///
    /// Errors: 23503, 23505, 23514, 40001, 53100, … as for INSERT.
    pub async fn copy_finish(&mut self, copy: CopyIn, last: bool) -> Result<String> {
        if !copy.def.constraints.checks.is_empty() {
            self.check_copied(&Arc::clone(&copy.def), &copy.batches.clone()).await?;
        }
        let (ops, rows, table) = (self.copy_ops(&copy)?, copy.rows, Arc::clone(&copy.def));
        // The operations are charged to the transaction: the rows must not be counted twice.
        drop(copy);
        let alone = self.open.is_none();
        if alone {
            self.start(false);
        }
        let last = alone || (last && self.open.as_ref().is_some_and(|open| !open.explicit));
        let taken = self.take_copied_into(table, ops, last).await;
        if alone && taken.is_err() {
            self.roll_back();
        }
        taken?;
        if last {
            // The commit judges the rows; applying them to a view that nobody reads would do it twice.
            self.commit().await?;
        }
        Ok(format!("COPY {rows}"))
    }

    /// The table was locked when the COPY began, but for one that is a transaction of its own.
    async fn take_copied_into(&mut self, def: Arc<TableDef>, ops: Vec<Op>, last: bool) -> Result<()> {
        self.lock_table(def.id, TableMode::RowExclusive).await?;
        let view = self.current_view()?;
        let same = |now: &TableDef| now.columns == def.columns && now.constraints == def.constraints;
        if view.table(def.id).is_none_or(|version| !same(version.def.as_ref())) {
            return Err(Error::unsupported("cached plan must not change result type")
                .with_hint("The table was altered during the COPY: repeat it."));
        }
        self.take_copied(ops, last).await
    }

    /// Errors: 23502, 23514.
    async fn check_copied(&mut self, def: &TableDef, batches: &[TargetRows]) -> Result<()> {
        let (statement, tenant) = (self.statement_context()?, Arc::clone(&self.tenant));
        let engine = Arc::clone(&self.engine);
        let context = DmlContext { engine: &engine, statement: &statement, store: &tenant.store };
        let Some(checks) = Checks::prepare(def, &context)? else { return Ok(()) };
        let cancel = self.cancel.clone();
        for batch in batches {
            cancel.guard(checks.hold(def, batch, &context)).await?;
        }
        Ok(())
    }

    fn copy_ops(&self, copy: &CopyIn) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        let mut batches = copy.batches.as_slice();
        while !batches.is_empty() {
            let mut bytes = 0;
            let take = batches
                .iter()
                .take_while(|batch| {
                    bytes += batch.arrays.iter().map(Array::get_array_memory_size).sum::<usize>();
                    bytes <= CHUNK_BYTES
                })
                .count()
                .max(1);
            let (part, rest) = batches.split_at(take);
            ops.extend(write_rows(&copy.def, &join(part)?, &self.tenant.store)?);
            batches = rest;
        }
        Ok(ops)
    }

    /// The COPY failed or was broken off: its rows are gone, the table is as before.
    pub fn copy_abort(&mut self, copy: CopyIn) {
        drop(copy);
    }
}

fn join(batches: &[TargetRows]) -> Result<TargetRows> {
    if let [one] = batches {
        return Ok(one.clone());
    }
    let width = batches.first().map_or(0, |batch| batch.arrays.len());
    let arrays = (0..width)
        .map(|column| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.arrays[column].as_ref()).collect();
            concat(&parts).map_err(sepal_query::arrow_error)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(TargetRows { arrays, rows: batches.iter().map(|batch| batch.rows).sum() })
}
