//! The cache, and what a child that misbehaves comes to.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use sepal_database::sealing::Key;

use super::{CodeCache, CodeVault, CompileError, KeyVault, child::run};

fn cache(folder: &Path, key: u8, most_bytes: u64) -> CodeCache {
    let vault: Arc<dyn CodeVault> = Arc::new(KeyVault::new(Key::from_bytes([key; 32])));
    CodeCache::open(folder.join("code"), vault, most_bytes).unwrap()
}

#[test]
fn machine_code_is_kept_sealed_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let kept = cache(folder.path(), 1, CodeCache::DEFAULT_BYTES);
    kept.put("one", b"machine code").unwrap();
    assert_eq!(kept.get("one").unwrap(), b"machine code");
    let path = folder.path().join("code/one");
    let sealed = fs::read(&path).unwrap();
    assert!(!sealed.windows(7).any(|window| window == b"machine"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    fs::copy(&path, folder.path().join("code/two")).unwrap();
    assert!(kept.get("two").is_none(), "another name");
    assert!(cache(folder.path(), 2, CodeCache::DEFAULT_BYTES).get("one").is_none(), "another key");
    let mut changed = sealed;
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&path, changed).unwrap();
    assert!(kept.get("one").is_none(), "a changed bit");
}

#[test]
fn the_folder_stays_within_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let kept = cache(folder.path(), 1, 250);
    for name in ["a", "b", "c"] {
        kept.put(name, &[0; 100]).unwrap();
    }
    assert!(kept.get("c").is_some(), "what was just written stays");
    assert_eq!(fs::read_dir(folder.path().join("code")).unwrap().count(), 1);
}

fn shell(script: &str) -> Result<Vec<u8>, CompileError> {
    let arguments = ["-c".into(), script.into()];
    run(Path::new("/bin/sh"), &arguments, &[7; 300_000], Duration::from_secs(60))
}

#[test]
fn the_child_answers_on_its_output() {
    assert_eq!(shell("exec cat").unwrap(), [7; 300_000]);
}

#[test]
fn a_child_that_fails_says_why() {
    let rejected = shell("echo 'it is no component' >&2; exit 1").unwrap_err();
    assert_eq!(rejected, CompileError::Rejected("it is no component\n".to_owned()));
    assert!(matches!(shell("exit 0").unwrap_err(), CompileError::Died(_)), "nothing written");
    assert!(matches!(shell("cat >/dev/null; kill -ABRT $$").unwrap_err(), CompileError::Died(_)));
    assert_eq!(shell("kill -XCPU $$").unwrap_err(), CompileError::TooSlow);
    let missing = run(Path::new("/no/such/program"), &[], &[], Duration::from_secs(1)).unwrap_err();
    assert!(matches!(missing, CompileError::Unavailable(_)));
}

#[test]
fn a_child_that_does_not_end_is_ended() {
    let arguments = ["-c".into(), "exec sleep 1000".into()];
    let error = run(Path::new("/bin/sh"), &arguments, &[7; 300_000], Duration::from_millis(50)).unwrap_err();
    assert_eq!(error, CompileError::TooSlow);
}
