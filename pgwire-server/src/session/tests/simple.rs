//! The simple protocol, errors, notices and the bounds on results.

use std::time::Duration;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn w10_each_result_is_sent_before_the_next_statement_runs() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = client.query("select 1; select 1/0; select 2").await;
    let kinds = kinds(&messages);
    assert!(kinds.starts_with("TDC") && kinds.ends_with("EZ"), "{kinds}: the first result stays");
    assert_eq!(kinds.matches('C').count(), 1, "{kinds}: the third never runs");
    assert_eq!(first_error(&messages), error("22012"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_are_one_transaction() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    let messages = client.query("insert into t values (1); insert into t values (1/0)").await;
    assert_eq!(first_error(&messages), error("22012"));
    assert_eq!(client.run("select count(*) from t").await[1].row(), [Some("0".into())]);
    client.run("insert into t values (1); insert into t values (2)").await;
    assert_eq!(client.run("select count(*) from t").await[1].row(), [Some("2".into())]);
    // An explicit transaction inside the string stays open after an error.
    let messages = client.query("begin; insert into t values (3); select 1/0").await;
    assert_eq!(messages.last().unwrap().body, b"E");
    assert_eq!(first_error(&client.query("select 1").await), error("25P02"));
    assert_eq!(client.run("rollback").await.last().unwrap().body, b"I");
    assert_eq!(client.run("select count(*) from t").await[1].row(), [Some("2".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_queries_are_answered() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for sql in ["", "  ", ";", " ;; ", "-- nothing"] {
        assert_eq!(kinds(&client.query(sql).await), "IZ", "{sql:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w26_errors_carry_their_own_state_and_position() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = client.query("select * from missing").await;
    assert_eq!(first_error(&messages), error("42P01"));
    assert_eq!(messages[0].field(b'P').as_deref(), Some("15"));
    for (sql, code) in [("selec 1", "42601"), ("select nope()", "42883"), ("select '[1,x]'::vector", "22P02")]
    {
        assert_eq!(first_error(&client.query(sql).await), error(code), "{sql}");
    }
    let messages = client.query("select $1").await;
    assert_eq!(first_error(&messages), error("42P02"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w25_a_query_that_is_not_utf8_is_an_error_and_no_more() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.send(b'Q', b"select '\xff'\0").await;
    assert_eq!(first_error(&client.until_ready().await), error("22021"));
    assert_eq!(client.run("select 'ä'").await[1].row(), [Some("ä".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn w08_a_slow_client_slows_the_query_and_fills_no_memory() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.send(b'Q', b"select repeat('x', 1000) from generate_series(1, 1000000)\0").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = served.metrics.bytes_sent.get();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(served.metrics.bytes_sent.get(), sent, "the socket is full and the query waits");
    assert!(sent < 64 << 20, "{sent} bytes of about 1 GB");
    let begun = tokio::time::Instant::now();
    served.database.control().revoke_key(&served.key_id).unwrap();
    drop(client);
    timeout(Duration::from_secs(5), async {
        while served.metrics.connections_open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_timeouts_end_the_statement() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("set statement_timeout = '100ms'").await;
    for sql in [
        "select pg_sleep(30)",
        "select count(*) from generate_series(1, 100000000000)",
        // Answered by the catalogs' own evaluator.
        "select count(*) from pg_am, generate_series(1, 100000000000)",
    ] {
        let messages = client.query(sql).await;
        assert_eq!(first_error(&messages), error("57014"), "{sql}");
        let text = messages.iter().find(|message| message.kind == b'E').unwrap().field(b'M').unwrap();
        assert_eq!(text, "canceling statement due to statement timeout");
    }
    assert_eq!(client.run("select 1").await[1].row(), [Some("1".into())]);
}

/// Nothing interrupts the planning; what is over by then does not run.
#[tokio::test(flavor = "multi_thread")]
async fn statement_timeouts_count_the_planning() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("set statement_timeout = '1ms'").await;
    let numbers: Vec<String> = (1..20_000_u32).map(|number| number.to_string()).collect();
    let messages = client.query(&format!("select pg_sleep(30), 0 in ({})", numbers.join(", "))).await;
    assert_eq!(first_error(&messages), error("57014"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_are_reported() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = client.run("set application_name = 'reports'").await;
    assert_eq!(kinds(&messages), "SCZ");
    assert_eq!(messages[0].body, b"application_name\0reports\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_come_before_the_command_is_complete() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    let messages = client.run("create table if not exists t (a int)").await;
    assert_eq!(kinds(&messages), "NCZ");
    assert_eq!(messages[0].field(b'C').as_deref(), Some("42P07"));
    // Rails and its like want warnings alone, and some not even these.
    for (least, commit) in [("warning", "NCZ"), ("error", "CZ"), ("log", "NCZ")] {
        client.run(&format!("set client_min_messages = {least}")).await;
        let create = if least == "log" { "NCZ" } else { "CZ" };
        assert_eq!(kinds(&client.run("create table if not exists t (a int)").await), create, "{least}");
        assert_eq!(kinds(&client.run("commit").await), commit, "{least}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn function_calls_and_stray_passwords_are_refused() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.send(b'F', b"\0\0\0\0").await;
    assert_eq!(first_error(&client.until_ready().await), error("0A000"));
    client.send(b'p', b"x\0").await;
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("08P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_connection_and_no_other() {
    let served = Served::start().await;
    let mut other = served.client().await;
    let mut client = served.client().await;
    client.send(b'Q', b"panic\0").await;
    let messages = client.until_closed_or_ready().await;
    assert_eq!((kinds(&messages).as_str(), first_error(&messages)), ("E", fatal("XX000")));
    assert_eq!(other.run("select 1").await[1].row(), [Some("1".into())]);
    assert_eq!(served.metrics.panics.get(), 1);
}
