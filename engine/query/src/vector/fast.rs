//! The fast path: `SELECT columns FROM t [WHERE …] ORDER BY column <op> $n LIMIT n` without a DataFusion plan.
//!
//! A statement of just this shape is compiled once, at Parse, into the columns it returns and the search it
//! runs; each execution is then the search and `k` look-ups. Everything else takes the planned way, with the
//! same rows: both end in `search`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Float32Type, Int64Type, Schema},
    },
    sql::sqlparser::ast::{
        self, BinaryOperator, Expr, GroupByExpr, LimitClause, OrderByKind, Query, SelectItem, SetExpr,
        TableFactor, Value,
    },
};
use sepal_storage::ChunkRef;
use sepal_types::{ColumnId, Error, Metric, Result, SqlState, SqlType, TableDef, TableId};

use super::{
    Hit, Search,
    fast_filter::FastFilter,
    fetch::{distances, fetch},
    search::search,
};
use crate::{
    context::StatementContext,
    error,
    functions::to_vector_array,
    output::{OutputColumn, typed_field},
    planner::{Engine, LogicalPlan, parameter_values},
    sql::{ParameterTypes, strip_marker},
};

/// What one output column is.
#[derive(Clone, Debug)]
enum Output {
    Column(ColumnId),
    Distance,
}

/// LIMIT.
#[derive(Clone, Copy, Debug)]
enum Count {
    Constant(usize),
    Parameter(usize),
}

/// A compiled search.
#[derive(Clone, Debug)]
pub struct FastKnn {
    table: TableId,
    column: ColumnId,
    dimensions: u16,
    metric: Metric,
    /// The parameter's position, from 0.
    query: usize,
    limit: Count,
    outputs: Vec<Output>,
    columns: Arc<[OutputColumn]>,
    has_where: bool,
    /// The WHERE clause, once the statement was planned.
    filter: Option<Arc<FastFilter>>,
}

impl FastKnn {
    /// Compiles a prepared query of this shape; `None` for any other.
    pub fn compile(
        query: &Query,
        context: &StatementContext,
        parameters: &ParameterTypes,
    ) -> Option<FastKnn> {
        let select = plain_select(query)?;
        let (name, alias) = plain_table(select)?;
        let snapshot = context.snapshot.get();
        let version = snapshot.find(&context.environment, &name)?;
        let def = &version.def;
        let names = [Some(name.as_str()), alias.as_deref()];
        let order = plain_order(query)?;
        let distance = resolve_alias(order, select).unwrap_or(order);
        let (column, metric, parameter) = distance_of(distance, def, &names)?;
        let SqlType::Vector(Some(dimensions)) = def.column_by_id(column)?.ty else {
            return None;
        };
        if !matches!(parameters.get(parameter + 1), None | Some(SqlType::Vector(_))) {
            return None;
        }
        let mut outputs = Vec::new();
        let mut columns = Vec::new();
        for item in &select.projection {
            let (expr, name) = match item {
                SelectItem::UnnamedExpr(expr) => (expr, None),
                SelectItem::ExprWithAlias { expr, alias } => {
                    (expr, Some(strip_marker(&alias.value).to_owned()))
                }
                _ => return None,
            };
            if expr == distance {
                outputs.push(Output::Distance);
                columns.push(OutputColumn::new(name?, SqlType::Float8));
                continue;
            }
            let column = plain_column(expr, def, &names)?;
            let position = def.columns.iter().position(|candidate| candidate.id == column)?;
            let definition = &def.columns[position];
            outputs.push(Output::Column(column));
            columns.push(OutputColumn {
                name: name.unwrap_or_else(|| definition.name.clone()),
                ty: definition.ty.clone(),
                table: def.id.0,
                column: i16::try_from(column.0).unwrap_or(0),
            });
        }
        Some(FastKnn {
            table: def.id,
            column,
            dimensions,
            metric,
            query: parameter,
            limit: plain_limit(query)?,
            outputs,
            columns: columns.into(),
            has_where: select.selection.is_some(),
            filter: None,
        })
    }

