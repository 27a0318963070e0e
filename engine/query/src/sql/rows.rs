//! VALUES lists: an untyped literal has the type of its column.
//!
//! Called by the AST pass. The column's type is that of the table's column that is inserted into, or of a cast
//! in another row.

use datafusion::sql::sqlparser::ast::{self, Expr, SetExpr, TypedString, Value};
use sepal_types::SqlType;

use super::{
    literals::{self, fold_sign, quoted_number},
    params::ParameterTypes,
    rewrite::{call, call_of, cast_target, placeholder, wrapper_name},
};

/// A literal in VALUES is read as its column's type: `'x'` for an integer column is an integer's error, and
/// rows that mix `1` and `1e308` do not end up in a decimal.
pub fn type_values(body: &mut SetExpr, targets: &[SqlType], parameters: &ParameterTypes) {
    let SetExpr::Values(values) = body else {
        return;
    };
    for row in &mut values.rows {
        for (expr, target) in row.iter_mut().zip(targets) {
            fold_sign(expr);
            if let Expr::Value(value) = &*expr
                && matches!(value.value, Value::SingleQuotedString(_) | Value::Null)
                && target.enum_type().is_some()
            {
                *expr = read_enum(expr.clone(), target);
            }
            let Some(wrapper) = wrapper_name(target) else {
                continue;
            };
            let Expr::Value(value) = &*expr else {
                continue;
            };
            let text_like = target.is_text() && *target != SqlType::Char;
            let wrap = match &value.value {
                Value::SingleQuotedString(_) => !text_like,
                Value::Number(..) => {
                    matches!(target, SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_))
                }
                Value::Null => {
                    matches!(
                        target,
                        SqlType::Json
                            | SqlType::Jsonb
                            | SqlType::Name
                            | SqlType::Oid
                            | SqlType::TsQuery
                            | SqlType::TsVector
                    )
                }
                _ => false,
            };
            if wrap {
                *expr = call(&wrapper, quoted_number(expr, target).unwrap_or_else(|| expr.clone()), None);
            }
        }
    }
    for (column, target) in targets.iter().enumerate() {
        mark_column(values, column, target, parameters);
    }
}

/// DataFusion wants the rows of a column to agree in their fields' metadata, where [`is_marked`] types have their
/// names: a parameter has it until its value is put in, a bare literal never does. A call of the type's cast always
/// has it. The cast is without a length: one that does not fit is refused by the assignment, not cut.
fn mark_column(values: &mut ast::Values, column: usize, target: &SqlType, parameters: &ParameterTypes) {
    if values.rows.len() < 2 || !is_marked(target) || values.rows.iter().any(|row| row.len() <= column) {
        return;
    }
    let parameter = |expr: &Expr| placeholder(expr).map(|number| parameters.get(number).cloned());
    let first = parameter(&values.rows[0][column]);
    let alike = first.is_some() && values.rows.iter().all(|row| parameter(&row[column]) == first);
    let is_literal = |expr: &Expr| matches!(expr, Expr::Value(_)) && placeholder(expr).is_none();
    if alike || values.rows.iter().all(|row| is_literal(&row[column])) {
        return;
    }
    if target.enum_type().is_some() {
        // Literals are read already.
        for row in &mut values.rows {
            let expr = &mut row[column];
            if placeholder(expr).is_some() {
                *expr = read_enum(expr.clone(), target);
            }
        }
        return;
    }
    let Some(wrapper) = wrapper_name(target) else {
        return;
    };
    for row in &mut values.rows {
        let expr = &mut row[column];
        let bare = matches!(expr, Expr::Value(_)) || placeholder(expr).is_some();
        if bare || matches!(target, SqlType::Bpchar(_) | SqlType::SparseVec(_) | SqlType::Varchar(_)) {
            *expr = call(&wrapper, expr.clone(), None);
        }
    }
}

/// As [`crate::functions::enum_call`] has it.
fn read_enum(expr: Expr, ty: &SqlType) -> Expr {
    call_of("sepal_enum", vec![expr, literals::text(ty.marker())])
}

/// Types that Arrow has not: a field's metadata names them.
fn is_marked(ty: &SqlType) -> bool {
    matches!(ty, SqlType::Array(element) if is_marked(element))
        || matches!(
            ty,
            SqlType::Bpchar(_)
                | SqlType::Json
                | SqlType::Jsonb
                | SqlType::SparseVec(Some(_))
                | SqlType::Varchar(_)
                | SqlType::Name
                | SqlType::Oid
                | SqlType::Char
                | SqlType::TsQuery
                | SqlType::TsVector
                | SqlType::Enum(_)
        )
}

/// In `VALUES ('2024-01-01'::date), ('2024-02-01'), (NULL)` the cast types the whole column.
pub fn type_untyped(values: &mut ast::Values) {
    let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let several = values.rows.len() > 1;
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
                Expr::Cast { expr, data_type, .. }
                    if ty.vector_kind().is_some() && ty.dimensions().is_none() =>
                {
                    (cast_target(data_type).as_ref() == Some(&ty)).then(|| expr.as_ref().clone())
                }
                // The cast of a parameter vanishes, and the type's name with it once the value is put in.
                cast @ Expr::Cast { expr, data_type, .. }
                    if several && is_marked(&ty) && placeholder(expr).is_some() =>
                {
                    (cast_target(data_type).as_ref() == Some(&ty)).then(|| cast.clone())
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

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    fn typed(sql: &str, target: &SqlType) -> String {
        let parser = Parser::new(&Postgres).try_with_sql(sql);
        let mut query = parser.and_then(|mut parser| parser.parse_query()).expect("a valid query");
        let mut parameters = ParameterTypes::default();
        for number in 1..=2 {
            parameters.hint(number, target);
        }
        type_values(query.body.as_mut(), std::slice::from_ref(target), &parameters);
        query.to_string()
    }

    #[test]
    fn parameters_beside_other_rows_are_casts_as_those_are() {
        assert_eq!(
            typed("VALUES ($1), (NULL), ('{}')", &SqlType::Jsonb),
            "VALUES (sepal_cast_jsonb($1)), (sepal_cast_jsonb(NULL)), (sepal_cast_jsonb('{}'))"
        );
        assert_eq!(
            typed("VALUES ($1), ('a')", &SqlType::Varchar(Some(5))),
            "VALUES (sepal_cast_varchar($1)), (sepal_cast_varchar('a'))"
        );
        let unchanged = "VALUES ($1), ($2)";
        assert_eq!(typed(unchanged, &SqlType::Jsonb), unchanged);
        let unchanged = "VALUES ('a'), (NULL)";
        assert_eq!(typed(unchanged, &SqlType::Varchar(Some(5))), unchanged);
    }
}
