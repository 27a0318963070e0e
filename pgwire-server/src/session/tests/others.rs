//! One session about another: what it sees of it, how it cancels what that runs, and how it ends it.

use super::*;

/// The process id of a client's session.
async fn pid(client: &mut Client) -> String {
    first(&client.run("SELECT pg_backend_pid()").await)
}

/// The first value of the first row.
fn first(messages: &[Message]) -> String {
    let row = messages.iter().find(|message| message.kind == b'D');
    row.and_then(|row| row.row().swap_remove(0)).unwrap_or_else(|| "nothing".to_owned())
}

/// Asks until the answer is the one that is expected.
async fn until(client: &mut Client, sql: &str, expected: &str) {
    for _ in 0..400 {
        if first(&client.run(sql).await) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{sql} never answers {expected}: {}", first(&client.run(sql).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_what_another_does() {
    let served = Served::start().await;
    let (mut one, mut other) = (served.client().await, served.client().await);
    let pid = pid(&mut other).await;
    let about = |what: &str| format!("SELECT {what} FROM pg_stat_activity WHERE pid = {pid}");
    assert_eq!(first(&one.run(&about("state")).await), "idle");
    assert_eq!(first(&one.run(&about("query")).await), "SELECT pg_backend_pid()");
    assert_eq!(first(&one.run(&about("client_addr")).await), "127.0.0.1");
    let port = other.socket.local_addr().unwrap().port().to_string();
    assert_eq!(first(&one.run(&about("client_port")).await), port);
    assert_eq!(first(&one.run(&about("wait_event")).await), "ClientRead");

    one.run("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    other.run("BEGIN; UPDATE t SET a = 2").await;
    assert_eq!(first(&one.run(&about("state")).await), "idle in transaction");
    let mut waiting = served.client().await;
    waiting.send(b'Q', b"UPDATE t SET a = 3\0").await;
    let waits =
        "SELECT wait_event_type || ' ' || state FROM pg_stat_activity WHERE query = 'UPDATE t SET a = 3'";
    until(&mut one, waits, "Lock active").await;
    other.run("COMMIT").await;
    assert_eq!(kinds(&waiting.until_ready().await), "CZ");
    drop(other);
    until(&mut one, &about("pid").replace("SELECT pid", "SELECT count(*)"), "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cancels_what_another_runs() {
    let served = Served::start().await;
    let (mut one, mut other) = (served.client().await, served.client().await);
    let pid = pid(&mut other).await;
    other.send(b'Q', b"SELECT pg_sleep(3600)\0").await;
    let sleeps = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}");
    until(&mut one, &sleeps, "PgSleep").await;
    assert_eq!(first(&one.run(&format!("SELECT pg_cancel_backend({pid})")).await), "t");
    assert_eq!(first_error(&other.until_ready().await), error("57014"));
    assert_eq!(first(&other.run("SELECT 1").await), "1");
    // Of one that runs nothing there is nothing to cancel.
    assert_eq!(first(&one.run(&format!("SELECT pg_cancel_backend({pid})")).await), "t");
    assert_eq!(first(&other.run("SELECT 2").await), "2");
    assert_eq!(first_error(&one.query("SELECT pg_cancel_backend(pg_backend_pid())").await), error("57014"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_others_and_itself() {
    let served = Served::start().await;
    let (mut one, mut idle, mut busy) = (served.client().await, served.client().await, served.client().await);
    let (of_idle, of_busy) = (pid(&mut idle).await, pid(&mut busy).await);
    assert_eq!(first(&one.run(&format!("SELECT pg_terminate_backend({of_idle})")).await), "t");
    let told = idle.until_closed_or_ready().await;
    assert_eq!((first_error(&told), kinds(&told)), (fatal("57P01"), "E".to_owned()));
    busy.run("CREATE TABLE t (a int)").await;
    busy.run("BEGIN; INSERT INTO t VALUES (1)").await;
    busy.send(b'Q', b"SELECT pg_sleep(3600)\0").await;
    until(&mut one, &format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {of_busy}"), "PgSleep")
        .await;
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    assert_eq!(first(&one.run(others).await), "t");
    let told = busy.until_closed_or_ready().await;
    assert_eq!(first_error(&told), fatal("57P01"), "and not a statement that was cancelled");
    until(&mut one, "SELECT count(*) FROM pg_stat_activity", "1").await;
    assert_eq!(first(&one.run("SELECT count(*) FROM t").await), "0", "its transaction is rolled back");
    let told = one.query_to_the_end("SELECT pg_terminate_backend(pg_backend_pid())").await;
    assert_eq!(first_error(&told), fatal("57P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_there_is_warned_of() {
    let served = Served::start().await;
    let mut one = served.client().await;
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let messages = one.run(&format!("SELECT {function}(1)")).await;
        assert_eq!(first(&messages), "f", "{function}");
        let warning = messages.iter().find(|message| message.kind == b'N').expect("a warning");
        assert_eq!(warning.error(), ("WARNING".to_owned(), "01000".to_owned()));
        let said = warning.field(b'M').unwrap();
        assert_eq!(said, "PID 1 is not a PostgreSQL backend process");
    }
}
