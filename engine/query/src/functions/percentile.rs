//! `percentile_cont(p) WITHIN GROUP (ORDER BY x)`, exactly between two values.
//!
//! DataFusion's own cuts the distance between them off after six digits, so that the 99th percentile of 1 to 1000 is
//! 990.009999. This one does as PostgreSQL's `percentile_cont_final` does. Registered by the planner in its place.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch},
        compute::cast,
        datatypes::{DataType, Field, FieldRef, Float64Type, Schema},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};
use sepal_types::{Error, SqlState};

use crate::error::carry;

const NAME: &str = "percentile_cont";

/// Puts it in the place of DataFusion's, if that is registered.
pub(super) fn add_percentile(registered: &mut HashMap<String, Arc<AggregateUDF>>) {
    if let Some(inner) = registered.get(NAME).cloned() {
        registered.insert(NAME.to_owned(), Arc::new(AggregateUDF::from(Percentile { inner })));
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Percentile {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    /// Errors: 42601 for DISTINCT, 22003 for a fraction that is none, 0A000 for one that is no constant.
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            let message = "cannot use DISTINCT with WITHIN GROUP";
            return Err(carry(Error::new(SqlState::SyntaxError, message)));
        }
        let no_rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let fraction = match args.exprs.get(1).map(|expr| expr.evaluate(&no_rows)) {
            Some(Ok(ColumnarValue::Scalar(value))) => value.cast_to(&DataType::Float64)?,
            _ => return Err(carry(Error::unsupported("percentile_cont takes a constant fraction"))),
        };
        let fraction = match fraction {
            ScalarValue::Float64(fraction) => fraction,
            _ => None,
        };
        if let Some(fraction) = fraction.filter(|fraction| !(0.0..=1.0).contains(fraction)) {
            let message = format!("percentile value {fraction} is not between 0 and 1");
            return Err(carry(Error::new(SqlState::NumericValueOutOfRange, message)));
        }
        let descending = args.order_bys.first().is_some_and(|key| key.options.descending);
        Ok(Box::new(Values { fraction, descending, values: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(DataType::Float64, true);
        Ok(vec![Arc::new(Field::new_list(format!("{}[values]", args.name), item, true))])
    }

    /// It puts its values in order itself.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// The values of one group.
#[derive(Debug)]
struct Values {
    /// `None` for NULL, of which the result is NULL.
    fraction: Option<f64>,
    descending: bool,
    values: Vec<f64>,
}

impl Values {
    fn percentile(&mut self) -> Option<f64> {
        let (fraction, last) = (self.fraction?, self.values.len().checked_sub(1)?);
        self.values.sort_unstable_by(f64::total_cmp);
        if self.descending {
            self.values.reverse();
        }
        let place = fraction * last as f64;
        let (first, second) = (place.floor() as usize, place.ceil() as usize);
        let (low, high) = (*self.values.get(first)?, *self.values.get(second)?);
        Some(if first == second { low } else { low + (place - first as f64) * (high - low) })
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let doubles = cast(&values[0], &DataType::Float64)?;
        // The NaN that a processor makes has a sign, and would be the least of all.
        let one_nan = |value: f64| if value.is_nan() { f64::NAN } else { value };
        self.values.extend(doubles.as_primitive::<Float64Type>().iter().flatten().map(one_nan));
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(list.as_primitive::<Float64Type>().iter().flatten());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.percentile()))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> =
            self.values.iter().map(|value| ScalarValue::Float64(Some(*value))).collect();
        let list = ScalarValue::new_list_from_iter(values.into_iter(), &DataType::Float64, true);
        Ok(vec![ScalarValue::List(list)])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Float64Array;

    use super::*;

    fn of(values: &[f64], fraction: f64, descending: bool) -> Option<f64> {
        let mut part = Values { fraction: Some(fraction), descending, values: values.to_vec() };
        let mut whole = Values { fraction: Some(fraction), descending, values: Vec::new() };
        let states: Vec<ArrayRef> =
            part.state().expect("a list").iter().map(|state| state.to_array().expect("an array")).collect();
        whole.merge_batch(&states).expect("lists of floats");
        whole.update_batch(&[Arc::new(Float64Array::from(vec![None::<f64>]))]).expect("floats");
        whole.percentile()
    }

    #[test]
    fn between_two_values_it_is_exact() {
        let thousand: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(of(&thousand, 0.99, false), Some(990.01));
        assert_eq!(of(&[4.0, 1.0], 0.25, true), Some(3.25));
        assert_eq!((of(&[7.0], 0.5, false), of(&[], 0.5, false)), (Some(7.0), None));
        assert_eq!((of(&[1.0, 3.0], 0.0, false), of(&[1.0, 3.0], 1.0, false)), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn nan_is_the_greatest_whatever_its_sign() {
        let mut values = Values { fraction: Some(0.0), descending: false, values: Vec::new() };
        let given: ArrayRef = Arc::new(Float64Array::from(vec![-f64::NAN, 2.0, f64::NEG_INFINITY]));
        values.update_batch(&[given]).expect("floats");
        assert_eq!(values.percentile(), Some(f64::NEG_INFINITY));
    }
}
