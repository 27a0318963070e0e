//! Epochs, tenants' own providers, recovery, and what goes into a backup.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use sepal_crypto::Key;
use sepal_types::TenantId;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::{
    Control, ControlError, ControlOptions, KeyFiles, KeyWrapper, NewSecret, Provider, RecoveryKey,
    RecoveryShare, RootStatus, Scope, SecretName, SecretOrigin, Tenant, TenantName, WrapperError, Wrappers,
    open_recovery_package, root_key, tests::Fixture,
};

use super::rotation::BATCH;

fn add_secret(control: &Control, tenant: &Tenant, value: &[u8]) {
    let new = NewSecret {
        name: &SecretName::parse("DB").unwrap(),
        owner: "operator",
        origin: SecretOrigin::Stored,
        value: Some(value),
        allowed_hosts: None,
        refresh_seconds: None,
        max_stale_seconds: None,
    };
    control.create_secret(&scope(tenant), new).unwrap();
}

fn scope(tenant: &Tenant) -> Scope<'static> {
    Scope { tenant: tenant.id, environment: "default" }
}

fn secret(control: &Control, tenant: &Tenant) -> Vec<u8> {
    control.secret_value(&scope(tenant), "DB", None).unwrap().unwrap().1.to_vec()
}

fn code(error: ControlError) -> &'static str {
    sepal_types::Error::from(error).state().code()
}

#[test]
fn a_new_epoch_seals_and_the_old_one_opens_until_it_is_retired() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let tenant = fixture.tenant("acme");
    add_secret(control, &tenant, b"hunter2");
    control.grant_usage(&scope(&tenant), crate::Grantable::Secret, "DB", crate::PUBLIC).unwrap();
    let first = control.tenant_keys(tenant.id).unwrap();
    let wrapped = first.wrap(b"a file", &Key::from_bytes([5; 32]));

    assert_eq!(control.rotate_tenant_key(tenant.id).unwrap(), 2);
    let ring = control.tenant_keys(tenant.id).unwrap();
    assert_eq!(ring.keys().count(), 2);
    assert_ne!(ring.current().expose(), first.current().expose());
    assert_eq!(ring.unwrap(b"a file", &wrapped).unwrap().expose(), &[5; 32]);
    assert!(!ring.is_current(&wrapped));
    assert_eq!(control.tenant_key_epoch(tenant.id).unwrap(), 2);
    let status = control.tenant_key_status(tenant.id).unwrap();
    assert_eq!(
        status.iter().map(|key| (key.epoch, key.current)).collect::<Vec<_>>(),
        [(2, true), (1, false)]
    );

    assert_eq!(code(control.retire_tenant_keys(tenant.id, 3).unwrap_err()), "22023");
    assert_eq!(control.retire_tenant_keys(tenant.id, 2).unwrap(), 1);
    assert_eq!(control.retire_tenant_keys(tenant.id, 2).unwrap(), 0);
    let ring = control.tenant_keys(tenant.id).unwrap();
    assert!(ring.unwrap(b"a file", &wrapped).is_err());
    // What control.db holds itself moved with the epoch.
    assert_eq!(secret(control, &tenant), b"hunter2");
    let (key, _) = fixture.key(&tenant);
    assert!(control.may_use(&scope(&tenant), crate::Grantable::Secret, "DB", &key.id).unwrap());
}

/// Without a key, a row can be given a number below zero; its associated data has the number without a sign.
#[test]
fn a_number_below_zero_is_damage() {
    let fixture = Fixture::new();
    let (control, acme) = (&fixture.control, fixture.tenant("acme"));
    control.rotate_tenant_key(acme.id).unwrap();
    control.database.lock().execute("UPDATE tenant_keys SET epoch = -2 WHERE epoch = 2", []).unwrap();
    for error in [
        control.tenant_keys(acme.id).map(drop).unwrap_err(),
        control.tenant_key_epoch(acme.id).map(drop).unwrap_err(),
        control.rotate_root(&Key::random(), &mut |_| {}).map(drop).unwrap_err(),
        control.drop_tenant("acme").map(drop).unwrap_err(),
    ] {
        assert_eq!(code(error), "XX001");
    }
}

