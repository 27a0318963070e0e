//! Every `.slt` file, run over the wire against Sepal, and `slt/postgres` against a real PostgreSQL too.
//!
//! A record runs by the simple protocol, which gives text as Postgres prints it. Then the statement is
//! prepared by the extended protocol and described: a file's `query` line holds each column's type, one
//! letter each (the table in [`Letter`]), and both servers must agree with it. All mismatches of a file are
//! reported, not only the first.

use std::{fmt, fs, path::PathBuf, time::Duration};

use async_trait::async_trait;
use sqllogictest::{AsyncDB, ColumnType, DBOutput, Runner};
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};

use crate::{
    oracle::Oracle,
    server::{Login, Server, repository, skip},
};

macro_rules! files {
    ($($folder:literal { $($test:ident $file:literal),+ $(,)? })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                on_sepal(concat!($folder, "/", $file)).await;
            }
        )+)+

        /// What the tests above run.
        const FILES: &[&str] = &[$($(concat!($folder, "/", $file)),+),+];
    };
}

files! {
    "postgres" {
        postgres_add_column_default "add_column_default.slt",
        postgres_alter_column_type "alter_column_type.slt",
        postgres_arithmetic "arithmetic.slt",
        postgres_arrays "arrays.slt",
        postgres_by_key "by_key.slt",
        postgres_character "character.slt",
        postgres_checks "checks.slt",
        postgres_common_types "common_types.slt",
        postgres_constraint_order "constraint_order.slt",
        postgres_constraints "constraints.slt",
        postgres_cursors "cursors.slt",
        postgres_ddl "ddl.slt",
        postgres_distinct_from "distinct_from.slt",
        postgres_enums "enums.slt",
        postgres_foreign_key_actions "foreign_key_actions.slt",
        postgres_foreign_keys "foreign_keys.slt",
        postgres_functions "functions.slt",
        postgres_functions_of_clients "functions_of_clients.slt",
        postgres_generated_columns "generated_columns.slt",
        postgres_group_by_key "group_by_key.slt",
        postgres_index_catalogs "index_catalogs.slt",
        postgres_infinite_times "infinite_times.slt",
        postgres_insert_returning "insert_returning.slt",
        postgres_joins_aggregates "joins_aggregates.slt",
        postgres_json_aggregates "json_aggregates.slt",
        postgres_json_path "json_path.slt",
        postgres_json_rows "json_rows.slt",
        postgres_json_whole_rows "json_whole_rows.slt",
        postgres_jsonb_basic "jsonb_basic.slt",
        postgres_jsonb_functions "jsonb_functions.slt",
        postgres_literals_and_names "literals_and_names.slt",
        postgres_locks "locks.slt",
        postgres_merged_columns "merged_columns.slt",
        postgres_null_ordering "null_ordering.slt",
        postgres_odds_of_clients "odds_of_clients.slt",
        postgres_on_conflict "on_conflict.slt",
        postgres_order_by "order_by.slt",
        postgres_parameter_types "parameter_types.slt",
        postgres_prepared "prepared.slt",
        postgres_savepoints "savepoints.slt",
        postgres_scalar_subqueries "scalar_subqueries.slt",
        postgres_schemas "schemas.slt",
        postgres_sequences "sequences.slt",
        postgres_serial_identity "serial_identity.slt",
        postgres_session_time_zone "session_time_zone.slt",
        postgres_set_operations "set_operations.slt",
        postgres_text_search "text_search.slt",
        postgres_text_search_rank "text_search_rank.slt",
        postgres_text_search_words "text_search_words.slt",
        postgres_time_zones "time_zones.slt",
        postgres_transactions "transactions.slt",
        postgres_types "types.slt",
        postgres_unnest_lateral "unnest_lateral.slt",
        postgres_untyped "untyped.slt",
        postgres_update_delete "update_delete.slt",
        postgres_window_frames "window_frames.slt",
        postgres_with_once "with_once.slt",
    }
    "sepal" {
        sepal_clones "clones.slt",
        sepal_conflicts "conflicts.slt",
        sepal_cursors "cursors.slt",
        sepal_delivery "delivery.slt",
        sepal_enums "enums.slt",
        sepal_escapes "escapes.slt",
        sepal_explain "explain.slt",
        sepal_index_kinds "index_kinds.slt",
        sepal_indexes "indexes.slt",
        sepal_json_refused "json_refused.slt",
        sepal_knn "knn.slt",
        sepal_lookup "lookup.slt",
        sepal_maintenance "maintenance.slt",
        sepal_recall "recall.slt",
        sepal_schemas "schemas.slt",
        sepal_time_travel "time_travel.slt",
        sepal_time_zone_refused "time_zone_refused.slt",
        sepal_with_refused "with_refused.slt",
    }
    "vector" {
        vector_bit "bit.slt",
        vector_edges "edges.slt",
        vector_expression_indexes "expression_indexes.slt",
        vector_functions "functions.slt",
        vector_generated "generated.slt",
        vector_halfvec "halfvec.slt",
        vector_index_ddl "index_ddl.slt",
        vector_index_search "index_search.slt",
        vector_jsonb_filter "jsonb_filter.slt",
        vector_kept_filters "kept_filters.slt",
        vector_lateral "lateral.slt",
        vector_operators "operators.slt",
        vector_search_exact "search_exact.slt",
        vector_sparsevec "sparsevec.slt",
        vector_text_and_casts "text_and_casts.slt",
        vector_text_search "text_search.slt",
    }
}

