//! Damage and interruption: a verification names what is wrong, and nothing half done passes for whole.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio_postgres::Client;

use super::{Scene, answers, check_rival, text, until};
use crate::server::{Server, binary, spawn};

/// So many bytes that what goes at 1 MiB/s can be caught in the middle.
async fn fill_more(client: &Client, rows: u32) {
    let sql = format!(
        "CREATE TABLE big (x int8, filler text);
         INSERT INTO big SELECT x, repeat(gen_random_uuid()::text, 100) FROM generate_series(1, {rows}) AS g(x)"
    );
    client.batch_execute(&sql).await.expect("more bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_named() {
    let (scene, _client) = Scene::filled(&[]).await;
    scene.backup();
    assert!(scene.verify().status.success());
    let objects = scene.objects();
    let wanted = |name: &str| name.starts_with("tenants/") || name.starts_with("control/");
    let mut tried = 0;
    for (name, path) in objects.iter().filter(|(name, _)| wanted(name)) {
        let whole = fs::read(path).expect("an object");
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(path, &damaged).expect("damage");
        let flipped = scene.verify();
        assert_eq!(flipped.status.code(), Some(1), "{name} with a flipped bit is good");
        let told = text(&flipped.stdout) + &text(&flipped.stderr);
        assert!(told.contains(name.as_str()), "{name} is not named: {told}");
        fs::remove_file(path).expect("remove");
        let missing = scene.verify();
        assert_eq!(missing.status.code(), Some(1), "a backup without {name} is good");
        fs::write(path, &whole).expect("mend");
        tried += 1;
    }
    assert!(tried >= 5, "{objects:?}");
    assert!(scene.verify().status.success(), "mended");
}

/// What a restore on another machine needs besides: with the server's own root key, too, nothing passes without it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_lost_are_no_drop() {
    let (scene, _) = Scene::filled(&[]).await;
    scene.backup();
    let data = scene.server.data().display().to_string();
    let with_root = || scene.run(&["verify", "latest", "--data", &data]);
    let judged = with_root();
    assert!(judged.status.success(), "{}{}", text(&judged.stdout), text(&judged.stderr));
    let objects = scene.objects();
    let keys: Vec<_> = objects.iter().filter(|(name, _)| name.starts_with("keys/")).collect();
    assert_eq!(keys.len(), 3, "acme's, dev's, the recovery package: {keys:?}");
    for (name, path) in keys {
        let whole = fs::read(path).expect("an object");
        fs::remove_file(path).expect("remove");
        for judged in [with_root(), scene.verify()] {
            assert_eq!(judged.status.code(), Some(1), "a backup without {name} is good");
            let told = text(&judged.stdout) + &text(&judged.stderr);
            assert!(told.contains(name.as_str()), "{name} is not named: {told}");
        }
        fs::write(path, b"{}").expect("damage");
        assert_eq!(with_root().status.code(), Some(1), "a backup with another {name} is good");
        fs::write(path, whole).expect("mend");
    }
    assert!(with_root().status.success(), "mended");
    assert_eq!(scene.json(&["list"])[0]["verified"]["good"], true);
}

