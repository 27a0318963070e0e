//! What of a table an index for vectors or bit strings is over: a column, or one of the expressions of a vector column
//! that searches know.
//!
//! Called by CREATE INDEX. The column itself; `embedding::halfvec(n)` and `binary_quantize(embedding)::bit(n)`, of as
//! many dimensions as the column has. All others are refused.

use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};
use sepal_types::{ColumnDef, Error, Result, SqlState, SqlType, TableDef};

use super::{create_table::column_type, names::identifier, table_name};

/// What an index is over.
pub enum Indexed<'a> {
    Column(&'a ColumnDef),
    /// A vector column as `halfvec`, which is the type.
    Halves(&'a ColumnDef, SqlType),
    /// The signs of a vector column, as `bit(n)`, which is the type.
    Signs(&'a ColumnDef, SqlType),
}

/// Reads an index's one key.
///
/// Errors: 22000 for a cast to other dimensions than the column's: no row could be written. 0A000 for other expressions.
pub fn indexed<'a>(method: &str, def: &'a TableDef, key: &Expr) -> Result<Indexed<'a>> {
    if let Some(column) = column(def, key) {
        return Ok(Indexed::Column(column));
    }
    let refuse = || {
        let message = format!("{method} indexes over this expression are not supported");
        Error::unsupported(message).with_hint(
            "Index a vector column of declared dimensions itself, as embedding::halfvec(n), or as \
             binary_quantize(embedding)::bit(n), where n is its number of dimensions.",
        )
    };
    let Expr::Cast { expr: operand, data_type, .. } = bare(key) else { return Err(refuse()) };
    let (ty, _) = column_type(data_type)?;
    let signs_of = quantized(operand).and_then(|operand| column(def, operand));
    match (&ty, column(def, operand), signs_of) {
        (SqlType::HalfVec(Some(wanted)), Some(column), _) => match column.ty {
            SqlType::Vector(Some(own)) if own == *wanted => Ok(Indexed::Halves(column, ty.clone())),
            SqlType::Vector(Some(own)) => {
                let message = format!("expected {wanted} dimensions, not {own}");
                Err(Error::new(SqlState::DataException, message))
            }
            _ => Err(refuse()),
        },
        (SqlType::Bit(Some(length)), _, Some(column))
            if column.ty.dimensions().map(u32::from) == Some(*length) =>
        {
            Ok(Indexed::Signs(column, ty.clone()))
        }
        _ => Err(refuse()),
    }
}

/// Without the parentheses around it.
pub fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => bare(inner),
        other => other,
    }
}

fn column<'a>(def: &'a TableDef, expr: &Expr) -> Option<&'a ColumnDef> {
    match bare(expr) {
        Expr::Identifier(ident) => def.column(&identifier(ident)),
        _ => None,
    }
}

/// What `binary_quantize` is called with.
fn quantized(expr: &Expr) -> Option<&Expr> {
    let Expr::Function(call) = bare(expr) else { return None };
    let FunctionArguments::List(list) = &call.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(operand))]
            if table_name(&call.name) == "binary_quantize" =>
        {
            Some(operand)
        }
        _ => None,
    }
}
