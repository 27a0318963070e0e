//! The fast path: `SELECT columns FROM t [WHERE …] ORDER BY column <op> $n LIMIT n` without a DataFusion plan.
//!
//! A statement of just this shape is compiled once, at Parse, into the columns it returns and the search it
//! runs; each execution is then the search and `k` look-ups. Everything else takes the planned way, with the
//! same rows: both end in `search`.

mod filter;
mod shape;

use std::{ops::Range, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch},
        compute::cast,
        datatypes::{DataType, Float32Type, Int64Type},
    },
    sql::sqlparser::ast::Query,
};
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{
    ColumnDef, ColumnId, Error, IndexMethod, Measure, Metric, Result, SqlState, SqlType, TableId,
    VectorIndexOptions, VectorKind,
};

use super::{
    Hit, IndexCache, Search, Searched,
    fetch::{distances, fetch},
    rule::MOST_NEIGHBOURS,
    search::search,
};
use crate::{
    context::{SearchSettings, StatementContext},
    error,
    functions::operand,
    output::{Described, OutputColumn, is_vector},
    planner::{Engine, LogicalPlan, parameter_values},
    sql::{
        ParameterTypes,
        shape::{plain_column, plain_item, plain_select, plain_table},
    },
};
use filter::FastFilter;
use shape::{Count, Distance, Source, distance_of, only_beside, plain_limit, plain_order, resolve_alias};

/// Elements of vectors that are scored without an index, at most: a millisecond or two.
const MOST_ELEMENTS: usize = 4 << 20;

/// More rows than these take an index longer.
const MOST_BY_INDEX: usize = 1_000;

