//! What is refused before anything is asked.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;

fn transit(url: &str) -> Provider {
    Provider::Transit {
        url: url.into(),
        mount: "transit".into(),
        key: "sepal".into(),
        namespace: None,
        ca_file: None,
        token_file: None,
    }
}

fn secret(directory: &tempfile::TempDir, content: &str, mode: u32) -> Secret {
    let path = directory.path().join("secret");
    let _ = fs::remove_file(&path);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    Secret::File(path)
}

fn why(result: Result<Arc<dyn KeyWrapper>, WrapperError>) -> String {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn secrets_are_private_files_of_one_line() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(*secret(&directory, "words and more\n", 0o600).read().unwrap(), "words and more");
    assert_eq!(*secret(&directory, "words\r\n", 0o400).read().unwrap(), "words");
    for (content, mode, said) in [
        ("words", 0o644, "chmod 600"),
        ("", 0o600, "it is empty"),
        (&"x".repeat(5000), 0o600, "4096 bytes at most"),
    ] {
        let refused = secret(&directory, content, mode).read().unwrap_err();
        assert!(refused.contains(said), "{refused}");
        assert!(refused.contains("secret"), "the file is named: {refused}");
        assert!(!refused.contains("words"), "the content is not: {refused}");
    }
    assert!(Secret::File("/nonexistent".into()).read().unwrap_err().contains("/nonexistent"));
    let held = Secret::Held(Arc::new(zeroize::Zeroizing::new("words".into())));
    assert!(!format!("{held:?}").contains("words"));
}

#[test]
fn a_token_does_not_go_over_the_network_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let token = secret(&directory, "hvs.token", 0o600);
    for url in
        ["http://vault.example", "ftp://localhost", "https://u:p@vault.example", "vault", "https://v/?a=b"]
    {
        let said = why(open(&transit(url), &token, Missing::Refuse));
        assert!(said.contains("is no URL of a transit engine"), "{url}: {said}");
    }
    for url in ["https://vault.example:8200", "http://127.0.0.1:8200", "http://[::1]:1/"] {
        assert!(open(&transit(url), &token, Missing::Refuse).is_ok(), "{url}");
    }
    for key in ["../x", "a/b", "", "a b", "a?b"] {
        let mut provider = transit("https://v");
        if let Provider::Transit { key: name, .. } = &mut provider {
            *name = key.into();
        }
        assert!(why(open(&provider, &token, Missing::Refuse)).contains("no name of a transit key"), "{key}");
    }
    // Nobody listens there.
    let nobody = open(&transit("http://127.0.0.1:1"), &token, Missing::Refuse).unwrap();
    assert!(matches!(nobody.wrap(b"c", b"s"), Err(WrapperError::Unavailable(_))));
}

#[test]
fn a_module_that_others_can_change_is_not_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let pin = secret(&directory, "1234", 0o600);
    let path = directory.path().join("module.so");
    fs::write(&path, "not a library").unwrap();
    let token =
        |module: PathBuf| Provider::Pkcs11 { module, token: "t".into(), key: "k".into(), pin_file: None };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(why(open(&token(path.clone()), &pin, Missing::Refuse)).contains("can change"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(why(open(&token(path.clone()), &pin, Missing::Refuse)).contains("is no PKCS#11 module"));
    assert!(why(open(&token("module.so".into()), &pin, Missing::Refuse)).contains("whole path"));
    assert!(why(open(&token("/nonexistent.so".into()), &pin, Missing::Refuse)).contains("not loaded"));
}

#[test]
fn a_tenants_provider_needs_its_own_secret() {
    let said = why(ServerWrappers.open(&transit("https://v")));
    assert!(said.contains("no file with its PIN or token"), "{said}");
}
