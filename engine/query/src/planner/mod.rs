//! Planning and running queries: the one place where DataFusion is set up.
//!
//! [`Planning`] holds functions and rules and is one for all tenants: it knows no table and no tenant. An [`Engine`] is
//! shared by all sessions of one tenant and adds what its queries may hold, in memory and on disk. Tables come from the
//! [`StatementContext`] of the statement at hand, so a plan can name nothing outside the tenant's own snapshot.

mod arrays;
mod branches;
mod by_value;
mod chosen;
mod enums;
mod floats;
mod grouped_keys;
mod instants;
mod json_operators;
mod json_rows;
mod lateral_lists;
mod lateral_rows;
mod memberships;
mod moment;
mod multisets;
mod namesakes;
mod once;
mod operators;
mod past;
mod provider;
mod relation;
mod row_plan;
mod scalar_rows;
mod series;
mod single_row;
mod sink_errors;
mod text_search;
mod told_apart;
mod types;
mod typing;
mod unnested;
mod untyped;
mod value_rows;
mod zoned;

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use async_trait::async_trait;
use datafusion::{
    arrow::array::RecordBatch,
    catalog::Session,
    common::{
        DFSchema, ParamValues,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    execution::{
        SessionState, SessionStateBuilder, TaskContext,
        context::{QueryPlanner, SessionConfig},
        disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode},
        memory_pool::MemoryPool,
        runtime_env::RuntimeEnv,
    },
    logical_expr::{
        AggregateUDF, Expr, ScalarUDF, Volatility, WindowUDF,
        execution_props::ExecutionProps,
        expr::Placeholder,
        planner::ContextProvider,
        simplify::{SimplifyContext, SimplifyContextBuilder},
    },
    optimizer::{Optimizer, OptimizerRule},
    physical_plan::{ExecutionPlan, execute_stream},
    physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner},
    sql::{
        planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel},
        sqlparser::ast::{self, visit_expressions},
    },
};
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use sepal_storage::{SpillSpace, arrow_type};
use sepal_types::{Error, Result, SqlType, TableId};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

use crate::{
    budget::{KeptMemory, SealedFiles, TenantMemory},
    context::StatementContext,
    error::translate,
    functions,
    output::sql_type,
    sql::{ParameterTypes, check_values, compared},
    table::{as_user_table, prepare_to_hold},
    vector::{LateralPlanner, LateralRule, TopKPlanner, TopKRule},
    zone::Zone,
};

pub use datafusion::{logical_expr::LogicalPlan, scalar::ScalarValue};
pub(crate) use moment::Moment;
pub(crate) use once::OnceExec;
pub use past::{Asked, ask};
pub use provider::{TemporaryTables, undefined_table};
pub use relation::constant as fold_constant;
pub(crate) use row_plan::{RowParts, RowPlan, executable};
pub use single_row::SingleRow;
pub(crate) use single_row::{fill_parameters, is_pure, names_parameter};
pub(crate) use told_apart::told_apart;
pub use value_rows::ValueRows;
pub(crate) use zoned::depends as depends_on_zone;

/// Rows per batch that operators pass on.
pub const BATCH_ROWS: usize = 8192;

/// The merge of what a sort has put aside keeps this part of the tenant's memory from the sort's beginning on, within
/// these bounds: many small sorts must fit side by side.
const MERGE_PART: usize = 1024;
const MERGE_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=10 << 20;

/// Functions and rules: the same for every tenant, and a megabyte of them.
pub struct Planning {
    state: SessionState,
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    zone: Zone,
    /// The same for sessions that are in other zones, as long as there are such.
    zoned: Mutex<HashMap<Zone, Weak<Planning>>>,
}

/// What one tenant's queries are planned with, and what they may hold.
pub struct Engine {
    planning: Arc<Planning>,
    task: Arc<TaskContext>,
    memory: Arc<TenantMemory>,
    spill: Arc<SpillSpace>,
    workers: Handle,
    /// Of an engine for another zone than UTC, the one that it was made of.
    utc: Option<Arc<Engine>>,
}

