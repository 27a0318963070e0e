//! VALUES with vectors: one type for all rows of a column.
//!
//! Called by the AST pass for every VALUES. A vector's dimensions are part of its Arrow type, and a literal beside
//! it is a text to DataFusion: `VALUES ('[1,2]'::vector), ('[3]')` would have no common type.

use datafusion::sql::sqlparser::ast::{Expr, TypedString, Value, Values};
use sepal_types::SqlType;

use super::rewrite::call;

/// Makes every value of a column that holds a cast to `vector` a vector of any dimensions.
pub(super) fn unify_columns(values: &mut Values) {
    if values.rows.len() < 2 {
        return;
    }
    let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
    for column in 0..width {
        if !values.rows.iter().any(|row| is_vector(&row[column])) {
            continue;
        }
        for row in &mut values.rows {
            if let Some(expr) = row.get_mut(column).filter(|expr| !stays(expr)) {
                *expr = call("sepal_vector", expr.clone(), None);
            }
        }
    }
}

fn is_vector(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
            matches!(SqlType::from_name(&data_type.to_string()), Some(SqlType::Vector(_)))
        }
        Expr::Nested(inner) => is_vector(inner),
        _ => false,
    }
}

/// NULL has every type already; the one identifier that VALUES may hold is DEFAULT.
fn stays(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Null),
        Expr::Identifier(_) => true,
        _ => false,
    }
}
