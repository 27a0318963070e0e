//! `clock_timestamp()`: the time at which it is called, where `now()` is the statement's.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use datafusion::{
    arrow::{
        array::TimestampMicrosecondArray,
        datatypes::{DataType, TimeUnit},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Clock {
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::nullary(Volatility::Volatile);
    vec![Arc::new(ScalarUDF::from(Clock { signature }))]
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
        let zone = match arrow_type(&SqlType::Timestamptz) {
            DataType::Timestamp(TimeUnit::Microsecond, zone) => zone,
            _ => None,
        };
        let read = |_| {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
        };
        let times = TimestampMicrosecondArray::from_iter_values((0..args.number_rows).map(read));
        Ok(ColumnarValue::Array(Arc::new(times.with_timezone_opt(zone))))
    }
}
