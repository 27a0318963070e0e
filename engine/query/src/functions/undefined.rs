//! A stand-in for a function that does not exist, so that the error can name the types of its arguments.
//!
//! `planner/provider.rs` hands it out for a name that nothing has: DataFusion plans the call, asks for its
//! type, and gets 42883 as Postgres words it. It is never invoked.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        TypeSignature, Volatility,
    },
};
use sepal_types::SqlType;

use crate::{
    error::{carry, undefined_function_call},
    output::sql_type,
};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Undefined {
    name: String,
    signature: Signature,
}

/// The stand-in for `name`.
pub fn undefined(name: &str) -> Arc<ScalarUDF> {
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    let signature = Signature::new(any, Volatility::Volatile);
    Arc::new(ScalarUDF::from(Undefined { name: name.to_owned(), signature }))
}

impl ScalarUDFImpl for Undefined {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(carry(undefined_function_call(&self.name, &[])))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<SqlType> = args
            .arg_fields
            .iter()
            .zip(args.scalar_arguments)
            .map(|(field, constant)| match constant {
                // A bare string literal or NULL has no type yet.
                Some(ScalarValue::Utf8(_) | ScalarValue::Null) => SqlType::Unknown,
                // Nor has a parameter; a small number is an integer wherever it stands.
                None if field.data_type().is_null() => SqlType::Unknown,
                Some(ScalarValue::Int64(Some(value))) if i32::try_from(*value).is_ok() => SqlType::Int4,
                _ => sql_type(field),
            })
            .collect();
        Err(carry(undefined_function_call(&self.name, &types)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(carry(undefined_function_call(&self.name, &[])))
    }
}
