//! Rows that a statement names by their key: changed, locked and computed with as if it had been planned.

use std::{sync::Arc, time::Duration};

use arrow::{array::ArrayRef, util::display::array_value_to_string};
use sepal_query::values::decode_text;
use sepal_types::{Result, SqlType};

use crate::{
    Outcome, Prepared, Session,
    fixtures::{Fixture, refused, run},
};

const ITEMS: &str =
    "CREATE TABLE t (id int PRIMARY KEY, name varchar(5) UNIQUE, v int, n numeric(8,2), d float8 NOT NULL,
        at timestamptz, u uuid, e vector(2), j jsonb, a bigint, b smallint, UNIQUE (a, b));
    INSERT INTO t VALUES
        (1, 'one', 10, 1.50, 0.5, '2024-01-01 00:00:00+00', '123e4567-e89b-12d3-a456-426614174000', '[1,2]',
         '{\"k\": 1}', 7, 1),
        (2, 'two', 20, NULL, -1, NULL, NULL, NULL, NULL, 7, 2),
        (3, NULL, 2147483647, 3, 3, NULL, NULL, '[3,4]', '{}', NULL, 3),
        (4, 'four', NULL, 4, 4, NULL, NULL, NULL, '[1]', 8, NULL)";

/// Conditions that lead to at most one row by a key.
const KEYS: [&str; 16] = [
    "id = 1",
    "2 = id",
    "id = '3'",
    "id = 4::bigint",
    "id = 1 + 1",
    "id = 9",
    "id = 3000000000",
    "id = -3000000000",
    "name = 'one'",
    "name = 'nine'",
    "b = 2 AND a = 7",
    "a = 8 AND b = 1",
    "id = 1 AND v = 10",
    "id = 1 AND v > 10",
    "id = 4 AND v IS NULL AND name LIKE 'f%'",
    "id = 1 AND id = 2",
];

/// What is assigned: to no avail, in vain, and refused.
const SETS: [&str; 22] = [
    "v = v",
    "v = v + 1, name = NULL",
    "v = -v, n = n * 1.5, d = d / 2",
    "v = 7 % v",
    "v = v / (v - 10)",
    "v = NULL, d = d",
    "d = NULL",
    "d = v",
    "v = d",
    "v = n + 0.5",
    "id = id + 100",
    "id = 2",
    "name = 'three'",
    "name = 'one'",
    "name = 'too long'",
    "name = upper(name) || id",
    "at = at + interval '1 day', u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "e = '[5,6]', a = b, b = a",
    "e = '[5,6,7]'",
    "j = j || '{\"l\": 2}', v = coalesce(v, id) + CASE WHEN d > 0 THEN 1 ELSE 2 END",
    "v = DEFAULT, n = 12345678",
    "b = a * 10000",
];

/// What a statement comes to: its tag or its rows, or its error in words.
type Answer = std::result::Result<Vec<String>, String>;

async fn answer(session: &mut Session, sql: &str) -> Answer {
    let outcome = match session.prepare_now(session.parse_one(sql).unwrap().unwrap()).await {
        Ok(prepared) => execute(session, &prepared, Vec::new()).await,
        Err(error) => Err(error),
    };
    outcome.map_err(|error| {
        session.fail_transaction();
        format!("{} {} {:?}", error.state().code(), error.message(), error.detail())
    })
}

async fn execute(
    session: &mut Session,
    prepared: &Arc<Prepared>,
    parameters: Vec<ArrayRef>,
) -> Result<Vec<String>> {
    let mut rows = match session.execute(prepared, parameters).await? {
        Outcome::Rows(rows) => rows,
        Outcome::Done { tag } => return Ok(vec![tag]),
        _ => panic!("neither rows nor a tag"),
    };
    let named = rows.columns().iter().map(|column| format!("{} {}", column.name, column.ty.display_name()));
    let mut lines = vec![named.collect::<Vec<_>>().join(", ")];
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap();
            lines.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(", "));
        }
    }
    Ok(lines)
}

