//! AS OF: moments in parameters, under writers, after a restart; and answers as they were recorded at the time.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    compute::cast,
    datatypes::{DataType, Int64Type},
    temporal_conversions::timestamp_us_to_datetime,
};
use sepal_query::sql::StatementKind;
use sepal_storage::HistoryPolicy;
use sepal_types::{Result, SqlType};

use crate::{
    Outcome, Session, arrow_type,
    fixtures::{Fixture, refused, run, try_run},
    maintain,
};

/// When the last commit was made.
async fn last_commit(fixture: &Fixture) -> i64 {
    fixture.tenant().await.store.snapshot().time_us()
}

fn parameter(time_us: i64) -> ArrayRef {
    cast(&Int64Array::from(vec![time_us]), &arrow_type(&SqlType::Timestamptz)).unwrap()
}

/// The numbers in the first column, with parameters.
async fn ask(session: &mut Session, sql: &str, parameters: Vec<ArrayRef>) -> Result<Vec<i64>> {
    let statement = session.parse_one(sql)?.unwrap();
    assert!(matches!(statement.kind, StatementKind::Sql(_)));
    let prepared = session.prepare(statement, &[]).await?;
    rows(session.execute(&prepared, parameters).await?).await
}

async fn rows(outcome: Outcome) -> Result<Vec<i64>> {
    let mut numbers = Vec::new();
    let Outcome::Rows(mut rows) = outcome else { return Ok(numbers) };
    while let Some(batch) = rows.next().await {
        let column = cast(batch?.column(0), &DataType::Int64).unwrap();
        numbers.extend(column.as_primitive::<Int64Type>().iter().flatten());
    }
    Ok(numbers)
}