/// One tenant's damage does not keep the others from coming back.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tenant_is_left_behind() {
    let (scene, _client) = Scene::filled(&[]).await;
    let rival = scene.rival().await;
    scene.backup();
    let segments = format!("tenants/{}/segments/", scene.acme_id());
    let objects = scene.objects();
    let (name, path) = objects.iter().find(|(name, _)| name.starts_with(&segments)).expect("a segment");
    fs::remove_file(path).expect("remove");

    let (place, output) = scene.try_restore(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert_eq!(told["failed"][0]["name"], "acme", "{told}");
    assert!(told["failed"][0]["why"].as_str().is_some_and(|why| why.contains(name.as_str())), "{told}");
    let restored = scene.serve(place);
    check_rival(&restored, &rival).await;
    let lost = restored.login_with(&scene.acme).connect().await.map(drop).expect_err("an empty acme");
    assert_eq!(lost.as_db_error().expect("the server's words").code().code(), "XX001", "{lost}");

    // Alone it is an error, and nothing is in the way of another try.
    let (place, output) = scene.try_restore(&["--tenant", "acme"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(name.as_str()), "{}", text(&output.stderr));
    assert!(!place.path().join("data").exists());
}

/// A restore that fails before a tenant's files came leaves the way free for the correct one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_refused_is_tried_again_at_once() {
    let (scene, _client) = Scene::filled(&[]).await;
    scene.backup();
    let place = TempDir::new().expect("a temporary directory");
    let to = place.path().join("data").display().to_string();
    let (key, wrong) = (scene.recovery_key(), place.path().join("wrong"));
    let other = Scene::start(&[]);
    fs::copy(other.recovery_key(), &wrong).expect("another key");
    let (key, wrong) = (key.display().to_string(), wrong.display().to_string());
    let restore = |key: &str, more: &[&str]| {
        let mut arguments = vec!["restore", "--to", &to, "--recovery-key-file", key];
        arguments.extend_from_slice(more);
        scene.run(&arguments)
    };
    let refusals: [(&str, &[&str], &str); 2] =
        [(&wrong, &[], "recovery key"), (&key, &["--tenant", "nobody"], "\"nobody\" is not in this backup")];
    for (key, more, told) in refusals {
        let refused = restore(key, more);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(text(&refused.stderr).contains(told), "{}", text(&refused.stderr));
        assert!(!Path::new(&to).exists(), "{told}: it leaves something behind");
    }
    let restored = restore(&key, &[]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_entry_is_refused() {
    let (scene, _) = Scene::filled(&[]).await;
    scene.backup();
    let (_, path) =
        scene.objects().into_iter().find(|(name, _)| name.starts_with("backups/")).expect("an entry");
    let entry = fs::read_to_string(&path).expect("an entry");
    fs::write(&path, entry.replacen("\"lsn\":", "\"lsn\":1", 1)).expect("change");
    let refused = scene.verify();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("it was changed"), "{}", text(&refused.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_recovery_key_opens_nothing() {
    let scene = Scene::start(&[]);
    scene.backup();
    let other = Scene::start(&[]);
    fs::copy(other.recovery_key(), scene.recovery_key()).expect("another key");
    let refused = scene.verify();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("recovery key"), "{}", text(&refused.stderr));
}

/// A restore that was killed leaves no directory that looks like a database.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_restore_is_not_served() {
    let (scene, client) = Scene::filled(&[]).await;
    fill_more(&client, 2000).await;
    scene.backup();
    let place = TempDir::new().expect("a temporary directory");
    let to = place.path().join("data");
    let mut command = Command::new(binary());
    command
        .args(["backup", "restore", "--repository", &scene.repository, "--rate-mib", "1", "--to"])
        .arg(&to)
        .arg("--recovery-key-file")
        .arg(scene.recovery_key())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut restore = spawn(command);
    until("the restore begins", || to.join("control.db").exists() && to.join("tenants").exists());
    restore.kill().expect("kill");
    restore.wait().expect("wait");
    assert!(to.join("restore.unfinished").exists(), "it was killed too late to be half done");
    let served = Command::new(binary())
        .args(["serve", "--pg-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data"])
        .arg(&to)
        .stdin(Stdio::null())
        .output()
        .expect("run sepal");
    assert!(!served.status.success());
    let again = scene.run(&[
        "restore",
        "--to",
        &to.display().to_string(),
        "--recovery-key-file",
        &scene.recovery_key().display().to_string(),
    ]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is not empty"), "{}", text(&again.stderr));
}

/// A verification that was killed leaves nothing that opens, and the next one removes it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_verification_leaves_no_keys() {
    let (scene, client) = Scene::filled(&[]).await;
    fill_more(&client, 2000).await;
    scene.backup();
    let place = TempDir::new().expect("a temporary directory");
    let work = place.path().display().to_string();
    let key = scene.recovery_key().display().to_string();
    let verify = |more: &[&str]| {
        let mut command = Command::new(binary());
        command
            .args(["backup", "verify", "--repository", &scene.repository, "--work", &work])
            .args(["--recovery-key-file", &key])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        spawn(command)
    };
    let left =
        || fs::read_dir(place.path()).expect("the directory").flatten().map(|entry| entry.path()).next();
    let mut killed = verify(&["--rate-mib", "1"]);
    until("the verification begins", || left().is_some_and(|path| path.join("tenants").exists()));
    killed.kill().expect("kill");
    killed.wait().expect("wait");
    let abandoned = left().expect("it was killed too late to leave anything");
    assert!(!abandoned.join("control.db").exists(), "tenants' keys lie in a file");
    let hours_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    fs::File::open(&abandoned).expect("open").set_modified(hours_ago).expect("its age");
    assert!(verify(&[]).wait().expect("wait").success());
    assert_eq!(left(), None);
}

/// A server that is killed while it backs up leaves objects and no entry; the next backup is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_killed_is_none() {
    let (mut scene, client) = Scene::filled(&["--backup-rate-mib", "1"]).await;
    fill_more(&client, 3000).await;
    let expected = answers(&client).await;
    assert!(scene.server.try_admin(&["backup", "create", "--no-wait"]).status.success());
    let tenants = Path::new(&scene.repository).join("tenants");
    until("the backup begins", || tenants.exists());
    scene.server.kill();
    assert!(!Path::new(&scene.repository).join("backups").exists(), "it was killed too late");
    scene.server.start_again();
    scene.backup();
    assert_eq!(scene.json(&["list"]).as_array().expect("backups").len(), 1);
    assert!(scene.verify().status.success());
    let restored: Server = scene.serve(scene.restore(&[]).0);
    let client = restored.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(answers(&client).await, expected);
}
