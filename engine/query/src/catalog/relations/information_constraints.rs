//! What CHECK and FOREIGN KEY add to the views of constraints in `information_schema`.

use sepal_types::{ColumnId, ForeignKeyDef};

use super::super::CatalogContext;
use super::super::constraints::{Constraint, constraints};
use super::super::shape::Rows;
use super::super::value::Value;

/// `key_column_usage`
pub(super) fn key_columns(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for key in &table.def.constraints.foreign_keys {
            let unique = parent_key(context, key);
            for (place, (column, referred)) in (1_i32..).zip(key.columns.iter().zip(&key.parent_columns)) {
                let Some(column) = table.def.column_by_id(*column) else { continue };
                let within = unique.as_ref().and_then(|(columns, _)| {
                    let place = columns.iter().position(|id| id == referred)?;
                    i64::try_from(place + 1).ok()
                });
                rows.push([
                    ("constraint_catalog", context.environment.as_str().into()),
                    ("constraint_schema", table.def.schema.as_str().into()),
                    ("constraint_name", key.name.as_str().into()),
                    ("table_catalog", context.environment.as_str().into()),
                    ("table_schema", table.def.schema.as_str().into()),
                    ("table_name", table.def.name.as_str().into()),
                    ("column_name", column.name.as_str().into()),
                    ("ordinal_position", place.into()),
                    ("position_in_unique_constraint", within.into()),
                ]);
            }
        }
    }
}

/// The columns of the key that is referred to, and the name of its constraint, if it is one.
fn parent_key(context: &CatalogContext, key: &ForeignKeyDef) -> Option<(Vec<ColumnId>, Option<String>)> {
    let parent = context.table(i64::from(key.parent.0))?;
    let unique = parent.def.uniques.iter().find(|unique| unique.id == key.key)?;
    Some((unique.columns.clone(), unique.is_constraint().then(|| unique.name.clone())))
}

/// `table_constraints`
pub(super) fn table_constraints(context: &CatalogContext, rows: &mut Rows) {
    let yes = |yes: bool| Value::from(if yes { "YES" } else { "NO" });
    for table in context.tables() {
        for constraint in constraints(&table.def) {
            let (kind, deferrable, deferred) = match constraint {
                Constraint::Check(_) => ("CHECK", false, false),
                Constraint::Foreign(key) => ("FOREIGN KEY", key.deferrable, key.initially_deferred),
            };
            rows.push([
                ("constraint_catalog", context.environment.as_str().into()),
                ("constraint_schema", table.def.schema.as_str().into()),
                ("constraint_name", constraint.name().into()),
                ("table_catalog", context.environment.as_str().into()),
                ("table_schema", table.def.schema.as_str().into()),
                ("table_name", table.def.name.as_str().into()),
                ("constraint_type", kind.into()),
                ("is_deferrable", yes(deferrable)),
                ("initially_deferred", yes(deferred)),
                ("enforced", "YES".into()),
            ]);
        }
    }
}

/// `check_constraints`
pub(super) fn check_constraints(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for check in &table.def.constraints.checks {
            rows.push([
                ("constraint_catalog", context.environment.as_str().into()),
                ("constraint_schema", table.def.schema.as_str().into()),
                ("constraint_name", check.name.as_str().into()),
                ("check_clause", format!("({})", check.shown).into()),
            ]);
        }
    }
}

/// `referential_constraints`
pub(super) fn referential_constraints(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for key in &table.def.constraints.foreign_keys {
            let unique = parent_key(context, key).and_then(|(_, name)| name);
            let parent = unique.as_ref().and_then(|_| context.table(i64::from(key.parent.0)));
            let (catalog, schema) = match parent {
                Some(parent) => (context.environment.as_str().into(), parent.def.schema.as_str().into()),
                None => (Value::Null, Value::Null),
            };
            rows.push([
                ("constraint_catalog", context.environment.as_str().into()),
                ("constraint_schema", table.def.schema.as_str().into()),
                ("constraint_name", key.name.as_str().into()),
                ("unique_constraint_catalog", catalog),
                ("unique_constraint_schema", schema),
                ("unique_constraint_name", unique.into()),
                ("match_option", if key.full { "FULL" } else { "NONE" }.into()),
                ("update_rule", key.on_update.sql().into()),
                ("delete_rule", key.on_delete.sql().into()),
            ]);
        }
    }
}

/// `constraint_column_usage`: of a foreign key the columns that are referred to.
pub(super) fn constraint_columns(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for constraint in constraints(&table.def) {
            let (of, columns) = match constraint {
                Constraint::Check(check) => (table.def.as_ref(), check.columns.as_slice()),
                Constraint::Foreign(key) => match context.table(i64::from(key.parent.0)) {
                    Some(parent) => (parent.def.as_ref(), key.parent_columns.as_slice()),
                    None => continue,
                },
            };
            for column in columns.iter().filter_map(|id| of.column_by_id(*id)) {
                rows.push([
                    ("table_catalog", context.environment.as_str().into()),
                    ("table_schema", of.schema.as_str().into()),
                    ("table_name", of.name.as_str().into()),
                    ("column_name", column.name.as_str().into()),
                    ("constraint_catalog", context.environment.as_str().into()),
                    ("constraint_schema", table.def.schema.as_str().into()),
                    ("constraint_name", constraint.name().into()),
                ]);
            }
        }
    }
}

/// `constraint_table_usage`: the tables that foreign keys refer to.
pub(super) fn constraint_tables(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for key in &table.def.constraints.foreign_keys {
            let Some(parent) = context.table(i64::from(key.parent.0)) else { continue };
            rows.push([
                ("table_catalog", context.environment.as_str().into()),
                ("table_schema", parent.def.schema.as_str().into()),
                ("table_name", parent.def.name.as_str().into()),
                ("constraint_catalog", context.environment.as_str().into()),
                ("constraint_schema", table.def.schema.as_str().into()),
                ("constraint_name", key.name.as_str().into()),
            ]);
        }
    }
}
