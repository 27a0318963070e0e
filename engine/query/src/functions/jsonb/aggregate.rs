//! `json_agg`, `jsonb_agg`, `json_object_agg`, `jsonb_object_agg`.
//!
//! DataFusion's `array_agg` gathers the values, which gives ORDER BY, DISTINCT and windows; what it has gathered is
//! written as JSON once, at the end. Members of an object are gathered as their text, for `array_agg` takes one
//! argument. Spaces are those of PostgreSQL's `json.c`.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringBuilder},
        datatypes::{DataType, Field, FieldRef},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, SortExpr, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        planner::RawAggregateExpr,
        utils::AggregateOrderSensitivity,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::{
    Flavour,
    argument::MAX_TEXT_BYTES,
    build::{self, Source},
};
use crate::{
    error::carry,
    output::{sql_type, typed_field},
};

/// Adds the aggregates to those that are registered, `array_agg` among them.
pub fn add_json_aggregates(registered: &mut HashMap<String, Arc<AggregateUDF>>) {
    let Some(inner) = registered.get("array_agg").cloned() else {
        return;
    };
    for (name, shape, flavour) in [
        ("json_agg", Shape::Array, Flavour::Json),
        ("jsonb_agg", Shape::Array, Flavour::Jsonb),
        ("sepal_json_agg_rows", Shape::Rows, Flavour::Json),
        ("json_object_agg", Shape::Object, Flavour::Json),
        ("jsonb_object_agg", Shape::Object, Flavour::Jsonb),
    ] {
        let signature = Signature::any(shape.arguments(), Volatility::Immutable);
        let function = JsonAggregate { name, shape, flavour, inner: Arc::clone(&inner), signature };
        registered.insert(name.to_owned(), Arc::new(AggregateUDF::from(function)));
    }
}

/// DISTINCT puts values in order, as it does in Postgres, where it sorts to find what is equal.
///
/// Errors: 0A000 for DISTINCT members.
pub fn plan_json_aggregate(mut expr: RawAggregateExpr) -> Result<RawAggregateExpr> {
    if expr.distinct && matches!(expr.func.name(), "json_object_agg" | "jsonb_object_agg") {
        let error = Error::unsupported(format!("{}(DISTINCT …) is not supported", expr.func.name()));
        return Err(carry(error.with_hint("Use it over a subquery with SELECT DISTINCT.")));
    }
    if expr.distinct
        && expr.order_by.is_empty()
        && matches!(expr.func.name(), "array_agg" | "json_agg" | "jsonb_agg" | "string_agg")
        && let Some(argument) = expr.args.first()
    {
        expr.order_by = vec![SortExpr::new(argument.clone(), true, false)];
    }
    Ok(expr)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Array,
    Object,
    /// An array of rows, which are `json` already.
    Rows,
}

impl Shape {
    const fn arguments(self) -> usize {
        match self {
            Self::Array | Self::Rows => 1,
            Self::Object => 2,
        }
    }

    /// What `array_agg` is given.
    fn gathered(self, arguments: &[FieldRef]) -> Vec<FieldRef> {
        match self {
            Self::Array | Self::Rows => arguments.to_vec(),
            Self::Object => vec![Arc::new(Field::new("member", DataType::Utf8, true))],
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonAggregate {
    name: &'static str,
    shape: Shape,
    flavour: Flavour,
    /// `array_agg`
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl AggregateUDFImpl for JsonAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.flavour.sql_type()))
    }

    fn return_field(&self, _: &[FieldRef]) -> Result<FieldRef> {
        let ty = self.flavour.sql_type();
        Ok(Arc::new(typed_field(self.name, arrow_type(&ty), &ty)))
    }

