//! Runs a [`TopK`]: filter bitmaps per chunk, the search, then the columns of the rows found.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Schema, SchemaRef},
    },
    catalog::Session,
    common::{DFSchema, ScalarValue, TableReference, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{
        Expr, LogicalPlan, UserDefinedLogicalNode, physical_planning_context::PhysicalPlanningContext,
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};
use futures::stream;
use parking_lot::Mutex;
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{ColumnDef, Error, Measure, SqlState, SqlType, TableId, VectorIndexOptions, VectorKind};

use super::{
    Hit, Search, Searched,
    bits::{BitSearch, search_bits},
    fetch::{distances, fetch},
    filter::{Filter, Selected},
    node::{Runtime, TopK, subqueries},
    rule::{MORE_TIES, MOST_NEIGHBOURS, TIE_MARGIN, has_all_ties},
    search::{Predicate, effort, search, shown, usable_index},
    unranked::unranked,
};
use crate::{
    context::SearchSettings,
    error::carry,
    functions::{bits_beside, operand},
    planner::told_apart,
};

/// Turns [`TopK`] into [`KnnExec`].
pub struct TopKPlanner;

#[async_trait]
impl ExtensionPlanner for TopKPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<TopK>() else {
            return Ok(None);
        };
        let version = node.table.version()?;
        let column = version
            .def
            .column_by_id(node.column)
            .cloned()
            .ok_or_else(|| carry(Error::bug("the searched column is gone")))?;
        let query = match known(&node.query)? {
            Some(value) => Query::Known(wanted(&value.to_array()?, node.measure, &column)?),
            None => Query::Later {
                value: planner.create_physical_expr(&node.query, &DFSchema::empty(), session, planning)?,
                text: node.query.to_string(),
            },
        };
        let schema = node.table.arrow_schema();
        let filter = match &node.filter {
            Some(filter) => {
                Some(plan_filter(filter, node.table_name.clone(), &schema, (planner, session, planning))?)
            }
            None => None,
        };
        let columns = node.projection.iter().map(|position| version.def.columns[*position].clone()).collect();
        let plan = Knn {
            columns,
            measure: node.measure,
            k: count(&node.k)?,
            ties: node.ties,
            ef_search: node.ef_search,
            with_distance: node.with_distance,
            filter_text: node.filter.as_ref().map(ToString::to_string),
            runtime: node.runtime.clone(),
            version,
            column,
            query,
            filter,
        };
        Ok(Some(Arc::new(KnnExec::new(plan, Arc::new(node.schema.as_arrow().clone())))))
    }
}

/// A predicate over a table's columns, executable.
pub(super) fn plan_filter(
    filter: &Expr,
    table_name: TableReference,
    table: &Schema,
    (planner, session, planning): (&dyn PhysicalPlanner, &dyn Session, &PhysicalPlanningContext),
) -> Result<Filter> {
    let qualified = DFSchema::try_from_qualified_schema(table_name, table)?;
    let simplifier = simplifier(&qualified, session);
    // One with subqueries was part of a plan, which has typed it, and these are known by what they look like.
    let typed = if subqueries(filter).is_empty() {
        simplifier.coerce(filter.clone(), &qualified)?
    } else {
        filter.clone()
    };
    let simplified = simplifier.simplify(told_apart(typed, &simplifier)?)?;
    let predicate = planner.create_physical_expr(&simplified, &qualified, session, planning)?;
    Ok(Filter::new(predicate, table))
}

/// For expressions that DataFusion's optimizer has not seen. Some functions are nothing but what they are simplified
/// to: `coalesce`, and `now()` in a session that has a time.
pub(super) fn simplifier(schema: &DFSchema, session: &dyn Session) -> ExprSimplifier {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(session.config().options()))
        .with_query_execution_start_time(session.execution_props().query_execution_start_time);
    ExprSimplifier::new(context.build())
}

