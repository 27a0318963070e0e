//! Cursors and prepared statements by name, where SQL alone does not see: rows that stream, memory that is bounded,
//! names that the protocol shares, and that nothing of it outlives its session.

use std::{sync::Arc, time::Duration};

use crate::{
    DatabaseOptions, NamedStatement, Outcome, Prepared, RowStream, Session,
    fixtures::{Fixture, refused, run, try_run},
};

/// Rows that no memory would hold.
const ENDLESS: &str = "SELECT n FROM generate_series(1, 1000000000000) AS s(n)";

/// The command tag of a statement without rows.
async fn tag(session: &mut Session, sql: &str) -> String {
    let statement = session.parse_one(sql).unwrap().unwrap();
    let prepared = session.prepare_now(statement).await.unwrap();
    match session.execute(&prepared, Vec::new()).await.unwrap() {
        Outcome::Done { tag } => tag,
        _ => panic!("{sql} gives no tag"),
    }
}

async fn prepared(session: &mut Session, sql: &str) -> Arc<Prepared> {
    let statement = session.parse_one(sql).unwrap().unwrap();
    session.prepare(statement, &[]).await.unwrap()
}

/// How many rows come, if `most` are asked for.
async fn take(rows: &mut RowStream, most: usize) -> usize {
    let mut left = most;
    while left > 0
        && let Some(batch) = rows.next_upto(left).await
    {
        let batch = batch.unwrap();
        assert!(batch.num_rows() <= left, "no more than what was asked for");
        left -= batch.num_rows();
    }
    most - left
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_they_are_fetched() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "BEGIN").await;
    run(&mut session, &format!("DECLARE c CURSOR FOR {ENDLESS}")).await;
    assert_eq!(run(&mut session, "FETCH 3 FROM c").await, [1, 2, 3]);
    // Over the end of a batch, and of another.
    assert_eq!(tag(&mut session, "MOVE 20000 FROM c").await, "MOVE 20000");
    assert_eq!(run(&mut session, "FETCH RELATIVE 8000 FROM c").await, [28_003]);
    let ten = run(&mut session, "FETCH 10000 FROM c").await;
    assert_eq!((ten.len(), ten[0], ten[9_999]), (10_000, 28_004, 38_003));
    assert_eq!(tag(&mut session, "CLOSE c").await, "CLOSE CURSOR");
    run(&mut session, "COMMIT").await;
}

