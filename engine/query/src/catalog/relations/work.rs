//! `sepal_maintenance`, `sepal_storage`, `pg_stats`, and the progress of VACUUM and COPY.
//!
//! A tenant sees its own work only, and of tables those of the session's environment.

use sepal_types::TableId;

use super::super::CatalogContext;
use super::super::objects::environment_oid;
use super::super::shape::{Relation, Rows};
use super::super::value::Value;
use super::class::PAGE_BYTES;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "sepal_maintenance",
        12_241,
        "pid integer, task text, relid oid, relname name, phase text, unit text, done bigint, total bigint, \
         started timestamp with time zone, per_second bigint",
        tasks,
    ),
    Relation::catalog(
        "sepal_storage",
        12_242,
        "live_rows bigint, deleted_rows bigint, segments bigint, segment_bytes bigint, index_bytes bigint, \
         memory_bytes bigint, log_bytes bigint, history_bytes bigint, ingested_bytes bigint, flushed_bytes \
         bigint, compacted_bytes bigint, write_amplification double precision, compaction_due boolean",
        storage,
    ),
    Relation::catalog(
        "pg_stats",
        12_104,
        "schemaname name, tablename name, attname name, inherited boolean, null_frac real, avg_width \
         integer, n_distinct real, most_common_vals text, most_common_freqs real[], histogram_bounds \
         text, correlation real, most_common_elems text, most_common_elem_freqs real[], \
         elem_count_histogram real[]",
        statistics,
    ),
    Relation::catalog(
        "pg_stat_progress_vacuum",
        12_049,
        "pid integer, datid oid, datname name, relid oid, phase text, heap_blks_total bigint, \
         heap_blks_scanned bigint, heap_blks_vacuumed bigint, index_vacuum_count bigint, \
         max_dead_tuples bigint, num_dead_tuples bigint",
        vacuums,
    ),
    Relation::catalog(
        "pg_stat_progress_copy",
        12_050,
        "pid integer, datid oid, datname name, relid oid, command text, type text, bytes_processed \
         bigint, bytes_total bigint, tuples_processed bigint, tuples_excluded bigint",
        copies,
    ),
];

/// The table's name, where the session may see it.
fn visible(context: &CatalogContext, table: TableId) -> Option<String> {
    context.table(i64::from(table.0)).map(|version| version.def.name.clone())
}

fn tasks(context: &CatalogContext, rows: &mut Rows) {
    for task in &context.work.tasks {
        let name = task.table.map(|table| visible(context, table));
        if name == Some(None) {
            continue;
        }
        rows.push([
            ("pid", if task.pid == 0 { Value::Null } else { task.pid.into() }),
            ("task", task.task.into()),
            ("relid", task.table.map(|table| table.0).into()),
            ("relname", name.flatten().into()),
            ("phase", task.phase.into()),
            ("unit", task.unit.into()),
            ("done", task.done.into()),
            ("total", if task.total == 0 { Value::Null } else { task.total.into() }),
            ("started", Value::Time(task.started_us)),
            ("per_second", task.per_second.into()),
        ]);
    }
}

fn storage(context: &CatalogContext, rows: &mut Rows) {
    let row = &context.work.storage;
    rows.push([
        ("live_rows", row.live_rows.into()),
        ("deleted_rows", row.deleted_rows.into()),
        ("segments", row.segments.into()),
        ("segment_bytes", row.segment_bytes.into()),
        ("index_bytes", row.index_bytes.into()),
        ("memory_bytes", row.memory_bytes.into()),
        ("log_bytes", row.log_bytes.into()),
        ("history_bytes", row.history_bytes.into()),
        ("ingested_bytes", row.ingested_bytes.into()),
        ("flushed_bytes", row.flushed_bytes.into()),
        ("compacted_bytes", row.compacted_bytes.into()),
        ("write_amplification", row.write_amplification.into()),
        ("compaction_due", row.compaction_due.into()),
    ]);
}

fn statistics(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        let Some(known) = context.work.statistics.get(&table.def.id) else { continue };
        for found in &known.columns {
            let Some(column) = table.def.column_by_id(found.column) else { continue };
            let list =
                |values: Vec<Value>| if values.is_empty() { Value::Null } else { Value::List(values.into()) };
            let texts = |texts: Vec<&String>| match texts.is_empty() {
                true => Value::Null,
                false => Value::text(Value::list(texts).to_text()),
            };
            rows.push([
                ("schemaname", table.def.schema.as_str().into()),
                ("tablename", table.def.name.as_str().into()),
                ("attname", column.name.as_str().into()),
                ("null_frac", found.null_frac.into()),
                ("avg_width", found.avg_width.into()),
                ("n_distinct", found.n_distinct.into()),
                ("most_common_vals", texts(found.common.iter().map(|(value, _)| value).collect())),
                (
                    "most_common_freqs",
                    list(found.common.iter().map(|(_, part)| Value::Float(*part)).collect()),
                ),
                ("histogram_bounds", texts(found.histogram.iter().collect())),
                ("correlation", Value::Null),
            ]);
        }
    }
}

/// Pages are bytes in Postgres' pages. Storage has none.
fn vacuums(context: &CatalogContext, rows: &mut Rows) {
    let vacuums = context.work.tasks.iter().filter(|task| task.task.starts_with("vacuum"));
    for task in vacuums {
        let Some(table) = task.table.filter(|table| visible(context, *table).is_some()) else { continue };
        let pages = |bytes: u64| Value::from(bytes.div_ceil(PAGE_BYTES));
        rows.push([
            ("pid", task.pid.into()),
            ("datid", environment_oid(&context.environment).into()),
            ("datname", context.environment.as_str().into()),
            ("relid", table.0.into()),
            ("phase", task.phase.into()),
            ("heap_blks_total", pages(task.total)),
            ("heap_blks_scanned", pages(task.done)),
            ("heap_blks_vacuumed", pages(task.done)),
        ]);
    }
}

fn copies(context: &CatalogContext, rows: &mut Rows) {
    let of_tables = context.work.copies.iter().filter(|copy| visible(context, copy.table).is_some());
    for copy in of_tables {
        rows.push([
            ("pid", copy.pid.into()),
            ("datid", environment_oid(&context.environment).into()),
            ("datname", context.environment.as_str().into()),
            ("relid", copy.table.0.into()),
            ("command", "COPY FROM".into()),
            ("type", "PIPE".into()),
            ("bytes_processed", copy.bytes.into()),
            ("tuples_processed", copy.rows.into()),
        ]);
    }
}
