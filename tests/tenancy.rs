//! What does one tenant learn of another?
//!
//! Two tenants with canaries in every name and value. Whatever the second asks — catalogs, errors, plans,
//! statistics, prepared statements, cancel keys — must hold nothing of the first. The list of catalog
//! relations comes from the server itself, so that a relation added later is searched too.

use std::fmt::Write;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::server::{Key, Server};

/// In every name and text of tenant acme, and nowhere else.
const CANARY: &str = "orchid7q";

struct Two {
    server: Server,
    acme: Client,
    rival: Client,
    rival_key: Key,
}

impl Two {
    async fn start() -> Two {
        let server = Server::start();
        let acme_key = server.tenant("acme-orchid7q");
        let rival_key = server.tenant("rival");
        server.key("acme-orchid7q", &["--label", "orchid7q label", "--environment", "orchid7q-env"]);
        let acme = server.login_with(&acme_key).connect().await.expect("connect");
        let rival = server.login_with(&rival_key).connect().await.expect("connect");
        acme.batch_execute(
            "CREATE TABLE orchid7q_items (orchid7q_id int PRIMARY KEY, orchid7q_text text DEFAULT 'orchid7q default',
                                          orchid7q_v vector(3), CONSTRAINT orchid7q_unique UNIQUE (orchid7q_text));
             INSERT INTO orchid7q_items VALUES (1, 'orchid7q text', '[1,2,3]'), (2, 'orchid7q other', '[3,2,1]');
             CREATE INDEX orchid7q_index ON orchid7q_items USING hnsw (orchid7q_v vector_l2_ops);
             SET application_name = 'orchid7q app'; SET my.orchid7q = 'orchid7q setting'",
        )
        .await
        .expect("acme's tables");
        Two { server, acme, rival, rival_key }
    }
}

/// Everything that a simple query answers, as text, errors included.
pub async fn everything(client: &Client, sql: &str) -> String {
    let mut out = String::new();
    match client.simple_query(sql).await {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::RowDescription(columns) => {
                        columns.iter().for_each(|column| out.push_str(column.name()));
                    }
                    SimpleQueryMessage::Row(row) => {
                        for column in 0..row.len() {
                            let _ = write!(out, "{}|", row.get(column).unwrap_or("NULL"));
                        }
                        out.push('\n');
                    }
                    _ => {}
                }
            }
        }
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: the connection broke: {error}"));
            let _ = write!(out, "{error:?}");
        }
    }
    out
}

/// Canaries in the answer that the question itself did not hold.
fn leaks(sql: &str, answer: &str) -> bool {
    answer.replace(sql, "").contains(CANARY)
}

