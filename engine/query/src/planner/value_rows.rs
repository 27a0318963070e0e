//! VALUES of an INSERT: rows of constants and parameters, without a physical plan.
//!
//! An application's INSERT is one row of parameters, sent over and over. Planning it anew each time would cost more
//! than writing it. Such a source is optimized once, when it is prepared; an execution puts the parameters in, and the
//! time for `now()`, and evaluates what is left, on the caller's own thread. Whatever calls another function whose value
//! may change is left to the general way.

use std::sync::{Arc, OnceLock};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array},
        compute::{cast, concat},
        datatypes::{DataType, Schema, SchemaRef},
    },
    common::{DFSchema, DFSchemaRef, ParamValues},
    logical_expr::{Expr, LogicalPlan, expr::Placeholder},
    physical_expr::create_physical_expr,
    physical_plan::ColumnarValue,
    scalar::ScalarValue,
};
use sepal_types::Result;

use super::{
    Engine, fill_parameters, is_pure,
    moment::{Moment, given},
    names_parameter,
};
use crate::error::translate;

/// Rows that depend on nothing but parameters.
#[derive(Debug)]
pub struct ValueRows {
    rows: Vec<Vec<Cell>>,
    /// Over the rows' columns; `None`: as they are.
    projection: Option<Vec<Shown>>,
    columns: DFSchemaRef,
    /// Of the rows' columns, and of what the projection makes of them.
    given: SchemaRef,
    shown: SchemaRef,
    has_parameters: bool,
    moment: Option<Moment>,
    /// The rows, once computed, of a source without parameters.
    batch: OnceLock<RecordBatch>,
}

#[derive(Debug)]
enum Cell {
    Constant(ScalarValue),
    /// The placeholder's name, `$1`.
    Parameter(String),
    Computed(Expr),
}

/// A column of the projection.
#[derive(Debug)]
enum Shown {
    /// One of the rows', by its place.
    Given(usize),
    Computed(Expr),
}

impl ValueRows {
    /// `None` for any other source, and for one that the optimizer refuses: running it tells why.
    pub fn compile(engine: &Engine, plan: &LogicalPlan) -> Option<Self> {
        if !is_values(plan) {
            return None;
        }
        let (plan, moment) = Moment::name(plan).ok()?;
        if !constant(&plan) {
            return None;
        }
        let optimized = engine.optimize(&plan).ok()?;
        let (values, projection) = match &optimized {
            LogicalPlan::Values(values) => (values, None),
            LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                LogicalPlan::Values(values) => (values, Some(projection.expr.clone())),
                _ => return None,
            },
            _ => return None,
        };
        let has_parameters = values.values.iter().flatten().any(names_parameter)
            || projection.iter().flatten().any(names_parameter);
        let rows = values.values.iter().map(|row| row.iter().cloned().map(cell).collect()).collect();
        let shown = |expr: Expr| shown(expr, &values.schema);
        Some(Self {
            rows,
            projection: projection.map(|exprs| exprs.into_iter().map(shown).collect()),
            columns: Arc::clone(&values.schema),
            given: nullable(&values.schema),
            shown: nullable(optimized.schema()),
            has_parameters,
            moment,
            batch: OnceLock::new(),
        })
    }

    /// The rows. `values` are those of `$1`, `$2`, …
    pub fn run(&self, engine: &Engine, values: &[ScalarValue]) -> Result<RecordBatch> {
        if let Some(batch) = self.batch.get() {
            return Ok(batch.clone());
        }
        let batch = self.evaluate(engine, values).map_err(translate)?;
        if !self.has_parameters {
            return Ok(self.batch.get_or_init(|| batch).clone());
        }
        Ok(batch)
    }

    fn evaluate(&self, engine: &Engine, values: &[ScalarValue]) -> datafusion::error::Result<RecordBatch> {
        let parameters = given(values, self.moment.as_ref().map(Moment::now).as_ref());
        let mut arrays = Vec::with_capacity(self.columns.fields().len());
        for (position, field) in self.columns.fields().iter().enumerate() {
            arrays.push(self.column(engine, position, field.data_type(), &parameters)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let given = RecordBatch::try_new_with_options(Arc::clone(&self.given), arrays, &options)?;
        let Some(projection) = &self.projection else { return Ok(given) };
        let arrays = projection
            .iter()
            .zip(self.shown.fields())
            .map(|(shown, field)| {
                let expr = match shown {
                    Shown::Given(place) => return fit(Arc::clone(given.column(*place)), field.data_type()),
                    Shown::Computed(expr) => expr,
                };
                let filled = fill_parameters(expr.clone(), &parameters)?;
                let physical = create_physical_expr(
                    &filled,
                    &self.columns,
                    engine.execution_props(),
                    &Default::default(),
                )?;
                let array = physical.evaluate(&given)?.into_array(self.rows.len())?;
                fit(array, field.data_type())
            })
            .collect::<datafusion::error::Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.shown), arrays, &options)?)
    }

    fn column(
        &self,
        engine: &Engine,
        position: usize,
        wanted: &DataType,
        parameters: &ParamValues,
    ) -> datafusion::error::Result<ArrayRef> {
        let mut arrays = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let array = match &row[position] {
                Cell::Constant(value) => value.to_array()?,
                Cell::Parameter(id) => {
                    parameters.get_placeholders_with_values(id)?.into_inner().0.to_array()?
                }
                Cell::Computed(expr) => computed(engine, expr, parameters)?,
            };
            arrays.push(fit(array, wanted)?);
        }
        match arrays.as_slice() {
            [] => Ok(new_empty_array(wanted)),
            [single] => Ok(Arc::clone(single)),
            several => Ok(concat(&several.iter().map(AsRef::as_ref).collect::<Vec<_>>())?),
        }
    }
}

