//! The fast path: `SELECT columns FROM t [WHERE …] ORDER BY column <op> $n LIMIT n` without a DataFusion plan.
//!
//! A statement of just this shape is compiled once, at Parse, into the columns it returns and the search it
//! runs; each execution is then the search and `k` look-ups. Everything else takes the planned way, with the
//! same rows: both end in `search`.

mod filter;
mod shape;

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch},
        datatypes::{DataType, Float32Type, Int64Type},
    },
    sql::sqlparser::ast::Query,
};
use sepal_storage::ChunkRef;
use sepal_types::{ColumnId, Error, Metric, Result, SqlState, SqlType, TableId, VectorKind};

use super::{
    Hit, Search,
    fetch::{described, distances, fetch},
    search::search,
};
use crate::{
    context::StatementContext,
    error,
    functions::operand,
    output::OutputColumn,
    planner::{Engine, LogicalPlan, parameter_values},
    sql::{
        ParameterTypes,
        shape::{plain_column, plain_item, plain_select, plain_table},
    },
};
use filter::FastFilter;
use shape::{Count, Source, distance_of, plain_limit, plain_order, resolve_alias};

/// What one output column is.
#[derive(Clone, Debug)]
enum Output {
    Column(ColumnId),
    Distance,
}

/// A compiled search.
#[derive(Clone, Debug)]
pub struct FastKnn {
    table: TableId,
    column: ColumnId,
    kind: VectorKind,
    dimensions: u16,
    metric: Metric,
    query: Source,
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
        let (column, metric, source) = distance_of(distance, def, &names)?;
        let searched = &def.column_by_id(column)?.ty;
        let (kind, dimensions) = (searched.vector_kind()?, searched.dimensions()?);
        let usable = match &source {
            Source::Constant(elements) => elements.len() == usize::from(dimensions),
            Source::Parameter(position) => parameters
                .get(position + 1)
                .is_none_or(|given| given.vector_kind().is_some_and(|given| given.beside(kind) == kind)),
        };
        if !usable {
            return None;
        }
        let mut outputs = Vec::new();
        let mut columns = Vec::new();
        for item in &select.projection {
            let (expr, name) = plain_item(item)?;
            if expr == distance {
                outputs.push(Output::Distance);
                columns.push(OutputColumn::new(name?, SqlType::Float8));
                continue;
            }
            let definition = def.column_by_id(plain_column(expr, def, &names)?)?;
            outputs.push(Output::Column(definition.id));
            columns.push(OutputColumn::of(definition, def, name));
        }
        Some(FastKnn {
            table: def.id,
            column,
            kind,
            dimensions,
            metric,
            query: source,
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
        if let Source::Parameter(position) = self.query {
            parameters.hint(position + 1, &self.kind.sql_type(None));
        }
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
        described(&self.columns, arrays, hits.len()).map(Some)
    }

    /// The query's elements; `None` for NULL, which the planned way answers.
    fn query_vector(&self, parameters: &[ArrayRef]) -> Result<Option<Arc<[f32]>>> {
        let position = match &self.query {
            Source::Constant(elements) => return Ok(Some(Arc::clone(elements))),
            Source::Parameter(position) => *position,
        };
        let Some(array) = parameters.get(position) else {
            return Err(Error::bug("the fast path was run without its parameter"));
        };
        if array.is_empty() || array.is_null(0) || array.data_type() == &DataType::Null {
            return Ok(None);
        }
        let vectors = operand(array, self.kind).map_err(error::translate)?;
        let values = match vectors.data_type() {
            DataType::FixedSizeList(..) => vectors.as_fixed_size_list().value(0),
            _ => vectors.as_list::<i32>().value(0),
        };
        let values: Arc<[f32]> = Arc::from(values.as_primitive::<Float32Type>().values().as_ref());
        self.kind.check_same(usize::from(self.dimensions), values.len())?;
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
