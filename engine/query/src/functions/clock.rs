//! `now()`, the statement's time, and `clock_timestamp()`, the time at which it is called.
//!
//! DataFusion's own `now()` counts nanoseconds, so that what stands beside it must be a time before the year 2262: a
//! `timestamptz` of the year 9999, or an infinity, is none.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use datafusion::{
    arrow::{
        array::TimestampMicrosecondArray,
        datatypes::{DataType, Field, FieldRef, TimeUnit},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlType};

use crate::error::carry;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Clock {
    signature: Signature,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let now = Now { signature: Signature::nullary(Volatility::Stable) };
    let clock = Clock { signature: Signature::nullary(Volatility::Volatile) };
    vec![Arc::new(ScalarUDF::from(now)), Arc::new(ScalarUDF::from(clock))]
}

fn zone() -> Option<Arc<str>> {
    match arrow_type(&SqlType::Timestamptz) {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => zone,
        _ => None,
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&SqlType::Timestamptz))
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), arrow_type(&SqlType::Timestamptz), false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(carry(Error::bug("now() is a constant before a statement runs")))
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = context.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let now = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), zone());
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(now, None)))
    }
}

impl ScalarUDFImpl for Clock {
    fn name(&self) -> &str {
        "clock_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&SqlType::Timestamptz))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let read = |_| {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
        };
        let times = TimestampMicrosecondArray::from_iter_values((0..args.number_rows).map(read));
        Ok(ColumnarValue::Array(Arc::new(times.with_timezone_opt(zone()))))
    }
}
