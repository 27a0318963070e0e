//! Opening, closing, and what other processes do meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sepal_control::{Control, ControlOptions, Scopes, TenantName};

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

/// A store without its files, or without the end of its log, must not look like one that never had more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_after_a_shutdown_is_noticed() {
    let fixture = Fixture::new();
    run(&mut fixture.session().await, "CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    // Tenants are opened when they are first used: none is yet.
    let fixture = fixture.restart().await;
    let (id, hidden) = (fixture.tenant_id(), fixture.data().join("hidden"));
    let store = directory(&fixture.data(), id);
    for lost in [fixture.data().join("tenants"), store.clone(), store.join("manifest")] {
        std::fs::rename(&lost, &hidden).unwrap();
        let error = fixture.database.tenant(id).await.err().expect("the store is gone");
        assert_eq!(error.state().code(), "XX001", "{error}");
        assert!(error.to_string().contains(&format!("tenants/{id}")), "{error}");
        assert!(!lost.exists(), "{lost:?} was made anew");
        std::fs::rename(&hidden, &lost).unwrap();
    }
    let log = store.join("wal").join("0000000000000001.wal");
    let whole = std::fs::read(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    let gone = fixture.database.tenant(id).await.err().expect("the log is gone");
    // Where a frame would begin.
    std::fs::write(&log, &whole[..160]).unwrap();
    let cut = fixture.database.tenant(id).await.err().expect("the log was cut");
    for error in [gone, cut] {
        assert_eq!(error.state().code(), "XX001", "{error}");
        assert!(error.to_string().contains("wal/0000000000000001.wal"), "{error}");
    }
    std::fs::write(&log, &whole).unwrap();
    assert_eq!(run(&mut fixture.session().await, "SELECT a FROM t").await, [7]);
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, "SELECT a FROM t").await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_dropped_while_it_is_opened_leaves_nothing() {
    let fixture = Fixture::new();
    for round in 0..20 {
        let name = format!("brief-{round}");
        let id = fixture.database.control().create_tenant(&TenantName::parse(&name).unwrap()).unwrap().id;
        let database = Arc::clone(&fixture.database);
        let opening = tokio::spawn(async move { database.tenant(id).await });
        // From not begun to done.
        tokio::time::sleep(Duration::from_micros(300 * round)).await;
        fixture.database.drop_tenant(&name).await.unwrap();
        if let Ok(tenant) = opening.await.unwrap() {
            assert!(tenant.is_closed(), "round {round}");
        }
        assert!(!directory(&fixture.data(), id).exists(), "round {round}");
    }
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
