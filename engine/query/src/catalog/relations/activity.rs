//! Settings, sessions, statistics and progress: `pg_settings`, `pg_stat_activity`, `pg_stat_user_tables`, …
//!
//! A session sees those of its tenant that its key may see. Counters that Sepal does not keep per table are 0, as after
//! a statistics reset.

use sepal_types::TableId;

use super::super::names::name_list;
use super::super::objects::{OWNER_OID, environment_oid, indexes};
use super::super::shape::{Relation, Rows, no_rows};
use super::super::value::Value;
use super::super::{CatalogContext, LockedObject};

/// The columns of `pg_statio_all_tables`, of which `pg_statio_user_tables` is a part.
const TABLE_BLOCKS: &str = "relid oid, schemaname name, relname name, heap_blks_read bigint, heap_blks_hit bigint, \
     idx_blks_read bigint, idx_blks_hit bigint, toast_blks_read bigint, toast_blks_hit bigint, tidx_blks_read bigint, \
     tidx_blks_hit bigint";
/// The columns of `pg_stat_all_tables`, of which `pg_stat_user_tables` is a part.
const TABLE_STATISTICS: &str = "\
    relid oid, schemaname name, relname name, seq_scan bigint, seq_tup_read bigint, idx_scan \
    bigint, idx_tup_fetch bigint, n_tup_ins bigint, n_tup_upd bigint, n_tup_del bigint, \
    n_tup_hot_upd bigint, n_live_tup bigint, n_dead_tup bigint, n_mod_since_analyze bigint, \
    n_ins_since_vacuum bigint, last_vacuum timestamp with time zone, last_autovacuum timestamp \
    with time zone, last_analyze timestamp with time zone, last_autoanalyze timestamp with time \
    zone, vacuum_count bigint, autovacuum_count bigint, analyze_count bigint, autoanalyze_count \
    bigint";

/// The columns of `pg_stat_all_indexes`, of which `pg_stat_user_indexes` is a part.
const INDEX_STATISTICS: &str = "\
    relid oid, indexrelid oid, schemaname name, relname name, indexrelname name, idx_scan \
    bigint, idx_tup_read bigint, idx_tup_fetch bigint";

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_settings",
        12_040,
        "name text, setting text, unit text, category text, short_desc text, extra_desc text, context \
         text, vartype text, source text, min_val text, max_val text, enumvals text[], boot_val text, \
         reset_val text, sourcefile text, sourceline integer, pending_restart boolean",
        settings,
    ),
    Relation::catalog(
        "pg_stat_activity",
        12_041,
        "datid oid, datname name, pid integer, leader_pid integer, usesysid oid, usename name, \
         application_name text, client_addr text, client_hostname text, client_port integer, \
         backend_start timestamp with time zone, xact_start timestamp with time zone, query_start \
         timestamp with time zone, state_change timestamp with time zone, wait_event_type text, \
         wait_event text, state text, backend_xid bigint, backend_xmin bigint, query_id bigint, query \
         text, backend_type text",
        sessions,
    ),
    Relation::catalog(
        "pg_stat_database",
        12_042,
        "datid oid, datname name, numbackends integer, xact_commit bigint, xact_rollback bigint, \
         blks_read bigint, blks_hit bigint, tup_returned bigint, tup_fetched bigint, tup_inserted \
         bigint, tup_updated bigint, tup_deleted bigint, conflicts bigint, temp_files bigint, \
         temp_bytes bigint, deadlocks bigint, checksum_failures bigint, checksum_last_failure \
         timestamp with time zone, blk_read_time double precision, blk_write_time double precision, \
         session_time double precision, active_time double precision, idle_in_transaction_time double \
         precision, sessions bigint, sessions_abandoned bigint, sessions_fatal bigint, \
         sessions_killed bigint, stats_reset timestamp with time zone",
        databases,
    ),
    Relation::catalog("pg_stat_user_tables", 12_043, TABLE_STATISTICS, tables),
    Relation::catalog("pg_stat_all_tables", 12_044, TABLE_STATISTICS, tables),
    Relation::catalog("pg_stat_user_indexes", 12_045, INDEX_STATISTICS, user_indexes),
    Relation::catalog("pg_stat_all_indexes", 12_046, INDEX_STATISTICS, user_indexes),
    Relation::catalog("pg_statio_user_tables", 12_047, TABLE_BLOCKS, table_blocks),
    Relation::catalog("pg_statio_all_tables", 12_069, TABLE_BLOCKS, table_blocks),
    Relation::catalog(
        "pg_stat_progress_create_index",
        12_048,
        "pid integer, datid oid, datname name, relid oid, index_relid oid, command text, phase text, \
         lockers_total bigint, lockers_done bigint, current_locker_pid bigint, blocks_total bigint, \
         blocks_done bigint, tuples_total bigint, tuples_done bigint, partitions_total bigint, \
         partitions_done bigint",
        index_builds,
    ),
    Relation::catalog(
        "sepal_usage",
        12_240,
        "resource text, used_bytes bigint, limit_bytes bigint, setting text",
        usage,
    ),
    Relation::catalog(
        "sepal_keys",
        12_249,
        "epoch bigint, created timestamp with time zone, older_keys bigint, file_generation bigint, \
         rotating boolean, files_total bigint, files_done bigint, bytes_total bigint, bytes_done bigint",
        keys,
    ),
    Relation::catalog(
        "pg_stat_replication",
        12_051,
        "pid integer, usesysid oid, usename name, application_name text, client_addr text, \
         client_hostname text, client_port integer, backend_start timestamp with time zone, \
         backend_xmin bigint, state text, sent_lsn text, write_lsn text, flush_lsn text, replay_lsn \
         text, write_lag interval, flush_lag interval, replay_lag interval, sync_priority integer, \
         sync_state text, reply_time timestamp with time zone",
        no_rows,
    ),
    Relation::catalog(
        "pg_stat_ssl",
        12_052,
        "pid integer, ssl boolean, version text, cipher text, bits integer, client_dn text, \
         client_serial double precision, issuer_dn text",
        no_rows,
    ),
    Relation::catalog(
        "pg_stat_gssapi",
        12_053,
        "pid integer, gss_authenticated boolean, principal text, encrypted boolean",
        no_rows,
    ),
    Relation::catalog(
        "pg_locks",
        12_054,
        "locktype text, database oid, relation oid, page integer, tuple smallint, virtualxid text, \
         transactionid bigint, classid oid, objid oid, objsubid smallint, virtualtransaction text, \
         pid integer, mode text, granted boolean, fastpath boolean, waitstart timestamp with time \
         zone",
        locks,
    ),
];

