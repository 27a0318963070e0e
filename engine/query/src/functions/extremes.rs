//! `min` and `max` that say of an enum's values which enum they are of.
//!
//! DataFusion's own, whose result has the argument's Arrow type and nothing of its field: of an enum that would leave
//! places without their labels. Registered in their place by `aggregate`.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature, StatisticsArgs,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};
use sepal_types::SqlType;

use crate::output::{sql_type, typed_field};

/// Puts them in place of those that are registered.
pub(super) fn add_extremes(registered: &mut HashMap<String, Arc<AggregateUDF>>) {
    for name in ["max", "min"] {
        if let Some(inner) = registered.get(name) {
            let function = Extreme { inner: Arc::clone(inner) };
            registered.insert(name.to_owned(), Arc::new(AggregateUDF::from(function)));
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
}

impl Extreme {
    fn own(&self) -> &dyn AggregateUDFImpl {
        self.inner.inner().as_ref()
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.own().name()
    }

    fn aliases(&self) -> &[String] {
        self.own().aliases()
    }

    fn signature(&self) -> &Signature {
        self.own().signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.own().coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.own().return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let field = self.own().return_field(arguments)?;
        match arguments.first().map(|argument| sql_type(argument)) {
            Some(ty @ SqlType::Enum(_)) => {
                Ok(Arc::new(typed_field(field.name(), field.data_type().clone(), &ty)))
            }
            _ => Ok(field),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.own().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.own().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.own().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.own().create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.own().create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.own().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.own().reverse_expr()
    }

    fn is_nullable(&self) -> bool {
        self.own().is_nullable()
    }

    fn is_descending(&self) -> Option<bool> {
        self.own().is_descending()
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.own().value_from_stats(statistics)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.own().default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.own().set_monotonicity(data_type)
    }
}