    /// Takes the WHERE clause from the statement's plan. `None` when this way cannot answer it.
    pub fn with_filter(mut self, engine: &Engine, plan: &LogicalPlan) -> Option<FastKnn> {
        if self.has_where {
            self.filter = Some(Arc::new(FastFilter::of(engine, plan)?));
        }
        Some(self)
    }

    pub fn columns(&self) -> &Arc<[OutputColumn]> {
        &self.columns
    }

    /// Gives the parameters the types that this shape implies.
    pub fn type_parameters(&self, parameters: &mut ParameterTypes) {
        parameters.hint(self.query + 1, &SqlType::Vector(None));
        if let Count::Parameter(position) = self.limit {
            parameters.hint(position + 1, &SqlType::Int8);
        }
    }

    /// Runs the search. `None` when the table changed so that the statement must be planned anew.
    ///
    /// Errors: as the planned way gives them.
    pub fn run(
        &self,
        engine: &Engine,
        context: &StatementContext,
        parameters: &[ArrayRef],
    ) -> Result<Option<RecordBatch>> {
        let snapshot = context.snapshot.get();
        let Some(version) = snapshot.table(self.table) else {
            return Ok(None);
        };
        let Some(column) = version.def.column_by_id(self.column) else {
            return Ok(None);
        };
        let Some(query) = self.query_vector(parameters)? else {
            return Ok(None);
        };
        let filter = match &self.filter {
            Some(filter) => Some(filter.compile(engine, &parameter_values(parameters, parameters.len())?)?),
            None => None,
        };
        let predicate = |_: usize, reference: &ChunkRef| {
            filter.as_ref().map(|filter| filter.passing(version, reference)).transpose()
        };
        let hits = search(
            &Search {
                version,
                column,
                metric: self.metric,
                query: &query,
                k: self.count(parameters)?,
                settings: *context.search.read(),
                predicate: filter.is_some().then_some(&predicate),
            },
            &context.indexes,
        )?;
        self.rows(version, &hits)
    }

    fn rows(&self, version: &sepal_storage::TableVersion, hits: &[Hit]) -> Result<Option<RecordBatch>> {
        let mut arrays = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            match output {
                Output::Distance => arrays.push(distances(hits)),
                Output::Column(id) => match version.def.column_by_id(*id) {
                    Some(column) => arrays.push(fetch(version, column, hits)?),
                    None => return Ok(None),
                },
            }
        }
        let fields: Vec<_> = arrays
            .iter()
            .zip(self.columns.iter())
            .map(|(array, column)| typed_field(&column.name, array.data_type().clone(), &column.ty))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(hits.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map(Some)
            .map_err(error::arrow)
    }

    /// The query's elements; `None` for NULL, which the planned way answers.
    fn query_vector(&self, parameters: &[ArrayRef]) -> Result<Option<Vec<f32>>> {
        let Some(array) = parameters.get(self.query) else {
            return Err(Error::bug("the fast path was run without its parameter"));
        };
        if array.is_empty() || array.is_null(0) || array.data_type() == &DataType::Null {
            return Ok(None);
        }
        let vectors = to_vector_array(array).map_err(error::translate)?;
        let values = match vectors.data_type() {
            DataType::FixedSizeList(..) => vectors.as_fixed_size_list().value(0),
            _ => vectors.as_list::<i32>().value(0),
        };
        let values = values.as_primitive::<Float32Type>().values().to_vec();
        if values.len() != usize::from(self.dimensions) {
            let message = format!("different vector dimensions {} and {}", self.dimensions, values.len());
            return Err(Error::new(SqlState::DataException, message));
        }
        Ok(Some(values))
    }