fn settings(context: &CatalogContext, rows: &mut Rows) {
    for setting in context.settings.iter() {
        let source = if setting.source.is_empty() { "default" } else { &setting.source };
        let values = &setting.enumvals;
        rows.push([
            ("name", setting.name.as_str().into()),
            ("setting", setting.setting.as_str().into()),
            ("unit", setting.unit.as_ref().into()),
            ("category", setting.category.as_str().into()),
            ("short_desc", setting.short_desc.as_str().into()),
            ("context", setting.context.as_str().into()),
            ("vartype", setting.vartype.as_str().into()),
            ("source", source.into()),
            ("min_val", setting.min_val.as_ref().into()),
            ("max_val", setting.max_val.as_ref().into()),
            (
                "enumvals",
                if values.is_empty() { Value::Null } else { name_list(values.iter().map(String::as_str)) },
            ),
            ("boot_val", setting.boot_val.as_ref().into()),
            ("reset_val", setting.reset_val.as_ref().or(setting.boot_val.as_ref()).into()),
        ]);
    }
}

/// Of a session whose details the key may not know, the same columns are shown as in Postgres.
fn sessions(context: &CatalogContext, rows: &mut Rows) {
    let time = |time: Option<i64>| time.map_or(Value::Null, Value::Time);
    for session in context.sessions.iter() {
        let details = session.details.as_ref();
        let client = details.and_then(|details| details.client);
        let waits = details.and_then(|details| details.waits);
        rows.push([
            ("datid", environment_oid(&session.environment).into()),
            ("datname", session.environment.as_str().into()),
            ("pid", session.pid.into()),
            ("leader_pid", Value::Null),
            ("usesysid", OWNER_OID.into()),
            ("usename", session.user.as_str().into()),
            ("application_name", session.application.as_str().into()),
            ("client_addr", client.map(|client| client.ip().to_string()).into()),
            ("client_port", client.map(|client| i32::from(client.port())).into()),
            ("backend_start", time(details.map(|details| details.began_us))),
            ("xact_start", time(details.and_then(|details| details.transaction_us))),
            ("query_start", time(details.and_then(|details| details.query_us))),
            ("state_change", time(details.map(|details| details.changed_us))),
            ("wait_event_type", waits.map(|(kind, _)| kind).into()),
            ("wait_event", waits.map(|(_, event)| event).into()),
            ("state", details.map(|details| details.state).into()),
            ("backend_xid", Value::Null),
            ("backend_xmin", Value::Null),
            ("query_id", Value::Null),
            ("query", details.map_or("<insufficient privilege>", |details| &details.query).into()),
            ("backend_type", details.map(|_| "client backend").into()),
        ]);
    }
}

fn databases(context: &CatalogContext, rows: &mut Rows) {
    let here = context.sessions.iter().filter(|session| session.environment == context.environment);
    rows.push([
        ("datid", environment_oid(&context.environment).into()),
        ("datname", context.environment.as_str().into()),
        ("numbackends", here.count().into()),
    ]);
}

