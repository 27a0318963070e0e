//! `sepal_snapshots` and `sepal_history`: what of the past can be read, and what it takes.

use super::super::CatalogContext;
use super::super::shape::{Relation, Rows};
use super::super::value::Value;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "sepal_snapshots",
        12_250,
        "name text, at timestamp with time zone, lsn bigint, created_at timestamp with time zone, created_by text, \
         comment text, rows bigint, bytes bigint",
        snapshots,
    ),
    Relation::catalog(
        "sepal_history",
        12_251,
        "oldest_at timestamp with time zone, oldest_lsn bigint, versions bigint, bytes bigint, keep_minutes bigint, \
         keep_versions bigint, max_bytes bigint",
        history,
    ),
];

fn snapshots(context: &CatalogContext, rows: &mut Rows) {
    for snapshot in &context.history.snapshots {
        rows.push([
            ("name", snapshot.name.as_str().into()),
            ("at", Value::Time(snapshot.at)),
            ("lsn", snapshot.lsn.into()),
            ("created_at", Value::Time(snapshot.created_at)),
            ("created_by", snapshot.created_by.as_str().into()),
            ("comment", snapshot.comment.as_ref().into()),
            ("rows", snapshot.rows.into()),
            ("bytes", snapshot.bytes.into()),
        ]);
    }
}

fn history(context: &CatalogContext, rows: &mut Rows) {
    if let Some(row) = &context.history.history {
        rows.push([
            ("oldest_at", Value::Time(row.oldest_at)),
            ("oldest_lsn", row.oldest_lsn.into()),
            ("versions", row.versions.into()),
            ("bytes", row.bytes.into()),
            ("keep_minutes", row.keep_minutes.into()),
            ("keep_versions", row.keep_versions.into()),
            ("max_bytes", row.max_bytes.into()),
        ]);
    }
}
