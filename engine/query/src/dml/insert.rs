//! INSERT: VALUES or a query, defaults, ON CONFLICT, RETURNING.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch},
        compute::concat_batches,
        datatypes::{Schema, SchemaRef},
    },
    logical_expr::LogicalPlan,
    scalar::ScalarValue,
    sql::sqlparser::ast::{self, SetExpr, TableObject},
};
use sepal_storage::Op;
use sepal_types::{
    ColumnDef, Error, Generated, Result, RowId, SqlState, SqlType, TableDef, TableId, UniqueDef,
};

use super::{
    DmlContext, Written,
    assign::{TargetRows, assign, check_not_null, stored_schema, write_rows_as},
    checks::Checks,
    conflict::{Conflict, Resolved},
    defaults::{default_expression, default_values, is_default},
    generation::Generation,
    returning::Returning,
};
use crate::{
    ddl::{object_name, relation_name},
    output::OutputColumn,
    planner::{TemporaryTables, ValueRows, undefined_table},
    sql::{ParameterTypes, expand_wildcards, prepare_query},
};

/// The rows to insert, and with ON CONFLICT what becomes of them.
#[derive(Debug)]
pub struct Proposal {
    proposed: TargetRows,
    resolved: Option<Resolved>,
}

impl Proposal {
    /// The rows that DO UPDATE finds in its way.
    pub fn locked(&self) -> &[RowId] {
        self.resolved.as_ref().map(|resolved| resolved.locked.as_slice()).unwrap_or_default()
    }

    /// The rows for whose sake DO NOTHING leaves others out.
    pub fn standing(&self) -> &[RowId] {
        self.resolved.as_ref().map(|resolved| resolved.standing.as_slice()).unwrap_or_default()
    }
}

/// A prepared INSERT.
#[derive(Debug)]
pub struct Insert {
    def: Arc<TableDef>,
    /// Of the rows as storage takes them.
    stored: SchemaRef,
    /// Positions in the table of the columns that the source gives, in the source's order.
    targets: Vec<usize>,
    /// `None`: DEFAULT VALUES, or VALUES of nothing but DEFAULT.
    source: Option<LogicalPlan>,
    /// The source's rows without its plan, where it is VALUES of constants and parameters.
    constant: Option<ValueRows>,
    /// How many rows without a source.
    bare_rows: usize,
    generation: Generation,
    conflict: Option<Conflict>,
    checks: Option<Checks>,
    returning: Option<Returning>,
}

