//! Transactions beside each other: who waits, who is refused, and what a statement makes of rows that changed.

use crate::fixtures::{Fixture, Waiting, refused, run, try_run};

const ACCOUNTS: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10), (2, 20)";

/// The definition in an ALTER TABLE is whole: put on top of another one it would take that one's column away, and
/// give its id, with its values, to the new one.
#[tokio::test(flavor = "multi_thread")]
async fn two_alters_at_once_come_one_after_the_other() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, "BEGIN; ALTER TABLE t ADD COLUMN x int").await;
    let waiting = Waiting::begin(&fixture, other, "ALTER TABLE t ADD COLUMN y int").await;
    run(&mut one, "SELECT 1; COMMIT").await;
    let (mut other, _) = waiting.ok().await;
    assert_eq!(run(&mut other, "INSERT INTO t VALUES (1, 2, 3) RETURNING a + x + y").await, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_does_not_bring_back_an_old_definition() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, "BEGIN; SAVEPOINT s").await;
    run(&mut other, "ALTER TABLE t ADD COLUMN y int; INSERT INTO t (y) VALUES (7)").await;
    run(&mut one, "SELECT 1; ROLLBACK TO s").await;
    run(&mut one, "ALTER TABLE t ADD COLUMN z int; UPDATE t SET z = 8; COMMIT").await;
    assert_eq!(run(&mut one, "SELECT y + z FROM t").await, [15]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_waits_for_those_who_write_and_they_for_it() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, "BEGIN; INSERT INTO t VALUES (1)").await;
    let waiting = Waiting::begin(&fixture, other, "ALTER TABLE t ADD COLUMN y int DEFAULT 5").await;
    run(&mut one, "INSERT INTO t VALUES (2); COMMIT").await;
    let (mut other, _) = waiting.ok().await;
    assert_eq!(run(&mut other, "SELECT sum(a * y) FROM t").await, [15]);
    // The write that waits is planned anew with the column that came meanwhile.
    run(&mut other, "BEGIN; ALTER TABLE t ADD COLUMN z int DEFAULT 7").await;
    let waiting = Waiting::begin(&fixture, one, "INSERT INTO t (a) VALUES (3) RETURNING *").await;
    run(&mut other, "COMMIT").await;
    let (mut one, _) = waiting.ok().await;
    assert_eq!(run(&mut one, "SELECT z FROM t WHERE a = 3").await, [7]);
    run(&mut other, "BEGIN; DROP TABLE t").await;
    let waiting = Waiting::begin(&fixture, one, "DELETE FROM t").await;
    run(&mut other, "COMMIT").await;
    assert_eq!(waiting.refused().await.1, "42P01");
}

/// ALTER TABLE that writes the rows anew has those that it waited for; who waits for it computes what it brings.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_anew_with_those_that_were_waited_for() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, "BEGIN; INSERT INTO t VALUES (1)").await;
    let alter = "ALTER TABLE t ALTER a TYPE text, ADD COLUMN g int GENERATED ALWAYS AS (length(a)) STORED";
    let waiting = Waiting::begin(&fixture, other, alter).await;
    run(&mut one, "INSERT INTO t VALUES (22); COMMIT").await;
    let (mut other, _) = waiting.ok().await;
    assert_eq!(run(&mut other, "SELECT sum(g) FROM t").await, [3]);
    run(&mut other, "BEGIN; ALTER TABLE t ADD COLUMN h int GENERATED ALWAYS AS (length(a) * 10) STORED")
        .await;
    let waiting = Waiting::begin(&fixture, one, "INSERT INTO t (a) VALUES ('333')").await;
    run(&mut other, "COMMIT").await;
    let (mut one, _) = waiting.ok().await;
    assert_eq!(run(&mut one, "SELECT h FROM t ORDER BY h").await, [10, 20, 30]);
}

