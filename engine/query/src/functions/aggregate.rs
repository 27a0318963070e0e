//! `sum` and `avg` with Postgres' result types: exact for integers, `real` for a sum of `real`.
//!
//! DataFusion sums `bigint` in 64 bits, wrapping, and averages integers in floating point. Here a sum of
//! `bigint` and an average of any integer are `numeric`: the argument is cast and DataFusion's own aggregate
//! over decimals does the rest. Whatever else DataFusion sums and averages is left as it is.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray},
        compute::{cast, sum},
        datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
        Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        type_coercion::functions::fields_with_udf,
        utils::AggregateOrderSensitivity,
    },
};
use sepal_types::{Error, SqlState};

use super::{
    extremes::add_extremes,
    moving::{Measure, Moving, add_variances},
    percentile::add_percentile,
};
use crate::error::carry;

/// Digits after the point that an average of exact numbers is computed in; DataFusion adds four, which makes the
/// 16 that Postgres shows of most averages.
const AVERAGE_SCALE: i8 = 12;
/// What `bigint` is summed in: DataFusion adds ten digits.
const BIGINT_INPUT: DataType = DataType::Decimal128(28, 0);

/// Puts `sum`, `avg` and others in place of the ones that are registered, and adds names that Postgres has for others.
pub fn number_aggregates(registered: &mut HashMap<String, Arc<AggregateUDF>>) {
    for (name, aggregate) in
        [("avg", Aggregate::Average), ("mean", Aggregate::Average), ("sum", Aggregate::Sum)]
    {
        if let Some(inner) = registered.get(name) {
            let signature = Signature::user_defined(Volatility::Immutable);
            let function = NumberAggregate { aggregate, inner: Arc::clone(inner), signature };
            registered.insert(name.to_owned(), Arc::new(AggregateUDF::from(function)));
        }
    }
    add_extremes(registered);
    add_variances(registered);
    add_percentile(registered);
    for (name, same) in [("every", "bool_and"), ("variance", "var_samp")] {
        if let Some(same) = registered.get(same).cloned() {
            registered.insert(name.to_owned(), same);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Aggregate {
    Average,
    Sum,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NumberAggregate {
    aggregate: Aggregate,
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl NumberAggregate {
    /// The type that an argument is cast to; `None` where DataFusion's own rule is Postgres'. What comes out
    /// must stay as it is when it is asked about again: the planner asks more than once.
    fn argument(&self, data_type: &DataType) -> Option<DataType> {
        match (self.aggregate, data_type) {
            (Aggregate::Average, ty) if is_narrow(ty) => Some(DataType::Decimal128(22, AVERAGE_SCALE)),
            (Aggregate::Average, ty) if ty.is_integer() => Some(DataType::Decimal128(32, AVERAGE_SCALE)),
            (Aggregate::Average, DataType::Decimal128(precision, scale)) => {
                let added = u8::try_from(i16::from(AVERAGE_SCALE) - i16::from(*scale)).ok()?;
                let wider = precision.checked_add(added).filter(|precision| *precision <= 34)?;
                Some(DataType::Decimal128(wider, AVERAGE_SCALE))
            }
            (Aggregate::Sum, DataType::Int64 | DataType::UInt32 | DataType::UInt64) => Some(BIGINT_INPUT),
            (Aggregate::Sum, DataType::Float32) => Some(DataType::Float32),
            (Aggregate::Sum, ty) if is_narrow(ty) => Some(ty.clone()),
            _ => None,
        }
    }

    fn sums_real(&self, result: &DataType) -> bool {
        self.aggregate == Aggregate::Sum && *result == DataType::Float32
    }

    fn sums_narrow(&self, arguments: &[FieldRef]) -> bool {
        self.aggregate == Aggregate::Sum
            && arguments.first().is_some_and(|field| is_narrow(field.data_type()))
    }
}

/// An integer whose sum is `bigint`.
const fn is_narrow(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16
    )
}

impl AggregateUDFImpl for NumberAggregate {
    /// In capitals for a sum: DataFusion splits a `sum` beside a DISTINCT aggregate into a sum of sums, which
    /// has another type than the sum when the argument is an integer.
    fn name(&self) -> &str {
        match self.aggregate {
            Aggregate::Average => self.inner.name(),
            Aggregate::Sum => "SUM",
        }
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if let [argument] = arguments
            && let Some(wanted) = self.argument(argument)
        {
            return Ok(vec![wanted]);
        }
        let fields: Vec<FieldRef> =
            arguments.iter().map(|ty| Arc::new(Field::new("argument", ty.clone(), true))).collect();
        let coerced = fields_with_udf(&fields, self.inner.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.aggregate, arguments) {
            (Aggregate::Sum, [DataType::Float32]) => Ok(DataType::Float32),
            (Aggregate::Sum, [argument]) if is_narrow(argument) => Ok(DataType::Int64),
            _ => self.inner.return_type(arguments),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if self.sums_narrow(args.expr_fields) {
            return Ok(Box::new(Widened(self.inner.accumulator(args)?)));
        }
        if !self.sums_real(args.return_field.data_type()) {
            return self.inner.accumulator(args);
        }
        if args.is_distinct {
            let error = Error::new(SqlState::FeatureNotSupported, "sum(DISTINCT real) is not supported here");
            return Err(carry(error.with_hint("Cast the argument to double precision.")));
        }
        Ok(Box::new(RealSum::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !self.sums_real(args.return_field.data_type()) {
            return self.inner.state_fields(args);
        }
        let field = |part: &str, ty| Arc::new(Field::new(format!("{}[{part}]", args.name), ty, true));
        Ok(vec![field("sum", DataType::Float64), field("count", DataType::Int64)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !self.sums_real(args.return_field.data_type()) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if self.sums_narrow(args.expr_fields) {
            return Ok(Box::new(Widened(self.inner.create_groups_accumulator(args)?)));
        }
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let result = args.return_field.data_type();
        if result.is_floating() && !args.is_distinct {
            let measure = match self.aggregate {
                Aggregate::Average => Measure::Average,
                Aggregate::Sum => Measure::Sum,
            };
            return Ok(Box::new(Moving::new(measure, result)));
        }
        if self.sums_real(result) {
            return self.accumulator(args);
        }
        if self.sums_narrow(args.expr_fields) {
            return Ok(Box::new(Widened(self.inner.create_sliding_accumulator(args)?)));
        }
        self.inner.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }
}

/// An accumulator over `bigint` that is given smaller integers.
#[derive(Debug)]
struct Widened<A>(A);

fn widen(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    values.iter().map(|array| Ok(cast(array, &DataType::Int64)?)).collect()
}

impl Accumulator for Widened<Box<dyn Accumulator>> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(&widen(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(&widen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

impl GroupsAccumulator for Widened<Box<dyn GroupsAccumulator>> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.update_batch(&widen(values)?, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.0.evaluate(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.0.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.0.convert_to_state(&widen(values)?, filter)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// A sum of `real`, kept in double precision until it is asked for.
#[derive(Debug, Default)]
struct RealSum {
    sum: f64,
    count: i64,
}

impl Accumulator for RealSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let doubles = cast(&values[0], &DataType::Float64)?;
        let doubles = doubles.as_primitive::<Float64Type>();
        self.sum += sum(doubles).unwrap_or(0.0);
        self.count += i64::try_from(doubles.len() - doubles.null_count()).unwrap_or(i64::MAX);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sum += sum(states[0].as_primitive::<Float64Type>()).unwrap_or(0.0);
        self.count += sum(states[1].as_primitive::<Int64Type>()).unwrap_or(0);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float32((self.count > 0).then_some(self.sum as f32)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(Some(self.sum)), ScalarValue::Int64(Some(self.count))])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}
