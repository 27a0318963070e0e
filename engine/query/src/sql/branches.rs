//! The rows of VALUES and the branches of UNION, INTERSECT and EXCEPT: in each column a string literal or a parameter
//! that nothing types has the type of the others.
//!
//! PostgreSQL's rules for "UNION, CASE, and Related Constructs": the branches of a set operation are taken two by two,
//! so that `SELECT '1' UNION SELECT '2'` is text, whatever comes after it. Called by the AST pass once the outputs have
//! their names. Where a type is not known before planning, all stays as it is.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Query, SelectItem, SetExpr, Value, Values, Visit, Visitor,
};
use sepal_types::{Error, Result, SqlType};

use super::{
    hints::{certain_type, is_untyped, read_as},
    matched::matched,
    params::ParameterTypes,
    rewrite::ColumnTypes,
    signatures::common_type,
};

/// What is known of a column.
enum Shown {
    Typed(SqlType),
    /// A literal, NULL or a parameter, of one branch.
    Untyped,
    Unknown,
}

/// Whether the rows of every VALUES agree, but for those of the query itself, which may be inserted: each of these is
/// assigned by itself. Asked when literals and parameters have the types of the others.
///
/// Errors: 42804 and 42846 for a column of several types.
pub(crate) fn check_values(query: &Query, parameters: &ParameterTypes) -> Result<()> {
    let mut check = Check { parameters, outermost: true };
    match query.visit(&mut check) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Check<'a> {
    parameters: &'a ParameterTypes,
    /// Whether the next query is the statement's.
    outermost: bool,
}

impl Visitor for Check<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let outermost = std::mem::take(&mut self.outermost);
        if outermost && matches!(query.body.as_ref(), SetExpr::Values(_)) {
            return ControlFlow::Continue(());
        }
        self.check(&query.body)
    }
}

impl Check<'_> {
    fn check(&self, body: &SetExpr) -> ControlFlow<Error> {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.check(left)?;
                self.check(right)
            }
            SetExpr::Values(values) => match self.check_columns(values) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
            _ => ControlFlow::Continue(()),
        }
    }

    fn check_columns(&self, values: &Values) -> Result<()> {
        let mut parameters = self.parameters.clone();
        let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
        for column in 0..width {
            let typed = values.rows.iter().map(|row| &row[column]);
            let typed: Vec<&Expr> = typed.filter(|expr| !is_untyped(expr, &parameters)).collect();
            let types = typed.into_iter().map(|expr| certain_type(expr, &mut parameters, &|_: &str| None));
            if let Some(types) = types.collect::<Option<Vec<SqlType>>>() {
                matched("VALUES", &types)?;
            }
        }
        Ok(())
    }
}

/// What is known before planning.
pub(super) struct Branches<'a> {
    pub parameters: &'a mut ParameterTypes,
    pub columns: &'a ColumnTypes<'a>,
}

impl Branches<'_> {
    /// Types what stands in a query's body, but for rows that are inserted: each of theirs is assigned by itself.
    pub fn agree(&mut self, body: &mut SetExpr, inserted: bool) {
        match body {
            SetExpr::SetOperation { .. } => {
                self.set_operation(body);
            }
            SetExpr::Values(values) if !inserted => {
                self.values(values);
            }
            _ => {}
        }
    }

    /// The columns of a set operation, once its branches agree in them; of anything else what is known of them.
    fn set_operation(&mut self, body: &mut SetExpr) -> Vec<Shown> {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                let (shown, others) = (self.set_operation(left), self.set_operation(right));
                let mut columns = Vec::with_capacity(shown.len());
                for (column, both) in shown.into_iter().zip(others).enumerate() {
                    columns.push(match both {
                        (Shown::Typed(ty), Shown::Untyped) => self.give(right, column, ty),
                        (Shown::Untyped, Shown::Typed(ty)) => self.give(left, column, ty),
                        (Shown::Typed(ty), Shown::Typed(other)) => Shown::Typed(common_type(ty, other)),
                        (Shown::Untyped, Shown::Untyped) => Shown::Typed(SqlType::Text),
                        _ => Shown::Unknown,
                    });
                }
                columns
            }
            SetExpr::Select(select) => {
                let width = select.projection.iter().take_while(|item| output(item).is_some()).count();
                let listed = select.projection.iter().filter_map(output).take(width);
                listed.map(|expr| self.shown(expr)).collect()
            }
            SetExpr::Query(query) => self.set_operation(&mut query.body),
            SetExpr::Values(values) => self.values(values),
            _ => Vec::new(),
        }
    }

    /// The columns of VALUES, once its rows agree in them.
    fn values(&mut self, values: &mut Values) -> Vec<Shown> {
        let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
        let mut columns = Vec::with_capacity(width);
        for column in 0..width {
            let mut of_rows = values.rows.iter().map(|row| self.shown(&row[column]));
            let first = of_rows.next().unwrap_or(Shown::Unknown);
            let common = of_rows.fold(first, |one, other| match (one, other) {
                (Shown::Typed(ty), Shown::Typed(other)) => Shown::Typed(common_type(ty, other)),
                (ty @ Shown::Typed(_), Shown::Untyped) | (Shown::Untyped, ty @ Shown::Typed(_)) => ty,
                (Shown::Untyped, Shown::Untyped) => Shown::Untyped,
                _ => Shown::Unknown,
            });
            if let Shown::Typed(ty) = &common {
                values.rows.iter_mut().for_each(|row| read_as(&mut row[column], ty, self.parameters));
            }
            if let Shown::Unknown = &common {
                self.cast_alike(values, column);
            }
            // PostgreSQL settles that before it looks at what stands around (`transformValuesClause`).
            columns.push(if let Shown::Untyped = common { Shown::Typed(SqlType::Text) } else { common });
        }
        columns
    }

    /// Beside a cast to a type that is known by its name alone, as an enum is, what nothing types is cast to that one.
    fn cast_alike(&self, values: &mut Values, column: usize) {
        let Some(target) = values.rows.iter().find_map(|row| named_type(&row[column])).cloned() else {
            return;
        };
        for row in &mut values.rows {
            let expr = &mut row[column];
            if is_untyped(expr, self.parameters) {
                let inner = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(inner),
                    data_type: target.clone(),
                    array: false,
                    format: None,
                };
            }
        }
    }

    fn shown(&mut self, expr: &Expr) -> Shown {
        if is_untyped(expr, self.parameters) {
            return Shown::Untyped;
        }
        certain_type(expr, self.parameters, self.columns).map_or(Shown::Unknown, Shown::Typed)
    }

    /// Types an untyped column of one branch.
    fn give(&mut self, body: &mut SetExpr, column: usize, ty: SqlType) -> Shown {
        match body {
            SetExpr::Select(select) => {
                if let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
                    select.projection.get_mut(column)
                {
                    read_as(expr, &ty, self.parameters);
                }
            }
            SetExpr::Query(query) => return self.give(&mut query.body, column, ty),
            _ => {}
        }
        Shown::Typed(ty)
    }
}

