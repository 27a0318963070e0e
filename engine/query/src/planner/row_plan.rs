//! Plans that only compute something of rows that are at hand: `SELECT a, b + $1 FROM t WHERE c > $2` over the rows of
//! t that somebody has found already.
//!
//! Used for the row that a key leads to (`point`) and for RETURNING. Such a plan's expressions are made executable
//! once, when the statement is prepared: its parameters are columns to them, behind those of the table. An execution
//! lays the rows and the parameters side by side and evaluates, on the caller's own thread. Plans of anything else,
//! joins, subqueries, functions that ask the session, are left to the general way.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, NullArray, RecordBatch, RecordBatchOptions},
        compute::filter_record_batch,
        datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    },
    common::{
        Column, DFSchema, DFSchemaRef, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, ExprSchemable, LogicalPlan, TableScan, expr::Placeholder},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr},
    scalar::ScalarValue,
};
use sepal_types::{Error, Result};

use super::{
    Engine, fill_parameters, is_pure,
    moment::{Moment, given, is_moment},
    names_parameter, told_apart,
};
use crate::error::{arrow, translate};

/// The relation that parameters are columns of.
const PARAMETERS: &str = "$";
/// Functions that take a column as well as a constant and give the same of both: the operators of numbers and of
/// times, and those that are nothing but a choice among their arguments. Others may read what a constant says when they
/// are planned.
const TAKE_COLUMNS: [&str; 13] = [
    "coalesce",
    "nullif",
    "sepal_add",
    "sepal_divide",
    "sepal_json_known",
    "sepal_jsonb_known",
    "sepal_modulo",
    "sepal_multiply",
    "sepal_subtract",
    "sepal_timestamp_minus_interval",
    "sepal_timestamp_plus_interval",
    "sepal_timestamptz_minus_interval",
    "sepal_timestamptz_plus_interval",
];

/// The parts of a plan that is a list of expressions over one table, perhaps under a WHERE clause.
pub struct RowParts<'a> {
    pub scan: &'a TableScan,
    /// The table's columns as the expressions call them.
    pub columns: &'a DFSchemaRef,
    pub predicate: Option<&'a Expr>,
    pub outputs: &'a [Expr],
}

impl<'a> RowParts<'a> {
    /// `None` for any other plan.
    pub fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let LogicalPlan::Projection(projection) = plan else { return None };
        let (predicate, input) = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => (Some(&filter.predicate), filter.input.as_ref()),
            other => (None, other),
        };
        let (columns, scan) = match input {
            LogicalPlan::TableScan(scan) => (&scan.projected_schema, scan),
            LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
                LogicalPlan::TableScan(scan) => (&alias.schema, scan),
                _ => return None,
            },
            _ => return None,
        };
        let whole = scan.projection.is_none() && scan.filters.is_empty() && scan.fetch.is_none();
        whole.then_some(Self { scan, columns, predicate, outputs: &projection.expr })
    }
}

/// See the module.
#[derive(Debug)]
pub struct RowPlan {
    /// The table's columns, then the parameters: what expressions are planned over.
    columns: DFSchemaRef,
    /// The same, those that no expression reads as NULLs: what they are evaluated on.
    schema: SchemaRef,
    /// Which of the table's columns are read.
    reads: Vec<bool>,
    parameters: Vec<Parameter>,
    moment: Option<Moment>,
    predicate: Option<Computed>,
    outputs: Vec<Computed>,
    shown: SchemaRef,
}

#[derive(Debug)]
struct Parameter {
    /// From 0; `None` for the time.
    position: Option<usize>,
    data_type: DataType,
}

#[derive(Debug)]
enum Computed {
    Once(Arc<dyn PhysicalExpr>),
    /// A parameter stands where a constant is wanted: it is filled in and made executable by each run.
    Each(Expr),
}

impl RowPlan {
    /// Compiles a plan without a WHERE clause. `None` for any other.
    pub fn compile(engine: &Engine, plan: &LogicalPlan) -> Option<Self> {
        RowParts::of(plan).filter(|parts| parts.predicate.is_none())?;
        let (plan, moment) = Moment::name(plan).ok()?;
        let plan = engine.analyze(plan).ok()?;
        let parts = RowParts::of(&plan)?;
        Self::new(engine, parts.columns, None, parts.outputs, moment)
    }

