//! A tenant is dropped: what is gone with it, and what a crash in the middle leaves to the next start.

use std::fs;

use crate::{
    fixtures::{Fixture, run},
    tenant::directory,
};

/// What the certificate says of files.
fn facts(certificate: &str) -> (u64, Option<String>) {
    let statement: serde_json::Value = serde_json::from_str(certificate).unwrap();
    let left = statement.get("files_left").map(|left| left.as_str().unwrap().to_owned());
    (statement["files"].as_u64().unwrap(), left)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_a_crash_cut_short_is_finished_and_certified() {
    let fixture = Fixture::new();
    let id = fixture.tenant_id();
    run(&mut fixture.session().await, "CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
    fixture.database.control().begin_destruction("acme").unwrap();
    let crashed = fixture.crash();
    assert!(directory(&crashed.data(), id).exists());
    let control = crashed.database.control();
    assert_eq!(control.destruction_certificate("acme").unwrap(), None);
    crashed.database.finish_destructions().await;
    assert!(!directory(&crashed.data(), id).exists());
    let certificate = control.destruction_certificate("acme").unwrap().unwrap();
    assert!(certificate.is_signed());
    let (files, left) = facts(&certificate.certificate);
    assert!(files > 0 && left.is_none(), "{}", certificate.certificate);
    assert!(control.unfinished_destructions().unwrap().is_empty());
    // Nothing is left to do, and nothing is told twice.
    let entries = control.audit_events(0, 100).unwrap().len();
    crashed.database.finish_destructions().await;
    assert_eq!(control.audit_events(0, 100).unwrap().len(), entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_put_aside_goes_too_and_what_stays_is_named() {
    let fixture = Fixture::new();
    let id = fixture.tenant_id();
    let quarantine = fixture.data().join("quarantine");
    let aside = quarantine.join("2026-01-01").join(id.to_string());
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("segment"), [7; 100]).unwrap();
    // No directory, so it is not removed as one.
    let stubborn = quarantine.join("2026-01-02").join(id.to_string());
    fs::create_dir_all(stubborn.parent().unwrap()).unwrap();
    fs::write(&stubborn, "x").unwrap();
    let (_, certificate) = fixture.database.drop_tenant("acme").await.unwrap();
    assert!(!aside.exists() && stubborn.exists());
    let (files, left) = facts(&certificate.certificate);
    assert!(files >= 1);
    assert!(left.unwrap().contains(&stubborn.display().to_string()));
    assert!(fixture.database.control().tenant_by_name("acme").unwrap().is_none());
}
