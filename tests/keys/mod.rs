//! Where may the root key be, how is it replaced and had back, and what does a dropped tenant leave?
//!
//! With the real command line: a passphrase, SoftHSM as the PKCS#11 token, a transit engine of the tests' own
//! (`transit`). `sepal dev` serves whatever directory `sepal init` made.

mod providers;
mod rotation;
mod transit;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::{Key, Server, binary};

/// `EX_CONFIG`.
pub const CONFIGURATION: i32 = 78;

/// A command of its own, without a server.
pub fn sepal(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let variables = variables.iter().copied();
    Command::new(binary()).args(arguments).envs(variables).stdin(Stdio::null()).output().expect("run sepal")
}

/// The same from a line, whose words have no spaces.
pub fn run(line: &str, variables: &[(&str, &str)]) -> Output {
    sepal(&line.split_whitespace().collect::<Vec<_>>(), variables)
}

/// A new file that only we may read.
pub fn private_file(path: &Path, content: &str) -> String {
    let _ = fs::remove_file(path);
    fs::write(path, content).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
    path.display().to_string()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One row that only the tenant's key opens.
pub async fn write_row(server: &Server, key: &Key, value: i32) {
    let client = server.login_with(key).connect().await.expect("connect");
    client
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS kept (a int PRIMARY KEY); INSERT INTO kept VALUES ({value})"
        ))
        .await
        .expect("write a row");
}

pub async fn rows(server: &Server, key: &Key) -> Vec<i32> {
    let client = server.login_with(key).connect().await.expect("connect");
    let rows = client.query("SELECT a FROM kept ORDER BY a", &[]).await.expect("read rows");
    rows.iter().map(|row| row.get(0)).collect()
}