/// The statement with a condition, and what the table is then; undone.
async fn outcome(session: &mut Session, statement: &str) -> (Answer, Vec<String>) {
    run(session, "BEGIN").await;
    let outcome = answer(session, statement).await;
    let table = match &outcome {
        Ok(_) => answer(session, "SELECT * FROM t ORDER BY id").await.unwrap(),
        Err(_) => Vec::new(),
    };
    run(session, "ROLLBACK").await;
    (outcome, table)
}

/// Whether a statement looks its row up.
async fn is_by_key(session: &mut Session, statement: &str) -> bool {
    let plan = answer(session, &format!("EXPLAIN {statement}")).await.unwrap().join("\n");
    plan.contains("Index Scan using t_")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_leads_to_is_what_a_scan_finds() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    for key in KEYS {
        let mut statements: Vec<(String, &str)> =
            SETS.iter().map(|set| (format!("UPDATE t SET {set} WHERE"), "RETURNING *, v + 1 AS w")).collect();
        statements.push(("DELETE FROM t WHERE".to_owned(), "RETURNING j, t.id"));
        statements.push(("DELETE FROM t AS x WHERE".to_owned(), ""));
        statements.push(("SELECT v + 1, upper(name) AS shown, t.* FROM t WHERE".to_owned(), ""));
        statements.push(("SELECT * FROM t WHERE".to_owned(), "FOR UPDATE"));
        for (head, tail) in statements {
            let (by_key, by_scan) =
                (format!("{head} {key} {tail}"), format!("{head} ({key} OR false) {tail}"));
            let found = outcome(&mut session, &by_key).await;
            assert_eq!(found, outcome(&mut session, &by_scan).await, "{by_key}");
        }
        assert!(is_by_key(&mut session, &format!("UPDATE t SET v = v + 1 WHERE {key}")).await, "{key}");
        assert!(is_by_key(&mut session, &format!("DELETE FROM t WHERE {key}")).await, "{key}");
        assert!(
            is_by_key(&mut session, &format!("SELECT v + 1 FROM t WHERE {key} FOR UPDATE")).await,
            "{key}"
        );
        assert!(!is_by_key(&mut session, &format!("UPDATE t SET v = 1 WHERE {key} OR false")).await, "{key}");
    }
}

/// NULLs are no keys, numbers with a fraction are compared, and what asks for more than its row is planned.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_a_key_is_planned() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE TABLE s (id int, v int); INSERT INTO s VALUES (1, 10), (2, 20)").await;
    for (condition, rows) in [
        ("id = NULL", "0"),
        ("id = 1.0", "1"),
        ("a = 7", "2"),
        ("id = v / 10", "2"),
        ("id IN (1, 2)", "2"),
        ("id = 1 OR name = 'two'", "2"),
        ("id = (SELECT min(id) FROM s)", "1"),
        ("id = 1 AND EXISTS (SELECT 1 FROM s WHERE s.v = t.v)", "1"),
    ] {
        let changed = outcome(&mut session, &format!("UPDATE t SET v = 0 WHERE {condition}")).await.0;
        assert_eq!(changed, Ok(vec![format!("UPDATE {rows}")]), "{condition}");
    }
    let from = "UPDATE t SET v = s.v FROM s WHERE t.id = 1 AND s.id = 2 RETURNING t.v";
    assert_eq!(run(&mut session, from).await, [20]);
}

async fn prepare(session: &mut Session, sql: &str, declared: &[u32]) -> Arc<Prepared> {
    let statement = session.parse_one(sql).unwrap().unwrap();
    session.prepare(statement, declared).await.unwrap()
}

fn value(ty: &SqlType, text: Option<&str>) -> ArrayRef {
    decode_text(ty, text.map(str::as_bytes)).unwrap()
}