async fn relations(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n
             ON n.oid = c.relnamespace WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v')",
            &[],
        )
        .await
        .expect("the list of catalog relations");
    rows.iter().map(|row| format!("{}.{}", row.get::<_, String>(0), row.get::<_, String>(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_catalog_relation_holds_anothers_name() {
    let two = Two::start().await;
    let mut relations = relations(&two.rival).await;
    // Those that psql and drivers read must be there whatever pg_class says of itself.
    for name in [
        "pg_class",
        "pg_attribute",
        "pg_index",
        "pg_constraint",
        "pg_database",
        "pg_roles",
        "pg_settings",
        "pg_stat_activity",
        "pg_stat_progress_create_index",
        "pg_indexes",
        "pg_tables",
        "pg_type",
        "pg_description",
    ] {
        relations.push(format!("pg_catalog.{name}"));
    }
    for name in ["tables", "columns", "schemata", "table_constraints", "key_column_usage"] {
        relations.push(format!("information_schema.{name}"));
    }
    relations.sort();
    relations.dedup();
    let mut seen_by_acme = 0;
    for relation in &relations {
        let sql = format!("SELECT * FROM {relation}");
        let answer = everything(&two.rival, &sql).await;
        assert!(!leaks(&sql, &answer), "{relation} tells the rival:\n{answer}");
        seen_by_acme += usize::from(leaks(&sql, &everything(&two.acme, &sql).await));
    }
    assert!(
        seen_by_acme >= 6,
        "acme sees its own names in {seen_by_acme} relations: the search would find a leak"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_those_of_a_name_that_does_not_exist() {
    let two = Two::start().await;
    for template in [
        "SELECT * FROM {}",
        "SELECT * FROM public.{}",
        "INSERT INTO {} VALUES (1)",
        "UPDATE {} SET orchid7q_id = 2",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
        "ALTER TABLE {} ADD COLUMN a int",
        "CREATE INDEX ON {} (orchid7q_id)",
        "COPY {} TO STDOUT",
        "COPY {} FROM STDIN",
        "EXPLAIN SELECT * FROM {}",
        "SELECT * FROM knn({}, orchid7q_v, '[1,2,3]', 1)",
        "SELECT '{}'::regclass",
        "SELECT to_regclass('{}')",
        "SELECT pg_relation_size('{}')",
        "SELECT * FROM \"acme-orchid7q\".{}",
        "DROP INDEX {}",
    ] {
        for real in ["orchid7q_items", "orchid7q_index"] {
            let missing = "m".repeat(real.len());
            let about_real = everything(&two.rival, &template.replace("{}", real)).await;
            let about_missing = everything(&two.rival, &template.replace("{}", &missing)).await;
            assert_eq!(
                about_real.replace(real, "X"),
                about_missing.replace(&missing, "X"),
                "{template} {real}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oids_of_another_tenant_name_nothing() {
    let two = Two::start().await;
    let rows = two
        .acme
        .query("SELECT oid::int8 FROM pg_class WHERE relname LIKE 'orchid7q%'", &[])
        .await
        .expect("oids");
    assert!(!rows.is_empty());
    for row in rows {
        let oid: i64 = row.get(0);
        for sql in [
            format!("SELECT {oid}::oid::regclass::text"),
            format!("SELECT pg_get_indexdef({oid}::oid)"),
            format!("SELECT obj_description({oid}::oid)"),
            format!("SELECT pg_relation_size({oid}::oid)"),
            format!("SELECT pg_table_is_visible({oid}::oid)"),
            format!("SELECT * FROM pg_attribute WHERE attrelid = {oid}"),
        ] {
            let answer = everything(&two.rival, &sql).await;
            assert!(!leaks(&sql, &answer), "{sql}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_is_another_table() {
    let two = Two::start().await;
    two.rival
        .batch_execute("CREATE TABLE orchid7q_items (a int); INSERT INTO orchid7q_items VALUES (42)")
        .await
        .expect("the rival's own");
    let rows = two.rival.query("SELECT * FROM orchid7q_items", &[]).await.expect("select");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, i32>(0), 42);
    two.rival.batch_execute("DROP TABLE orchid7q_items").await.expect("drop");
    let count: i64 =
        two.acme.query_one("SELECT count(*) FROM orchid7q_items", &[]).await.expect("count").get(0);
    assert_eq!(count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_and_plans_show_only_ones_own() {
    let two = Two::start().await;
    two.rival
        .batch_execute("CREATE TABLE mine (id int, v vector(3)); INSERT INTO mine VALUES (1, '[1,2,3]')")
        .await
        .expect("the rival's table");
    for sql in [
        "EXPLAIN SELECT * FROM mine",
        "EXPLAIN (VERBOSE, ANALYZE) SELECT * FROM mine ORDER BY v <-> '[1,2,3]' LIMIT 3",
        "EXPLAIN (FORMAT JSON) SELECT count(*) FROM mine",
        "SELECT * FROM mine ORDER BY v <-> '[1,2,3]' LIMIT 10",
    ] {
        let answer = everything(&two.rival, sql).await;
        assert!(!leaks(sql, &answer), "{sql}: {answer}");
        let data = two.server.data().display().to_string();
        assert!(!answer.contains(&data) && !answer.contains("/tmp/"), "a path: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_statements_do_not_cross() {
    let two = Two::start().await;
    // The same text, planned for acme first: a plan cache keyed by text alone would serve acme's rows.
    two.rival
        .batch_execute(
            "CREATE TABLE orchid7q_items (orchid7q_id int, orchid7q_text text, orchid7q_v vector(3))",
        )
        .await
        .expect("same shape");
    let sql = "SELECT orchid7q_text FROM orchid7q_items ORDER BY orchid7q_v <-> '[1,2,3]' LIMIT 5";
    for _ in 0..3 {
        assert_eq!(two.acme.query(sql, &[]).await.expect("acme").len(), 2);
        assert_eq!(two.rival.query(sql, &[]).await.expect("rival").len(), 0);
    }
    // A prepared statement is its session's own.
    let _ = two.acme.batch_execute("PREPARE orchid7q_plan AS SELECT 1").await;
    let answer = everything(&two.rival, "EXECUTE orchid7q_plan").await;
    assert!(answer.contains("26000") || answer.contains("0A000"), "{answer}");
    let statements = everything(&two.rival, "SELECT * FROM pg_prepared_statements").await;
    assert!(!statements.contains(CANARY), "{statements}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_cannot_be_seen_or_ended_across_tenants() {
    let two = Two::start().await;
    let pid: i32 = two.acme.query_one("SELECT pg_backend_pid()", &[]).await.expect("pid").get(0);
    let answer =
        everything(&two.rival, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await;
    assert!(answer.contains("0|"), "{answer}");
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let answer = everything(&two.rival, &format!("SELECT {function}({pid})")).await;
        assert!(!answer.contains("t|"), "{function}: {answer}");
    }
    two.acme.batch_execute("SELECT 1").await.expect("acme goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_of_one_tenant_are_apart() {
    let server = Server::start();
    let everywhere = server.tenant("acme");
    server.key("acme", &["--environment", "staging"]);
    let default = server.login_with(&everywhere).connect().await.expect("connect");
    let staging = server.login_with(&everywhere).database("staging").connect().await.expect("connect");
    default.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.expect("default");
    let error = staging.batch_execute("SELECT * FROM t").await.expect_err("not here");
    assert_eq!(error.code().map(|code| code.code()), Some("42P01"));
    staging.batch_execute("CREATE TABLE t (b text)").await.expect("its own t");
    let columns =
        everything(&staging, "SELECT column_name FROM information_schema.columns WHERE table_name = 't'")
            .await;
    assert!(columns.contains("b|") && !columns.contains("a|"), "{columns}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_per_tenant_and_no_name_on_the_disk() {
    let two = Two::start().await;
    let mut files = Vec::new();
    walk(&two.server.data(), &mut files);
    for path in &files {
        assert!(!path.contains(CANARY) && !path.contains("rival"), "a tenant's name in a path: {path}");
    }
    assert!(files.len() > 4, "{files:?}");
    // A dropped tenant leaves nothing that opens: its files may linger, its key may not.
    two.server.admin(&["tenant", "drop", "rival", "--yes"]);
    let gone = two.server.login_with(&two.rival_key).connect().await;
    assert!(gone.is_err());
    let tenants = two.server.admin(&["tenant", "list"]).to_string();
    assert!(!tenants.contains("\"rival\""), "{tenants}");
}

fn walk(directory: &std::path::Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("read a directory") {
        let path = entry.expect("an entry").path();
        out.push(path.display().to_string());
        if path.is_dir() {
            walk(&path, out);
        }
    }
}
