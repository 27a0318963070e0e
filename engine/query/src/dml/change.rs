//! UPDATE and DELETE: select row ids (and new values), then delete and insert row versions.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array},
        compute::{concat_batches, filter_record_batch, take},
        datatypes::{Field, Schema, UInt64Type},
    },
    logical_expr::LogicalPlan,
    scalar::ScalarValue,
    sql::sqlparser::ast::{
        self, Assignment, AssignmentTarget, Expr, FromTable, Ident, ObjectName, SelectItem,
        SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins, UpdateTableFromKind,
        WildcardAdditionalOptions,
    },
};
use roaring::RoaringTreemap;
use sepal_storage::Op;
use sepal_types::{ColumnId, Error, Generated, Result, RowId, SqlState, TableDef, TableId, UniqueDef};

use super::{
    DmlContext, Written,
    assign::{TargetRows, assign, write_rows},
    checks::Checks,
    defaults::{default_expression, is_default},
    generation::{Generation, affected},
    returning::{Beside, Returning, skeleton},
};
use crate::{
    ddl::{identifier, object_name, relation_name},
    output::OutputColumn,
    planner::{TemporaryTables, undefined_table},
    point::PointRead,
    sql::{ParameterTypes, expand_wildcards, prepare_expression, prepare_query},
    table::{ROW_ID, UserTable},
};

/// A prepared UPDATE or DELETE.
#[derive(Debug)]
pub struct Change {
    def: Arc<TableDef>,
    /// Row id, then every column: new values for an UPDATE, old ones for a DELETE that returns rows. Where rows are
    /// returned, the columns of FROM's relations follow.
    plan: LogicalPlan,
    /// The plan again, where its WHERE clause names a key.
    point: Option<PointRead>,
    update: bool,
    /// The columns that SET names, and those that are computed from them.
    assigned: Vec<ColumnId>,
    generation: Generation,
    /// Of an UPDATE.
    checks: Option<Checks>,
    returning: Option<Returning>,
}

/// The rows that a statement is to change: their ids, ascending, and what the plan gave for each.
#[derive(Debug)]
pub struct Matched {
    pub ids: Vec<RowId>,
    batch: RecordBatch,
}

impl Matched {
    /// Only those with these ids.
    pub fn restricted(self, to: &RoaringTreemap) -> Result<Self> {
        if self.ids.iter().all(|row| to.contains(row.0)) {
            return Ok(self);
        }
        let keep: BooleanArray = self.ids.iter().map(|row| Some(to.contains(row.0))).collect();
        let batch = filter_record_batch(&self.batch, &keep).map_err(crate::error::arrow)?;
        let ids = self.ids.into_iter().filter(|row| to.contains(row.0)).collect();
        Ok(Self { ids, batch })
    }
}

/// The target of a statement, found.
struct Target {
    def: Arc<TableDef>,
    /// The name by which the statement's expressions call it.
    name: Vec<Ident>,
    alias: Option<String>,
}

impl Change {
    pub fn update(
        update: &ast::Update,
        with: Option<&ast::With>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        if update.limit.is_some() || !update.order_by.is_empty() {
            return Err(Error::new(SqlState::SyntaxError, "UPDATE takes no ORDER BY and no LIMIT"));
        }
        let target = find_target(&update.table, context)?;
        let more = match &update.from {
            Some(UpdateTableFromKind::AfterSet(tables) | UpdateTableFromKind::BeforeSet(tables)) => {
                tables.clone()
            }
            None => Vec::new(),
        };
        let mut items = vec![row_id_item(&target)];
        items.extend(new_values(&target, &update.assignments, parameters)?);
        let assigned = assigned_columns(&target.def, &update.assignments)?;
        let assigned =
            assigned.iter().filter_map(|(name, _)| target.def.column(name)).map(|column| column.id);
        let assigned = Some(assigned.collect());
        Self::prepare(
            target,
            &update.table,
            more,
            update.selection.clone(),
            with,
            items,
            assigned,
            update.returning.as_deref(),
            parameters,
            context,
        )
    }

