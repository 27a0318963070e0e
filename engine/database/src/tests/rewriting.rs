//! Rows that ALTER TABLE writes anew, and columns that are computed: after a crash, in the past, beside other sessions.

use crate::{
    Session,
    fixtures::{Fixture, refused, run},
};

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, n text, v vector(4)); \
                    INSERT INTO t SELECT x, x::text, ('[' || x || ',0,0,1]')::vector \
                    FROM generate_series(1, 1500) AS s(x)";
const ALTERED: &str = "ALTER TABLE t ALTER n TYPE int USING n::int * 2, ALTER v TYPE halfvec(4), \
                       ADD COLUMN g int GENERATED ALWAYS AS (id + 1) STORED";

/// The first 1,200 rows under the new definition, and all of them under the old one.
async fn check_altered(session: &mut Session) {
    assert_eq!(run(session, "SELECT sum(n) FROM t").await, [1200 * 1201]);
    assert_eq!(run(session, "SELECT g FROM t WHERE id = 7").await, [8]);
    assert_eq!(run(session, "SELECT id FROM t ORDER BY v <-> '[1100,0,0,1]' LIMIT 1").await, [1100]);
    assert_eq!(run(session, "SELECT count(*) FROM t AS OF SNAPSHOT 'before' WHERE n = '1300'").await, [1]);
    assert_eq!(run(session, "UPDATE t SET id = -1 WHERE id = 1 RETURNING g").await, [0]);
    run(session, "UPDATE t SET id = 1 WHERE id = -1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_type_survives_and_leaves_the_past_as_it_was() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ROWS).await;
    run(&mut session, "CREATE INDEX t_v ON t USING flat (v vector_l2_ops); CREATE SNAPSHOT before").await;
    run(&mut session, "DELETE FROM t WHERE id > 1200").await;
    run(&mut session, ALTERED).await;
    let snapshot = fixture.tenant().await.store.snapshot();
    let version = snapshot.find("default", "t").unwrap();
    let index = version.def.index("t_v").expect("the index is still there");
    assert!(index.valid);
    assert!(version.chunks.iter().all(|held| held.chunk.has_index(index.id)), "built over the new rows");
    check_altered(&mut session).await;
    let crashed = fixture.crash();
    check_altered(&mut crashed.session().await).await;
    drop(session);
    let fixture = fixture.restart().await;
    check_altered(&mut fixture.session().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_rows_and_definition() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ROWS).await;
    run(&mut session, "UPDATE t SET n = 'x' WHERE id = 1500").await;
    assert_eq!(refused(&mut session, ALTERED).await, "22P02");
    assert_eq!(refused(&mut session, "ALTER TABLE t ALTER v TYPE vector(5)").await, "22000");
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE n IS NOT NULL").await, [1500]);
    run(&mut session, "INSERT INTO t VALUES (1501, 'y', '[1,2,3,4]')").await;
    drop(session);
    let fixture = fixture.restart().await;
    let mut session = fixture.session().await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE n IN ('x', 'y')").await, [2]);
}

/// The table is emptied and filled again: what the transaction does not see would be gone.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_snapshot_does_not_see_are_not_lost() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    run(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT a FROM t").await;
    run(&mut other, "INSERT INTO t VALUES (2)").await;
    assert_eq!(refused(&mut one, "ALTER TABLE t ALTER a TYPE bigint").await, "40001");
    run(&mut one, "ROLLBACK").await;
    run(&mut one, "ALTER TABLE t ALTER a TYPE bigint").await;
    assert_eq!(run(&mut one, "SELECT count(*) FROM t").await, [2]);
}

/// A statement that was prepared before computes what came after.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_taken_back_takes_its_column_along() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1)").await;
    const UPDATE: &str = "UPDATE t SET b = b + 1 WHERE a = 1 RETURNING *";
    for _ in 0..3 {
        run(&mut session, UPDATE).await;
    }
    run(&mut session, "BEGIN; ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (b * 100) STORED").await;
    run(&mut session, UPDATE).await;
    assert_eq!(run(&mut session, "SELECT g FROM t").await, [500]);
    run(&mut session, "ROLLBACK").await;
    run(&mut session, UPDATE).await;
    assert_eq!(run(&mut session, "SELECT b FROM t").await, [5]);
    assert_eq!(refused(&mut session, "SELECT g FROM t").await, "42703");
}
