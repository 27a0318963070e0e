//! What do `sepal check` and `sepal repair` say of a damaged directory, and what do they leave of it?
//!
//! On the built binary, as an operator runs them: a server is stopped, a file is damaged, the commands are asked, and
//! the server serves what is left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    canary,
    server::{Key, Server, binary},
};

const ROWS: i64 = 3_000;

/// A stopped server with two tenants: a table in a segment with its index, one row in the log besides.
struct Stopped {
    server: Server,
    acme: Key,
    rival: Key,
}

impl Stopped {
    async fn new() -> Stopped {
        let mut server = Server::start();
        let (acme, rival) = (server.tenant("acme"), server.tenant("rival"));
        for key in [&acme, &rival] {
            let client = server.login_with(key).connect().await.expect("connect");
            client
                .batch_execute(&format!(
                    "CREATE TABLE t (id int PRIMARY KEY, v vector(8) NOT NULL);
                     INSERT INTO t SELECT x, ('[' || repeat('1,', 7) || x || ']')::vector
                       FROM generate_series(1, {ROWS}) AS g(x);
                     CREATE INDEX t_v ON t USING hnsw (v vector_l2_ops);
                     INSERT INTO t VALUES (9000, '[9,9,9,9,9,9,9,9]')"
                ))
                .await
                .expect("set up");
        }
        assert!(server.stop().success());
        Stopped { server, acme, rival }
    }

    /// Runs `sepal <arguments> --data … --json`. Without a temporary directory: no copy of a key lies in a file.
    fn run(&self, arguments: &[&str]) -> (Output, Value) {
        let output = Command::new(binary())
            .args(arguments)
            .arg("--data")
            .arg(self.server.data())
            .arg("--json")
            .env("TMPDIR", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .expect("run sepal");
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output, json)
    }