#[test]
fn a_thousand_tenants_follow_the_root_in_batches() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let tenants: Vec<Tenant> = (0..BATCH + 3).map(|number| fixture.tenant(&format!("t{number}"))).collect();
    let before: Vec<[u8; 32]> =
        tenants.iter().map(|tenant| *control.tenant_keys(tenant.id).unwrap().current().expose()).collect();
    let root = Key::random();
    let mut heard: Vec<RootStatus> = Vec::new();
    let done = control.rotate_root(&root, &mut |status| heard.push(status)).unwrap();
    let left: Vec<u64> = heard.iter().map(|status| status.under_old).collect();
    assert_eq!(left, [3, 0, 0]);
    assert_eq!((done.keys, done.under_old, done.rotating), (tenants.len() as u64, 0, false));
    assert_eq!(code(control.rotate_root(&root, &mut |_| {}).unwrap_err()), "22023");

    let (path, options) = (fixture.path(), fixture.options());
    drop(fixture.control);
    let control = Control::open(&path, &root, options).unwrap();
    for (tenant, key) in tenants.iter().zip(before) {
        assert_eq!(control.tenant_keys(tenant.id).unwrap().current().expose(), &key);
    }
}

#[test]
fn tenants_made_while_the_root_is_replaced_are_under_the_new_one() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    fixture.tenant("old");
    let root = Key::random();
    control.begin_root_rotation(&root).unwrap();
    assert_eq!(code(control.begin_root_rotation(&Key::random()).unwrap_err()), "55006");
    let new = fixture.tenant("new");
    assert_eq!(control.root_status().unwrap().under_old, 1);
    let key = *control.tenant_keys(new.id).unwrap().current().expose();
    control.resume_root_rotation(&mut |_| {}).unwrap();
    assert_eq!(control.tenant_keys(new.id).unwrap().current().expose(), &key);
}

/// A second process that opened the file before must not write under a root key that is gone.
#[test]
fn a_process_with_the_old_root_writes_no_keys() {
    let fixture = Fixture::new();
    let other = Control::open(&fixture.path(), &fixture.root, fixture.options()).unwrap();
    fixture.control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    let refused = other.create_tenant(&TenantName::parse("late").unwrap()).unwrap_err();
    assert_eq!(code(refused), "55006");
    assert!(fixture.control.list_tenants().unwrap().is_empty());
}

#[test]
fn recovery_gives_the_root_before_and_after_a_rotation() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    assert_eq!(control.recovery_status().unwrap(), None);
    assert_eq!(control.recovery_package().unwrap(), None);
    let key = control.create_recovery(Some((2, 3)), false).unwrap();
    assert_eq!(code(control.create_recovery(None, false).unwrap_err()), "42710");
    let package = control.recovery_package().unwrap().unwrap();
    assert_eq!(open_recovery_package(&package, &key).unwrap().expose(), fixture.root.expose());
    let status = control.recovery_status().unwrap().unwrap();
    assert_eq!((status.id, status.shares, status.verified_at), (key.id(), Some((2, 3)), None));
    assert!(control.verify_recovery(&key).unwrap().verified_at.is_some());

    let root = Key::random();
    control.rotate_root(&root, &mut |_| {}).unwrap();
    // From shares, from the file alone.
    let written: Vec<String> =
        key.split(2, 3).unwrap().iter().map(|share| share.expose().to_string()).collect();
    let read: Vec<RecoveryShare> = written.iter().map(|text| RecoveryShare::parse(text).unwrap()).collect();
    let combined = RecoveryKey::combine(&read[1..]).unwrap();
    let package = Control::recovery_package_of(&fixture.path()).unwrap().unwrap();
    assert_eq!(open_recovery_package(&package, &combined).unwrap().expose(), root.expose());
    control.verify_recovery(&combined).unwrap();

    let older = control.recovery_package().unwrap().unwrap();
    let replaced = control.create_recovery(None, true).unwrap();
    assert_eq!(code(control.verify_recovery(&key).unwrap_err()), "22023");
    let mut journal = fixture.path().into_os_string();
    journal.push("-journal");
    for file in [fixture.path(), journal.into()] {
        let bytes = fs::read(&file).unwrap();
        let is_left = bytes.windows(older.len()).any(|at| at == older);
        assert!(!is_left, "{} has what the key before opens", file.display());
    }
    control.verify_recovery(&replaced).unwrap();
    let package = control.recovery_package().unwrap().unwrap();
    assert_eq!(code(open_recovery_package(&package, &key).unwrap_err()), "22023");
    // Where a copy is, the one before gives the root still: that is to be replaced as well.
    let known = open_recovery_package(&older, &key).unwrap();
    assert!(control.is_root(&known));
    control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    assert!(!control.is_root(&known) && !Control::opens_with(&fixture.path(), &known).unwrap());
    for position in [0, 8, package.len() - 1] {
        let mut damaged = package.clone();
        damaged[position] ^= 1;
        assert!(open_recovery_package(&damaged, &replaced).is_err());
    }
    assert!(open_recovery_package(&package[..20], &replaced).is_err());
}

