//! Transactions whose base moves on under them.

use crate::fixtures::{Fixture, refused, run};

/// The definition in an ALTER TABLE is whole: put on top of another one it would take that one's column away, and
/// give its id, with its values, to the new one.
#[tokio::test(flavor = "multi_thread")]
async fn two_alters_at_once_do_not_undo_each_other() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, "BEGIN; ALTER TABLE t ADD COLUMN x int").await;
    run(&mut other, "ALTER TABLE t ADD COLUMN y int; INSERT INTO t (y) VALUES (7)").await;
    // READ COMMITTED looks at the new head here.
    assert_eq!(refused(&mut one, "SELECT 1").await, "40001");
    run(&mut one, "ROLLBACK").await;
    assert_eq!(run(&mut one, "SELECT y FROM t").await, [7]);
    assert_eq!(refused(&mut one, "SELECT x FROM t").await, "42703");
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
async fn rows_of_an_older_shape_are_a_conflict() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, "BEGIN; INSERT INTO t VALUES (1)").await;
    run(&mut other, "ALTER TABLE t ADD COLUMN y int").await;
    assert_eq!(refused(&mut one, "SELECT a FROM t").await, "40001");
    run(&mut one, "ROLLBACK").await;
    assert_eq!(run(&mut one, "SELECT count(*) FROM t").await, [0]);
}
