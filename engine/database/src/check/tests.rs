//! A data directory checked and repaired as the command line does it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use sepal_control::KeyFiles;

use super::{CheckListener, CheckProgress, CheckRequest, CheckSummary, Problem, Severity, check};
use crate::{
    fixtures::{Fixture, refused, run},
    repair::{RepairRequest, plan_repair},
    tenant::directory,
};

#[derive(Default)]
struct Heard {
    problems: Vec<Problem>,
    last: CheckProgress,
}

impl CheckListener for Heard {
    fn found(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn progress(&mut self, progress: CheckProgress) {
        assert!(progress.bytes_done >= self.last.bytes_done);
        self.last = progress;
    }
}

/// A closed directory of a tenant with a thousand rows and an index, all in segments, and a commit in the log.
async fn closed() -> (Fixture, PathBuf) {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, v vector(4) NOT NULL)").await;
    let rows =
        "INSERT INTO t SELECT x, ('[' || x || ',1,2,3]')::vector FROM generate_series(1, 1500) AS g(x)";
    run(&mut session, rows).await;
    run(&mut session, "CREATE INDEX t_v ON t USING hnsw (v vector_l2_ops)").await;
    run(&mut session, "INSERT INTO t VALUES (2000, '[1,2,3,4]')").await;
    drop(session);
    fixture.database.shutdown().await;
    let store = directory(&fixture.data(), fixture.tenant_id());
    (fixture, store)
}

fn request(data: &std::path::Path, root: &sepal_crypto::Key) -> CheckRequest {
    CheckRequest {
        data_dir: data.to_owned(),
        root_key: root.clone(),
        wrappers: Arc::new(KeyFiles),
        tenant: None,
        fast: false,
    }
}

fn checked(data: &tempfile::TempDir, root: &sepal_crypto::Key) -> (CheckSummary, Vec<Problem>) {
    let mut heard = Heard::default();
    let request = request(data.path(), root);
    let summary = check(&request, &mut heard).unwrap();
    assert_eq!(heard.last.tenants_done, heard.last.tenants);
    // Modes depend on who runs the tests.
    heard.problems.retain(|problem| problem.severity == Severity::Error);
    (summary, heard.problems)
}

fn one(folder: &std::path::Path, extension: &str) -> PathBuf {
    let mut found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.extension().is_some_and(|is| is == extension)).unwrap()
}

fn flip(path: &std::path::Path, position: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_directory_is_sound_and_an_open_one_is_not_read() {
    let (fixture, _) = closed().await;
    let request = request(&fixture.data(), &fixture.root);
    let refused = check(&request, &mut Heard::default()).unwrap_err();
    assert_eq!(refused.state().code(), "55006");
    let (data, root) = fixture.close();
    let (summary, problems) = checked(&data, &root);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((summary.tenants, summary.errors), (1, 0));
    assert!(summary.rows >= 1_501 && summary.bytes > 10_000, "{summary:?}");
    let wrong = CheckRequest { root_key: sepal_crypto::Key::random(), ..request };
    assert_eq!(check(&wrong, &mut Heard::default()).unwrap_err().state().code(), "28000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_found_and_given_up() {
    let (fixture, store) = closed().await;
    let (data, root) = fixture.close();
    let index = one(&store.join("segments"), "index");
    flip(&index, 3_000);
    let (summary, problems) = checked(&data, &root);
    assert_eq!(summary.errors, 1, "{problems:?}");
    assert!(problems[0].file.ends_with(&*index.file_name().unwrap().to_string_lossy()), "{problems:?}");
    let request = RepairRequest {
        data_dir: data.path().to_owned(),
        root_key: root.clone(),
        wrappers: Arc::new(KeyFiles),
        tenant: "acme".to_owned(),
        resurrect_deleted: false,
    };
    let proposal = plan_repair(request, &mut Heard::default()).unwrap();
    assert_eq!((proposal.losses.len(), proposal.files.len()), (1, 1));
    let repaired = proposal.apply(&mut Heard::default()).unwrap();
    assert_eq!(repaired.summary.errors, 0);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&repaired.report).unwrap()).unwrap();
    assert_eq!((&report["state"], &report["losses"][0]["lost"]), (&"done".into(), &"index".into()));
    assert!(checked(&data, &root).1.is_empty());
    let again = Fixture::reopen(data, root);
    let mut session = again.session().await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [1_501]);
    assert_eq!(run(&mut session, "SELECT id FROM t ORDER BY v <-> '[7,1,2,3]' LIMIT 1").await, [7]);
}

