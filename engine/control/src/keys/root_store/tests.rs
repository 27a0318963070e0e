//! The files of a root key: what a crash after each step of its replacement leaves, and what a provider's refusal says.

use std::{
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::{AtomicUsize, Ordering},
};

use sepal_crypto::PassphraseCost;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::{ControlOptions, Passphrase, TenantName, WrapperError};

const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
const WORDS: &str = "correct horse battery staple";

/// A directory whose root key is kept in one of the two ways.
struct Place {
    data: TempDir,
    store: RootStore,
}

impl Place {
    fn all() -> [Self; 2] {
        let (plain, sealed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let wrapper = Arc::new(Passphrase::new(WORDS, CHEAP).unwrap());
        let stores =
            (RootStore::file(&plain.path().join("root.key")), RootStore::sealed(sealed.path(), wrapper));
        [Self { data: plain, store: stores.0 }, Self { data: sealed, store: stores.1 }]
    }

    fn database(&self) -> PathBuf {
        self.data.path().join("control.db")
    }

    fn init(&self) {
        let key = self.store.create().unwrap();
        let control = Control::create(&self.database(), &key, ControlOptions::default()).unwrap();
        for name in ["one", "two"] {
            control.create_tenant(&TenantName::parse(name).unwrap()).unwrap();
        }
    }

    /// What the next start does.
    fn open(&self) -> Control {
        let key = self.store.unlock(&self.database()).unwrap();
        Control::open(&self.database(), &key, ControlOptions::default()).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("root"));
        names.sort();
        names
    }
}

/// All that a tenant's files need.
fn keys(control: &Control) -> Vec<[u8; 32]> {
    let tenants = control.list_tenants().unwrap();
    tenants.iter().map(|tenant| *control.tenant_keys(tenant.id).unwrap().current().expose()).collect()
}

#[test]
fn each_crash_opens_and_goes_on() {
    // 0: nothing done; 1: staged; 2: begun; 3: promoted. The rehearsal before them is a file with the same key.
    for step in 0..=3 {
        for place in Place::all() {
            place.init();
            let control = place.open();
            let before = keys(&control);
            if step >= 1 {
                let next = place.store.stage().unwrap();
                if step >= 2 {
                    control.begin_root_rotation(&next).unwrap();
                }
                if step >= 3 {
                    place.store.promote().unwrap();
                }
            }
            drop(control);

            let control = place.open();
            assert_eq!(keys(&control), before, "after step {step}");
            let status = control.root_status().unwrap();
            assert_eq!(status.rotating, step >= 2, "after step {step}");
            assert_eq!((status.keys, status.under_old), (2, if step >= 2 { 2 } else { 0 }));
            let done = place.store.rotate(&control, &mut |_| {}).unwrap();
            assert_eq!((done.generation, done.under_old, done.rotating), (2, 0, false), "after step {step}");
            drop(control);
            let control = place.open();
            assert_eq!(keys(&control), before);
            assert!(!control.root_status().unwrap().rotating);
            assert_eq!(place.files().len(), 1, "no other file is left: {:?}", place.files());
        }
    }
}

#[test]
fn the_replaced_key_opens_nothing() {
    for place in Place::all() {
        place.init();
        let old = place.store.read().unwrap();
        let control = place.open();
        place.store.rotate(&control, &mut |_| {}).unwrap();
        drop(control);
        assert!(!Control::opens_with(&place.database(), &old).unwrap());
        let refused = Control::open(&place.database(), &old, ControlOptions::default()).unwrap_err();
        assert!(matches!(refused, ControlError::WrongRootKey { .. }));
        assert_ne!(place.store.read().unwrap().expose(), old.expose());
    }
}

/// The rename failed, the server went on: the staged file holds the only copy of the root key.
#[test]
fn a_key_that_control_is_under_is_not_taken_for_a_leftover() {
    for place in Place::all() {
        place.init();
        let control = place.open();
        let next = place.store.stage().unwrap();
        control.begin_root_rotation(&next).unwrap();
        control.resume_root_rotation(&mut |_| {}).unwrap();
        let status = place.store.rotate(&control, &mut |_| {}).unwrap();
        assert_eq!(status.generation, 3);
        drop(control);
        assert_eq!(keys(&place.open()).len(), 2);
        assert_eq!(place.files().len(), 1);
    }
}

/// The commit happened and was reported as failed: the process remembers the old key, control.db is under the new one.
#[test]
fn what_a_process_remembers_decides_nothing() {
    for place in Place::all() {
        place.init();
        let control = place.open();
        let before = keys(&control);
        let other = place.open();
        other.begin_root_rotation(&place.store.stage().unwrap()).unwrap();
        drop(other);
        for _ in 0..2 {
            let refused = place.store.rotate(&control, &mut |_| {}).unwrap_err();
            assert_eq!(sepal_types::Error::from(refused).state().code(), "55006");
        }
        drop(control);
        let control = place.open();
        assert_eq!(keys(&control), before);
        assert_eq!(place.store.rotate(&control, &mut |_| {}).unwrap().generation, 2);
    }
}

/// A provider that can be asked so many times.
struct Moody {
    inner: Passphrase,
    answers: AtomicUsize,
}