fn root_file(server: &Server) -> PathBuf {
    server.data().join("root.key")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_is_replaced_while_clients_work() {
    let mut server = Server::start();
    let keys: Vec<Key> = (0..20).map(|number| server.tenant(&format!("tenant-{number}"))).collect();
    for key in &keys[..3] {
        write_row(&server, key, 7).await;
    }
    let old = fs::read(root_file(&server)).expect("the root key");
    let client = server.login_with(&keys[0]).connect().await.expect("connect");
    let rotated = server.admin(&["root", "rotate"]);
    assert_eq!((&rotated["generation"], &rotated["under_old"]), (&Value::from(2), &Value::from(0)));
    client.batch_execute("INSERT INTO kept VALUES (8)").await.expect("the connection goes on");
    assert_ne!(fs::read(root_file(&server)).expect("the root key"), old);
    let status = server.admin(&["root", "status"]);
    assert_eq!((&status["keys"], &status["running"]), (&Value::from(21), &Value::from(false)));
    assert!(status["kept_in"].as_str().is_some_and(|text| text.contains("root.key")), "{status}");
    drop(client);

    server.kill();
    server.start_again();
    assert_eq!(rows(&server, &keys[0]).await, [7, 8]);
    assert_eq!(rows(&server, &keys[2]).await, [7]);
    // The old key opens nothing any more.
    server.stop();
    let new = fs::read(root_file(&server)).expect("the root key");
    fs::write(root_file(&server), &old).expect("write");
    let ended = server.try_start().expect_err("started with the old root key");
    assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    fs::write(root_file(&server), &new).expect("write");
    server.start_again();
    assert_eq!(rows(&server, &keys[1]).await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_is_finished_by_the_next_start() {
    let mut server = Server::start();
    let keys: Vec<Key> = (0..5).map(|number| server.tenant(&format!("tenant-{number}"))).collect();
    write_row(&server, &keys[4], 7).await;
    for round in 0..4 {
        let data = server.data().display().to_string();
        let mut rotating = Command::new(binary())
            .args(["root", "rotate", "--data", &data])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run sepal");
        std::thread::sleep(std::time::Duration::from_millis(5 * round));
        server.kill();
        let _ = rotating.wait();
        server.start_again();
        assert_eq!(rows(&server, &keys[4]).await, [7], "round {round}");
        let deadline = std::time::Instant::now() + crate::http::PATIENCE;
        while server.admin(&["root", "status"])["under_old"] != 0 {
            assert!(std::time::Instant::now() < deadline, "round {round}: the rotation does not go on");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_root_key_is_had_back_from_shares() {
    let mut server = Server::start();
    let key = server.tenant("acme");
    write_row(&server, &key, 7).await;
    assert_eq!(server.admin(&["recovery", "status"]), Value::Null);
    let made = server.admin(&["recovery", "create", "--shares", "5", "--threshold", "3"]);
    let shares: Vec<&str> = made["secrets"]
        .as_array()
        .expect("shares")
        .iter()
        .map(|share| share.as_str().expect("text"))
        .collect();
    assert_eq!(shares.len(), 5);
    assert!(shares[0].starts_with("sepal_share_3of5n1_"), "{}", shares[0]);
    server.admin(&["root", "rotate"]);

    let place = TempDir::new().expect("a temporary directory");
    let two = private_file(&place.path().join("two"), &shares[1..3].join("\n"));
    let third = private_file(&place.path().join("third"), shares[4]);
    let few = server.try_admin(&["recovery", "verify", "--from", &two]);
    assert!(!few.status.success() && said(&few).contains("3 of 5 are needed"), "{}", said(&few));
    let verified = server.admin(&["recovery", "verify", "--from", &two, "--from", &third]);
    assert!(verified["verified_at"].is_i64(), "{verified}");

    server.stop();
    let data = server.data().display().to_string();
    let recover = ["recover", "--data", &data, "--from", &two, "--from", &third];
    let kept = sepal(&recover, &[]);
    assert_eq!(kept.status.code(), Some(CONFIGURATION), "a root key is never overwritten: {}", said(&kept));
    fs::remove_file(root_file(&server)).expect("lose the root key");
    let wrong = private_file(&place.path().join("wrong"), &shares[0].replace("n1_", "n2_"));
    assert!(said(&sepal(&["recover", "--data", &data, "--from", &wrong], &[])).contains("typing error"));
    let recovered = sepal(&recover, &[]);
    assert!(recovered.status.success(), "{}", said(&recovered));
    assert_eq!(fs::metadata(root_file(&server)).expect("the root key").permissions().mode() & 0o777, 0o600);
    server.start_again();
    assert_eq!(rows(&server, &key).await, [7]);
    let told = sepal(&["audit", "list", "--data", &data], &[]).stdout;
    assert!(String::from_utf8_lossy(&told).contains("root.recover"), "the use of the recovery key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_recovery_key_may_come_by_a_pipe() {
    let mut server = Server::start();
    let made = server.admin(&["recovery", "create"]);
    let key = made["secrets"][0].as_str().expect("a key").to_owned();
    assert!(key.starts_with("sepal_rec_root_"), "{key}");
    server.stop();
    fs::remove_file(root_file(&server)).expect("lose the root key");
    let mut recovering = Command::new(binary())
        .args(["recover", "--data", &server.data().display().to_string()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run sepal");
    recovering.stdin.take().expect("its stdin").write_all(key.as_bytes()).expect("write");
    let output = recovering.wait_with_output().expect("wait");
    assert!(output.status.success(), "{}", said(&output));
    server.start_again();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_tenant_leaves_a_signed_certificate() {
    let server = Server::start();
    let key = server.tenant("doomed");
    write_row(&server, &key, 7).await;
    let place = TempDir::new().expect("a temporary directory");
    let file = place.path().join("certificate.json");
    let path = file.display().to_string();
    let dropped = server.admin(&["tenant", "drop", "doomed", "--yes", "--certificate", &path]);
    let saved: Value = serde_json::from_slice(&fs::read(&file).expect("saved")).expect("JSON");
    assert_eq!(saved, dropped);
    let text = dropped["certificate"].as_str().expect("a statement");
    let statement: Value = serde_json::from_str(text).expect("JSON");
    assert!(statement["files"].as_u64().is_some_and(|files| files >= 2), "{statement}");
    assert_eq!(statement["keys"].as_array().map(Vec::len), Some(1), "{statement}");
    assert!(!text.contains("doomed"), "{statement}");
    assert!(signed(&dropped), "{dropped}");
    assert_eq!(server.admin(&["audit", "certificate", "doomed"]), dropped);
    let unknown = server.try_admin(&["audit", "certificate", "nobody"]);
    assert!(!unknown.status.success());
}

/// Judged by another library than the server's own code.
fn signed(certificate: &Value) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = |name: &str| certificate[name].as_str().expect("text");
    let signer = STANDARD.decode(text("signer").trim_start_matches("ed25519:")).expect("base64");
    let signature: Vec<u8> = (0..64)
        .map(|at| u8::from_str_radix(&text("signature")[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect();
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, signer);
    key.verify(text("certificate").as_bytes(), &signature).is_ok()
}

/// The verifier of docs/keys.md, run as it is written there.
#[tokio::test(flavor = "multi_thread")]
async fn an_exported_audit_trail_can_be_checked_without_sepal() {
    let mut server = Server::start();
    server.tenant("acme");
    server.admin(&["root", "rotate"]);
    let data = server.data().display().to_string();
    let exported = sepal(&["audit", "export", "--data", &data], &[]);
    assert!(exported.status.success(), "{}", said(&exported));
    let lines: Vec<&str> = std::str::from_utf8(&exported.stdout).expect("UTF-8").lines().collect();
    assert!(lines.len() >= 6, "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.contains("\"checkpoint\"")), "{lines:?}");
    let guide = fs::read_to_string(crate::server::repository().join("docs/keys.md")).expect("the guide");
    let mut scripts = guide.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next());
    let script = scripts.find(|script| script.contains("audit-entry")).expect("a script");
    assert!(checks(script, &exported.stdout));
    let forged = String::from_utf8_lossy(&exported.stdout).replacen("tenant.create", "tenant.crEate", 1);
    assert!(!checks(script, forged.as_bytes()));

    let report = server.admin(&["audit", "verify"]);
    assert_eq!(report["wrong"], serde_json::json!([]));
    let expected = format!("{}:{}", report["entries"], report["head"].as_str().expect("a hash"));
    server.admin(&["audit", "verify", "--expect", &expected]);
    let other = format!("1:{}", report["head"].as_str().expect("a hash"));
    assert_eq!(server.try_admin(&["audit", "verify", "--expect", &other]).status.code(), Some(1));
    server.stop();
}

fn checks(script: &str, trail: &[u8]) -> bool {
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3: run ./setup test");
    // It may end before it has read all.
    let _ = python.stdin.take().expect("its stdin").write_all(trail);
    python.wait().expect("wait").success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_key_file_is_needed_and_others_go_on() {
    let mut server = Server::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    write_row(&server, &acme, 7).await;
    write_row(&server, &other, 8).await;
    let place = TempDir::new().expect("a temporary directory");
    let path = place.path().join("acme.key");
    let file = private_file(&path, &format!("{}\n", "5a".repeat(32)));
    let set = server.admin(&["tenant", "byok", "set", "acme", "--provider", "file", "--key-file", &file]);
    assert_eq!(set["keys"][0]["own"], Value::Bool(true), "{set}");
    assert_eq!(set["keys"][0]["epoch"], Value::from(2), "a key that no older copy has: {set}");
    server.restart();
    assert_eq!(rows(&server, &acme).await, [7]);
    server.admin(&["root", "rotate"]);

    server.stop();
    fs::rename(&path, place.path().join("hidden")).expect("take the key away");
    server.start_again();
    let refused = server.login_with(&acme).connect().await.map(drop).expect_err("opened without its key");
    let refused = refused.as_db_error().expect("the server's words").clone();
    assert_eq!(refused.code().code(), "57P03", "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("Other tenants")), "{refused:?}");
    // Where the key lies is the operator's to know.
    assert!(!format!("{refused:?}").contains(path.to_str().expect("a path")), "{refused:?}");
    assert_eq!(rows(&server, &other).await, [8]);
    fs::rename(place.path().join("hidden"), &path).expect("give it back");
    assert_eq!(rows(&server, &acme).await, [7]);
    server.admin(&["tenant", "byok", "remove", "acme"]);
    fs::remove_file(&path).expect("remove");
    server.restart();
    assert_eq!(rows(&server, &acme).await, [7]);
}

/// Keys must not be in a core file, and not for other processes of the same user to read.
#[test]
fn a_serving_process_keeps_its_memory_to_itself() {
    let place = TempDir::new().expect("a temporary directory");
    let data = place.path().join("data").display().to_string();
    let made = sepal(&["init", "--data", &data], &[]);
    assert!(made.status.success(), "{}", said(&made));
    let mut serving = Command::new(binary())
        .args(["serve", "--data", &data, "--pg-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run sepal");
    // Its first words mean that it serves.
    let mut first = [0_u8; 1];
    std::io::Read::read_exact(serving.stdout.as_mut().expect("its stdout"), &mut first).expect("it serves");
    let limits = fs::read_to_string(format!("/proc/{}/limits", serving.id())).expect("its limits");
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit").to_owned();
    // What is not dumpable belongs to root, whoever runs it.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}/environ", serving.id())).expect("its files"),
    );
    let locked = fs::read_to_string(format!("/proc/{}/status", serving.id())).expect("its status");
    serving.kill().expect("kill");
    serving.wait().expect("wait");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(owner, 0);
    let kib = locked.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("VmLck");
    assert!(!kib.trim().starts_with("0 "), "no page is locked: {kib}");
}