    pub fn delete(
        delete: &ast::Delete,
        with: Option<&ast::With>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        if delete.limit.is_some() || !delete.order_by.is_empty() {
            return Err(Error::new(SqlState::SyntaxError, "DELETE takes no ORDER BY and no LIMIT"));
        }
        let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
        let [table] = tables.as_slice() else {
            return Err(Error::new(SqlState::SyntaxError, "DELETE names one table")
                .with_hint("Join other tables with USING."));
        };
        let target = find_target(table, context)?;
        let mut items = vec![row_id_item(&target)];
        if delete.returning.is_some() {
            items.extend(target.def.columns.iter().map(|column| column_item(&target, &column.name)));
        }
        let more = delete.using.clone().unwrap_or_default();
        Self::prepare(
            target,
            table,
            more,
            delete.selection.clone(),
            with,
            items,
            None,
            delete.returning.as_deref(),
            parameters,
            context,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "the clauses of the statement, one by one")]
    fn prepare(
        target: Target,
        table: &TableWithJoins,
        more: Vec<TableWithJoins>,
        selection: Option<Expr>,
        with: Option<&ast::With>,
        mut items: Vec<SelectItem>,
        assigned: Option<Vec<ColumnId>>,
        returning: Option<&[SelectItem]>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        let first_beside = items.len();
        if returning.is_some() {
            refuse_namesakes(&target, &more)?;
            items.extend(more.iter().flat_map(relation_names).map(all_columns));
        }
        let mut query = skeleton(&target.def, None)?;
        if let Some(with) = with {
            check_names(with, &target.def)?;
            query.with = Some(with.clone());
            expand_wildcards(&mut query, &context.statement.table_columns());
        }
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.projection = items;
            select.from = std::iter::once(table.clone()).chain(more).collect();
            select.selection = selection;
        }
        let columns = context.statement.column_types(&query);
        prepare_query(&mut query, parameters, &[], &columns);
        let with_ids = UserTable::with_row_ids(Arc::clone(&target.def), context.statement);
        let temporary = TemporaryTables::default().instead_of(&target.def, Arc::new(with_ids));
        let plan = context.engine.plan(context.statement, &temporary, &query, parameters)?;
        let point = PointRead::compile(context.engine, &plan);
        let returning = match returning {
            Some(items) => Some(Returning::prepare_beside(
                items,
                &target.def,
                target.alias.as_deref(),
                &relations_beside(&plan, first_beside),
                parameters,
                context,
            )?),
            None => None,
        };
        let (update, mut assigned) = (assigned.is_some(), assigned.unwrap_or_default());
        let generation = Generation::after_change(&target.def, &assigned, context)?;
        let checks = if update { Checks::prepare(&target.def, context)? } else { None };
        assigned.extend(affected(&target.def, &assigned));
        Ok(Self { def: target.def, plan, point, update, assigned, generation, checks, returning })
    }

    pub fn target(&self) -> TableId {
        self.def.id
    }

    pub fn verb(&self) -> &'static str {
        if self.update { "UPDATE" } else { "DELETE" }
    }

    pub fn source(&self) -> &LogicalPlan {
        &self.plan
    }

    pub fn point(&self) -> Option<&PointRead> {
        self.point.as_ref()
    }

    pub fn explain_lines(&self) -> Vec<String> {
        vec![format!("{} on {}", if self.update { "Update" } else { "Delete" }, self.def.name)]
    }

    pub fn returning_columns(&self) -> Option<&[OutputColumn]> {
        self.returning.as_ref().map(Returning::columns)
    }

    /// Whether it gives columns of a unique constraint other values: others then may not even rely on the row's key.
    pub fn changes_keys(&self) -> bool {
        !self.update || self.def.uniques.iter().any(|unique| self.assigns(unique))
    }

    /// Whether it may put new keys into the constraint.
    pub fn assigns(&self, unique: &UniqueDef) -> bool {
        unique.columns.iter().any(|column| self.assigned.contains(column))
    }

    /// Runs the query for the rows.
    pub async fn find(&self, values: &[ScalarValue], context: &DmlContext<'_>) -> Result<Matched> {
        if let Some(point) = &self.point
            && let Some(batch) = point.find(context.engine, values)?
        {
            let ids = batch.column(0).as_primitive::<UInt64Type>().values().iter().copied().map(RowId);
            return Ok(Matched { ids: ids.collect(), batch });
        }
        let batches = context.engine.collect(&self.plan, values.to_vec()).await?;
        let schema = match batches.first() {
            Some(batch) => batch.schema(),
            None => Arc::new(Schema::new(self.plan.schema().fields().clone())),
        };
        let batch = concat_batches(&schema, &batches).map_err(crate::error::arrow)?;
        let (ids, batch) = once_per_row(&batch)?;
        Ok(Matched { ids, batch })
    }

    /// The operations on the rows found, and what RETURNING shows of them.
    pub async fn write(
        &self,
        matched: &Matched,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Written> {
        let Matched { ids, batch } = matched;
        let mut written =
            Written { rows: u64::try_from(ids.len()).unwrap_or(u64::MAX), ..Written::default() };
        let mut rows = context.engine.zone().within(|| self.target_rows(batch))?;
        if self.update {
            self.generation.fill(&self.def, &mut rows, context.engine)?;
        }
        if let Some(checks) = &self.checks {
            checks.hold(&self.def, &rows, context).await?;
        }
        if !ids.is_empty() {
            written.ops.push(Op::Delete { table: self.def.id, rows: ids.clone() });
        }
        if self.update
            && let Some(insert) = write_rows(&self.def, &rows, context.store)?
        {
            if let Op::Insert { first_row, .. } = &insert {
                written.replaced = ids.iter().copied().zip((first_row.0..).map(RowId)).collect();
            }
            written.ops.push(insert);
        }
        if let Some(returning) = &self.returning {
            let beside = batch.columns().get(1 + self.def.columns.len()..).unwrap_or_default();
            written.returned = Some(returning.run_beside(&self.def, &rows, beside, values, context).await?);
        }
        Ok(written)
    }

    /// The columns after the row id, assigned to the table's types. A plain DELETE selects none.
    fn target_rows(&self, batch: &RecordBatch) -> Result<TargetRows> {
        let fields: Vec<Field> =
            self.plan.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let arrays = batch
            .columns()
            .iter()
            .zip(&fields)
            .skip(1)
            .zip(&self.def.columns)
            .map(|((array, field), column)| assign(array, field, column))
            .collect::<Result<Vec<_>>>()?;
        Ok(TargetRows { arrays, rows: batch.num_rows() })
    }
}