    /// Of expressions whose types are resolved. `None` where one of them must take the general way.
    pub fn new(
        engine: &Engine,
        table: &DFSchema,
        predicate: Option<&Expr>,
        outputs: &[Expr],
        moment: Option<Moment>,
    ) -> Option<Self> {
        let all = || predicate.into_iter().chain(outputs);
        if !all().all(is_pure) {
            return None;
        }
        let parameters = parameters(all())?;
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            table.iter().map(|(relation, field)| (relation.cloned(), Arc::clone(field))).collect();
        fields.extend(parameters.iter().map(|(name, field)| {
            let field = field.as_ref().clone().with_name(name).with_nullable(true);
            (Some(TableReference::bare(PARAMETERS)), Arc::new(field))
        }));
        let columns = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new()).ok()?);
        let mut reads = vec![false; table.fields().len()];
        for column in all().flat_map(Expr::column_refs) {
            *reads.get_mut(columns.maybe_index_of_column(column)?)? = true;
        }
        let compute = |expr: &Expr| Computed::new(engine, expr, &columns);
        let shown = outputs.iter().map(|expr| output_field(expr, &columns)).collect::<Option<Vec<_>>>()?;
        Some(Self {
            schema: Arc::new(masked(&columns, &reads)),
            predicate: match predicate {
                Some(predicate) => Some(compute(predicate)?),
                None => None,
            },
            outputs: outputs.iter().map(compute).collect::<Option<_>>()?,
            shown: Arc::new(Schema::new(shown)),
            parameters: parameters
                .iter()
                .map(|(name, field)| Parameter::new(name, field))
                .collect::<Option<_>>()?,
            columns,
            reads,
            moment,
        })
    }

    /// Whether a column of the table is asked for.
    pub fn reads(&self, column: usize) -> bool {
        self.reads.get(column).copied().unwrap_or(false)
    }

    /// What the plan gives for `rows` rows, whose columns `column` gives by their places in the table. `values` are
    /// those of `$1`, `$2`, … `None` where these have other types than they were planned with.
    pub fn run(
        &self,
        engine: &Engine,
        values: &[ScalarValue],
        rows: usize,
        column: impl Fn(usize) -> Result<ArrayRef>,
    ) -> Result<Option<RecordBatch>> {
        if rows == 0 {
            return Ok(Some(RecordBatch::new_empty(Arc::clone(&self.shown))));
        }
        let now = self.moment.as_ref().map(Moment::now);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (place, read) in self.reads.iter().enumerate() {
            arrays.push(if *read { column(place)? } else { Arc::new(NullArray::new(rows)) });
        }
        for parameter in &self.parameters {
            let value = match parameter.position {
                Some(position) => values.get(position),
                None => now.as_ref(),
            };
            match value.filter(|value| value.data_type() == parameter.data_type) {
                Some(value) => arrays.push(value.to_array_of_size(rows).map_err(translate)?),
                None => return Ok(None),
            }
        }
        let run = Run { plan: self, engine, values, now };
        let batch = run.passing(batch(Arc::clone(&self.schema), arrays, rows)?)?;
        if batch.num_rows() == 0 {
            return Ok(Some(RecordBatch::new_empty(Arc::clone(&self.shown))));
        }
        let outputs =
            self.outputs.iter().map(|output| run.evaluate(output, &batch)).collect::<Result<Vec<_>>>()?;
        self.shown(outputs, batch.num_rows()).map(Some)
    }

    /// Arrays of other types than were planned get a schema of their own.
    fn shown(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let fields = self.shown.fields();
        if arrays.iter().zip(fields).all(|(array, field)| array.data_type() == field.data_type()) {
            return batch(Arc::clone(&self.shown), arrays, rows);
        }
        let typed = fields.iter().zip(&arrays);
        let typed =
            typed.map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()));
        batch(Arc::new(Schema::new(typed.collect::<Vec<_>>())), arrays, rows)
    }
}

impl Parameter {
    fn new(name: &str, field: &Field) -> Option<Self> {
        let position = match is_moment(name) {
            true => None,
            false => Some(name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?),
        };
        Some(Self { position, data_type: field.data_type().clone() })
    }
}

