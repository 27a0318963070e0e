//! `pg_advisory_lock` and its family: numbers that applications lock.
//!
//! Called while a plan runs, on a thread that all tenants share: nothing waits here. Where the session's locks say that
//! one would have to, the call fails, the session waits and runs the statement again (`database::session::advisory`).

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, PrimitiveArray, new_null_array},
        compute::cast,
        datatypes::{DataType, Int32Type, Int64Type},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_types::{Error, SqlState};

use crate::{
    context::{AdvisoryCall, AdvisoryNumber, SettingSink},
    error::carry,
};

/// Name and meaning.
const FUNCTIONS: [(&str, AdvisoryCall); 11] = [
    ("pg_advisory_lock", lock(false, false, true)),
    ("pg_advisory_lock_shared", lock(true, false, true)),
    ("pg_advisory_xact_lock", lock(false, true, true)),
    ("pg_advisory_xact_lock_shared", lock(true, true, true)),
    ("pg_try_advisory_lock", lock(false, false, false)),
    ("pg_try_advisory_lock_shared", lock(true, false, false)),
    ("pg_try_advisory_xact_lock", lock(false, true, false)),
    ("pg_try_advisory_xact_lock_shared", lock(true, true, false)),
    ("pg_advisory_unlock", AdvisoryCall::Unlock { shared: false }),
    ("pg_advisory_unlock_shared", AdvisoryCall::Unlock { shared: true }),
    ("pg_advisory_unlock_all", AdvisoryCall::UnlockAll),
];

const fn lock(shared: bool, transaction: bool, wait: bool) -> AdvisoryCall {
    AdvisoryCall::Lock { shared, transaction, wait }
}

#[derive(Debug)]
struct Advisory {
    name: &'static str,
    call: AdvisoryCall,
    session: Arc<dyn SettingSink>,
    signature: Signature,
}

/// A statement has one session.
impl PartialEq for Advisory {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Advisory {}

impl std::hash::Hash for Advisory {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The functions, for one session.
pub fn advisory_functions(session: &Arc<dyn SettingSink>) -> Vec<Arc<ScalarUDF>> {
    let function = |(name, call)| {
        let signature = match call {
            AdvisoryCall::UnlockAll => Signature::nullary(Volatility::Volatile),
            _ => Signature::variadic_any(Volatility::Volatile),
        };
        Arc::new(ScalarUDF::from(Advisory { name, call, session: Arc::clone(session), signature }))
    };
    FUNCTIONS.into_iter().map(function).collect()
}

/// Whether a query may lock numbers: then none of its rows are sent before all are there.
pub fn calls_advisory(sql: &str) -> bool {
    sql.to_ascii_lowercase().contains("_advisory_")
}

impl Advisory {
    /// Whether the function says if it did something; the others are `void`.
    fn tells(&self) -> bool {
        matches!(self.call, AdvisoryCall::Lock { wait: false, .. } | AdvisoryCall::Unlock { .. })
    }

    fn numbers(&self, args: &[ColumnarValue], rows: usize) -> Result<Vec<Option<AdvisoryNumber>>> {
        let array =
            |arg: &ColumnarValue, ty: &DataType| -> Result<ArrayRef> { Ok(cast(&arg.to_array(rows)?, ty)?) };
        match args {
            [number] => {
                let numbers = array(number, &DataType::Int64)?;
                let numbers: &PrimitiveArray<Int64Type> = numbers.as_primitive();
                Ok(numbers.iter().map(|number| number.map(AdvisoryNumber::One)).collect())
            }
            [class, object] => {
                let (classes, objects) = (array(class, &DataType::Int32)?, array(object, &DataType::Int32)?);
                let classes: &PrimitiveArray<Int32Type> = classes.as_primitive();
                let objects: &PrimitiveArray<Int32Type> = objects.as_primitive();
                let pairs = classes.iter().zip(objects.iter());
                Ok(pairs.map(|(class, object)| Some(AdvisoryNumber::Two(class?, object?))).collect())
            }
            _ => {
                let message = format!("function {}() takes one bigint or two integers", self.name);
                Err(carry(Error::new(SqlState::UndefinedFunction, message)))
            }
        }
    }
}

impl ScalarUDFImpl for Advisory {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.tells() { DataType::Boolean } else { DataType::Null })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        if self.call == AdvisoryCall::UnlockAll {
            self.session.advisory(self.call, AdvisoryNumber::One(0)).map_err(carry)?;
            return Ok(ColumnarValue::Array(new_null_array(&DataType::Null, rows)));
        }
        let mut done = Vec::with_capacity(rows);
        for number in self.numbers(&args.args, rows)? {
            done.push(match number {
                None => None,
                Some(number) => Some(self.session.advisory(self.call, number).map_err(carry)?),
            });
        }
        Ok(ColumnarValue::Array(if self.tells() {
            Arc::new(BooleanArray::from(done))
        } else {
            new_null_array(&DataType::Null, rows)
        }))
    }
}
