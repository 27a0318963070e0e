//! Defaults that call `nextval`: how they name their sequence, and which are there.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName,
};
use sepal_types::{ColumnDef, PUBLIC_SCHEMA, Result, TableDef};

use super::{super::Scope, find};
use crate::{catalog::quote_ident, functions::sequence_reference};

/// How a stored default names a sequence. One of `public` has no schema there: so they were stored when there was no
/// other. The search path has no say in it ([`in_public`]).
pub fn call(schema: &str, name: &str) -> String {
    format!("nextval('{}')", reference(schema, name).replace('\'', "''"))
}

fn reference(schema: &str, name: &str) -> String {
    match schema {
        PUBLIC_SCHEMA => quote_ident(name),
        _ => format!("{}.{}", quote_ident(schema), quote_ident(name)),
    }
}

/// Names the schema of those sequences that a stored default calls without one.
pub fn in_public(stored: &mut Expr) {
    let _: ControlFlow<()> = ast::visit_expressions_mut(stored, |inner| {
        let literal = sequence_argument(inner).map(|argument| match argument {
            Expr::Cast { expr, .. } => expr.as_mut(),
            other => other,
        });
        if let Some(Expr::Value(value)) = literal
            && let ast::Value::SingleQuotedString(text) = &mut value.value
            && sequence_reference(text).is_ok_and(|name| name.schema.is_none())
        {
            *text = format!("{PUBLIC_SCHEMA}.{text}");
        }
        ControlFlow::Continue(())
    });
}

/// The tables with the columns whose default calls the sequence.
pub fn dependents(schema: &str, name: &str, scope: &Scope) -> Vec<(TableDef, Vec<String>)> {
    let call = call(schema, name);
    let calls = |column: &&ColumnDef| column.default.as_ref().is_some_and(|text| text.contains(&call));
    let own = scope.snapshot.tables().filter(|version| version.def.environment == scope.environment);
    own.filter_map(|version| {
        let columns = version.def.columns.iter().filter(calls).map(|column| column.name.clone());
        let columns: Vec<String> = columns.collect();
        (!columns.is_empty()).then(|| (version.def.as_ref().clone(), columns))
    })
    .collect()
}

/// A DEFAULT with the sequences that it calls as they are stored: as [`call`] names them, without a cast.
///
/// Errors: 42P01 for one that is not there. `def`: the table, which may be new.
pub fn with_sequences(expr: &Expr, def: &TableDef, scope: &Scope) -> Result<Expr> {
    let mut expr = expr.clone();
    let found = ast::visit_expressions_mut(&mut expr, |inner| match sequence_argument(inner) {
        Some(argument) => match stored_reference(argument, def, scope) {
            Ok(text) => {
                *argument = Expr::Value(ast::Value::SingleQuotedString(text).with_empty_span());
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        },
        None => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(expr),
    }
}

/// The literal that a call of `nextval` names its sequence by, within a cast or not.
fn sequence_argument(expr: &mut Expr) -> Option<&mut Expr> {
    let Expr::Function(function) = expr else { return None };
    let calls = function.name.0.last().and_then(|part| part.as_ident());
    if !calls.is_some_and(|name| name.value.eq_ignore_ascii_case("nextval")) {
        return None;
    }
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_mut_slice() else {
        return None;
    };
    let literal = match &*argument {
        Expr::Cast { expr, .. } => expr.as_ref(),
        other => other,
    };
    if !matches!(literal, Expr::Value(_)) {
        return None;
    }
    function.name = ObjectName::from(vec![ast::Ident::new("nextval")]);
    Some(argument)
}

fn stored_reference(argument: &Expr, def: &TableDef, scope: &Scope) -> Result<String> {
    let literal = match argument {
        Expr::Cast { expr, .. } => expr.as_ref(),
        other => other,
    };
    let text = match literal {
        Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        other => other.to_string(),
    };
    let name = sequence_reference(&text)?;
    let own = name.schema.as_ref().is_none_or(|schema| *schema == def.schema);
    if own && def.sequence_named(&name.name).is_some() {
        return Ok(reference(&def.schema, &name.name));
    }
    let (found, _) = find(&name, scope)?;
    Ok(reference(&found.schema, &name.name))
}
