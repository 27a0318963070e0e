//! Schemas: what a statement that is kept means along another search path, and what a restart and the past know of
//! them.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use sepal_control::Scopes;

use crate::{
    Outcome, Prepared, Session,
    fixtures::{Fixture, refused, run},
};

/// A table of one name in three schemas, told apart by its one row.
const TABLES: &str = "CREATE SCHEMA a; CREATE SCHEMA b;
    CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 100);
    CREATE TABLE a.t (id int PRIMARY KEY, v int); INSERT INTO a.t VALUES (1, 200);
    CREATE TABLE b.t (id int PRIMARY KEY, v int); INSERT INTO b.t VALUES (1, 300)";

/// Executes what was prepared; the numbers of its first column.
async fn numbers(session: &mut Session, prepared: &Arc<Prepared>) -> Vec<i64> {
    let Outcome::Rows(mut rows) = session.execute(prepared, Vec::new()).await.unwrap() else {
        return Vec::new();
    };
    let mut numbers = Vec::new();
    while let Some(batch) = rows.next().await {
        let column = cast(batch.unwrap().column(0), &DataType::Int64).unwrap();
        numbers.extend(column.as_primitive::<Int64Type>().iter().flatten());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_goes_along_the_path_of_its_execution() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLES).await;
    let texts = [
        "SELECT v FROM t WHERE id = 1",
        "SELECT sum(v) FROM t",
        "SELECT v FROM t ORDER BY id FOR UPDATE",
        "UPDATE t SET v = v WHERE id = 1 RETURNING v",
        "INSERT INTO t VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET v = t.v RETURNING v",
    ];
    let mut prepared = Vec::new();
    for text in texts {
        let statement = session.parse_one(text).unwrap().unwrap();
        prepared.push(session.prepare(statement, &[]).await.unwrap());
    }
    for (path, value) in [
        ("a, public", 200),
        ("public", 100),
        ("b", 300),
        ("none, a", 200),
        ("\"$user\", public", 100),
        ("a, public", 200),
    ] {
        run(&mut session, &format!("SET search_path = {path}")).await;
        for (prepared, text) in prepared.iter().zip(texts) {
            assert_eq!(numbers(&mut session, prepared).await, [value], "{text} along {path}");
        }
        for text in texts {
            assert_eq!(run(&mut session, text).await, [value], "{text} along {path}");
        }
    }
    // A table that comes to stand before another one.
    run(&mut session, "SET search_path = c, public; CREATE SCHEMA c").await;
    assert_eq!(numbers(&mut session, &prepared[0]).await, [100]);
    run(&mut session, "CREATE TABLE c.t (id int PRIMARY KEY, v int); INSERT INTO c.t VALUES (1, 400)").await;
    assert_eq!(numbers(&mut session, &prepared[0]).await, [400]);
    run(&mut session, "ALTER SCHEMA c RENAME TO d").await;
    assert_eq!(numbers(&mut session, &prepared[0]).await, [100]);
    run(&mut session, "ALTER SCHEMA d RENAME TO c").await;
    assert_eq!(numbers(&mut session, &prepared[0]).await, [400]);
    run(&mut session, "DROP SCHEMA c CASCADE").await;
    assert_eq!(numbers(&mut session, &prepared[0]).await, [100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_a_transaction_ends_with_it() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLES).await;
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        run(&mut session, &format!("BEGIN ISOLATION LEVEL {isolation}")).await;
        assert_eq!(run(&mut session, "SELECT v FROM t").await, [100]);
        run(&mut session, "SET LOCAL search_path = a").await;
        assert_eq!(run(&mut session, "SELECT v FROM t").await, [200]);
        run(&mut session, "SAVEPOINT s; SET LOCAL search_path = b").await;
        assert_eq!(run(&mut session, "SELECT v FROM t").await, [300]);
        run(&mut session, "COMMIT").await;
        assert_eq!(run(&mut session, "SELECT v FROM t").await, [100]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_outlive_a_restart_and_are_part_of_the_past() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLES).await;
    run(&mut session, "CREATE SCHEMA bare; CREATE SEQUENCE a.q START 7; SELECT nextval('a.q')").await;
    run(&mut session, "CHECKPOINT; CREATE SNAPSHOT before; ALTER SCHEMA b RENAME TO c; CREATE SCHEMA e")
        .await;
    drop(session);
    // From the log, then from a manifest.
    let crashed = fixture.crash();
    let mut session = crashed.session().await;
    for _ in 0..2 {
        assert_eq!(run(&mut session, "SELECT v FROM c.t").await, [300]);
        assert_eq!(refused(&mut session, "SELECT v FROM b.t").await, "42P01");
        assert_eq!(refused(&mut session, "CREATE SCHEMA e").await, "42P06");
        assert_eq!(refused(&mut session, "DROP SCHEMA c").await, "2BP01");
        run(&mut session, "CHECKPOINT").await;
    }
    drop(session);
    let crashed = crashed.restart().await;
    let mut session = crashed.session().await;
    assert_eq!(run(&mut session, "SELECT v FROM c.t").await, [300]);
    assert_eq!(run(&mut session, "SELECT nextval('a.q')").await, [8]);
    run(&mut session, "DROP SCHEMA bare; CREATE TABLE e.t AS SELECT 1 AS v").await;
    // As it was: with the schema's old name, along the path of now.
    run(&mut session, "SET search_path = b; SET sepal.as_of = 'snapshot:before'").await;
    assert_eq!(run(&mut session, "SELECT v FROM t").await, [300]);
    assert_eq!(refused(&mut session, "SELECT v FROM c.t").await, "42P01");
    run(&mut session, "RESET sepal.as_of").await;
    assert_eq!(refused(&mut session, "SELECT v FROM t").await, "42P01");
    run(&mut session, "SET search_path = a").await;
    assert_eq!(run(&mut session, "SELECT v FROM t AS OF SNAPSHOT 'before'").await, [200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn public_is_emptied_and_stays() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLES).await;
    assert_eq!(refused(&mut session, "DROP SCHEMA public").await, "2BP01");
    run(&mut session, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    assert_eq!(refused(&mut session, "SELECT v FROM t").await, "42P01");
    assert_eq!(run(&mut session, "SELECT v FROM a.t").await, [200]);
    run(&mut session, "CREATE TABLE t (v int)").await;
    assert_eq!(refused(&mut session, "CREATE SCHEMA public").await, "42P06");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_begin_with_a_path() {
    let fixture = Fixture::new();
    run(&mut fixture.session().await, TABLES).await;
    let principal = fixture.principal(Scopes::READ_WRITE);
    let path = [("search_path".to_owned(), "b, public".to_owned())];
    let mut session = fixture.database.connect(principal, "", &path).await.unwrap();
    assert_eq!(run(&mut session, "SELECT v FROM t").await, [300]);
}