/// The names of the relations of one item of FROM or USING, as the plan has them; one without a name cannot be named in
/// RETURNING.
fn relation_names(table: &TableWithJoins) -> Vec<ObjectName> {
    let name = |factor: &TableFactor| match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(ObjectName::from(vec![alias.name.clone()])),
        TableFactor::Table { name, args: None, .. } => Some(name.clone()),
        _ => None,
    };
    let joined = table.joins.iter().map(|join| &join.relation);
    std::iter::once(&table.relation).chain(joined).filter_map(name).collect()
}

/// RETURNING knows the relations by their names. Errors: 0A000 where two have one.
fn refuse_namesakes(target: &Target, more: &[TableWithJoins]) -> Result<()> {
    let own = target.name.last().map(identifier);
    let mut names: Vec<String> = own.into_iter().collect();
    for name in more.iter().flat_map(relation_names) {
        let Some(name) = name.0.last().and_then(|part| part.as_ident()).map(identifier) else { continue };
        if names.contains(&name) {
            let message = format!("RETURNING beside two tables called {name} is not supported");
            return Err(Error::unsupported(message)
                .with_hint("Give one of them another name: FROM schema.table AS name."));
        }
        names.push(name);
    }
    Ok(())
}

fn all_columns(relation: ObjectName) -> SelectItem {
    let name = SelectItemQualifiedWildcardKind::ObjectName(relation);
    SelectItem::QualifiedWildcard(name, WildcardAdditionalOptions::default())
}

/// The relations whose columns stand in a plan from a place on.
fn relations_beside(plan: &LogicalPlan, first: usize) -> Vec<Beside> {
    let mut relations: Vec<Beside> = Vec::new();
    for (relation, field) in plan.schema().iter().skip(first) {
        let name = relation.map(|relation| relation.table().to_owned()).unwrap_or_default();
        match relations.last_mut() {
            Some(last) if last.name == name => last.fields.push(field.as_ref().clone()),
            _ => relations.push(Beside { name, fields: vec![field.as_ref().clone()] }),
        }
    }
    relations
}

/// Sorted ids and their rows. A target row that several FROM rows match is changed once, by the first.
fn once_per_row(batch: &RecordBatch) -> Result<(Vec<RowId>, RecordBatch)> {
    let ids = batch.column(0).as_primitive::<UInt64Type>();
    let mut seen = HashSet::with_capacity(ids.len());
    let mut keep: Vec<u64> =
        (0u64..).zip(ids.values()).filter(|(_, id)| seen.insert(**id)).map(|(row, _)| row).collect();
    let at = |row: &u64| ids.value(usize::try_from(*row).unwrap_or(0));
    keep.sort_by_key(at);
    let row_ids = keep.iter().map(|row| RowId(at(row))).collect();
    let rows = UInt64Array::from(keep);
    let arrays: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|array| take(array, &rows, None))
        .collect::<std::result::Result<_, _>>()
        .map_err(crate::error::arrow)?;
    let batch = RecordBatch::try_new(batch.schema(), arrays).map_err(crate::error::arrow)?;
    debug_assert!(batch.column(0).null_count() == 0);
    Ok((row_ids, batch))
}