impl std::fmt::Debug for Planning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planning").field("scalars", &self.scalars.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Planning {
    /// `tenant_bytes`: what the queries of a tenant may hold in memory.
    pub fn new(tenant_bytes: usize, threads: usize) -> Result<Arc<Self>> {
        let mut config = SessionConfig::new()
            .with_target_partitions(threads.max(1))
            .with_batch_size(BATCH_ROWS)
            .with_round_robin_repartition(false)
            .with_information_schema(false);
        let options = config.options_mut();
        options.execution.time_zone = Some("+00:00".to_owned());
        options.execution.sort_spill_reservation_bytes =
            (tenant_bytes / MERGE_PART).clamp(*MERGE_BYTES.start(), *MERGE_BYTES.end());
        options.sql_parser.default_null_ordering = "nulls_max".to_owned();
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::new(RuntimeEnv {
                disk_manager: disk_manager(DiskManagerMode::Disabled)?,
                ..RuntimeEnv::default()
            }))
            .with_default_features()
            .with_query_planner(Arc::new(Planner))
            .with_optimizer_rules(rules())
            .build();
        let mut scalars = state.scalar_functions().clone();
        scalars.extend(
            functions::scalar_functions().into_iter().map(|function| (function.name().to_owned(), function)),
        );
        // Every statement has a time of its own, as in Postgres the transaction's or the statement's.
        if let Some(now) = scalars.get("now").cloned() {
            scalars.extend(
                ["current_timestamp", "transaction_timestamp", "statement_timestamp"]
                    .map(|name| (name.to_owned(), Arc::clone(&now))),
            );
        }
        let mut aggregates = state.aggregate_functions().clone();
        functions::number_aggregates(&mut aggregates);
        functions::add_vector_aggregates(&mut aggregates);
        functions::add_json_aggregates(&mut aggregates);
        functions::add_string_agg(&mut aggregates);
        let windows = state.window_functions().clone();
        Ok(Arc::new(Self { state, scalars, aggregates, windows, zone: Zone::UTC, zoned: Mutex::default() }))
    }
}

/// DataFusion's rules between ours: lateral searches are recognised while they are as they were written, others once
/// everything is in its place.
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> =
        vec![Arc::new(LateralRule), Arc::new(lateral_rows::LateralRowsRule)];
    for rule in Optimizer::new().rules {
        // What looks for equal expressions first: in the constants that it computes, and after expressions have moved.
        if matches!(rule.name(), "simplify_expressions" | "common_sub_expression_eliminate") {
            rules.push(Arc::new(told_apart::TellApart));
        }
        rules.push(rule);
    }
    rules.push(Arc::new(TopKRule));
    rules
}

fn disk_manager(mode: DiskManagerMode) -> Result<Arc<DiskManager>> {
    DiskManagerBuilder::default().with_mode(mode).build().map(Arc::new).map_err(translate)
}