#[test]
fn a_backup_opens_with_the_recovery_key_and_only_the_keys_that_are_put_back() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (kept, dropped) = (fixture.tenant("kept"), fixture.tenant("dropped"));
    add_secret(control, &kept, b"hunter2");
    control.rotate_tenant_key(kept.id).unwrap();
    let recovery = control.create_recovery(None, false).unwrap();
    let place = TempDir::new().unwrap();
    let copy = place.path().join("control.db");
    control.backup_copy(&copy).unwrap();
    assert!(control.backup_copy(&copy).is_err(), "never overwritten");
    let keys = control.sealed_tenant_keys(kept.id).unwrap();
    let ring = control.tenant_keys(kept.id).unwrap();
    // The root is replaced afterwards: the copy stays as it was.
    control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    let later = control.sealed_tenant_keys(kept.id).unwrap();
    let read = control.backed_up_keys(kept.id, &keys).unwrap();
    assert!(read.iter().map(Key::expose).eq(ring.keys().map(Key::expose)));
    assert_eq!(code(control.backed_up_keys(dropped.id, &keys).unwrap_err()), "XX001");

    let package = Control::recovery_package_of(&copy).unwrap().unwrap();
    let root = open_recovery_package(&package, &recovery).unwrap();
    let restored = Control::open(&copy, &root, ControlOptions::default()).unwrap();
    assert_eq!(restored.list_tenants().unwrap(), [dropped.clone(), kept.clone()]);
    assert_eq!(code(restored.tenant_keys(kept.id).unwrap_err()), "55000");
    assert!(restored.restore_tenant_keys(dropped.id, &keys).is_err(), "another tenant's");
    assert!(restored.restore_tenant_keys(kept.id, &keys[..keys.len() - 1]).is_err());
    for sealed in [&keys, &later] {
        restored.restore_tenant_keys(kept.id, sealed).unwrap();
        let again = restored.tenant_keys(kept.id).unwrap();
        assert!(again.keys().map(Key::expose).eq(ring.keys().map(Key::expose)));
        assert_eq!(secret(&restored, &kept), b"hunter2");
        assert_eq!(code(restored.restore_tenant_keys(kept.id, sealed).unwrap_err()), "42710");
        restored
            .database
            .lock()
            .execute("DELETE FROM tenant_keys WHERE tenant = ?1", [kept.id.as_bytes()])
            .unwrap();
    }
    assert_eq!(code(restored.tenant_keys(dropped.id).unwrap_err()), "55000");
    assert!(restored.verify_audit(None).unwrap().wrong.is_empty());
    let bytes = fs::read(&copy).unwrap();
    let wrapped: Vec<u8> = control
        .database
        .lock()
        .query_row("SELECT wrapped_key FROM tenant_keys WHERE tenant = ?1", [dropped.id.as_bytes()], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(!bytes.windows(wrapped.len()).any(|window| window == wrapped));
}

#[test]
fn keys_of_later_epochs_come_back_beside_an_older_control_db() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let acme = fixture.tenant("acme");
    add_secret(control, &acme, b"hunter2");
    let recovery = control.create_recovery(None, false).unwrap();
    let place = TempDir::new().unwrap();
    let copy = place.path().join("control.db");
    control.backup_copy(&copy).unwrap();
    let keys = control.sealed_tenant_keys(acme.id).unwrap();
    control.rotate_tenant_key(acme.id).unwrap();
    let later = control.sealed_tenant_keys(acme.id).unwrap();
    let ring = control.tenant_keys(acme.id).unwrap();

    let package = Control::recovery_package_of(&copy).unwrap().unwrap();
    let root = open_recovery_package(&package, &recovery).unwrap();
    let restored = Control::open(&copy, &root, ControlOptions::default()).unwrap();
    assert_eq!(code(restored.restore_later_tenant_keys(acme.id, &later).unwrap_err()), "55000");
    restored.restore_tenant_keys(acme.id, &keys).unwrap();
    for _ in 0..2 {
        restored.restore_later_tenant_keys(acme.id, &later).unwrap();
        restored.settle_restored_keys(acme.id).unwrap();
        let again = restored.tenant_keys(acme.id).unwrap();
        assert!(again.keys().map(Key::expose).eq(ring.keys().map(Key::expose)));
        assert_eq!(secret(&restored, &acme), b"hunter2");
    }
}