/// Whichever way a statement takes to its rows.
#[tokio::test(flavor = "multi_thread")]
async fn readers_wait_for_whoever_has_the_table_to_himself() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (id int PRIMARY KEY, v vector(2)); INSERT INTO t VALUES (1, '[1,0]')")
        .await;
    run(&mut one, "CREATE TABLE u (id int); INSERT INTO u VALUES (1); CREATE SNAPSHOT s").await;
    for sql in [
        "SELECT id FROM t",
        "SELECT id FROM t WHERE id = 1",
        "SELECT id FROM t ORDER BY v <-> '[0,0]' LIMIT 1",
        "SELECT id FROM knn(t, v, '[0,0]', 1)",
        "SELECT id FROM u WHERE EXISTS (SELECT 1 FROM t WHERE t.id = u.id)",
        "UPDATE u SET id = (SELECT max(id) FROM t) RETURNING id",
        "WITH c AS (SELECT id FROM t) SELECT id FROM c",
    ] {
        run(&mut one, "BEGIN; LOCK TABLE t").await;
        let waiting = Waiting::begin(&fixture, other, sql).await;
        run(&mut one, "COMMIT").await;
        let (session, rows) = waiting.ok().await;
        assert_eq!(rows, [1], "{sql}");
        other = session;
    }
    run(&mut one, "BEGIN; LOCK TABLE t").await;
    for sql in [
        "SELECT id FROM u",
        "WITH t AS (SELECT 1 AS id) SELECT id FROM t",
        "SELECT id FROM t AS OF SNAPSHOT 's'",
    ] {
        assert_eq!(run(&mut other, sql).await, [1], "{sql}");
    }
    run(&mut one, "COMMIT").await;
    // A statement by itself keeps nobody from it, a transaction block does.
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessShareLock' AND relation = 't'::regclass";
    run(&mut other, "SELECT id FROM t").await;
    assert_eq!(run(&mut one, held).await, [0]);
    run(&mut other, "BEGIN; SELECT id FROM t WHERE id = 1").await;
    assert_eq!(run(&mut one, held).await, [1]);
    let waiting = Waiting::begin(&fixture, one, "ALTER TABLE t ADD COLUMN w int DEFAULT 7").await;
    let reader = Waiting::begin(&fixture, fixture.session().await, "SELECT w FROM t").await;
    run(&mut other, "SELECT id FROM t; COMMIT").await;
    waiting.ok().await;
    assert_eq!(reader.ok().await.1, [7], "what the definition brings that it waited for is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_gives_back_its_locks() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; UPDATE t SET v = 11 WHERE id = 1; SAVEPOINT s; UPDATE t SET v = 21 WHERE id = 2")
        .await;
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET v = v + 5 WHERE id = 2 RETURNING v").await;
    assert_eq!(refused(&mut one, "INSERT INTO t VALUES (1, 0)").await, "23505");
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [25], "those since the savepoint");
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET v = v + 5 WHERE id = 1 RETURNING v").await;
    run(&mut one, "ROLLBACK TO s; COMMIT").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [16], "the others at its end");
    run(&mut one, "BEGIN; UPDATE t SET v = 0").await;
    let waiting = Waiting::begin(&fixture, other, "SELECT v FROM t WHERE id = 1 FOR UPDATE").await;
    assert_eq!(refused(&mut one, "SELECT 1 / 0").await, "22012");
    assert_eq!(waiting.ok().await.1, [16]);
    assert_eq!(refused(&mut one, "SELECT 1").await, "25P02");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_relied_on_stays_with_its_row() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; SELECT v FROM t WHERE id = 1 FOR KEY SHARE").await;
    run(&mut other, "UPDATE t SET v = 11 WHERE id = 1; BEGIN; UPDATE t SET v = 12 WHERE id = 1").await;
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET id = 9 WHERE id = 1 RETURNING v").await;
    run(&mut one, "COMMIT").await;
    let (mut other, rows) = waiting.ok().await;
    assert_eq!(rows, [12], "also within the transaction that has replaced it");
    run(&mut other, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_did_not_wait_for_is_what_it_saw_at_first() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    let mut third = fixture.session().await;
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "CREATE TABLE u (n int); INSERT INTO u VALUES (100)").await;
    let sums = [
        "UPDATE t SET v = v + (SELECT v FROM t WHERE id = 2) + (SELECT n FROM u) WHERE id = 1 RETURNING v",
        "SELECT v + (SELECT n FROM u) FROM t WHERE id = 1 FOR UPDATE",
    ];
    let mut waiter = other;
    for (sql, sum) in sums.into_iter().zip([11 + 20 + 100, 11 + 100]) {
        run(&mut one, "BEGIN; UPDATE t SET v = 11 WHERE id = 1").await;
        let waiting = Waiting::begin(&fixture, waiter, sql).await;
        run(&mut third, "UPDATE t SET v = 1000 WHERE id = 2; UPDATE u SET n = 5000").await;
        run(&mut one, "COMMIT").await;
        let (session, rows) = waiting.ok().await;
        assert_eq!(rows, [sum], "{sql}");
        waiter = session;
        run(&mut one, "UPDATE t SET v = 20 WHERE id = 2; UPDATE u SET n = 100").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_made_once() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "BEGIN; CREATE TABLE t (a int)").await;
    let waiting = Waiting::begin(&fixture, other, "CREATE TABLE t (b int)").await;
    run(&mut one, "COMMIT").await;
    assert_eq!(waiting.refused().await.1, "42P07");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_counts_on_from_the_one_it_waited_for() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; UPDATE t SET v = v + 1 WHERE id = 1; UPDATE t SET v = v + 1 WHERE id = 1").await;
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET v = v + 10 WHERE v < 13 RETURNING v").await;
    run(&mut one, "COMMIT").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [22], "12 + 10");
    // What matches no more is left alone, and so is what matches only now.
    run(&mut one, "BEGIN; UPDATE t SET v = 40 - v").await;
    let waiting = Waiting::begin(&fixture, other, "DELETE FROM t WHERE v = 20 RETURNING id").await;
    run(&mut one, "COMMIT").await;
    let (mut other, rows) = waiting.ok().await;
    assert_eq!(rows, [2], "40 - 20 is 20 again");
    run(&mut one, "BEGIN; UPDATE t SET v = v + 1").await;
    let waiting = Waiting::begin(&fixture, other, "DELETE FROM t WHERE v = 18 RETURNING id").await;
    run(&mut one, "COMMIT").await;
    assert_eq!(waiting.ok().await.1, [0_i64; 0]);
    other = fixture.session().await;
    assert_eq!(run(&mut other, "SELECT v FROM t").await, [19]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_update_was_none() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; SAVEPOINT s; DELETE FROM t").await;
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET v = v + 1 RETURNING v").await;
    run(&mut one, "ROLLBACK TO s").await;
    let (_, mut rows) = waiting.ok().await;
    rows.sort_unstable();
    assert_eq!(rows, [11, 21]);
    run(&mut one, "COMMIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeatable_read_refuses_what_changed_since_its_first_statement() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    // The snapshot is taken by the first query, not by BEGIN.
    run(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    run(&mut other, "UPDATE t SET v = 11 WHERE id = 1").await;
    assert_eq!(run(&mut one, "SELECT v FROM t WHERE id = 1").await, [11]);
    run(&mut other, "UPDATE t SET v = 12 WHERE id = 1; INSERT INTO t VALUES (3, 30)").await;
    assert_eq!(run(&mut one, "SELECT sum(v) FROM t").await, [31]);
    run(&mut one, "UPDATE t SET v = 21 WHERE id = 2").await;
    let error = try_run(&mut one, "UPDATE t SET v = 0 WHERE id = 1").await.unwrap_err();
    assert_eq!(error.message(), "could not serialize access due to concurrent update");
    run(&mut one, "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").await;
    run(&mut other, "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (4, 40)").await;
    run(&mut one, "SAVEPOINT s").await;
    let error = try_run(&mut one, "SELECT v FROM t WHERE id = 1 FOR SHARE").await.unwrap_err();
    assert_eq!(error.message(), "could not serialize access due to concurrent delete");
    run(&mut one, "ROLLBACK TO s").await;
    assert_eq!(refused(&mut one, "INSERT INTO t VALUES (4, 0)").await, "23505");
    run(&mut one, "ROLLBACK TO s").await;
    assert_eq!(refused(&mut one, "INSERT INTO t VALUES (4, 0) ON CONFLICT DO NOTHING").await, "40001");
    run(&mut one, "ROLLBACK TO s; INSERT INTO t VALUES (5, 50); COMMIT").await;
    assert_eq!(run(&mut one, "SELECT sum(v) FROM t").await, [140]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_waited_for_and_then_taken_or_free() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; INSERT INTO t VALUES (3, 1)").await;
    let waiting = Waiting::begin(&fixture, other, "INSERT INTO t VALUES (3, 2)").await;
    run(&mut one, "COMMIT").await;
    let (other, code) = waiting.refused().await;
    assert_eq!(code, "23505");
    run(&mut one, "BEGIN; INSERT INTO t VALUES (4, 1)").await;
    let waiting = Waiting::begin(&fixture, other, "INSERT INTO t VALUES (4, 2) RETURNING v").await;
    run(&mut one, "ROLLBACK").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [2]);
    // A key that is being freed.
    run(&mut one, "BEGIN; DELETE FROM t WHERE id = 4").await;
    let waiting = Waiting::begin(&fixture, other, "INSERT INTO t VALUES (4, 3) RETURNING v").await;
    run(&mut one, "COMMIT").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [3]);
    run(&mut one, "BEGIN; UPDATE t SET id = 40 WHERE id = 4").await;
    let waiting = Waiting::begin(&fixture, other, "INSERT INTO t VALUES (40, 4)").await;
    run(&mut one, "COMMIT").await;
    assert_eq!(waiting.refused().await.1, "23505");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_conflict_settles_what_a_wait_brings() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    let upsert = "INSERT INTO t VALUES (3, 1) ON CONFLICT (id) DO UPDATE SET v = t.v + 1 RETURNING v";
    run(&mut one, "BEGIN").await;
    assert_eq!(run(&mut one, upsert).await, [1]);
    let waiting = Waiting::begin(&fixture, other, upsert).await;
    run(&mut one, "COMMIT").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [2], "inserted by the one, updated by the other");
    run(&mut one, "BEGIN").await;
    assert_eq!(run(&mut one, upsert).await, [3]);
    let waiting = Waiting::begin(&fixture, other, upsert).await;
    run(&mut one, "COMMIT").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [4]);
    let skip = "INSERT INTO t VALUES (3, 9) ON CONFLICT DO NOTHING RETURNING v";
    run(&mut one, "BEGIN; DELETE FROM t WHERE id = 3").await;
    let waiting = Waiting::begin(&fixture, other, skip).await;
    run(&mut one, "COMMIT").await;
    let (mut other, rows) = waiting.ok().await;
    assert_eq!(rows, [9]);
    assert_eq!(run(&mut other, skip).await, [0_i64; 0]);
    run(&mut one, "CREATE TABLE u (a int PRIMARY KEY, b int UNIQUE); INSERT INTO u VALUES (1, 1), (2, 2)")
        .await;
    for sql in [
        "INSERT INTO u VALUES (3, 1) ON CONFLICT (a) DO NOTHING",
        "INSERT INTO u VALUES (1, 1) ON CONFLICT (a) DO UPDATE SET a = 2",
    ] {
        assert_eq!(refused(&mut one, sql).await, "23505", "{sql}: not what the clause is about");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_wait_for_each_other_are_told_at_once() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; UPDATE t SET v = 0 WHERE id = 1").await;
    run(&mut other, "BEGIN; UPDATE t SET v = 0 WHERE id = 2").await;
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET v = 1 WHERE id = 1").await;
    let error = try_run(&mut one, "UPDATE t SET v = 1 WHERE id = 2").await.unwrap_err();
    assert_eq!((error.state().code(), error.message()), ("40P01", "deadlock detected"));
    run(&mut one, "ROLLBACK").await;
    let (mut other, _) = waiting.ok().await;
    run(&mut other, "COMMIT").await;
    assert_eq!(run(&mut one, "SELECT sum(v) FROM t").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_by_time_by_cancel_and_by_leaving() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; SELECT v FROM t WHERE id = 1 FOR UPDATE").await;
    run(&mut other, "SET lock_timeout = '20ms'").await;
    let error = try_run(&mut other, "DELETE FROM t").await.unwrap_err();
    assert_eq!(error.message(), "canceling statement due to lock timeout");
    run(&mut other, "SET lock_timeout = 0").await;
    let cancel = other.cancel_token();
    let waiting = Waiting::begin(&fixture, other, "DELETE FROM t").await;
    cancel.cancel();
    let (other, code) = waiting.refused().await;
    assert_eq!(code, "57014");
    let waiting = Waiting::begin(&fixture, other, "UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v").await;
    drop(one);
    assert_eq!(waiting.ok().await.1, [11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_update_hands_out_rows_once() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE q (id int PRIMARY KEY, done bool)").await;
    run(&mut one, "INSERT INTO q SELECT n, false FROM generate_series(1, 5) AS s(n)").await;
    let next = "SELECT id FROM q WHERE NOT done ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED";
    run(&mut one, "BEGIN").await;
    run(&mut other, "BEGIN").await;
    assert_eq!(run(&mut one, next).await, [1, 2]);
    assert_eq!(run(&mut other, next).await, [3, 4]);
    assert_eq!(run(&mut one, next).await, [1, 2], "one's own are not skipped");
    let error = try_run(&mut other, "SELECT * FROM q FOR SHARE NOWAIT").await.unwrap_err();
    assert_eq!(error.message(), "could not obtain lock on row in relation \"q\"");
    run(&mut other, "ROLLBACK").await;
    // The pattern of a job queue, in one statement.
    let take = "UPDATE q SET done = true WHERE id = \
                (SELECT id FROM q WHERE NOT done ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id";
    assert_eq!(run(&mut other, take).await, [3]);
    assert_eq!(run(&mut other, take).await, [4]);
    run(&mut one, "UPDATE q SET done = true WHERE id = 1; COMMIT").await;
    assert_eq!(run(&mut other, next).await, [2, 5]);
    let joined = "SELECT a.id FROM q a JOIN q b ON a.id = b.id + 1 WHERE b.id = 4 FOR UPDATE OF a";
    assert_eq!(run(&mut other, joined).await, [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_update_shows_what_it_locked() {
    let fixture = Fixture::new();
    let (mut one, other) = (fixture.session().await, fixture.session().await);
    run(&mut one, ACCOUNTS).await;
    run(&mut one, "BEGIN; UPDATE t SET v = v + 5").await;
    let waiting =
        Waiting::begin(&fixture, other, "SELECT v FROM t WHERE v > 12 ORDER BY id FOR UPDATE").await;
    run(&mut one, "COMMIT").await;
    let (other, rows) = waiting.ok().await;
    assert_eq!(rows, [25], "the other row did not match when it looked");
    run(&mut one, "BEGIN; DELETE FROM t WHERE id = 1").await;
    let waiting = Waiting::begin(&fixture, other, "SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE").await;
    run(&mut one, "COMMIT").await;
    assert_eq!(waiting.ok().await.1, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_locked_by_session_and_by_transaction() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    run(&mut one, "SELECT pg_advisory_lock(7); SELECT pg_advisory_lock(7)").await;
    assert_eq!(run(&mut other, "SELECT pg_try_advisory_lock(7)").await, [0]);
    assert_eq!(run(&mut other, "SELECT pg_try_advisory_lock(0, 7)").await, [1], "other numbers");
    assert_eq!(run(&mut one, "SELECT pg_advisory_unlock(7)").await, [1]);
    let waiting = Waiting::begin(&fixture, other, "SELECT pg_advisory_xact_lock(7)").await;
    assert_eq!(run(&mut one, "SELECT pg_advisory_unlock(7)").await, [1]);
    let (mut other, _) = waiting.ok().await;
    assert_eq!(run(&mut one, count).await, [1], "the transaction's went with it");
    assert_eq!(run(&mut one, "SELECT pg_advisory_unlock(7)").await, [0]);
    assert_eq!(one.take_notices().len(), 1);
    run(&mut other, "BEGIN; SELECT pg_advisory_xact_lock_shared(n) FROM generate_series(1, 9) AS s(n)").await;
    assert_eq!(run(&mut one, count).await, [10]);
    let waiting =
        Waiting::begin(&fixture, one, "SELECT pg_advisory_lock(n) FROM generate_series(0, 9) AS s(n)").await;
    run(&mut other, "COMMIT").await;
    let (mut one, _) = waiting.ok().await;
    for number in 0..10 {
        let sql = format!("SELECT pg_advisory_unlock({number})");
        assert_eq!(run(&mut one, &sql).await, [1], "once each");
        assert_eq!(run(&mut one, &sql).await, [0]);
    }
    drop(other);
    assert_eq!(run(&mut one, count).await, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_add_to_one_row_and_none_is_lost() {
    let fixture = Fixture::new();
    let mut first = fixture.session().await;
    run(&mut first, ACCOUNTS).await;
    let mut tasks = Vec::new();
    for explicit in (0..16).map(|number| number % 2 == 0) {
        let mut session = fixture.session().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let add = "UPDATE t SET v = v + 1 WHERE id = 1";
                let sql =
                    if explicit { format!("BEGIN; {add}; SELECT v FROM t; COMMIT") } else { add.to_owned() };
                run(&mut session, &sql).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(run(&mut first, "SELECT v FROM t WHERE id = 1").await, [10 + 320]);
}
