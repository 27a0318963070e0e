//! The chain as it is verified, and every way to disturb it.

use sepal_crypto::Key;

use super::*;
use crate::{AuditAction, tests::Fixture};

fn filled() -> Fixture {
    let fixture = Fixture::new();
    let acme = fixture.tenant("acme");
    let (key, _) = fixture.key(&acme);
    fixture.control.revoke_key(&key.id).unwrap();
    fixture.control.checkpoint_audit().unwrap().expect("something was appended");
    fixture.tenant("other");
    fixture
}

fn run(fixture: &Fixture, sql: &str) {
    fixture.control.database.lock().execute_batch(sql).unwrap();
}

fn wrong(fixture: &Fixture) -> Vec<String> {
    fixture.control.verify_audit(None).unwrap().wrong
}

#[test]
fn what_was_done_is_there_in_order() {
    let fixture = filled();
    let control = &fixture.control;
    let entries = control.audit_events(0, 100).unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.event.action.as_str()).collect();
    assert_eq!(actions, ["tenant.create", "api_key.create", "api_key.revoke", "tenant.create"]);
    assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((entries[0].event.object.as_str(), entries[0].event.actor.as_str()), ("acme", "operator"));
    assert_eq!(control.audit_events(2, 1).unwrap(), entries[2..3]);
    assert_eq!(control.newest_audit_events(2).unwrap(), entries[2..]);

    let report = control.verify_audit(None).unwrap();
    assert_eq!((report.entries, report.checkpoints), (4, 1));
    assert_eq!((report.wrong, report.head.as_str()), (vec![], entries[3].hash.as_str()));
    assert!(control.verify_audit(Some((3, &entries[2].hash))).unwrap().wrong.is_empty());
    assert_eq!(control.verify_audit(Some((3, &entries[1].hash))).unwrap().wrong.len(), 1);
    assert_eq!(control.verify_audit(Some((9, &entries[1].hash))).unwrap().wrong.len(), 1);

    // Nothing new: nothing to sign.
    control.checkpoint_audit().unwrap().unwrap();
    assert_eq!(control.checkpoint_audit().unwrap(), None);
}

#[test]
fn an_exported_entry_can_be_checked_without_keys() {
    let fixture = filled();
    let entries = fixture.control.audit_events(0, 100).unwrap();
    let mut before = vec![0; 32];
    for entry in entries {
        let hash = hash_of(&before, entry.number, entry.text.as_bytes());
        assert_eq!(hex(&hash), entry.hash);
        before = hash.to_vec();
    }
}

#[test]
fn each_disturbance_is_named() {
    for (sql, said) in [
        (
            "UPDATE audit SET body = (SELECT body FROM audit WHERE number = 1) WHERE number = 2",
            "entry 2 was changed",
        ),
        ("UPDATE audit SET hash = zeroblob(32) WHERE number = 2", "entry 2 does not follow"),
        ("DELETE FROM audit WHERE number = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE number = 4", "the last entry is 3, and 4 was written"),
        ("DELETE FROM audit WHERE number >= 3", "entry 3 is not the one that its checkpoint signed"),
        ("UPDATE audit_checkpoints SET time = time + 1", "checkpoint 3 is not signed"),
        ("DELETE FROM meta WHERE name = 'audit'", "the end of the trail is not known"),
        (
            "DELETE FROM audit; DELETE FROM audit_checkpoints; DELETE FROM meta WHERE name = 'audit'",
            "the end of the trail is not known",
        ),
        ("UPDATE audit SET number = -1 WHERE number = 1", "an entry has the number -1"),
        ("UPDATE audit_checkpoints SET time = -time", "checkpoint 3 is not signed"),
        ("UPDATE meta SET value = zeroblob(80) WHERE name = 'audit'", "the end of the trail is not known"),
    ] {
        let fixture = filled();
        assert!(wrong(&fixture).is_empty());
        run(&fixture, sql);
        let found = wrong(&fixture);
        assert!(found.iter().any(|line| line.contains(said)), "{sql}: {found:?}");
    }
}

#[test]
fn without_its_end_the_trail_takes_no_entry() {
    let fixture = filled();
    run(&fixture, "DELETE FROM audit; DELETE FROM audit_checkpoints; DELETE FROM meta WHERE name = 'audit'");
    let name = crate::TenantName::parse("late").unwrap();
    let refused = fixture.control.create_tenant(&name).unwrap_err();
    assert_eq!(sepal_types::Error::from(refused).state().code(), "XX001");
    assert_eq!(fixture.control.list_tenants().unwrap().len(), 2);
}