impl Insert {
    /// Errors: 42P01, 42703, 42601 when lists differ in length, and the planner's.
    pub fn prepare(
        insert: &ast::Insert,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(Error::unsupported("INSERT INTO a table function is not supported"));
        };
        let name = relation_name(name)?;
        let snapshot = context.statement.snapshot.get();
        let version = snapshot
            .find(&context.statement.environment, &name)
            .ok_or_else(|| undefined_table(&name.to_string()))?;
        let def = Arc::clone(&version.def);
        let mut targets = target_columns(&def, &insert.columns)?;
        let mut bare_rows = 1;
        let source = match &insert.source {
            None => {
                targets.clear();
                None
            }
            Some(query) => {
                let mut query = query.clone();
                check_width(&query, &targets, insert.columns.is_empty())?;
                bare_rows = resolve_defaults(query.body.as_mut(), &def, &mut targets)?;
                let types: Vec<SqlType> =
                    targets.iter().map(|target| def.columns[*target].ty.clone()).collect();
                expand_wildcards(&mut query, &context.statement.table_columns());
                let columns = context.statement.column_types(&query);
                prepare_query(&mut query, parameters, &types, &columns);
                let no_tables = TemporaryTables::default();
                let mut plan = || context.engine.plan(context.statement, &no_tables, &query, parameters);
                if targets.is_empty() { None } else { Some(plan()?) }
            }
        };
        if let Some(plan) = &source {
            cut_targets(&mut targets, plan.schema().fields().len(), !insert.columns.is_empty())?;
        }
        refuse_generated(&def, &targets, insert.overwrite)?;
        let alias = insert.table_alias.as_ref().map(|alias| crate::ddl::identifier(&alias.alias));
        let conflict = match &insert.on {
            Some(ast::OnInsert::OnConflict(on)) => {
                Some(Conflict::prepare(on, &def, alias.as_deref(), parameters, context)?)
            }
            Some(other) => return Err(Error::unsupported(format!("INSERT …{other} is not supported"))),
            None => None,
        };
        let returning = match &insert.returning {
            Some(items) => Some(Returning::prepare(items, &def, alias.as_deref(), parameters, context)?),
            None => None,
        };
        let constant = source.as_ref().and_then(|plan| ValueRows::compile(context.engine, plan));
        let (stored, checks) = (stored_schema(&def), Checks::prepare(&def, context)?);
        let generation = Generation::compile(&def, context)?;
        Ok(Self {
            def,
            stored,
            targets,
            source,
            constant,
            bare_rows,
            generation,
            conflict,
            checks,
            returning,
        })
    }

    pub fn target(&self) -> TableId {
        self.def.id
    }

    /// Whether ON CONFLICT is about this constraint.
    pub fn gives_way(&self, unique: &UniqueDef) -> bool {
        self.conflict.as_ref().is_some_and(|conflict| conflict.is_about(unique))
    }

    pub fn source(&self) -> Option<&LogicalPlan> {
        self.source.as_ref()
    }

    pub fn explain_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("Insert on {}", self.def.name)];
        lines.extend(self.conflict.iter().flat_map(Conflict::explain_lines));
        lines
    }

    pub fn returning_columns(&self) -> Option<&[OutputColumn]> {
        self.returning.as_ref().map(Returning::columns)
    }

    /// Whether a row that it replaces may get another key.
    pub fn changes_keys(&self) -> bool {
        self.conflict.as_ref().is_some_and(|conflict| conflict.changes_keys(&self.def))
    }

    /// Runs the query for the rows, and finds those that are in their way.
    pub async fn find(&self, values: &[ScalarValue], context: &DmlContext<'_>) -> Result<Proposal> {
        let proposed = self.proposed(values, context).await?;
        self.resolve(proposed, values, context).await
    }

    /// Looks again for what is in the way of the same rows.
    pub async fn find_again(
        &self,
        proposal: Proposal,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Proposal> {
        self.resolve(proposal.proposed, values, context).await
    }

    async fn resolve(
        &self,
        proposed: TargetRows,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Proposal> {
        let resolved = match &self.conflict {
            None => None,
            Some(conflict) => Some(conflict.resolve(&self.def, &proposed, values, context).await?),
        };
        Ok(Proposal { proposed, resolved })
    }

    /// The operations, and what RETURNING shows.
    pub async fn write(
        &self,
        proposal: &Proposal,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Written> {
        let mut written = Written::default();
        let shown = match &proposal.resolved {
            None => &proposal.proposed,
            Some(resolved) => &resolved.rows,
        };
        if let Some(checks) = &self.checks {
            // Rows that ON CONFLICT leaves out or turns into an update are asked too.
            checks.hold(&self.def, &proposal.proposed, context).await?;
            if proposal.resolved.as_ref().is_some_and(|resolved| !resolved.replaced.is_empty()) {
                checks.hold(&self.def, shown, context).await?;
            }
        } else if proposal.resolved.is_some() {
            check_not_null(&self.def, &proposal.proposed)?;
        }
        if let Some(resolved) = &proposal.resolved
            && !resolved.replaced.is_empty()
        {
            written.ops.push(Op::Delete { table: self.def.id, rows: resolved.replaced.clone() });
        }
        if let Some(insert) = write_rows_as(&self.def, Arc::clone(&self.stored), shown, context.store)? {
            if let (Op::Insert { first_row, .. }, Some(resolved)) = (&insert, &proposal.resolved) {
                let replaced = resolved.places.iter();
                written.replaced =
                    replaced.map(|(row, place)| (*row, RowId(first_row.0.saturating_add(*place)))).collect();
            }
            written.ops.push(insert);
        }
        written.rows = u64::try_from(shown.rows).unwrap_or(u64::MAX);
        if let Some(returning) = &self.returning {
            written.returned = Some(returning.run(&self.def, shown, values, context).await?);
        }
        Ok(written)
    }

    /// The rows as they would be inserted: source values assigned, the rest defaulted or computed.
    async fn proposed(&self, values: &[ScalarValue], context: &DmlContext<'_>) -> Result<TargetRows> {
        let (given, rows) = match &self.source {
            None => (None, self.bare_rows),
            Some(plan) => {
                let batch = match &self.constant {
                    Some(constant) => constant.run(context.engine, values)?,
                    None => collect(plan, values, context).await?,
                };
                let rows = batch.num_rows();
                (Some((batch, plan.schema().fields().clone())), rows)
            }
        };
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; self.def.columns.len()];
        if let Some((batch, fields)) = &given {
            for ((target, array), field) in self.targets.iter().zip(batch.columns()).zip(fields.iter()) {
                let column = &self.def.columns[*target];
                arrays[*target] = Some(context.engine.zone().within(|| assign(array, field, column))?);
            }
        }
        let fill = |(array, column): (Option<ArrayRef>, &ColumnDef)| match array {
            Some(array) => Ok(array),
            None => default_values(&self.def, column, rows, context),
        };
        let arrays = arrays.into_iter().zip(&self.def.columns).map(fill).collect::<Result<Vec<_>>>()?;
        let mut proposed = TargetRows { arrays, rows };
        self.generation.fill(&self.def, &mut proposed, context.engine)?;
        Ok(proposed)
    }
}

/// A query's rows as one batch.
async fn collect(
    plan: &LogicalPlan,
    values: &[ScalarValue],
    context: &DmlContext<'_>,
) -> Result<RecordBatch> {
    let batches = context.engine.collect(plan, values.to_vec()).await?;
    let schema = match batches.first() {
        Some(batch) => batch.schema(),
        None => Arc::new(Schema::new(plan.schema().fields().clone())),
    };
    concat_batches(&schema, &batches).map_err(crate::error::arrow)
}

/// Of the columns that are written as many as the rows have values.
///
/// Errors: 42601 for more values than columns, and for fewer where the columns were `named`.
fn cut_targets(targets: &mut Vec<usize>, width: usize, named: bool) -> Result<()> {
    if width > targets.len() {
        let message = "INSERT has more expressions than target columns";
        return Err(Error::new(SqlState::SyntaxError, message));
    }
    if width < targets.len() && named {
        let message = "INSERT has more target columns than expressions";
        return Err(Error::new(SqlState::SyntaxError, message));
    }
    targets.truncate(width);
    Ok(())
}

/// GENERATED ALWAYS takes no value of its own: a column with an expression never, an identity column not without
/// OVERRIDING SYSTEM VALUE.
fn refuse_generated(def: &TableDef, targets: &[usize], overriding: bool) -> Result<()> {
    let computed = |target: &&usize| def.columns[**target].expression().is_some();
    if let Some(column) = targets.iter().find(computed).map(|target| &def.columns[*target]) {
        let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
        return Err(Error::new(SqlState::GeneratedAlways, message)
            .with_detail(format!("Column \"{}\" is a generated column.", column.name)));
    }
    if overriding {
        return Ok(());
    }
    let always = |target: &&usize| def.columns[**target].generated == Some(Generated::IdentityAlways);
    let Some(column) = targets.iter().find(always).map(|target| &def.columns[*target]) else {
        return Ok(());
    };
    let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
    Err(Error::new(SqlState::GeneratedAlways, message)
        .with_detail(format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", column.name))
        .with_hint("Use OVERRIDING SYSTEM VALUE to override."))
}

fn target_columns(def: &TableDef, columns: &[ast::ObjectName]) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..def.columns.len()).collect());
    }
    let mut targets = Vec::with_capacity(columns.len());
    for name in columns {
        let name = object_name(name)?;
        let position = def.columns.iter().position(|column| column.name == name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", def.name);
            Error::new(SqlState::UndefinedColumn, message)
        })?;
        if targets.contains(&position) {
            return Err(Error::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        targets.push(position);
    }
    Ok(targets)
}

