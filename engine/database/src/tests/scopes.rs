//! What a key of one scope may do.

use sepal_control::Scopes;

use crate::{
    Session,
    fixtures::{Fixture, refused, run},
};

async fn session(fixture: &Fixture, scopes: Scopes) -> Session {
    fixture.database.connect(fixture.principal(scopes), "", &[]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_write_reads_nothing() {
    let fixture = Fixture::new();
    run(&mut fixture.session().await, "CREATE TABLE t (a int PRIMARY KEY, b int)").await;
    let mut writer = session(&fixture, Scopes::WRITE).await;
    run(&mut writer, "INSERT INTO t VALUES (1, 1), (2, 2)").await;
    // What drivers ask to see whether a connection lives.
    assert_eq!(run(&mut writer, "SELECT 1").await, [1]);
    for sql in [
        "SELECT a FROM t",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM t)",
        "COPY t TO STDOUT",
        "COPY (SELECT a FROM t) TO STDOUT",
        "CREATE TABLE u AS SELECT a FROM t",
        "EXPLAIN ANALYZE SELECT a FROM t",
        "SELECT sepal_recall('t_pkey')",
        "INSERT INTO t VALUES (3, sepal_recall('t_pkey')::int)",
        "INSERT INTO t SELECT a + 10, b FROM t",
        "INSERT INTO t VALUES (3, (SELECT max(b) FROM t))",
        "INSERT INTO t VALUES (3, 3) RETURNING b",
        "UPDATE t SET b = 0 WHERE a = 1",
        "DELETE FROM t WHERE b = 2",
    ] {
        assert_eq!(refused(&mut writer, sql).await, "42501", "{sql}");
    }
    assert_eq!(run(&mut fixture.session().await, "SELECT count(*) FROM t").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_read_writes_nothing() {
    let fixture = Fixture::new();
    run(&mut fixture.session().await, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    let mut reader = session(&fixture, Scopes::READ).await;
    assert_eq!(run(&mut reader, "SELECT a FROM t").await, [1]);
    for sql in ["INSERT INTO t VALUES (2)", "DELETE FROM t", "DROP TABLE t", "COPY t FROM STDIN"] {
        assert_eq!(refused(&mut reader, sql).await, "42501", "{sql}");
    }
}
