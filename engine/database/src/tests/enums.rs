//! Enums: in memory, in segments, after a crash and a restart, in the past; who waits for whom; plans that are kept.

use arrow::array::ArrayRef;
use sepal_query::values::{decode_binary, decode_text};
use sepal_types::SqlType;

use crate::{
    Outcome, Session,
    fixtures::{Fixture, Waiting, refused, run},
};

const TABLE: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE t (id int8 PRIMARY KEY, m mood, n mood NOT NULL DEFAULT 'ok');
    INSERT INTO t SELECT x, CASE x % 3 WHEN 0 THEN 'happy' WHEN 1 THEN 'sad' END, 'ok'
        FROM generate_series(1, 3000) AS s(x)";

/// What every step below leaves as it is.
async fn all_there(session: &mut Session) {
    assert_eq!(run(session, "SELECT count(*) FROM t WHERE m = 'happy'").await, [1_000]);
    assert_eq!(run(session, "SELECT count(*) FROM t WHERE m < 'ok' AND n = 'ok'").await, [1_000]);
    assert_eq!(run(session, "SELECT count(*) FROM t WHERE m IS NULL").await, [1_000]);
    assert_eq!(
        run(session, "SELECT id FROM t WHERE m IS NOT NULL ORDER BY m DESC, id LIMIT 2").await,
        [3, 6]
    );
    assert_eq!(run(session, "SELECT id FROM t ORDER BY m, id LIMIT 2").await, [1, 4]);
    assert_eq!(run(session, "SELECT count(*) FROM t WHERE m::text = 'sad'").await, [1_000]);
    assert_eq!(run(session, "SELECT count(*) FROM t WHERE n = (SELECT min(n) FROM t)").await, [3_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn enums_survive_what_rows_survive() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    all_there(&mut session).await;
    // From the log.
    let crashed = fixture.crash();
    all_there(&mut crashed.session().await).await;
    // From segments, with labels that came later.
    run(&mut session, "CHECKPOINT").await;
    all_there(&mut session).await;
    run(&mut session, "ALTER TYPE mood ADD VALUE 'fine' BEFORE 'happy'").await;
    run(&mut session, "ALTER TYPE mood RENAME VALUE 'ok' TO 'so so'").await;
    assert_eq!(refused(&mut session, "SELECT count(*) FROM t WHERE n = 'ok'").await, "22P02");
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE n = 'so so' AND n < 'fine'").await, [3_000]);
    run(&mut session, "ALTER TABLE t ADD COLUMN late mood DEFAULT 'fine'").await;
    run(&mut session, "ALTER TYPE mood RENAME VALUE 'fine' TO 'good'").await;
    run(&mut session, "ALTER TYPE mood RENAME VALUE 'so so' TO 'ok'").await;
    run(&mut session, "BEGIN").await;
    run(&mut session, "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'").await;
    run(&mut session, "UPDATE t SET m = 'blue'").await;
    run(&mut session, "ROLLBACK").await;
    all_there(&mut session).await;
    drop(session);
    let again = fixture.restart().await;
    let mut session = again.session().await;
    all_there(&mut session).await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE late = 'good'").await, [3_000]);
    assert_eq!(refused(&mut session, "DROP TYPE mood").await, "2BP01");
    assert_eq!(refused(&mut session, "CREATE TYPE mood AS ENUM ('a')").await, "42710");
    run(&mut session, "DROP TABLE t; DROP TYPE mood").await;
    assert_eq!(refused(&mut session, "SELECT 'sad'::mood").await, "42704");
}

/// The rows of a query with parameters, each sent as its bytes: a label's binary form is its text.
async fn count(session: &mut Session, sql: &str, values: &[&str]) -> u64 {
    let statement = session.parse_one(sql).unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    let sent: Vec<ArrayRef> = prepared
        .parameters()
        .iter()
        .zip(values)
        .map(|(ty, value)| {
            assert!(matches!(ty, SqlType::Enum(_)), "{sql}: {}", ty.display_name());
            let text = decode_text(ty, Some(value.as_bytes())).unwrap();
            let binary = decode_binary(ty, Some(value.as_bytes())).unwrap();
            assert_eq!(&text, &binary);
            text
        })
        .collect();
    let Outcome::Rows(mut rows) = session.execute(&prepared, sent).await.unwrap() else { panic!("{sql}") };
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().num_rows() as u64;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_beside_enums_are_such() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    run(&mut session, "CREATE TABLE k (m mood PRIMARY KEY)").await;
    for (sql, values, expected) in [
        ("INSERT INTO k VALUES ($1), ('ok'), ($2) RETURNING m", &["sad", "happy"][..], 3),
        ("SELECT * FROM k WHERE m = $1", &["ok"], 1),
        ("SELECT * FROM k WHERE $1 < m", &["sad"], 2),
        ("SELECT * FROM k WHERE m IN ($1, $2)", &["ok", "happy"], 2),
        ("SELECT * FROM k WHERE m BETWEEN $1 AND $2", &["ok", "happy"], 2),
        ("SELECT * FROM k WHERE coalesce(m, $1) = $2", &["ok", "happy"], 1),
        ("SELECT $1::mood, $1::mood::text, m FROM k WHERE m > $1", &["ok"], 1),
        ("UPDATE t SET m = $1 WHERE id < 10 AND m = $2 RETURNING m", &["ok", "sad"], 3),
        ("DELETE FROM k WHERE m = $1 RETURNING m", &["ok"], 1),
    ] {
        assert_eq!(count(&mut session, sql, values).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_plan_has_the_labels_of_its_execution() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    let texts = [
        "SELECT id FROM t WHERE m = 'happy' ORDER BY id LIMIT 1",
        "SELECT id FROM t WHERE m::text = 'glad' LIMIT 1",
    ];
    let mut prepared = Vec::new();
    for text in texts {
        let statement = session.parse_one(text).unwrap().unwrap();
        prepared.push(session.prepare(statement, &[]).await.unwrap());
    }
    run(&mut other, "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'").await;
    assert!(session.execute(&prepared[0], Vec::new()).await.is_err());
    session.fail_transaction();
    let Outcome::Rows(mut rows) = session.execute(&prepared[1], Vec::new()).await.unwrap() else {
        panic!("a query has rows")
    };
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_takes_and_gives_new_labels() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    run(&mut session, "PREPARE by_label AS SELECT id FROM t WHERE m = $1").await;
    let statement = session.parse_one("SELECT id, m FROM t WHERE m = $1").unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    run(&mut other, "ALTER TYPE mood ADD VALUE 'best'; UPDATE t SET m = 'best' WHERE id = 7").await;
    let types = session.parameter_types(&prepared).unwrap().into_owned();
    let sent = vec![decode_text(&types[0], Some(b"best")).unwrap()];
    let Outcome::Rows(mut rows) = session.execute(&prepared, sent).await.unwrap() else {
        panic!("a query has rows")
    };
    assert_eq!(rows.columns()[1].ty, types[0]);
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 1);
    drop(rows);
    assert_eq!(run(&mut session, "EXECUTE by_label('best')").await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_waits_for_its_tables_and_tables_for_their_types() {
    let fixture = Fixture::new();
    let (mut first, second) = (fixture.session().await, fixture.session().await);
    run(&mut first, TABLE).await;
    run(&mut first, "BEGIN; CREATE TABLE u (m mood)").await;
    // Nobody drops or alters a type of which somebody makes a column.
    let waiting = Waiting::begin(&fixture, second, "ALTER TYPE mood ADD VALUE 'best'").await;
    run(&mut first, "INSERT INTO u VALUES ('ok'); COMMIT").await;
    let (mut second, _) = waiting.ok().await;
    run(&mut second, "INSERT INTO u VALUES ('best')").await;
    assert_eq!(run(&mut first, "SELECT count(*) FROM u WHERE m >= 'ok'").await, [2]);
    run(&mut first, "BEGIN; DROP TABLE u; DROP TABLE t; DROP TYPE mood").await;
    let waiting = Waiting::begin(&fixture, second, "CREATE TABLE w (m mood)").await;
    run(&mut first, "COMMIT").await;
    let (mut second, state) = waiting.refused().await;
    assert_eq!(state, "42704");
    // A snapshot that knows another definition of the type makes no column of it.
    run(&mut first, "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE x (id int8)").await;
    run(&mut second, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM x").await;
    run(&mut first, "ALTER TYPE mood ADD VALUE 'b'").await;
    assert_eq!(refused(&mut second, "CREATE TABLE y (m mood)").await, "40001");
    run(&mut second, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_has_the_labels_of_the_past() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    run(&mut session, "CREATE SNAPSHOT earlier").await;
    run(&mut session, "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'").await;
    run(&mut session, "ALTER TYPE mood ADD VALUE 'best'").await;
    let past = "SELECT count(*) FROM t AS OF SNAPSHOT 'earlier' WHERE m::text = 'happy'";
    assert_eq!(run(&mut session, past).await, [1_000]);
    run(&mut session, "CREATE TABLE c CLONE t AS OF SNAPSHOT 'earlier'").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM c WHERE m = 'glad'").await, [1_000]);
    run(&mut session, "INSERT INTO c VALUES (0, 'best')").await;
    run(&mut session, "DROP TABLE t; DROP TABLE c; DROP TYPE mood").await;
    assert_eq!(refused(&mut session, "CREATE TABLE d CLONE t AS OF SNAPSHOT 'earlier'").await, "42704");
}
