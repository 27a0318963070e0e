//! The extended protocol: pipelines, named things and their ends, row limits.

use std::time::Duration;

use super::*;

async fn send(client: &mut Client, messages: &[Vec<u8>]) {
    client.raw(&messages.concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_answered_in_order() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let pipeline = [
        parse("", "select $1::int + 1 as n", &[]),
        describe(b'S', ""),
        bind("", "", &[Some("41")]),
        describe(b'P', ""),
        execute("", 0),
        close(b'P', ""),
        sync(),
    ];
    send(&mut client, &pipeline).await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "1tT2TDC3Z");
    assert_eq!(messages[1].body, [&1u16.to_be_bytes()[..], &23u32.to_be_bytes()].concat());
    assert_eq!(messages[5].row(), [Some("42".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn w12_answers_wait_for_sync_or_flush() {
    let served = Served::start().await;
    let mut client = served.client().await;
    send(&mut client, &[parse("", "select 1", &[]), describe(b'S', "")]).await;
    let mut byte = [0];
    let early = timeout(Duration::from_millis(200), client.socket.peek(&mut byte)).await;
    assert!(early.is_err(), "nothing is sent before it is asked for");
    client.send(b'H', b"").await;
    assert_eq!([client.next().await.kind, client.next().await.kind, client.next().await.kind], *b"1tT");
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_row_limits_never_size_a_buffer() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for max_rows in [i32::MAX, i32::MIN, -1, 0] {
        let pipeline = [
            parse("", "select * from generate_series(1, 5)", &[]),
            bind("", "", &[]),
            execute("", max_rows),
            sync(),
        ];
        send(&mut client, &pipeline).await;
        assert_eq!(kinds(&client.until_ready().await), "12DDDDDCZ", "{max_rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_are_suspended_and_resumed() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let pipeline = [
        parse("", "select * from generate_series(1, 5)", &[]),
        bind("p", "", &[]),
        execute("p", 2),
        execute("p", 2),
        execute("p", 2),
        execute("p", 2),
        sync(),
    ];
    send(&mut client, &pipeline).await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "12DDsDDsDCCZ");
    assert_eq!(messages[8].row(), [Some("5".into())]);
    assert_eq!(messages[9].body, b"SELECT 1\0");
    assert_eq!(messages[10].body, b"SELECT 0\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_between_two_portions_has_no_effect() {
    let served = Served::start().await;
    let (mut client, mut other) = (served.client().await, served.client().await);
    let pid = client.run("select pg_backend_pid()").await[1].row()[0].clone().unwrap();
    client.run("begin; declare c cursor for select * from generate_series(1, 5)").await;
    let pipeline = [
        parse("", "select * from generate_series(1, 5)", &[]),
        bind("p", "", &[]),
        execute("p", 2),
        execute("c", 2),
        sync(),
    ];
    send(&mut client, &pipeline).await;
    assert_eq!(kinds(&client.until_ready().await), "12DDsDDsZ");
    for portal in ["p", "c"] {
        other.run(&format!("select pg_cancel_backend({pid})")).await;
        send(&mut client, &[execute(portal, 0), sync()]).await;
        assert_eq!(kinds(&client.until_ready().await), "DDDCZ", "{portal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_gives_no_more_rows() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("begin").await;
    let pipeline =
        [parse("", "select * from generate_series(1, 5)", &[]), bind("p", "", &[]), execute("p", 2), sync()];
    send(&mut client, &pipeline).await;
    assert_eq!(kinds(&client.until_ready().await), "12DDsZ");
    assert_eq!(first_error(&client.query("select 1/0").await), error("22012"));
    send(&mut client, &[execute("p", 2), sync()]).await;
    let messages = client.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), first_error(&messages)), ("EZ", error("25P02")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_without_rows_runs_once_per_portal() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    let pipeline = [
        parse("", "insert into t values ($1)", &[]),
        bind("", "", &[Some("1")]),
        execute("", 0),
        execute("", 0),
        sync(),
    ];
    send(&mut client, &pipeline).await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "12CEZ");
    assert_eq!(first_error(&messages), error("55000"));
    assert_eq!(client.run("select count(*) from t").await[1].row(), [Some("0".into())], "rolled back as one");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    let pipeline = [
        parse("", "insert into t values (7)", &[]),
        bind("", "", &[]),
        execute("", 0),
        parse("bad", "select * from missing", &[]),
        bind("", "", &[]),
        execute("", 0),
        frame(b'Q', b"insert into t values (8)\0"),
        sync(),
    ];
    send(&mut client, &pipeline).await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "12CEZ");
    assert_eq!(messages.last().unwrap().body, b"I");
    assert_eq!(client.run("select count(*) from t").await[1].row(), [Some("0".into())], "one transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn w13_portals_end_with_their_transaction() {
    let served = Served::start().await;
    let mut client = served.client().await;
    send(&mut client, &[parse("s", "select 1", &[]), bind("p", "s", &[]), sync()]).await;
    client.until_ready().await;
    send(&mut client, &[execute("p", 0), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("34000"));
    // Inside an explicit transaction it lives until the end of that.
    client.run("begin").await;
    send(&mut client, &[bind("p", "s", &[]), sync()]).await;
    client.until_ready().await;
    send(&mut client, &[execute("p", 0), sync()]).await;
    assert_eq!(kinds(&client.until_ready().await), "DCZ");
    client.run("commit").await;
    send(&mut client, &[describe(b'P', "p"), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("34000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w14_w17_named_things_are_unique_and_must_exist() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let cases: [(Vec<Vec<u8>>, &str); 6] = [
        (vec![parse("s", "select 1", &[]), parse("s", "select 2", &[])], "42P05"),
        (vec![bind("p", "s", &[]), bind("p", "s", &[])], "42P03"),
        (vec![bind("", "unknown", &[])], "26000"),
        (vec![describe(b'S', "unknown")], "26000"),
        (vec![describe(b'P', "unknown")], "34000"),
        (vec![execute("unknown", 0)], "34000"),
    ];
    for (mut messages, code) in cases {
        messages.push(sync());
        send(&mut client, &messages).await;
        assert_eq!(first_error(&client.until_ready().await), error(code));
    }
    // Closing what does not exist is fine, and frees the name of what does.
    let messages =
        [close(b'S', "s"), close(b'S', "s"), close(b'P', "x"), parse("s", "select 3", &[]), sync()];
    send(&mut client, &messages).await;
    assert_eq!(kinds(&client.until_ready().await), "3331Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn w15_statements_and_portals_are_capped() {
    let served = Served::start_with(|options| {
        options.limits.max_statements = 2;
        options.limits.max_portals = 2;
        options.limits.max_held_bytes = 1000;
    })
    .await;
    let mut client = served.client().await;
    let messages = [
        parse("a", "select 1", &[]),
        parse("b", "select 1", &[]),
        parse("", "select 1", &[]),
        parse("c", "select 1", &[]),
        sync(),
    ];
    send(&mut client, &messages).await;
    let messages = client.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), first_error(&messages)), ("111EZ", error("54000")));
    let messages =
        [bind("p", "a", &[]), bind("q", "a", &[]), bind("", "a", &[]), bind("r", "a", &[]), sync()];
    send(&mut client, &messages).await;
    let messages = client.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), first_error(&messages)), ("222EZ", error("53000")));
    let long = format!("select '{}'", "x".repeat(1000));
    send(&mut client, &[close(b'S', "b"), parse("long", &long, &[]), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("53000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w11_counts_that_do_not_fit_are_refused() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let three = "select 1, 2, 3";
    // Two result formats for three columns.
    let two_formats = frame(b'B', b"\0\0\0\0\0\0\0\x02\0\x01\0\x01");
    send(&mut client, &[parse("", three, &[]), two_formats, sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("08P01"));
    send(&mut client, &[parse("", three, &[]), bind("", "", &[Some("1")]), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("08P01"));
    // One code serves all three.
    let binary = frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x01");
    send(&mut client, &[parse("", three, &[]), binary, execute("", 0), sync()]).await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "12DCZ");
    assert_eq!(messages[2].body, b"\0\x03\0\0\0\x04\0\0\0\x01\0\0\0\x04\0\0\0\x02\0\0\0\x04\0\0\0\x03");
}

#[tokio::test(flavor = "multi_thread")]
async fn w16_a_declared_vector_is_honoured() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = [
        parse("", "select $1", &[16_385]),
        describe(b'S', ""),
        bind("", "", &[Some("[1,2.5]")]),
        execute("", 0),
        sync(),
    ];
    send(&mut client, &messages).await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "1tT2DCZ");
    assert_eq!(messages[1].body, [&1u16.to_be_bytes()[..], &16_385u32.to_be_bytes()].concat());
    assert_eq!(messages[4].row(), [Some("[1,2.5]".into())]);
    send(&mut client, &[parse("", "select $1", &[999_999]), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("42704"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_query_is_answered_here_too() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = [parse("", " ; ", &[]), describe(b'S', ""), bind("", "", &[]), execute("", 0), sync()];
    send(&mut client, &messages).await;
    assert_eq!(kinds(&client.until_ready().await), "1tn2IZ");
    send(&mut client, &[parse("", "select 1; select 2", &[]), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("42601"));
}

#[tokio::test(flavor = "multi_thread")]
async fn begin_and_commit_travel_in_pipelines() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    let run = |sql: &str| [parse("", sql, &[]), bind("", "", &[]), execute("", 0)].concat();
    send(&mut client, &[run("begin"), run("insert into t values (1)"), sync()]).await;
    assert_eq!(client.until_ready().await.last().unwrap().body, b"T");
    let mut other = served.client().await;
    assert_eq!(other.run("select count(*) from t").await[1].row(), [Some("0".into())]);
    send(&mut client, &[run("commit"), sync()]).await;
    assert_eq!(client.until_ready().await.last().unwrap().body, b"I");
    assert_eq!(other.run("select count(*) from t").await[1].row(), [Some("1".into())]);
}

/// A quota that is set while a pipeline is open is judged when it commits: the client learns it in place of its tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_is_told_before_the_tag() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int primary key, b text); insert into t values (1, 'small')").await;
    let sql = "insert into t values (2, repeat('x', 2000000))";
    let insert = [parse("", sql, &[]), bind("", "", &[]), execute("", 0)].concat();
    // The statement has run, and its pipeline is still open.
    client.raw(&insert).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    served.database.set_tenant_quota(TENANT, Some(1 << 20)).await.unwrap();
    client.raw(&sync()).await;
    let messages = client.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), first_error(&messages)), ("12EZ", error("53100")));
    assert_eq!(client.run("select count(*) from t").await[1].row(), [Some("1".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deallocate_forgets_what_parse_made() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let three =
        [parse("a", "select 1", &[]), parse("B", "select 1", &[]), parse("c", "select 1", &[]), sync()];
    send(&mut client, &three).await;
    client.until_ready().await;
    client.run("deallocate \"B\"").await;
    assert_eq!(first_error(&client.query("deallocate B").await), error("26000"));
    send(&mut client, &[parse("", "DEALLOCATE a", &[]), bind("", "", &[]), execute("", 0), sync()]).await;
    assert_eq!(kinds(&client.until_ready().await), "12CZ");
    send(&mut client, &[describe(b'S', "a"), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("26000"));
    client.run("discard all").await;
    send(&mut client, &[describe(b'S', "c"), sync()]).await;
    assert_eq!(first_error(&client.until_ready().await), error("26000"));
}
