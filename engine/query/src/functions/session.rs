//! Functions that touch the session: `set_config` and `pg_sleep`. Those of advisory locks are in `advisory`.
//!
//! `current_setting` and the other readers are the catalog's.

use std::{sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{Array, AsArray, StringArray, new_null_array},
        datatypes::{DataType, Float64Type},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_types::{Error, SqlState};

use crate::{context::SettingSink, error::carry};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    SetConfig,
    Sleep,
}

#[derive(Debug)]
struct SessionFunction {
    name: &'static str,
    call: Call,
    settings: Arc<dyn SettingSink>,
    signature: Signature,
}

impl PartialEq for SessionFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SessionFunction {}

impl std::hash::Hash for SessionFunction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The functions over a session's settings.
pub fn session_functions(settings: &Arc<dyn SettingSink>) -> Vec<Arc<ScalarUDF>> {
    [("set_config", Call::SetConfig), ("pg_sleep", Call::Sleep)]
        .into_iter()
        .map(|(name, call)| {
            let signature = match call {
                Call::SetConfig => Signature::any(3, Volatility::Volatile),
                Call::Sleep => Signature::any(1, Volatility::Volatile),
            };
            Arc::new(ScalarUDF::from(SessionFunction {
                name,
                call,
                settings: Arc::clone(settings),
                signature,
            }))
        })
        .collect()
}

impl ScalarUDFImpl for SessionFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.call {
            Call::SetConfig => DataType::Utf8,
            Call::Sleep => DataType::Null,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.call {
            Call::SetConfig => return self.set_config(&args),
            Call::Sleep => self.sleep(&args)?,
        }
        Ok(ColumnarValue::Array(new_null_array(&DataType::Null, args.number_rows)))
    }
}

impl SessionFunction {
    fn set_config(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = |position: usize| datafusion::arrow::compute::cast(&arrays[position], &DataType::Utf8);
        let (names, values) = (text(0)?, text(1)?);
        let local = datafusion::arrow::compute::cast(&arrays[2], &DataType::Boolean)?;
        let (names, values) = (names.as_string::<i32>(), values.as_string::<i32>());
        let mut results = Vec::with_capacity(names.len());
        for row in 0..names.len() {
            if names.is_null(row) {
                return Err(carry(Error::new(
                    SqlState::InvalidParameterValue,
                    "SET requires parameter name",
                )));
            }
            let value = if values.is_null(row) { "" } else { values.value(row) };
            let local = local.is_valid(row) && local.as_boolean().value(row);
            results.push(self.settings.set(names.value(row), value, local).map_err(carry)?);
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(results))))
    }

    /// One sleep for all rows of a batch, which the session waits out before it passes them on.
    fn sleep(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let seconds = datafusion::arrow::compute::cast(&arrays[0], &DataType::Float64)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        let total: f64 = seconds.iter().flatten().filter(|value| value.is_finite() && *value > 0.0).sum();
        self.settings.sleep(Duration::from_secs_f64(total.min(86_400.0)));
        Ok(())
    }
}
