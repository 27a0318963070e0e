//! Points in time: the log that was archived after a backup.

use std::fs;

use serde_json::{Value, json};

use super::{ARCHIVING, Scene, fill, id, numbers, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_moment_since_a_backup_can_be_restored() {
    let (mut scene, client) = Scene::filled(&ARCHIVING).await;
    client.execute("INSERT INTO log VALUES (1)", &[]).await.expect("insert");
    scene.backup();
    client.execute("INSERT INTO log VALUES (2)", &[]).await.expect("insert");
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let moment: String = client.query_one("SELECT now()::text", &[]).await.expect("now").get(0);
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    client.batch_execute("INSERT INTO log VALUES (3); DELETE FROM items").await.expect("the mistake");
    scene.wait_for_archive();
    // Killed: what was archived is all that there is.
    scene.server.kill();

    let (place, told) = scene.restore(&["--until", &moment]);
    let tenants = told["tenants"].as_array().expect("tenants");
    assert_eq!(tenants.len(), 2, "{told}");
    assert!(tenants.iter().all(|tenant| tenant["reached"] == true), "also who wrote nothing since: {told}");
    let restored = scene.serve(place);
    let client = restored.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1, 2], "as of {moment}");
    let left: i64 = client.query_one("SELECT count(*) FROM items", &[]).await.expect("a count").get(0);
    assert_eq!(left, super::ROWS - super::ROWS / 10);

    let (place, _) = scene.restore(&[]);
    let latest = scene.serve(place);
    let client = latest.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1, 2, 3], "the newest that was archived");

    let key = scene.recovery_key().display().to_string();
    let to = scene.place.path().join("never").display().to_string();
    let refused =
        scene.run(&["restore", "--to", &to, "--recovery-key-file", &key, "--until", "2020-01-01T00:00:00Z"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("the oldest backup is of"), "{}", text(&refused.stderr));
}

/// What the archive does not reach is told, and is no success unless that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_after_the_archives_end_is_not_reached() {
    let (mut scene, _client) = Scene::archived().await;
    scene.server.kill();
    let later = "2100-01-01T00:00:00Z";
    let (place, output) = scene.try_restore(&["--until", later]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("recovery ended before") && told.contains(later), "{told}");
    let restored: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tenants = restored["tenants"].as_array().expect("tenants");
    assert!(tenants.len() == 2 && tenants.iter().all(|tenant| tenant["reached"] == false), "{restored}");
    // What there is can be served nevertheless.
    let server = scene.serve(place);
    let client = server.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1]);
    drop(server);
    let (_place, accepted) = scene.restore(&["--until", later, "--accept-earlier"]);
    assert_eq!(accepted["tenants"][0]["reached"], false, "{accepted}");
}

/// The server crashes while the repository is away, and nobody opens the tenant when both are back: what it committed
/// meanwhile is archived before anything is said of that time.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_unarchived_follows_before_the_moment_is_reached() {
    let (mut scene, client) = Scene::archived().await;
    let away = format!("{}.away", scene.repository);
    fs::rename(&scene.repository, &away).expect("rename");
    scene.wait_for(|status| !status["archive"]["error"].is_null());
    client.execute("INSERT INTO log VALUES (2)", &[]).await.expect("insert");
    let moment: String = client.query_one("SELECT now()::text", &[]).await.expect("now").get(0);
    drop(client);
    scene.server.kill();
    fs::rename(&away, &scene.repository).expect("rename");
    scene.server.start_again();
    scene.wait_for_archive();
    scene.server.kill();

    let (place, told) = scene.restore(&["--until", &moment]);
    let tenants = told["tenants"].as_array().expect("tenants");
    assert!(tenants.len() == 2 && tenants.iter().all(|tenant| tenant["reached"] == true), "{told}");
    let restored = scene.serve(place);
    let client = restored.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1, 2], "all that was acknowledged by {moment}");
}

/// One log file whose end went before it was archived, and the next one whole: what comes back ends cleanly before it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_log_file_is_where_the_log_ends() {
    let (mut scene, client) = Scene::archived().await;
    let tenant = scene.acme_id();
    let known = parts(&scene, &tenant);
    client.execute("INSERT INTO log VALUES (2)", &[]).await.expect("insert");
    scene.wait_for_archive();
    drop(client);
    // Each start begins a file.
    scene.server.restart();
    scene.client().await.execute("INSERT INTO log VALUES (3)", &[]).await.expect("insert");
    scene.wait_for_archive();
    scene.server.kill();
    let file = |name: &str| name.rsplit_once('/').expect("a folder").0.to_owned();
    let half = file(&known.last().expect("parts").0);
    let all = parts(&scene, &tenant);
    assert!(all.iter().any(|(name, _)| file(name) > half), "{all:?}");
    let ends: Vec<_> = all.iter().filter(|part| file(&part.0) == half && !known.contains(part)).collect();
    assert!(!ends.is_empty(), "the 2 is in {half}: {all:?}");
    ends.iter().for_each(|(_, path)| fs::remove_file(path).expect("remove"));

    let (place, output) = scene.try_restore(&[]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
    for tenant in restored["tenants"].as_array().expect("tenants") {
        assert_eq!(tenant["reached"], json!(tenant["name"] != "acme"), "{restored}");
    }
    let server = scene.serve(place);
    let client = server.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1], "neither the 2 nor what came after it");
    let verified = scene.verify();
    let told = text(&verified.stdout) + &text(&verified.stderr);
    assert!(!verified.status.success() && told.contains("some of it is missing"), "{told}");
}

