//! The record of uses: what is written when, what counts as the same, how much is kept.

use crate::{
    Control, Scope, SecretUse,
    tests::{Fixture, START},
};

use super::{acme, prod, scope};

fn use_at(at: i64, version: &str, why: &str) -> SecretUse {
    SecretUse { at, name: "token".into(), version: version.into(), who: "sink hook".into(), why: why.into() }
}

/// Rows in the file, of all tenants.
fn written(control: &Control) -> i64 {
    control.database.lock().query_row("SELECT count(*) FROM secret_uses", [], |row| row.get(0)).unwrap()
}

fn record(control: &Control, scope: &Scope<'_>, use_: &SecretUse) {
    control.record_secret_use(scope, use_.clone()).unwrap();
}

#[test]
fn first_uses_are_written_at_once_and_repetitions_wait() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let scope = scope(&tenant);
    let first = use_at(START, "1", "pipeline a");
    record(control, &scope, &first);
    assert_eq!(written(control), 1);
    record(control, &scope, &use_at(START + 59, "1", "pipeline a"));
    let reason = use_at(START + 59, "1", "pipeline b");
    record(control, &scope, &reason);
    let later = use_at(START + 60, "1", "pipeline a");
    record(control, &scope, &later);
    assert_eq!(written(control), 1, "known, or waiting");
    let rotated = use_at(START + 61, "2", "pipeline a");
    record(control, &scope, &rotated);
    assert_eq!(written(control), 2, "a version never used before");

    let all = [rotated.clone(), later, reason, first];
    assert_eq!(control.secret_uses(&scope, 10).unwrap(), all);
    assert_eq!(control.secret_uses(&scope, 1).unwrap(), [rotated]);
    assert!(control.secret_uses(&prod(&tenant), 10).unwrap().is_empty());
    control.flush_secret_uses().unwrap();
    assert_eq!(written(control), 4);
    assert_eq!(control.secret_uses(&scope, 10).unwrap(), all);
    assert!(
        control
            .record_secret_use(&Scope { tenant: tenant.id, environment: "nowhere" }, use_at(1, "1", "x"))
            .is_ok()
    );
    assert_eq!(written(control), 4, "what does not exist was not used");
}

#[test]
fn what_waits_is_written_at_the_end() {
    let fixture = Fixture::new();
    let tenant = acme(&fixture);
    record(&fixture.control, &scope(&tenant), &use_at(START, "1", "a"));
    record(&fixture.control, &scope(&tenant), &use_at(START, "1", "b"));
    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    drop(fixture.control);
    let control = Control::open(&path, &root, options).unwrap();
    assert_eq!(control.secret_uses(&scope(&tenant), 10).unwrap().len(), 2);
}

#[test]
fn the_newest_ten_thousand_are_kept_for_each_tenant() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let other = fixture.tenant("other");
    record(control, &scope(&other), &use_at(START, "1", "of another tenant"));
    for number in 0..10_005 {
        record(control, &scope(&tenant), &use_at(START + number, "1", &format!("pipeline {number}")));
    }
    control.flush_secret_uses().unwrap();
    assert_eq!(written(control), 10_001);
    let kept = control.secret_uses(&scope(&tenant), 20_000).unwrap();
    assert_eq!((kept.len(), kept[0].at, kept[9_999].at), (10_000, START + 10_004, START + 5));
    assert_eq!(control.secret_uses(&scope(&other), 10).unwrap().len(), 1);
}
