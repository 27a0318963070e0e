//! Which sessions a key sees and reaches.

use arrow::array::AsArray;
use sepal_control::{EnvironmentName, Principal, Scopes};

use crate::{
    Outcome, Session, TransactionStatus,
    fixtures::{Fixture, refused, run, try_run},
};

/// The one column of a query's rows, which is text.
async fn texts(session: &mut Session, sql: &str) -> Vec<String> {
    let statement = session.split(sql).unwrap().remove(0);
    let prepared = session.prepare_now(statement).await.unwrap();
    let Ok(Outcome::Rows(mut rows)) = session.execute(&prepared, Vec::new()).await else { panic!("{sql}") };
    let mut texts = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap();
        let column = batch.column(0).as_string::<i32>();
        texts.extend(column.iter().map(|text| text.unwrap_or("NULL").to_owned()));
    }
    texts
}

fn of_environment(fixture: &Fixture, environment: Option<&str>, scopes: Scopes) -> Principal {
    let control = fixture.database.control();
    let (_, token) = control.create_key(fixture.tenant_id(), environment, scopes, "test", None).unwrap();
    control.authenticate_token(token.expose()).unwrap()
}

#[tokio::test]
async fn what_a_session_does_is_seen() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    let pid = other.backend_pid();
    let state = format!("SELECT state || ': ' || query FROM pg_stat_activity WHERE pid = {pid}");
    assert_eq!(texts(&mut one, &state).await, ["idle: "]);
    run(&mut other, "BEGIN").await;
    assert_eq!(texts(&mut one, &state).await, ["active: BEGIN"]);
    other.rest();
    assert_eq!(texts(&mut one, &state).await, ["idle in transaction: BEGIN"]);
    refused(&mut other, "SELECT 1 / 0").await;
    other.rest();
    assert_eq!(texts(&mut one, &state).await, ["idle in transaction (aborted): SELECT 1 / 0"]);
    run(&mut other, "ROLLBACK; SET application_name = 'reporter'").await;
    other.rest();
    assert_eq!(other.transaction_status(), TransactionStatus::Idle);
    let times = format!(
        "SELECT application_name FROM pg_stat_activity WHERE pid = {pid} AND xact_start IS NULL AND backend_start \
         <= query_start AND query_start <= state_change AND client_addr IS NULL"
    );
    assert_eq!(texts(&mut one, &times).await, ["reporter"]);
    drop(other);
    assert_eq!(texts(&mut one, &state).await, [""; 0]);
}

#[tokio::test]
async fn a_statement_of_a_secret_is_seen_without_it() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.session().await, fixture.session().await);
    for sql in [
        "CREATE SECRET mail AS 'hunter2'",
        "CREATE SECRET mail AS 'hunter2'; SELECT 1",
        "ALTER ROLE somebody PASSWORD 'hunter2'",
        "CREATE ROLE somebody PASSWORD 'hunter2'",
    ] {
        // Whether it does anything does not matter.
        let _done_or_not = try_run(&mut other, sql).await;
        other.fail_transaction();
        let seen = texts(&mut one, "SELECT query FROM pg_stat_activity").await.join("\n");
        assert!(!seen.contains("hunter2"), "{sql}: {seen}");
    }
}

#[tokio::test]
async fn a_key_reaches_what_it_may() {
    let fixture = Fixture::new();
    let staging = EnvironmentName::parse("staging").unwrap();
    fixture.database.control().create_environment(fixture.tenant_id(), &staging).unwrap();
    let connect = async |principal: Principal, environment: &str| {
        fixture.database.connect(principal, environment, &[]).await.unwrap()
    };
    let mut owner = connect(of_environment(&fixture, None, Scopes::READ_WRITE), "").await;
    let reading = of_environment(&fixture, None, Scopes::READ);
    let (mut reader, mut same) = (connect(reading.clone(), "").await, connect(reading, "staging").await);
    let writing = of_environment(&fixture, Some("staging"), Scopes::WRITE);
    let mut writer = connect(writing, "staging").await;
    let count = "SELECT count(*) FROM pg_stat_activity";
    assert_eq!(run(&mut owner, count).await, [4]);
    assert_eq!(run(&mut writer, count).await, [2], "its environment's");
    let known = "SELECT count(*) FROM pg_stat_activity WHERE query <> '<insufficient privilege>'";
    assert_eq!(run(&mut writer, known).await, [1], "a key that may not read is told of its own");
    assert_eq!(run(&mut reader, known).await, [4]);

    let end = |session: &Session| format!("SELECT pg_terminate_backend({})::int", session.backend_pid());
    assert_eq!(refused(&mut reader, &end(&owner)).await, "42501");
    assert_eq!(run(&mut writer, &end(&owner)).await, [0], "it is not there for this key");
    assert_eq!(writer.take_notices().len(), 1);
    assert!(!owner.cancel_token().is_terminated());
    assert_eq!(run(&mut reader, &end(&same)).await, [1], "the same key's");
    assert!(same.cancel_token().is_terminated());
    assert_eq!(refused(&mut same, "SELECT count(*) FROM generate_series(1, 10)").await, "57014");
    assert_eq!(run(&mut owner, &end(&writer)).await, [1]);
    assert!(owner.take_notices().is_empty());
}

#[tokio::test]
async fn the_limit_of_connections_is_the_real_one() {
    let fixture = Fixture::new_with(|options| options.max_connections = 7);
    let mut session = fixture.session().await;
    assert_eq!(session.setting("max_connections").as_deref(), Some("7"));
    let sql = "SELECT setting FROM pg_settings WHERE name = 'max_connections'";
    assert_eq!(texts(&mut session, sql).await, ["7"]);
    assert_eq!(refused(&mut session, "SET max_connections = 8").await, "22023");
    run(&mut session, "DISCARD ALL").await;
    assert_eq!(session.setting("max_connections").as_deref(), Some("7"));
}
