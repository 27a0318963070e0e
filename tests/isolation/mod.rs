//! Do concurrent transactions see and wait for each other as in PostgreSQL?
//!
//! Each file of `specs/` holds schedules: what several sessions say, in which order, and what each of them hears, or
//! that it hears nothing yet. `.slt` has no word for a statement that waits; the format is told in [`spec`]. Every file
//! runs against Sepal by the simple and by the extended protocol, and against a real PostgreSQL where one is
//! installed: what is written there is PostgreSQL's behaviour, never ours. A case that does not hold is printed as it
//! went on both.
//!
//! The specs hold the Hermitage matrix (Martin Kleppmann, <https://github.com/ept/hermitage>), which gives names to
//! the anomalies, and the races that applications meet: keys, queues, deadlocks, definitions.

mod answer;
mod run;
mod spec;

use std::{fs, path::PathBuf};

use tokio::task::JoinSet;

use self::{
    answer::Protocol,
    run::run_case,
    spec::{Case, Spec},
};
use crate::{
    oracle::Oracle,
    server::{Login, Server, repository, skip},
};

macro_rules! specs {
    ($($test:ident $file:literal),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                on_sepal($file).await;
            }
        )+

        /// What the tests above run.
        const FILES: &[&str] = &[$($file),+];
    };
}

specs! {
    advisory_locks "advisory_locks.spec",
    deadlocks "deadlocks.spec",
    definitions "definitions.spec",
    foreign_keys "foreign_keys.spec",
    hermitage_read_committed "hermitage_read_committed.spec",
    hermitage_repeatable_read "hermitage_repeatable_read.spec",
    read_committed "read_committed.spec",
    repeatable_read "repeatable_read.spec",
    row_locks "row_locks.spec",
    savepoints "savepoints.spec",
    schemas "schemas.spec",
    table_locks "table_locks.spec",
    transaction_state "transaction_state.spec",
    unique_keys "unique_keys.spec",
}

#[test]
fn every_spec_has_its_test() {
    let mut found: Vec<String> = fs::read_dir(folder())
        .expect("the specs")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, FILES, "add the file to `specs!` in tests/isolation/mod.rs");
}

/// The oracle: what is written must be what PostgreSQL does.
#[tokio::test(flavor = "multi_thread")]
async fn specs_hold_on_postgresql() {
    let Some(oracle) = Oracle::start() else {
        skip(
            "no PostgreSQL 15 found (apt-get install postgresql-15): the isolation specs were not checked against it",
        );
        return;
    };
    // They mostly wait: all at once, each in a database of its own.
    let mut running = JoinSet::new();
    for file in FILES {
        for protocol in Protocol::BOTH {
            let login = database(&oracle, &format!("{}_{protocol}", stem(file))).await;
            running.spawn(async move {
                let failed = failed_cases(&read(file), &login, protocol).await;
                let told = failed
                    .into_iter()
                    .map(|(case, went)| format!("{}\n{went}", heading(file, &case, protocol)));
                told.collect::<Vec<_>>()
            });
        }
    }
    let wrong: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} cases do not hold on PostgreSQL:\n\n{}", wrong.len(), wrong.join("\n"));
}

async fn on_sepal(file: &'static str) {
    let mut running = JoinSet::new();
    for protocol in Protocol::BOTH {
        // A tenant of its own, so that tables and advisory locks meet nobody else's.
        let key = Server::shared().tenant(&format!("isolation-{}-{protocol}", stem(file).replace('_', "-")));
        let login = Server::shared().login_with(&key);
        running.spawn(async move {
            let spec = read(file);
            let failed = failed_cases(&spec, &login, protocol).await;
            (spec, protocol, failed)
        });
    }
    let outcomes = running.join_all().await;
    if outcomes.iter().all(|(_, _, failed)| failed.is_empty()) {
        return;
    }
    // The same cases as PostgreSQL plays them, for whoever reads the failure.
    let oracle = Oracle::start();
    let mut wrong = Vec::new();
    for (spec, protocol, failed) in outcomes {
        for (case, went) in failed {
            let heading = heading(file, &case, protocol);
            let other = match &oracle {
                Some(oracle) => run_case(&spec.setup, &case, &oracle.login(), protocol).await.to_string(),
                None => "    (none is installed)\n".to_owned(),
            };
            wrong.push(format!("{heading}\n  Sepal\n{went}\n  PostgreSQL\n{other}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases do not hold:\n\n{}", wrong.len(), wrong.join("\n"));
}

/// The cases that did not go as written, each with how it went.
async fn failed_cases(spec: &Spec, login: &Login, protocol: Protocol) -> Vec<(Case, String)> {
    let mut failed = Vec::new();
    for case in &spec.cases {
        let went = run_case(&spec.setup, case, login, protocol).await;
        if !went.holds() {
            failed.push((case.clone(), went.to_string()));
        }
    }
    failed
}

async fn database(oracle: &Oracle, name: &str) -> Login {
    let client = oracle.login().connect().await.expect("connect to PostgreSQL");
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("CREATE DATABASE");
    oracle.login().database(name)
}

fn heading(file: &str, case: &Case, protocol: Protocol) -> String {
    format!("tests/isolation/specs/{file}:{}: case {} ({protocol} protocol)", case.line, case.title)
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".spec").expect("a .spec file")
}

fn folder() -> PathBuf {
    repository().join("tests/isolation/specs")
}

fn read(file: &str) -> Spec {
    let text = fs::read_to_string(folder().join(file)).expect(file);
    spec::parse(&text).unwrap_or_else(|wrong| panic!("tests/isolation/specs/{file}:{wrong}"))
}
