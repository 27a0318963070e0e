//! Does a server end in peace?
//!
//! SIGTERM is how every deployment stops a server: it is no fault, and whoever watches the log for warnings must
//! not be called for it. What was acknowledged is there at the next start.

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_shutdown_logs_no_warning() {
    let mut server = Server::start();
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    let sql = "CREATE TABLE t (id serial, v vector(3));
               INSERT INTO t (v) SELECT '[1,2,3]'::vector FROM generate_series(1, 3000) AS s(x);
               CREATE INDEX ON t USING hnsw (v vector_l2_ops);
               SELECT setval('t_id_seq', 9000)";
    for statement in sql.split(';') {
        client.batch_execute(statement).await.expect("set up");
    }
    // One client stays connected, as always.
    assert!(server.stop().success());
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    server.start_again();
    let client = server.login_with(&key).connect().await.expect("connect");
    let row = client.query_one("INSERT INTO t DEFAULT VALUES RETURNING id", &[]).await.expect("insert");
    assert_eq!(row.get::<_, i32>(0), 9001);
}
