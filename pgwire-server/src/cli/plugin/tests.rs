//! Arguments that hold secrets are refused, and a watch sees what matters.

use std::fs;

use super::{
    run::{Place, place},
    upload::quoted,
    watch::snapshot,
};

#[test]
fn a_secret_is_named_and_never_given() {
    assert_eq!(place("token=@key.txt"), Ok(("token".to_owned(), Place::File("key.txt".into()))));
    assert_eq!(place("token=@-"), Ok(("token".to_owned(), Place::Stdin)));
    assert_eq!(place("token=env:TOKEN"), Ok(("token".to_owned(), Place::Variable("TOKEN".to_owned()))));
    for wrong in ["token", "token=s3cret", "=@file", "token=@", "token=env:", "token="] {
        let error = place(wrong).unwrap_err();
        assert!(error.contains("NAME=@FILE") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_watch_sees_sources_and_not_what_is_made_of_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("src")).unwrap();
    fs::create_dir_all(folder.path().join("target/debug")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), "a").unwrap();
    let first = snapshot(folder.path()).unwrap();
    assert_eq!(first.len(), 1);
    fs::write(folder.path().join("target/debug/x"), "x").unwrap();
    fs::write(folder.path().join("my-hook-0.1.0.wasm"), "x").unwrap();
    fs::write(folder.path().join("Cargo.lock"), "x").unwrap();
    assert_eq!(snapshot(folder.path()).unwrap(), first);
    fs::write(folder.path().join("src/lib.rs"), "ab").unwrap();
    assert_ne!(snapshot(folder.path()).unwrap(), first);
}

#[test]
fn a_plugins_name_is_one_identifier() {
    assert_eq!(quoted("my_hook"), "\"my_hook\"");
    assert_eq!(quoted("a\" b"), "\"a\"\" b\"");
}
