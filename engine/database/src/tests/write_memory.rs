//! What a tenant's unfinished writes may hold in memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};

use crate::{
    CopyIn, Outcome, Session,
    fixtures::{Fixture, refused, run},
};

const LIMIT: usize = 1 << 20;
/// Takes about three quarters of the limit.
const LARGE: &str = "INSERT INTO t SELECT n FROM generate_series(1, 200000) AS s(n)";

fn limited() -> Fixture {
    Fixture::new_with(|options| options.write_memory_bytes = LIMIT)
}

#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_of_a_tenant_share_one_limit() {
    let fixture = limited();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut one, "CREATE TABLE t (a int)").await;
    run(&mut one, &format!("BEGIN; SAVEPOINT s; {LARGE}")).await;
    assert_eq!(refused(&mut other, LARGE).await, "53200");
    run(&mut one, "ROLLBACK TO s").await;
    run(&mut other, LARGE).await;
    run(&mut one, &format!("{LARGE}; COMMIT")).await;
    // Committed, they are nobody's charge.
    run(&mut other, LARGE).await;
    assert_eq!(run(&mut one, "SELECT count(*) FROM t").await, [600_000]);
}

async fn begin_copy(session: &mut Session) -> CopyIn {
    let statement = session.split("COPY t FROM STDIN").unwrap().remove(0);
    let prepared = session.prepare(statement, &[]).await.unwrap();
    let Outcome::CopyIn(copy) = session.execute(&prepared, Vec::new()).await.unwrap() else {
        panic!("COPY FROM begins")
    };
    copy
}

fn rows(count: usize) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int32Array::from(vec![7; count]));
    RecordBatch::try_from_iter([("a", column)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_past_the_limit_fails_and_returns_what_it_held() {
    let fixture = limited();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int)").await;
    let mut copy = begin_copy(&mut session).await;
    session.copy_rows(&mut copy, rows(200_000)).await.unwrap();
    let full = session.copy_rows(&mut copy, rows(200_000)).await.unwrap_err();
    assert_eq!(full.state().code(), "53200");
    assert!(full.hint().unwrap().starts_with("Load in parts"));
    copy.hold(50_000).unwrap();
    assert_eq!(copy.hold(LIMIT).unwrap_err().state().code(), "53200", "what has not come whole counts, too");
    copy.hold(0).unwrap();
    session.copy_abort(copy);
    for _ in 0..3 {
        let mut copy = begin_copy(&mut session).await;
        session.copy_rows(&mut copy, rows(200_000)).await.unwrap();
        assert_eq!(session.copy_finish(copy, true).await.unwrap(), "COPY 200000");
    }
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [600_000]);
}
