//! `sepal_dlq_replay`, and the names that the arguments of such functions have.

use datafusion::{
    arrow::{array::AsArray, datatypes::TimestampMicrosecondType},
    sql::sqlparser::ast::{Expr, FunctionArg},
};
use sepal_types::{Result, SqlType};

use super::super::CatalogContext;
use super::super::value::Value;
use super::{Function, optional};
use crate::values::decode_text;

pub(super) const FUNCTIONS: &[Function] =
    &[Function::acting("sepal_dlq_replay", "text, timestamp with time zone?", "bigint", replay)];

/// The functions that may be called with `name => value`, and the names of their arguments.
const NAMED: [(&str, &[&str]); 2] =
    [("sepal_dlq_replay", &["pipeline", "since"]), ("sepal_recall", &["index", "k", "sample"])];

/// The arguments of a call by their places, when some are given by name. `None`: none is, or they do not fit; then
/// the call stays as it is.
pub(in crate::catalog) fn in_order(function: &str, arguments: &[FunctionArg]) -> Option<Vec<FunctionArg>> {
    let (_, names) = NAMED.iter().find(|(name, _)| *name == function)?;
    if arguments.iter().all(|argument| matches!(argument, FunctionArg::Unnamed(_))) {
        return None;
    }
    let mut places: Vec<Option<FunctionArg>> = vec![None; names.len()];
    for (place, argument) in arguments.iter().enumerate() {
        let (name, value) = match argument {
            FunctionArg::Unnamed(_) => (None, argument.clone()),
            FunctionArg::Named { name, arg, .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                (Some(name), FunctionArg::Unnamed(arg.clone()))
            }
            FunctionArg::ExprNamed { .. } => return None,
        };
        let place = match name {
            None => place,
            Some(name) => names.iter().position(|known| name.value.eq_ignore_ascii_case(known))?,
        };
        if places.get_mut(place)?.replace(value).is_some() {
            return None;
        }
    }
    let given = places.iter().take_while(|argument| argument.is_some()).count();
    let complete = places[given..].iter().all(Option::is_none);
    complete.then(|| places.into_iter().flatten().collect())
}

fn replay(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let Some(pipeline) = optional(arguments, 0) else {
        return Ok(Value::Null);
    };
    let since = match optional(arguments, 1) {
        None => None,
        Some(Value::Time(micros)) => Some(*micros),
        Some(text) => instant(&text.to_text(), &SqlType::Timestamptz)?,
    };
    context.control.replay(&pipeline.to_text(), since).map(Value::Int)
}

/// Microseconds since 1970 of a timestamp in its text form.
///
/// Errors: 22007, 22008.
pub(in crate::catalog) fn instant(text: &str, ty: &SqlType) -> Result<Option<i64>> {
    let array = decode_text(ty, Some(text.as_bytes()))?;
    let instants = array.as_primitive_opt::<TimestampMicrosecondType>();
    Ok(instants.and_then(|instants| instants.iter().next().flatten()))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    use super::*;

    fn ordered(call: &str) -> Option<String> {
        let dialect = PostgreSqlDialect {};
        let expr = Parser::new(&dialect).try_with_sql(call).unwrap().parse_expr().unwrap();
        let Expr::Function(call) = expr else { panic!("{expr}") };
        let datafusion::sql::sqlparser::ast::FunctionArguments::List(list) = &call.args else {
            panic!("{call}")
        };
        let arguments = in_order(&call.name.to_string(), &list.args)?;
        Some(arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn named_arguments_find_their_places() {
        assert_eq!(ordered("sepal_dlq_replay('p', since => now())").as_deref(), Some("'p', now()"));
        assert_eq!(ordered("sepal_dlq_replay(since => 1, PIPELINE => 'p')").as_deref(), Some("'p', 1"));
        for call in [
            "sepal_dlq_replay('p')",
            "sepal_recall('i', sample => 5)",
            "sepal_dlq_replay('p', until => 1)",
            "sepal_dlq_replay(since => 1)",
            "sepal_dlq_replay('p', pipeline => 'q')",
            "sepal_dlq_replay('p', 1, since => 2)",
            "other('p', since => 1)",
        ] {
            assert_eq!(ordered(call), None, "{call}");
        }
    }
}
