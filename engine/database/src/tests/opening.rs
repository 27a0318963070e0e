//! Opening, closing, and what other processes do meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sepal_control::{Control, ControlOptions, Scopes};

use crate::{
    fixtures::{Fixture, run},
    tenant::directory,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_making_was_cut_short_is_made() {
    let fixture = Fixture::new();
    let unfinished = directory(&fixture.data(), fixture.tenant_id());
    for folder in ["manifest", "wal"] {
        std::fs::create_dir_all(unfinished.join(folder)).unwrap();
    }
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    let again = fixture.crash();
    assert_eq!(run(&mut again.session().await, "SELECT a FROM t").await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_opened_after_a_shutdown_and_the_directory_is_free() {
    let fixture = Fixture::new();
    let principal = fixture.principal(Scopes::READ_WRITE);
    run(&mut fixture.session().await, "CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    fixture.database.shutdown().await;
    let late = fixture.database.connect(principal, "", &[]).await;
    assert_eq!(late.err().map(|error| error.state().code()), Some("57P03"));
    let again = fixture.restart().await;
    assert_eq!(run(&mut again.session().await, "SELECT a FROM t").await, [7]);
}

/// `CONTROL_PATROL` and the half second in which a connection asks must stay below a second together.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_another_process_is_noticed() {
    let fixture = Fixture::new();
    let session = fixture.session().await;
    let elsewhere =
        Control::open(&fixture.data().join("control.db"), &fixture.root, ControlOptions::default()).unwrap();
    session.check_alive().unwrap();
    let patrol = tokio::spawn(Arc::clone(&fixture.database).patrol());
    elsewhere.revoke_key(&session.principal().key_id).unwrap();
    let revoked = Instant::now();
    while session.check_alive().is_ok() {
        assert!(revoked.elapsed() < Duration::from_millis(750), "the key still works");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    patrol.abort();
}
