//! The settings that exist: name, default, what values one takes, and what it is for.
//!
//! Read by `settings`, which keeps what a session has set, and by `validate`. Holds no session's value.

use super::{
    ISOLATION, MAINTENANCE_WORK_MEM, SERVER_VERSION, TARGET_RECALL, TEXT_SEARCH_CONFIG, TIME_ZONE, memory,
    validate::parse_milliseconds,
};

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    /// Bounds, and the unit that bare numbers have.
    Integer(i64, i64, Option<&'static str>),
    Enum(&'static [&'static str]),
    Real,
    /// A real number from 0 to 1; 0 is off.
    Share,
    /// With a unit, or in kB.
    Memory,
    Text,
    /// Cannot be set.
    Internal,
}

pub(super) struct Known {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    /// Changes are told to the client by ParameterStatus.
    pub reported: bool,
    pub description: &'static str,
}

impl Known {
    /// A valid value as `pg_settings` has it: a number in the unit that bare ones have.
    pub fn plain(&self, value: &str) -> String {
        let number = match self.kind {
            Kind::Integer(_, _, Some("ms")) => parse_milliseconds(value).map(|number| number.to_string()),
            Kind::Memory => memory::kilobytes(value).map(|number| number.to_string()),
            _ => None,
        };
        number.unwrap_or_else(|| value.to_owned())
    }
}

