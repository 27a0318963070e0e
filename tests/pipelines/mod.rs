//! Does every committed change arrive, and does a secret stay one?
//!
//! As a user has it: secrets, sinks and pipelines are made in SQL, the destinations are servers of the tests' own
//! (`destination`), a real PostgreSQL, and files. What is killed is a process. What arrived is compared with what was
//! committed, never with what the server says of itself.

mod definitions;
mod delivery;
mod destination;
mod failures;
mod file_sink;
mod idle;
mod postgres_sink;
mod receivers;
mod recovery;
mod resolvers;
mod secrets;

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio_postgres::Client;

use self::destination::Destination;
use crate::{
    pipeline_status::{self, run, status, until_status},
    server::Server,
};

/// How long a pipeline may take until it has the dead letters that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The SQLSTATE of a statement that must fail, and everything that the error says.
async fn refused(client: &Client, sql: &str) -> (String, String) {
    let error = pipeline_status::refused(client, sql).await;
    (error.code().code().to_owned(), format!("{error:?}"))
}

fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |database| format!("{database:?}"))
}

/// Makes a secret; the value is bound, so it is in no statement's text.
async fn secret(client: &Client, name: &str, value: &str) {
    let sql = format!("CREATE SECRET {name} AS $1");
    client.execute(&sql, &[&value]).await.unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
}

/// Makes a sink of a bundled plugin. `options` come after the URL: `, token SECRET[a]`.
async fn sink(client: &Client, name: &str, plugin: &str, url: &str, options: &str) {
    let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    run(
        client,
        &format!(
            "CREATE SINK {name} USING PLUGIN {plugin} OPTIONS (url '{url}'{options}) ALLOW HOSTS ('{origin}')"
        ),
    )
    .await;
}

/// Makes a sink of the plugin `webhook`.
async fn webhook(client: &Client, name: &str, destination: &Destination, options: &str) {
    sink(client, name, "webhook", &destination.url(), options).await;
}

/// A row of `sepal_sink_errors`: `code`, `message`, `op`, `key`, `row`.
type DeadLetter = (String, String, String, String, String);

async fn dead_letters(client: &Client, pipeline: &str) -> Vec<DeadLetter> {
    let sql = format!("SELECT code, message, op, key, row FROM sepal_sink_errors('{pipeline}') ORDER BY id");
    let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
}

/// Waits until a pipeline has so many dead letters.
async fn until_dead_letters(client: &Client, pipeline: &str, count: usize) -> Vec<DeadLetter> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let letters = dead_letters(client, pipeline).await;
        if letters.len() == count {
            return letters;
        }
        let status = status(client, pipeline).await;
        assert!(
            Instant::now() < deadline,
            "{pipeline} has not {count} dead letters: {letters:?}, {status:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes in which a server runs its tenants' plugins.
fn workers(server: &Server) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("the processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_worker = |pid: &u32| {
        // Any process may end between listing and reading.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parent == Some(&*server.pid().to_string())
            && command.split(|byte| *byte == 0).any(|word| word == b"plugin-worker")
    };
    pids.filter(is_worker).collect()
}
