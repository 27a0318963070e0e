//! INSERT, by itself and in a transaction: what it refuses, what it sees of itself, and what is there after a crash.
//!
//! A statement that only brings rows makes no view of its own of the table. Nobody may notice.

use arrow::array::Array;

use crate::{
    Outcome, Session,
    fixtures::{Fixture, refused, run, try_run},
};

const ITEMS: &str = "CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, v int NOT NULL DEFAULT 7)";

/// The SQLSTATE, the constraint's part of the message, and the DETAIL.
async fn violation(session: &mut Session, sql: &str) -> (&'static str, String, String) {
    let Err(error) = try_run(session, sql).await else { panic!("{sql} went through") };
    session.fail_transaction();
    let detail = error.detail().unwrap_or_default().to_owned();
    (error.state().code(), error.message().to_owned(), detail)
}

fn taken(constraint: &str, key: &str) -> (&'static str, String, String) {
    let message = format!("duplicate key value violates unique constraint \"{constraint}\"");
    ("23505", message, format!("Key {key} already exists."))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_key_is_refused_and_nothing_of_the_statement_stays() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "INSERT INTO t VALUES (1, 'one', 1), (2, NULL, 2), (3, NULL, 3)").await;
    let cases = [
        // Within the statement's rows.
        ("INSERT INTO t VALUES (4, 'a', 0), (4, 'b', 0)", taken("t_pkey", "(id)=(4)")),
        ("INSERT INTO t VALUES (4, 'a', 0), (5, 'a', 0)", taken("t_name_key", "(name)=(a)")),
        // Against what is committed.
        ("INSERT INTO t VALUES (4, 'a', 0), (1, 'b', 0)", taken("t_pkey", "(id)=(1)")),
        ("INSERT INTO t VALUES (4, 'one', 0)", taken("t_name_key", "(name)=(one)")),
    ];
    for block in [false, true] {
        for (sql, expected) in &cases {
            if block {
                run(&mut session, "BEGIN").await;
            }
            assert_eq!(violation(&mut session, sql).await, *expected, "{sql}");
            if block {
                run(&mut session, "ROLLBACK").await;
            }
            assert_eq!(run(&mut session, "SELECT id FROM t ORDER BY id").await, [1, 2, 3], "{sql}");
        }
    }
    assert_eq!(refused(&mut session, "INSERT INTO t VALUES (4, 'a', NULL)").await, "23502");
    assert_eq!(refused(&mut session, "INSERT INTO t VALUES (NULL, 'a', 1)").await, "23502");
    // A deleted row's key is free.
    run(&mut session, "DELETE FROM t WHERE id = 1").await;
    assert_eq!(run(&mut session, "INSERT INTO t VALUES (1, 'one') RETURNING v").await, [7]);
    assert_eq!(run(&mut session, "SELECT sum(v) FROM t").await, [12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_sees_what_it_inserts() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ITEMS).await;
    let all = "SELECT id FROM t ORDER BY id";
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        run(&mut one, begin).await;
        run(&mut one, "INSERT INTO t (id) VALUES (1)").await;
        run(&mut other, "INSERT INTO t (id) VALUES (10)").await;
        let repeatable = begin != "BEGIN";
        let expected: &[i64] = if repeatable { &[1] } else { &[1, 10] };
        assert_eq!(run(&mut one, all).await, expected, "{begin}");
        run(&mut one, "INSERT INTO t (id) VALUES (2); SAVEPOINT s; INSERT INTO t (id) VALUES (3)").await;
        assert_eq!(violation(&mut one, "INSERT INTO t (id) VALUES (3)").await, taken("t_pkey", "(id)=(3)"));
        run(&mut one, "ROLLBACK TO s").await;
        assert_eq!(violation(&mut one, "INSERT INTO t (id) VALUES (2)").await, taken("t_pkey", "(id)=(2)"));
        run(&mut one, "ROLLBACK TO s; INSERT INTO t (id) VALUES (3); ROLLBACK TO s").await;
        run(&mut one, "UPDATE t SET v = id WHERE id < 10; INSERT INTO t (id, v) VALUES (4, 4)").await;
        run(&mut one, "DELETE FROM t WHERE id = 1; INSERT INTO t (id, v) VALUES (1, 5)").await;
        assert_eq!(run(&mut one, "SELECT sum(v) FROM t WHERE id < 10").await, [11]);
        assert_eq!(run(&mut other, all).await, [10], "nobody else sees it yet");
        run(&mut one, "COMMIT").await;
        assert_eq!(run(&mut other, all).await, [1, 2, 4, 10]);
        run(&mut other, "TRUNCATE t").await;
    }
}