fn computed(engine: &Engine, expr: &Expr, parameters: &ParamValues) -> datafusion::error::Result<ArrayRef> {
    let none = DFSchema::empty();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let input = RecordBatch::try_new_with_options(Arc::clone(none.inner()), Vec::new(), &options)?;
    let filled = fill_parameters(expr.clone(), parameters)?;
    let physical = create_physical_expr(&filled, &none, engine.execution_props(), &Default::default())?;
    match physical.evaluate(&input)? {
        ColumnarValue::Array(array) => Ok(array),
        ColumnarValue::Scalar(value) => value.to_array(),
    }
}

fn fit(array: ArrayRef, wanted: &DataType) -> datafusion::error::Result<ArrayRef> {
    if array.data_type() == wanted {
        return Ok(array);
    }
    Ok(cast(&array, wanted)?)
}

/// Every column may have a NULL: what is not to have one is asked where the rows are assigned.
fn nullable(schema: &DFSchema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Most projections of an INSERT only name the rows' columns anew.
fn shown(expr: Expr, columns: &DFSchema) -> Shown {
    let named = match &expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let place = match named {
        Expr::Column(column) => columns.maybe_index_of_column(column),
        _ => None,
    };
    place.map_or(Shown::Computed(expr), Shown::Given)
}

fn cell(expr: Expr) -> Cell {
    match expr {
        Expr::Literal(value, _) => Cell::Constant(value),
        Expr::Placeholder(Placeholder { id, .. }) => Cell::Parameter(id),
        other => Cell::Computed(other),
    }
}

/// Whether a plan is VALUES, perhaps projected.
fn is_values(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_values(&projection.input),
        LogicalPlan::Values(_) => true,
        _ => false,
    }
}

/// Whether it is so of expressions whose value depends on their arguments alone.
fn constant(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(is_pure) && constant(&projection.input)
        }
        LogicalPlan::Values(values) => values.values.iter().flatten().all(is_pure),
        _ => false,
    }
}
