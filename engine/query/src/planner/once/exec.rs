//! Runs WITH queries that are evaluated once: whoever reads the first row of one starts it, on a task of its own, and
//! all its names read the rows from memory.
//!
//! On a task, since an operator may wait for one name's rows before it asks for another's. The rows come when all are
//! there, and are held in the tenant's memory until the statement ends; what it is evaluated for is one physical plan,
//! which is made anew for each execution.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::array::RecordBatch,
    catalog::Session,
    common::{runtime::SpawnedTask, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{
        SendableRecordBatchStream, SessionState, TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    logical_expr::{LogicalPlan, UserDefinedLogicalNode, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        execute_stream,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
    physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner},
};
use futures::{
    FutureExt, TryStreamExt,
    future::{BoxFuture, Shared},
    stream,
};
use parking_lot::Mutex;
use sepal_types::Error;

use super::node::{Once, has_once, take_out};
use crate::{error::carry, planner::extension_planners};

/// Optimizes a plan and makes it executable, with its WITH queries by themselves: each is optimized for all its names.
pub async fn physical(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    if !has_once(plan)? {
        return state.create_physical_plan(plan).await;
    }
    // A name's columns have the types that the query's get.
    let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    let (plan, queries) = take_out(analyzed)?;
    let evaluated = Arc::new(OncePlanner::default());
    let mut planners = extension_planners();
    planners.push(Arc::clone(&evaluated) as Arc<dyn ExtensionPlanner + Send + Sync>);
    let planner = DefaultPhysicalPlanner::with_extension_planners(planners);
    for query in queries {
        let optimized = state.optimize(&query.plan)?;
        let plan = planner.create_physical_plan(&optimized, state).await?;
        let rows = OnceRows { number: query.number, name: query.name, plan, evaluation: Mutex::default() };
        evaluated.0.lock().push(Arc::new(rows));
    }
    let optimized = state.optimize(&plan)?;
    planner.create_physical_plan(&optimized, state).await
}

/// Turns the leaves of one plan into [`OnceExec`]s.
#[derive(Default)]
struct OncePlanner(Mutex<Vec<Arc<OnceRows>>>);

#[async_trait]
impl ExtensionPlanner for OncePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<Once>() else {
            return Ok(None);
        };
        let rows = self.0.lock().iter().find(|rows| rows.number == node.number).cloned();
        let rows = rows.ok_or_else(|| carry(Error::bug("a WITH query is read before it is planned")))?;
        Ok(Some(Arc::new(OnceExec::new(rows))))
    }
}

/// The rows of a WITH query, and what the tenant's memory gave for them.
struct Held {
    batches: Vec<RecordBatch>,
    _memory: MemoryReservation,
}

type Evaluation = Shared<BoxFuture<'static, std::result::Result<Arc<Held>, Arc<DataFusionError>>>>;

/// A WITH query of one execution.
struct OnceRows {
    number: usize,
    name: Arc<str>,
    plan: Arc<dyn ExecutionPlan>,
    /// Dropped with the last of those who read it, which ends the work.
    evaluation: Mutex<Option<Evaluation>>,
}

impl OnceRows {
    /// Must be called on the threads that queries run on.
    fn evaluation(&self, task: &Arc<TaskContext>) -> Evaluation {
        let start = || {
            let work = SpawnedTask::spawn(evaluate(
                Arc::clone(&self.plan),
                Arc::clone(&self.name),
                Arc::clone(task),
            ));
            let done = async move {
                match work.join_unwind().await {
                    Ok(rows) => rows.map(Arc::new).map_err(Arc::new),
                    Err(problem) => Err(Arc::new(DataFusionError::External(Box::new(problem)))),
                }
            };
            done.boxed().shared()
        };
        self.evaluation.lock().get_or_insert_with(start).clone()
    }
}

impl fmt::Debug for OnceRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceRows").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Errors: 53200 where the tenant's memory does not hold the rows.
async fn evaluate(plan: Arc<dyn ExecutionPlan>, name: Arc<str>, task: Arc<TaskContext>) -> Result<Held> {
    let memory = MemoryConsumer::new(format!("WITH query \"{name}\"")).register(task.memory_pool());
    let mut rows = execute_stream(plan, task)?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() > 0 {
            memory.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
    }
    Ok(Held { batches, _memory: memory })
}

/// The physical node: one name.
#[derive(Debug)]
pub struct OnceExec {
    rows: Arc<OnceRows>,
    properties: Arc<PlanProperties>,
}

impl OnceExec {
    fn new(rows: Arc<OnceRows>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(rows.plan.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { rows, properties: Arc::new(properties) }
    }

    /// The query's, among those of the statement.
    pub fn number(&self) -> usize {
        self.rows.number
    }

    pub fn query_name(&self) -> &str {
        &self.rows.name
    }

    /// What is evaluated once. No child: what goes for one name does not go for it.
    pub fn evaluated(&self) -> &Arc<dyn ExecutionPlan> {
        &self.rows.plan
    }
}

impl DisplayAs for OnceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CTE Scan on {}", self.rows.name)
    }
}

impl ExecutionPlan for OnceExec {
    fn name(&self) -> &'static str {
        "WithQuery"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
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

    fn execute(&self, _partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = Arc::clone(&self.rows);
        let evaluated = async move {
            let held = rows.evaluation(&task).await.map_err(DataFusionError::Shared)?;
            let places = 0..held.batches.len();
            let batches = places.map(move |place| Ok::<_, DataFusionError>(held.batches[place].clone()));
            Ok::<_, DataFusionError>(stream::iter(batches))
        };
        let batches = stream::once(evaluated).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{
            array::{ArrayRef, Int32Array},
            datatypes::Schema,
        },
        physical_plan::empty::EmptyExec,
    };

    use super::*;

    fn once(batches: Vec<RecordBatch>) -> OnceExec {
        let held = Arc::new(Held {
            batches,
            _memory: MemoryConsumer::new("test").register(TaskContext::default().memory_pool()),
        });
        let plan: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
        let ready: Evaluation = async move { Ok(held) }.boxed().shared();
        let evaluation = Mutex::new(Some(ready));
        OnceExec::new(Arc::new(OnceRows { number: 0, name: "q".into(), plan, evaluation }))
    }

    #[tokio::test]
    async fn each_name_reads_all_rows() {
        let numbers = |values: Vec<i32>| {
            RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(values)) as ArrayRef)]).unwrap()
        };
        let batches = vec![numbers(vec![1, 2]), numbers(vec![3])];
        let exec = once(batches.clone());
        for _ in 0..2 {
            let rows = exec.execute(0, Arc::new(TaskContext::default())).unwrap();
            assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap(), batches);
        }
    }
}
