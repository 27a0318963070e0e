//! `pg_attribute` and `pg_attrdef`: the columns of tables and indexes, and their defaults.
//!
//! System columns (negative `attnum`) are left out: clients filter them away.

use sepal_types::{ColumnDef, Generated, KeySource, SqlType, TableDef};

use super::super::CatalogContext;
use super::super::definitions::{column_default, generation, identity};
use super::super::objects::{
    Index, attribute_number, generated_oid, indexes, sequence_oid, type_and_modifier,
};
use super::super::shape::{Relation, Rows};
use super::super::value::Value;
use super::types::{alignment, by_value, collation, storage};

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_attribute",
        1249,
        "attrelid oid, attname name, atttypid oid, attstattarget integer, attlen smallint, attnum \
         smallint, attndims integer, attcacheoff integer, atttypmod integer, attbyval boolean, \
         attalign char, attstorage char, attcompression char, attnotnull boolean, atthasdef \
         boolean, atthasmissing boolean, attidentity char, attgenerated char, attisdropped \
         boolean, attislocal boolean, attinhcount integer, attcollation oid, attacl text[], \
         attoptions text[], attfdwoptions text[], attmissingval text",
        attributes,
    ),
    Relation::catalog("pg_attrdef", 2604, "oid oid, adrelid oid, adnum smallint, adbin text", defaults),
];

fn attributes(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in &table.def.columns {
            let number = attribute_number(&table.def, column.id);
            push(rows, table.def.id.0, number, &column.name, &column.ty, Some((&table.def, column)));
        }
        for index in indexes(&table.def) {
            index_attributes(&table.def, index, rows);
        }
    }
    for (table, column, _) in context.sequences() {
        let oid = sequence_oid(table, column);
        push(rows, oid, 1, "last_value", &SqlType::Int8, None);
        push(rows, oid, 2, "log_cnt", &SqlType::Int8, None);
        push(rows, oid, 3, "is_called", &SqlType::Bool, None);
    }
}

fn index_attributes(table: &TableDef, index: Index<'_>, rows: &mut Rows) {
    let keys = index.keys();
    let included = index.included().iter().map(|column| KeySource::Column(*column));
    for (number, source) in (1_i16..).zip(keys.iter().map(|key| key.of.clone()).chain(included)) {
        match &source {
            KeySource::Column(id) => {
                let Some(column) = table.column_by_id(*id) else { continue };
                push(rows, index.oid(), number, &column.name, &column.ty, None);
            }
            KeySource::Expression { name, ty, .. } => push(rows, index.oid(), number, name, ty, None),
        }
    }
}

/// One attribute; `of_table` is given for a table's own column, which may have a default, an identity, an expression.
fn push(
    rows: &mut Rows,
    relation: u32,
    number: i16,
    name: &str,
    ty: &SqlType,
    of_table: Option<(&TableDef, &ColumnDef)>,
) {
    let (oid, modifier) = type_and_modifier(ty);
    let has_default = of_table.is_some_and(|(_, column)| match column.generated {
        Some(generated) => matches!(generated, Generated::Serial | Generated::Stored),
        None => column.default.is_some(),
    });
    rows.push([
        ("attrelid", relation.into()),
        ("attname", name.into()),
        ("atttypid", oid.into()),
        ("attstattarget", Value::Null),
        ("attlen", ty.length_bytes().into()),
        ("attnum", number.into()),
        ("attndims", i32::from(matches!(ty, SqlType::Array(_))).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", modifier.into()),
        ("attbyval", by_value(ty).into()),
        ("attalign", alignment(ty).into()),
        ("attstorage", storage(ty).into()),
        ("attnotnull", of_table.is_some_and(|(_, column)| column.not_null).into()),
        ("atthasdef", has_default.into()),
        ("attidentity", of_table.map_or("", |(_, column)| identity(column)).into()),
        ("attgenerated", of_table.map_or("", |(_, column)| generation(column)).into()),
        ("attislocal", true.into()),
        ("attcollation", collation(ty).into()),
    ]);
}

fn defaults(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in &table.def.columns {
            let Some(default) = column_default(context, &table.def, column) else { continue };
            rows.push([
                ("oid", generated_oid(&table.def, column.id).into()),
                ("adrelid", table.def.id.0.into()),
                ("adnum", attribute_number(&table.def, column.id).into()),
                ("adbin", default.into()),
            ]);
        }
    }
}
