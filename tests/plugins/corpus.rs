//! Files that are no plugins, or lie about what they are: refused with a reason, at no cost for others.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{Scene, goes_on, guest, honest};
use crate::{http::Answer, pipeline_status::words};

/// What CREATE PLUGIN says to these bytes; `None` if it takes them.
async fn told(client: &Client, bytes: &[u8]) -> Option<String> {
    match client.execute("CREATE PLUGIN candidate FROM $1", &[&bytes]).await {
        Ok(_) => {
            client.batch_execute("DROP PLUGIN candidate").await.expect("DROP PLUGIN");
            None
        }
        Err(error) => {
            Some(words(error.as_db_error().unwrap_or_else(|| panic!("the connection broke: {error}"))))
        }
    }
}

/// The good component under a manifest with a change.
fn lying(component: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = guest::manifest("1.0.0", &[]);
    change(&mut manifest);
    guest::pack(component, &manifest)
}

/// The head of an ELF file as wasmtime marks machine code of a component (`ELFOSABI_WASMTIME`,
/// `EF_WASMTIME_COMPONENT`): 64 bits, little-endian, no sections.
fn machine_code() -> Vec<u8> {
    let mut head = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 200, 0];
    head.resize(16, 0);
    // Type REL, machine x86-64, version 1.
    head.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers, section headers.
    head.extend([0; 24]);
    // EF_WASMTIME_COMPONENT, then the sizes of this head and of headers that there are none of.
    head.extend([2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0]);
    assert_eq!(head.len(), 64);
    head
}

/// The component with the name of an import changed, wherever it stands.
fn importing(component: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut changed = component.to_vec();
    let mut found = 0;
    for at in 0..changed.len() - from.len() {
        if changed[at..].starts_with(from) {
            changed[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "the component does not import {:?}", String::from_utf8_lossy(from));
    changed
}

/// Name, file, and words of the refusal.
type Case = (&'static str, Vec<u8>, &'static str);

/// Files that are not what they should be.
fn files() -> Vec<Case> {
    let component = guest::hostile();
    let manifest = guest::manifest("1.0.0", &[]);
    let good = guest::pack(&component, &manifest);
    let manifest_text = manifest.to_string();
    let padding = vec![0; 33 << 20];
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    vec![
        ("nothing", Vec::new(), "not a WASM component"),
        ("a script", b"#!/bin/sh\nrm -rf /\n".to_vec(), "not a WASM component"),
        ("a core module", core_module.clone(), "core module"),
        (
            "a core module with a manifest",
            guest::with_section(&core_module, b"sepal:manifest", manifest_text.as_bytes()),
            "core module",
        ),
        ("machine code", machine_code(), "machine code"),
        ("the head of a component", good[..8].to_vec(), "sepal plugin pack"),
        ("half of a component", good[..good.len() / 2].to_vec(), "not a WASM component"),
        ("a component without its last byte", good[..good.len() - 1].to_vec(), "not a WASM component"),
        ("no manifest", component.clone(), "sepal plugin pack"),
        ("two manifests", guest::pack(&good, &manifest), "twice"),
        ("no JSON", guest::with_section(&component, b"sepal:manifest", b"{\"plugin\":"), "manifest"),
        (
            "foreign imports",
            guest::pack(
                &importing(&component, b"wasi:cli/environment@", b"evil:cli/environment@"),
                &manifest,
            ),
            "evil:cli/environment",
        ),
        ("33 MiB", guest::with_section(&good, b"padding", &padding), "32 MiB is the most"),
    ]
}

/// The component under manifests that are wrong, or not its own.
fn lies() -> Vec<Case> {
    let component = guest::hostile();
    vec![
        ("another kind", lying(&component, |m| m["plugin"]["kind"] = json!("resolver")), "manifest"),
        (
            "an export that is not there",
            lying(&component, |m| {
                m["plugin"]["kind"] = json!("resolver");
                m.as_object_mut().expect("an object").remove("sink");
            }),
            "has to export",
        ),
        (
            "another interface",
            lying(&component, |m| m["plugin"]["api"] = json!("sepal:plugin@9.0.0")),
            "plugin.api",
        ),
        (
            "more than there is",
            lying(&component, |m| m["limits"]["memory"] = json!(1_u64 << 40)),
            "limits.memory",
        ),
        ("sockets", lying(&component, |m| m["capabilities"]["sockets"] = json!(["*:5432"])), "sockets"),
        (
            "a host for all",
            lying(&component, |m| m["capabilities"]["http"] = json!(["https://*.com"])),
            "too wide",
        ),
        ("what nobody knows", lying(&component, |m| m["sink"]["turbo"] = json!(true)), "turbo"),
        (
            "a secret with a default",
            lying(&component, |m| m["config"]["schema"]["properties"]["token"]["default"] = json!("x")),
            "default",
        ),
        (
            "a schema that fetches",
            lying(&component, |m| {
                m["config"]["schema"]["properties"]["mode"] = json!({ "$ref": "http://127.0.0.1/schema" });
            }),
            "config.schema",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plugin_is_refused_with_a_reason() {
    let mut scene = Scene::start(|_| Answer::status(204)).await;
    honest(&scene.client, &scene.destination, "/honest").await;
    let mut wrong = Vec::new();
    for (name, file, reason) in files().into_iter().chain(lies()) {
        match told(&scene.client, &file).await {
            // XX000 is our own fault, whatever the file is.
            Some(told) if told.contains(reason) && !told.starts_with("XX") => {}
            other => wrong.push(format!("{name}: {other:?} instead of {reason:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    goes_on(&scene.client, &scene.destination, "/honest", 1).await;
    assert!(scene.server.is_running());
}

/// Bytes of a good component changed one at a time, most of them where its outline is: taken or refused, but never the
/// end of the connection or of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_harmless() {
    let mut scene = Scene::start(|_| Answer::status(204)).await;
    let good = guest::pack(&guest::hostile(), &guest::manifest("1.0.0", &[]));
    let manifest_at = good.len() - guest::manifest("1.0.0", &[]).to_string().len();
    let outline = (8..200).step_by(13);
    let middle = (1..6).map(|part| good.len() / 7 * part);
    let manifest = (manifest_at - 20..good.len()).step_by(131);
    let mut refused = 0;
    for at in outline.chain(middle).chain(manifest) {
        let mut changed = good.clone();
        changed[at] ^= 0x80;
        if let Some(told) = told(&scene.client, &changed).await {
            refused += 1;
            assert!(!told.starts_with("XX"), "byte {at}: {told}");
        }
    }
    assert!(refused > 10, "only {refused} changes were noticed");
    assert!(scene.server.is_running(), "{}", scene.server.log());
    assert_eq!(told(&scene.client, &good).await, None, "the good one is taken still");
}
