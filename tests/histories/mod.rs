//! Do histories of concurrent transactions hold what their isolation level promises?
//!
//! `isolation` asks about schedules that somebody thought of; here clients do what comes, and a checker ([`check`])
//! looks for anomalies in what they saw. Its own tests plant each anomaly ([`tests`]) and run stores with known bugs
//! ([`model`]). The same workloads run against a real PostgreSQL where one is installed: a checker that accused it
//! would be wrong.
//!
//! `SEPAL_HISTORY_TRANSACTIONS` says how many transactions each history has, `SEPAL_HISTORY_SEED` what the clients do;
//! which of them meet is up to the machine. A history with an anomaly is written to a file beside its report.

mod anomaly;
mod bank;
mod check;
mod dependencies;
mod graph;
mod history;
mod model;
mod registers;
mod tests;
mod workload;

use std::{
    fmt::Write,
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::{
    anomaly::{Anomaly, Findings},
    check::{Verdict, check},
    history::{Level, Transaction},
    registers::{Register, as_lists},
    workload::{Lists, Plan, Recorder, Registers, Shape, read_all, run},
};
use crate::{
    oracle::Oracle,
    server::{Login, Server, skip},
};

const CLIENTS: usize = 8;

/// How many transactions a history has, if nobody says.
const TRANSACTIONS: i64 = 1_200;

fn transactions() -> i64 {
    std::env::var("SEPAL_HISTORY_TRANSACTIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(TRANSACTIONS)
}

fn seed() -> u64 {
    let given = std::env::var("SEPAL_HISTORY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("SEPAL_HISTORY_SEED={seed}");
    seed
}

fn plan(level: Level) -> Plan {
    Plan { level, clients: CLIENTS, transactions: transactions(), seed: seed() }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_at_read_committed() {
    whole::<Lists>(&tenant("histories-lists-rc"), plan(Level::ReadCommitted), judge_lists).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_at_repeatable_read() {
    whole::<Lists>(&tenant("histories-lists-rr"), plan(Level::RepeatableRead), judge_lists).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_at_read_committed() {
    whole::<Registers>(&tenant("histories-registers-rc"), plan(Level::ReadCommitted), judge_registers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_at_repeatable_read() {
    whole::<Registers>(&tenant("histories-registers-rr"), plan(Level::RepeatableRead), judge_registers).await;
}

/// PostgreSQL keeps what its manual says, so an anomaly here is the checker's.
#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_nothing_on_postgresql() {
    let Some(oracle) = Oracle::start() else {
        skip(
            "no PostgreSQL 15 found (apt-get install postgresql-15): the history checker was not tried on it",
        );
        return;
    };
    let client = oracle.login().connect().await.expect("connect to PostgreSQL");
    // It looks for deadlocks after one second; a history has hundreds of them.
    client.batch_execute("ALTER SYSTEM SET deadlock_timeout = '10ms'").await.expect("ALTER SYSTEM");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("pg_reload_conf");
    for level in [Level::ReadCommitted, Level::RepeatableRead] {
        let name = format!("{level:?}").to_lowercase();
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("CREATE DATABASE");
        let login = oracle.login().database(&name);
        whole::<Lists>(&login, plan(level), judge_lists).await;
        whole::<Registers>(&login, plan(level), judge_registers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_transactions_survive_kill_9() {
    for level in [Level::ReadCommitted, Level::RepeatableRead] {
        over_kills(level).await;
    }
}

/// One history over several lives of a server.
async fn over_kills(level: Level) {
    let mut server = Server::start();
    let key = server.tenant("acme");
    // More than they can do until they are killed.
    let plan = Plan { transactions: i64::MAX, ..plan(level) };
    let mut random = StdRng::seed_from_u64(plan.seed);
    let recorder = Arc::new(Recorder::default());
    let login = server.login_with(&key);
    login.connect().await.expect("connect").batch_execute(Lists::CREATE).await.expect("CREATE TABLE");
    let mut history = Vec::new();
    for _ in 0..(transactions() / 1_000).clamp(3, 20) {
        let (login, recorded) = (server.login_with(&key), Arc::clone(&recorder));
        let running = tokio::spawn(async move { run::<Lists>(&login, plan, &recorded).await });
        while !recorder.has_begun() && !running.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1_500))).await;
        recorder.ending.store(true, Ordering::SeqCst);
        server.kill();
        history.extend(running.await.expect("the clients of a server that was killed"));
        recorder.ending.store(false, Ordering::SeqCst);
        server.start_again();
    }
    history.push(read_all::<Lists>(&server.login_with(&key), plan, &recorder).await);
    conclude(&history, plan, judge_lists(&history, level), false);
}

/// A tenant of the shared server, so that tables meet nobody else's.
fn tenant(name: &str) -> Login {
    let key = Server::shared().tenant(name);
    Server::shared().login_with(&key)
}

/// Runs a workload in a new table, to its end.
async fn whole<S: Shape>(login: &Login, plan: Plan, judge: fn(&[Transaction<S::Seen>], Level) -> Verdict) {
    let client = login.connect().await.expect("connect");
    client.batch_execute(S::CREATE).await.expect("CREATE TABLE");
    let recorder = Arc::new(Recorder::default());
    let mut history = run::<S>(login, plan, &recorder).await;
    history.push(read_all::<S>(login, plan, &recorder).await);
    conclude(&history, plan, judge(&history, plan.level), true);
}

fn judge_lists(history: &[Transaction], level: Level) -> Verdict {
    check(history, level)
}

fn judge_registers(history: &[Transaction<Register>], level: Level) -> Verdict {
    let mut findings = Findings::default();
    let mut verdict = check(&as_lists(history, &mut findings), level);
    verdict.anomalies.extend(findings.into_vec());
    verdict
}

/// Fails if there is an anomaly, or if nothing happened in which there could have been one.
fn conclude<S: std::fmt::Debug>(history: &[Transaction<S>], plan: Plan, verdict: Verdict, whole: bool) {
    let Verdict { anomalies, committed, aborted, unknown, writes, reads, anti_dependencies } = verdict;
    println!(
        "{:?}: {committed} committed, {aborted} aborted, {unknown} unknown; \
         {writes} writes over others', {reads} reads of others', {anti_dependencies} that missed others'",
        plan.level
    );
    assert!(anomalies.is_empty(), "{}", report(history, plan, &anomalies));
    let least = if whole { usize::try_from(plan.transactions).expect("few") / 10 } else { 10 };
    assert!(committed >= least, "only {committed} of {} transactions committed", history.len());
    let met = writes > 0 && reads > 0 && anti_dependencies > 0;
    assert!(
        met,
        "the clients never met: {writes} writes, {reads} reads, {anti_dependencies} anti-dependencies"
    );
}

fn report<S: std::fmt::Debug>(history: &[Transaction<S>], plan: Plan, anomalies: &[Anomaly]) -> String {
    let file = std::env::temp_dir().join(format!("sepal-history-{:?}-{}.txt", plan.level, plan.seed));
    let mut text = String::new();
    for (number, transaction) in history.iter().enumerate() {
        writeln!(text, "T{number}: {transaction}").expect("a String takes all");
    }
    let kept = match fs::write(&file, text) {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("no file: {error}"),
    };
    let told: String = anomalies.iter().map(ToString::to_string).collect();
    format!("{} anomalies at {:?} (the whole history: {kept})\n{told}", anomalies.len(), plan.level)
}
