//! `avg` and `sum` of `vector` and `halfvec`.
//!
//! They share their names with the aggregates over numbers, so that each is a wrapper which passes everything but
//! vectors on to the function it wraps. Sums are those of pgvector (`vector_accum`, `vector_combine`,
//! `vector_avg`; `vector_add` for `sum`): an average adds in `float8`, a sum in the type of
//! the vectors' elements.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Builder, ListArray, ListBuilder},
        datatypes::{DataType, Field, FieldRef, Float64Type, UInt64Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator, Operator,
        ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs, Volatility,
        expr::AggregateFunction,
        function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs},
        type_coercion::functions::fields_with_udf,
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};
use half::f16;
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, VectorKind, check_finite};

use super::{
    distance::elements,
    vector::{append, vector_builder},
    vector_cast::{operand, to_vectors},
};
use crate::{error::carry, output::vector_kind};

/// Puts the aggregates over vectors before those of the same names.
pub fn add_vector_aggregates(aggregates: &mut HashMap<String, Arc<AggregateUDF>>) {
    for (name, kind) in [("avg", Kind::Average), ("sum", Kind::Sum)] {
        if let Some(numbers) = aggregates.get(name).cloned() {
            let signature = Signature::user_defined(Volatility::Immutable);
            let function = AggregateUDF::from(VectorAggregate { kind, numbers, signature });
            aggregates.insert(name.to_owned(), Arc::new(function));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Average,
    Sum,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorAggregate {
    kind: Kind,
    /// The aggregate of the same name over everything else.
    numbers: Arc<AggregateUDF>,
    signature: Signature,
}

fn over_vectors(fields: &[FieldRef]) -> Option<VectorKind> {
    match fields {
        [field] => vector_kind(field.data_type()),
        _ => None,
    }
}

/// An average's running sums: `float8` as pgvector keeps them.
fn sums_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

fn vector_type(kind: VectorKind) -> DataType {
    arrow_type(&kind.sql_type(None))
}

impl AggregateUDFImpl for VectorAggregate {
    fn name(&self) -> &str {
        self.numbers.name()
    }

    fn aliases(&self) -> &[String] {
        self.numbers.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if matches!(types, [ty] if vector_kind(ty).is_some()) {
            return Ok(types.to_vec());
        }
        let fields: Vec<FieldRef> =
            types.iter().map(|ty| Arc::new(Field::new("argument", ty.clone(), true))).collect();
        let coerced = fields_with_udf(&fields, self.numbers.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [ty] => match vector_kind(ty) {
                Some(kind) => Ok(vector_type(kind)),
                None => self.numbers.return_type(types),
            },
            _ => self.numbers.return_type(types),
        }
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        if let Some(kind) = over_vectors(fields) {
            return Ok(Arc::new(Field::new(self.name(), vector_type(kind), true)));
        }
        self.numbers.return_field(fields)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(vectors) = over_vectors(args.expr_fields) else {
            return self.numbers.accumulator(args);
        };
        if args.is_distinct {
            let message = format!("{}(DISTINCT {}) is not supported here", self.name(), vectors.name());
            let error = Error::unsupported(message);
            return Err(carry(error.with_hint("Use it over a subquery with SELECT DISTINCT.")));
        }
        let accumulator: Box<dyn Accumulator> = match self.kind {
            Kind::Average => Box::new(Average { vectors, count: 0, sums: Vec::new() }),
            Kind::Sum => Box::new(Sum { vectors, sums: None }),
        };
        Ok(accumulator)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let Some(vectors) = over_vectors(args.input_fields) else {
            return self.numbers.state_fields(args);
        };
        let field = |part: &str, data_type: DataType| -> FieldRef {
            Arc::new(Field::new(format_state_name(args.name, part), data_type, true))
        };
        Ok(match self.kind {
            Kind::Average => vec![field("count", DataType::UInt64), field("sums", sums_type())],
            Kind::Sum => vec![field("sum", vector_type(vectors))],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        over_vectors(args.expr_fields).is_none() && self.numbers.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.numbers.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if over_vectors(args.expr_fields).is_some() {
            return self.accumulator(args);
        }
        self.numbers.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.numbers.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.numbers.simplify()
    }

    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        self.numbers.inner().simplify_expr_op_literal(function, argument, operator, literal, argument_is_left)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.numbers.reverse_udf()
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.numbers.value_from_stats(statistics)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.numbers.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.numbers.documentation()
    }
}

fn overflow() -> Error {
    Error::new(SqlState::NumericValueOutOfRange, "value out of range: overflow")
}

/// A vector, or NULL, as one row. Errors: 22003 for an element that is none of a halfvec.
fn one_vector(vector: Option<&[f32]>, kind: VectorKind) -> Result<ScalarValue> {
    let mut builder = vector_builder(1);
    match vector {
        Some(vector) => append(&mut builder, vector),
        None => builder.append(false),
    }
    let vector: ArrayRef = Arc::new(builder.finish());
    Ok(ScalarValue::List(Arc::new(to_vectors(&vector, kind)?.as_list::<i32>().clone())))
}

#[derive(Debug)]
struct Average {
    vectors: VectorKind,
    count: u64,
    sums: Vec<f64>,
}

impl Average {
    /// Errors: 22000 other dimensions, 22003.
    fn add(&mut self, count: u64, values: &[f64]) -> Result<()> {
        if self.count == 0 {
            self.sums = values.to_vec();
        } else {
            if self.sums.len() != values.len() {
                let message = format!("expected {} dimensions, not {}", self.sums.len(), values.len());
                return Err(carry(Error::new(SqlState::DataException, message)));
            }
            for (sum, value) in self.sums.iter_mut().zip(values) {
                *sum += value;
            }
            if self.sums.iter().any(|sum| sum.is_infinite()) {
                return Err(carry(overflow()));
            }
        }
        self.count += count;
        Ok(())
    }

    fn sums(&self) -> ListArray {
        let mut builder = ListBuilder::new(Float64Builder::new());
        builder.values().append_slice(&self.sums);
        builder.append(true);
        builder.finish()
    }
}

impl Accumulator for Average {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let vectors = operand(&values[0], self.vectors)?;
        let mut wide: Vec<f64> = Vec::new();
        for vector in (0..vectors.len()).filter_map(|row| elements(&vectors, row)) {
            wide.clear();
            wide.extend(vector.values().iter().map(|value| f64::from(*value)));
            self.add(1, &wide)?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[0].as_primitive::<UInt64Type>();
        let sums = states[1].as_list::<i32>();
        for row in (0..counts.len()).filter(|row| counts.is_valid(*row) && counts.value(*row) > 0) {
            self.add(counts.value(row), sums.value(row).as_primitive::<Float64Type>().values())?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::UInt64(Some(self.count)), ScalarValue::List(Arc::new(self.sums()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return one_vector(None, self.vectors);
        }
        // Divided in float8 and kept as the elements are, as pgvector does.
        let count = self.count as f64;
        let means: Vec<f32> = self.sums.iter().map(|sum| (sum / count) as f32).collect();
        check_finite(&means).map_err(carry)?;
        one_vector(Some(&means), self.vectors)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.capacity() * size_of::<f64>()
    }
}

#[derive(Debug)]
struct Sum {
    vectors: VectorKind,
    sums: Option<Vec<f32>>,
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let vectors = operand(&values[0], self.vectors)?;
        for vector in (0..vectors.len()).filter_map(|row| elements(&vectors, row)) {
            let Some(sums) = &mut self.sums else {
                self.sums = Some(vector.values().to_vec());
                continue;
            };
            self.vectors.check_same(sums.len(), vector.len()).map_err(carry)?;
            for (sum, value) in sums.iter_mut().zip(vector.values()) {
                *sum = match self.vectors {
                    VectorKind::Half => f16::from_f32(*sum + value).to_f32(),
                    VectorKind::Single => *sum + value,
                };
            }
            if sums.iter().any(|sum| sum.is_infinite()) {
                return Err(carry(overflow()));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        one_vector(self.sums.as_deref(), self.vectors)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.as_ref().map_or(0, |sums| sums.capacity() * size_of::<f32>())
    }
}
