//! Named snapshots are in manifests and in no log: a backup has those of its time, also of a tenant that nobody opened
//! since.

use super::{Scene, id, rows};

#[tokio::test(flavor = "multi_thread")]
async fn names_of_snapshots_come_back_where_nothing_else_changed() {
    let (mut scene, client) = Scene::filled(&[]).await;
    let run =
        async |sql: &str| client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    run("CREATE SNAPSHOT first").await;
    let expected = rows(&client, "items").await;
    scene.backup();
    // Nothing is committed in between, so the log stays what it is.
    run("CREATE SNAPSHOT second").await;
    run("DROP SNAPSHOT first").await;
    drop(client);
    // Opens no tenant.
    scene.server.restart();
    let made = id(&scene.backup());
    scene.verified(&made);
    scene.server.kill();

    let (_server, client) = scene.restored(&["--backup", &made]).await;
    let named = client.query("SELECT name::text FROM sepal_snapshots", &[]).await.expect("snapshots");
    let named: Vec<String> = named.iter().map(|row| row.get(0)).collect();
    assert_eq!(named, ["second"]);
    assert_eq!(rows(&client, "items AS OF SNAPSHOT 'second'").await, expected);
}
