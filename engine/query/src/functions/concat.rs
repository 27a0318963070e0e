//! `concat`, `concat_ws`, and what stands beside text in `||`: values as their types print them.
//!
//! DataFusion prints a timestamp with a `T` in it, and `true` where Postgres' output function says `t`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringArray, StringBuilder},
        datatypes::{DataType, Field},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use sepal_types::{Error, SqlState, SqlType};

use super::{
    cast::{cast_function, convert},
    constants::{all_constant, answer},
};
use crate::{error::carry, output::sql_type};

/// Most bytes of text in one batch of results.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 30;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    /// `concat_ws`: the first argument stands between the others.
    separated: bool,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |separated| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Concat { separated, signature }))
    };
    vec![function(false), function(true)]
}

/// An operand of `||` beside text.
pub fn as_text(operand: Expr) -> Expr {
    let function = Arc::new(cast_function(SqlType::Text));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![operand]))
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &'static str {
        if self.separated { "concat_ws" } else { "concat" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let mut texts = Vec::with_capacity(args.args.len());
        for (value, field) in args.args.iter().zip(&args.arg_fields) {
            texts.push(printed(&value.to_array(rows)?, field)?);
        }
        let (separators, texts) = match texts.split_first() {
            Some((first, rest)) if self.separated => (Some(first), rest),
            _ => (None, texts.as_slice()),
        };
        let mut out = StringBuilder::with_capacity(rows, 0);
        for row in 0..rows {
            if separators.is_some_and(|separators| separators.is_null(row)) {
                out.append_null();
                continue;
            }
            let separator = separators.map_or("", |separators| separators.value(row));
            let parts = texts.iter().filter(|text| text.is_valid(row)).map(|text| text.value(row));
            let joined = parts.collect::<Vec<_>>().join(separator);
            if out.values_slice().len().saturating_add(joined.len()) > MAX_TEXT_BYTES {
                let message = format!("the results of {}() exceed 1 GiB in one batch", self.name());
                return Err(carry(Error::new(SqlState::ProgramLimitExceeded, message)));
            }
            out.append_value(joined);
        }
        answer(Arc::new(out.finish()), constant)
    }
}

/// As output functions print: a cast of a boolean to text is the word, its output one letter.
pub(super) fn printed(array: &ArrayRef, field: &Field) -> Result<StringArray> {
    if let Some(booleans) = array.as_boolean_opt() {
        let letters = booleans.iter().map(|value| value.map(|value| if value { "t" } else { "f" }));
        return Ok(letters.collect());
    }
    Ok(convert(array, &sql_type(field), &SqlType::Text)?.as_string::<i32>().clone())
}
