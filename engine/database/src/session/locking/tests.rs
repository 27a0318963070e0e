//! The moment in which a commit is seen and its locks are not given back yet: what others find then.

use std::time::{Duration, Instant};

use sepal_types::{RowId, TableId};

use crate::{
    Session,
    fixtures::{Fixture, Waiting, run},
    session::Open,
};

/// A session's transaction, committed for all to see. Nobody was told of it, and it has its locks still.
async fn seen(fixture: &Fixture, session: &mut Session) -> Open {
    let mut open = session.open.take().unwrap();
    let ops = open.take_ops();
    fixture.tenant().await.store.commit(&open.base, ops).unwrap();
    open
}

/// What follows, as `boundary` has it.
async fn told(fixture: &Fixture, open: Open) {
    let Open { locks, replaced, .. } = open;
    let replaced = replaced.into_statements();
    for (table, pairs) in &replaced {
        locks.follow(*table, pairs);
    }
    fixture.tenant().await.updates.record(replaced);
    drop(locks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_relied_on_is_not_taken_away_in_between() {
    let fixture = Fixture::new();
    let (mut writer, mut child) = (fixture.session().await, fixture.session().await);
    run(&mut writer, "CREATE TABLE owner (id int PRIMARY KEY, name text)").await;
    run(&mut writer, "CREATE TABLE pet (id int PRIMARY KEY, owner int REFERENCES owner)").await;
    run(&mut writer, "INSERT INTO owner VALUES (1, 'ada')").await;
    run(&mut writer, "BEGIN; UPDATE owner SET name = 'eve' WHERE id = 1").await;
    // It began to rely on the key of the old row after the statement that replaced it.
    run(&mut child, "BEGIN; INSERT INTO pet VALUES (1, 1)").await;
    let open = seen(&fixture, &mut writer).await;
    let remover = fixture.session().await;
    let waiting = Waiting::begin(&fixture, remover, "DELETE FROM owner WHERE id = 1").await;
    told(&fixture, open).await;
    waiting.is_behind(&fixture, child.backend_pid()).await;
    run(&mut child, "COMMIT").await;
    assert_eq!(waiting.refused().await.1, "23503");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_is_asked_for_is_not_lost_in_between() {
    let fixture = Fixture::new();
    let (mut writer, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut writer, "CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)").await;
    run(&mut writer, "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10)").await;
    run(&mut writer, "BEGIN; UPDATE t SET v = 20 WHERE id = 1").await;
    run(&mut other, "BEGIN; SELECT id FROM u FOR UPDATE").await;
    // It has found both rows, and waits for the first.
    let sql = "SELECT t.v FROM u JOIN t ON t.id = u.id FOR KEY SHARE";
    let waiting = Waiting::begin(&fixture, fixture.session().await, sql).await;
    let open = seen(&fixture, &mut writer).await;
    run(&mut other, "ROLLBACK").await;
    waiting.is_behind(&fixture, writer.backend_pid()).await;
    told(&fixture, open).await;
    assert_eq!(waiting.ok().await.1, [20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_does_not_make_what_others_replace_pile_up() {
    let fixture = Fixture::new();
    let mut writer = fixture.session().await;
    run(&mut writer, "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10)").await;
    run(&mut writer, "BEGIN; UPDATE t SET v = 20 WHERE id = 1").await;
    let sql = "UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v";
    let waiting = Waiting::begin(&fixture, fixture.session().await, sql).await;
    let updates = fixture.tenant().await.updates.clone();
    let (other, begun, mut row) = (TableId(99_999), Instant::now(), 1);
    loop {
        for _ in 0..5_000 {
            updates.record(vec![(other, vec![(RowId(row), RowId(row + 1))])]);
            row += 2;
        }
        if updates.kept() < 5_000 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{} are kept", updates.kept());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run(&mut writer, "COMMIT").await;
    assert_eq!(waiting.ok().await.1, [21]);
}
