//! A tenant's key is replaced, and its files' keys: who notices, and what a crash costs.

use std::time::{Duration, Instant};

use sepal_control::Provider;
use sepal_storage::{ColumnCache, StoreOptions, TenantStore};

use crate::{
    fixtures::{Fixture, run},
    rotation::TenantKeyProgress,
    tenant::directory,
};

/// Waits until nothing is being replaced.
async fn settled(fixture: &Fixture) -> TenantKeyProgress {
    let begun = Instant::now();
    loop {
        let now = fixture.database.tenant_key_progress("acme").await.unwrap();
        if !now.running {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end: {now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An end is written down right after it is there to be seen.
async fn told_in_the_trail(fixture: &Fixture, action: &str) {
    let begun = Instant::now();
    let control = fixture.database.control();
    while !control.audit_events(0, 100).unwrap().iter().any(|entry| entry.text.contains(action)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{action}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_key_is_replaced_while_sessions_work() {
    let fixture = Fixture::new();
    let id = fixture.tenant_id();
    let mut session = fixture.session().await;
    let rows = "CREATE TABLE t (a int); INSERT INTO t SELECT x FROM generate_series(1, 500) AS s(x)";
    run(&mut session, rows).await;
    run(&mut session, "CREATE SECRET token AS 'of the tenant'").await;
    let old = fixture.database.control().tenant_keys(id).unwrap();
    let begun = fixture.database.rotate_tenant_key("acme").await.unwrap();
    assert_eq!(begun.keys[0].epoch, 2);
    run(&mut session, "INSERT INTO t VALUES (501)").await;
    let over = settled(&fixture).await;
    assert_eq!((over.keys.len(), over.keys[0].epoch, over.under_older), (1, 2, Some(0)));
    let shown = "SELECT epoch FROM sepal_keys WHERE older_keys = 0 AND NOT rotating";
    assert_eq!(run(&mut session, shown).await, [2]);
    for action in ["tenant_key.rotate", "tenant_key.retire"] {
        told_in_the_trail(&fixture, action).await;
    }
    run(&mut session, "ALTER SECRET token AS 'again'").await;
    drop(session);
    fixture.database.shutdown().await;
    let options = StoreOptions::new(ColumnCache::new(1 << 20));
    let refused = TenantStore::open(&directory(&fixture.data(), id), id, old, options);
    assert!(refused.is_err(), "the old key opens nothing any more");
    let fixture = fixture.restart().await;
    let mut session = fixture.session().await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [501]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM sepal_secrets WHERE name = 'token'").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_comes_with_a_key_that_no_older_copy_has() {
    let fixture = Fixture::new();
    let id = fixture.tenant_id();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    let old = fixture.database.control().tenant_keys(id).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("acme.key");
    sepal_control::root_key::create(&path).unwrap();
    fixture.database.set_tenant_provider("acme", Provider::KeyFile { path }).await.unwrap();
    let over = settled(&fixture).await;
    assert_eq!((over.keys.len(), over.keys[0].epoch, over.keys[0].own), (1, 2, true));
    assert_eq!(run(&mut session, "SELECT a FROM t").await, [7]);
    drop(session);
    fixture.database.shutdown().await;
    let options = StoreOptions::new(ColumnCache::new(1 << 20));
    let refused = TenantStore::open(&directory(&fixture.data(), id), id, old, options);
    assert!(refused.is_err(), "what a backup from before has opens nothing that is there now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cut_short_goes_on_when_the_tenant_is_opened() {
    let fixture = Fixture::new();
    run(&mut fixture.session().await, "CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    // Control has made the key, and then the process died.
    fixture.database.control().rotate_tenant_key(fixture.tenant_id()).unwrap();
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, "SELECT a FROM t").await, [7]);
    let over = settled(&crashed).await;
    assert_eq!((over.keys.len(), over.keys[0].epoch), (1, 2));
    assert_eq!(run(&mut crashed.session().await, "SELECT a FROM t").await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_gets_another_key() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    let rows = "CREATE TABLE t (a int, v vector(4)); INSERT INTO t SELECT x, '[1,2,3,4]' FROM generate_series(1, 2000) \
                AS s(x); CREATE INDEX ON t USING hnsw (v vector_l2_ops); DELETE FROM t WHERE a = 9";
    run(&mut session, rows).await;
    let segments = directory(&fixture.data(), fixture.tenant_id()).join("segments");
    let files = || {
        let entries = std::fs::read_dir(&segments).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let old = files();
    assert!(old.len() >= 2, "a segment and its index: {old:?}");
    let begun = fixture.database.rotate_tenant_files("acme").await.unwrap();
    assert_eq!(begun.files.generation, 1);
    let over = settled(&fixture).await;
    assert_eq!((over.files.generation, over.files.files_left, over.keys.len()), (1, 0, 1));
    assert!(old.is_disjoint(&files()));
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [1_999]);
    let nearest = "SELECT a FROM t WHERE a < 3 ORDER BY v <-> '[1,2,3,4]' LIMIT 2";
    assert_eq!(run(&mut session, nearest).await.len(), 2);
    for action in ["file_keys.rotate.begin", "file_keys.rotate.end"] {
        told_in_the_trail(&fixture, action).await;
    }
    let unknown = fixture.database.rotate_tenant_files("nobody").await.unwrap_err();
    assert_eq!(unknown.state().code(), "42704");
}
