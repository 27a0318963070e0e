//! `pg_sequence` and `pg_sequences`: sequences, those behind serial and identity columns among them.
//!
//! The next value is not shown: `last_value` is NULL, as Postgres has it for a sequence not used yet.

use super::super::CatalogContext;
use super::super::objects::sequence_oid;
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

fn pg_sequence(context: &CatalogContext, rows: &mut Rows) {
    for (table, column, sequence) in context.sequences() {
        rows.push([
            ("seqrelid", sequence_oid(table, column).into()),
            ("seqtypid", sequence.ty.oid().into()),
            ("seqstart", sequence.start.into()),
            ("seqincrement", sequence.increment.into()),
            ("seqmax", sequence.max.into()),
            ("seqmin", sequence.min.into()),
            ("seqcache", 1.into()),
        ]);
    }
}

fn pg_sequences(context: &CatalogContext, rows: &mut Rows) {
    for (table, column, sequence) in context.sequences() {
        rows.push([
            ("schemaname", table.schema.as_str().into()),
            ("sequencename", table.sequence_name(column).into()),
            ("sequenceowner", context.user.as_str().into()),
            ("data_type", sequence.ty.oid().into()),
            ("start_value", sequence.start.into()),
            ("min_value", sequence.min.into()),
            ("max_value", sequence.max.into()),
            ("increment_by", sequence.increment.into()),
            ("cache_size", 1.into()),
            ("last_value", Value::Null),
        ]);
    }
}