/// The value of an expression, where planning can tell it.
fn known(expr: &Expr) -> Result<Option<ScalarValue>> {
    if !subqueries(expr).is_empty() {
        return Ok(None);
    }
    match crate::planner::fold_constant(expr.clone())? {
        Expr::Literal(value, _) => Ok(Some(value)),
        _ => Ok(None),
    }
}

/// What a column is searched for, as the operator takes it beside the column: for a `halfvec`, rounded to one.
pub(super) fn queries(values: &ArrayRef, column: &ColumnDef) -> Result<ArrayRef> {
    operand(values, column.ty.vector_kind().unwrap_or(VectorKind::Single))
}

/// A row of [`queries`]; `None` for NULL.
///
/// Errors: pgvector's for other dimensions than the column's.
pub(super) fn query_elements(vectors: &ArrayRef, row: usize, column: &ColumnDef) -> Result<Option<Vec<f32>>> {
    let elements = crate::functions::vector_elements(vectors, row).map(|vector| vector.values().to_vec());
    if let (Some(elements), Some(kind), Some(dimensions)) =
        (&elements, column.ty.vector_kind(), column.ty.dimensions())
    {
        kind.check_same(usize::from(dimensions), elements.len()).map_err(carry)?;
    }
    Ok(elements)
}

/// What a search compares a column's rows with.
enum Wanted {
    Vector(Vec<f32>),
    Bits(Vec<u8>),
}

/// The first of what a column is searched for; `None` for NULL.
///
/// Errors: pgvector's for other dimensions, or another length, than the column's.
fn wanted(values: &ArrayRef, measure: Measure, column: &ColumnDef) -> Result<Option<Wanted>> {
    let ty = compared_type(measure, column);
    if let SqlType::Bit(Some(length)) = ty {
        return Ok(bits_beside(values, length)?.map(Wanted::Bits));
    }
    let column = ColumnDef { ty, ..column.clone() };
    let vectors = queries(values, &column)?;
    Ok(query_elements(&vectors, 0, &column)?.map(Wanted::Vector))
}

/// The type of what is compared.
fn compared_type(measure: Measure, column: &ColumnDef) -> SqlType {
    match measure {
        Measure::Vectors(_) | Measure::Bits(_) => column.ty.clone(),
        Measure::Halves(_) => SqlType::HalfVec(column.ty.dimensions()),
        Measure::Signs(_) => SqlType::Bit(column.ty.dimensions().map(u32::from)),
    }
}

/// The same in SQL, as PostgreSQL prints it.
fn compared_text(measure: Measure, column: &ColumnDef) -> String {
    let name = &column.name;
    match measure {
        Measure::Vectors(_) | Measure::Bits(_) => name.clone(),
        Measure::Halves(_) => format!("({name})::{}", compared_type(measure, column).display_name()),
        Measure::Signs(_) => {
            format!("(binary_quantize({name}))::{}", compared_type(measure, column).display_name())
        }
    }
}

fn count(expr: &Expr) -> Result<usize> {
    let value = known(expr)?.ok_or_else(|| {
        let message = format!("k of knn() must be a constant or a parameter, not {expr}");
        carry(Error::unsupported(message))
    })?;
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(count)) if count > MOST_NEIGHBOURS as i64 => {
            let message = format!("k of knn() must be at most {MOST_NEIGHBOURS}");
            Err(carry(
                Error::new(SqlState::ProgramLimitExceeded, message)
                    .with_hint("ORDER BY the distance LIMIT n has no such limit."),
            ))
        }
        ScalarValue::Int64(Some(count)) => usize::try_from(count).map_err(|_| {
            carry(Error::new(SqlState::InvalidRowCountInLimitClause, "LIMIT must not be negative"))
        }),
        _ => Err(carry(Error::new(SqlState::InvalidParameterValue, "k of knn() must not be NULL"))),
    }
}

