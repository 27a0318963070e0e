//! `array_to_string(array, delimiter [, null])`: elements as their types print them, as `concat` has it.
//!
//! DataFusion prints `true`, a timestamp with a `T` in it, and `0.0000001` where Postgres' output function says `1e-07`;
//! that of the catalogs takes every number for a `double precision`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringArray, StringBuilder, new_null_array},
        compute::cast,
        datatypes::DataType,
    },
    common::Result,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
    },
};
use sepal_types::{Error, SqlState, SqlType};

use super::{
    concat::{MAX_TEXT_BYTES, printed},
    constants::{all_constant, answer},
};
use crate::{
    error::{carry, undefined_function_call},
    output::{natural_type, sql_type, typed_field},
};

const NAME: &str = "array_to_string";

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature =
        Signature::one_of(vec![TypeSignature::Any(2), TypeSignature::Any(3)], Volatility::Immutable);
    vec![Arc::new(ScalarUDF::from(ArrayToString { signature }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayToString {
    signature: Signature,
}

impl ScalarUDFImpl for ArrayToString {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            Some(DataType::List(_) | DataType::Null) => Ok(DataType::Utf8),
            _ => {
                let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
                Err(carry(undefined_function_call(NAME, &types)))
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|argument| argument.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let ([array, delimiter, rest @ ..], Some(field)) = (arrays.as_slice(), args.arg_fields.first())
        else {
            return Err(carry(Error::bug("array_to_string takes an array and a delimiter")));
        };
        let Some(lists) = array.as_list_opt::<i32>() else {
            return answer(new_null_array(&DataType::Utf8, rows), constant);
        };
        let element = match sql_type(field) {
            SqlType::Array(element) => *element,
            _ => natural_type(lists.values().data_type()),
        };
        let texts =
            printed(lists.values(), &typed_field("element", lists.values().data_type().clone(), &element))?;
        let delimiters = text(delimiter)?;
        let nulls = rest.first().map(text).transpose()?;
        let mut out = StringBuilder::with_capacity(rows, 0);
        for row in 0..rows {
            if lists.is_null(row) || delimiters.is_null(row) {
                out.append_null();
                continue;
            }
            let null = nulls.as_ref().filter(|nulls| nulls.is_valid(row)).map(|nulls| nulls.value(row));
            let (from, to) = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
            let elements = (from..to).filter_map(|at| usize::try_from(at).ok());
            let parts =
                elements.filter_map(|at| if texts.is_valid(at) { Some(texts.value(at)) } else { null });
            let joined = parts.collect::<Vec<_>>().join(delimiters.value(row));
            if out.values_slice().len().saturating_add(joined.len()) > MAX_TEXT_BYTES {
                let message = "the results of array_to_string() exceed 1 GiB in one batch";
                return Err(carry(Error::new(SqlState::ProgramLimitExceeded, message)));
            }
            out.append_value(joined);
        }
        answer(Arc::new(out.finish()), constant)
    }
}

fn text(array: &ArrayRef) -> Result<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}