/// What is copied while a key is replaced opens with what is there at the end.
#[test]
fn keys_are_not_destroyed_while_a_backup_holds_them() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (acme, other) = (fixture.tenant("acme"), fixture.tenant("other"));
    add_secret(control, &acme, b"hunter2");
    let recovery = control.create_recovery(None, false).unwrap();
    let files = TempDir::new().unwrap();
    let provider = Provider::KeyFile { path: own_key(&files) };
    control.set_tenant_provider(other.id, &provider).unwrap();
    let place = TempDir::new().unwrap();
    let copy = place.path().join("control.db");
    let (held, another) = (control.hold_tenant_keys(), control.hold_tenant_keys());
    let providers = control.backup_copy(&copy).unwrap();
    assert_eq!(providers.into_iter().collect::<Vec<_>>(), [(other.id, provider)]);
    control.rotate_tenant_key(acme.id).unwrap();
    drop(another);
    assert_eq!(code(control.retire_tenant_keys(acme.id, 2).unwrap_err()), "55006");
    let keys = control.sealed_tenant_keys(acme.id).unwrap();
    drop(held);
    assert_eq!(control.retire_tenant_keys(acme.id, 2).unwrap(), 1);

    let package = Control::recovery_package_of(&copy).unwrap().unwrap();
    let root = open_recovery_package(&package, &recovery).unwrap();
    let restored = Control::open(&copy, &root, ControlOptions::default()).unwrap();
    restored.restore_tenant_keys(acme.id, &keys).unwrap();
    restored.settle_restored_keys(acme.id).unwrap();
    assert_eq!(secret(&restored, &acme), b"hunter2");
}

fn own_key(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("acme.key");
    root_key::create(&path).unwrap();
    path
}

#[test]
fn with_a_provider_of_its_own_both_keys_are_needed() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (acme, other) = (fixture.tenant("acme"), fixture.tenant("other"));
    add_secret(control, &acme, b"hunter2");
    let before = *control.tenant_keys(acme.id).unwrap().current().expose();
    let place = TempDir::new().unwrap();
    let path = own_key(&place);
    let provider = Provider::KeyFile { path: path.clone() };
    control.set_tenant_provider(acme.id, &provider).unwrap();
    assert_eq!(control.tenant_provider(acme.id).unwrap(), Some(provider));
    // A new key: the one before stands elsewhere without the provider.
    let ring = control.tenant_keys(acme.id).unwrap();
    assert!(ring.current().expose() != &before && ring.keys().nth(1).unwrap().expose() == &before);
    assert_eq!(secret(control, &acme), b"hunter2");
    let hidden = place.path().join("hidden");
    fs::rename(&path, &hidden).unwrap();
    assert_eq!(control.retire_tenant_keys(acme.id, 2).unwrap(), 1);
    assert_eq!(secret(control, &acme), b"hunter2", "the tenant is open still");
    fs::rename(&hidden, &path).unwrap();
    assert_eq!(control.rotate_tenant_key(acme.id).unwrap(), 3);
    assert_eq!(secret(control, &acme), b"hunter2");
    control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    let sealed = control.sealed_tenant_keys(acme.id).unwrap();
    assert!(control.tenant_key_status(acme.id).unwrap().iter().all(|key| key.own));

    // The key goes away: what is held still serves, the next opening does not.
    fs::rename(&path, &hidden).unwrap();
    assert_eq!(secret(control, &acme), b"hunter2");
    control.forget_tenant_keys(acme.id);
    for error in [
        control.tenant_keys(acme.id).map(drop).unwrap_err(),
        control.secret_value(&scope(&acme), "DB", None).map(drop).unwrap_err(),
        control.rotate_tenant_key(acme.id).map(drop).unwrap_err(),
        control.remove_tenant_provider(acme.id).unwrap_err(),
    ] {
        let error = sepal_types::Error::from(error);
        assert_eq!(error.state().code(), "57P03", "{error}");
        assert!(error.hint().unwrap().contains("Other tenants are not affected"));
    }
    assert!(control.tenant_keys(other.id).is_ok());
    // A wrong key is refused, not waited for.
    fs::write(&path, "ab".repeat(32)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(code(control.tenant_keys(acme.id).unwrap_err()), "58000");

    fs::rename(&hidden, &path).unwrap();
    assert_eq!(control.tenant_keys(acme.id).unwrap().keys().count(), 2);
    control.remove_tenant_provider(acme.id).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(secret(control, &acme), b"hunter2");
    assert_eq!(code(control.remove_tenant_provider(acme.id).unwrap_err()), "55000");
    // Its backup object is still under both.
    assert!(!sealed.is_empty());
    control.drop_tenant("acme").unwrap();
    assert_eq!(code(control.tenant_keys(acme.id).unwrap_err()), "42704");
}