/// The lines of an EXPLAIN.
async fn explained(session: &mut Session, sql: &str) -> String {
    let statement = session.parse_one(sql).unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    let Outcome::Rows(mut rows) = session.execute(&prepared, Vec::new()).await.unwrap() else {
        panic!("{sql}");
    };
    let mut lines = Vec::new();
    while let Some(batch) = rows.next().await {
        lines.extend(batch.unwrap().column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    lines.join("\n")
}

/// One step of a history, chosen by a number: rows come, change and go, columns too, rows are flushed.
async fn step(session: &mut Session, fixture: &Fixture, choice: u32) {
    let sql = match choice % 8 {
        0 | 1 => format!(
            "INSERT INTO h (a, b) SELECT x, x % 7 FROM generate_series(1, {}) AS s(x)",
            choice % 50 + 1
        ),
        2 => format!("UPDATE h SET b = b + {} WHERE a % 3 = 0", choice % 11),
        3 => format!("DELETE FROM h WHERE a % 5 = {}", choice % 5),
        4 => "TRUNCATE h".to_owned(),
        5 => format!("ALTER TABLE h ADD COLUMN c{choice} int DEFAULT 1"),
        6 => {
            let row = choice % 1_000;
            format!("BEGIN; INSERT INTO h (a, b) VALUES ({row}, 1); DELETE FROM h WHERE a = 1; COMMIT")
        }
        _ => {
            let tenant = fixture.tenant().await;
            tokio::task::spawn_blocking(move || maintain::checkpoint(&tenant)).await.unwrap().unwrap();
            return;
        }
    };
    run(session, &sql).await;
}

/// What a moment is known by.
const FACTS: &str = "SELECT sum(a * 31 + b)::int8 FROM h";

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_then_are_those_recorded_then() {
    let mut fixture = Fixture::new_with(|options| {
        options.history = HistoryPolicy { keep_versions: 1_000, ..HistoryPolicy::default() };
    });
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE h (a int, b int); INSERT INTO h VALUES (1, 1)").await;
    let mut recorded = Vec::new();
    let mut choice = 88_172_645_u32;
    for round in 0..60 {
        choice ^= choice << 13;
        choice ^= choice >> 17;
        choice ^= choice << 5;
        step(&mut session, &fixture, choice).await;
        recorded.push((last_commit(&fixture).await, run(&mut session, FACTS).await));
        if round % 9 == 0 {
            run(&mut session, &format!("CREATE SNAPSHOT round_{round}")).await;
        }
    }
    let then = FACTS.replace("FROM h", "FROM h FOR SYSTEM_TIME AS OF $1");
    for (time_us, facts) in &recorded {
        assert_eq!(&ask(&mut session, &then, vec![parameter(*time_us)]).await.unwrap(), facts, "{time_us}");
    }
    drop(session);
    fixture = fixture.restart().await;
    let mut session = fixture.session().await;
    for (round, (_, facts)) in recorded.iter().enumerate().step_by(9) {
        let named = FACTS.replace("FROM h", &format!("FROM h AS OF SNAPSHOT 'round_{round}'"));
        assert_eq!(&run(&mut session, &named).await, facts, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_sees_the_moment_that_it_is_given() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    let first = last_commit(&fixture).await;
    run(&mut session, "INSERT INTO t VALUES (2)").await;
    let second = last_commit(&fixture).await;
    run(&mut session, "DELETE FROM t; CREATE SNAPSHOT empty").await;

    let sql = "SELECT a FROM t FOR SYSTEM_TIME AS OF $1 WHERE a < $2 ORDER BY a";
    let statement = session.parse_one(sql).unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    assert_eq!(prepared.parameters()[0], SqlType::Timestamptz);
    let limit = || Arc::new(arrow::array::Int32Array::from(vec![9])) as ArrayRef;
    for (time_us, expected) in [(first, vec![1]), (second, vec![1, 2]), (first, vec![1])] {
        let outcome = session.execute(&prepared, vec![parameter(time_us), limit()]).await.unwrap();
        assert_eq!(rows(outcome).await.unwrap(), expected);
    }
    let before = parameter(first - 3_600_000_000);
    let Err(error) = session.execute(&prepared, vec![before, limit()]).await else { panic!("no such past") };
    assert_eq!(error.state().code(), "55000");
    assert!(error.message().contains("it begins at"), "{}", error.message());

    let name = |name: &str| Arc::new(arrow::array::StringArray::from(vec![name])) as ArrayRef;
    let named = "SELECT count(*) FROM t AS OF SNAPSHOT $1";
    assert_eq!(ask(&mut session, named, vec![name("empty")]).await.unwrap(), [0]);
    let error = ask(&mut session, named, vec![name("none")]).await.expect_err("no such snapshot");
    assert_eq!(error.state().code(), "42704");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_keeps_nothing_of_the_past() {
    let fixture = Fixture::new_with(|options| options.history = HistoryPolicy::NONE);
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE SNAPSHOT s").await;
    let statement = session.parse_one("SELECT a FROM t AS OF SNAPSHOT 's'").unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    let outcome = session.execute(&prepared, Vec::new()).await.unwrap();
    assert_eq!(rows(outcome).await.unwrap(), [1]);
    run(&mut session, "DROP TABLE t; DROP SNAPSHOT s; SELECT 1").await;
    let tenant = fixture.tenant().await;
    let worker = Arc::clone(&tenant);
    tokio::task::spawn_blocking(move || maintain::checkpoint(&worker)).await.unwrap().unwrap();
    tenant.store.forget_history().unwrap();
    let segments = fixture.data().join("tenants").join(fixture.tenant_id().to_string()).join("segments");
    let left = std::fs::read_dir(segments).unwrap().count();
    assert_eq!(left, 0, "the segment went although the statement is prepared");
    let Err(error) = session.execute(&prepared, Vec::new()).await else { panic!("it is gone") };
    assert_eq!(error.state().code(), "42704");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_is_described_as_it_was() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int, gone int); INSERT INTO t VALUES (1, 7)").await;
    let then = last_commit(&fixture).await;
    run(&mut session, "ALTER TABLE t DROP COLUMN gone; ALTER TABLE t ADD COLUMN later int").await;
    let literal = timestamp_us_to_datetime(then).unwrap();
    let at = |rest: &str| format!("SELECT {rest} FROM t FOR SYSTEM_TIME AS OF '{literal}'");
    assert_eq!(run(&mut session, &at("gone")).await, [7]);
    assert_eq!(refused(&mut session, &at("later")).await, "42703");
    // A parameter has no value yet when the statement is described: the table of today describes it.
    let error = ask(&mut session, "SELECT * FROM t FOR SYSTEM_TIME AS OF $1", vec![parameter(then)]).await;
    assert_eq!(error.expect_err("other columns").state().code(), "0A000");
    run(&mut session, "DROP TABLE t").await;
    assert_eq!(run(&mut session, &at("gone")).await, [7]);
    let error = ask(&mut session, "SELECT a FROM t FOR SYSTEM_TIME AS OF $1", vec![parameter(then)]).await;
    assert_eq!(error.expect_err("not there to describe").state().code(), "42P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_do_not_move_the_past() {
    let fixture = Fixture::new();
    let (mut reader, mut writer) = (fixture.session().await, fixture.session().await);
    run(&mut reader, "CREATE TABLE t (a int); INSERT INTO t SELECT x FROM generate_series(1, 100) AS s(x)")
        .await;
    let then = last_commit(&fixture).await;
    let tenant = fixture.tenant().await;
    let writing = tokio::spawn(async move {
        for round in 0..30 {
            run(
                &mut writer,
                "UPDATE t SET a = a + 1; INSERT INTO t VALUES (0); DELETE FROM t WHERE a % 10 = 3",
            )
            .await;
            if round % 10 == 5 {
                let tenant = Arc::clone(&tenant);
                tokio::task::spawn_blocking(move || maintain::checkpoint(&tenant)).await.unwrap().unwrap();
            }
        }
    });
    let sql = "SELECT sum(a)::int8 FROM t FOR SYSTEM_TIME AS OF $1";
    while !writing.is_finished() {
        assert_eq!(ask(&mut reader, sql, vec![parameter(then)]).await.unwrap(), [5050]);
    }
    writing.await.unwrap();
    assert_eq!(ask(&mut reader, sql, vec![parameter(then)]).await.unwrap(), [5050]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_neighbours_of_then_are_found_by_the_index_of_then() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(
        &mut session,
        "CREATE TABLE items (id int8, v vector(4)); \
         INSERT INTO items SELECT x, ('[' || x || ',0,0,1]')::vector FROM generate_series(1, 2000) AS s(x)",
    )
    .await;
    run(&mut session, "CREATE INDEX items_v ON items USING flat (v vector_l2_ops)").await;
    run(&mut session, "CREATE SNAPSHOT full").await;
    run(&mut session, "DELETE FROM items WHERE id < 1000; DROP INDEX items_v").await;
    let near = "FROM items AS OF SNAPSHOT 'full' ORDER BY v <-> '[3,0,0,1]' LIMIT 3";
    let mut found = run(&mut session, &format!("SELECT id {near}")).await;
    found.sort_unstable();
    assert_eq!(found, [2, 3, 4]);
    let plan = explained(&mut session, &format!("EXPLAIN SELECT id {near}")).await;
    assert!(plan.contains("Index Scan using items_v"), "{plan}");
    let knn = "SELECT id FROM knn(items, v, '[3,0,0,1]', 1) AS OF SNAPSHOT 'full'";
    assert_eq!(run(&mut session, knn).await, [3]);
    run(&mut session, "SET sepal.as_of = 'snapshot:full'").await;
    assert_eq!(run(&mut session, "SELECT id FROM items ORDER BY v <-> '[7,0,0,1]' LIMIT 1").await, [7]);
    run(&mut session, "RESET sepal.as_of").await;
    assert_eq!(run(&mut session, "SELECT id FROM items ORDER BY v <-> '[7,0,0,1]' LIMIT 1").await, [1000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_prepared_under_as_of_comes_back_to_the_present() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(
        &mut session,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE SNAPSHOT s; INSERT INTO t VALUES (2)",
    )
    .await;
    let count = |session: &Session| session.parse_one("SELECT count(*) FROM t").unwrap().unwrap();
    let before = session.prepare(count(&session), &[]).await.unwrap();
    run(&mut session, "SET sepal.as_of = 'snapshot:s'").await;
    let under = session.prepare(count(&session), &[]).await.unwrap();
    for prepared in [&before, &under] {
        assert_eq!(rows(session.execute(prepared, Vec::new()).await.unwrap()).await.unwrap(), [1]);
    }
    assert_eq!(refused(&mut session, "INSERT INTO t VALUES (3)").await, "25006");
    // One that cannot be read does not lock the session up.
    run(&mut session, "SET sepal.as_of = '2001-01-01'").await;
    assert_eq!(refused(&mut session, "SELECT 1 FROM t").await, "55000");
    run(&mut session, "RESET sepal.as_of").await;
    for prepared in [&before, &under] {
        assert_eq!(rows(session.execute(prepared, Vec::new()).await.unwrap()).await.unwrap(), [2]);
    }
    // For one transaction.
    run(&mut session, "BEGIN; SET LOCAL sepal.as_of = 'snapshot:s'").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [1]);
    run(&mut session, "COMMIT").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [2]);
    assert!(try_run(&mut session, "INSERT INTO t VALUES (3)").await.is_ok());
}