    fn count(&self, parameters: &[ArrayRef]) -> Result<usize> {
        let negative = || Error::new(SqlState::InvalidRowCountInLimitClause, "LIMIT must not be negative");
        match self.limit {
            Count::Constant(count) => Ok(count),
            Count::Parameter(position) => {
                let array =
                    parameters.get(position).ok_or_else(|| Error::bug("the LIMIT parameter is missing"))?;
                let array =
                    datafusion::arrow::compute::cast(array, &DataType::Int64).map_err(error::arrow)?;
                if array.is_null(0) {
                    return Err(Error::unsupported("LIMIT NULL is not supported for a vector search")
                        .with_hint("Give the number of neighbours wanted."));
                }
                usize::try_from(array.as_primitive::<Int64Type>().value(0)).map_err(|_| negative())
            }
        }
    }
}

fn plain_select(query: &Query) -> Option<&ast::Select> {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty());
    let plain = query.with.is_none()
        && query.fetch.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.lateral_views.is_empty()
        && select.into.is_none()
        && !grouped;
    plain.then_some(select)
}

/// The table's name and its alias.
fn plain_table(select: &ast::Select) -> Option<(String, Option<String>)> {
    let [from] = select.from.as_slice() else {
        return None;
    };
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else {
        return None;
    };
    if !from.joins.is_empty() || name.0.len() > 2 {
        return None;
    }
    let schema_ok =
        name.0.len() == 1 || name.0[0].as_ident().is_some_and(|schema| normalized(schema) == "public");
    let table = normalized(name.0.last()?.as_ident()?);
    schema_ok.then(|| (table, alias.as_ref().map(|alias| normalized(&alias.name))))
}

fn normalized(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn plain_order(query: &Query) -> Option<&Expr> {
    let OrderByKind::Expressions(keys) = &query.order_by.as_ref()?.kind else {
        return None;
    };
    let [key] = keys.as_slice() else {
        return None;
    };
    (key.options.asc != Some(false) && key.options.nulls_first != Some(true)).then_some(&key.expr)
}

/// `ORDER BY score` where `score` is the alias of an item.
fn resolve_alias<'a>(order: &Expr, select: &'a ast::Select) -> Option<&'a Expr> {
    let Expr::Identifier(ident) = order else {
        return None;
    };
    let name = normalized(ident);
    select.projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if normalized(alias) == name => Some(expr),
        _ => None,
    })
}

fn distance_of(expr: &Expr, def: &TableDef, names: &[Option<&str>]) -> Option<(ColumnId, Metric, usize)> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    let metric = match op {
        BinaryOperator::LtDashGt => Metric::L2,
        BinaryOperator::Custom(text) => Metric::from_operator(text)?,
        _ => return None,
    };
    match (plain_column(left, def, names), plain_column(right, def, names)) {
        (Some(column), None) => Some((column, metric, parameter(right)?)),
        (None, Some(column)) => Some((column, metric, parameter(left)?)),
        _ => None,
    }
}

fn plain_column(expr: &Expr, def: &TableDef, names: &[Option<&str>]) -> Option<ColumnId> {
    let column = match expr {
        Expr::Identifier(ident) => normalized(ident),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, column] if names.contains(&Some(normalized(table).as_str())) => normalized(column),
            _ => return None,
        },
        Expr::Nested(inner) => return plain_column(inner, def, names),
        _ => return None,
    };
    def.column(&column).map(|column| column.id)
}

/// The position of `$n`, from 0. A cast around it was taken off by `sql::prepare_query`.
fn parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        Expr::Nested(inner) => parameter(inner),
        _ => None,
    }
}

fn plain_limit(query: &Query) -> Option<Count> {
    let Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by }) = &query.limit_clause
    else {
        return None;
    };
    if !limit_by.is_empty() {
        return None;
    }
    match limit {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok().map(Count::Constant),
            Value::Placeholder(_) => parameter(limit).map(Count::Parameter),
            _ => None,
        },
        _ => None,
    }
}