/// Without functions: plans hold those they call, and only plans from elsewhere would look them up.
fn task(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> TaskContext {
    let (scalars, higher, aggregates, windows) =
        (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
    TaskContext::new(None, String::new(), config, scalars, higher, aggregates, windows, runtime)
}

impl Engine {
    /// `memory` bounds what sorts, joins and aggregates of this tenant hold at once, `spill` what they put aside.
    pub fn new(
        planning: Arc<Planning>,
        memory: Arc<TenantMemory>,
        spill: Arc<SpillSpace>,
        workers: Handle,
    ) -> Result<Self> {
        let mode = match spill.limit_bytes() {
            0 => DiskManagerMode::Disabled,
            _ => DiskManagerMode::Custom(Arc::new(SealedFiles { space: Arc::clone(&spill) })),
        };
        let runtime = RuntimeEnv {
            memory_pool: Arc::clone(&memory) as Arc<dyn MemoryPool>,
            disk_manager: disk_manager(mode)?,
            ..planning.state.runtime_env().as_ref().clone()
        };
        let task = task(planning.state.config().clone(), Arc::new(runtime));
        Ok(Self { planning, task: Arc::new(task), memory, spill, workers, utc: None })
    }

    /// What its queries hold in memory.
    pub fn memory(&self) -> &TenantMemory {
        &self.memory
    }

    /// Nothing yet, for rows that outlive their statement. `name`: what holds them, as errors call it.
    pub fn keep(&self, name: &str) -> KeptMemory {
        KeptMemory::new(name, &self.memory)
    }

    /// What its queries hold on disk.
    pub fn spill(&self) -> &SpillSpace {
        &self.spill
    }

    /// Whether two engines have one set of functions and rules.
    pub fn shares_planning(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.planning, &other.planning)
    }

    /// Plans a prepared query (see `sql::prepare_query`). Types of parameters that the plan implies are added to
    /// `parameters`.
    pub fn plan(
        &self,
        context: &StatementContext,
        temporary: &TemporaryTables,
        query: &ast::Query,
        parameters: &mut ParameterTypes,
    ) -> Result<LogicalPlan> {
        namesakes::check(query, context)?;
        let mut query = query.clone();
        grouped_keys::complete(&mut query, context, &|name| self.planning.aggregates.contains_key(name));
        let once = once::mark(&mut query, &|name| self.is_volatile(name, context, temporary));
        check_values(&query, parameters)?;
        let statement = ast::Statement::Query(Box::new(query));
        // Of other plans of the statement.
        let known = context.reads.ids();
        match self.plan_with(context, temporary, statement.clone(), &once, parameters) {
            Ok(mut plan) => {
                if infer(&plan, parameters)? {
                    plan = self.plan_with(context, temporary, statement, &once, parameters)?;
                }
                if let Some(mut read) = tables_of(&plan) {
                    read.extend(known);
                    context.reads.keep(&read);
                }
                Ok(plan)
            }
            // A parameter that nothing types is text, as in Postgres; DataFusion wants to be told.
            Err(error) if error.message().contains("laceholder type could not be resolved") => {
                let mut assumed = parameters.clone();
                for number in 1..=assumed.len() {
                    assumed.hint(number, &SqlType::Text);
                }
                *parameters = assumed;
                self.plan_with(context, temporary, statement, &once, parameters)
            }
            Err(error) => Err(error),
        }
    }

    /// With the types that parameters have by now.
    fn plan_with(
        &self,
        context: &StatementContext,
        temporary: &TemporaryTables,
        statement: ast::Statement,
        once: &once::Marked,
        parameters: &ParameterTypes,
    ) -> Result<LogicalPlan> {
        let provider = provider::Provider::new(self, context, temporary);
        let mut planner_context = PlannerContext::new().with_prepare_param_data_types(parameters.fields());
        let plan = || {
            SqlToRel::new_with_options(&provider, parser_options())
                .sql_statement_to_plan_with_context(statement, &mut planner_context)
                .and_then(untyped::type_plan)
                .and_then(enums::check_outputs)
                .and_then(multisets::number)
                .and_then(scalar_rows::aggregate)
                .and_then(|plan| zoned::plan(plan, self.zone(), &|name| self.function(name)))
                .and_then(|plan| once::share(plan, once))
        };
        // Literals are read while it is planned.
        self.zone().within(plan).map_err(translate)
    }

    /// Whether a function of this name gives another value with every call, or changes something.
    fn is_volatile(&self, name: &str, context: &StatementContext, temporary: &TemporaryTables) -> bool {
        let Planning { scalars, aggregates, windows, .. } = self.planning.as_ref();
        let function = match scalars.get(name) {
            Some(function) => Some(Arc::clone(function)),
            // Before the functions of the session, which are made for each statement that asks.
            None if aggregates.contains_key(name) || windows.contains_key(name) => None,
            None => provider::Provider::new(self, context, temporary).get_function_meta(name),
        };
        function.is_some_and(|function| function.signature().volatility == Volatility::Volatile)
    }

    /// Plans an expression over one table's columns: a default, a predicate given as text.
    pub fn plan_expression(
        &self,
        context: &StatementContext,
        expression: ast::Expr,
        schema: &DFSchema,
    ) -> Result<Expr> {
        let temporary = TemporaryTables::default();
        let provider = provider::Provider::new(self, context, &temporary);
        let plan = || -> datafusion::error::Result<Expr> {
            let planner = SqlToRel::new_with_options(&provider, parser_options());
            let expr = planner.sql_to_expr(expression, schema, &mut PlannerContext::new())?;
            let expr = untyped::type_expression(expr, schema)?.data;
            Ok(zoned::expression(expr, schema, self.zone(), &|name| self.function(name))?.data)
        };
        self.zone().within(plan).map_err(translate)
    }

    /// Optimizes a plan with its parameters filled in, and makes it executable.
    pub async fn physical(
        &self,
        plan: &LogicalPlan,
        values: Vec<ScalarValue>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = if values.is_empty() {
            plan.clone()
        } else {
            plan.clone().with_param_values(ParamValues::from(values)).map_err(translate)?
        };
        // A state of its own is needed only by functions that ask it for the time; it is a copy of all functions.
        let planned = if single_row::depends_on_time(&plan) {
            once::physical(&self.started_state(), &plan).await
        } else {
            once::physical(&self.planning.state, &plan).await
        };
        planned.map_err(translate)
    }

    /// The optimized logical plan, for EXPLAIN.
    pub fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        self.zone().within(|| self.planning.state.optimize(plan)).map_err(translate)
    }

    /// Starts a plan on the query workers; rows come as the consumer pulls, one batch ahead.
    ///
    /// A join of large tables computes for long without pausing: on the threads that serve connections it would
    /// hold up everybody, its own cancellation included. Dropping the stream ends the work at its next pause.
    pub fn start(&self, plan: Arc<dyn ExecutionPlan>) -> Result<BatchStream> {
        let rows = prepare_to_hold(&plan, self.memory.limit());
        let mut batches = execute_stream(plan, self.task_of(rows)).map_err(translate)?;
        let (sender, receiver) = mpsc::channel(1);
        let work = self.workers.spawn(async move {
            while let Some(batch) = batches.next().await {
                if sender.send(batch.map_err(translate)).await.is_err() {
                    break;
                }
            }
        });
        Ok(BatchStream { receiver, work })
    }

    /// `rows`: per batch.
    fn task_of(&self, rows: usize) -> Arc<TaskContext> {
        if rows == BATCH_ROWS {
            return Arc::clone(&self.task);
        }
        Arc::new(task(self.task.session_config().clone().with_batch_size(rows), self.task.runtime_env()))
    }

    /// Plans and runs a query to its end. For statements that need all rows before they write.
    pub async fn collect(&self, plan: &LogicalPlan, values: Vec<ScalarValue>) -> Result<Vec<RecordBatch>> {
        let physical = self.physical(plan, values).await?;
        self.start(physical)?.try_collect().await
    }

    /// Resolves the types of a plan, which planning leaves to the analyzer.
    pub(crate) fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let options = self.planning.state.config_options();
        self.planning.state.analyzer().execute_and_check(plan, options, |_, _| {}).map_err(translate)
    }

    pub(crate) fn execution_props(&self) -> &ExecutionProps {
        self.planning.state.execution_props()
    }

    /// The same as of now, without a copy of all functions.
    pub(crate) fn started_props(&self) -> ExecutionProps {
        let mut props = ExecutionProps::new();
        props.mark_start_execution(Arc::clone(self.planning.state.config_options()));
        props
    }

    /// To simplify lone expressions with. Without a time, calls of `now()` are left as they are.
    pub(crate) fn simplify_context(&self) -> SimplifyContextBuilder {
        SimplifyContext::builder().with_config_options(Arc::clone(self.planning.state.config_options()))
    }

    /// DataFusion's own state as of now: `now()` is the time at which it was taken.
    fn started_state(&self) -> SessionState {
        let mut state = self.planning.state.clone();
        state.mark_start_execution();
        state
    }
}

