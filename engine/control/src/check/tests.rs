//! What a check of control.db finds, and that it finds nothing where nothing is wrong.

use std::fs;

use rusqlite::params;
use sepal_types::TenantId;

use super::ControlFinding;
use crate::{
    Control, ControlError, EnvironmentName, Grantable, NewSecret, OPERATOR, PUBLIC, Provider, Scope,
    SecretName, SecretOrigin, SecretUse, Tenant, control::journal_of, root_key, tests::Fixture,
};

/// Two tenants with everything that there is to have.
fn furnished(fixture: &Fixture) -> [Tenant; 2] {
    ["acme", "rival"].map(|name| {
        let (control, tenant) = (&fixture.control, fixture.tenant(name));
        fixture.key(&tenant);
        control.create_environment(tenant.id, &EnvironmentName::parse("prod").unwrap()).unwrap();
        let scope = Scope { tenant: tenant.id, environment: "default" };
        let secret = SecretName::parse("hook").unwrap();
        let new = NewSecret {
            name: &secret,
            owner: OPERATOR,
            origin: SecretOrigin::Stored,
            value: Some(b"value"),
            allowed_hosts: None,
            refresh_seconds: None,
            max_stale_seconds: None,
        };
        control.create_secret(&scope, new).unwrap();
        control.grant_usage(&scope, Grantable::Secret, "hook", PUBLIC).unwrap();
        let (name, version) = ("hook".to_owned(), "1".to_owned());
        let use_ = SecretUse { at: 7, name, version, who: "sink s".into(), why: "check".into() };
        control.record_secret_use(&scope, use_).unwrap();
        tenant
    })
}

fn check(fixture: &Fixture) -> (Vec<TenantId>, Vec<ControlFinding>) {
    let copy = Control::open_copy(&fixture.path(), &fixture.root, fixture.options()).unwrap();
    let mut found = Vec::new();
    let whole = copy.check(&mut |finding| found.push(finding)).unwrap();
    (whole.into_iter().map(|tenant| tenant.id).collect(), found)
}

#[test]
fn a_sound_file_is_found_so_and_left_alone() {
    let fixture = Fixture::new();
    let tenants = furnished(&fixture);
    let before = fs::read(fixture.path()).unwrap();
    let (whole, found) = check(&fixture);
    assert!(found.is_empty(), "{found:?}");
    assert!(tenants.iter().all(|tenant| whole.contains(&tenant.id)) && whole.len() == 2);
    assert_eq!(fs::read(fixture.path()).unwrap(), before);
    let other = sepal_crypto::Key::random();
    let refused = Control::open_copy(&fixture.path(), &other, fixture.options()).err();
    assert!(matches!(refused, Some(ControlError::WrongRootKey { database }) if database == fixture.path()));
}

/// A crash amid a commit: the file is half the new one, and the journal has the old pages.
#[test]
fn what_a_crash_left_half_done_is_not_in_the_copy() {
    let fixture = Fixture::new();
    furnished(&fixture);
    let journal = journal_of(&fixture.path());
    let (during, left) = {
        let database = fixture.control.database.lock();
        // The cache is so small that pages are written before the end.
        let half = "PRAGMA cache_size = 1; BEGIN IMMEDIATE; DELETE FROM tenants;
                    INSERT INTO meta VALUES ('filler', zeroblob(100000))";
        database.execute_batch(half).unwrap();
        let files = (fs::read(fixture.path()).unwrap(), fs::read(&journal).unwrap());
        database.execute_batch("ROLLBACK").unwrap();
        files
    };
    assert!(!left.is_empty() && during != fs::read(fixture.path()).unwrap(), "nothing was half done");
    fs::write(fixture.path(), &during).unwrap();
    fs::write(&journal, &left).unwrap();
    let (whole, found) = check(&fixture);
    assert!(found.is_empty() && whole.len() == 2, "{found:?}");
    assert_eq!(fs::read(fixture.path()).unwrap(), during);
    assert_eq!(fs::read(&journal).unwrap(), left);
}

#[test]
fn each_damaged_value_is_told_with_its_tenant() {
    for (table, column) in [
        ("environments", "body"),
        ("api_keys", "body"),
        ("api_keys", "verifier"),
        ("secrets", "body"),
        ("secret_versions", "value"),
        ("secret_grants", "body"),
        ("secret_uses", "body"),
    ] {
        let fixture = Fixture::new();
        let [acme, _] = furnished(&fixture);
        let sql = format!("UPDATE {table} SET {column} = zeroblob(length({column})) WHERE tenant = ?1");
        let changed = fixture.control.database.lock().execute(&sql, params![acme.id.as_bytes()]).unwrap();
        assert!(changed > 0, "{table}");
        let (whole, found) = check(&fixture);
        assert_eq!(whole.len(), 2, "{table}.{column}: its files can still be checked");
        assert!(!found.is_empty(), "{table}.{column}");
        assert!(found.iter().all(|finding| finding.tenant == Some(acme.id)), "{table}.{column}: {found:?}");
    }
}

#[test]
fn a_tenant_whose_own_row_is_damaged_hides_no_other() {
    for (table, id, column) in [("tenants", "id", "body"), ("tenant_keys", "tenant", "wrapped_key")] {
        let fixture = Fixture::new();
        let [acme, rival] = furnished(&fixture);
        let sql = format!("UPDATE {table} SET {column} = zeroblob(length({column})) WHERE {id} = ?1");
        fixture.control.database.lock().execute(&sql, params![acme.id.as_bytes()]).unwrap();
        let (whole, found) = check(&fixture);
        assert_eq!(whole, [rival.id], "{column}");
        assert!(
            found.iter().all(|finding| finding.tenant == Some(acme.id)) && !found.is_empty(),
            "{found:?}"
        );
    }
}

#[test]
fn a_provider_that_does_not_give_the_key_is_no_damage() {
    let fixture = Fixture::new();
    let [acme, rival] = furnished(&fixture);
    let path = fixture.directory.path().join("acme.key");
    root_key::create(&path).unwrap();
    fixture.control.set_tenant_provider(acme.id, &Provider::KeyFile { path: path.clone() }).unwrap();
    let (whole, found) = check(&fixture);
    assert!(found.is_empty() && whole.len() == 2, "{found:?}");
    fs::remove_file(&path).unwrap();
    let (whole, found) = check(&fixture);
    assert!(found.is_empty(), "{found:?}");
    assert!(whole.contains(&acme.id) && whole.contains(&rival.id));
    // What the root wraps around it is ours, and told.
    let sql = "UPDATE tenant_keys SET wrapped_key = zeroblob(length(wrapped_key)) WHERE tenant = ?1";
    fixture.control.database.lock().execute(sql, params![acme.id.as_bytes()]).unwrap();
    let (whole, found) = check(&fixture);
    assert_eq!((whole, found.len()), (vec![rival.id], 1));
}

#[test]
fn rows_that_belong_to_nothing_are_told() {
    let fixture = Fixture::new();
    let [acme, _] = furnished(&fixture);
    let database = fixture.control.database.lock();
    database.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    database.execute("DELETE FROM environments WHERE tenant = ?1", params![acme.id.as_bytes()]).unwrap();
    drop(database);
    let (_, found) = check(&fixture);
    assert!(found.iter().any(|finding| finding.what.contains("secrets")), "{found:?}");
}
