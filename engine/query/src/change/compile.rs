//! From a query's AST to expressions over one table, and the reasons why one cannot be a pipeline's.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema},
    common::{DFSchema, DFSchemaRef},
    logical_expr::Expr,
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr, utils::collect_columns},
    sql::sqlparser::ast,
};
use sepal_types::{ColumnId, Error, Result, SqlState, TableDef};

use super::{ChangeQuery, stable::refuse_unstable};
use crate::{
    context::StatementContext,
    error::translate,
    output::OutputColumn,
    planner::{Engine, LogicalPlan, TemporaryTables, told_apart, undefined_table},
    sql::{ParameterTypes, expand_wildcards, prepare_query, shape::plain_table},
};

impl ChangeQuery {
    /// Compiles a query over one table. `key` names columns of the query; empty for the table's primary key.
    ///
    /// Errors: those of planning, 0A000 for more than a projection and a filter, 42P17 for an expression that gives
    /// another value at another time, 42P10 and 42703 for a key that does not tell rows apart.
    pub fn compile(
        engine: &Engine,
        context: &StatementContext,
        query: &ast::Query,
        key: &[String],
    ) -> Result<Self> {
        let select = select_of(query)?;
        let (name, _) =
            plain_table(select).ok_or_else(|| refused("a subquery in FROM, or a function in FROM"))?;
        let snapshot = context.snapshot.get();
        let version =
            snapshot.find(&context.environment, &name).ok_or_else(|| undefined_table(&name.to_string()))?;
        let def = &version.def;

        let mut query = query.clone();
        let mut parameters = ParameterTypes::default();
        expand_wildcards(&mut query, &context.table_columns());
        let types = context.column_types(&query);
        prepare_query(&mut query, &mut parameters, &[], &types);
        if !parameters.is_empty() {
            return Err(refused("parameters"));
        }
        let plan = engine.plan(context, &TemporaryTables::default(), &query, &mut parameters)?;
        let parts = Parts::of(&plan)?;
        refuse_unstable(&query, parts.expressions())?;
        let typed = Parts::of(&engine.analyze(plan.clone())?)?;
        let compiled = Compiled::new(engine, &typed, def)?;

        let origins: Vec<Option<ColumnId>> =
            parts.projection.iter().map(|expr| plain_column(expr, def)).collect();
        let columns = described_columns(&plan, &origins, def)?;
        let key = key_places(key, &columns, &origins, def)?;
        Ok(Self {
            table: def.id,
            columns,
            key,
            reads: compiled.reads.into_iter().collect(),
            inputs: def.columns.clone(),
            schema: Arc::new(compiled.schema),
            projection: compiled.projection,
            filter: compiled.filter,
        })
    }
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("a pipeline's query cannot have {what}")).with_hint(
        "It reads one table: SELECT expressions FROM table [WHERE condition]. For more, keep the result in a table \
         of its own.",
    )
}