/// Runs a statement with values given as text; `-` is NULL.
async fn bound(session: &mut Session, prepared: &Arc<Prepared>, texts: &[&str]) -> Result<Vec<String>> {
    let typed = prepared.parameters().iter().zip(texts);
    let values = typed.map(|(ty, text)| value(ty, (*text != "-").then_some(*text))).collect();
    execute(session, prepared, values).await
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_keys_of_any_width() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    let [int2, int4, int8] = [21, 23, 20];
    for declared in [0, int2, int4, int8] {
        let update = prepare(&mut session, "UPDATE t SET v = $2 WHERE id = $1", &[declared, int4]).await;
        let delete = prepare(&mut session, "DELETE FROM t WHERE id = $1 AND v > $2", &[declared]).await;
        for (key, tag) in [("1", "UPDATE 1"), ("-1", "UPDATE 0"), ("-", "UPDATE 0"), ("9", "UPDATE 0")] {
            assert_eq!(
                bound(&mut session, &update, &[key, "5"]).await.unwrap(),
                [tag],
                "{key} as {declared}"
            );
        }
        assert_eq!(bound(&mut session, &delete, &["1", "5"]).await.unwrap(), ["DELETE 0"]);
        assert_eq!(bound(&mut session, &delete, &["1", "-"]).await.unwrap(), ["DELETE 0"]);
    }
    let wide = prepare(&mut session, "UPDATE t SET v = v + $2 WHERE id = $1 RETURNING v", &[int8]).await;
    for key in ["3000000000", "-9223372036854775808"] {
        assert_eq!(bound(&mut session, &wide, &[key, "1"]).await.unwrap(), ["v integer"], "no row, no error");
    }
    assert_eq!(bound(&mut session, &wide, &["1", "1"]).await.unwrap(), ["v integer", "6"]);
    let overflow = bound(&mut session, &wide, &["3", "1"]).await.unwrap_err();
    assert_eq!((overflow.state().code(), overflow.message()), ("22003", "integer out of range"));
    // Functions that want constants get them.
    let sql = "UPDATE t SET name = left($2, $3) WHERE name = $1 RETURNING name || '.'";
    let text = prepare(&mut session, sql, &[]).await;
    assert_eq!(bound(&mut session, &text, &["one", "single", "3"]).await.unwrap()[1], "sin.");
    let vector = prepare(&mut session, "UPDATE t SET e = $1 WHERE id = $2 RETURNING e", &[]).await;
    assert_eq!(bound(&mut session, &vector, &["[8,9]", "1"]).await.unwrap()[1], "[8.0, 9.0]");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_follows_its_table() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, ITEMS).await;
    let update = prepare(&mut session, "UPDATE t SET v = v + $1 WHERE id = $2", &[]).await;
    let locked = prepare(&mut session, "SELECT v FROM t WHERE id = $1 FOR UPDATE", &[]).await;
    for (change, expected) in [
        ("SELECT 1", 11),
        ("ALTER TABLE t ADD COLUMN late int DEFAULT 9", 12),
        ("ALTER TABLE t DROP COLUMN j", 13),
        ("ALTER TABLE t RENAME COLUMN name TO title", 14),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", 15),
    ] {
        run(&mut other, change).await;
        assert_eq!(bound(&mut session, &update, &["1", "1"]).await.unwrap(), ["UPDATE 1"], "{change}");
        assert_eq!(run(&mut other, "SELECT v FROM t WHERE id = 1").await, [expected], "{change}");
        assert_eq!(bound(&mut session, &locked, &["1"]).await.unwrap()[1], expected.to_string(), "{change}");
    }
    assert_eq!(run(&mut other, "SELECT late FROM t ORDER BY id").await, [9, 9, 9, 9]);
    // What is no key any more may be there twice.
    run(&mut other, "INSERT INTO t (id, d) VALUES (2, 0)").await;
    assert_eq!(bound(&mut session, &update, &["1", "2"]).await.unwrap(), ["UPDATE 2"]);

    run(&mut session, "BEGIN").await;
    assert_eq!(refused(&mut session, "SELECT 1 / 0").await, "22012");
    assert_eq!(bound(&mut session, &update, &["1", "1"]).await.unwrap_err().state().code(), "25P02");
    run(&mut session, "ROLLBACK").await;
    run(&mut session, "BEGIN READ ONLY").await;
    assert_eq!(bound(&mut session, &update, &["1", "1"]).await.unwrap_err().state().code(), "25006");
    session.fail_transaction();
    run(&mut session, "ROLLBACK; DROP TABLE t").await;
    assert_eq!(bound(&mut session, &update, &["1", "1"]).await.unwrap_err().state().code(), "42P01");
}