const fn known(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Known {
    Known { name, default, kind, reported: false, description }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Known {
    Known { name, default, kind, reported: true, description }
}

pub(super) const KNOWN: &[Known] = &[
    reported("application_name", "", Kind::Text, "Name of the client application."),
    known("array_nulls", "on", Kind::Bool, "Accepted; NULL elements are always read."),
    known("bytea_output", "hex", Kind::Enum(&["hex"]), "How bytea prints."),
    known("check_function_bodies", "on", Kind::Bool, "Accepted; there are no stored functions."),
    reported("client_encoding", "UTF8", Kind::Enum(&["UTF8", "UTF-8", "UNICODE"]), "Only UTF8."),
    known(
        "client_min_messages",
        "notice",
        Kind::Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]),
        "Least severity that is sent.",
    ),
    known("constraint_exclusion", "partition", Kind::Text, "Accepted; there is no partitioning."),
    reported("DateStyle", "ISO, MDY", Kind::Text, "Only ISO."),
    known(
        "deadlock_timeout",
        "1s",
        Kind::Integer(1, i32::MAX as i64, Some("ms")),
        "How often a wait looks for a deadlock again; it does when it begins.",
    ),
    known("default_table_access_method", "heap", Kind::Text, "Accepted."),
    known("default_tablespace", "", Kind::Text, "Accepted."),
    known(
        TEXT_SEARCH_CONFIG,
        "pg_catalog.english",
        Kind::Text,
        "The configuration of text search where a call names none.",
    ),
    known(
        "default_transaction_isolation",
        "read committed",
        Kind::Enum(ISOLATION),
        "Isolation of new transactions.",
    ),
    reported("default_transaction_read_only", "off", Kind::Bool, "Whether new transactions are read-only."),
    known("enable_indexscan", "on", Kind::Bool, "Off: vector searches are exact."),
    known("enable_seqscan", "on", Kind::Bool, "Accepted; the planner weighs an index against a scan itself."),
    known("enable_bitmapscan", "on", Kind::Bool, "Accepted."),
    known("enable_sort", "on", Kind::Bool, "Accepted."),
    known("escape_string_warning", "on", Kind::Bool, "Accepted."),
    known(
        "extra_float_digits",
        "1",
        Kind::Integer(-15, 3, None),
        "Floats always print their shortest exact form.",
    ),
    known("hnsw.ef_search", "40", Kind::Integer(1, 1000, None), "Candidates that an hnsw search keeps."),
    known(
        "hnsw.iterative_scan",
        "off",
        Kind::Enum(&["off", "relaxed_order", "strict_order"]),
        "Accepted; LIMIT is always filled.",
    ),
    known("hnsw.max_scan_tuples", "20000", Kind::Integer(1, i32::MAX as i64, None), "Accepted."),
    known("hnsw.scan_mem_multiplier", "1", Kind::Real, "Accepted."),
    known(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Integer(0, i32::MAX as i64, Some("ms")),
        "Longest pause within a transaction, then the connection ends; 0 for no limit.",
    ),
    known("idle_session_timeout", "0", Kind::Integer(0, i32::MAX as i64, Some("ms")), "Accepted."),
    reported("in_hot_standby", "off", Kind::Internal, "Never."),
    reported("integer_datetimes", "on", Kind::Internal, "Always."),
    reported("IntervalStyle", "postgres", Kind::Enum(&["postgres", "iso_8601"]), "How intervals print."),
    reported("is_superuser", "off", Kind::Internal, "No key is a superuser."),
    known("ivfflat.probes", "1", Kind::Integer(1, 32_768, None), "Lists that an ivfflat search reads."),
    known(
        "ivfflat.iterative_scan",
        "off",
        Kind::Enum(&["off", "relaxed_order"]),
        "Accepted; LIMIT is always filled.",
    ),
    known("ivfflat.max_probes", "32768", Kind::Integer(1, 32_768, None), "Accepted."),
    known("jit", "off", Kind::Bool, "Accepted; there is no JIT."),
    known("lc_collate", "C", Kind::Internal, "Text orders by bytes."),
    known("lc_ctype", "C", Kind::Internal, "Text orders by bytes."),
    known("lc_messages", "C", Kind::Text, "Accepted."),
    known("lc_monetary", "C", Kind::Text, "Accepted."),
    known("lc_numeric", "C", Kind::Text, "Accepted."),
    known("lc_time", "C", Kind::Text, "Accepted."),
    known(
        "lock_timeout",
        "0",
        Kind::Integer(0, i32::MAX as i64, Some("ms")),
        "Longest wait for a lock; 0 for no limit.",
    ),
    known(
        MAINTENANCE_WORK_MEM,
        "4GB",
        Kind::Memory,
        "Memory of an index build beside rows, at most what index_build_mib lends; a graph that needs more is built in \
         less, which takes longer.",
    ),
    known("max_connections", "100", Kind::Internal, "Connections that the tenant may have at once."),
    known("max_identifier_length", "63", Kind::Internal, "Bytes of a name."),
    known("max_index_keys", "32", Kind::Internal, "Columns of an index."),
    known(
        "max_parallel_maintenance_workers",
        "2",
        Kind::Integer(0, 1024, None),
        "Accepted; builds use every core.",
    ),
    known("max_parallel_workers", "8", Kind::Integer(0, 1024, None), "Accepted."),
    known("max_parallel_workers_per_gather", "2", Kind::Integer(0, 1024, None), "Accepted."),
    known("password_encryption", "scram-sha-256", Kind::Internal, "API keys answer SCRAM-SHA-256."),
    known("row_security", "on", Kind::Bool, "Accepted."),
    known("search_path", "\"$user\", public", Kind::Text, "Where names without a schema are looked up."),
    known(
        "sepal.as_of",
        "",
        Kind::Text,
        "The moment that the session sees, read-only: a time, or snapshot:name; empty for now.",
    ),
    known(
        TARGET_RECALL,
        "0",
        Kind::Share,
        "The share of the nearest rows that vector searches are to find, by the effort that each index measured; 0 \
         leaves the effort to hnsw.ef_search and ivfflat.probes.",
    ),
    reported("server_encoding", "UTF8", Kind::Internal, "Always."),
    reported(
        "server_version",
        SERVER_VERSION,
        Kind::Internal,
        "The Postgres version that Sepal speaks like.",
    ),
    known("server_version_num", "170002", Kind::Internal, "The same as a number."),
    reported("session_authorization", "", Kind::Internal, "The session's key id."),
    known("session_replication_role", "origin", Kind::Text, "Accepted."),
    known("ssl", "on", Kind::Internal, "Connections are encrypted."),
    reported("standard_conforming_strings", "on", Kind::Enum(&["on"]), "Always on."),
    known(
        "statement_timeout",
        "0",
        Kind::Integer(0, i32::MAX as i64, Some("ms")),
        "Longest run of a statement; 0 for no limit.",
    ),
    known(
        "synchronous_commit",
        "on",
        Kind::Text,
        "Accepted; a commit is always durable before it is acknowledged.",
    ),
    known("temp_buffers", "8MB", Kind::Text, "Accepted."),
    reported(TIME_ZONE, "UTC", Kind::Text, "The time zone in which times are read and printed."),
    known("track_activities", "on", Kind::Internal, "pg_stat_activity shows what sessions do."),
    known(
        "track_activity_query_size",
        "1024",
        Kind::Internal,
        "Bytes of a statement that pg_stat_activity shows, one of which Postgres keeps for its end.",
    ),
    known("transaction_isolation", "read committed", Kind::Enum(ISOLATION), "Isolation of this transaction."),
    known("transaction_read_only", "off", Kind::Bool, "Whether this transaction is read-only."),
    known("transaction_timeout", "0", Kind::Integer(0, i32::MAX as i64, Some("ms")), "Accepted."),
    known("vector.version", "0.8.1", Kind::Internal, "The pgvector version whose SQL Sepal speaks."),
    known("work_mem", "4MB", Kind::Text, "Accepted; the tenant's query memory is bounded as a whole."),
    known("xmloption", "content", Kind::Text, "Accepted."),
];
