//! The cache, who compiles next, and what a child that misbehaves comes to. What a child may not do is tried in
//! processes of their own.

mod confined;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use sepal_database::{
    TenantId,
    sealing::{self, Key},
};

use super::{
    CodeCache, CodeVault, CompileError, Compiler, KeyVault, cache::file_name, child::run, line::MOST_WAITING,
};
use crate::{call::Code, manifest::World};

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

#[test]
fn who_keeps_too_much_loses_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let kept = cache(folder.path(), 1, 1000);
    let name = |owner: &str, number: usize| file_name(owner, &number.to_string(), "machine");
    kept.put(&name("one", 0), &[0; 100]).unwrap();
    for number in 0..20 {
        kept.put(&name("other", number), &[0; 100]).unwrap();
    }
    assert!(kept.get(&name("one", 0)).is_some(), "the oldest file of all");
    assert!(kept.get(&name("other", 19)).is_some(), "what was just written stays");
    assert!(kept.get(&name("other", 0)).is_none());
}

/// Compiles with `script`, in whose words `@` is the folder.
fn compiler(script: &str, folder: &Path) -> Arc<Compiler> {
    let script = script.replace('@', folder.to_str().unwrap());
    let arguments = vec!["-c".into(), script.into()];
    Arc::new(Compiler::in_children_of("/bin/sh".into(), arguments, None).unwrap())
}

async fn code_for(compiler: Arc<Compiler>, tenant: u8, name: &'static str) -> Result<Code, CompileError> {
    let hash = sealing::sha256(name.as_bytes());
    compiler.code_for(TenantId([tenant; 16]), hash, World::Resolver, name.as_bytes().into()).await
}

#[tokio::test]
async fn tenants_take_turns_and_ours_wait_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        name=$(cat)
        echo "$name" >> @/order
        if [ "$name" = slow ]; then until [ -e @/go ]; do sleep 0.01; done; fi
        echo code"#;
    let compiler = compiler(script, folder.path());
    let asked = [(1, "slow"), (1, "second"), (1, "third"), (1, "fourth"), (1, "fifth"), (2, "other")];
    assert_eq!(asked.iter().filter(|(tenant, _)| *tenant == 1).count(), MOST_WAITING);
    let mut waiting = asked.map(|(tenant, name)| Box::pin(code_for(Arc::clone(&compiler), tenant, name)));
    for future in &mut waiting {
        assert!(futures::poll!(future).is_pending());
    }
    let sixth = code_for(Arc::clone(&compiler), 1, "sixth").await;
    assert_eq!(sixth.unwrap_err(), CompileError::Busy { waiting: MOST_WAITING });
    compiler.code(sealing::sha256(b"ours"), World::Resolver, b"ours".as_slice().into()).await.unwrap();

    fs::write(folder.path().join("go"), "").unwrap();
    for compiled in futures::future::join_all(waiting).await {
        assert_eq!(&*compiled.unwrap().machine_code, b"code\n");
    }
    let order = fs::read_to_string(folder.path().join("order")).unwrap();
    let order: Vec<&str> = order.lines().filter(|name| *name != "ours").collect();
    assert_eq!(order, ["slow", "other", "second", "third", "fourth", "fifth"]);
    code_for(compiler, 1, "sixth").await.unwrap();
}

#[tokio::test]
async fn what_did_not_compile_is_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = "cat > /dev/null; echo x >> @/tries; echo 'it is no component' >&2; exit 1";
    let compiler = compiler(script, folder.path());
    let rejected = CompileError::Rejected("it is no component\n".to_owned());
    for tenant in [1, 1, 2] {
        assert_eq!(code_for(Arc::clone(&compiler), tenant, "bad").await.unwrap_err(), rejected);
    }
    assert_eq!(fs::read_to_string(folder.path().join("tries")).unwrap(), "x\n");
}

#[tokio::test]
async fn a_compiler_that_cannot_run_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = "cat > /dev/null; if [ -e @/tried ]; then echo code; else : > @/tried; exit 3; fi";
    let compiler = compiler(script, folder.path());
    let unavailable = code_for(Arc::clone(&compiler), 1, "good").await.unwrap_err();
    assert!(matches!(unavailable, CompileError::Unavailable(_)), "{unavailable}");
    code_for(compiler, 1, "good").await.unwrap();
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