/// The one SELECT.
fn select_of(query: &ast::Query) -> Result<&ast::Select> {
    let clauses = [
        (query.with.is_some(), "WITH"),
        (query.order_by.is_some(), "ORDER BY"),
        (query.limit_clause.is_some() || query.fetch.is_some(), "LIMIT or OFFSET"),
        (!query.locks.is_empty(), "FOR UPDATE or FOR SHARE"),
    ];
    refuse_first(&clauses)?;
    let select = match query.body.as_ref() {
        ast::SetExpr::Select(select) => select,
        ast::SetExpr::Query(inner) => return select_of(inner),
        ast::SetExpr::SetOperation { .. } => return Err(refused("UNION, INTERSECT or EXCEPT")),
        _ => return Err(refused("anything but one SELECT")),
    };
    let grouped = match &select.group_by {
        ast::GroupByExpr::Expressions(keys, modifiers) => !keys.is_empty() || !modifiers.is_empty(),
        ast::GroupByExpr::All(_) => true,
    };
    let joined = select.from.len() > 1 || select.from.iter().any(|table| !table.joins.is_empty());
    let clauses = [
        (select.distinct.is_some(), "DISTINCT"),
        (grouped, "GROUP BY"),
        (select.having.is_some(), "HAVING"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.into.is_some(), "SELECT INTO"),
        (select.from.is_empty(), "an empty FROM"),
        (joined, "a join"),
    ];
    refuse_first(&clauses)?;
    let subquery = ast::visit_expressions(query, |expr| match expr {
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    if subquery.is_break() {
        return Err(refused("a subquery"));
    }
    Ok(select)
}

fn refuse_first(clauses: &[(bool, &str)]) -> Result<()> {
    match clauses.iter().find(|(present, _)| *present) {
        Some((_, what)) => Err(refused(what)),
        None => Ok(()),
    }
}

/// The expressions of a plan that is no more than a projection, a filter or none, and a scan.
struct Parts {
    projection: Vec<Expr>,
    filters: Vec<Expr>,
    /// All columns of the table, in order.
    input: DFSchemaRef,
}

impl Parts {
    fn of(plan: &LogicalPlan) -> Result<Self> {
        let LogicalPlan::Projection(projection) = plan else {
            return Err(misshapen(plan));
        };
        let mut filters = Vec::new();
        let mut node = projection.input.as_ref();
        loop {
            node = match node {
                LogicalPlan::Filter(filter) => {
                    filters.push(filter.predicate.clone());
                    filter.input.as_ref()
                }
                LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
                LogicalPlan::TableScan(scan) if scan.projection.is_none() => break,
                other => return Err(misshapen(other)),
            };
        }
        Ok(Self {
            projection: projection.expr.clone(),
            filters,
            input: Arc::clone(projection.input.schema()),
        })
    }

    fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.projection.iter().chain(&self.filters)
    }
}

/// A clause that the AST did not show.
fn misshapen(node: &LogicalPlan) -> Error {
    refused(match node {
        LogicalPlan::Aggregate(_) => "an aggregate function",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Unnest(_) => "a function that returns a set",
        LogicalPlan::Join(_) => "a join",
        _ => "more than expressions and a condition",
    })
}

/// Expressions ready to be evaluated.
struct Compiled {
    projection: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    reads: BTreeSet<ColumnId>,
    schema: Schema,
}

impl Compiled {
    fn new(engine: &Engine, parts: &Parts, def: &TableDef) -> Result<Self> {
        // Some functions are nothing but what they are simplified to: `coalesce`.
        let simplify = engine.simplify_context().with_schema(nullable(&parts.input).map_err(translate)?);
        let simplifier = ExprSimplifier::new(simplify.build());
        let physical = |expr: &Expr| {
            let simplified =
                engine.zone().within(|| simplifier.simplify(told_apart(expr.clone(), &simplifier)?));
            let expr = simplified.map_err(translate)?;
            create_physical_expr(&expr, &parts.input, engine.execution_props(), &Default::default())
                .map_err(translate)
        };
        let projection = parts.projection.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let filter = parts.filters.iter().cloned().reduce(Expr::and).as_ref().map(physical).transpose()?;
        let mut places = BTreeSet::new();
        for expression in projection.iter().chain(&filter) {
            places.extend(collect_columns(expression).iter().map(|column| column.index()));
        }
        // A row of the feed may have NULL where the table, as it is now, does not allow it.
        let field = |(place, field): (usize, &Arc<Field>)| match places.contains(&place) {
            true => field.as_ref().clone().with_nullable(true),
            false => Field::new(field.name(), DataType::Null, true),
        };
        let fields: Vec<Field> = parts.input.fields().iter().enumerate().map(field).collect();
        let reads = places.iter().filter_map(|place| def.columns.get(*place)).map(|column| column.id);
        Ok(Self { projection, filter, reads: reads.collect(), schema: Schema::new(fields) })
    }
}

/// The same columns, any of which may be NULL: as in rows of the feed that are older than NOT NULL.
fn nullable(columns: &DFSchema) -> datafusion::error::Result<DFSchemaRef> {
    let fields = columns
        .iter()
        .map(|(relation, field)| (relation.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
    Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), HashMap::new())?))
}

