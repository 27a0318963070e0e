//! VALUES with vectors: one type for all rows of a column.
//!
//! Called by the AST pass for every VALUES. A vector's dimensions are part of its Arrow type, and a literal beside
//! it is a text to DataFusion: `VALUES ('[1,2]'::vector), ('[3]')` would have no common type.

use datafusion::sql::sqlparser::ast::{Expr, TypedString, Value, Values};
use sepal_types::{SqlType, VectorKind};

use super::rewrite::call;

/// Makes every value of a column that holds a cast to `vector` or `halfvec` one of any dimensions.
pub(super) fn unify_columns(values: &mut Values) {
    if values.rows.len() < 2 {
        return;
    }
    let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
    for column in 0..width {
        let kinds = values.rows.iter().filter_map(|row| cast_to(&row[column]));
        let function = match kinds.reduce(VectorKind::beside) {
            Some(VectorKind::Half) => "sepal_halfvec",
            Some(VectorKind::Single) => "sepal_vector",
            None => continue,
        };
        for row in &mut values.rows {
            if let Some(expr) = row.get_mut(column).filter(|expr| !stays(expr)) {
                *expr = call(function, expr.clone(), None);
            }
        }
    }
}

/// The vectors that a cast makes.
fn cast_to(expr: &Expr) -> Option<VectorKind> {
    match expr {
        Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
            SqlType::from_name(&data_type.to_string())?.vector_kind()
        }
        Expr::Nested(inner) => cast_to(inner),
        _ => None,
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