/// What a pipeline or a query string begins is one transaction, whose statements see each other.
#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_implicit_transaction_build_on_each_other() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, ITEMS).await;
    session.begin_implicit();
    run(&mut session, "INSERT INTO t (id) VALUES (1)").await;
    run(&mut session, "INSERT INTO t (id) VALUES (2)").await;
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await, [0]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [2]);
    session.end_implicit(true).await.unwrap();
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await, [2]);

    session.begin_implicit();
    run(&mut session, "INSERT INTO t (id) VALUES (3)").await;
    assert_eq!(refused(&mut session, "INSERT INTO t (id) VALUES (3)").await, "23505");
    session.end_implicit(false).await.unwrap();
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await, [2]);

    // A table of the transaction's own, and rows that come and go within it.
    session.begin_implicit();
    run(&mut session, "CREATE TABLE u (id serial PRIMARY KEY, x int)").await;
    run(&mut session, "INSERT INTO u (x) VALUES (5)").await;
    run(&mut session, "INSERT INTO u (x) VALUES (6)").await;
    run(&mut session, "DELETE FROM u WHERE x = 5").await;
    assert_eq!(refused(&mut other, "SELECT * FROM u").await, "42P01");
    session.end_implicit(true).await.unwrap();
    assert_eq!(run(&mut other, "INSERT INTO u (x) VALUES (7) RETURNING id").await, [3]);
    assert_eq!(run(&mut other, "SELECT x FROM u ORDER BY id").await, [6, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn returning_defaults_and_conflicts_are_as_ever() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(
        &mut session,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, \
         n int DEFAULT 2 + 3)",
    )
    .await;
    let two = "INSERT INTO t (name) VALUES ('a'), ('b') RETURNING id * 10 + n";
    assert_eq!(run(&mut session, two).await, [15, 25]);
    assert_eq!(run(&mut session, "INSERT INTO t DEFAULT VALUES RETURNING id").await, [3]);
    let skip = "INSERT INTO t (name) VALUES ('a'), ('c'), ('c') ON CONFLICT DO NOTHING RETURNING n";
    assert_eq!(run(&mut session, skip).await, [5]);
    assert_eq!(run(&mut session, skip).await, [0_i64; 0]);
    let upsert = "INSERT INTO t (name) VALUES ('a'), ('d') \
                  ON CONFLICT (name) DO UPDATE SET n = t.n + 1 RETURNING n";
    assert_eq!(run(&mut session, upsert).await, [6, 5]);
    // ON CONFLICT speaks of names: another constraint is still in the way.
    let overriding = "INSERT INTO t (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'z') \
                      ON CONFLICT (name) DO NOTHING";
    assert_eq!(violation(&mut session, overriding).await, taken("t_pkey", "(id)=(1)"));
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [5]);
}

/// Every type, with and without a value, in rows so few that the log has them in its own layout.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_types_survive_a_crash() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(
        &mut session,
        "CREATE TABLE t (id int PRIMARY KEY, b bool, s smallint, l bigint, r real, d float8, n numeric(12,3), \
         m numeric, x text, vc varchar(5), y bytea, u uuid, da date, ti time, ts timestamp, tz timestamptz, \
         i interval, j json, jb jsonb, v vector(3), w vector, ia int[], ta text[])",
    )
    .await;
    let insert = "INSERT INTO t VALUES (1, true, -2, 3, 1.5, -0.25, 123.456, 7.5, 'é', '', '\\x00ff', \
        '6ba7b810-9dad-11d1-80b4-00c04fd430c8', '2024-02-29', '23:59:59.999999', '1999-12-31 23:59:59.5', \
        '2024-01-01 00:00:00+02', '1 mon 2 days 03:00:00', '{\"a\": 1}', '{\"b\": [null]}', '[1,2.5,-3]', '[4,5]', \
        '{1,NULL,3}', '{\"a,b\",NULL,\"\"}')";
    run(&mut session, insert).await;
    run(&mut session, "INSERT INTO t (id) VALUES (2)").await;
    run(&mut session, "INSERT INTO t (id, x, ia) VALUES (3, '', '{}'), (4, NULL, '{5}')").await;
    run(&mut session, "ALTER TABLE t ADD COLUMN late int DEFAULT 9; ALTER TABLE t DROP COLUMN s").await;
    run(&mut session, "INSERT INTO t (id, late) VALUES (5, 50)").await;
    let shown = shown(&mut session).await;
    assert_eq!(shown.matches('\n').count(), 5);
    let crashed = fixture.crash();
    let mut survivor = crashed.session().await;
    assert_eq!(self::shown(&mut survivor).await, shown);
    assert_eq!(refused(&mut survivor, "INSERT INTO t (id) VALUES (5)").await, "23505");
    assert_eq!(run(&mut survivor, "SELECT sum(late) FROM t").await, [86]);
}

/// The table, a line for each row.
async fn shown(session: &mut Session) -> String {
    let statement = session.split("SELECT * FROM t ORDER BY id").unwrap().remove(0);
    let prepared = session.prepare_now(statement).await.unwrap();
    let Outcome::Rows(mut rows) = session.execute(&prepared, Vec::new()).await.unwrap() else {
        panic!("a SELECT has rows")
    };
    let mut text = String::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap();
        for row in 0..batch.num_rows() {
            for (array, column) in batch.columns().iter().zip(rows.columns().iter()) {
                let mut value = bytes::BytesMut::new();
                if array.is_null(row) {
                    value.extend_from_slice(b"NULL");
                } else {
                    sepal_query::values::encode_text(array.as_ref(), row, &column.ty, &mut value).unwrap();
                }
                text.push_str(&format!("{} ", String::from_utf8_lossy(&value)));
            }
            text.push('\n');
        }
    }
    text
}
