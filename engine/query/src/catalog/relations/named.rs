//! What the session knows by a name: `pg_prepared_statements` and `pg_cursors`.
//!
//! Types are shown by their names, as `regtype` prints them.

use sepal_types::SqlType;

use super::super::CatalogContext;
use super::super::shape::{Relation, Rows};
use super::super::value::Value;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_cursors",
        12_105,
        "name text, statement text, is_holdable boolean, is_binary boolean, is_scrollable boolean, \
         creation_time timestamp with time zone",
        cursors,
    ),
    Relation::catalog(
        "pg_prepared_statements",
        12_106,
        "name text, statement text, prepare_time timestamp with time zone, parameter_types text[], \
         result_types text[], from_sql boolean, generic_plans bigint, custom_plans bigint",
        statements,
    ),
];

fn cursors(context: &CatalogContext, rows: &mut Rows) {
    for cursor in &context.named.cursors {
        rows.push([
            ("name", cursor.name.as_str().into()),
            ("statement", cursor.statement.as_str().into()),
            ("is_holdable", cursor.hold.into()),
            ("is_binary", cursor.binary.into()),
            ("is_scrollable", cursor.scroll.into()),
            ("creation_time", Value::Time(cursor.declared_us)),
        ]);
    }
}

fn statements(context: &CatalogContext, rows: &mut Rows) {
    let names = |types: &[SqlType]| Value::list(types.iter().map(SqlType::display_name));
    for statement in &context.named.statements {
        rows.push([
            ("name", statement.name.as_str().into()),
            ("statement", statement.statement.as_str().into()),
            ("prepare_time", Value::Time(statement.prepared_us)),
            ("parameter_types", names(&statement.parameters)),
            ("result_types", statement.results.as_deref().map_or(Value::Null, names)),
            ("from_sql", statement.from_sql.into()),
            ("generic_plans", 0_i32.into()),
            ("custom_plans", 0_i32.into()),
        ]);
    }
}
