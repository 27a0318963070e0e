//! Generated columns, computed: over rows that are about to be written.
//!
//! Used by INSERT, UPDATE, ON CONFLICT DO UPDATE and COPY, and where a table's rows are written anew. The expressions
//! are planned as a query over the table and compiled once for a statement; a row's own columns are all that they read.
//! They are computed in UTC, whoever writes the row.

use std::{ops::ControlFlow, sync::Arc};

use datafusion::{
    arrow::datatypes::DataType,
    common::tree_node::TreeNodeRecursion,
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr},
};
use sepal_types::{ColumnDef, ColumnId, Error, Result, SqlState, TableDef};

use super::{
    DmlContext,
    assign::{TargetRows, assign_default, row_schema},
    defaults::{parse_default, unsettled},
    returning::skeleton,
    rows_table::RowsTable,
};
use crate::{
    ddl::{expression_assignable, identifier, not_immutable},
    error::translate,
    output::sql_type,
    planner::{Engine, RowPlan, TemporaryTables, depends_on_zone, is_pure},
    sql::{ParameterTypes, prepare_query},
};

/// The generated columns of a table that a statement has to compute.
#[derive(Debug, Default)]
pub struct Generation {
    /// Their places in the table.
    places: Vec<usize>,
    /// Their expressions, in that order; `None` where there are none.
    plan: Option<Box<RowPlan>>,
}

impl Generation {
    /// All of them.
    pub fn compile(def: &TableDef, context: &DmlContext) -> Result<Self> {
        Self::of(def, context, |_| true)
    }

    /// Those that `wanted` says yes to.
    pub fn of(def: &TableDef, context: &DmlContext, wanted: impl Fn(&ColumnDef) -> bool) -> Result<Self> {
        let generated = |column: &ColumnDef| column.expression().is_some() && wanted(column);
        let places: Vec<usize> = (0..def.columns.len()).filter(|at| generated(&def.columns[*at])).collect();
        if places.is_empty() {
            return Ok(Self::default());
        }
        let plan = planned(def, &places, context)?;
        let plan = RowPlan::compile(context.engine.in_utc(), &plan)
            .ok_or_else(|| Error::unsupported("a generation expression of this kind is not supported"))?;
        Ok(Self { places, plan: Some(Box::new(plan)) })
    }

    /// Those whose values may change when the columns `changed` do, and of these themselves those set to DEFAULT.
    pub fn after_change(def: &TableDef, changed: &[ColumnId], context: &DmlContext) -> Result<Self> {
        let affected = affected(def, changed);
        Self::of(def, context, |column| affected.contains(&column.id) || changed.contains(&column.id))
    }

    /// Puts the values of generated columns into rows that have all others.
    ///
    /// Errors: the expressions' own; 22001 and its kin where a value does not fit the column.
    pub fn fill(&self, def: &TableDef, rows: &mut TargetRows, engine: &Engine) -> Result<()> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let column = |place: usize| {
            let array = rows.arrays.get(place).cloned();
            array.ok_or_else(|| Error::bug("an expression reads a column that the table has not"))
        };
        let Some(batch) = plan.run(engine.in_utc(), &[], rows.rows, column)? else {
            return Err(Error::bug("a generation expression has a parameter"));
        };
        let schema = batch.schema();
        for ((place, array), field) in self.places.iter().zip(batch.columns()).zip(schema.fields()) {
            rows.arrays[*place] = assign_default(array, field, &def.columns[*place])?;
        }
        Ok(())
    }
}

