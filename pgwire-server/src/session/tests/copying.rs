//! COPY in and out, and what a failed one leaves behind.

use super::*;

async fn count(client: &mut Client) -> String {
    client.run("select count(*) from t").await[1].row()[0].clone().unwrap()
}

/// Sends COPY and reads up to CopyInResponse.
async fn begin_copy(client: &mut Client) {
    client.send(b'Q', b"copy t from stdin\0").await;
    let response = client.next().await;
    assert_eq!(response, message(b'G', &[0, 0, 1, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_arrive_however_the_chunks_are_cut() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    begin_copy(&mut client).await;
    for byte in b"1\n22\n\\N\n333\n" {
        client.send(b'd', &[*byte]).await;
    }
    client.send(b'H', b"").await;
    client.send(b'c', b"").await;
    let messages = client.until_ready().await;
    assert_eq!(kinds(&messages), "CZ");
    assert_eq!(messages[0].body, b"COPY 4\0");
    assert_eq!(count(&mut client).await, "4");
    assert_eq!(served.metrics.copy_rows_received.get(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_inserts_nothing_and_the_rest_is_ignored() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    begin_copy(&mut client).await;
    client.send(b'd', b"1\nnot a number\n").await;
    client.send(b'd', b"3\n").await;
    client.send(b'c', b"").await;
    let messages = client.until_ready().await;
    assert_eq!(first_error(&messages), error("22P02"));
    assert_eq!(count(&mut client).await, "0");

    begin_copy(&mut client).await;
    client.send(b'd', b"1\n").await;
    client.send(b'f', b"changed my mind\0").await;
    let messages = client.until_ready().await;
    assert_eq!(first_error(&messages), error("57014"));
    assert_eq!(messages[0].field(b'M').unwrap(), "COPY from stdin failed: changed my mind");

    begin_copy(&mut client).await;
    client.send(b'Q', b"select 1\0").await;
    assert_eq!(first_error(&client.until_ready().await), error("08P01"));
    assert_eq!(count(&mut client).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_works_in_a_pipeline() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    let start = [parse("", "copy t from stdin", &[]), bind("", "", &[]), execute("", 0), sync()].concat();
    client.raw(&start).await;
    assert_eq!([client.next().await.kind, client.next().await.kind, client.next().await.kind], *b"12G");
    client.raw(&[frame(b'd', b"5\n6\n"), frame(b'c', b""), sync()].concat()).await;
    assert_eq!(kinds(&client.until_ready().await), "CZ");
    assert_eq!(count(&mut client).await, "2");
    // An error skips to the Sync after the data.
    client.raw(&start).await;
    for kind in *b"12G" {
        assert_eq!(client.next().await.kind, kind);
    }
    client.raw(&[frame(b'd', b"x\n"), frame(b'd', b"7\n"), frame(b'c', b""), sync()].concat()).await;
    assert_eq!(kinds(&client.until_ready().await), "EZ");
    assert_eq!(count(&mut client).await, "2");
}

/// Reads up to CopyInResponse.
async fn until_copy(client: &mut Client) {
    while client.next().await.kind != b'G' {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_belongs_to_its_query_string() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int)").await;
    for (rest, rows) in [("select 1/0", "0"), ("insert into t values (3)", "3"), ("", "5")] {
        let sql = format!("insert into t values (1); copy t from stdin; {rest}\0");
        client.send(b'Q', sql.as_bytes()).await;
        until_copy(&mut client).await;
        client.raw(&[frame(b'd', b"2\n"), frame(b'c', b"")].concat()).await;
        client.until_ready().await;
        assert_eq!(count(&mut client).await, rows, "with {rest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_belongs_to_its_pipeline() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (a int primary key)").await;
    let run = |sql: &str| [parse("", sql, &[]), bind("", "", &[]), execute("", 0)].concat();
    let begin = [run("insert into t values (1)"), run("copy t from stdin")].concat();
    let rows = [frame(b'd', b"2\n"), frame(b'c', b"")].concat();
    client.raw(&begin).await;
    until_copy(&mut client).await;
    client.raw(&[rows.clone(), run("select 1/0"), sync()].concat()).await;
    assert_eq!(first_error(&client.until_ready().await), error("22012"));
    assert_eq!(count(&mut client).await, "0", "rolled back as one");

    client.raw(&begin).await;
    until_copy(&mut client).await;
    client.raw(&[rows.clone(), run("insert into t values (3)"), sync()].concat()).await;
    assert_eq!(kinds(&client.until_ready().await), "C12CZ");
    assert_eq!(count(&mut client).await, "3");

    // What only the commit can judge is told instead of the tag: drivers overlook an error after it.
    client.raw(&run("copy t from stdin")).await;
    until_copy(&mut client).await;
    client.raw(&[rows, sync()].concat()).await;
    let messages = client.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), first_error(&messages)), ("EZ", error("23505")));
    assert_eq!(count(&mut client).await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_out_sends_a_message_per_row() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = client.run("copy (select * from generate_series(1, 3)) to stdout").await;
    assert_eq!(kinds(&messages), "HdddcCZ");
    assert_eq!(messages[1].body, b"1\n");
    assert_eq!(messages[5].body, b"COPY 3\0");
    let messages = client.run("copy (select 'a' as x, null as y) to stdout with (format csv, header)").await;
    let text: Vec<u8> =
        messages.iter().filter(|one| one.kind == b'd').flat_map(|one| one.body.clone()).collect();
    assert_eq!(text, b"x,y\na,\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn w18_a_copy_out_that_fails_ends_with_an_error_only() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages =
        client.query("copy (select 10 / (3 - a) from generate_series(1, 3) as g(a)) to stdout").await;
    assert!(!kinds(&messages).contains(['f', 'c']), "{}", kinds(&messages));
    assert_eq!(first_error(&messages), error("22012"));
}