impl KeyWrapper for Moody {
    fn provider(&self) -> Provider {
        self.inner.provider()
    }

    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError> {
        self.inner.wrap(context, secret)
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError> {
        let less = |left: usize| left.checked_sub(1);
        match self.answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => self.inner.unwrap(context, wrapped),
            Err(_) => Err(WrapperError::Unavailable("it is away".into())),
        }
    }
}

#[test]
fn a_next_key_that_cannot_be_read_now_is_kept() {
    let data = TempDir::new().unwrap();
    let inner = Passphrase::new(WORDS, CHEAP).unwrap();
    let moody = Arc::new(Moody { inner, answers: AtomicUsize::new(usize::MAX) });
    let place =
        Place { store: RootStore::sealed(data.path(), Arc::clone(&moody) as Arc<dyn KeyWrapper>), data };
    place.init();
    let control = place.open();
    control.begin_root_rotation(&place.store.stage().unwrap()).unwrap();
    control.resume_root_rotation(&mut |_| {}).unwrap();
    let staged = fs::read(place.store.staged()).unwrap();
    // Never, and then for the first file alone.
    for answers in [0, 1] {
        moody.answers.store(answers, Ordering::SeqCst);
        let refused = place.store.rotate(&control, &mut |_| {}).unwrap_err();
        assert!(refused.to_string().contains("it is away"), "{refused}");
        moody.answers.store(answers, Ordering::SeqCst);
        let refused = place.store.unlock(&place.database()).unwrap_err();
        assert!(refused.to_string().contains("it is away"), "{refused}");
        assert_eq!(fs::read(place.store.staged()).unwrap(), staged);
    }
    moody.answers.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(place.store.rotate(&control, &mut |_| {}).unwrap().generation, 3);
    drop(control);
    assert_eq!(keys(&place.open()).len(), 2);
}

#[test]
fn behind_a_symbolic_link_the_file_itself_is_replaced() {
    let (data, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (link, real) = (data.path().join("root.key"), elsewhere.path().join("kept"));
    let old = RootStore::file(&real).create().unwrap();
    symlink(&real, &link).unwrap();
    let place = Place { store: RootStore::file(&link), data };
    drop(Control::create(&place.database(), &old, ControlOptions::default()).unwrap());
    let control = place.open();
    place.store.rotate(&control, &mut |_| {}).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let new = RootStore::file(&real).read().unwrap();
    assert!(control.is_root(&new) && new.expose() != old.expose());
    assert_eq!(place.files(), ["root.key"]);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn what_a_replaced_or_removed_file_held_is_overwritten() {
    for place in Place::all() {
        place.init();
        let control = place.open();
        let kept = place.data.path().join("kept");
        for removed in [false, true] {
            let mut old = fs::File::open(place.store.path()).unwrap();
            if removed {
                place.store.remove().unwrap();
            } else {
                place.store.rotate(&control, &mut |_| {}).unwrap();
                fs::hard_link(place.store.path(), &kept).unwrap();
                let content = fs::read(&kept).unwrap();
                place.store.rotate(&control, &mut |_| {}).unwrap();
                assert_eq!(fs::read(&kept).unwrap(), content, "another name keeps what it names");
            }
            let mut left = Vec::new();
            old.read_to_end(&mut left).unwrap();
            assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn a_half_written_next_key_does_no_harm() {
    for place in Place::all() {
        place.init();
        let staged = place.store.staged();
        fs::write(&staged, "half").unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
        let control = place.open();
        assert_eq!(place.store.rotate(&control, &mut |_| {}).unwrap().generation, 2);
        drop(control);
        place.open();
    }
}

#[test]
fn a_wrong_passphrase_and_a_damaged_seal_say_so() {
    let [_, place] = Place::all();
    place.init();
    let provider = RootStore::provider_of(place.data.path()).unwrap().unwrap();
    let wrong = Passphrase::again("correct horse battery stable", &provider).unwrap();
    let refused = RootStore::sealed(place.data.path(), Arc::new(wrong)).read().unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("the passphrase is not the one"), "{said}");
    assert!(ControlError::from(refused).is_configuration());

    let seal = place.data.path().join("root.seal");
    let text = fs::read_to_string(&seal).unwrap();
    assert!(!text.contains("horse"), "{text}");
    for damaged in [text.replace("\"format\":1", "\"format\":2"), text.replace("salt", "sald"), "{}".into()] {
        fs::write(&seal, damaged).unwrap();
        let refused = place.store.read().unwrap_err();
        assert!(matches!(refused, RootKeyError::BadSeal { .. }), "{refused}");
    }
    let position = text.find("\"wrapped\":\"").unwrap() + 40;
    let mut bytes = text.into_bytes();
    bytes[position] = if bytes[position] == b'0' { b'1' } else { b'0' };
    fs::write(&seal, bytes).unwrap();
    assert!(place.store.read().is_err());
}

#[test]
fn a_file_is_never_overwritten() {
    for place in Place::all() {
        place.init();
        let key = place.store.read().unwrap();
        assert!(matches!(place.store.create().unwrap_err(), RootKeyError::Exists { .. }));
        assert!(matches!(place.store.save(&Key::random()).unwrap_err(), RootKeyError::Exists { .. }));
        assert_eq!(place.store.read().unwrap().expose(), key.expose());
        let mode = fs::metadata(place.store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
