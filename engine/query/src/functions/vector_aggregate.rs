//! `sum` and `avg` over vectors (pgvector's `vector_accum`, `vector_avg`).
//!
//! Sums are kept in `float8`, so an average over many rows does not drift. The planner sends `sum(v)` and
//! `avg(v)` here when the argument is a vector; other types keep DataFusion's aggregates.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array, ListArray},
        buffer::OffsetBuffer,
        datatypes::{DataType, Field, FieldRef, Float64Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use super::{
    cast::to_vector_array,
    distance::{check_dimensions, elements},
    vector::{append, vector_builder},
};

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorAggregate {
    name: &'static str,
    average: bool,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    [("sepal_vector_sum", false), ("sepal_vector_avg", true)]
        .into_iter()
        .map(|(name, average)| {
            let signature = Signature::any(1, Volatility::Immutable);
            Arc::new(AggregateUDF::from(VectorAggregate { name, average, signature }))
        })
        .collect()
}

impl AggregateUDFImpl for VectorAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&SqlType::Vector(None)))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(VectorSum { sums: None, count: 0, average: self.average }))
    }

    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new("sums", sums_type(), true)),
            Arc::new(Field::new("count", DataType::UInt64, false)),
        ])
    }
}

fn sums_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float64, true)))
}

#[derive(Debug)]
struct VectorSum {
    sums: Option<Vec<f64>>,
    count: u64,
    average: bool,
}

impl VectorSum {
    fn add(&mut self, values: impl ExactSizeIterator<Item = f64>) -> Result<()> {
        let sums = self.sums.get_or_insert_with(|| vec![0.0; values.len()]);
        check_dimensions(sums.len(), values.len())?;
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        Ok(())
    }
}

impl Accumulator for VectorSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let vectors = to_vector_array(&values[0])?;
        for vector in (0..vectors.len()).filter_map(|row| elements(&vectors, row)) {
            self.add(vector.values().iter().map(|value| f64::from(*value)))?;
            self.count += 1;
        }
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a vector's elements are float4; counts stay far below 2^53"
    )]
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut builder = vector_builder(1);
        match &self.sums {
            None => builder.append(false),
            Some(sums) => {
                let divisor = if self.average { self.count as f64 } else { 1.0 };
                let result: Vec<f32> = sums.iter().map(|sum| (sum / divisor) as f32).collect();
                append(&mut builder, &result);
            }
        }
        ScalarValue::try_from_array(&builder.finish(), 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sums.as_ref().map_or(0, |sums| sums.capacity() * size_of::<f64>())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sums = match &self.sums {
            None => ScalarValue::try_new_null(&sums_type())?,
            Some(sums) => ScalarValue::List(Arc::new(ListArray::new(
                Arc::new(Field::new("item", DataType::Float64, true)),
                OffsetBuffer::from_lengths([sums.len()]),
                Arc::new(Float64Array::from(sums.clone())),
                None,
            ))),
        };
        Ok(vec![sums, ScalarValue::UInt64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let sums = states[0].as_list::<i32>();
        let counts = datafusion::common::cast::as_uint64_array(&states[1])?;
        for row in (0..sums.len()).filter(|row| sums.is_valid(*row)) {
            let values = sums.value(row);
            self.add(values.as_primitive::<Float64Type>().values().iter().copied())?;
            self.count += counts.value(row);
        }
        Ok(())
    }
}
