//! `pg_constraint` and `pg_depend`: constraints of tables, and which sequence a column owns.

use sepal_types::limits::PUBLIC_NAMESPACE_OID;
use sepal_types::{CheckDef, ForeignKeyDef, TableDef, VectorKind};

use super::super::CatalogContext;
use super::super::constraints::{Constraint, constraints as constraints_of};
use super::super::objects::{attribute_number, generated_oid, indexes, sequence_columns, sequence_oid};
use super::super::shape::{Relation, Rows, no_rows};
use super::super::value::Value;
use super::cluster::EXTENSION_OID;
use super::index::VECTOR_METHODS;
use super::routine::{operators, procedures};
use crate::ddl::sequence_call;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_constraint",
        2606,
        "oid oid, conname name, connamespace oid, contype char, condeferrable boolean, condeferred \
         boolean, convalidated boolean, conrelid oid, contypid oid, conindid oid, conparentid oid, \
         confrelid oid, confupdtype char, confdeltype char, confmatchtype char, conislocal \
         boolean, coninhcount integer, connoinherit boolean, conkey smallint[], confkey smallint[], \
         conpfeqop oid[], conppeqop oid[], conffeqop oid[], confdelsetcols smallint[], conexclop \
         oid[], conbin text",
        constraints,
    ),
    Relation::catalog(
        "pg_depend",
        2608,
        "classid oid, objid oid, objsubid integer, refclassid oid, refobjid oid, refobjsubid integer, \
         deptype char",
        dependencies,
    ),
    Relation::catalog(
        "pg_inherits",
        2611,
        "inhrelid oid, inhparent oid, inhseqno integer, inhdetachpending boolean",
        no_rows,
    ),
];

/// `pg_class`, `pg_attrdef`, `pg_constraint`, `pg_extension`, `pg_type`, `pg_proc`, `pg_operator`, `pg_am` as
/// `classid`.
const CLASS: u32 = 1259;
const ATTRDEF: u32 = 2604;
const CONSTRAINT: u32 = 2606;
const EXTENSION: u32 = 3079;
const TYPE: u32 = 1247;
const PROC: u32 = 1255;
const OPERATOR: u32 = 2617;
const ACCESS_METHOD: u32 = 2601;

fn constraints(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for unique in table.def.uniques.iter().filter(|unique| unique.is_constraint()) {
            let keys = unique.columns.iter().map(|column| attribute_number(&table.def, *column));
            rows.push([
                ("oid", unique.id.0.into()),
                ("conname", unique.name.as_str().into()),
                ("connamespace", context.namespace_of(&table.def.schema).into()),
                ("contype", if unique.primary { "p" } else { "u" }.into()),
                ("convalidated", true.into()),
                ("conrelid", table.def.id.0.into()),
                ("conindid", unique.id.0.into()),
                ("confupdtype", " ".into()),
                ("confdeltype", " ".into()),
                ("confmatchtype", " ".into()),
                ("conislocal", true.into()),
                ("connoinherit", true.into()),
                ("conkey", Value::list(keys)),
            ]);
        }
        for constraint in constraints_of(&table.def) {
            match constraint {
                Constraint::Check(check) => push_check(context, &table.def, check, rows),
                Constraint::Foreign(key) => push_foreign(context, &table.def, key, rows),
            }
        }
    }
}

fn push_check(context: &CatalogContext, table: &TableDef, check: &CheckDef, rows: &mut Rows) {
    let keys = check.columns.iter().map(|column| attribute_number(table, *column));
    rows.push([
        ("oid", check.id.0.into()),
        ("conname", check.name.as_str().into()),
        ("connamespace", context.namespace_of(&table.schema).into()),
        ("contype", "c".into()),
        ("convalidated", (!check.not_valid).into()),
        ("conrelid", table.id.0.into()),
        ("confupdtype", " ".into()),
        ("confdeltype", " ".into()),
        ("confmatchtype", " ".into()),
        ("conislocal", true.into()),
        ("conkey", Value::list(keys)),
        ("conbin", check.shown.as_str().into()),
    ]);
}

fn push_foreign(context: &CatalogContext, table: &TableDef, key: &ForeignKeyDef, rows: &mut Rows) {
    let keys = key.columns.iter().map(|column| attribute_number(table, *column));
    let parent = context.table(i64::from(key.parent.0));
    let referred = parent.map_or(Value::Null, |parent| {
        Value::list(key.parent_columns.iter().map(|column| attribute_number(&parent.def, *column)))
    });
    rows.push([
        ("oid", key.id.0.into()),
        ("conname", key.name.as_str().into()),
        ("connamespace", context.namespace_of(&table.schema).into()),
        ("contype", "f".into()),
        ("condeferrable", key.deferrable.into()),
        ("condeferred", key.initially_deferred.into()),
        ("convalidated", (!key.not_valid).into()),
        ("conrelid", table.id.0.into()),
        ("conindid", key.key.0.into()),
        ("confrelid", key.parent.0.into()),
        ("confupdtype", key.on_update.letter().into()),
        ("confdeltype", key.on_delete.letter().into()),
        ("confmatchtype", if key.full { "f" } else { "s" }.into()),
        ("conislocal", true.into()),
        ("connoinherit", true.into()),
        ("conkey", Value::list(keys)),
        ("confkey", referred),
    ]);
}

