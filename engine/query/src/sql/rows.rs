//! VALUES lists: an untyped literal has the type of its column.
//!
//! Called by the AST pass. The column's type is that of the table's column that is inserted into, or of a cast
//! in another row.

use datafusion::sql::sqlparser::ast::{self, Expr, SetExpr, TypedString, Value};
use sepal_types::SqlType;

use super::{
    literals::{fold_sign, quoted_number},
    rewrite::{call, cast_target, wrapper_name},
};

/// A literal in VALUES is read as its column's type: `'x'` for an integer column is an integer's error, and
/// rows that mix `1` and `1e308` do not end up in a decimal.
pub fn type_values(body: &mut SetExpr, targets: &[SqlType]) {
    let SetExpr::Values(values) = body else {
        return;
    };
    for row in &mut values.rows {
        for (expr, target) in row.iter_mut().zip(targets) {
            fold_sign(expr);
            let Some(wrapper) = wrapper_name(target) else {
                continue;
            };
            let Expr::Value(value) = &*expr else {
                continue;
            };
            let text_like = matches!(target, SqlType::Text | SqlType::Varchar(_) | SqlType::Name);
            let wrap = match &value.value {
                Value::SingleQuotedString(_) => !text_like,
                Value::Number(..) => {
                    matches!(target, SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_))
                }
                Value::Null => {
                    matches!(target, SqlType::Json | SqlType::Jsonb | SqlType::Name | SqlType::Oid)
                }
                _ => false,
            };
            if wrap {
                *expr = call(&wrapper, quoted_number(expr, target).unwrap_or_else(|| expr.clone()), None);
            }
        }
    }
}

/// In `VALUES ('2024-01-01'::date), ('2024-02-01'), (NULL)` the cast types the whole column.
pub fn type_untyped(values: &mut ast::Values) {
    let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
    for column in 0..width {
        let Some(ty) = values.rows.iter().find_map(|row| match &row[column] {
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                cast_target(data_type)
            }
            _ => None,
        }) else {
            continue;
        };
        let Some(wrapper) = wrapper_name(&ty) else {
            continue;
        };
        for row in &mut values.rows {
            let untyped = matches!(&row[column], Expr::Value(value)
                if matches!(value.value, Value::SingleQuotedString(_) | Value::Null));
            // The dimensions of a vector are those of its own row: no row's literal may give them.
            let cast = match &row[column] {
                Expr::Cast { expr, data_type, .. } if ty == SqlType::Vector(None) => {
                    (cast_target(data_type).as_ref() == Some(&ty)).then(|| expr.as_ref().clone())
                }
                _ => None,
            };
            if let Some(operand) = cast.or_else(|| untyped.then(|| row[column].clone())) {
                let modifier = (ty.typmod() >= 0).then(|| ty.typmod());
                row[column] = call(&wrapper, operand, modifier);
            }
        }
    }
}