/// Wherever it lies: keys, what a repair moved aside, what backups remember.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_may_use_is_told() {
    let (fixture, _) = closed().await;
    let (data, root) = fixture.close();
    for folder in ["tls", "backup", "quarantine"] {
        fs::create_dir(data.path().join(folder)).unwrap();
    }
    let open = ["root.key.new", "tls/server.key", "backup/line", "quarantine/repair-report.json"];
    let to_be_read = ["tls/ca.crt", "sepal.toml"];
    let modes = open.iter().chain(&to_be_read).map(|name| (*name, 0o644));
    for (name, mode) in modes.chain([("root.key", 0o600), ("tls/server.crt", 0o664)]) {
        let path = data.path().join(name);
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink(data.path().join("root.key"), data.path().join("link")).unwrap();
    let mut heard = Heard::default();
    check(&CheckRequest { fast: true, ..request(data.path(), &root) }, &mut heard).unwrap();
    let told = |name: &str| heard.problems.iter().find(|problem| problem.file == name);
    for name in open.into_iter().chain(["tls/server.crt"]) {
        let problem = told(name).unwrap_or_else(|| panic!("{name}: {:?}", heard.problems));
        assert_eq!(problem.severity, Severity::Warning);
        assert!(problem.consequence.contains("chmod 600"), "{problem:?}");
    }
    for name in to_be_read.into_iter().chain(["root.key", "link"]) {
        assert_eq!(told(name), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_its_directory_and_a_directory_without_its_tenant_are_told() {
    let (fixture, store) = closed().await;
    let (data, root) = fixture.close();
    fs::rename(&store, store.with_file_name("ab".repeat(16))).unwrap();
    let mut heard = Heard::default();
    let request = CheckRequest { fast: true, ..request(data.path(), &root) };
    let summary = check(&request, &mut heard).unwrap();
    assert_eq!(summary.errors, 1, "{:?}", heard.problems);
    let told = |severity, word: &str| {
        let found = |problem: &Problem| problem.severity == severity && problem.what.contains(word);
        heard.problems.iter().any(found)
    };
    assert!(told(Severity::Error, "the directory is missing"));
    assert!(told(Severity::Warning, "no tenant that control.db knows"));
}

/// Two tables of one name are told apart, and only tables count as such.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_schema_is_named_with_it() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE SCHEMA s; CREATE SEQUENCE q; CREATE TABLE s.t (id int PRIMARY KEY)").await;
    run(&mut session, "INSERT INTO s.t VALUES (1), (2); CHECKPOINT").await;
    drop(session);
    fixture.database.shutdown().await;
    let store = directory(&fixture.data(), fixture.tenant_id());
    let (data, root) = fixture.close();
    let (summary, problems) = checked(&data, &root);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((summary.tables, summary.rows), (1, 2));
    fs::remove_file(one(&store.join("segments"), "parquet")).unwrap();
    let (_, problems) = checked(&data, &root);
    assert!(problems[0].consequence.starts_with("2 rows of table \"s.t\" ("), "{problems:?}");
}

/// What a repair gives up may be referred to: the check goes on to say so.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_refer_to_what_is_gone_are_told() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE p (id int PRIMARY KEY, code text UNIQUE)").await;
    run(&mut session, "INSERT INTO p VALUES (1, 'one'), (2, 'two'); CHECKPOINT").await;
    let gone = one(&directory(&fixture.data(), fixture.tenant_id()).join("segments"), "parquet");
    run(
        &mut session,
        "CREATE TABLE c (id int, p bigint REFERENCES p, code varchar(9) REFERENCES p (code)); \
         INSERT INTO c VALUES (1, 1, 'two'), (2, NULL, 'one'), (3, 2, NULL), (4, 2, NULL), (5, NULL, NULL)",
    )
    .await;
    run(&mut session, "DELETE FROM c WHERE id = 4").await;
    drop(session);
    fixture.database.shutdown().await;
    let (data, root) = fixture.close();
    let (_, problems) = checked(&data, &root);
    assert!(problems.is_empty(), "{problems:?}");
    fs::remove_file(gone).unwrap();
    let request = RepairRequest {
        data_dir: data.path().to_owned(),
        root_key: root.clone(),
        wrappers: Arc::new(KeyFiles),
        tenant: "acme".to_owned(),
        resurrect_deleted: false,
    };
    let proposal = plan_repair(request, &mut Heard::default()).unwrap();
    assert_eq!(proposal.left.len(), 2, "told before anything is given up: {:?}", proposal.left);
    assert_eq!(proposal.apply(&mut Heard::default()).unwrap().summary.errors, 2);
    let (_, problems) = checked(&data, &root);
    for key in ["c_p_fkey", "c_code_fkey"] {
        let told = format!("2 rows refer to none by foreign key \"{key}\"");
        assert!(problems.iter().any(|problem| problem.what.ends_with(&told)), "{problems:?}");
    }
    let again = Fixture::reopen(data, root);
    let mut session = again.session().await;
    assert_eq!(refused(&mut session, "INSERT INTO c (p) VALUES (1)").await, "23503");
    run(&mut session, "INSERT INTO p VALUES (1, 'one'), (2, 'two'); INSERT INTO c (p) VALUES (1)").await;
}