    /// Errors: 42883 for DISTINCT over `json`, which has no equality.
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct && args.expr_fields.iter().any(|field| sql_type(field) == SqlType::Json) {
            let message = "could not identify an equality operator for type json";
            return Err(carry(Error::new(SqlState::UndefinedFunction, message)));
        }
        let arguments = args.expr_fields.to_vec();
        let gathered = self.shape.gathered(&arguments);
        let inner = self.inner.accumulator(AccumulatorArgs { expr_fields: &gathered, ..args })?;
        Ok(Box::new(Gathering { inner, shape: self.shape, flavour: self.flavour, arguments }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let gathered = self.shape.gathered(args.input_fields);
        self.inner.state_fields(StateFieldsArgs { input_fields: &gathered, ..args })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let inner = self.inner.as_ref().clone().with_beneficial_ordering(beneficial_ordering)?;
        Ok(inner.map(|inner| {
            let function = Self {
                name: self.name,
                shape: self.shape,
                flavour: self.flavour,
                inner: Arc::new(inner),
                signature: self.signature.clone(),
            };
            Arc::new(function) as Arc<dyn AggregateUDFImpl>
        }))
    }
}

#[derive(Debug)]
struct Gathering {
    inner: Box<dyn Accumulator>,
    shape: Shape,
    flavour: Flavour,
    arguments: Vec<FieldRef>,
}

impl Gathering {
    /// What `array_agg` takes of a batch: the values, or the members' texts, then the keys of ORDER BY.
    fn given(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let (Shape::Object, [keys, members, order @ ..]) = (self.shape, values) else {
            return Ok(values.to_vec());
        };
        let mut given = vec![self.members(keys, members).map_err(carry)?];
        given.extend_from_slice(order);
        Ok(given)
    }

    /// Errors: 22023 for a key that is NULL or not scalar.
    fn members(&self, keys: &ArrayRef, values: &ArrayRef) -> sepal_types::Result<ArrayRef> {
        let source = |array, position: usize| {
            Source::new(array, &self.arguments[position], false).map_err(crate::error::translate)
        };
        let (keys, values, rows) = (source(keys, 0)?, source(values, 1)?, keys.len());
        let mut texts = StringBuilder::with_capacity(rows, 0);
        for row in 0..rows {
            if keys.is_null(row) {
                return Err(build::refuse("field name must not be null"));
            }
            let mut text = String::new();
            build::write_member(&keys, &values, row, &mut text)?;
            if texts.values_slice().len() + text.len() > MAX_TEXT_BYTES {
                return Err(too_long());
            }
            texts.append_value(text);
        }
        Ok(Arc::new(texts.finish()))
    }

    /// Errors: 54000 for a result that is too long; those of `jsonb`'s text form.
    fn written(&self, values: &ArrayRef) -> sepal_types::Result<String> {
        let mut text = match (self.shape, self.flavour) {
            (Shape::Array | Shape::Rows, _) => "[".to_owned(),
            (Shape::Object, Flavour::Json) => "{ ".to_owned(),
            (Shape::Object, Flavour::Jsonb) => "{".to_owned(),
        };
        match self.shape {
            Shape::Array | Shape::Rows => {
                let source =
                    Source::new(values, &self.arguments[0], false).map_err(crate::error::translate)?;
                for row in 0..values.len() {
                    if row > 0 {
                        text.push_str(", ");
                    }
                    let own_line = self.shape == Shape::Rows || source.is_array();
                    if row > 0 && own_line && !source.is_null(row) {
                        text.push_str("\n ");
                    }
                    source.write(row, &mut text)?;
                    check_length(&text)?;
                }
                text.push(']');
            }
            Shape::Object => {
                for (row, member) in values.as_string::<i32>().iter().enumerate() {
                    if row > 0 {
                        text.push_str(", ");
                    }
                    text.push_str(member.unwrap_or_default());
                    check_length(&text)?;
                }
                text.push_str(if self.flavour == Flavour::Json { " }" } else { "}" });
            }
        }
        self.flavour.finish(text)
    }
}

fn check_length(text: &str) -> sepal_types::Result<()> {
    if text.len() > MAX_TEXT_BYTES { Err(too_long()) } else { Ok(()) }
}

fn too_long() -> Error {
    Error::new(SqlState::ProgramLimitExceeded, "the result of a JSON aggregate exceeds 1 GiB")
        .with_hint("Aggregate fewer rows into one value.")
}

impl Accumulator for Gathering {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let given = self.given(values)?;
        self.inner.update_batch(&given)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let gathered = self.inner.evaluate()?;
        let ScalarValue::List(list) = &gathered else {
            let message = format!("array_agg gave {}", gathered.data_type());
            return Err(carry(Error::bug(message)));
        };
        if list.is_empty() || list.is_null(0) {
            return Ok(ScalarValue::Utf8(None));
        }
        self.written(&list.value(0)).map(|text| ScalarValue::Utf8(Some(text))).map_err(carry)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let given = self.given(values)?;
        self.inner.retract_batch(&given)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}
