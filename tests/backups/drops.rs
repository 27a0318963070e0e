//! A dropped tenant: its backups open no more.

use std::path::Path;

use super::{Scene, check_rival, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_tenant_cannot_be_restored() {
    let (scene, client) = Scene::filled(&[]).await;
    drop(client);
    let rival = scene.rival().await;
    scene.backup();
    let keys = Path::new(&scene.repository).join("keys/tenants").join(scene.acme_id());
    assert!(!is_tombstone(&keys));
    scene.server.admin(&["tenant", "drop", "acme", "--yes"]);
    assert!(is_tombstone(&keys), "the drop reaches the repository");

    let (place, told) = scene.restore(&[]);
    assert_eq!(told["dropped"], serde_json::json!(["acme"]), "{told}");
    let restored = scene.serve(place);
    check_rival(&restored, &rival).await;
    let gone = restored.login_with(&scene.acme).connect().await;
    assert!(gone.is_err(), "its API key opens nothing");
    let (place, alone) = scene.try_restore(&["--tenant", "acme"]);
    assert_eq!(alone.status.code(), Some(1), "nothing of it comes back");
    assert!(text(&alone.stderr).contains("\"acme\" was dropped since"), "{}", text(&alone.stderr));
    assert!(!place.path().join("data").exists());
    let verified = scene.verify();
    assert!(verified.status.success(), "that is as it should be: {}", text(&verified.stdout));
}

fn is_tombstone(keys: &Path) -> bool {
    let text = std::fs::read_to_string(keys).expect("keys, or what a drop leaves");
    assert_ne!(text.contains("\"sets\""), text.contains("\"dropped_us\""), "{text}");
    text.contains("\"dropped_us\"")
}

/// The repository is away when the tenant is dropped: its keys go when it is back, after a crash, too.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_destroyed_when_the_repository_is_back() {
    let (mut scene, client) = Scene::filled(&[]).await;
    drop(client);
    scene.backup();
    let away = format!("{}.away", scene.repository);
    std::fs::rename(&scene.repository, &away).expect("rename");
    // A file in its place: nothing can be removed below it.
    std::fs::write(&scene.repository, "").expect("a file");
    scene.server.admin(&["tenant", "drop", "acme", "--yes"]);
    scene.wait_for(|status| status["keys_to_destroy"] == 1);
    scene.server.kill();
    // It is known from the first answer on, before the repository was asked again.
    scene.server.start_again();
    assert_eq!(scene.server.admin(&["backup", "status"])["keys_to_destroy"], 1);
    scene.server.kill();
    std::fs::remove_file(&scene.repository).expect("remove");
    std::fs::rename(&away, &scene.repository).expect("rename");
    scene.server.start_again();
    let acme_is_gone = || {
        let keys = std::fs::read_dir(Path::new(&scene.repository).join("keys/tenants")).expect("keys");
        let keys = keys.map(|entry| entry.expect("an entry").path());
        // Not what is being written.
        let objects =
            keys.filter(|path| path.file_name().is_none_or(|name| name.as_encoded_bytes()[0] != b'.'));
        objects.filter(|path| is_tombstone(path)).count() == 1
    };
    until("acme's keys have left the repository, and dev's are still there", acme_is_gone);
    scene.wait_for(|status| status["keys_to_destroy"] == 0);
}

/// As with a disk that is not mounted: nothing is made in its place, and what has to reach it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_is_not_made_anew() {
    let (scene, client) = Scene::filled(&[]).await;
    drop(client);
    scene.backup();
    let (here, away) = (Path::new(&scene.repository), format!("{}.away", scene.repository));
    std::fs::rename(here, &away).expect("rename");
    let refused = scene.server.try_admin(&["backup", "create"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("is gone") && told.contains("--new-repository"), "{told}");
    scene.server.admin(&["tenant", "drop", "acme", "--yes"]);
    scene.wait_for(|status| status["keys_to_destroy"] == 1);
    assert!(!here.exists(), "something was made in its place");

    std::fs::rename(&away, here).expect("rename");
    scene.wait_for(|status| status["keys_to_destroy"] == 0);
    scene.backup();

    std::fs::rename(here, &away).expect("rename");
    let begun = scene.server.try_admin(&["backup", "create", "--new-repository"]);
    assert!(begun.status.success(), "{}", text(&begun.stderr));
    let judged = scene.verify();
    assert!(judged.status.success(), "{}{}", text(&judged.stdout), text(&judged.stderr));
    scene.backup();
}
