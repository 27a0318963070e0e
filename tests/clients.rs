//! Do real drivers work? Runs the programs of `clients/` against Sepal, each as its users would.
//!
//! Drivers are looked for where `./setup test` puts them (`SEPAL_CLIENTS`, by default `~/.cache/sepal/clients`),
//! then on the machine. One that is missing is skipped loudly; with `SEPAL_NO_SKIP` set, that fails.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::server::{Server, repository, run_within, skip};

/// The slowest, pgjdbc, compiles itself first.
const LIMIT: Duration = Duration::from_secs(240);

fn installed() -> PathBuf {
    match std::env::var_os("SEPAL_CLIENTS") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/sepal/clients"),
    }
}

fn programs() -> PathBuf {
    repository().join("tests/clients")
}

/// Whether a program runs and ends well: how a driver is found out to be there.
fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a client on a server of its own and checks that it said `ok` and nothing was refused.
fn passes(server: &Server, mut command: Command) {
    for name in ["PGSERVICE", "PGPASSFILE", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT"] {
        command.env_remove(name);
    }
    command.envs(server.login().variables()).env("PGCONNECT_TIMEOUT", "20");
    // Its arguments, not its environment, which holds the token.
    let name = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
    let (status, output) = run_within(LIMIT, command);
    assert!(status.success(), "{name}: {status}\n{output}");
    let steps = output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(steps >= 5, "{name} did only {steps} steps:\n{output}");
}

/// A Python that has these modules.
pub fn python_with(modules: &str) -> Option<PathBuf> {
    [installed().join("venv/bin/python"), PathBuf::from("python3")]
        .into_iter()
        .find(|python| works(Command::new(python).arg("-c").arg(format!("import {modules}"))))
}

fn python_client(file: &str, modules: &str) {
    let Some(python) = python_with(modules) else {
        skip(&format!(
            "no Python with {modules} (pip install -r tests/clients/requirements.txt): {file} did not run"
        ));
        return;
    };
    let mut command = Command::new(python);
    command.arg(programs().join(file));
    passes(&Server::start(), command);
}

#[test]
fn psycopg_3() {
    python_client("psycopg3.py", "psycopg, pgvector.psycopg, numpy");
}

#[test]
fn asyncpg() {
    python_client("asyncpg_client.py", "asyncpg, pgvector.asyncpg, numpy");
}

#[test]
fn node_postgres() {
    let modules = |path: &Path| path.join("node_modules");
    let found = [installed(), programs().join("node")].into_iter().find(|path| {
        let asks = "require('pg'); require('pgvector/pg'); require('pg-copy-streams')";
        works(Command::new("node").env("NODE_PATH", modules(path)).args(["-e", asks]))
    });
    let Some(path) = found else {
        skip(
            "no Node with pg, pgvector and pg-copy-streams (npm install in tests/clients/node): it did not run",
        );
        return;
    };
    let mut command = Command::new("node");
    command.arg("--no-deprecation").arg(programs().join("node/client.js")).env("NODE_PATH", modules(&path));
    passes(&Server::start(), command);
}

#[test]
fn pgjdbc() {
    let jar = Path::new("/usr/share/java/postgresql.jar");
    // A runtime without a compiler cannot run a source file.
    if !jar.exists() || !works(Command::new("javac").arg("-version")) {
        skip(
            "no JDK or no /usr/share/java/postgresql.jar (apt-get install libpostgresql-jdbc-java): pgjdbc did not run",
        );
        return;
    }
    let mut command = Command::new("java");
    command.arg("-cp").arg(jar).arg(programs().join("jdbc/Client.java"));
    passes(&Server::start(), command);
}

#[test]
fn psql() {
    if !works(Command::new("psql").arg("--version")) {
        skip("no psql (apt-get install postgresql-client): psql.sh did not run");
        return;
    }
    let mut command = Command::new("bash");
    command.arg(programs().join("psql.sh"));
    passes(&Server::start(), command);
}

/// The file that `sepal dev --env-file` writes is all that a shell needs.
#[test]
fn the_env_file_is_enough_for_a_bare_psql() {
    if !works(Command::new("psql").arg("--version")) {
        skip("no psql: the env file was not tried");
        return;
    }
    let server = Server::start();
    let env_file = server.data().parent().expect("the test's directory").join("env");
    let mut command = Command::new("sh");
    command.arg("-c").arg(". \"$1\" && psql -XAtc 'SELECT 41 + 1'").arg("sh").arg(env_file);
    let (status, output) = run_within(LIMIT, command);
    assert!(status.success(), "{output}");
    assert_eq!(output.trim(), "42");
}
