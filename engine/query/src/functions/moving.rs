//! `sum`, `avg`, `variance` and `stddev` of floats over a window frame whose beginning moves.
//!
//! DataFusion takes off what leaves the frame; of floats that is not what adding up the rest gives: 1e20 + 1 - 1e20 is
//! 0, and an infinity taken off an infinity is NaN. PostgreSQL, which has no inverse of these for floats, begins anew
//! with each row. Here a frame is a queue of two stacks, of which the older one holds what its values make together from
//! each of them on: nothing is ever taken off, and a row costs no more than a step. Called by `aggregate`, never outside
//! of windows.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::cast,
        datatypes::{DataType, FieldRef, Float64Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};
use sepal_types::Error;

use crate::error::carry;

/// What is asked of the frame's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Measure {
    Average,
    Sum,
    /// From the mean of all.
    Variance {
        sample: bool,
        root: bool,
    },
}

/// What some values make together.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    count: u64,
    sum: f64,
    /// Of the distances from their mean.
    squares: f64,
}

impl Part {
    fn of(value: Option<f64>) -> Self {
        value.map_or_else(Self::default, |sum| Self { count: 1, sum, squares: 0.0 })
    }

    fn mean(self) -> f64 {
        self.sum / self.count as f64
    }

    /// Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979).
    fn with(self, other: Self) -> Self {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let count = self.count + other.count;
        let distance = other.mean() - self.mean();
        let between = distance * distance * (self.count as f64) * (other.count as f64) / count as f64;
        Self { count, sum: self.sum + other.sum, squares: self.squares + other.squares + between }
    }

    fn measured(self, measure: Measure) -> Option<f64> {
        let Measure::Variance { sample, root } = measure else {
            let value = if measure == Measure::Sum { self.sum } else { self.mean() };
            return (self.count > 0).then_some(value);
        };
        let divisor = if sample { self.count.saturating_sub(1) } else { self.count };
        let variance = if self.sum.is_finite() { self.squares / divisor as f64 } else { f64::NAN };
        (divisor > 0).then(|| if root { variance.sqrt() } else { variance })
    }
}

/// The values of a frame.
#[derive(Debug)]
pub(super) struct Moving {
    measure: Measure,
    /// `Float64` or `Float32`.
    result: DataType,
    /// The older values, the oldest one last: each with all that came after it here.
    older: Vec<Part>,
    newer: Vec<Option<f64>>,
    /// What `newer` make together.
    together: Part,
}

impl Moving {
    pub fn new(measure: Measure, result: &DataType) -> Self {
        let (older, newer) = (Vec::new(), Vec::new());
        Self { measure, result: result.clone(), older, newer, together: Part::default() }
    }

    fn add(&mut self, value: Option<f64>) {
        self.together = self.together.with(Part::of(value));
        self.newer.push(value);
    }

    /// The oldest one leaves.
    fn remove(&mut self) {
        if self.older.is_empty() {
            let mut after = Part::default();
            for value in self.newer.drain(..).rev() {
                after = Part::of(value).with(after);
                self.older.push(after);
            }
            self.together = Part::default();
        }
        self.older.pop();
    }
}

impl Accumulator for Moving {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let doubles = cast(&values[0], &DataType::Float64)?;
        doubles.as_primitive::<Float64Type>().iter().for_each(|value| self.add(value));
        Ok(())
    }

    /// Those that came first.
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        (0..values[0].len()).for_each(|_| self.remove());
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(carry(Error::bug("a window frame has no parts")))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let all = self.older.last().copied().unwrap_or_default().with(self.together);
        let measured = all.measured(self.measure);
        Ok(match self.result {
            DataType::Float32 => ScalarValue::Float32(measured.map(|value| value as f32)),
            _ => ScalarValue::Float64(measured),
        })
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(carry(Error::bug("a window frame has no parts")))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
            + self.older.capacity() * size_of::<Part>()
            + self.newer.capacity() * size_of::<Option<f64>>()
    }
}

/// Puts variances and deviations in the place of the ones that are registered.
pub(super) fn add_variances(registered: &mut HashMap<String, Arc<AggregateUDF>>) {
    for (name, sample, root) in [
        ("stddev", true, true),
        ("stddev_pop", false, true),
        ("stddev_samp", true, true),
        ("var_pop", false, false),
        ("var_samp", true, false),
    ] {
        if let Some(inner) = registered.get(name).cloned() {
            let variance = Variance { inner, measure: Measure::Variance { sample, root } };
            registered.insert(name.to_owned(), Arc::new(AggregateUDF::from(variance)));
        }
    }
}

/// DataFusion's own but over a moving frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Variance {
    inner: Arc<AggregateUDF>,
    measure: Measure,
}

impl AggregateUDFImpl for Variance {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.inner.create_sliding_accumulator(args);
        }
        Ok(Box::new(Moving::new(self.measure, args.return_field.data_type())))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Float64Array;

    use super::*;

    fn frames(measure: Measure, values: &[Option<f64>]) -> Vec<Option<f64>> {
        let mut moving = Moving::new(measure, &DataType::Float64);
        let array = |value: Option<f64>| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
        let mut found = Vec::new();
        for (place, value) in values.iter().enumerate() {
            moving.update_batch(&[array(*value)]).expect("floats");
            if let Some(gone) = place.checked_sub(2) {
                moving.retract_batch(&[array(values[gone])]).expect("floats");
            }
            let Ok(ScalarValue::Float64(value)) = moving.evaluate() else { panic!("a float") };
            found.push(value);
        }
        found
    }

    #[test]
    fn what_has_left_the_frame_leaves_no_trace() {
        let values =
            [Some(1e20), Some(1.0), Some(2.0), None, None, Some(f64::INFINITY), Some(3.0), Some(3.0)];
        let sums = frames(Measure::Sum, &values);
        assert_eq!(sums[1..5], [Some(1e20), Some(3.0), Some(2.0), None]);
        assert_eq!(sums[5..], [Some(f64::INFINITY), Some(f64::INFINITY), Some(6.0)]);
        assert_eq!(frames(Measure::Average, &values)[2], Some(1.5));
        let variances = |sample| frames(Measure::Variance { sample, root: false }, &values);
        assert_eq!((variances(true)[2], variances(true)[3]), (Some(0.5), None));
        assert_eq!(
            (variances(false)[2], variances(false)[3], variances(false)[7]),
            (Some(0.25), Some(0.0), Some(0.0))
        );
    }
}
