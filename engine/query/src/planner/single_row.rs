//! Queries without a table: `SELECT 1`, `SELECT $1::int + 1`.
//!
//! Health checks and drivers send them all day. Such a plan is optimized once, when it is prepared; an execution
//! fills the parameters in and evaluates the expressions, without planning and on the caller's own thread.
//! Nothing here reads a table, the clock or the session: those plans are left to the general way.

use std::sync::{Arc, OnceLock};

use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::{Schema, SchemaRef},
    },
    common::{
        DFSchema, ParamValues,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, Extension, LogicalPlan, Volatility, expr::Placeholder},
    physical_expr::create_physical_expr,
    physical_plan::ColumnarValue,
    scalar::ScalarValue,
};
use sepal_types::Result;

use super::Engine;
use crate::{error::translate, vector::TopK};

/// A plan that gives one row computed from constants and parameters.
#[derive(Debug)]
pub struct SingleRow {
    expressions: Vec<Expr>,
    schema: SchemaRef,
    has_parameters: bool,
    /// The row, once computed, of a plan without parameters.
    row: OnceLock<RecordBatch>,
}

impl SingleRow {
    /// `None` for any other plan, and for one that the optimizer refuses: running it tells why.
    pub fn compile(engine: &Engine, plan: &LogicalPlan) -> Option<Self> {
        if !reads_nothing(plan) {
            return None;
        }
        let optimized = engine.optimize(plan).ok()?;
        let LogicalPlan::Projection(projection) = &optimized else {
            return None;
        };
        let LogicalPlan::EmptyRelation(input) = projection.input.as_ref() else {
            return None;
        };
        if !input.produce_one_row || !input.schema.fields().is_empty() {
            return None;
        }
        let has_parameters = projection.expr.iter().any(names_parameter);
        Some(Self {
            expressions: projection.expr.clone(),
            schema: Arc::clone(projection.schema.inner()),
            has_parameters,
            row: OnceLock::new(),
        })
    }

    /// The row. `values` are those of `$1`, `$2`, …
    pub fn run(&self, engine: &Engine, values: Vec<ScalarValue>) -> Result<RecordBatch> {
        if let Some(row) = self.row.get() {
            return Ok(row.clone());
        }
        let row = self.evaluate(engine, values).map_err(translate)?;
        if !self.has_parameters {
            return Ok(self.row.get_or_init(|| row).clone());
        }
        Ok(row)
    }

    fn evaluate(&self, engine: &Engine, values: Vec<ScalarValue>) -> datafusion::error::Result<RecordBatch> {
        let values = ParamValues::from(values);
        let no_columns = DFSchema::empty();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let input = RecordBatch::try_new_with_options(Arc::clone(no_columns.inner()), Vec::new(), &options)?;
        let properties = engine.execution_props();
        let arrays = self
            .expressions
            .iter()
            .map(|expr| {
                let filled = fill_parameters(expr.clone(), &values)?;
                let physical = create_physical_expr(&filled, &no_columns, properties, &Default::default())?;
                match physical.evaluate(&input)? {
                    ColumnarValue::Array(array) => Ok(array),
                    ColumnarValue::Scalar(value) => value.to_array(),
                }
            })
            .collect::<datafusion::error::Result<Vec<_>>>()?;
        let fields: Vec<_> = self
            .schema
            .fields()
            .iter()
            .zip(&arrays)
            .map(|(field, array)| {
                field.as_ref().clone().with_data_type(array.data_type().clone()).with_nullable(true)
            })
            .collect();
        let schema = Schema::new(fields);
        Ok(RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)?)
    }
}

/// Whether an expression has a parameter in it.
pub fn names_parameter(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_)))).unwrap_or(true)
}

/// A call that may give another answer at another time, or in another session.
fn is_unstable_call(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable)
}

/// Puts values in place of parameters.
pub fn fill_parameters(expr: Expr, values: &ParamValues) -> datafusion::error::Result<Expr> {
    expr.transform_up(|expr| {
        if let Expr::Placeholder(Placeholder { id, .. }) = &expr {
            let (value, metadata) = values.get_placeholders_with_values(id)?.into_inner();
            return Ok(Transformed::yes(Expr::Literal(value, metadata)));
        }
        Ok(Transformed::no(expr))
    })
    .map(|filled| filled.data)
}

/// Whether a plan is projections over nothing, of expressions whose value depends on their arguments alone.
fn reads_nothing(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(is_pure) && reads_nothing(&projection.input)
        }
        LogicalPlan::EmptyRelation(input) => input.produce_one_row,
        _ => false,
    }
}

/// Whether an expression's value depends on its columns and parameters alone.
pub fn is_pure(expr: &Expr) -> bool {
    let impure = expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(_) => is_unstable_call(expr),
            Expr::ScalarSubquery(_)
            | Expr::InSubquery(_)
            | Expr::Exists(_)
            | Expr::SetComparison(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::HigherOrderFunction(_)
            | Expr::Unnest(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::ScalarVariable(..) => true,
            _ => false,
        })
    });
    !impure.unwrap_or(true)
}

/// Whether any function of a plan gives another answer at another time, or in another session.
pub(super) fn depends_on_time(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        // A filter of knn() is not among its expressions.
        if let LogicalPlan::Extension(Extension { node }) = node
            && let Some(TopK { filter: Some(filter), .. }) = node.as_any().downcast_ref::<TopK>()
        {
            found |= filter.exists(|expr| Ok(is_unstable_call(expr)))?;
        }
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(is_unstable_call(expr)))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    });
    found || walked.is_err()
}