#[test]
fn every_file_has_its_test() {
    let mut found = Vec::new();
    for folder in ["postgres", "sepal", "vector"] {
        for entry in fs::read_dir(root().join(folder)).expect("slt folder") {
            found.push(format!("{folder}/{}", entry.expect("entry").file_name().to_string_lossy()));
        }
    }
    found.sort();
    let mut listed: Vec<_> = FILES.iter().map(ToString::to_string).collect();
    listed.sort();
    assert_eq!(found, listed, "add the file to `files!` in tests/slt.rs");
}

/// The oracle: what `postgres/` says must be what PostgreSQL does.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_files_hold_on_postgresql() {
    let Some(oracle) = Oracle::start() else {
        skip(
            "no PostgreSQL 15 found (apt-get install postgresql-15): slt/postgres was not checked against it",
        );
        return;
    };
    let mut failures = Vec::new();
    for file in FILES.iter().filter(|file| file.starts_with("postgres/")) {
        let login = Login { database: "postgres".into(), ..oracle.login() };
        failures.extend(run_file(file, "postgres", &login).await);
    }
    assert!(failures.is_empty(), "{} mismatches:\n\n{}", failures.len(), failures.join("\n"));
}

async fn on_sepal(file: &str) {
    let failures = run_file(file, "sepal", &Server::shared().login()).await;
    assert!(failures.is_empty(), "{} mismatches in {file}:\n\n{}", failures.len(), failures.join("\n"));
}

fn root() -> PathBuf {
    repository().join("tests/slt")
}

/// Runs one file; the answer is a line per record that did not hold.
async fn run_file(file: &str, label: &'static str, login: &Login) -> Vec<String> {
    let records = sqllogictest::parse_file::<Letter>(root().join(file)).expect("a well-formed .slt file");
    let mut runner = Runner::new(|| Session::open(login.clone(), label));
    runner.with_column_validator(same_letters);
    let mut failures = Vec::new();
    for record in records {
        if let Err(error) = runner.run_async(record).await {
            failures.push(error.to_string());
        }
    }
    runner.shutdown_async().await;
    failures
}

#[expect(clippy::ptr_arg, reason = "the signature that Runner::with_column_validator takes")]
fn same_letters(actual: &Vec<Letter>, expected: &Vec<Letter>) -> bool {
    actual.len() == expected.len()
        && actual.iter().zip(expected).all(|(actual, expected)| expected.0 == '?' || actual == expected)
}

/// A column's type in a `query` line; `?` takes any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter(char);

impl Letter {
    fn of(ty: &Type) -> Letter {
        Letter(match ty.name() {
            "bool" => 'B',
            "int2" => 'S',
            "int4" => 'I',
            "int8" => 'L',
            "float4" => 'F',
            "float8" => 'R',
            "numeric" => 'N',
            "text" => 'T',
            "varchar" | "bpchar" => 'C',
            "name" => 'A',
            "oid" | "regclass" => 'O',
            "bytea" => 'Y',
            "uuid" => 'U',
            "date" => 'D',
            "time" => 'M',
            "timestamp" => 'P',
            "timestamptz" => 'Z',
            "interval" => 'E',
            "json" | "jsonb" => 'J',
            "halfvec" | "sparsevec" | "vector" => 'V',
            _ => 'X',
        })
    }
}

impl ColumnType for Letter {
    fn from_char(value: char) -> Option<Self> {
        "BSILFRNTCAOYUDMPZEJVX?".contains(value).then_some(Letter(value))
    }

    fn to_char(&self) -> char {
        self.0
    }
}

/// One connection of a file.
struct Session {
    client: Client,
    label: &'static str,
}

impl Session {
    async fn open(login: Login, label: &'static str) -> Result<Session, Refused> {
        let client = login.connect().await?;
        client.batch_execute("SET TIME ZONE 'UTC'").await?;
        Ok(Session { client, label })
    }
}

#[async_trait]
impl AsyncDB for Session {
    type Error = Refused;
    type ColumnType = Letter;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Letter>, Refused> {
        let mut rows = None;
        let mut count = 0;
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows = Some(Vec::new()),
                SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|column| show(row.get(column))).collect();
                    rows.as_mut().expect("a description before the rows").push(values);
                }
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        let Some(rows) = rows else {
            return Ok(DBOutput::StatementComplete(count));
        };
        let described = self.client.prepare(sql).await?;
        let types = described.columns().iter().map(|column| Letter::of(column.type_())).collect();
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.label
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn show(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}

/// An error as files write it: `22P02: message DETAIL: detail`.
#[derive(Debug)]
struct Refused(tokio_postgres::Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = self.0.as_db_error() else { return write!(f, "no answer: {}", self.0) };
        write!(f, "{}: {}", error.code().code(), error.message())?;
        match error.detail() {
            Some(detail) => write!(f, " DETAIL: {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        Refused(error)
    }
}
