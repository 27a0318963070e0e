//! Is a tenant's key replaced to its end, and every file with it, whoever kills the server meanwhile?

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{rows, run, said, write_row};
use crate::server::{Server, binary};

/// The names of the only tenant's data files, `dev`'s own aside.
fn segments(server: &Server, tenant: &str) -> BTreeSet<OsString> {
    let listed = server.admin(&["tenant", "list"]);
    let found =
        listed.as_array().expect("tenants").iter().find(|row| row["name"] == tenant).expect("the tenant");
    let id = found["id"].as_str().expect("an id");
    let directory: PathBuf = server.data().join("tenants").join(id).join("segments");
    fs::read_dir(directory).expect("segments").map(|entry| entry.expect("an entry").file_name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_key_is_replaced_while_clients_work() {
    let mut server = Server::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    write_row(&server, &acme, 7).await;
    write_row(&server, &other, 8).await;
    let client = server.login_with(&acme).connect().await.expect("connect");
    let rotated = server.admin(&["tenant", "rotate-key", "acme", "--wait"]);
    assert_eq!(
        (&rotated["under_older"], &rotated["running"]),
        (&Value::from(0), &Value::from(false)),
        "{rotated}"
    );
    assert_eq!(rotated["keys"].as_array().map(Vec::len), Some(1), "the older one is destroyed: {rotated}");
    assert_eq!(rotated["keys"][0]["epoch"], 2, "{rotated}");
    client.batch_execute("INSERT INTO kept VALUES (9)").await.expect("the connection goes on");
    let shown = client.query_one("SELECT epoch, older_keys FROM sepal_keys", &[]).await.expect("a row");
    assert_eq!((shown.get::<_, i64>(0), shown.get::<_, i64>(1)), (2, 0));
    let untouched = server.admin(&["tenant", "key-status", "other"]);
    assert_eq!(untouched["keys"][0]["epoch"], 1, "{untouched}");
    let data = server.data().display().to_string();
    let told = run(&format!("tenant key-status acme --data {data}"), &[]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("0 files under older keys"), "{text}{}", said(&told));
    let unknown = server.try_admin(&["tenant", "rotate-key", "nobody"]);
    assert!(said(&unknown).contains("tenant \"nobody\" does not exist"), "{}", said(&unknown));
    drop(client);
    server.kill();
    server.start_again();
    assert_eq!(rows(&server, &acme).await, [7, 9]);
    assert_eq!(rows(&server, &other).await, [8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_of_all_files_goes_on() {
    let mut server = Server::start();
    let key = server.tenant("acme");
    {
        let client = server.login_with(&key).connect().await.expect("connect");
        for table in 0..4 {
            let load = format!(
                "CREATE TABLE t{table} (a int PRIMARY KEY, filler text); INSERT INTO t{table} \
                 SELECT x, 'filler of some length, so that there is something to copy ' || x \
                 FROM generate_series(1, 20000) AS s(x)"
            );
            client.batch_execute(&load).await.expect("load");
        }
    }
    // Flushes them, so that there are files to be written anew.
    server.admin(&["tenant", "rotate-key", "acme", "--files", "--wait"]);
    let data = server.data().display().to_string();
    let mut generation = 1;
    for round in 0..6_u64 {
        let before = segments(&server, "acme");
        assert!(before.len() >= 4, "{before:?}");
        let mut rotating = Command::new(binary())
            .args(["tenant", "rotate-key", "acme", "--files", "--wait", "--data", &data])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run sepal");
        std::thread::sleep(Duration::from_millis(40 * round));
        server.kill();
        let _ = rotating.wait();
        server.start_again();
        let status = server.admin(&["tenant", "key-status", "acme", "--wait"]);
        assert_eq!(status["under_older"], 0, "round {round}: {status}");
        assert_eq!(status["keys"].as_array().map(Vec::len), Some(1), "round {round}: {status}");
        assert_eq!(
            (&status["files_left"], &status["log_files_left"]),
            (&Value::from(0), &Value::from(0)),
            "{status}"
        );
        let now = status["file_generation"].as_u64().expect("a number");
        // It may have been killed before it had begun.
        if now > generation {
            let after = segments(&server, "acme");
            assert!(before.is_disjoint(&after), "round {round}: files under their old keys");
        }
        generation = now;
        let client = server.login_with(&key).connect().await.expect("connect");
        for table in 0..4 {
            let sql =
                format!("SELECT count(*), sum(a::bigint)::bigint, count(DISTINCT filler) FROM t{table}");
            let row = client.query_one(&sql, &[]).await.expect("a row");
            let found = (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
            assert_eq!(found, (20_000, 200_010_000, 20_000), "round {round}, table {table}");
        }
    }
    assert!(generation >= 2, "no rotation had begun before the server was killed");
}
