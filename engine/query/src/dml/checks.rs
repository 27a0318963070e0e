//! CHECK constraints over rows that are about to be written: one query over a table of these rows, as RETURNING has it.
//!
//! They are asked in UTC, whoever writes the rows. Prepared with INSERT and UPDATE, by COPY, and by `database::Session`
//! for rows that a foreign key changes and to see that a new constraint can be planned.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::DataType,
    },
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{Ident, SelectItem, SetExpr},
};
use sepal_types::{CheckDef, Error, Result, SqlState, TableDef};

use super::{
    DmlContext,
    assign::{TargetRows, check_not_null, row_schema, row_text},
    defaults::{parse_default, unsettled},
    returning::skeleton,
    rows_table::RowsTable,
};
use crate::{
    output::sql_type,
    planner::{Engine, RowParts, RowPlan, TemporaryTables},
    sql::{ParameterTypes, prepare_query},
};

/// The CHECKs of one table, planned.
#[derive(Debug)]
pub struct Checks {
    /// In the order in which Postgres asks them: by name.
    names: Vec<String>,
    /// One column for each.
    plan: LogicalPlan,
    /// The plan again, where it reads the rows alone.
    list: Option<RowPlan>,
    rows: RowsTable,
}

impl Checks {
    /// Those of a table; `None` where it has none.
    ///
    /// Errors: as [`Self::of`].
    pub fn prepare(def: &TableDef, context: &DmlContext) -> Result<Option<Self>> {
        let mut checks: Vec<&CheckDef> = def.constraints.checks.iter().collect();
        if checks.is_empty() {
            return Ok(None);
        }
        checks.sort_by(|one, other| one.name.cmp(&other.name));
        Self::of(def, &checks, context).map(Some)
    }

    /// Errors: the planner's; 42804 for an expression that is not boolean, 42803 and 0A000 for one of more than a row.
    pub fn of(def: &TableDef, checks: &[&CheckDef], context: &DmlContext) -> Result<Self> {
        let rows = RowsTable::new(row_schema(def));
        let engine = context.engine.in_utc();
        let plan = planned(def, checks, &rows, context, engine)?;
        of_single_rows(&plan)?;
        for field in plan.schema().fields() {
            if !matches!(field.data_type(), DataType::Boolean | DataType::Null) {
                let name = sql_type(field).display_name();
                let message = format!("argument of CHECK must be type boolean, not type {name}");
                return Err(Error::new(SqlState::DatatypeMismatch, message));
            }
        }
        let names = checks.iter().map(|check| check.name.clone()).collect();
        Ok(Self { names, list: RowPlan::compile(engine, &plan), plan, rows })
    }

    /// Errors: 0A000 for a constraint that the session's time zone makes another one of.
    pub fn check_settled(def: &TableDef, check: &CheckDef, context: &DmlContext) -> Result<()> {
        if context.engine.zone().is_utc() {
            return Ok(());
        }
        let rows = RowsTable::new(row_schema(def));
        let seen =
            |engine: &Engine| planned(def, &[check], &rows, context, engine).map(|plan| plan.expressions());
        if seen(context.engine)? != seen(context.engine.in_utc())? {
            return Err(unsettled("a CHECK constraint"));
        }
        Ok(())
    }

    /// Asks whether rows keep to the constraints. A NULL is no violation.
    ///
    /// Errors: 23502, which comes first in Postgres too, and 23514.
    pub async fn hold(&self, def: &TableDef, rows: &TargetRows, context: &DmlContext<'_>) -> Result<()> {
        if rows.rows == 0 {
            return Ok(());
        }
        check_not_null(def, rows)?;
        match self.broken(&self.evaluate(def, rows, context).await?) {
            None => Ok(()),
            Some((check, row)) => {
                let message = format!(
                    "new row for relation \"{}\" violates check constraint \"{}\"",
                    def.name, self.names[check]
                );
                Err(Error::new(SqlState::CheckViolation, message)
                    .with_detail(format!("Failing row contains ({}).", row_text(def, rows, row)))
                    .with_constraint(&def.schema, &def.name, &self.names[check]))
            }
        }
    }

    /// Batches of one column for each constraint, the rows in their order.
    async fn evaluate(
        &self,
        def: &TableDef,
        rows: &TargetRows,
        context: &DmlContext<'_>,
    ) -> Result<Vec<RecordBatch>> {
        if let Some(list) = &self.list {
            let column = |place: usize| {
                let array = rows.arrays.get(place).cloned();
                array.ok_or_else(|| Error::bug("a CHECK reads a column that the table has not"))
            };
            if let Some(batch) = list.run(context.engine.in_utc(), &[], rows.rows, column)? {
                return Ok(vec![batch]);
            }
        }
        self.rows.set(vec![rows.batch(def)?]);
        let evaluated = context.engine.in_utc().collect(&self.plan, Vec::new()).await;
        self.rows.set(Vec::new());
        evaluated
    }

    /// The first row that breaks a constraint, and the constraint.
    fn broken(&self, batches: &[RecordBatch]) -> Option<(usize, usize)> {
        let mut first = 0;
        for batch in batches {
            let arrays: Vec<_> = batch.columns().iter().map(|array| array.as_boolean_opt()).collect();
            let breaks = |row: usize| {
                arrays
                    .iter()
                    .position(|array| array.is_some_and(|array| array.is_valid(row) && !array.value(row)))
            };
            let any = arrays.iter().flatten().any(|array| array.false_count() > 0);
            if any && let Some((row, check)) = (0..batch.num_rows()).find_map(|row| Some((row, breaks(row)?)))
            {
                return Some((check, first + row));
            }
            first += batch.num_rows();
        }
        None
    }
}

/// One column for each constraint.
fn planned(
    def: &TableDef,
    checks: &[&CheckDef],
    rows: &RowsTable,
    context: &DmlContext,
    engine: &Engine,
) -> Result<LogicalPlan> {
    let mut query = skeleton(def, None)?;
    let item = |(place, check): (usize, &&CheckDef)| {
        Ok(SelectItem::ExprWithAlias {
            expr: parse_default(&check.expression)?,
            alias: Ident::with_quote('"', format!("__check_{place}")),
        })
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = checks.iter().enumerate().map(item).collect::<Result<_>>()?;
    }
    let columns = context.statement.column_types(&query);
    let mut parameters = ParameterTypes::default();
    prepare_query(&mut query, &mut parameters, &[], &columns);
    let temporary = TemporaryTables::default().instead_of(def, Arc::new(rows.clone()));
    engine.plan(context.statement, &temporary, &query, &mut parameters)
}

/// Errors: 42803 for aggregates, 0A000 for what else looks at more than one row or makes several of it.
fn of_single_rows(plan: &LogicalPlan) -> Result<()> {
    if RowParts::of(plan).is_some() {
        return Ok(());
    }
    let LogicalPlan::Projection(projection) = plan else {
        return Err(Error::unsupported("set-returning functions are not allowed in check constraints"));
    };
    match projection.input.as_ref() {
        LogicalPlan::Aggregate(_) => {
            let message = "aggregate functions are not allowed in check constraints";
            Err(Error::new(SqlState::GroupingError, message))
        }
        LogicalPlan::Window(_) => {
            Err(Error::unsupported("window functions are not allowed in check constraints"))
        }
        _ => Err(Error::unsupported("set-returning functions are not allowed in check constraints")),
    }
}
