//! Someone who may read and write control.db but has no root key: nothing legible, and nothing that opens elsewhere.

use std::fs;

use crate::{Control, ControlError, Grantable, PUBLIC, SecretChange, SecretUse, tests::Fixture};

use super::{acme, prod, scope, store, value};

/// Copies the row of the secret whose value has the length `from` over that of the length `to`.
fn copy_value(control: &Control, from: i64, to: i64) {
    let changed = control
        .database
        .lock()
        .execute(
            "UPDATE secret_versions SET value = (SELECT value FROM secret_versions WHERE length(value) = ?1) \
             WHERE length(value) = ?2",
            [from + 40, to + 40],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

fn is_corrupt<T>(result: Result<T, ControlError>) -> bool {
    matches!(result, Err(ControlError::Corrupt { .. }))
}

#[test]
fn a_value_opens_in_its_own_row_only() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let other = fixture.tenant("other");
    let read = |scope, name, version| control.secret_value(&scope, name, version);
    store(control, &scope(&tenant), "one", &[1; 11]).unwrap();
    store(control, &scope(&tenant), "two", &[1; 12]).unwrap();
    copy_value(control, 11, 12);
    assert!(is_corrupt(read(scope(&tenant), "two", None)), "another name");

    store(control, &scope(&tenant), "same", &[1; 13]).unwrap();
    store(control, &scope(&other), "same", &[1; 14]).unwrap();
    copy_value(control, 14, 13);
    assert!(is_corrupt(read(scope(&tenant), "same", None)), "another tenant");
    assert_eq!(value(control, &scope(&other), "same").unwrap(), [1; 14]);

    store(control, &prod(&tenant), "three", &[1; 16]).unwrap();
    store(control, &scope(&tenant), "three", &[1; 17]).unwrap();
    copy_value(control, 17, 16);
    assert!(is_corrupt(read(prod(&tenant), "three", None)), "another environment");

    // The version of yesterday as that of today.
    store(control, &scope(&tenant), "four", &[1; 18]).unwrap();
    let next = SecretChange { value: Some(&[1; 19]), ..SecretChange::default() };
    control.set_secret(&scope(&tenant), "four", next).unwrap();
    copy_value(control, 18, 19);
    assert!(is_corrupt(read(scope(&tenant), "four", None)), "another version");
    assert!(read(scope(&tenant), "four", Some(1)).unwrap().is_some());
}

#[test]
fn bodies_and_grants_open_in_their_own_rows_only() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let (key, _) = fixture.key(&tenant);
    let scope = scope(&tenant);
    store(control, &scope, "mine", b"1").unwrap();
    store(control, &scope, "theirs", b"2").unwrap();
    control.grant_usage(&scope, Grantable::Secret, "mine", PUBLIC).unwrap();
    // A grant on one secret, copied to the other.
    let copied = control.database.lock().execute(
        "INSERT INTO secret_grants SELECT s.tenant, s.environment, s.name_mac, g.grantee, g.body \
         FROM secrets s JOIN secret_grants g ON g.name_mac <> s.name_mac",
        [],
    );
    assert_eq!(copied.unwrap(), 1);
    assert!(is_corrupt(control.may_use(&scope, Grantable::Secret, "theirs", &key.id)));
    assert!(control.may_use(&scope, Grantable::Secret, "mine", &key.id).unwrap());

    let changed =
        control.database.lock().execute("UPDATE secrets SET body = (SELECT max(body) FROM secrets)", []);
    assert_eq!(changed.unwrap(), 2);
    assert!(is_corrupt(control.list_secrets(&scope)));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    store(control, &scope(&tenant), "one", b"hunter2").unwrap();
    let sealed: Vec<u8> =
        control.database.lock().query_row("SELECT value FROM secret_versions", [], |row| row.get(0)).unwrap();
    for position in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[position] ^= 0x20;
        control.database.lock().execute("UPDATE secret_versions SET value = ?1", [bytes]).unwrap();
        assert!(is_corrupt(control.secret_value(&scope(&tenant), "one", None)), "byte {position}");
    }
}

#[test]
fn nothing_legible_reaches_a_file() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let scope = scope(&tenant);
    store(control, &scope, "kanarie-name", b"kanarie value").unwrap();
    store(control, &scope, "twice", b"kanarie value").unwrap();
    let hosts = Some(Some(vec!["kanarie.example.com".into()]));
    let change =
        SecretChange { value: Some(b"kanarie newer"), allowed_hosts: hosts, ..SecretChange::default() };
    control.set_secret(&scope, "kanarie-name", change).unwrap();
    control.grant_usage(&scope, Grantable::Secret, "kanarie-name", PUBLIC).unwrap();
    let use_ = SecretUse {
        at: 1,
        name: "kanarie-name".into(),
        version: "2".into(),
        who: "kanarie sink".into(),
        why: "kanarie".into(),
    };
    control.record_secret_use(&scope, use_).unwrap();
    control.drop_secret(&scope, "kanarie-name").unwrap();
    let mut read = 0;
    for entry in fs::read_dir(fixture.directory.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        read += bytes.len();
        for needle in [b"kanarie".as_slice(), b"KANARIE", b"public", b"operator", b"allowed_hosts"] {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{:?}", String::from_utf8_lossy(needle));
        }
    }
    assert!(read > 4096);
    assert_eq!(value(control, &scope, "twice").unwrap(), b"kanarie value");
}