/// As of a client that asks for ten rows of a FETCH of hundred, and then for something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_was_not_read_to_its_end_counts_as_read() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, &format!("BEGIN; DECLARE c CURSOR FOR {ENDLESS}")).await;
    let fetch = prepared(&mut session, "FETCH 100 FROM c").await;
    let Outcome::Rows(mut rows) = session.execute(&fetch, Vec::new()).await.unwrap() else { panic!() };
    assert_eq!(take(&mut rows, 10).await, 10);
    assert_eq!(rows.tag(100), "FETCH 100");
    assert_eq!(tag(&mut session, "MOVE c").await, "MOVE 1");
    let error = rows.next().await.unwrap().expect_err("its rows are gone");
    assert_eq!(error.state().code(), "55000");
    assert_eq!(run(&mut session, "FETCH c").await, [102]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_bounded() {
    let fixture = Fixture::new_with(|options: &mut DatabaseOptions| {
        options.query_memory_bytes = 24 << 20;
        options.threads = 2;
    });
    let mut session = fixture.session().await;
    let large = "SELECT n, repeat('x', 200) || n::text FROM generate_series(1, 300000) AS s(n)";
    let tenant = fixture.tenant().await;

    run(&mut session, &format!("BEGIN; DECLARE c NO SCROLL CURSOR FOR {large}")).await;
    assert_eq!(tag(&mut session, "MOVE ALL FROM c").await, "MOVE 300000");
    run(&mut session, "COMMIT").await;

    run(&mut session, &format!("BEGIN; DECLARE c SCROLL CURSOR FOR {large}")).await;
    assert_eq!(tag(&mut session, "MOVE 1000 FROM c").await, "MOVE 1000");
    assert!(tenant.engine.memory().used() > 200_000, "what was seen is counted");
    assert_eq!(refused(&mut session, "MOVE ALL FROM c").await, "53200");
    run(&mut session, "ROLLBACK").await;

    // WITH HOLD is read when its transaction commits, which fails as a whole.
    run(&mut session, "CREATE TABLE t (a int)").await;
    run(&mut session, &format!("BEGIN; INSERT INTO t VALUES (1); DECLARE c CURSOR WITH HOLD FOR {large}"))
        .await;
    let error = try_run(&mut session, "COMMIT").await.expect_err("too much to hold");
    assert_eq!(error.state().code(), "53200");
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [0]);
    assert_eq!(refused(&mut session, "FETCH c").await, "34000");

    run(&mut session, "DECLARE c CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 50000) AS s(n)").await;
    let held = tenant.engine.memory().used();
    assert!(held >= 50_000 * 4, "{held}");
    assert_eq!(run(&mut session, "FETCH ABSOLUTE 50000 FROM c").await, [50_000]);
    run(&mut session, "CLOSE c").await;
    assert!(tenant.engine.memory().used() < held, "given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_a_cursor() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    let endless = prepared(&mut session, ENDLESS).await;
    run(&mut session, "BEGIN").await;
    let number = session.open_portal("p", &endless, &[]).unwrap();
    assert!(number.is_some() && session.portal_number("p") == number);
    assert_eq!(session.portal_columns("p").unwrap()[0].name, "n");
    assert!(session.portal_rows("p").unwrap().is_none(), "it has not run");
    // SQL begins it, Execute goes on, and back.
    assert_eq!(run(&mut session, "FETCH 2 FROM p").await, [1, 2]);
    let mut rows = session.portal_rows("p").unwrap().unwrap();
    assert_eq!(take(&mut rows, 3).await, 3);
    assert_eq!(rows.tag(3), "SELECT 3");
    assert_eq!(run(&mut session, "FETCH p").await, [6]);
    assert_eq!(tag(&mut session, "MOVE 9994 FROM p").await, "MOVE 9994");
    assert_eq!(take(&mut rows, 10).await, 10);
    assert_eq!(run(&mut session, "FETCH p").await, [10_011]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM pg_cursors WHERE name = 'p'").await, [1]);
    assert_eq!(session.open_portal("p", &endless, &[]).unwrap_err().state().code(), "42P03");
    run(&mut session, "SAVEPOINT s").await;
    assert_eq!(refused(&mut session, "FETCH PRIOR FROM p").await, "55000");
    assert_eq!(session.portal_rows("p").err().map(|error| error.state().code()), Some("25P02"));
    run(&mut session, "ROLLBACK TO s").await;
    assert_eq!(refused(&mut session, "DECLARE p CURSOR FOR SELECT 1").await, "42P03");
    run(&mut session, "ROLLBACK").await;
    assert_eq!(session.portal_number("p"), None);

    // Execute begins it, SQL goes on.
    run(&mut session, "BEGIN").await;
    session.open_portal("p", &endless, &[]).unwrap();
    let Outcome::Rows(rows) = session.execute(&endless, Vec::new()).await.unwrap() else { panic!() };
    let mut rows = session.share_rows("p", rows);
    assert_eq!(take(&mut rows, 5).await, 5);
    assert_eq!(run(&mut session, "FETCH p").await, [6]);
    session.close_portal("p");
    assert_eq!(refused(&mut session, "FETCH p").await, "34000");
    run(&mut session, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_runs_what_the_protocol_has_named() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    let names = session.named_statements();
    let add = |name: &str, prepared: Arc<Prepared>| {
        names.add(name, Arc::new(NamedStatement { prepared: Some(prepared), bytes: 1 }), false);
    };
    add("plus", prepared(&mut session, "SELECT $1::int + 1").await);
    assert_eq!(run(&mut session, "EXECUTE plus (41)").await, [42]);
    run(&mut session, "PREPARE minus (int) AS SELECT $1 - 1").await;
    let minus = names.get("minus").unwrap().prepared.clone().unwrap();
    assert_eq!(minus.parameters().len(), 1);
    let counts = "SELECT count(*) FROM pg_prepared_statements WHERE from_sql";
    assert_eq!(run(&mut session, counts).await, [1]);
    // A statement that would run itself, and others that PREPARE does not take.
    for (name, sql) in [("self", "EXECUTE self"), ("show", "SHOW jit"), ("end", "COMMIT")] {
        add(name, prepared(&mut session, sql).await);
        assert_eq!(refused(&mut session, &format!("EXECUTE {name}")).await, "0A000", "{sql}");
    }
    run(&mut session, "DEALLOCATE ALL").await;
    assert_eq!(names.get("plus").err().map(|error| error.state().code()), Some("26000"));

    // A portal of a FETCH from itself is no cursor.
    run(&mut session, "BEGIN").await;
    let fetch = prepared(&mut session, "FETCH ALL FROM p").await;
    assert_eq!(session.open_portal("p", &fetch, &[]).unwrap(), None);
    assert_eq!(refused(&mut session, "FETCH p").await, "34000");
    run(&mut session, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_names_are_capped() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    session.named_statements().limit(2, 100);
    run(&mut session, "PREPARE a AS SELECT 1").await;
    let long = format!("PREPARE b AS SELECT '{}'", "x".repeat(100));
    assert_eq!(refused(&mut session, &long).await, "53000");
    run(&mut session, "PREPARE b AS SELECT 1").await;
    assert_eq!(refused(&mut session, "PREPARE c AS SELECT 1").await, "54000");
    session.limit_portals(1);
    run(&mut session, "DECLARE a CURSOR WITH HOLD FOR SELECT 1").await;
    assert_eq!(refused(&mut session, "DECLARE b CURSOR WITH HOLD FOR SELECT 1").await, "53000");
}

/// With an age of nothing every snapshot is too old by the next statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_does_not_hold_its_snapshot_for_ever() {
    let fixture = Fixture::new_with(|options| options.max_snapshot_age = Some(Duration::ZERO));
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)").await;
    run(&mut session, "BEGIN; DECLARE c CURSOR FOR SELECT a FROM t").await;
    assert_eq!(session.snapshot_expires_in(), Some(Duration::ZERO));
    assert!(!session.expire_snapshot(), "the transaction goes on");
    assert_eq!(refused(&mut session, "FETCH c").await, "72000");
    run(&mut session, "ROLLBACK").await;
    // One WITH HOLD has none.
    run(&mut session, "DECLARE c CURSOR WITH HOLD FOR SELECT a FROM t ORDER BY a").await;
    assert_eq!(session.snapshot_expires_in(), None);
    assert_eq!(run(&mut session, "FETCH ALL FROM c").await, [1, 2]);
}

/// Plans know the catalogs, and the catalogs show what is planned: neither keeps the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_named_goes_with_it() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    run(&mut session, "PREPARE p AS SELECT a, pg_backend_pid() FROM t").await;
    run(&mut session, "BEGIN").await;
    run(&mut session, "DECLARE c CURSOR FOR SELECT a, current_setting('server_version') FROM t").await;
    run(&mut session, "EXECUTE p").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM pg_cursors").await, [1]);
    // In the middle of its transaction.
    drop(session);
    fixture.database.shutdown().await;
    let _closed = fixture.close();
}