/// Two servers that went on from the same backup, into the same repository: neither spoils the other's log.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_begins_a_line_of_its_own() {
    let (mut scene, _client) = Scene::archived().await;
    scene.server.stop();
    let first = scene.json(&["list"])[0]["id"].as_str().expect("an id").to_owned();
    let (place, _) = scene.restore(&["--backup", &first]);
    let flags = ["--backup-repository", &scene.repository, "--backup-schedule", "off"];
    let second = crate::server::Server::start_in(place, &flags);
    let client = second.login_with(&scene.acme).connect().await.expect("connect");
    client.execute("INSERT INTO log VALUES (22)", &[]).await.expect("insert");
    second.admin(&["backup", "create"]);
    client.execute("INSERT INTO log VALUES (23)", &[]).await.expect("insert");
    drop(second);

    let newest = scene.serve(scene.restore(&[]).0);
    let client = newest.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [22], "the restored server's line, as far as it was archived");
    let verified = scene.verify();
    assert!(verified.status.success(), "{}", text(&verified.stdout));
}

/// What a restored server archives comes back only with a backup of its own: it waits for no hour of the day.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_makes_a_backup_of_its_own_at_once() {
    let (mut scene, _client) = Scene::archived().await;
    scene.server.stop();
    let (place, _) = scene.restore(&[]);
    let flags = ["--backup-repository", &scene.repository, "--backup-schedule", "every 24h"];
    let second = crate::server::Server::start_in(place, &flags);
    until("the restored server's own backup", || second.admin(&["backup", "status"])["backups"] == 2);
}

/// The one tenant's part of what `verify` says of a backup, and whether that is good.
fn tried(scene: &Scene, backup: &str) -> (Value, bool, String) {
    let key = scene.recovery_key().display().to_string();
    let output = scene.run(&["verify", backup, "--tenant", "acme", "--recovery-key-file", &key]);
    let told = text(&output.stdout) + &text(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
    (report["tenants"][0].clone(), output.status.success(), told)
}

/// A backup is tried with the log that was archived after it: without that no moment since comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_tries_the_moments_since_a_backup() {
    let mut scene = Scene::start(&["--backup-archive-seconds", "1"]);
    let client = scene.client().await;
    fill(&client).await;
    let first = id(&scene.backup());
    let (acme, good, told) = tried(&scene, &first);
    assert!(good && acme["since"]["next"] == Value::Null, "{told}");
    let lsn = acme["since"]["lsn"].as_u64().expect("a commit");

    client
        .batch_execute("INSERT INTO log VALUES (1); DELETE FROM items WHERE id < 100")
        .await
        .expect("write");
    scene.wait_for_archive();
    let (acme, good, told) = tried(&scene, &first);
    assert!(good && acme["since"]["lsn"].as_u64() >= Some(lsn + 1), "what was committed since: {told}");

    let second = id(&scene.backup());
    let (acme, good, told) = tried(&scene, &first);
    assert!(good && acme["since"]["next"] == json!(second) && acme["since"]["gap"] == false, "{told}");
    assert!(acme["since"]["lsn"].as_u64() >= Some(lsn + 1), "{told}");

    // Two more parts, both after the newest backup.
    let listed = scene.server.admin(&["tenant", "list"]);
    let named = listed.as_array().expect("tenants").iter().find(|tenant| tenant["name"] == "acme");
    let tenant = named.expect("acme")["id"].as_str().expect("an id").to_owned();
    let known = parts(&scene, &tenant);
    for n in 2..4_i64 {
        client.execute("INSERT INTO log VALUES ($1)", &[&n]).await.expect("insert");
        scene.wait_for_archive();
    }
    scene.server.kill();
    let since: Vec<_> = parts(&scene, &tenant).into_iter().filter(|part| !known.contains(part)).collect();
    assert!(since.len() >= 2, "{since:?}");
    let (_, good, told) = tried(&scene, &second);
    assert!(good, "{told}");
    let (name, path) = &since[0];
    let whole = fs::read(path).expect("a part");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(path, damaged).expect("damage");
    let (acme, good, told) = tried(&scene, &second);
    assert!(!good && told.contains(name.as_str()), "a flipped bit in {name}: {told}");
    assert!(
        acme["rows"].as_u64() > Some(0) && acme["since"] == Value::Null,
        "the backup itself is there: {told}"
    );
    fs::remove_file(path).expect("remove");
    let (_, good, told) = tried(&scene, &second);
    assert!(!good && told.contains("the log archived since"), "without {name}: {told}");
    fs::write(path, whole).expect("mend");
    let (_, good, told) = tried(&scene, &second);
    assert!(good, "mended: {told}");
}

/// Objects of a tenant's archived log.
fn parts(scene: &Scene, tenant: &str) -> Vec<(String, std::path::PathBuf)> {
    let folder = format!("tenants/{tenant}/wal/");
    scene.objects().into_iter().filter(|(name, _)| name.starts_with(&folder)).collect()
}