/// Rows that a WHERE clause is asked of, at most.
const MOST_FILTERED: u64 = 4 << 20;

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
    /// As what the rows are compared: the column's, or `halfvec` for `column::halfvec(n)`.
    kind: VectorKind,
    dimensions: u16,
    metric: Metric,
    as_halves: bool,
    query: Source,
    limit: Count,
    outputs: Vec<Output>,
    /// The columns that it reads, settled once the statement was planned.
    reads: Vec<ColumnId>,
    described: Described,
    has_where: bool,
    /// Whether a parameter of the WHERE clause means there what a literal in its place would.
    like_literals: bool,
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
        let limit = plain_limit(query)?;
        if matches!(limit, Count::Constant(count) if count > MOST_NEIGHBOURS) {
            return None;
        }
        let snapshot = context.snapshot.get();
        let version = snapshot.find(&context.environment, &name)?;
        let def = &version.def;
        let names = [Some(name.name.as_str()), alias.as_deref()];
        let order = plain_order(query)?;
        let distance = resolve_alias(order, select).unwrap_or(order);
        let Distance { column, metric, as_halves, query: source } = distance_of(distance, def, &names)?;
        if as_halves && def.measured_by(column, Measure::Halves(metric)).is_none() {
            return None;
        }
        let searched = &def.column_by_id(column)?.ty;
        let kind = if as_halves { VectorKind::Half } else { searched.vector_kind()? };
        let dimensions = searched.dimensions()?;
        let usable = match &source {
            Source::Constant(elements) => elements.len() == usize::from(dimensions),
            Source::Parameter(position) => parameters
                .get(position + 1)
                .is_none_or(|given| given.vector_kind().is_some_and(|given| given.beside(kind) == kind)),
        };
        if !usable {
            return None;
        }
        let (mut outputs, mut columns, mut reads) = (Vec::new(), Vec::new(), vec![column]);
        for item in &select.projection {
            let (expr, name) = plain_item(item)?;
            if expr == distance {
                outputs.push(Output::Distance);
                columns.push(OutputColumn::new(name?, SqlType::Float8));
                continue;
            }
            let definition = def.column_by_id(plain_column(expr, def, &names)?)?;
            outputs.push(Output::Column(definition.id));
            reads.push(definition.id);
            columns.push(OutputColumn::of(definition, def, name));
        }
        Some(FastKnn {
            table: def.id,
            column,
            kind,
            dimensions,
            metric,
            as_halves,
            query: source,
            limit,
            outputs,
            reads,
            described: Described::new(columns),
            has_where: select.selection.is_some(),
            // Of one type in all places; a literal is what stands beside it asks for, and a vector is no halfvec there.
            like_literals: kind == VectorKind::Single
                || select
                    .selection
                    .as_ref()
                    .is_none_or(|condition| only_beside(condition, kind, def, &names)),
            filter: None,
        })
    }

    /// Takes the WHERE clause from the statement's plan. `None` when this way cannot answer it.
    pub fn with_filter(mut self, engine: &Engine, plan: &LogicalPlan) -> Option<FastKnn> {
        if self.has_where {
            let filter = FastFilter::of(engine, plan)?;
            self.reads.extend(filter.reads());
            self.filter = Some(Arc::new(filter));
        }
        self.reads.sort_unstable();
        self.reads.dedup();
        Some(self)
    }

    fn measure(&self) -> Measure {
        if self.as_halves { Measure::Halves(self.metric) } else { Measure::Vectors(self.metric) }
    }

    pub fn columns(&self) -> &Arc<[OutputColumn]> {
        self.described.columns()
    }

    /// Whether the query's vector, as `$1`, is all that is left open and could as well stand in the text: the WHERE
    /// clause may name it too.
    pub fn takes_only_a_vector(&self) -> bool {
        self.like_literals && matches!((&self.query, self.limit), (Source::Parameter(0), Count::Constant(_)))
    }

    /// Whether an array's first value is a vector of the column's dimensions.
    pub fn accepts(&self, array: &ArrayRef) -> bool {
        is_vector(array.data_type())
            && array.is_valid(0)
            && first_elements(array).1.len() == usize::from(self.dimensions)
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

    /// Runs the search. `None` where the planned way is to answer: the table changed, no LIMIT is given or a very large
    /// one, or it would take long, for this way holds up other sessions and cannot be cancelled.
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
        // Without the index there may be rows that cannot be rounded.
        if self.as_halves && version.def.measured_by(self.column, self.measure()).is_none() {
            return Ok(None);
        }
        let Some(k) = self.count(parameters)?.filter(|k| *k <= MOST_NEIGHBOURS) else {
            return Ok(None);
        };
        let given = match self.query {
            Source::Constant(_) => None,
            Source::Parameter(position) => match query_array(parameters, position, self.kind)? {
                Some(array) => Some(array),
                None => return Ok(None),
            },
        };
        let query = self.elements(given.as_ref())?;
        let filter = match &self.filter {
            Some(filter) => Some(filter.compile(engine, &parameter_values(parameters, parameters.len())?)?),
            None => None,
        };
        let settings = *context.search.read();
        if !self.is_at_hand(version, column, (&settings, k), &context.indexes) {
            return Ok(None);
        }
        let predicate = |_: usize, reference: &ChunkRef| {
            let kept = context.indexes.filters();
            filter.as_ref().map(|filter| filter.passing(version, reference, kept)).transpose()
        };
        let hits = search(
            &Search {
                version,
                column,
                metric: self.metric,
                as_halves: self.as_halves,
                query,
                k,
                settings,
                predicate: filter.is_some().then_some(&predicate),
                abandoned: None,
            },
            &context.indexes,
            &mut Searched::default(),
        )?;
        self.rows(version, &hits)
    }

    /// Whether nothing has to be read from files, and few rows are scored one by one: all of them are where an index
    /// does not reach the recall that is asked for.
    fn is_at_hand(
        &self,
        version: &TableVersion,
        column: &ColumnDef,
        (settings, k): (&SearchSettings, usize),
        indexes: &IndexCache,
    ) -> bool {
        let rows = || version.chunks.iter().map(|reference| u64::from(reference.chunk.rows())).sum::<u64>();
        if self.filter.is_some() && rows() > MOST_FILTERED {
            return false;
        }
        let by_index = settings.use_indexes && k <= MOST_BY_INDEX;
        let index = by_index.then(|| version.def.measured_by(column.id, self.measure())).flatten();
        // `USING flat` is a scan.
        let index = index
            .filter(|index| !matches!(index.method, IndexMethod::Vector(VectorIndexOptions::Flat { .. })))
            .map(|index| index.id);
        let serves = |(index, segment)| indexes.serves(segment, index, (settings, k));
        let mut scored = 0;
        version.chunks.iter().all(|reference| {
            let chunk = &reference.chunk;
            if !index.zip(chunk.segment()).is_some_and(serves) {
                scored += chunk.rows() as usize * usize::from(self.dimensions);
            }
            scored <= MOST_ELEMENTS && self.reads.iter().all(|column| chunk.is_at_hand(*column))
        })
    }

    fn rows(&self, version: &TableVersion, hits: &[Hit]) -> Result<Option<RecordBatch>> {
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
        self.described.batch(arrays, hits.len()).map(Some)
    }

    /// The query's elements, where they lie. Errors: 22000 for other dimensions than the column's.
    fn elements<'a>(&'a self, given: Option<&'a ArrayRef>) -> Result<&'a [f32]> {
        let elements = match (&self.query, given) {
            (Source::Constant(elements), _) => &**elements,
            (Source::Parameter(_), Some(array)) => first_vector(array)?,
            (Source::Parameter(_), None) => return Err(Error::bug("a search without its vector")),
        };
        self.kind.check_same(usize::from(self.dimensions), elements.len())?;
        Ok(elements)
    }

    /// LIMIT; `None` for NULL, which is none.
    fn count(&self, parameters: &[ArrayRef]) -> Result<Option<usize>> {
        let negative = || Error::new(SqlState::InvalidRowCountInLimitClause, "LIMIT must not be negative");
        match self.limit {
            Count::Constant(count) => Ok(Some(count)),
            Count::Parameter(position) => {
                let array =
                    parameters.get(position).ok_or_else(|| Error::bug("the LIMIT parameter is missing"))?;
                let array = match array.data_type() {
                    DataType::Int64 => Arc::clone(array),
                    _ => cast(array, &DataType::Int64).map_err(error::arrow)?,
                };
                if array.is_null(0) {
                    return Ok(None);
                }
                let count = usize::try_from(array.as_primitive::<Int64Type>().value(0));
                count.map(Some).map_err(|_| negative())
            }
        }
    }
}

/// The parameter that is the query, as a column of this kind takes it; `None` for NULL, which the planned way answers.
fn query_array(parameters: &[ArrayRef], position: usize, kind: VectorKind) -> Result<Option<ArrayRef>> {
    let Some(array) = parameters.get(position) else {
        return Err(Error::bug("the fast path was run without its parameter"));
    };
    if array.is_empty() || array.is_null(0) || array.data_type() == &DataType::Null {
        return Ok(None);
    }
    operand(array, kind).map(Some).map_err(error::translate)
}

/// The elements of all vectors of an array, and which of them are the first one's.
fn first_elements(array: &ArrayRef) -> (&ArrayRef, Range<usize>) {
    let (values, start, end) = match array.data_type() {
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            (list.values(), list.value_offset(0), list.value_offset(0) + list.value_length())
        }
        _ => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            (list.values(), offsets[0], offsets[1])
        }
    };
    (values, usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0))
}

/// The elements of the first vector of an array of `vector`.
fn first_vector(array: &ArrayRef) -> Result<&[f32]> {
    let (values, range) = first_elements(array);
    let elements = values.as_primitive::<Float32Type>().values();
    elements.get(range).ok_or_else(|| Error::bug("a vector's elements are not there"))
}