/// The tables that a plan scans; `None` when it has nodes of our own, which know their tables themselves.
fn tables_of(plan: &LogicalPlan) -> Option<BTreeSet<TableId>> {
    let (mut tables, mut known) = (BTreeSet::new(), true);
    let walked = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Extension(_) => known &= once::is_once(node),
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                tables.extend(as_user_table(provider.as_ref()).map(|table| table.def().id));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    (walked.is_ok() && known).then_some(tables)
}

/// The batches of a running plan.
#[derive(Debug)]
pub struct BatchStream {
    receiver: mpsc::Receiver<Result<RecordBatch>>,
    work: JoinHandle<()>,
}

impl Stream for BatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.receiver.poll_recv(context) {
            // The sender is gone without an end of the rows only when the work panicked.
            Poll::Ready(None) => match Pin::new(&mut self.work).poll(context) {
                Poll::Ready(Err(problem)) if problem.is_panic() => {
                    let error = Error::bug("a query panicked; it had no effect");
                    self.work = tokio::spawn(async {});
                    Poll::Ready(Some(Err(error)))
                }
                Poll::Ready(_) => {
                    self.work = tokio::spawn(async {});
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            },
            other => other,
        }
    }
}

impl Drop for BatchStream {
    fn drop(&mut self) {
        self.work.abort();
    }
}

