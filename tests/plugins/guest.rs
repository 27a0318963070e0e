//! The hostile components: built by cargo, packed here, installed as a tenant does.
//!
//! The packer is the test's own: what `sepal plugin pack` would refuse to make has to be made too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::server::{repository, run_within};

const TARGET: &str = "wasm32-wasip2";
/// The first time, with all of the guests' dependencies.
const LIMIT: Duration = Duration::from_secs(600);
/// The name of the section that holds a plugin's manifest.
const SECTION: &[u8] = b"sepal:manifest";
/// Within the component; see `hostile/sink/src/lib.rs`.
const BUILD: &[u8] = b"hostile-build-01";

/// The component that does as it is told.
pub fn hostile() -> Vec<u8> {
    built("hostile_sink.wasm")
}

/// The component with too large a table.
pub fn table() -> Vec<u8> {
    built("hostile_table.wasm")
}

/// [`hostile`] as its next version: the same code, told apart by what it says of itself.
pub fn rebuilt(component: &[u8], build: &[u8; BUILD.len()]) -> Vec<u8> {
    let places: Vec<usize> = component
        .windows(BUILD.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == BUILD)
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else { panic!("{} places hold the build's name", places.len()) };
    let mut changed = component.to_vec();
    changed[at..at + BUILD.len()].copy_from_slice(build);
    changed
}

fn built(file: &str) -> Vec<u8> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(build).join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cargo sees for itself whether there is anything to do, and locks the folder against other test processes.
fn build() -> PathBuf {
    let workspace = repository().join("tests/plugins/hostile");
    let target =
        PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/sepal/target/test-guests");
    let arguments = ["build", "--release", "--locked", "--target", TARGET];
    let (status, said) =
        run_within(LIMIT, cargo(&workspace, &target, &[&arguments[..], &["--offline"]].concat()));
    if !status.success() {
        let (status, said_then) = run_within(LIMIT, cargo(&workspace, &target, &arguments));
        assert!(status.success(), "the hostile plugins do not build: {status}\n{said}\n{said_then}");
    }
    target.join(TARGET).join("release")
}

fn cargo(workspace: &Path, target: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the build of the tests was told is no business of guests: linkers, flags for x86, wrappers.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let outer = text.starts_with("CARGO_") || text.starts_with("RUSTC_") || text.contains("RUSTFLAGS");
        if outer && !["CARGO_HOME", "CARGO_TERM_COLOR"].contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", "").env("CARGO_TARGET_DIR", target);
    command.current_dir(workspace).args(arguments);
    command
}

/// What [`hostile`] says of itself: limits that end it soon, and every host that is named.
pub fn manifest(version: &str, hosts: &[String]) -> Value {
    let mut http = vec!["{config.url}".to_owned()];
    http.extend_from_slice(hosts);
    json!({
        "plugin": {
            "name": "test/hostile", "version": version, "kind": "sink", "api": "sepal:plugin@0.1.0",
            "summary": "Does what no plugin should", "license": "Apache-2.0",
        },
        "sink": {
            "encodings": ["ndjson"], "envelopes": ["append"], "delivery": "at-least-once", "lifecycle": "stateless",
            "batch": { "max_rows": 500, "max_bytes": 1 << 20, "linger": 50 },
        },
        "config": { "schema": {
            "type": "object", "additionalProperties": false, "required": ["mode", "url"],
            "properties": {
                "mode": { "type": "string" }, "url": { "type": "string" }, "other": { "type": "string" },
                "forbidden_port": { "type": "integer" },
                "token": { "sensitive": true }, "key": { "sensitive": true }, "spare": { "sensitive": true },
            },
        } },
        "secrets": {
            "token": { "use": ["http-header"], "required": false },
            "key": { "use": ["http-body"], "required": false },
            "spare": { "use": ["http-header"], "required": false },
        },
        "capabilities": { "http": http },
        "limits": { "cpu_per_call": 500, "wall_per_call": 5000 },
    })
}

/// A component with a section of this name at its end.
pub fn with_section(component: &[u8], name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut body = leb128(name.len());
    body.extend_from_slice(name);
    body.extend_from_slice(content);
    [component, &[0], &leb128(body.len()), &body].concat()
}

/// A component with its manifest.
pub fn pack(component: &[u8], manifest: &Value) -> Vec<u8> {
    with_section(component, SECTION, manifest.to_string().as_bytes())
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        out.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return out;
        }
    }
}

pub async fn install(client: &Client, name: &str, packed: &[u8]) {
    let created = client.execute(&format!("CREATE PLUGIN {name} FROM $1"), &[&packed]).await;
    created.unwrap_or_else(|error| panic!("{name}: {error:?}"));
}