impl Computed {
    /// `None` for what cannot be made executable: running it the general way tells why.
    fn new(engine: &Engine, expr: &Expr, columns: &DFSchemaRef) -> Option<Self> {
        if !takes_columns(expr) {
            return Some(Self::Each(expr.clone()));
        }
        let replaced = expr.clone().transform_up(|expr| match expr {
            Expr::Placeholder(Placeholder { id, .. }) => {
                let column = Column::new(Some(TableReference::bare(PARAMETERS)), id);
                Ok(Transformed::yes(Expr::Column(column)))
            }
            other => Ok(Transformed::no(other)),
        });
        executable(engine, replaced.ok()?.data, columns).ok().map(Self::Once)
    }
}

/// One run's parameters.
struct Run<'a> {
    plan: &'a RowPlan,
    engine: &'a Engine,
    values: &'a [ScalarValue],
    now: Option<ScalarValue>,
}

impl Run<'_> {
    /// The rows for which the predicate is true.
    fn passing(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(predicate) = &self.plan.predicate else { return Ok(rows) };
        let passes = self.evaluate(predicate, &rows)?;
        let Some(passes) = passes.as_boolean_opt() else {
            return Err(Error::bug("a WHERE clause is neither true nor false"));
        };
        if passes.null_count() == 0 && passes.true_count() == passes.len() {
            return Ok(rows);
        }
        filter_record_batch(&rows, passes).map_err(arrow)
    }

    fn evaluate(&self, computed: &Computed, rows: &RecordBatch) -> Result<ArrayRef> {
        let filled;
        let physical = match computed {
            Computed::Once(physical) => physical,
            Computed::Each(expr) => {
                let parameters = given(self.values, self.now.as_ref());
                filled = fill_parameters(expr.clone(), &parameters)
                    .and_then(|expr| executable(self.engine, expr, &self.plan.columns))
                    .map_err(translate)?;
                &filled
            }
        };
        physical.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).map_err(translate)
    }
}

/// Simplified first: some functions, `coalesce` among them, can be planned and simplified, and not called.
pub(crate) fn executable(
    engine: &Engine,
    expr: Expr,
    columns: &DFSchemaRef,
) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
    let context = engine.simplify_context().with_schema(Arc::clone(columns)).build();
    // Constants are computed, in the zone of the plan that they are in: a CHECK's is not the session's.
    let simplifier = ExprSimplifier::new(context);
    let expr = engine.zone().within(|| simplifier.simplify(told_apart(expr, &simplifier)?))?;
    create_physical_expr(&expr, columns, engine.execution_props(), &Default::default())
}

/// The placeholders with their types; `None` where one has none, or several.
fn parameters<'e>(exprs: impl Iterator<Item = &'e Expr>) -> Option<Vec<(String, FieldRef)>> {
    let mut found: Vec<(String, FieldRef)> = Vec::new();
    let mut typed = true;
    for expr in exprs {
        let walked = expr.apply(|expr| {
            if let Expr::Placeholder(Placeholder { id, field }) = expr {
                let known = found.iter().find(|(known, _)| known == id);
                match (field, known) {
                    (Some(field), Some((_, known))) => typed &= known.data_type() == field.data_type(),
                    (Some(field), None) => found.push((id.clone(), Arc::clone(field))),
                    (None, _) => typed = false,
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        typed &= walked.is_ok();
    }
    typed.then_some(found)
}

/// Whether every parameter stands where a column may stand.
fn takes_columns(expr: &Expr) -> bool {
    let wants_constant = expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => {
                !TAKE_COLUMNS.contains(&call.func.name()) && call.args.iter().any(names_parameter)
            }
            _ => false,
        })
    });
    !wants_constant.unwrap_or(true)
}

fn output_field(expr: &Expr, columns: &DFSchema) -> Option<Field> {
    let (_, field) = expr.to_field(columns).ok()?;
    Some(field.as_ref().clone().with_nullable(true))
}

fn masked(columns: &DFSchema, reads: &[bool]) -> Schema {
    let field = |(place, field): (usize, &FieldRef)| match reads.get(place) {
        Some(false) => Field::new(field.name(), DataType::Null, true),
        _ => field.as_ref().clone().with_nullable(true),
    };
    Schema::new(columns.fields().iter().enumerate().map(field).collect::<Vec<_>>())
}

fn batch(schema: SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(arrow)
}