    /// The id of the tenant, from a check of it that names its files.
    fn files_of(&self, tenant: &str, extension: &str) -> Vec<PathBuf> {
        let (_, planned) = self.run(&["repair", "--tenant", tenant, "--dry-run"]);
        let id = planned["tenant"].as_str().expect("a plan names the tenant").to_owned();
        let store = self.server.data().join("tenants").join(id);
        let mut found = Vec::new();
        for folder in ["manifest", "wal", "segments"] {
            for entry in fs::read_dir(store.join(folder)).expect("a store's folder") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|is| is == extension) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    async fn count(&self, key: &Key) -> Result<i64, tokio_postgres::Error> {
        let client = self.server.login_with(key).connect().await?;
        Ok(client.query_one("SELECT count(*) FROM t", &[]).await?.get(0))
    }
}

fn flip(path: &Path, position: usize) {
    let mut bytes = fs::read(path).expect("read");
    let position = position.min(bytes.len() - 1);
    bytes[position] ^= 0x10;
    fs::write(path, bytes).expect("write");
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_sound_directory_passes_and_a_served_one_is_refused() {
    let mut stopped = Stopped::new().await;
    let (output, report) = stopped.run(&["check"]);
    assert!(output.status.success(), "{report} {}", stderr(&output));
    assert_eq!(report["summary"]["errors"], 0, "{report}");
    // The tenant of `sepal dev` is never used, so it has no store yet.
    assert!(report["summary"]["rows"].as_i64().expect("rows") >= 2 * (ROWS + 1), "{report}");
    let (output, planned) = stopped.run(&["repair", "--tenant", "acme", "--dry-run"]);
    assert!(output.status.success() && planned["losses"] == serde_json::json!([]), "{planned}");
    let (output, _) = stopped.run(&["check", "--tenant", "nobody"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    stopped.server.start_again();
    let (output, _) = stopped.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Stop the server first"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_damaged_segment_is_told_refused_by_its_tenant_alone_and_given_up() {
    let mut stopped = Stopped::new().await;
    let segments = stopped.files_of("acme", "parquet");
    let largest =
        segments.iter().max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("a segment");
    fs::remove_file(largest).expect("remove");

    stopped.server.start_again();
    let refused = stopped.count(&stopped.acme).await.expect_err("a store without a segment does not open");
    let told = refused.as_db_error().expect("an answer of the server");
    assert_eq!(told.code().code(), "XX001");
    assert!(told.message().contains(&name(largest)), "{told:?}");
    assert!(told.hint().is_some_and(|hint| hint.contains("sepal check --tenant")), "{told:?}");
    assert_eq!(stopped.count(&stopped.rival).await.expect("the other tenant"), ROWS + 1);
    stopped.server.stop();

    let (output, report) = stopped.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let problems = report["problems"].as_array().expect("problems");
    let of_file =
        |problem: &&Value| problem["file"].as_str().is_some_and(|file| file.ends_with(&name(largest)));
    let problem = problems.iter().find(of_file).expect("the file is named");
    let consequence = problem["consequence"].as_str().expect("a consequence");
    assert!(consequence.contains("rows of table \"t\""), "{consequence}");
    let lost: i64 = consequence.split(' ').next().and_then(|word| word.parse().ok()).expect("how many");
    // A flush may have taken the last row along.
    assert!((ROWS..=ROWS + 1).contains(&lost), "{consequence}");
    assert_eq!(report["summary"]["errors"], 1, "{report}");

    let (output, _) = stopped.run(&["repair", "--tenant", "acme"]);
    assert_eq!(output.status.code(), Some(2), "without a terminal it does not ask: {}", stderr(&output));
    let (output, repaired) = stopped.run(&["repair", "--tenant", "acme", "--yes"]);
    assert!(output.status.success(), "{repaired} {}", stderr(&output));
    let [loss] = &repaired["losses"].as_array().expect("losses")[..] else { panic!("{repaired}") };
    assert_eq!((&loss["lost"], &loss["rows"]), (&"rows".into(), &lost.into()));
    let written = fs::read(repaired["report"].as_str().expect("a report")).expect("the report");
    let written: Value = serde_json::from_slice(&written).expect("JSON");
    assert_eq!(written["state"], "done");
    for key in ["lost", "table", "file", "first_row", "last_row", "rows"] {
        assert_eq!(written["losses"][0][key], loss[key], "{key}: {written}");
    }

    let (output, report) = stopped.run(&["check"]);
    assert!(output.status.success(), "{report}");
    stopped.server.start_again();
    assert_eq!(
        stopped.count(&stopped.acme).await.expect("the tenant opens"),
        ROWS + 1 - lost,
        "what only the log had is kept"
    );
    assert_eq!(stopped.count(&stopped.rival).await.expect("the other tenant"), ROWS + 1);
}

#[tokio::test]
async fn a_log_that_is_broken_is_cut_and_its_evidence_kept() {
    let mut stopped = Stopped::new().await;
    let log = stopped.files_of("acme", "wal").pop().expect("a log file");
    let damaged = fs::read(&log).expect("read");
    flip(&log, damaged.len() / 2);
    let damaged = fs::read(&log).expect("read");
    let (output, _) = stopped.run(&["check", "--tenant", "acme"]);
    assert_eq!(output.status.code(), Some(1));
    let (output, repaired) = stopped.run(&["repair", "--tenant", "acme", "--yes"]);
    assert!(output.status.success(), "{repaired} {}", stderr(&output));
    let quarantine = PathBuf::from(repaired["quarantine"].as_str().expect("a quarantine"));
    assert_eq!(fs::read(quarantine.join("wal").join(name(&log))).expect("the evidence"), damaged);
    let (output, report) = stopped.run(&["check"]);
    assert!(output.status.success(), "{report}");
    stopped.server.start_again();
    let rows = stopped.count(&stopped.acme).await.expect("the tenant opens");
    assert!((ROWS..=ROWS + 1).contains(&rows), "{rows} rows");
}

/// An index is derived from rows: a server goes on without one that is gone, and builds it again.
#[tokio::test]
async fn a_missing_index_keeps_nobody_out_and_is_built_again() {
    let mut stopped = Stopped::new().await;
    let gone = stopped.files_of("acme", "index");
    assert!(!gone.is_empty());
    gone.iter().for_each(|path| fs::remove_file(path).expect("remove"));
    let (output, report) = stopped.run(&["check", "--tenant", "acme"]);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let told = report["problems"].to_string();
    assert!(told.contains("no row is lost") && told.contains(".index"), "{told}");

    stopped.server.start_again();
    let client = stopped.server.login_with(&stopped.acme).connect().await.expect("the tenant opens");
    let nearest = "SELECT id FROM t ORDER BY v <-> '[9,9,9,9,9,9,9,9]' LIMIT 1";
    let found: i32 = client.query_one(nearest, &[]).await.expect("a search").get(0);
    assert_eq!(found, 9000);
    let folder = gone[0].parent().expect("a folder");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let is_built = || {
        let mut paths = fs::read_dir(folder).expect("the segments").flatten().map(|entry| entry.path());
        paths.any(|path| path.extension().is_some_and(|kind| kind == "index"))
    };
    while !is_built() {
        assert!(std::time::Instant::now() < deadline, "the index is not built again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let found: i32 = client.query_one(nearest, &[]).await.expect("a search").get(0);
    assert_eq!(found, 9000);
    drop(client);
    assert!(stopped.server.stop().success());
    let (output, report) = stopped.run(&["check", "--tenant", "acme"]);
    assert!(output.status.success(), "{report}");
}

/// A report stays in the data directory, also when the tenant is dropped: what the tenant called things is not in it.
#[tokio::test]
async fn a_report_has_no_names() {
    const NAMES: [&str; 5] = [
        "canary-tenant-5b20",
        "canary_table_5b20",
        "canary_column_5b20",
        "canary_index_5b20",
        "canary_snapshot_5b20",
    ];
    let [tenant, table, column, index, snapshot] = NAMES;
    let mut stopped = Stopped::new().await;
    stopped.server.start_again();
    let key = stopped.server.tenant(tenant);
    let client = stopped.server.login_with(&key).connect().await.expect("connect");
    let statements = [
        format!("CREATE TABLE {table} ({column} int PRIMARY KEY, v vector(3) NOT NULL)"),
        format!("INSERT INTO {table} SELECT x, '[1,2,3]' FROM generate_series(1, {ROWS}) AS g(x)"),
        format!("CREATE INDEX {index} ON {table} USING hnsw (v vector_l2_ops)"),
        format!("CREATE SNAPSHOT {snapshot}"),
        format!("INSERT INTO {table} VALUES (0, '[1,2,3]')"),
        "CHECKPOINT".to_owned(),
    ];
    for statement in &statements {
        client.batch_execute(statement).await.expect(statement);
    }
    drop(client);
    stopped.server.stop();
    let mut lost = Vec::new();
    let mut damage_and_repair = |files: Vec<PathBuf>| {
        assert!(!files.is_empty());
        for path in files {
            let whole = fs::read(&path).expect("read");
            fs::write(&path, &whole[..whole.len() / 2]).expect("cut");
        }
        let (_, repaired) = stopped.run(&["repair", "--tenant", tenant, "--yes"]);
        let losses = repaired["losses"].as_array().expect("losses").clone();
        assert!(losses.iter().any(|loss| NAMES.iter().any(|name| loss.to_string().contains(name))));
        lost.extend(losses.iter().map(|loss| loss["lost"].as_str().expect("a kind").to_owned()));
    };
    damage_and_repair(stopped.files_of(tenant, "index"));
    let mut files = stopped.files_of(tenant, "manifest");
    files.pop();
    files.extend(stopped.files_of(tenant, "parquet"));
    damage_and_repair(files);
    for kind in ["index", "rows", "past"] {
        assert!(lost.iter().any(|lost| lost == kind), "{lost:?}");
    }
    let needles = NAMES.map(|name| (name.to_owned(), name.as_bytes().to_vec()));
    assert_eq!(canary::search(&stopped.server.data(), &[], &needles), Vec::<String>::new());
}

/// Every file of a small directory, cut and removed: the check names it, and nothing is changed.
#[tokio::test]
async fn whatever_is_cut_or_missing_is_named() {
    let stopped = Stopped::new().await;
    for extension in ["manifest", "wal", "parquet", "index"] {
        for path in stopped.files_of("rival", extension) {
            let whole = fs::read(&path).expect("read");
            for cut in [0, whole.len() / 2, whole.len() - 1] {
                fs::write(&path, &whole[..cut]).expect("write");
                let (output, report) = stopped.run(&["check", "--tenant", "rival"]);
                assert_eq!(output.status.code(), Some(1), "{path:?} cut to {cut}: {report}");
                let named = report["problems"].as_array().expect("problems").iter().any(|problem| {
                    problem["severity"] == "error"
                        && problem["file"].as_str().is_some_and(|file| file.ends_with(&name(&path)))
                });
                assert!(named, "{path:?} cut to {cut}: {report}");
                assert_eq!(fs::read(&path).expect("read").len(), cut, "it was changed");
            }
            fs::write(&path, &whole).expect("write");
        }
    }
    let (output, report) = stopped.run(&["check"]);
    assert!(output.status.success(), "{report}");
}