/// In a transaction a statement sees those before it, and rows that are flushed are found like others.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_changes_what_it_has_changed() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, ITEMS).await;
    let update = prepare(&mut session, "UPDATE t SET id = $1, v = v + 1 WHERE id = $2", &[]).await;
    for flushed in [false, true] {
        if flushed {
            fixture.tenant().await.flush().await.unwrap();
        }
        run(&mut session, "BEGIN").await;
        for step in ["11,1", "12,11", "1,12"] {
            let (to, from) = step.split_once(',').unwrap();
            assert_eq!(bound(&mut session, &update, &[to, from]).await.unwrap(), ["UPDATE 1"], "{step}");
            assert_eq!(bound(&mut session, &update, &[to, from]).await.unwrap(), ["UPDATE 0"], "{step}");
        }
        run(&mut session, "SAVEPOINT s; DELETE FROM t WHERE id = 1").await;
        assert_eq!(bound(&mut session, &update, &["5", "1"]).await.unwrap(), ["UPDATE 0"]);
        run(&mut session, "ROLLBACK TO s").await;
        assert_eq!(run(&mut session, "SELECT v FROM t WHERE id = 1 FOR UPDATE").await, [13]);
        assert_eq!(run(&mut other, "SELECT v FROM t WHERE id = 1").await, [10]);
        let taken = bound(&mut session, &update, &["2", "1"]).await.unwrap_err();
        assert_eq!((taken.state().code(), taken.detail()), ("23505", Some("Key (id)=(2) already exists.")));
        session.fail_transaction();
        run(&mut session, "ROLLBACK").await;
        assert_eq!(run(&mut session, "SELECT v FROM t WHERE id = 1").await, [10], "nothing of it stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_that_of_each_run() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, local timestamp)").await;
    let insert = "INSERT INTO t VALUES ($1, now(), CURRENT_TIMESTAMP)";
    let insert = prepare(&mut session, insert, &[]).await;
    let update = prepare(&mut session, "UPDATE t SET at = now() WHERE id = $1 AND at < now()", &[]).await;
    for id in ["1", "2"] {
        assert_eq!(bound(&mut session, &insert, &[id]).await.unwrap(), ["INSERT 0 1"]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let later = "SELECT count(*) FROM t AS a, t AS b WHERE a.id = 1 AND b.id = 2 AND a.at < b.at AND a.local < b.local";
    assert_eq!(run(&mut session, later).await, [1]);
    let recent = "SELECT count(*) FROM t WHERE at > now() - interval '1 hour' AND at <= now()";
    assert_eq!(run(&mut session, recent).await, [2]);
    assert_eq!(bound(&mut session, &update, &["1"]).await.unwrap(), ["UPDATE 1"]);
    assert_eq!(run(&mut session, "SELECT id FROM t ORDER BY at").await, [2, 1]);
    let shown = "UPDATE t SET local = NULL WHERE id = 2 RETURNING CASE WHEN at < now() THEN 1 ELSE 0 END";
    assert_eq!(run(&mut session, shown).await, [1]);
}
