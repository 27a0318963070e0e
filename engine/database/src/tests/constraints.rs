//! Constraints beyond statements: after a crash, with COPY, beside a past snapshot, and of clones.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};

use crate::{
    Outcome, Session,
    fixtures::{Fixture, refused, run, try_run},
};

/// A table whose rows refer to another's, with a CHECK on each.
async fn family(session: &mut Session) {
    run(session, "CREATE TABLE p (id int PRIMARY KEY CHECK (id > 0))").await;
    run(session, "CREATE TABLE c (id int, p int CHECK (p < 100) REFERENCES p ON DELETE CASCADE)").await;
    run(session, "INSERT INTO p VALUES (1), (2)").await;
    run(session, "INSERT INTO c VALUES (1, 1), (2, 2), (3, NULL)").await;
}

async fn still_hold(session: &mut Session) {
    assert_eq!(refused(session, "INSERT INTO c VALUES (9, 7)").await, "23503");
    assert_eq!(refused(session, "INSERT INTO c VALUES (9, 100)").await, "23514");
    assert_eq!(refused(session, "UPDATE p SET id = 0 WHERE id = 1").await, "23514");
    assert_eq!(refused(session, "UPDATE p SET id = 5 WHERE id = 1").await, "23503");
    assert_eq!(refused(session, "DROP TABLE p").await, "2BP01");
    assert_eq!(run(session, "SELECT count(*) FROM c").await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_survive_a_crash_and_a_checkpoint() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    family(&mut session).await;
    still_hold(&mut session).await;
    let crashed = fixture.crash();
    still_hold(&mut crashed.session().await).await;
    run(&mut session, "CHECKPOINT").await;
    let crashed = fixture.crash();
    let mut session = crashed.session().await;
    still_hold(&mut session).await;
    // Rows of segments are found by their key, and those that refer to them too.
    run(&mut session, "DELETE FROM p WHERE id = 2").await;
    assert_eq!(run(&mut session, "SELECT id FROM c ORDER BY id").await, [1, 3]);
}

/// The log gives no id of a constraint a second time: one that is new would be taken for the other, and not be asked of
/// the rows.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_after_a_crash_is_asked_of_the_rows() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)").await;
    for added in ["CHECK (id > 0)", "FOREIGN KEY (n) REFERENCES t"] {
        run(&mut session, &format!("ALTER TABLE t ADD {added}")).await;
        let crashed = fixture.crash();
        let mut session = crashed.session().await;
        assert_eq!(refused(&mut session, "ALTER TABLE t ADD CHECK (n > 1)").await, "23514", "{added}");
        run(&mut session, "CREATE TABLE u (id int PRIMARY KEY)").await;
        assert_eq!(refused(&mut session, "ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES u").await, "23503");
    }
    let crashed = fixture.crash();
    let mut session = crashed.session().await;
    run(&mut session, "ALTER TABLE t ADD CHECK (n > 0)").await;
    let ids = run(&mut session, "SELECT oid FROM pg_constraint ORDER BY oid").await;
    assert!(ids.len() == 4 && ids.is_sorted_by(|one, next| one < next), "{ids:?}");
}

async fn copy(session: &mut Session, parents: Vec<Option<i32>>) -> Result<String, &'static str> {
    let statement = session.split("COPY c (p) FROM STDIN").unwrap().remove(0);
    let prepared = session.prepare(statement, &[]).await.unwrap();
    let Outcome::CopyIn(mut copy) = session.execute(&prepared, Vec::new()).await.unwrap() else {
        panic!("COPY FROM begins")
    };
    let column: ArrayRef = Arc::new(Int32Array::from(parents));
    session.copy_rows(&mut copy, RecordBatch::try_from_iter([("p", column)]).unwrap()).await.unwrap();
    let copied = session.copy_finish(copy, true).await;
    copied.map_err(|error| {
        session.fail_transaction();
        error.state().code()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_to_them() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    family(&mut session).await;
    assert_eq!(copy(&mut session, vec![Some(1), Some(7)]).await, Err("23503"));
    assert_eq!(copy(&mut session, vec![Some(1), Some(100)]).await, Err("23514"));
    assert_eq!(run(&mut session, "SELECT count(*) FROM c").await, [3]);
    assert_eq!(copy(&mut session, vec![Some(1), None, Some(2)]).await, Ok("COPY 3".into()));
    assert_eq!(run(&mut session, "SELECT count(*) FROM c").await, [6]);
}

/// A transaction whose snapshot does not show a constraint does not get past it.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_is_no_way_around_them() {
    let fixture = Fixture::new();
    let (mut old, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut other, "CREATE TABLE p (id int PRIMARY KEY)").await;
    run(&mut other, "CREATE TABLE c (p int)").await;
    run(&mut other, "INSERT INTO p VALUES (1)").await;
    for write in ["INSERT INTO c VALUES (7)", "DELETE FROM p", "DROP TABLE p", "TRUNCATE p"] {
        run(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        run(&mut old, "SELECT count(*) FROM p").await;
        run(&mut other, "ALTER TABLE c ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p").await;
        run(&mut other, "INSERT INTO c VALUES (1)").await;
        let code = match try_run(&mut old, write).await {
            Ok(_) => refused(&mut old, "COMMIT").await,
            Err(error) => error.state().code(),
        };
        assert!(["40001", "23503", "2BP01", "0A000"].contains(&code), "{write}: {code}");
        old.fail_transaction();
        run(&mut old, "ROLLBACK").await;
        run(&mut other, "ALTER TABLE c DROP CONSTRAINT fk").await;
        run(&mut other, "DELETE FROM c").await;
        assert_eq!(run(&mut other, "SELECT id FROM p").await, [1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_the_checks_and_not_the_foreign_keys() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    family(&mut session).await;
    run(&mut session, "CREATE TABLE c2 CLONE c").await;
    assert_eq!(refused(&mut session, "INSERT INTO c2 VALUES (9, 100)").await, "23514");
    run(&mut session, "INSERT INTO c2 VALUES (9, 7)").await;
    run(&mut session, "DELETE FROM p").await;
    assert_eq!(run(&mut session, "SELECT id FROM c2 ORDER BY id").await, [1, 2, 3, 9]);
    assert_eq!(run(&mut session, "SELECT id FROM c ORDER BY id").await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_comes_to_rows_that_its_transaction_does_not_see() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (id int)").await;
    run(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT id FROM t").await;
    run(&mut other, "INSERT INTO t VALUES (1)").await;
    assert_eq!(refused(&mut one, "ALTER TABLE t ADD COLUMN n int NOT NULL").await, "40001");
    run(&mut one, "ROLLBACK; ALTER TABLE t ADD COLUMN n int NOT NULL DEFAULT 2 + 3").await;
    assert_eq!(run(&mut other, "SELECT n FROM t").await, [5]);
}
