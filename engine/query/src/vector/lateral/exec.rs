//! Runs a [`Lateral`]: pieces of the input's rows, as many at once as there are threads, in the input's order.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::Session,
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{
        LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
        physical_planning_context::PhysicalPlanningContext,
    },
    physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements,
        Partitioning, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};
use futures::{StreamExt, TryStreamExt, future::ready, stream};
use parking_lot::Mutex;
use sepal_types::{Error, Measure};

use super::{
    node::{Lateral, Question, Searched},
    pairs::Sides,
    searches::Searches,
};
use crate::{
    error::carry,
    planner::BATCH_ROWS,
    vector::{
        exec::{Waiting, plan_filter},
        search::usable_index,
    },
};

/// Rows of the input that one thread answers before it asks for more: few enough that all threads have something to do
/// and that a cancelled statement ends soon.
const PIECE_ROWS: usize = 64;

/// Turns [`Lateral`] into [`LateralExec`].
pub struct LateralPlanner;

#[async_trait]
impl ExtensionPlanner for LateralPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<Lateral>() else {
            return Ok(None);
        };
        let [input] = physical_inputs else {
            return Err(carry(Error::bug("a lateral search has one input")));
        };
        let Question { query, filter, correlated, .. } = &node.question;
        let schema = Arc::new(UserDefinedLogicalNodeCore::schema(node).as_arrow().clone());
        let searches = resolve(node, Arc::clone(&schema), (planner, session, planning))?;
        let words = Words {
            query: query.to_string(),
            filter: filter.as_ref().map(ToString::to_string),
            correlated: correlated.as_ref().map(ToString::to_string),
        };
        Ok(Some(Arc::new(LateralExec::new(Arc::clone(input), Arc::new(searches), Arc::new(words), schema))))
    }
}

/// Binds a node to the table's rows as they are now.
fn resolve(
    node: &Lateral,
    schema: SchemaRef,
    (planner, session, planning): (&dyn PhysicalPlanner, &dyn Session, &PhysicalPlanningContext),
) -> Result<Searches> {
    let Searched { table_name, table, column, metric } = &node.searched;
    let Question { query, skip, fetch, filter, correlated, ties, outputs, keeps_unmatched } = &node.question;
    let version = table.version()?;
    let column = version
        .def
        .column_by_id(*column)
        .cloned()
        .ok_or_else(|| carry(Error::bug("the searched column is gone")))?;
    let stored = table.arrow_schema();
    let filter = match filter {
        Some(filter) => Some(plan_filter(filter, table_name.clone(), &stored, (planner, session, planning))?),
        None => None,
    };
    let sides = Sides::new(node.input.schema(), &stored)?;
    Ok(Searches {
        query: planner.create_physical_expr(query, node.input.schema(), session, planning)?,
        conditions: sides.plan(correlated.iter(), planner, session)?,
        ties: sides.plan(ties.iter().map(|tie| &tie.expr), planner, session)?,
        directions: ties.iter().map(|tie| (tie.asc, tie.nulls_first)).collect(),
        outputs: sides.plan(outputs.iter(), planner, session)?,
        skip: *skip,
        fetch: *fetch,
        keeps_unmatched: *keeps_unmatched,
        metric: *metric,
        runtime: table.runtime().clone(),
        passing: OnceLock::new(),
        version,
        column,
        filter,
        schema,
        searched: Mutex::default(),
    })
}

/// What EXPLAIN calls the parts.
#[derive(Debug)]
struct Words {
    query: String,
    filter: Option<String>,
    correlated: Option<String>,
}

