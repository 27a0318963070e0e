//! `pg_sequence` and `pg_sequences`: the sequences behind serial and identity columns.
//!
//! The next value is not shown: `last_value` is NULL, as Postgres has it for a sequence not used yet.

use sepal_types::SqlType;

use super::super::CatalogContext;
use super::super::objects::{generated_oid, sequence_columns, sequence_name};
use super::super::shape::{Relation, Rows};
use super::super::value::Value;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_sequence",
        2224,
        "seqrelid oid, seqtypid oid, seqstart bigint, seqincrement bigint, seqmax bigint, seqmin \
         bigint, seqcache bigint, seqcycle boolean",
        pg_sequence,
    ),
    Relation::catalog(
        "pg_sequences",
        12_010,
        "schemaname name, sequencename name, sequenceowner name, data_type regtype, start_value \
         bigint, min_value bigint, max_value bigint, increment_by bigint, cycle boolean, cache_size \
         bigint, last_value bigint",
        pg_sequences,
    ),
];

/// The largest value of a sequence for a column of this type.
pub(super) fn maximum(ty: &SqlType) -> i64 {
    match ty {
        SqlType::Int2 => i64::from(i16::MAX),
        SqlType::Int4 => i64::from(i32::MAX),
        _ => i64::MAX,
    }
}

fn pg_sequence(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in sequence_columns(&table.def) {
            rows.push([
                ("seqrelid", generated_oid(&table.def, column.id).into()),
                ("seqtypid", column.ty.oid().into()),
                ("seqstart", 1.into()),
                ("seqincrement", 1.into()),
                ("seqmax", maximum(&column.ty).into()),
                ("seqmin", 1.into()),
                ("seqcache", 1.into()),
            ]);
        }
    }
}

fn pg_sequences(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in sequence_columns(&table.def) {
            rows.push([
                ("schemaname", table.def.schema.as_str().into()),
                ("sequencename", sequence_name(&table.def, column).into()),
                ("sequenceowner", context.user.as_str().into()),
                ("data_type", column.ty.oid().into()),
                ("start_value", 1.into()),
                ("min_value", 1.into()),
                ("max_value", maximum(&column.ty).into()),
                ("increment_by", 1.into()),
                ("cache_size", 1.into()),
                ("last_value", Value::Null),
            ]);
        }
    }
}
