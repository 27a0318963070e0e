//! A table that is cloned after a backup shares files that the backup has not: the archived log brings them along.

use std::time::Duration;

use tokio_postgres::Client;

use super::{ARCHIVING, Scene, id, rows};

const TABLES: [&str; 3] = ["items", "items_copy", "items_own"];

/// More rows, as `items` has them.
fn more(table: &str, from: i64, to: i64) -> String {
    format!(
        "INSERT INTO {table} SELECT x, 'late ' || x, x / 7.0, '2026-02-02 00:00:00Z',
             ('[' || x % 97 || ',' || x % 89 || ',' || x % 83 || ',1,2,3,4,' || x || ']')::vector
             FROM generate_series({from}, {to}) AS g(x)"
    )
}

async fn all(client: &Client) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for table in TABLES {
        found.push(rows(client, table).await);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_since_a_backup_comes_back_with_its_source() {
    let (mut scene, client) = Scene::filled(&ARCHIVING).await;
    let first = id(&scene.backup());
    let run =
        async |sql: &str| client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    run(&more("items", 4_001, 4_500)).await;
    // By itself, so that its source is flushed and nothing is copied.
    run("CREATE TABLE items_copy CLONE items").await;
    run("DELETE FROM items WHERE id % 10 = 5").await;
    run("UPDATE items_copy SET label = 'copied' WHERE id % 10 = 6").await;
    let own = more("items_own", 9_001, 9_010);
    run(&format!(
        "BEGIN; CREATE TABLE items_own CLONE items; {own}; DELETE FROM items_own WHERE id < 10; COMMIT"
    ))
    .await;
    let expected = all(&client).await;
    assert!(expected[0].len() > 2_000 && expected[1].len() > expected[0].len(), "two tables");
    assert_ne!(expected[2], expected[0]);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let moment: String = client.query_one("SELECT now()::text", &[]).await.expect("now").get(0);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    run("DROP TABLE items_copy").await;
    run("UPDATE items SET label = 'later'").await;
    scene.wait_for_archive();
    let second = id(&scene.backup());
    let later = (rows(&client, "items").await, rows(&client, "items_own").await);
    scene.verified(&first);
    scene.verified(&second);
    scene.server.kill();

    let (server, client) = scene.restored(&["--until", &moment]).await;
    assert_eq!(all(&client).await, expected, "as of {moment}");
    client.batch_execute(&more("items_copy", 9_101, 9_110)).await.expect("the clone can be written");
    assert_eq!(rows(&client, "items_copy").await.len(), expected[1].len() + 10);
    assert_eq!(rows(&client, "items").await, expected[0]);
    drop(server);
    let (_server, client) = scene.restored(&["--backup", &second]).await;
    assert_eq!((rows(&client, "items").await, rows(&client, "items_own").await), later);
    assert!(client.query("SELECT * FROM items_copy", &[]).await.is_err(), "it was dropped by then");
}