/// What is searched for.
enum Query {
    /// `None`: it is NULL, every distance is NULL.
    Known(Option<Wanted>),
    /// Known once the statement's subqueries have run.
    Later { value: Arc<dyn PhysicalExpr>, text: String },
}

/// One search, resolved.
struct Knn {
    version: Arc<TableVersion>,
    column: ColumnDef,
    measure: Measure,
    query: Query,
    k: usize,
    /// See [`TopK::ties`].
    ties: bool,
    ef_search: Option<usize>,
    filter: Option<Filter>,
    filter_text: Option<String>,
    columns: Vec<ColumnDef>,
    with_distance: bool,
    runtime: Runtime,
}

impl fmt::Debug for Knn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knn").field("column", &self.column.name).field("k", &self.k).finish_non_exhaustive()
    }
}

/// The physical node.
#[derive(Debug)]
pub struct KnnExec {
    knn: Arc<Knn>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    /// What the search did, once it has run.
    searched: Arc<Mutex<Option<Searched>>>,
}

impl KnnExec {
    fn new(knn: Knn, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { knn: Arc::new(knn), schema, properties: Arc::new(properties), searched: Arc::default() }
    }

    /// What EXPLAIN ANALYZE adds to [`Self::explain_lines`]: nothing before it ran.
    pub fn analyze_lines(&self) -> Vec<String> {
        let searched = *self.searched.lock();
        searched.map_or_else(Vec::new, |searched| searched.lines(self.knn.filter.is_some()))
    }

    /// The lines that EXPLAIN shows: as Postgres words an index scan.
    pub fn explain_lines(&self) -> Vec<String> {
        let knn = &self.knn;
        let settings = *knn.runtime.settings.read();
        let table = &knn.version.def.name;
        let index =
            settings.use_indexes.then(|| usable_index(&knn.version, &knn.column, knn.measure)).flatten();
        let query = match &knn.query {
            Query::Known(Some(_)) => {
                format!("'…'::{}", compared_type(knn.measure, &knn.column).display_name())
            }
            Query::Known(None) => "NULL".to_owned(),
            Query::Later { text, .. } => text.clone(),
        };
        let mut lines = vec![match &index {
            Some((_, name)) => format!("Index Scan using {name} on {table}"),
            None => format!("Exact Vector Scan on {table}"),
        }];
        let compared = compared_text(knn.measure, &knn.column);
        lines.push(format!("  Order By: ({compared} {} {query})", knn.measure.operator()));
        lines.push(format!("  Limit: {}", knn.k));
        lines.extend(index.and_then(|(index, _)| knn.recall_line(index)));
        if let Some(filter) = &knn.filter_text {
            lines.push(format!("  Pre-filter: {filter}"));
        }
        lines
    }
}

impl DisplayAs for KnnExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.explain_lines().iter().map(|line| line.trim().to_owned()).collect();
        f.write_str(&lines.join(", "))
    }
}