/// All of control.db as it was before: nothing inside of it can tell.
#[test]
fn an_older_trail_is_told_by_the_checkpoint_beside_it() {
    let fixture = filled();
    let control = &fixture.control;
    let (older, head) = (fixture.directory.path().join("older"), fixture.directory.path().join("audit.head"));
    std::fs::copy(fixture.path(), &older).unwrap();
    assert_eq!(control.check_audit_head().unwrap(), None);
    fixture.tenant("later");
    let newest = control.checkpoint_audit().unwrap().unwrap();
    let kept: AuditCheckpoint = serde_json::from_slice(&std::fs::read(&head).unwrap()).unwrap();
    assert_eq!((kept.number, &kept), (5, &newest));
    assert_eq!(control.check_audit_head().unwrap(), None);

    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    drop(fixture.control);
    std::fs::copy(&older, &path).unwrap();
    let control = Control::open(&path, &root, options).unwrap();
    let told = control.check_audit_head().unwrap().unwrap();
    assert!(told.contains("entry 5, which audit.head has, is not there"), "{told}");
    assert_eq!(control.verify_audit(None).unwrap().wrong, [told]);
    // More entries do not hide it, and the checkpoint stays what it is.
    for name in ["one", "two", "three"] {
        control.create_tenant(&crate::TenantName::parse(name).unwrap()).unwrap();
        control.checkpoint_audit().unwrap().unwrap();
    }
    let told = control.check_audit_head().unwrap().unwrap();
    assert!(told.contains("entry 5 is not the one"), "{told}");
    std::fs::write(&head, "{}").unwrap();
    assert!(control.check_audit_head().unwrap().unwrap().contains("is no checkpoint"));
    // Whoever put the file back on purpose goes on so.
    std::fs::remove_file(&head).unwrap();
    assert_eq!(control.check_audit_head().unwrap(), None);
    assert_eq!(control.checkpoint_audit().unwrap(), None, "signed already");
    assert!(head.exists() && control.verify_audit(None).unwrap().wrong.is_empty());
}

#[test]
fn a_change_that_fails_leaves_no_entry() {
    let fixture = filled();
    let before = fixture.control.verify_audit(None).unwrap();
    let name = crate::TenantName::parse("acme").unwrap();
    assert!(fixture.control.create_tenant(&name).is_err());
    assert!(fixture.control.drop_tenant("nobody").is_err());
    assert_eq!(fixture.control.verify_audit(None).unwrap(), before);
}

#[test]
fn a_dropped_tenants_certificate_is_signed_and_kept() {
    let fixture = filled();
    let control = &fixture.control;
    let tenant = control.tenant_by_name("acme").unwrap().unwrap();
    let check = hex(&control.tenant_keys(tenant.id).unwrap().current().check_value());
    let destroyed = control.drop_tenant("acme").unwrap();
    assert_eq!((destroyed.tenant, destroyed.keys.clone()), (tenant.id, vec![(1, check.clone())]));
    assert_eq!(control.destruction_certificate("acme").unwrap(), None, "not before the files are gone");
    let removal =
        crate::Removal { files: 3, bytes: 99, backups: vec!["s3://b".into()], ..Default::default() };
    let certificate = control.certify_destruction(&destroyed, &removal).unwrap();
    assert!(certificate.is_signed());
    assert_eq!(certificate.signer, control.verify_audit(None).unwrap().signer);
    for part in [check.as_str(), "\"bytes\":99", "s3://b", &tenant.id.to_string()] {
        assert!(certificate.certificate.contains(part), "{}", certificate.certificate);
    }
    assert!(!certificate.certificate.contains("acme"), "a certificate does not keep the name");
    for asked in ["acme", &tenant.id.to_string()] {
        assert_eq!(control.destruction_certificate(asked).unwrap().as_ref(), Some(&certificate), "{asked}");
    }
    let mut forged = certificate.clone();
    forged.certificate = forged.certificate.replace("99", "98");
    assert!(!forged.is_signed());
    let actions: Vec<String> =
        control.newest_audit_events(2).unwrap().into_iter().map(|entry| entry.event.action).collect();
    assert_eq!(actions, [AuditAction::TenantDropped.as_str(), AuditAction::TenantDestroyed.as_str()]);
    assert!(wrong(&fixture).is_empty());
}

#[test]
fn a_destruction_is_owed_until_it_is_certified() {
    let fixture = filled();
    fixture.control.drop_tenant("other").unwrap();
    assert!(fixture.control.unfinished_destructions().unwrap().is_empty());
    let begun = fixture.control.begin_destruction("acme").unwrap();
    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    drop(fixture.control);
    let control = Control::open(&path, &root, options).unwrap();
    assert_eq!(control.unfinished_destructions().unwrap(), std::slice::from_ref(&begun));
    let removal = crate::Removal { files_left: Some("a: busy".into()), ..Default::default() };
    let certificate = control.certify_destruction(&begun, &removal).unwrap();
    assert!(certificate.is_signed() && certificate.certificate.contains("\"files_left\":\"a: busy\""));
    assert!(control.unfinished_destructions().unwrap().is_empty());
    assert_eq!(control.destruction_certificate("acme").unwrap(), Some(certificate));
}

#[test]
fn entries_survive_a_new_root_key() {
    let fixture = filled();
    let before = fixture.control.audit_events(0, 100).unwrap();
    let signer = fixture.control.verify_audit(None).unwrap().signer;
    fixture.control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    assert_eq!(fixture.control.audit_events(0, before.len()).unwrap(), before);
    let report = fixture.control.verify_audit(None).unwrap();
    assert_eq!((report.wrong, report.signer), (vec![], signer));
}