fn parser_options() -> ParserOptions {
    ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_map_string_types_to_utf8view(false)
        .with_default_null_ordering(NullOrdering::NullsMax)
}

/// Adds the types that the plan gives to parameters that had none: where they stand first. Whether the plan takes one
/// for something of another Arrow type elsewhere, or for a column's length or precision: then it is to be made again.
fn infer(plan: &LogicalPlan, parameters: &mut ParameterTypes) -> Result<bool> {
    let mut again = false;
    let mut see = |expr: &Expr| {
        let Expr::Placeholder(Placeholder { id, field }) = expr else { return };
        let Some(number) = id.strip_prefix('$').and_then(|digits| digits.parse().ok()) else { return };
        let Some(field) = field else { return parameters.mention(number) };
        parameters.hint(number, &compared(sql_type(field)));
        again |= parameters.get(number).is_some_and(|ty| arrow_type(ty) != *field.data_type());
    };
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                see(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map(|_| again).map_err(translate)
}

/// Whether any parameter appears in an expression.
pub fn has_parameters(expression: &ast::Expr) -> bool {
    visit_expressions(expression, |expr| match expr {
        ast::Expr::Value(value) if matches!(value.value, ast::Value::Placeholder(_)) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Checks the parameters of an Execute against the prepared types.
pub fn parameter_values(
    arrays: &[datafusion::arrow::array::ArrayRef],
    expected: usize,
) -> Result<Vec<ScalarValue>> {
    if arrays.len() != expected {
        return Err(Error::new(
            sepal_types::SqlState::ProtocolViolation,
            format!(
                "bind message supplies {} parameters, but prepared statement requires {expected}",
                arrays.len()
            ),
        ));
    }
    arrays.iter().map(|array| ScalarValue::try_from_array(array, 0).map_err(translate)).collect()
}

/// For the nodes of our own that any plan may have.
fn extension_planners() -> Vec<Arc<dyn ExtensionPlanner + Send + Sync>> {
    vec![Arc::new(TopKPlanner), Arc::new(LateralPlanner)]
}

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(extension_planners())
            .create_physical_plan(plan, session)
            .await
    }
}
