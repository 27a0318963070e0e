//! Snapshots by name, clones, and how long a snapshot may be held.

use std::time::Duration;

use sepal_control::Scopes;

use crate::{
    TransactionStatus,
    fixtures::{Fixture, refused, run, try_run},
};

const ITEMS: &str = "CREATE TABLE items (id serial PRIMARY KEY, sku text UNIQUE, v vector(4)); \
                     INSERT INTO items (sku, v) SELECT 's' || x, ('[' || x || ',0,0,1]')::vector \
                     FROM generate_series(1, 1500) AS s(x)";

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_a_table_of_its_own_for_good() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE INDEX ON items USING flat (v vector_l2_ops)").await;
    run(&mut session, "CREATE SNAPSHOT before; DELETE FROM items WHERE id > 10").await;
    run(&mut session, "CREATE TABLE copy CLONE items AS OF SNAPSHOT before; CREATE TABLE few CLONE items")
        .await;
    run(&mut session, "DELETE FROM copy WHERE id <= 1000; DROP TABLE items; DROP SNAPSHOT before").await;
    drop(session);
    let fixture = fixture.restart().await;
    let mut session = fixture.session().await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM copy").await, [500]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM few").await, [10]);
    assert_eq!(run(&mut session, "SELECT id FROM copy ORDER BY v <-> '[1200,0,0,1]' LIMIT 1").await, [1200]);
    assert_eq!(run(&mut session, "INSERT INTO copy (sku) VALUES ('new') RETURNING id").await, [1501]);
    assert_eq!(run(&mut session, "INSERT INTO few (sku) VALUES ('new') RETURNING id").await, [1501]);
    assert_eq!(refused(&mut session, "INSERT INTO copy (sku) VALUES ('s1100')").await, "23505");
    let names = "SELECT count(*) FROM pg_class WHERE relname IN \
                 ('copy_pkey', 'copy_sku_key', 'copy_v_idx', 'copy_id_seq')";
    assert_eq!(run(&mut session, names).await, [4]);
}

/// Between the source's checkpoint and its clone nothing is copied: both name one segment.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_shares_its_segments() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE TABLE copy CLONE items").await;
    let snapshot = fixture.tenant().await.store.snapshot();
    let segments = |name: &str| {
        let version = snapshot.find("default", name).unwrap();
        version.chunks.iter().map(|reference| reference.chunk.segment()).collect::<Vec<_>>()
    };
    assert!(segments("items").iter().all(Option::is_some), "flushed before");
    assert_eq!(segments("items"), segments("copy"));
    let def = &snapshot.find("default", "copy").unwrap().def;
    assert!(!def.captured);
    assert_ne!(def.id, snapshot.find("default", "items").unwrap().def.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_want_a_key_that_may_write_and_no_transaction() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    for sql in ["CREATE SNAPSHOT s", "DROP SNAPSHOT s"] {
        run(&mut session, "BEGIN").await;
        assert_eq!(refused(&mut session, sql).await, "25001", "{sql}");
        run(&mut session, "ROLLBACK").await;
    }
    // Rows of the same query string would be missing.
    session.begin_implicit();
    run(&mut session, "INSERT INTO t VALUES (2)").await;
    assert_eq!(refused(&mut session, "CREATE SNAPSHOT s").await, "25001");
    session.end_implicit(false).await.unwrap();
    run(&mut session, "CREATE SNAPSHOT s").await;
    assert_eq!(refused(&mut session, "CREATE SNAPSHOT s").await, "42710");

    let reader = fixture.principal(Scopes::READ);
    let mut reader = fixture.database.connect(reader, "", &[]).await.unwrap();
    assert_eq!(refused(&mut reader, "CREATE SNAPSHOT r").await, "42501");
    assert_eq!(refused(&mut reader, "DROP SNAPSHOT s").await, "42501");
    assert_eq!(refused(&mut reader, "CREATE TABLE u CLONE t").await, "42501");
    assert_eq!(run(&mut reader, "SELECT a FROM t AS OF SNAPSHOT 's'").await, [1]);
    let writer = fixture.principal(Scopes::WRITE);
    let mut writer = fixture.database.connect(writer, "", &[]).await.unwrap();
    for sql in [
        "SELECT a FROM t AS OF SNAPSHOT 's'",
        "SELECT 1 FROM t FOR SYSTEM_TIME AS OF (SELECT min(a)::text::timestamptz FROM t)",
        "CREATE TABLE u CLONE t",
    ] {
        assert_eq!(refused(&mut writer, sql).await, "42501", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_belongs_to_its_environment() {
    let fixture = Fixture::new();
    let control = fixture.database.control();
    let staging = sepal_control::EnvironmentName::parse("staging").unwrap();
    control.create_environment(fixture.tenant_id(), &staging).unwrap();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE SNAPSHOT s").await;
    let principal = fixture.principal(Scopes::READ_WRITE);
    let mut other = fixture.database.connect(principal, "staging", &[]).await.unwrap();
    run(&mut other, "CREATE TABLE t (a int)").await;
    assert_eq!(refused(&mut other, "SELECT * FROM t AS OF SNAPSHOT 's'").await, "42704");
    assert_eq!(run(&mut other, "SELECT count(*) FROM sepal_snapshots").await, [0]);
    run(&mut other, "CREATE SNAPSHOT s").await;
    assert_eq!(run(&mut other, "SELECT count(*) FROM t AS OF SNAPSHOT 's'").await, [0]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM t AS OF SNAPSHOT 's'").await, [1]);
}

/// With an age of nothing every snapshot is too old by the next statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_not_held_for_ever() {
    let fixture = Fixture::new_with(|options| options.max_snapshot_age = Some(Duration::ZERO));
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    // READ COMMITTED takes a newer one, also while nothing is said.
    run(&mut session, "BEGIN; INSERT INTO t VALUES (2)").await;
    assert!(!session.expire_snapshot());
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [2]);
    run(&mut session, "COMMIT").await;
    assert_eq!(session.snapshot_expires_in(), None);

    // REPEATABLE READ stays with the one that its first statement saw.
    run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    let _taken = try_run(&mut session, "SELECT a FROM t").await;
    let error = try_run(&mut session, "SELECT a FROM t").await.expect_err("too old");
    assert_eq!((error.state().code(), error.message()), ("72000", "snapshot too old"));
    session.fail_transaction();
    run(&mut session, "ROLLBACK").await;

    run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    let _taken = try_run(&mut session, "SELECT a FROM t").await;
    assert!(session.expire_snapshot(), "let go of while nothing is said");
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    assert_eq!(session.snapshot_expires_in(), None);
    assert_eq!(refused(&mut session, "SELECT a FROM t").await, "72000");
    run(&mut session, "COMMIT").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [2]);
}