fn tables(context: &CatalogContext, rows: &mut Rows) {
    let time = |time: Option<i64>| time.map_or(Value::Null, Value::Time);
    for table in context.tables() {
        let known = context.work.statistics.get(&table.def.id);
        rows.push([
            ("relid", table.def.id.0.into()),
            ("schemaname", table.def.schema.as_str().into()),
            ("relname", table.def.name.as_str().into()),
            ("n_live_tup", table.live_rows().into()),
            ("n_dead_tup", table.chunks.iter().map(|chunk| chunk.deleted.len()).sum::<u64>().into()),
            ("last_vacuum", time(known.and_then(|known| known.vacuumed_us))),
            ("last_autovacuum", time(known.and_then(|known| known.compacted_us))),
            ("last_analyze", time(known.and_then(|known| known.analyzed_us))),
            ("vacuum_count", known.map_or(0, |known| known.vacuums).into()),
            ("autovacuum_count", known.map_or(0, |known| known.compactions).into()),
            ("analyze_count", known.map_or(0, |known| known.analyses).into()),
        ]);
    }
}

fn user_indexes(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for index in indexes(&table.def) {
            rows.push([
                ("relid", table.def.id.0.into()),
                ("indexrelid", index.oid().into()),
                ("schemaname", table.def.schema.as_str().into()),
                ("relname", table.def.name.as_str().into()),
                ("indexrelname", index.name().into()),
            ]);
        }
    }
}

fn table_blocks(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        rows.push([
            ("relid", table.def.id.0.into()),
            ("schemaname", table.def.schema.as_str().into()),
            ("relname", table.def.name.as_str().into()),
        ]);
    }
}

/// Tables of other environments are left out.
fn locks(context: &CatalogContext, rows: &mut Rows) {
    for lock in context.locks.iter() {
        let visible = |table: TableId| context.table(i64::from(table.0)).is_some();
        let (kind, relation, number) = match lock.object {
            LockedObject::Table(table) if visible(table) => ("relation", Some(table), None),
            LockedObject::Row(table) if visible(table) => ("tuple", Some(table), None),
            LockedObject::Table(_) | LockedObject::Row(_) => continue,
            LockedObject::Advisory { class, object, kind } => ("advisory", None, Some((class, object, kind))),
        };
        let oid = |oid: Option<u32>| oid.map_or(Value::Null, Value::from);
        rows.push([
            ("locktype", kind.into()),
            ("database", environment_oid(&context.environment).into()),
            ("relation", oid(relation.map(|table| table.0))),
            ("page", Value::Null),
            ("tuple", Value::Null),
            ("transactionid", Value::Null),
            ("classid", oid(number.map(|(class, ..)| class))),
            ("objid", oid(number.map(|(_, object, _)| object))),
            ("objsubid", number.map_or(Value::Null, |(.., kind)| i32::from(kind).into())),
            ("virtualtransaction", format!("{}/1", lock.pid).as_str().into()),
            ("pid", lock.pid.into()),
            ("mode", lock.mode.into()),
            ("granted", lock.granted.into()),
        ]);
    }
}

fn index_builds(context: &CatalogContext, rows: &mut Rows) {
    let visible = |id: TableId| context.table(i64::from(id.0)).is_some();
    for build in context.builds.iter().filter(|build| visible(build.table)) {
        rows.push([
            ("pid", build.pid.into()),
            ("datid", environment_oid(&context.environment).into()),
            ("datname", context.environment.as_str().into()),
            ("relid", build.table.0.into()),
            ("index_relid", build.index.0.into()),
            ("command", "CREATE INDEX".into()),
            ("phase", build.phase.as_str().into()),
            ("blocks_total", build.blocks_total.into()),
            ("blocks_done", build.blocks_done.into()),
            ("tuples_total", build.tuples_total.into()),
            ("tuples_done", build.tuples_done.into()),
        ]);
    }
}

fn keys(context: &CatalogContext, rows: &mut Rows) {
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    if let Some(row) = &*context.keys {
        rows.push([
            ("epoch", count(row.epoch)),
            ("created", Value::Time(row.created_us)),
            ("older_keys", count(row.older_keys)),
            ("file_generation", count(row.file_generation)),
            ("rotating", row.rotating.into()),
            ("files_total", count(row.files_total)),
            ("files_done", count(row.files_done)),
            ("bytes_total", count(row.bytes_total)),
            ("bytes_done", count(row.bytes_done)),
        ]);
    }
}

fn usage(context: &CatalogContext, rows: &mut Rows) {
    let bytes = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
    for row in context.usage.iter() {
        rows.push([
            ("resource", row.resource.into()),
            ("used_bytes", bytes(row.used_bytes)),
            ("limit_bytes", row.limit_bytes.map_or(Value::Null, bytes)),
            ("setting", row.setting.into()),
        ]);
    }
}
