//! A backup of `SEPAL_BACKUP_MIB` MiB of vectors (16, in `make soak` 1,024), restored on an empty directory with the
//! recovery key alone.

use std::time::Instant;

use super::{Scene, text};

const DIMENSIONS: i64 = 1024;
/// Rows of one INSERT.
const BATCH: i64 = 2_048;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_backup_comes_back_equal() {
    let mib: i64 = std::env::var("SEPAL_BACKUP_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(16);
    let rows = mib * (1 << 20) / (DIMENSIONS * 4);
    let mut scene = Scene::start(&[]);
    let client = scene.client().await;
    client
        .batch_execute(&format!("CREATE TABLE wide (id int8 PRIMARY KEY, v vector({DIMENSIONS}))"))
        .await
        .expect("a table");
    for first in (0..rows).step_by(usize::try_from(BATCH).expect("small")) {
        let last = rows.min(first + BATCH) - 1;
        let sql = format!(
            "INSERT INTO wide SELECT x, ('[' || repeat(x % 1009 || ',', {}) || x || ']')::vector
             FROM generate_series({first}, {last}) AS g(x)",
            DIMENSIONS - 1
        );
        client.batch_execute(&sql).await.expect("rows");
    }
    let question = format!(
        "SELECT id FROM wide ORDER BY v <-> ('[' || repeat('77,', {}) || '77]')::vector, id LIMIT 20",
        DIMENSIONS - 1
    );
    let ask = async |client: &tokio_postgres::Client| -> (i64, i64, Vec<i64>) {
        let sums = client.query_one("SELECT count(*), sum(id)::int8 FROM wide", &[]).await.expect("sums");
        let nearest = client.query(&question, &[]).await.expect("neighbours");
        (sums.get(0), sums.get(1), nearest.iter().map(|row| row.get(0)).collect())
    };
    let expected = ask(&client).await;
    assert_eq!(expected.0, rows);
    let begun = Instant::now();
    let made = scene.backup();
    let backed_up = begun.elapsed();
    scene.server.stop();
    let begun = Instant::now();
    let verified = scene.verify();
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    let tried = begun.elapsed();
    let begun = Instant::now();
    let (place, _) = scene.restore(&[]);
    let restored = begun.elapsed();
    let server = scene.serve(place);
    let client = server.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(ask(&client).await, expected);
    println!(
        "{mib} MiB of vectors, {} bytes stored: backed up in {backed_up:.1?}, verified in {tried:.1?}, restored in \
         {restored:.1?}",
        made["new_bytes"]
    );
}
