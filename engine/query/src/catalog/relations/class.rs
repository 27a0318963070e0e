//! `pg_class` and the views over it: `pg_tables`, `pg_indexes`, and the empty `pg_views`, `pg_matviews`.

use sepal_storage::TableVersion;
use sepal_types::TableDef;

use super::super::CatalogContext;
use super::super::definitions::{index_definition, index_options};
use super::super::names::name_list;
use super::super::objects::{Index, OWNER_OID, Object, indexes};
use super::super::shape::{Relation, Rows, no_rows};
use super::super::value::Value;
use super::index::access_method_oid;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_class",
        1259,
        "oid oid, relname name, relnamespace oid, reltype oid, reloftype oid, relowner oid, relam \
         oid, relfilenode oid, reltablespace oid, relpages integer, reltuples real, relallvisible \
         integer, reltoastrelid oid, relhasindex boolean, relisshared boolean, relpersistence char, \
         relkind char, relnatts smallint, relchecks smallint, relhasrules boolean, relhastriggers \
         boolean, relhassubclass boolean, relrowsecurity boolean, relforcerowsecurity boolean, \
         relispopulated boolean, relreplident char, relispartition boolean, relrewrite oid, \
         relfrozenxid bigint, relminmxid bigint, relacl text[], reloptions text[], relpartbound text",
        classes,
    ),
    Relation::catalog(
        "pg_tables",
        12_000,
        "schemaname name, tablename name, tableowner name, tablespace name, hasindexes boolean, \
         hasrules boolean, hastriggers boolean, rowsecurity boolean",
        tables,
    ),
    Relation::catalog(
        "pg_indexes",
        12_001,
        "schemaname name, tablename name, indexname name, tablespace name, indexdef text",
        pg_indexes,
    ),
    Relation::catalog(
        "pg_views",
        12_002,
        "schemaname name, viewname name, viewowner name, definition text",
        no_rows,
    ),
    Relation::catalog(
        "pg_matviews",
        12_003,
        "schemaname name, matviewname name, matviewowner name, tablespace name, hasindexes boolean, \
         ispopulated boolean, definition text",
        no_rows,
    ),
];

/// Bytes that Postgres counts as one page: sizes in pages are sizes in these.
pub(super) const PAGE_BYTES: u64 = 8_192;
/// `heap`, in `pg_am`.
const HEAP_OID: u32 = 2;

fn classes(context: &CatalogContext, rows: &mut Rows) {
    let referenced = context.referenced();
    // Postgres enforces foreign keys by triggers, and psql asks for foreign keys only where there are some.
    let has_triggers =
        |table: &TableDef| !table.constraints.foreign_keys.is_empty() || referenced.contains(&table.id);
    for object in context.objects() {
        let table = object.table();
        let (access_method, columns, tuples) = match object {
            Object::Table(_) => (HEAP_OID, table.def.columns.len(), live_rows(table)),
            Object::Index(_, index) => {
                let columns = index.keys().len() + index.included().len();
                (access_method_oid(index.access_method()), columns, live_rows(table))
            }
            Object::Sequence(..) => (0, 3, 1.0),
        };
        let options = match object {
            Object::Index(_, index) => reloptions(index),
            Object::Table(_) | Object::Sequence(..) => Value::Null,
        };
        let is_table = matches!(object, Object::Table(_));
        let bytes = (context.table_bytes)(sepal_types::TableId(object.oid()));
        rows.push([
            ("oid", object.oid().into()),
            ("relname", object.name().into()),
            ("relnamespace", context.namespace_of(&table.def.schema).into()),
            ("relowner", OWNER_OID.into()),
            ("relam", access_method.into()),
            ("relfilenode", object.oid().into()),
            ("relpages", bytes.div_ceil(PAGE_BYTES).into()),
            ("reltuples", tuples.into()),
            ("relhasindex", (is_table && indexes(&table.def).next().is_some()).into()),
            ("relpersistence", "p".into()),
            ("relkind", object.kind().into()),
            ("relnatts", columns.into()),
            ("relchecks", if is_table { table.def.constraints.checks.len() } else { 0 }.into()),
            ("relhastriggers", (is_table && has_triggers(table.def.as_ref())).into()),
            ("relispopulated", true.into()),
            ("relreplident", if is_table { "d" } else { "n" }.into()),
            ("reloptions", options),
        ]);
    }
}

fn live_rows(table: &TableVersion) -> f64 {
    table.live_rows() as f64
}

fn reloptions(index: Index<'_>) -> Value {
    let options = index_options(index);
    if options.is_empty() {
        return Value::Null;
    }
    let texts: Vec<String> = options.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    name_list(texts.iter().map(String::as_str))
}

fn tables(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        rows.push([
            ("schemaname", table.def.schema.as_str().into()),
            ("tablename", table.def.name.as_str().into()),
            ("tableowner", context.user.as_str().into()),
            ("tablespace", Value::Null),
            ("hasindexes", indexes(&table.def).next().is_some().into()),
        ]);
    }
}

fn pg_indexes(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for index in indexes(&table.def) {
            rows.push([
                ("schemaname", table.def.schema.as_str().into()),
                ("tablename", table.def.name.as_str().into()),
                ("indexname", index.name().into()),
                ("tablespace", Value::Null),
                ("indexdef", index_definition(context, &table.def, index, false).into()),
            ]);
        }
    }
}