/// A provider that is removed while a backup is made is in its copy of control.db, and in none of the keys beside it.
#[test]
fn a_restored_provider_without_a_key_is_told_like_any_other() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let acme = fixture.tenant("acme");
    let place = TempDir::new().unwrap();
    let provider = Provider::KeyFile { path: own_key(&place) };
    control.set_tenant_provider(acme.id, &provider).unwrap();
    let copy = place.path().join("control.db");
    control.backup_copy(&copy).unwrap();
    control.remove_tenant_provider(acme.id).unwrap();
    let keys = control.sealed_tenant_keys(acme.id).unwrap();

    let restored = Control::open(&copy, &fixture.root, ControlOptions::default()).unwrap();
    restored.restore_tenant_keys(acme.id, &keys).unwrap();
    restored.settle_restored_keys(acme.id).unwrap();
    assert!(restored.tenant_key_status(acme.id).unwrap().iter().all(|key| !key.own));
    // A backup that takes the two for different would be without the tenant for ever.
    let told = restored.backup_copy(&place.path().join("again.db")).unwrap();
    assert_eq!(told.get(&acme.id), restored.tenant_provider(acme.id).unwrap().as_ref());
    assert_eq!(told.get(&acme.id), Some(&provider));
}

#[test]
fn the_same_keys_under_another_provider_are_another_set() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let acme = fixture.tenant("acme");
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let tag = || control.tenant_keys_tag(acme.id).unwrap();
    let plain = tag();
    assert_eq!(plain, tag());
    control.set_tenant_provider(acme.id, &Provider::KeyFile { path: own_key(&one) }).unwrap();
    let first = tag();
    assert_eq!(first, tag());
    control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    assert_eq!(first, tag(), "the root wraps around it");
    control.set_tenant_provider(acme.id, &Provider::KeyFile { path: own_key(&two) }).unwrap();
    let second = tag();
    control.remove_tenant_provider(acme.id).unwrap();
    let without = tag();
    control.rotate_tenant_key(acme.id).unwrap();
    let tags = [plain, first, second, without, tag()];
    assert!((1..tags.len()).all(|at| !tags[..at].contains(&tags[at])), "{tags:?}");
}

#[test]
fn a_package_that_does_not_give_the_root_key_is_found_without_the_recovery_key() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    control.create_recovery(None, false).unwrap();
    let first = control.recovery_package().unwrap().unwrap();
    control.check_recovery_package(&first).unwrap();
    control.rotate_root(&Key::random(), &mut |_| {}).unwrap();
    assert_eq!(code(control.check_recovery_package(&first).unwrap_err()), "XX001", "the old root's");
    let second = control.recovery_package().unwrap().unwrap();
    control.check_recovery_package(&second).unwrap();
    control.create_recovery(None, true).unwrap();
    assert_eq!(code(control.check_recovery_package(&second).unwrap_err()), "XX001", "the old recovery key's");
    let third = control.recovery_package().unwrap().unwrap();
    control.check_recovery_package(&third).unwrap();
    assert_eq!(code(control.check_recovery_package(&third[1..]).unwrap_err()), "XX001");
}

