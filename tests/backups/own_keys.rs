//! A tenant that brought its own key: what it does with that is not the others' trouble, and a change of the provider
//! is followed by its backups.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Scene, check_rival, numbers, text};

/// A key file that only we may read.
fn key_file(scene: &Scene, name: &str, digits: &str) -> PathBuf {
    let path = scene.place.path().join(name);
    fs::write(&path, format!("{}\n", digits.repeat(32))).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    path
}

fn bring(scene: &Scene, file: &Path) {
    let file = file.display().to_string();
    scene.server.admin(&["tenant", "byok", "set", "acme", "--provider", "file", "--key-file", &file]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_away_is_one_tenants_trouble() {
    let (mut scene, client) = Scene::filled(&[]).await;
    let rival = scene.rival().await;
    let file = key_file(&scene, "acme.key", "5a");
    bring(&scene, &file);
    client.execute("INSERT INTO log VALUES (1)", &[]).await.expect("insert");
    let first = scene.backup()["backup"].as_str().expect("an id").to_owned();
    // Something that no backup has.
    client.execute("INSERT INTO log VALUES (2)", &[]).await.expect("insert");
    drop(client);
    scene.server.stop();
    let hidden = scene.place.path().join("hidden");
    fs::rename(&file, &hidden).expect("take the key away");
    scene.server.start_again();

    // The others are backed up, and acme as it was.
    let made = scene.server.try_admin(&["backup", "create"]);
    assert_eq!(made.status.code(), Some(1), "it is said aloud");
    assert!(text(&made.stderr).contains("could not be backed up"), "{}", text(&made.stderr));
    let job: Value = serde_json::from_slice(&made.stdout).expect("JSON on stdout");
    let second = job["backup"].as_str().expect("a backup").to_owned();
    assert!(second > first && job["failed_tenants"] == 1, "{job}");
    let shown = scene.json(&["show", &second]).to_string();
    assert!(!shown.contains("acme.key"), "anybody may read what the repository holds: {shown}");

    // So are they tried and restored.
    let verified = scene.verify();
    assert_eq!(verified.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON on stdout");
    assert_eq!(report["older"], json!(["acme"]), "{report}");
    for tenant in report["tenants"].as_array().expect("tenants") {
        let is_wrong = !tenant["wrong"].as_array().expect("what is wrong").is_empty();
        assert_eq!(is_wrong, tenant["name"] == "acme", "{report}");
    }
    let (place, output) = scene.try_restore(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--tenant acme"), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    let failed: Vec<&Value> =
        told["failed"].as_array().expect("failed").iter().map(|one| &one["name"]).collect();
    assert_eq!(failed, ["acme"], "{told}");
    let restored = scene.serve(place);
    check_rival(&restored, &rival).await;
    drop(restored);

    // When the key is back, acme comes back: as of the first backup, and with what was archived since.
    fs::rename(&hidden, &file).expect("give it back");
    assert!(scene.verify().status.success());
    let (place, _) = scene.restore(&["--tenant", "acme", "--backup", &second]);
    let restored = scene.serve(place);
    let client = restored.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1]);
    let listed = restored.try_admin(&["audit", "list"]);
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    let trail = text(&listed.stdout);
    assert!(trail.contains("tenant.left_out") && !trail.contains("tenant.drop"), "{trail}");
}

/// After a move to another provider the one before may be switched off.
#[tokio::test(flavor = "multi_thread")]
async fn backups_follow_a_tenant_to_another_provider() {
    let (scene, client) = Scene::filled(&[]).await;
    let first = key_file(&scene, "first.key", "5a");
    bring(&scene, &first);
    scene.backup();
    let second = key_file(&scene, "second.key", "6b");
    bring(&scene, &second);
    client.execute("INSERT INTO log VALUES (1)", &[]).await.expect("insert");
    scene.backup();
    fs::remove_file(&first).expect("remove");
    let verified = scene.verify();
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    let restored = scene.serve(scene.restore(&[]).0);
    let client = restored.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(numbers(&client).await, [1]);
    // Nothing of it opens without the second.
    fs::rename(&second, scene.place.path().join("hidden")).expect("take the key away");
    let (_, output) = scene.try_restore(&["--tenant", "acme"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}