/// The column of the table that an expression is, under its own name or another.
fn plain_column(expr: &Expr, def: &TableDef) -> Option<ColumnId> {
    match expr {
        Expr::Alias(alias) => plain_column(&alias.expr, def),
        Expr::Column(column) => def.column(&column.name).map(|column| column.id),
        _ => None,
    }
}

/// Errors: 42701 for two columns of one name, which a destination could not tell apart.
fn described_columns(
    plan: &LogicalPlan,
    origins: &[Option<ColumnId>],
    def: &TableDef,
) -> Result<Vec<OutputColumn>> {
    let mut names = BTreeSet::new();
    let mut columns = Vec::with_capacity(origins.len());
    for (field, origin) in plan.schema().fields().iter().zip(origins) {
        let mut column = OutputColumn::from_field(field);
        if !names.insert(column.name.clone()) {
            let message = format!("column name \"{}\" specified more than once", column.name);
            let hint = "Give one of the two another name with AS.";
            return Err(Error::new(SqlState::DuplicateColumn, message).with_hint(hint));
        }
        if let Some(origin) = origin {
            column.table = def.id.0;
            column.column = i16::try_from(origin.0).unwrap_or(0);
        }
        columns.push(column);
    }
    Ok(columns)
}

/// The key's places among the columns.
fn key_places(
    key: &[String],
    columns: &[OutputColumn],
    origins: &[Option<ColumnId>],
    def: &TableDef,
) -> Result<Vec<usize>> {
    let place_of = |id: &ColumnId| origins.iter().position(|origin| origin.as_ref() == Some(id));
    if key.is_empty() {
        let primary = def.primary_key().map(|primary| primary.columns.as_slice()).unwrap_or_default();
        return Ok(primary.iter().map(place_of).collect::<Option<_>>().unwrap_or_default());
    }
    let mut places = Vec::with_capacity(key.len());
    let mut ids = BTreeSet::new();
    for name in key {
        let place = columns.iter().position(|column| column.name == *name).ok_or_else(|| {
            Error::new(
                SqlState::UndefinedColumn,
                format!("column \"{name}\" of KEY is not in the query's list"),
            )
            .with_hint("Add it to the SELECT list, or leave KEY out for the primary key.")
        })?;
        let id = origins[place].ok_or_else(|| {
            Error::new(SqlState::InvalidColumnReference, format!("column \"{name}\" of KEY is computed"))
                .with_hint("A key is made of columns of the table.")
        })?;
        if !ids.insert(id) {
            let message = format!("column \"{name}\" appears twice in KEY");
            return Err(Error::new(SqlState::DuplicateColumn, message));
        }
        places.push(place);
    }
    let whole =
        |columns: &[ColumnId]| columns.len() == ids.len() && columns.iter().all(|id| ids.contains(id));
    if !def.uniques.iter().any(|unique| whole(&unique.columns)) {
        let message = format!("KEY ({}) does not tell the rows of \"{}\" apart", key.join(", "), def.name);
        return Err(Error::new(SqlState::InvalidColumnReference, message)
            .with_hint("Name the columns of its primary key, or of a UNIQUE constraint, all of them."));
    }
    let nullable = def.columns.iter().find(|column| ids.contains(&column.id) && !column.not_null);
    match nullable {
        Some(column) if !is_primary(def, column.id) => {
            let message =
                format!("column \"{}\" of KEY may be NULL, and many rows may share that", column.name);
            let hint = format!("ALTER TABLE \"{}\" ALTER COLUMN \"{}\" SET NOT NULL.", def.name, column.name);
            Err(Error::new(SqlState::InvalidColumnReference, message).with_hint(hint))
        }
        _ => Ok(places),
    }
}

/// A column of the primary key is never NULL, whatever its definition says.
fn is_primary(def: &TableDef, column: ColumnId) -> bool {
    def.primary_key().is_some_and(|primary| primary.columns.contains(&column))
}