fn find_target(table: &TableWithJoins, context: &DmlContext) -> Result<Target> {
    let TableFactor::Table { name, alias, args: None, .. } = &table.relation else {
        return Err(Error::new(SqlState::SyntaxError, "the target of UPDATE and DELETE must be a table"));
    };
    if !table.joins.is_empty() {
        return Err(Error::new(SqlState::SyntaxError, "the target of UPDATE and DELETE cannot be a join")
            .with_hint("Name the other tables in FROM or USING."));
    }
    let table_name = relation_name(name)?;
    let snapshot = context.statement.snapshot.get();
    let version = snapshot
        .find(&context.statement.environment, &table_name)
        .ok_or_else(|| undefined_table(&table_name.to_string()))?;
    let alias = alias.as_ref().map(|alias| identifier(&alias.name));
    let def = Arc::clone(&version.def);
    let shown = match &alias {
        Some(alias) => vec![alias],
        None => vec![&def.schema, &def.name],
    };
    let name = shown.into_iter().map(|part| Ident::with_quote('"', part)).collect();
    Ok(Target { def, name, alias })
}

/// The query for the rows finds its target by name, where a CTE of that name would stand before it.
///
/// Errors: 0A000.
fn check_names(with: &ast::With, target: &TableDef) -> Result<()> {
    if !with.cte_tables.iter().any(|cte| identifier(&cte.alias.name) == target.name) {
        return Ok(());
    }
    let message = format!("WITH names a query like the table \"{}\" that is changed", target.name);
    Err(Error::unsupported(message).with_hint("Give the query in WITH another name."))
}

fn row_id_item(target: &Target) -> SelectItem {
    column_item(target, ROW_ID)
}

fn column_item(target: &Target, column: &str) -> SelectItem {
    let mut parts = target.name.clone();
    parts.push(Ident::with_quote('"', column));
    SelectItem::ExprWithAlias {
        expr: Expr::CompoundIdentifier(parts),
        alias: Ident::with_quote('"', format!("__new_{column}")),
    }
}

/// One item per column of the table: the assigned expression, or the column itself.
fn new_values(
    target: &Target,
    assignments: &[Assignment],
    parameters: &mut ParameterTypes,
) -> Result<Vec<SelectItem>> {
    let assigned = assigned_columns(&target.def, assignments)?;
    refuse_computed(&target.def, &assigned)?;
    target
        .def
        .columns
        .iter()
        .map(|column| {
            let Some((_, value)) = assigned.iter().find(|(name, _)| *name == column.name) else {
                return Ok(column_item(target, &column.name));
            };
            if column.generated == Some(Generated::IdentityAlways) && !is_default(value) {
                let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
                return Err(Error::new(SqlState::GeneratedAlways, message).with_detail(format!(
                    "Column \"{}\" is an identity column defined as GENERATED ALWAYS.",
                    column.name
                )));
            }
            let mut value =
                if is_default(value) { default_expression(&target.def, column)? } else { value.clone() };
            prepare_expression(&mut value, parameters, Some(&column.ty));
            Ok(SelectItem::ExprWithAlias {
                expr: value,
                alias: Ident::with_quote('"', format!("__new_{}", column.name)),
            })
        })
        .collect()
}

/// A column with an expression takes no other value. Also DO UPDATE SET.
///
/// Errors: 428C9.
pub fn refuse_computed(def: &TableDef, assigned: &[(String, Expr)]) -> Result<()> {
    let computed = |name: &str| def.column(name).is_some_and(|column| column.expression().is_some());
    let Some((name, _)) = assigned.iter().find(|(name, value)| !is_default(value) && computed(name)) else {
        return Ok(());
    };
    let message = format!("column \"{name}\" can only be updated to DEFAULT");
    Err(Error::new(SqlState::GeneratedAlways, message)
        .with_detail(format!("Column \"{name}\" is a generated column.")))
}

/// `SET a = …, (b, c) = (…, …)` as pairs. Also DO UPDATE SET.
///
/// Errors: 42703 no such column, 42601 a column twice or a tuple of the wrong width.
pub fn assigned_columns(def: &TableDef, assignments: &[Assignment]) -> Result<Vec<(String, Expr)>> {
    let mut pairs: Vec<(String, Expr)> = Vec::new();
    for assignment in assignments {
        match (&assignment.target, &assignment.value) {
            (AssignmentTarget::ColumnName(name), value) => {
                let column =
                    name.0.last().and_then(|part| part.as_ident()).map(identifier).unwrap_or_default();
                pairs.push((column, value.clone()));
            }
            (AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                for (name, value) in names.iter().zip(values) {
                    pairs.push((object_name(name)?, value.clone()));
                }
            }
            (AssignmentTarget::Tuple(_), _) => {
                return Err(Error::new(
                    SqlState::SyntaxError,
                    "number of columns does not match number of values",
                ));
            }
        }
    }
    for (position, (name, _)) in pairs.iter().enumerate() {
        if def.column(name).is_none() {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", def.name);
            return Err(Error::new(SqlState::UndefinedColumn, message));
        }
        if pairs[..position].iter().any(|(earlier, _)| earlier == name) {
            return Err(Error::new(
                SqlState::SyntaxError,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
    }
    Ok(pairs)
}