fn named_type(expr: &Expr) -> Option<&DataType> {
    match expr {
        Expr::Nested(inner) => named_type(inner),
        Expr::Cast { data_type: named @ DataType::Custom(..), .. } => Some(named),
        _ => None,
    }
}

/// What an item of a select list shows; `None` for a wildcard, which is as many columns as there are.
fn output(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    fn agreed(sql: &str, inserted: bool) -> (String, ParameterTypes) {
        let parser = Parser::new(&Postgres).try_with_sql(sql);
        let mut query = parser.and_then(|mut parser| parser.parse_query()).expect("a valid query");
        let mut parameters = ParameterTypes::default();
        let columns = |name: &str| (name == "id").then_some(SqlType::Int8);
        Branches { parameters: &mut parameters, columns: &columns }.agree(&mut query.body, inserted);
        (query.to_string(), parameters)
    }

    #[test]
    fn literals_have_the_type_of_the_other_rows_and_branches() {
        for (sql, expected) in [
            ("VALUES (1, 'a'), ('2', 'b')", "VALUES (1, 'a'), (sepal_cast_int4('2'), 'b')"),
            ("VALUES ('2'), (NULL), (true)", "VALUES (sepal_cast_bool('2')), (NULL), (true)"),
            (
                "VALUES ('a'::mood), ('b'), (NULL)",
                "VALUES ('a'::mood), (CAST('b' AS mood)), (CAST(NULL AS mood))",
            ),
            ("SELECT '1' UNION SELECT id", "SELECT sepal_cast_int8('1') UNION SELECT id"),
            (
                "SELECT id UNION ALL (SELECT '2' LIMIT 1) UNION ALL SELECT '3'",
                "SELECT id UNION ALL (SELECT sepal_cast_int8('2') LIMIT 1) UNION ALL SELECT sepal_cast_int8('3')",
            ),
            // The first two are text, and so are lone VALUES.
            ("SELECT id UNION VALUES ('3')", "SELECT id UNION VALUES ('3')"),
            ("SELECT '1' UNION SELECT '2' UNION SELECT 3", "SELECT '1' UNION SELECT '2' UNION SELECT 3"),
            ("SELECT * UNION SELECT '2'", "SELECT * UNION SELECT '2'"),
            ("SELECT x UNION SELECT '2'", "SELECT x UNION SELECT '2'"),
        ] {
            assert_eq!(agreed(sql, false).0, expected);
        }
        assert_eq!(agreed("VALUES (1), ('x')", true).0, "VALUES (1), ('x')");
    }

    #[test]
    fn rows_of_values_have_one_type_unless_they_are_inserted() {
        let checked = |sql: &str| {
            let parser = Parser::new(&Postgres).try_with_sql(sql);
            let query = parser.and_then(|mut parser| parser.parse_query()).expect("a valid query");
            check_values(&query, &ParameterTypes::default()).map_err(|error| error.message().to_owned())
        };
        let refused = Err("VALUES types integer and boolean cannot be matched".to_owned());
        assert_eq!(checked("VALUES (1), (true)"), Ok(()));
        assert_eq!(checked("SELECT * FROM (VALUES (1), (true)) v"), refused);
        assert_eq!(checked("SELECT 1 UNION VALUES (1), (true)"), refused);
        assert_eq!(checked("WITH v AS (VALUES (1, 2), (3, true)) SELECT * FROM v"), refused);
        assert_eq!(checked("SELECT * FROM (VALUES (1), ('2'), (2.5), (NULL), ($1)) v"), Ok(()));
        assert_eq!(checked("SELECT * FROM (VALUES (1), (unknown(true))) v"), Ok(()));
    }

    #[test]
    fn parameters_have_the_type_of_the_other_rows_and_branches() {
        for (sql, expected) in [
            ("VALUES ($1), (2.5)", Some(SqlType::Numeric(None))),
            ("SELECT $1 EXCEPT SELECT id", Some(SqlType::Int8)),
            ("SELECT $1 UNION SELECT 'a'", None),
        ] {
            assert_eq!(agreed(sql, false).1.get(1).cloned(), expected, "{sql}");
        }
    }
}
