//! What do a death and an error at a write or a sync lose?
//!
//! The server as it is shipped runs under `strace`, which kills it at the n-th fdatasync of a thread, or lets that or
//! a write fail with EIO. Clients note what was acknowledged; then the server starts again without it, and everything
//! noted must be there. `SEPAL_INJECTIONS` values of n for each kind, 2 without it.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::server::{Login, Server, skip};

const CLIENTS: usize = 3;
/// How long clients write, where nothing stops them.
const SPELL: Duration = Duration::from_millis(1_200);

/// What is known outside the server.
#[derive(Default)]
struct Known {
    next: AtomicI64,
    acknowledged: Mutex<BTreeSet<i64>>,
}

/// The system calls that are tampered with, and how. `pwrite64` and `write` are the log's and the files'; sockets are
/// written with `sendto` and `writev`.
const KINDS: [(&str, &str); 4] = [
    ("fdatasync", "signal=SIGKILL"),
    ("fdatasync", "error=EIO"),
    ("pwrite64", "signal=SIGKILL"),
    ("pwrite64", "error=EIO"),
];

fn wrapper(call: &str, tampering: &str, n: u64) -> Vec<String> {
    let inject = format!("inject={call}:{tampering}:when={n}");
    // -D: strace watches from aside, and the process that was started becomes the server. Not --seccomp-bpf, which is
    // faster: with it (6.1) no signal is sent.
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e"];
    words.iter().map(ToString::to_string).chain([format!("trace={call}"), "-e".to_owned(), inject]).collect()
}

/// Whether strace is there, and may do what it is for.
fn works() -> bool {
    let mut words = wrapper("fdatasync", "error=EIO", 1).into_iter();
    let program = words.next().expect("a program");
    Command::new(program).args(words).arg("true").output().is_ok_and(|output| output.status.success())
}

fn values() -> Vec<u64> {
    let count = std::env::var("SEPAL_INJECTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    // Counted thread by thread: the first are those of the start, later ones commits and checkpoints.
    (0..count).map(|at| 3 + at * 4).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_a_death_or_an_error_at_any_call() {
    if !works() {
        skip("strace is missing, or may not trace: deaths and errors at system calls were not tested");
        return;
    }
    let mut server = Server::start();
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    let sql =
        "CREATE TABLE l (id int8 PRIMARY KEY, note text); CREATE TABLE r (id int8 PRIMARY KEY, note text)";
    client.batch_execute(sql).await.expect("tables");
    drop(client);
    server.stop();
    let known = Arc::new(Known::default());
    for n in values() {
        for (call, tampering) in KINDS {
            server.run_under(&wrapper(call, tampering, n));
            // One that dies or refuses while it starts has acknowledged nothing.
            if server.try_start().is_ok() {
                write(&server.login_with(&key), &known).await;
                server.kill();
            }
            server.run_under(&[]);
            server.start_again();
            check(&server, &server.login_with(&key), &known, &format!("{call} {n} {tampering}")).await;
            server.stop();
        }
    }
    let acknowledged = known.acknowledged.lock().expect("acknowledged").len();
    println!("{acknowledged} pairs acknowledged and found");
    assert!(acknowledged > 0, "nothing was ever acknowledged");
}

/// Clients that write until the server refuses, or the spell is over.
async fn write(login: &Login, known: &Arc<Known>) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (login, known) = (login.clone(), Arc::clone(known));
        clients.spawn(async move {
            let Ok(client) = login.connect().await else { return };
            loop {
                let id = known.next.fetch_add(1, Ordering::Relaxed);
                let sql = format!(
                    "BEGIN; INSERT INTO l VALUES ({id}, 'l{id}'); INSERT INTO r VALUES ({id}, 'r{id}'); COMMIT"
                );
                if client.batch_execute(&sql).await.is_err() {
                    return;
                }
                known.acknowledged.lock().expect("acknowledged").insert(id);
            }
        });
    }
    tokio::time::sleep(SPELL).await;
    clients.abort_all();
    while clients.join_next().await.is_some() {}
}

async fn check(server: &Server, login: &Login, known: &Known, at: &str) {
    let client = match login.connect().await {
        Ok(client) => client,
        Err(error) => panic!("{at}: {error}\n{}", server.log()),
    };
    let mut halves = Vec::new();
    for (table, mark) in [("l", 'l'), ("r", 'r')] {
        let sql = format!("SELECT id, note FROM {table}");
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{at}: {error}"));
        let mut ids = BTreeSet::new();
        for row in rows {
            let (id, note): (i64, String) = (row.get(0), row.get(1));
            assert_eq!(note, format!("{mark}{id}"), "{at}: a wrong row");
            assert!(ids.insert(id), "{at}: row {id} is there twice");
        }
        halves.push(ids);
    }
    assert_eq!(halves[0], halves[1], "{at}: a transaction is half there");
    let mut acknowledged = known.acknowledged.lock().expect("acknowledged");
    let lost: Vec<_> = acknowledged.difference(&halves[0]).collect();
    assert!(lost.is_empty(), "{at}: acknowledged rows are lost: {lost:?}");
    let next = known.next.load(Ordering::Relaxed);
    assert!(halves[0].last().is_none_or(|last| *last < next), "{at}: a row that nobody wrote");
    // What was on its way and was kept stays from now on.
    acknowledged.extend(&halves[0]);
}
