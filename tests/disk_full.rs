//! What does a full disk do?
//!
//! The data directory lies on a file system of a few MiB. Writing until it is full must fail with 53100, keep
//! every earlier commit, leave reads and later small writes alone, and go on when space returns. It needs a
//! mount of its own, so it needs root.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;
use tokio_postgres::Client;

use crate::server::{Server, skip};

/// Small enough to fill in a moment, large enough for a database and some flushes.
const MIB: u64 = 48;

/// A file system of our own, unmounted when dropped.
struct Small {
    path: PathBuf,
}

impl Small {
    fn mount() -> Option<Small> {
        let path = TempDir::new().expect("a temporary directory").keep();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={MIB}m,mode=0700"), "sepal-test"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Small { path });
        }
        let _ = fs::remove_dir(&path);
        None
    }

    /// More room, as an operator would make it.
    fn grow(&self) {
        let size = format!("remount,size={}m", 4 * MIB);
        let grown = Command::new("mount").args(["-o", &size]).arg(&self.path).status().expect("remount");
        assert!(grown.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        let _ = fs::remove_dir(&self.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_keeps_commits_and_recovers() {
    let Some(small) = Small::mount() else {
        skip("mounting a tmpfs needs root: the full disk was not tested");
        return;
    };
    let directory = TempDir::new_in(&small.path).expect("a directory on the small disk");
    let mut server = Server::start_in(directory, &[]);
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    client.batch_execute("CREATE TABLE t (n int PRIMARY KEY, filler text)").await.expect("create");

    let committed = fill(&client, 0).await;
    assert!(committed > 0, "nothing fitted at all");
    // The statement that failed has left nothing, and the earlier ones stand.
    assert_eq!(count(&client).await, committed);
    // Reads go on, and so does a new connection.
    let other = server.login_with(&key).connect().await.expect("connect on a full disk");
    assert_eq!(count(&other).await, committed);
    assert!(server.is_running());

    small.grow();
    let more = retry_insert(&client, committed).await;
    assert_eq!(count(&client).await, committed + more);

    // Everything is still there after a restart.
    drop((client, other));
    server.restart();
    // The first login replays the log, which a debug build on a busy machine does not finish within a login.
    let login = server.login_with(&key);
    let mut client = login.connect().await;
    for _ in 0..12 {
        if client.is_ok() {
            break;
        }
        client = login.connect().await;
    }
    let client = client.expect("connect");
    assert_eq!(count(&client).await, committed + more);
    drop(client);
    drop(server);
}

async fn count(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM t", &[]).await.expect("count").get(0)
}

/// Inserts rows of random text, which no compression shrinks, until one fails. The number of rows committed.
async fn fill(client: &Client, from: i64) -> i64 {
    let mut n = from;
    loop {
        assert!(n < 10_000, "the small disk never fills");
        match insert(client, n, 256).await {
            Ok(()) => n += 1,
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("the connection broke: {error}"));
                assert_eq!(error.code().code(), "53100", "{error}");
                return n - from;
            }
        }
    }
}

/// After space returned, a write works at once or after a moment.
async fn retry_insert(client: &Client, n: i64) -> i64 {
    for _ in 0..50 {
        match insert(client, n, 1).await {
            Ok(()) => return 1,
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("the connection broke: {error}"));
                assert_eq!(error.code().code(), "53100", "{error}");
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("space returned, but writes are still refused");
}

/// One row of `kib` KiB.
async fn insert(client: &Client, n: i64, kib: usize) -> Result<(), tokio_postgres::Error> {
    let filler: String = (0..kib * 64).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    let n = i32::try_from(n).expect("few rows");
    client.execute("INSERT INTO t VALUES ($1, $2)", &[&n, &filler]).await.map(|_| ())
}