/// The generated columns that are computed from one of those.
pub fn affected(def: &TableDef, changed: &[ColumnId]) -> Vec<ColumnId> {
    let names: Vec<&str> =
        changed.iter().filter_map(|id| def.column_by_id(*id)).map(|column| column.name.as_str()).collect();
    let reads = |text: &str| {
        let Ok(expr) = parse_default(text) else { return true };
        ast::visit_expressions(&expr, |inner| match inner {
            Expr::Identifier(ident) if names.contains(&identifier(ident).as_str()) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    };
    let columns = def.columns.iter().filter(|column| column.expression().is_some_and(reads));
    columns.map(|column| column.id).collect()
}

/// Whether the generated columns of a new definition can be computed, and give what the columns hold.
///
/// Errors: 42P17 for what may change by itself, 42803, 42P20, 42804, and the planner's.
pub fn check_generated(def: &TableDef, context: &DmlContext) -> Result<()> {
    let places: Vec<usize> =
        (0..def.columns.len()).filter(|at| def.columns[*at].expression().is_some()).collect();
    if places.is_empty() {
        return Ok(());
    }
    let plan = planned(def, &places, context)?;
    check_calls(&plan, "column generation expressions")?;
    if !plan.expressions().iter().all(is_pure) {
        return Err(not_immutable());
    }
    for (place, field) in places.iter().zip(plan.schema().fields()) {
        let (column, source) = (&def.columns[*place], sql_type(field));
        let literal = matches!(column.expression().map(parse_default), Some(Ok(Expr::Value(_))));
        let untyped = literal || *field.data_type() == DataType::Null;
        if !untyped && !expression_assignable(&source, &column.ty) {
            let message = format!(
                "column \"{}\" is of type {} but default expression is of type {}",
                column.name,
                column.ty.display_name(),
                source.display_name()
            );
            return Err(Error::new(SqlState::DatatypeMismatch, message)
                .with_hint("You will need to rewrite or cast the expression."));
        }
    }
    Generation::compile(def, context).map(drop)
}

/// Whether new generated columns are the same in all time zones, as those have to be that rows are written with from
/// several. Older ones may be from before this was asked.
///
/// Errors: 42P17; 0A000 for one with a text that means something else in the session's zone.
pub fn check_generated_settled(
    def: &TableDef,
    is_new: impl Fn(&ColumnDef) -> bool,
    context: &DmlContext,
) -> Result<()> {
    let generated = |column: &ColumnDef| column.expression().is_some() && is_new(column);
    let places: Vec<usize> = (0..def.columns.len()).filter(|at| generated(&def.columns[*at])).collect();
    if places.is_empty() {
        return Ok(());
    }
    let plan = planned(def, &places, context)?;
    if depends_on_zone(&plan).map_err(translate)? {
        return Err(not_immutable());
    }
    if context.engine.zone().is_utc() {
        return Ok(());
    }
    let seen = plan_over(def, expressions(def, &places)?, context)?;
    if seen.expressions() == plan.expressions() { Ok(()) } else { Err(unsettled("a generation expression")) }
}

/// In UTC.
fn planned(def: &TableDef, places: &[usize], context: &DmlContext) -> Result<LogicalPlan> {
    let DmlContext { engine, statement, store } = context;
    plan_over(def, expressions(def, places)?, &DmlContext { engine: engine.in_utc(), statement, store })
}

fn expressions(def: &TableDef, places: &[usize]) -> Result<Vec<Expr>> {
    let expression = |place: &usize| parse_default(def.columns[*place].expression().unwrap_or("NULL"));
    places.iter().map(expression).collect()
}

/// Plans expressions over a table's rows that are at hand.
pub fn plan_over(def: &TableDef, exprs: Vec<Expr>, context: &DmlContext) -> Result<LogicalPlan> {
    let named = |(number, expr): (usize, Expr)| {
        let alias = Ident::with_quote('"', format!("__computed_{number}"));
        SelectItem::ExprWithAlias { expr, alias }
    };
    let mut query = skeleton(def, None)?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = exprs.into_iter().enumerate().map(named).collect();
    }
    let types = |name: &str| def.column(name).map(|column| column.ty.clone());
    let mut parameters = ParameterTypes::default();
    prepare_query(&mut query, &mut parameters, &[], &types);
    let rows = Arc::new(RowsTable::new(row_schema(def)));
    let rows = TemporaryTables::default().instead_of(def, rows);
    context.engine.plan(context.statement, &rows, &query, &mut parameters)
}

/// Errors: 42803, 42P20 and 0A000 for calls that look at more than a row, or give more than one.
pub fn check_calls(plan: &LogicalPlan, place: &str) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        refused = match node {
            LogicalPlan::Aggregate(_) => Some((SqlState::GroupingError, "aggregate functions")),
            LogicalPlan::Window(_) => Some((SqlState::WindowingError, "window functions")),
            LogicalPlan::Unnest(_) => Some((SqlState::FeatureNotSupported, "set-returning functions")),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })
    .map_err(translate)?;
    match refused {
        Some((state, what)) => Err(Error::new(state, format!("{what} are not allowed in {place}"))),
        None => Ok(()),
    }
}
