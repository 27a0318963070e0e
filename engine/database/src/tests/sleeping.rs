//! pg_sleep: it delays its own statement and nobody else's.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::fixtures::{Fixture, run, try_run};

fn sleeps(count: usize, seconds: f64) -> String {
    vec![format!("SELECT pg_sleep({seconds})"); count].join(" UNION ALL ")
}

/// On threads with as much stack as the server's, for a chain of a hundred.
#[test]
fn many_sleepers_hold_up_nobody() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(crate::PLANNING_STACK)
        .build()
        .unwrap();
    runtime.block_on(many_sleepers());
}

async fn many_sleepers() {
    let fixture = Fixture::new();
    let mut sleeping = Vec::new();
    for _ in 0..8 {
        let mut session = fixture.session().await;
        sleeping.push(tokio::spawn(async move { try_run(&mut session, &sleeps(100, 3600.0)).await.err() }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut awake = fixture.session().await;
    run(&mut awake, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    let begun = Instant::now();
    assert_eq!(run(&mut awake, "SELECT sum(a) FROM t, generate_series(1, 10) AS s(n)").await, [10]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(sleeping.iter().all(|task| !task.is_finished()), "they sleep");
    sleeping.iter().for_each(|task| task.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn sleeps_of_one_statement_add_up_and_those_of_many_sessions_do_not() {
    let fixture = Fixture::new();
    let begun = Instant::now();
    run(&mut fixture.session().await, &sleeps(20, 0.02)).await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    let mut sessions = Vec::new();
    for _ in 0..50 {
        sessions.push(fixture.session().await);
    }
    let begun = Instant::now();
    join_all(sessions.iter_mut().map(|session| run(session, "SELECT pg_sleep(0.2)"))).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_statement_can_be_cancelled_and_leaves_no_debt() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    let cancel = session.cancel_token();
    let begun = Instant::now();
    let waker = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let error = try_run(&mut session, &sleeps(50, 3600.0)).await.unwrap_err();
    assert_eq!(error.state().code(), "57014");
    waker.await.unwrap();
    assert_eq!(run(&mut session, "SELECT 1").await, [1]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