/// The physical node.
#[derive(Debug)]
pub struct LateralExec {
    input: Arc<dyn ExecutionPlan>,
    searches: Arc<Searches>,
    words: Arc<Words>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl LateralExec {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        searches: Arc<Searches>,
        words: Arc<Words>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, searches, words, schema, properties: Arc::new(properties) }
    }

    /// What EXPLAIN ANALYZE adds: of all searches together.
    pub fn analyze_lines(&self) -> Vec<String> {
        self.searches.analyze_lines()
    }

    /// The lines that EXPLAIN shows.
    pub fn explain_lines(&self) -> Vec<String> {
        let Searches { version, column, metric, skip, fetch, keeps_unmatched, .. } = self.searches.as_ref();
        let settings = *self.searches.runtime.settings.read();
        let index =
            settings.use_indexes.then(|| usable_index(version, column, Measure::Vectors(*metric))).flatten();
        let table = &version.def.name;
        let mut lines = vec![match &index {
            Some((_, name)) => format!("Batch Index Scan using {name} on {table}"),
            None => format!("Batch Exact Vector Scan on {table}"),
        }];
        lines.push(format!("Order By: ({} {} {})", column.name, metric.operator(), self.words.query));
        let offset = if *skip > 0 { format!(", Offset: {skip}") } else { String::new() };
        lines.push(format!("Limit: {fetch}{offset} for each row"));
        if *keeps_unmatched {
            lines.push("Join Type: Left".to_owned());
        }
        lines.extend(self.words.filter.iter().map(|filter| format!("Pre-filter: {filter}, once")));
        lines
            .extend(self.words.correlated.iter().map(|filter| format!("Pre-filter: {filter}, for each row")));
        lines
    }
}

impl DisplayAs for LateralExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain_lines().join(", "))
    }
}

impl ExecutionPlan for LateralExec {
    fn name(&self) -> &'static str {
        "VectorLateral"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// The threads are busy with pieces; the input need not be divided too.
    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.searches.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| carry(Error::bug("a lateral search has one input")))?;
        let (searches, words) = (Arc::clone(&self.searches), Arc::clone(&self.words));
        Ok(Arc::new(Self::new(input, searches, words, Arc::clone(&self.schema))))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let threads = task.session_config().target_partitions().max(1);
        let most = PIECE_ROWS.min(BATCH_ROWS / self.searches.fetch.max(1)).max(1);
        let queue = self
            .input
            .execute(partition, task)?
            .map_ok(move |batch| {
                stream::iter(pieces(&batch, threads, most).into_iter().map(Ok::<_, DataFusionError>))
            })
            .try_flatten();
        let (searches, waiting) = (Arc::clone(&self.searches), Waiting::default());
        let answers = queue
            .map(move |piece| {
                let (searches, abandoned) = (Arc::clone(&searches), waiting.abandoned());
                async move {
                    let piece = piece?;
                    tokio::task::spawn_blocking(move || searches.answer(&piece, &abandoned))
                        .await
                        .map_err(|problem| DataFusionError::External(Box::new(problem)))?
                }
            })
            .buffered(threads)
            .try_filter(|answer: &RecordBatch| ready(answer.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), answers)))
    }
}

/// A batch in pieces of at most `most` rows: some for every thread, if there are enough.
fn pieces(batch: &RecordBatch, threads: usize, most: usize) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    let step = rows.div_ceil(threads).clamp(1, most);
    (0..rows).step_by(step).map(|start| batch.slice(start, step.min(rows - start))).collect()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int32Array};

    use super::*;
    use crate::vector::exec::check_waiting;

    #[test]
    fn who_searches_for_nobody_is_told() {
        let waiting = Waiting::default();
        let abandoned = waiting.abandoned();
        check_waiting(&abandoned).unwrap();
        drop(waiting);
        assert_eq!(check_waiting(&abandoned).unwrap_err().state().code(), "57014");
    }

    #[test]
    fn pieces_hold_every_row_once_and_feed_every_thread() {
        for (rows, threads, most, expected) in
            [(0_i32, 4, 64, 0), (1, 4, 64, 1), (8, 4, 64, 4), (9, 4, 64, 3), (1000, 4, 64, 16), (3, 1, 1, 3)]
        {
            let numbers: ArrayRef = Arc::new((0..rows).collect::<Int32Array>());
            let batch = RecordBatch::try_from_iter([("n", Arc::clone(&numbers))]).unwrap();
            let cut = pieces(&batch, threads, most);
            assert_eq!(cut.len(), expected, "{rows} rows, {threads} threads, at most {most}");
            let held: usize = cut.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(held, numbers.len());
            assert!(cut.iter().all(|piece| (1..=most).contains(&piece.num_rows())));
        }
    }
}