/// VALUES rows must all be as wide as the first, and no wider than the target list.
fn check_width(query: &ast::Query, targets: &[usize], implicit: bool) -> Result<()> {
    let SetExpr::Values(values) = query.body.as_ref() else {
        return Ok(());
    };
    let width = values.rows.first().map_or(0, |row| row.len());
    if values.rows.iter().any(|row| row.len() != width) {
        return Err(Error::new(SqlState::SyntaxError, "VALUES lists must all be the same length"));
    }
    if width > targets.len() {
        return Err(Error::new(SqlState::SyntaxError, "INSERT has more expressions than target columns"));
    }
    if width < targets.len() && !implicit {
        return Err(Error::new(SqlState::SyntaxError, "INSERT has more target columns than expressions"));
    }
    Ok(())
}

/// DEFAULT in VALUES: a column that is DEFAULT in every row leaves the list; a lone one becomes its expression.
/// Returns the number of rows.
fn resolve_defaults(body: &mut SetExpr, def: &TableDef, targets: &mut Vec<usize>) -> Result<usize> {
    let SetExpr::Values(values) = body else {
        return Ok(0);
    };
    let width = values.rows.first().map_or(0, |row| row.len());
    for position in (0..width).rev() {
        let column = &def.columns[targets[position]];
        let defaults = values.rows.iter().filter(|row| is_default(&row[position])).count();
        if defaults == values.rows.len() {
            targets.remove(position);
            for row in &mut values.rows {
                row.content.remove(position);
            }
        } else if defaults > 0 {
            for row in values.rows.iter_mut().filter(|row| is_default(&row[position])) {
                row[position] = default_expression(def, column)?;
            }
        }
    }
    Ok(values.rows.len())
}
