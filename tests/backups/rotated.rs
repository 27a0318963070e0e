//! Keys that are replaced between backups: each of them opens with the recovery key, whatever was destroyed since.

use std::fs;

use serde_json::{Value, json};

use super::{ARCHIVING, Scene, answers, id, numbers, rows};

#[tokio::test(flavor = "multi_thread")]
async fn backups_from_before_and_after_new_keys_come_back() {
    // The older key waits for the log that is not archived yet.
    let (mut scene, client) = Scene::filled(&ARCHIVING).await;
    let before = answers(&client).await;
    let first = id(&scene.backup());

    let rotate = |more: &[&str]| {
        let mut arguments = vec!["tenant", "rotate-key", "acme", "--wait"];
        arguments.extend_from_slice(more);
        let told = scene.server.admin(&arguments);
        assert_eq!(told["running"], false, "{told}");
        told
    };
    let rotated = rotate(&[]);
    assert_eq!(rotated["keys"].as_array().map(Vec::len), Some(1), "the older one is destroyed: {rotated}");
    assert_eq!(rotated["keys"][0]["epoch"], 2, "{rotated}");
    client
        .batch_execute("INSERT INTO log VALUES (1); UPDATE items SET label = 'after' WHERE id % 10 = 7")
        .await
        .expect("clients go on");
    rotate(&["--files"]);
    client
        .batch_execute("INSERT INTO log VALUES (2); DELETE FROM items WHERE id < 100")
        .await
        .expect("delete");
    let after = rows(&client, "items").await;
    let second = id(&scene.backup());
    scene.verified(&first);
    scene.verified(&second);
    assert_eq!(verified_in_list(&scene), json!([[first, true], [second, true]]));
    // Made with the first backup, under the key that was destroyed since: that backup has it.
    let census = scene.server.admin(&["backup", "census", "--tenant", "acme"]);
    assert_eq!(census[0]["inventory"]["key_epoch"], 1, "{census}");
    assert_eq!(census[0]["why"], Value::Null, "{census}");

    // Nothing of the first directory is left, its keys included.
    scene.server.stop();
    fs::remove_dir_all(scene.server.data()).expect("remove");
    for flags in [vec!["--backup", second.as_str()], Vec::new()] {
        let (_server, client) = scene.restored(&flags).await;
        assert_eq!(rows(&client, "items").await, after, "{flags:?}");
        assert_eq!(numbers(&client).await, [1, 2], "{flags:?}");
        client.batch_execute("INSERT INTO log VALUES (3)").await.expect("it can be written");
    }
    let (_server, client) = scene.restored(&["--backup", &first]).await;
    assert_eq!(answers(&client).await, before);
    assert!(numbers(&client).await.is_empty());
}

/// The backups that were tried, with what came of it, the oldest first.
fn verified_in_list(scene: &Scene) -> Value {
    let listed = scene.json(&["list"]);
    let tried = listed.as_array().expect("backups").iter().filter(|backup| !backup["verified"].is_null());
    tried.map(|backup| json!([backup["id"], backup["verified"]["good"]])).collect()
}