#[test]
fn a_provider_that_cannot_be_used_changes_nothing() {
    let fixture = Fixture::new();
    let acme = fixture.tenant("acme");
    let missing = Provider::KeyFile { path: "/nonexistent/key".into() };
    let refused = fixture.control.set_tenant_provider(acme.id, &missing).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("the key file /nonexistent/key cannot be opened") && !said.contains("root"),
        "{said}"
    );
    assert_eq!(code(refused), "57P03");
    let unknown = Provider::Pkcs11 {
        module: "/usr/lib/none.so".into(),
        token: "t".into(),
        key: "k".into(),
        pin_file: None,
    };
    assert_eq!(code(fixture.control.set_tenant_provider(acme.id, &unknown).unwrap_err()), "58000");
    assert_eq!(fixture.control.tenant_provider(acme.id).unwrap(), None);
    assert!(fixture.control.tenant_keys(acme.id).is_ok());
}

/// Key files that replace the tenant's key while they are asked for it, once.
#[derive(Clone, Default)]
struct Meddling(Arc<Mutex<Victim>>);

type Victim = Option<(Arc<Control>, TenantId)>;

struct Meddler {
    inner: Arc<dyn KeyWrapper>,
    meddling: Meddling,
}

impl Wrappers for Meddling {
    fn open(&self, provider: &Provider) -> Result<Arc<dyn KeyWrapper>, WrapperError> {
        Ok(Arc::new(Meddler { inner: KeyFiles.open(provider)?, meddling: self.clone() }))
    }
}

impl KeyWrapper for Meddler {
    fn provider(&self) -> Provider {
        self.inner.provider()
    }

    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError> {
        self.inner.wrap(context, secret)
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError> {
        let armed = self.meddling.0.lock().take();
        if let Some((control, tenant)) = armed {
            control.rotate_tenant_key(tenant).unwrap();
        }
        self.inner.unwrap(context, wrapped)
    }
}

/// A provider may take seconds, in which somebody else replaces the key: it must neither be lost nor forgotten.
#[test]
fn a_key_that_is_made_while_a_provider_is_asked_stays() {
    let (directory, root) = (TempDir::new().unwrap(), Key::random());
    let meddling = Meddling::default();
    let options = ControlOptions { wrappers: Arc::new(meddling.clone()), ..ControlOptions::default() };
    let control = Arc::new(Control::create(&directory.path().join("control.db"), &root, options).unwrap());
    let acme = control.create_tenant(&TenantName::parse("acme").unwrap()).unwrap();
    add_secret(&control, &acme, b"hunter2");
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let provider = |place: &TempDir| Provider::KeyFile { path: place.path().join("acme.key") };
    own_key(&first);
    own_key(&second);
    control.set_tenant_provider(acme.id, &provider(&first)).unwrap();
    let arm = || *meddling.0.lock() = Some((Arc::clone(&control), acme.id));

    for attempt in ["set", "remove", "rotate", "read"] {
        let before = control.tenant_key_epoch(acme.id).unwrap();
        arm();
        match attempt {
            "set" => {
                let refused = control.set_tenant_provider(acme.id, &provider(&second)).unwrap_err();
                assert_eq!(code(refused), "55006");
            }
            "remove" => assert_eq!(code(control.remove_tenant_provider(acme.id).unwrap_err()), "55006"),
            "rotate" => assert_eq!(code(control.rotate_tenant_key(acme.id).unwrap_err()), "55006"),
            _ => drop(control.tenant_keys(acme.id).unwrap()),
        }
        let status = control.tenant_key_status(acme.id).unwrap();
        assert_eq!((status[0].epoch, status.len() as u64), (before + 1, before + 1), "{attempt}");
        // What is held is the newest key, not what the provider was asked for.
        let held = control.vault.own.held(acme.id).unwrap();
        assert_eq!(sepal_crypto::hex(&held.check_value()), status[0].check, "{attempt}");
        assert_eq!(secret(&control, &acme), b"hunter2", "{attempt}");
        control.forget_tenant_keys(acme.id);
        let ring = control.tenant_keys(acme.id).unwrap();
        let checks = ring.keys().map(|key| sepal_crypto::hex(&key.check_value()));
        assert!(checks.eq(status.into_iter().map(|key| key.check)), "{attempt}");
    }
    assert_eq!(control.tenant_provider(acme.id).unwrap(), Some(provider(&first)));
    *meddling.0.lock() = None;
}
