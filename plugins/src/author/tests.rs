//! Projects as `new` makes them, and keys as `keygen` does. Building needs toolchains: the tutorial's test does that.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::manifest::Manifest;

const ALL: [(Language, Kind, &str); 4] = [
    (Language::Rust, Kind::Sink, "src/lib.rs"),
    (Language::Rust, Kind::Resolver, "src/lib.rs"),
    (Language::Python, Kind::Sink, "app.py"),
    (Language::JavaScript, Kind::Sink, "app.js"),
];

fn manifest(directory: &Path) -> Manifest {
    super::build::manifest_of(directory).unwrap()
}

#[test]
fn a_new_project_has_a_manifest_that_holds_and_no_placeholder_left() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (language, kind, source)) in ALL.into_iter().enumerate() {
        let directory = folder.path().join(number.to_string());
        new_project(&directory, "acme/my-hook", language, kind).unwrap();
        assert_eq!(manifest(&directory).plugin.name, "acme/my-hook");
        for name in ["plugin.toml", "README.md", ".gitignore", source] {
            let text = fs::read_to_string(directory.join(name)).unwrap();
            assert!(!text.contains("{{"), "{language} {name}");
        }
        let cases: Vec<_> = fs::read_dir(directory.join("cases")).unwrap().collect();
        assert_eq!(cases.len(), 1);
        let interface = match language {
            Language::Rust => "sepal-plugin/wit/plugin.wit",
            Language::Python | Language::JavaScript => "wit/plugin.wit",
        };
        let frozen = include_str!("../../../sdk/wit/v0.1/plugin.wit");
        assert_eq!(fs::read_to_string(directory.join(interface)).unwrap(), frozen);
    }
}

#[test]
fn nothing_is_overwritten_and_names_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let there = new_project(folder.path(), "hook", Language::Rust, Kind::Sink).unwrap_err();
    assert!(there.to_string().contains("is there already"), "{there}");
    for name in ["", "Hook", "1hook", "a/b/c", "../up", "a b", "/x"] {
        let directory = folder.path().join("new");
        let error = new_project(&directory, name, Language::Rust, Kind::Sink).unwrap_err();
        assert!(error.to_string().contains("cannot name a plugin"), "{name}: {error}");
        assert!(!directory.exists());
    }
    let none = new_project(&folder.path().join("new"), "hook", Language::Python, Kind::Resolver).unwrap_err();
    assert!(none.to_string().contains("--lang rust"), "{none}");
}

#[test]
fn a_key_is_the_owners_and_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let public = keygen(&path).unwrap();
    assert!(public.starts_with("ed25519:"), "{public}");
    assert_eq!(fs::read_to_string(folder.path().join("key.pub")).unwrap().trim(), public);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(keygen(&path), Err(AuthorError::File { .. })));
}

#[test]
fn a_bundled_plugin_can_be_signed_and_a_bare_component_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    keygen(&key).unwrap();
    let component = folder.path().join("webhook.wasm");
    fs::write(&component, crate::bundled::component("webhook").unwrap()).unwrap();
    let first = fs::read_to_string(sign(&component, &key).unwrap()).unwrap();
    assert_eq!(sign(&component, &key).unwrap(), folder.path().join("webhook.wasm.sig"));
    assert_eq!(fs::read_to_string(folder.path().join("webhook.wasm.sig")).unwrap(), first);
    fs::write(&component, crate::manifest_section::COMPONENT_HEADER).unwrap();
    assert!(matches!(sign(&component, &key), Err(AuthorError::Package(_))));
    fs::write(&key, "no key").unwrap();
    assert!(sign(&component, &key).unwrap_err().to_string().contains("keygen"));
}
