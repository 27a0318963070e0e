//! Statements about secrets, plugins, sinks and pipelines, over connectors that only pretend.

mod fake;
mod pipelines;
mod secrets;
mod sinks;
mod tables;

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use sepal_types::{Result, SqlType};

use crate::{
    Outcome, Session,
    delivery::objects::Objects,
    fixtures::{Fixture, run, try_run},
};

use fake::Fake;

/// A database whose connectors are a [`Fake`].
fn fixture(fake: &Arc<Fake>) -> Fixture {
    let connectors = Arc::clone(fake);
    Fixture::new_with(|options| {
        options.connectors = Some(connectors);
        options.allow_unsigned_plugins = true;
    })
}

/// Runs one statement with a bound value; its tag.
async fn bind(session: &mut Session, sql: &str, values: &[&[u8]]) -> Result<String> {
    let statement = session.split(sql)?.remove(0);
    let prepared = session.prepare(statement, &[]).await?;
    let parameters = prepared.parameters().iter().zip(values).map(|(ty, value)| -> ArrayRef {
        match ty {
            SqlType::Bytea => Arc::new(BinaryArray::from_vec(vec![*value])),
            _ => Arc::new(StringArray::from(vec![std::str::from_utf8(value).unwrap()])),
        }
    });
    let parameters = parameters.collect();
    match session.execute(&prepared, parameters).await? {
        Outcome::Done { tag } => Ok(tag),
        _ => panic!("{sql} gave rows"),
    }
}

/// The message of a statement that must fail, with its SQLSTATE, detail and hint.
async fn refusal(session: &mut Session, sql: &str) -> String {
    let Err(error) = try_run(session, sql).await else { panic!("{sql} went through") };
    session.fail_transaction();
    error.to_string()
}

async fn objects(fixture: &Fixture) -> Objects {
    Objects::of(&fixture.tenant().await.store.snapshot()).unwrap()
}

/// A session with a table, a secret and a sink that uses it.
async fn with_sink(fixture: &Fixture) -> Session {
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE orders (id int PRIMARY KEY, total int, note text)").await;
    bind(&mut session, "CREATE SECRET hook_token AS $1", &[b"s3cret"]).await.unwrap();
    run(
        &mut session,
        "CREATE SINK hook USING PLUGIN webhook OPTIONS (url 'https://a.example.com/in', token SECRET[hook_token]) \
         ALLOW HOSTS ('https://A.example.com')",
    )
    .await;
    session
}
