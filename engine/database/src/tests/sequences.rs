//! What sequences remember: over a crash, and while a transaction is open.

use sepal_control::Scopes;

use crate::fixtures::{Fixture, refused, run};

const TABLE: &str = "CREATE TABLE t (id serial, x int)";
const INSERT: &str = "INSERT INTO t (x) VALUES (0) RETURNING id";

#[tokio::test(flavor = "multi_thread")]
async fn setval_survives_a_crash_without_an_insert() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    assert_eq!(run(&mut session, INSERT).await, [1]);
    assert_eq!(run(&mut session, "SELECT setval('t_id_seq', 100)").await, [100]);
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, INSERT).await, [101]);

    assert_eq!(run(&mut session, "SELECT setval('t_id_seq', 40, false)").await, [40]);
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, INSERT).await, [40], "it was not handed out");

    // Not part of its transaction, as in Postgres.
    run(&mut session, "BEGIN; SELECT setval('t_id_seq', 7); ROLLBACK").await;
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, INSERT).await, [8]);
    assert_eq!(run(&mut session, "SELECT setval('t_id_seq', NULL)").await, [0; 0]);
    for value in ["0", "2147483648"] {
        let sql = format!("SELECT setval('t_id_seq', {value})");
        assert_eq!(refused(&mut session, &sql).await, "22003", "{value}");
    }
    assert_eq!(run(&mut session, INSERT).await, [8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_identity_survives_a_crash_without_an_insert() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    run(&mut session, "INSERT INTO t (x) SELECT 0 FROM generate_series(1, 9) AS s(n)").await;
    run(&mut session, "TRUNCATE t RESTART IDENTITY").await;
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, INSERT).await, [1]);
    assert_eq!(run(&mut session, INSERT).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_sequence_counts_anew_in_its_own_transaction() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    run(&mut session, "INSERT INTO t (x) SELECT 0 FROM generate_series(1, 9) AS s(n)").await;

    run(&mut session, "BEGIN; TRUNCATE t RESTART IDENTITY").await;
    assert_eq!(run(&mut session, INSERT).await, [1]);
    assert_eq!(run(&mut session, "SAVEPOINT s; INSERT INTO t (x) VALUES (0) RETURNING id").await, [2]);
    run(&mut session, "ROLLBACK TO s").await;
    run(&mut session, "ROLLBACK").await;
    assert_eq!(run(&mut session, INSERT).await, [10], "the restart was rolled back");

    run(&mut session, "BEGIN; TRUNCATE t RESTART IDENTITY").await;
    assert_eq!(run(&mut session, INSERT).await, [1]);
    assert_eq!(run(&mut session, INSERT).await, [2]);
    assert_eq!(run(&mut other, "SELECT nextval('t_id_seq')").await, [11], "nobody else sees it yet");
    run(&mut session, "COMMIT").await;
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, INSERT).await, [3]);
    assert_eq!(run(&mut other, INSERT).await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tables_sequence_can_be_set() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "BEGIN").await;
    run(&mut session, TABLE).await;
    run(&mut session, "SELECT setval('t_id_seq', 50); COMMIT").await;
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, INSERT).await, [51]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_key_or_transaction_moves_no_sequence() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    let principal = fixture.principal(Scopes::READ);
    let mut reader = fixture.database.connect(principal, "", &[]).await.unwrap();
    for call in ["nextval('t_id_seq')", "setval('t_id_seq', 5)"] {
        assert_eq!(refused(&mut reader, &format!("SELECT {call}")).await, "42501", "{call}");
        run(&mut session, "BEGIN READ ONLY").await;
        assert_eq!(refused(&mut session, &format!("SELECT {call}")).await, "25006", "{call}");
        run(&mut session, "ROLLBACK").await;
    }
    assert_eq!(run(&mut session, INSERT).await, [1]);
}
