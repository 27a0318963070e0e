//! What SQL and the protocol know by the same names: prepared statements, and cursors that are portals.

use super::*;

async fn ask(client: &mut Client, messages: &[Vec<u8>]) -> Vec<Message> {
    client.raw(&[messages.concat(), sync()].concat()).await;
    client.until_ready().await
}

fn values(messages: &[Message]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.kind == b'D');
    rows.map(|row| row.row().into_iter().flatten().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_have_one_space_of_names() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("prepare plus (int) as select $1 + 1 as n").await;
    let run = [describe(b'S', "plus"), bind("", "plus", &[Some("41")]), execute("", 0)];
    let messages = ask(&mut client, &run).await;
    assert_eq!((kinds(&messages).as_str(), values(&messages)), ("tT2DCZ", vec!["42".to_owned()]));
    assert_eq!(first_error(&ask(&mut client, &[parse("plus", "select 1", &[])]).await), error("42P05"));
    ask(&mut client, &[parse("Minus", "select $1::int - 1", &[])]).await;
    assert_eq!(values(&client.run("execute \"Minus\" (43)").await), ["42"]);
    assert_eq!(first_error(&client.query("prepare \"Minus\" as select 1").await), error("42P05"));
    // EXECUTE by the protocol describes what it executes.
    let nested = [parse("", "execute plus (1)", &[]), describe(b'S', ""), bind("", "", &[]), execute("", 0)];
    let messages = ask(&mut client, &nested).await;
    assert_eq!((kinds(&messages).as_str(), values(&messages)), ("1tT2DCZ", vec!["2".to_owned()]));
    assert_eq!(messages[5].body, b"SELECT 1\0");
    ask(&mut client, &[close(b'S', "plus")]).await;
    assert_eq!(first_error(&client.query("execute plus (1)").await), error("26000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_described_executed_and_closed_by_the_protocol() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("create table t (n int); insert into t select n from generate_series(1, 20) as s(n)").await;
    client.run("begin").await;
    // As psycopg declares one: with parameters.
    let sql = "declare \"My c\" cursor for select n, 'x' as t from t where n <= $1 order by n";
    let declare = [parse("", sql, &[23]), bind("", "", &[Some("9")]), execute("", 0)];
    let messages = ask(&mut client, &declare).await;
    assert_eq!((kinds(&messages).as_str(), &messages[2].body[..]), ("12CZ", &b"DECLARE CURSOR\0"[..]));
    let messages = ask(&mut client, &[describe(b'P', "My c")]).await;
    assert_eq!((kinds(&messages).as_str(), &messages[0].body[..4]), ("TZ", &b"\0\x02n\0"[..]));
    assert_eq!(values(&client.run("fetch forward 2 from \"My c\"").await), ["1 x", "2 x"]);
    let messages = ask(&mut client, &[execute("My c", 2)]).await;
    assert_eq!((kinds(&messages).as_str(), values(&messages)), ("DDsZ", vec!["3 x".into(), "4 x".into()]));
    assert_eq!(values(&client.run("fetch \"My c\"").await), ["5 x"]);
    let messages = ask(&mut client, &[execute("My c", 0)]).await;
    assert_eq!(kinds(&messages), "DDDDCZ");
    // FETCH tells what it gives, in the format that Bind asks for.
    client.run("close all; declare c binary cursor for select 7").await;
    let binary = frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x01");
    let fetch = [parse("", "fetch 5 from c", &[]), binary, describe(b'P', ""), execute("", 0)];
    let messages = ask(&mut client, &fetch).await;
    assert_eq!(kinds(&messages), "12TDCZ");
    assert_eq!(messages[3].body, b"\0\x01\0\0\0\x04\0\0\0\x07");
    assert_eq!(messages[4].body, b"FETCH 1\0");
    assert_eq!(first_error(&ask(&mut client, &[bind("c", "", &[])]).await), error("42P03"));
    client.run("rollback").await;
    assert_eq!(first_error(&ask(&mut client, &[describe(b'P', "c")]).await), error("34000"));
    client.run("begin; declare c cursor for select 1").await;
    assert_eq!(kinds(&ask(&mut client, &[close(b'P', "c")]).await), "3Z");
    assert_eq!(first_error(&client.query("fetch c").await), error("34000"));
    client.run("rollback").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_cursor_is_binary_in_the_simple_protocol() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let messages = client.run("begin; declare c binary cursor for select 7; fetch c; commit").await;
    assert_eq!(kinds(&messages), "CCTDCCZ");
    assert_eq!(messages[3].body, b"\0\x01\0\0\0\x04\0\0\0\x07");
    assert!(messages[2].body.ends_with(&[0, 1]), "the description says so");
}

/// As asyncpg goes forward in a cursor of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_moved_fetched_and_closed_by_sql() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("begin").await;
    ask(&mut client, &[parse("s", "select * from generate_series(1, 20000)", &[]), bind("p", "s", &[])])
        .await;
    let messages = client.run("move forward 10 p").await;
    assert_eq!(messages[0].body, b"MOVE 10\0");
    assert_eq!(values(&ask(&mut client, &[execute("p", 2)]).await), ["11", "12"]);
    assert_eq!(values(&client.run("fetch 2 from p").await), ["13", "14"]);
    assert_eq!(values(&ask(&mut client, &[execute("p", 1)]).await), ["15"]);
    assert_eq!(client.run("move 19000 in p").await[0].body, b"MOVE 19000\0");
    assert_eq!(values(&ask(&mut client, &[execute("p", 1)]).await), ["19016"]);
    // Its name is free once SQL has closed it, and is another portal's then.
    client.run("close p").await;
    let messages = ask(&mut client, &[bind("p", "s", &[]), execute("p", 1)]).await;
    assert_eq!((kinds(&messages).as_str(), values(&messages)), ("2DsZ", vec!["1".to_owned()]));
    client.run("close p; declare p cursor for select 8").await;
    assert_eq!(values(&ask(&mut client, &[execute("p", 0)]).await), ["8"]);
    client.run("close p").await;
    assert_eq!(first_error(&ask(&mut client, &[execute("p", 1)]).await), error("34000"));
    client.run("rollback").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_with_hold_outlives_its_transaction() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("declare c cursor with hold for select * from generate_series(1, 3)").await;
    assert_eq!(kinds(&ask(&mut client, &[describe(b'P', "c")]).await), "TZ");
    assert_eq!(values(&ask(&mut client, &[execute("c", 1)]).await), ["1"]);
    assert_eq!(values(&client.run("fetch all from c").await), ["2", "3"]);
    client.run("discard all").await;
    assert_eq!(first_error(&client.query("fetch c").await), error("34000"));
    // All statements of one string are a block.
    assert_eq!(values(&client.run("declare c cursor for select 1; fetch c").await), ["1"]);
    assert_eq!(first_error(&client.query("fetch c").await), error("34000"));
}