fn dependencies(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        let id = table.def.id.0;
        for column in sequence_columns(&table.def) {
            let generated = generated_oid(&table.def, column.id);
            let number = i32::from(attribute_number(&table.def, column.id));
            let identity = column.generated != Some(sepal_types::Generated::Serial);
            let kind = if identity { "i" } else { "a" };
            push(rows, (CLASS, generated, 0), (CLASS, id, number), kind);
            if !identity {
                push(rows, (ATTRDEF, generated, 0), (CLASS, id, number), "a");
                push(rows, (ATTRDEF, generated, 0), (CLASS, generated, 0), "n");
            }
        }
        for index in indexes(&table.def) {
            let on_constraint = index.is_constraint();
            if on_constraint {
                push(rows, (CLASS, index.oid(), 0), (CONSTRAINT, index.oid(), 0), "i");
            }
            for column in index.columns().iter().chain(index.included()) {
                let number = i32::from(attribute_number(&table.def, *column));
                let dependent = if on_constraint { CONSTRAINT } else { CLASS };
                push(rows, (dependent, index.oid(), 0), (CLASS, id, number), "a");
            }
        }
    }
    foreign_key_dependencies(context, rows);
    for (table, column, sequence) in context.sequences() {
        if !table.is_sequence() {
            continue;
        }
        let oid = sequence_oid(table, column);
        if let Some((of, at)) = sequence.owner
            && let Some(of) = context.table(i64::from(of.0))
        {
            let number = i32::from(attribute_number(&of.def, at));
            push(rows, (CLASS, oid, 0), (CLASS, of.def.id.0, number), "a");
        }
        default_dependencies(context, table, oid, rows);
    }
    extension_members(rows);
}

/// CHECKs go with their columns; foreign keys with their own columns, and need those that they refer to and the index.
fn foreign_key_dependencies(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        let id = table.def.id.0;
        for check in &table.def.constraints.checks {
            for column in &check.columns {
                let number = i32::from(attribute_number(&table.def, *column));
                push(rows, (CONSTRAINT, check.id.0, 0), (CLASS, id, number), "a");
            }
        }
        for key in &table.def.constraints.foreign_keys {
            for column in &key.columns {
                let number = i32::from(attribute_number(&table.def, *column));
                push(rows, (CONSTRAINT, key.id.0, 0), (CLASS, id, number), "a");
            }
            let Some(parent) = context.table(i64::from(key.parent.0)) else { continue };
            for column in &key.parent_columns {
                let number = i32::from(attribute_number(&parent.def, *column));
                push(rows, (CONSTRAINT, key.id.0, 0), (CLASS, parent.def.id.0, number), "n");
            }
            push(rows, (CONSTRAINT, key.id.0, 0), (CLASS, key.key.0, 0), "n");
        }
    }
}

/// The defaults that call a sequence of its own.
fn default_dependencies(context: &CatalogContext, of: &TableDef, sequence: u32, rows: &mut Rows) {
    let call = sequence_call(&of.schema, &of.name);
    for table in context.tables() {
        for column in &table.def.columns {
            if column.default.as_ref().is_some_and(|text| text.contains(&call)) {
                let default = generated_oid(&table.def, column.id);
                let number = i32::from(attribute_number(&table.def, column.id));
                push(rows, (ATTRDEF, default, 0), (CLASS, table.def.id.0, number), "a");
                push(rows, (ATTRDEF, default, 0), (CLASS, sequence, 0), "n");
            }
        }
    }
}

/// What `CREATE EXTENSION vector` brought.
fn extension_members(rows: &mut Rows) {
    let extension = (EXTENSION, EXTENSION_OID, 0);
    for kind in [VectorKind::Single, VectorKind::Half] {
        push(rows, (TYPE, kind.sql_type(None).oid(), 0), extension, "e");
    }
    for procedure in procedures().iter().filter(|procedure| procedure.namespace == PUBLIC_NAMESPACE_OID) {
        push(rows, (PROC, procedure.oid, 0), extension, "e");
    }
    for operator in operators() {
        push(rows, (OPERATOR, operator.oid, 0), extension, "e");
    }
    for method in VECTOR_METHODS {
        push(rows, (ACCESS_METHOD, method, 0), extension, "e");
    }
}

fn push(rows: &mut Rows, dependent: (u32, u32, i32), referenced: (u32, u32, i32), kind: &'static str) {
    rows.push([
        ("classid", dependent.0.into()),
        ("objid", dependent.1.into()),
        ("objsubid", dependent.2.into()),
        ("refclassid", referenced.0.into()),
        ("refobjid", referenced.1.into()),
        ("refobjsubid", referenced.2.into()),
        ("deptype", kind.into()),
    ]);
}