impl ExecutionPlan for KnnExec {
    fn name(&self) -> &'static str {
        "VectorTopK"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut next = TreeNodeRecursion::Continue;
        if let Query::Later { value, .. } = &self.knn.query {
            next = f(value)?;
        }
        match &self.knn.filter {
            Some(filter) if next != TreeNodeRecursion::Stop => f(filter.predicate()),
            _ => Ok(next),
        }
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// The rows found come by the batch: where they are many, all that are as far as the last one wanted, whoever sorts
    /// them by further keys holds no more of them than those that are wanted.
    fn execute(&self, _partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (knn, schema) = (Arc::clone(&self.knn), Arc::clone(&self.schema));
        let told = Arc::clone(&self.searched);
        let most = task.session_config().batch_size().max(1);
        let waiting = Waiting::default();
        // The rows found, and how many of them have been sent; `None` before the search.
        let rows = stream::try_unfold(None, move |sent: Option<(Vec<Hit>, usize)>| {
            let (knn, schema, told) = (Arc::clone(&knn), Arc::clone(&schema), Arc::clone(&told));
            let abandoned = waiting.abandoned();
            async move {
                if sent.as_ref().is_some_and(|(hits, start)| *start >= hits.len()) {
                    return Ok(None);
                }
                let next = move || {
                    let (hits, start) = match sent {
                        Some(sent) => sent,
                        None => (knn.search(&told, &abandoned)?, 0),
                    };
                    let end = hits.len().min(start.saturating_add(most));
                    let batch = knn.rows(&schema, &hits[start..end])?;
                    Ok::<_, DataFusionError>(Some((batch, Some((hits, end)))))
                };
                tokio::task::spawn_blocking(next)
                    .await
                    .map_err(|problem| DataFusionError::External(Box::new(problem)))?
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}

/// Held by a stream: whoever works for it on another thread is told when it is dropped, as by a cancelled statement.
#[derive(Debug, Default)]
pub(super) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    /// For [`check_waiting`].
    pub fn abandoned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Errors: 57014 once nobody waits any more.
pub(super) fn check_waiting(abandoned: &AtomicBool) -> sepal_types::Result<()> {
    if abandoned.load(Ordering::Relaxed) {
        let message = "canceling statement due to user request";
        return Err(Error::new(SqlState::QueryCanceled, message));
    }
    Ok(())
}

impl Knn {
    /// The rows found. Tells `told` what it took.
    fn search(&self, told: &Mutex<Option<Searched>>, abandoned: &AtomicBool) -> Result<Vec<Hit>> {
        let mut searched = Searched::default();
        let hits = self.hits(&mut searched, abandoned);
        *told.lock() = Some(searched);
        hits
    }

    /// The columns of some of them.
    fn rows(&self, schema: &SchemaRef, hits: &[Hit]) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|column| fetch(&self.version, column, hits).map_err(carry))
            .collect::<Result<_>>()?;
        if self.with_distance {
            arrays.push(distances(hits));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(hits.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
    }

    /// The session's, but for what this call says itself.
    fn settings(&self) -> SearchSettings {
        let settings = *self.runtime.settings.read();
        match self.ef_search {
            Some(ef_search) => SearchSettings { ef_search, target_recall: None, ..settings },
            None => settings,
        }
    }

    /// What EXPLAIN says of a recall that was asked for: the efforts that it takes, from the segment with the least to
    /// the one with the most. Opens indexes that no search has opened yet.
    fn recall_line(&self, index: TableId) -> Option<String> {
        let settings = self.settings();
        let dim = usize::from(self.column.ty.dimensions()?);
        let recall = settings.target_recall?.share();
        let (_, options) =
            self.version.def.vector_indexes(self.column.id).find(|(found, _)| found.id == index)?;
        let all_bytes = || self.version.index_bytes(index).unwrap_or(0);
        let opened = |reference: &ChunkRef| {
            self.runtime.indexes.get(&reference.chunk, index, dim, all_bytes).ok().flatten()
        };
        // An index that cannot be opened is the search's to report.
        let indexes = self.version.chunks.iter().filter_map(opened);
        let efforts: Vec<_> = indexes.map(|index| effort(&*index, &settings, self.k)).collect();
        let exact = efforts.iter().filter(|effort| effort.is_none()).count();
        let most = efforts.iter().flatten().max().map(|effort| shown(effort, options));
        let least = efforts.iter().flatten().min().map(|effort| shown(effort, options));
        let text = match (least, most) {
            _ if matches!(options, VectorIndexOptions::Flat { .. } | VectorIndexOptions::Signs { .. }) => {
                "exact".to_owned()
            }
            (Some((name, least)), Some((_, most))) if least == most => format!("{name} {least}"),
            (Some((name, least)), Some((_, most))) => format!("{name} {least} to {most}"),
            _ => "exact".to_owned(),
        };
        let besides = if exact > 0 && exact < efforts.len() {
            format!(", exact in {exact} of {} segments", efforts.len())
        } else {
            String::new()
        };
        Some(format!("  Target Recall: {recall} ({text}{besides})"))
    }

    fn hits(&self, searched: &mut Searched, abandoned: &AtomicBool) -> Result<Vec<Hit>> {
        let later;
        let query = match &self.query {
            Query::Known(query) => query.as_ref(),
            Query::Later { value, .. } => {
                later = self.evaluated(value)?;
                later.as_ref()
            }
        };
        if !self.ties || self.k == 0 {
            return self.nearest((query, self.k), searched, abandoned);
        }
        let mut k = self.k.saturating_add(TIE_MARGIN);
        loop {
            let hits = self.nearest((query, k), searched, abandoned)?;
            if has_all_ties(&hits, self.k, k) {
                return Ok(hits);
            }
            k = k.saturating_mul(MORE_TIES);
        }
    }

    fn nearest(
        &self,
        (query, k): (Option<&Wanted>, usize),
        searched: &mut Searched,
        abandoned: &AtomicBool,
    ) -> Result<Vec<Hit>> {
        // Asked before each chunk as well: a filter may take long.
        let predicate = |_: usize, reference: &ChunkRef| {
            check_waiting(abandoned)?;
            self.passing(reference)
        };
        let predicate: Option<&Predicate<'_>> = Some(&predicate);
        let hits = match query {
            None => unranked(&self.version, k, predicate),
            Some(Wanted::Vector(query)) => self.nearest_vectors((query, k), predicate, searched, abandoned),
            Some(Wanted::Bits(query)) => self.nearest_bits((query, k), predicate, searched, abandoned),
        };
        hits.map_err(carry)
    }

    fn nearest_vectors(
        &self,
        (query, k): (&[f32], usize),
        predicate: Option<&Predicate<'_>>,
        searched: &mut Searched,
        abandoned: &AtomicBool,
    ) -> sepal_types::Result<Vec<Hit>> {
        let (metric, as_halves) = match self.measure {
            Measure::Vectors(metric) => (metric, false),
            Measure::Halves(metric) => (metric, true),
            Measure::Bits(_) | Measure::Signs(_) => return Err(Error::bug("bits beside a vector")),
        };
        let wanted = Search {
            version: &self.version,
            column: &self.column,
            metric,
            as_halves,
            query,
            k,
            settings: self.settings(),
            predicate,
            abandoned: Some(abandoned),
        };
        search(&wanted, &self.runtime.indexes, searched)
    }

    fn nearest_bits(
        &self,
        (query, k): (&[u8], usize),
        predicate: Option<&Predicate<'_>>,
        searched: &mut Searched,
        abandoned: &AtomicBool,
    ) -> sepal_types::Result<Vec<Hit>> {
        let (metric, of_signs) = match self.measure {
            Measure::Bits(metric) => (metric, false),
            Measure::Signs(metric) => (metric, true),
            Measure::Vectors(_) | Measure::Halves(_) => return Err(Error::bug("vectors beside bits")),
        };
        let wanted = BitSearch {
            version: &self.version,
            column: &self.column,
            metric,
            of_signs,
            query,
            k,
            settings: self.settings(),
            predicate,
            abandoned,
        };
        search_bits(&wanted, &self.runtime.indexes, searched)
    }

    /// What a query is that could not be known before.
    fn evaluated(&self, value: &Arc<dyn PhysicalExpr>) -> Result<Option<Wanted>> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        wanted(&value.evaluate(&row)?.into_array(1)?, self.measure, &self.column)
    }

    fn passing(&self, reference: &ChunkRef) -> sepal_types::Result<Option<Selected>> {
        let kept = self.runtime.indexes.filters();
        self.filter.as_ref().map(|filter| filter.passing(&self.version, reference, kept)).transpose()
    }
}
