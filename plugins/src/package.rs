//! A plugin as a file: a WASM component with its manifest in it.
//!
//! ```text
//! name-1.2.3.wasm := component | custom section "sepal:manifest" (canonical JSON), anywhere at the top level, once
//! name-1.2.3.wasm.sig := ed25519 over "sepal-plugin-v1\0" | sha256(all bytes of the .wasm)
//! ```
//! `runtime` reads what tenants upload, `sepal plugin pack` writes it. Nothing here compiles or runs anything; machine
//! code is refused whoever brings it.

use std::borrow::Cow;

pub use sepal_database::sealing::hex;
use sepal_database::{
    connector::{Fault, FaultKind, PluginFacts, PluginKind, Tier},
    sealing,
};
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::Engine;

use crate::{
    call::ComponentHash,
    manifest::{ConfigSchema, MAX_MANIFEST_BYTES, Manifest, ManifestError, World},
};

/// The custom section's name.
pub const SECTION: &str = "sepal:manifest";

/// Python guests have 18 MB, StarlingMonkey's 13 MB.
pub const MAX_COMPONENT_BYTES: usize = 32 << 20;

/// What a signature covers begins with this.
pub const SIGNING_CONTEXT: &[u8] = b"sepal-plugin-v1\0";

/// A component must not make the list of its imports a burden.
const MAX_NAMES: usize = 1000;

/// The WASI packages that are linked, with nothing behind them.
const WASI: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// A component that may be compiled.
#[derive(Debug)]
pub struct Package {
    pub manifest: Manifest,
    pub schema: ConfigSchema,
    pub world: World,
    pub hash: ComponentHash,
    /// Of the whole file.
    pub bytes: u64,
    /// What the component imports, by name: `sepal:plugin/http@0.1.0`, `wasi:io/streams@0.2.6`.
    pub imports: Vec<String>,
}

/// Why a file is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("the file has {bytes} bytes; {MAX_COMPONENT_BYTES} is the most a plugin may have")]
    TooLarge { bytes: usize },
    #[error(
        "this is machine code, not WASM: upload the component that the compiler of its language gave, this database \
         compiles it itself"
    )]
    MachineCode,
    #[error(
        "this is a core module, not a component: build for wasm32-wasip2, or run `wasm-tools component new`"
    )]
    CoreModule,
    #[error("this is not a WASM component: {0}")]
    Unreadable(String),
    #[error("the component has no section {SECTION:?}: run `sepal plugin pack`")]
    NoManifest,
    #[error("the component has the section {SECTION:?} twice: pack the component as the compiler gave it")]
    TwoManifests,
    #[error("the manifest is wrong: {0}")]
    Manifest(#[from] ManifestError),
    #[error("the component imports {names}, which this host does not provide; {advice}")]
    Imports { names: String, advice: &'static str },
    #[error("{0}")]
    Exports(String),
}

impl Package {
    /// Reads and checks a component with its manifest.
    pub fn read(component: &[u8]) -> Result<Self, PackageError> {
        let outline = Outline::read(component)?;
        let [manifest] = outline.manifests[..] else {
            return Err(match outline.manifests.len() {
                0 => PackageError::NoManifest,
                _ => PackageError::TwoManifests,
            });
        };
        let manifest = Manifest::from_json(manifest)?;
        let schema = manifest.schema()?;
        let world = outline.world(&manifest)?;
        let hash = sealing::sha256(component);
        let imports = outline.imports.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self { manifest, schema, world, hash, bytes: component.len() as u64, imports })
    }

    /// What is kept and shown of it.
    pub fn facts(&self) -> PluginFacts {
        let about = &self.manifest.plugin;
        let sink = self.manifest.sink.as_ref();
        let batch = sink.map(|sink| sink.batch).unwrap_or_default();
        PluginFacts {
            name: about.name.clone(),
            version: about.version.clone(),
            kind: about.kind,
            api: about.api.clone(),
            summary: about.summary.clone(),
            license: about.license.clone(),
            sha256: hex(&self.hash),
            bytes: self.bytes,
            encodings: sink.map(|sink| sink.encodings.clone()).unwrap_or_default(),
            envelopes: sink.map(|sink| sink.envelopes.clone()).unwrap_or_default(),
            tier: sink.map_or(Tier::AtLeastOnce, |sink| sink.delivery),
            session: self.manifest.is_session(),
            config_schema: self.manifest.config.schema.to_string(),
            secrets: self.manifest.secrets.keys().cloned().collect(),
            capabilities: self.manifest.capability_lines(),
            max_rows: batch.max_rows,
            max_bytes: u32::try_from(batch.max_bytes.0).unwrap_or(u32::MAX),
            linger_ms: batch.linger.0,
        }
    }

    /// About what it takes in memory: the manifest is kept as text's tree, the schema as what validates.
    pub fn weight_bytes(&self) -> u64 {
        const TREE_PER_BYTE: u64 = 16;
        self.manifest.to_json().len() as u64 * TREE_PER_BYTE + self.schema.weight_bytes()
    }

    /// Whether the component itself reads plaintext; the manifest may ask for it and not use it.
    pub fn reveals(&self) -> bool {
        self.world == World::Sink { reveal: true }
    }
}

/// `component` with its manifest appended: what is uploaded.
///
/// Errors: it is no component, has a manifest already, or does not do what the manifest says.
pub fn pack(component: &[u8], manifest: &Manifest) -> Result<Vec<u8>, PackageError> {
    let outline = Outline::read(component)?;
    if !outline.manifests.is_empty() {
        return Err(PackageError::TwoManifests);
    }
    outline.world(manifest)?;
    let mut packed = component.to_vec();
    let section = CustomSection { name: Cow::Borrowed(SECTION), data: Cow::Owned(manifest.to_json()) };
    section.append_to_component(&mut packed);
    if packed.len() > MAX_COMPONENT_BYTES {
        return Err(PackageError::TooLarge { bytes: packed.len() });
    }
    Ok(packed)
}

impl From<PackageError> for Fault {
    fn from(error: PackageError) -> Self {
        Self::new(FaultKind::Misconfigured, error.to_string()).with_code("plugin.package")
    }
}

/// What a key signs and a signature is checked against.
pub fn signing_message(hash: &ComponentHash) -> Vec<u8> {
    [SIGNING_CONTEXT, hash].concat()
}

/// The top level of a component: what matters before anything of it is trusted.
#[derive(Default)]
struct Outline<'a> {
    manifests: Vec<&'a [u8]>,
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
}

impl<'a> Outline<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, PackageError> {
        if bytes.len() > MAX_COMPONENT_BYTES {
            return Err(PackageError::TooLarge { bytes: bytes.len() });
        }
        if Engine::detect_precompiled(bytes).is_some() {
            return Err(PackageError::MachineCode);
        }
        let mut outline = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(unreadable)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(PackageError::CoreModule);
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                payload if depth == 0 => outline.note(payload)?,
                _ => {}
            }
        }
        Ok(outline)
    }

    fn note(&mut self, payload: Payload<'a>) -> Result<(), PackageError> {
        match payload {
            Payload::CustomSection(section) if section.name() == SECTION => {
                if section.data().len() > MAX_MANIFEST_BYTES {
                    let problem = format!("it has {} bytes", section.data().len());
                    return Err(ManifestError::new("the manifest", problem).into());
                }
                self.manifests.push(section.data());
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    self.imports.push(import.map_err(unreadable)?.name.name);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.exports.push(export.map_err(unreadable)?.name.name);
                }
            }
            _ => {}
        }
        if self.imports.len() + self.exports.len() > MAX_NAMES {
            return Err(PackageError::Unreadable(format!(
                "it has more than {MAX_NAMES} imports and exports"
            )));
        }
        Ok(())
    }

    /// The world it fits, which has to be the manifest's.
    fn world(&self, manifest: &Manifest) -> Result<World, PackageError> {
        let kind = manifest.plugin.kind;
        let wanted = match kind {
            PluginKind::Sink => "sink",
            PluginKind::Resolver => "resolver",
        };
        if !self.exports.iter().any(|name| ours(name) == Some(wanted)) {
            let exported =
                if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
            let problem = format!(
                "the manifest says that this is a {wanted}, so the component has to export \
                 sepal:plugin/{wanted}@0.1.0; it exports {exported}"
            );
            return Err(PackageError::Exports(problem));
        }
        let foreign: Vec<&str> =
            self.imports.iter().copied().filter(|name| !is_provided(name, kind)).collect();
        if !foreign.is_empty() {
            let http = foreign.iter().any(|name| name.starts_with("wasi:http/"));
            let advice =
                if http { "requests go through sepal:plugin/http" } else { "build against sdk/wit/v0.1" };
            return Err(PackageError::Imports { names: foreign.join(", "), advice });
        }
        let reveal = self.imports.iter().any(|name| ours(name) == Some("reveal"));
        if reveal && !manifest.capabilities.reveal {
            let advice = "or rather only with [capabilities] reveal = true in its manifest";
            return Err(PackageError::Imports { names: "sepal:plugin/reveal".to_owned(), advice });
        }
        Ok(match kind {
            PluginKind::Sink => World::Sink { reveal },
            PluginKind::Resolver => World::Resolver,
        })
    }
}

fn unreadable(error: wasmparser::BinaryReaderError) -> PackageError {
    PackageError::Unreadable(error.to_string())
}

/// `http` of `sepal:plugin/http@0.1.3`.
fn ours(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix("sepal:plugin/")?.split_once('@')?;
    version.strip_prefix("0.1.").map(|_| interface)
}

/// Toolchains import all of WASI, used or not; what is linked leads nowhere.
pub(crate) fn is_provided(name: &str, kind: PluginKind) -> bool {
    if let Some(rest) = name.strip_prefix("wasi:") {
        let (package, version) = rest.split_once('/').unwrap_or((rest, ""));
        return WASI.contains(&package) && version.contains("@0.2.");
    }
    match ours(name) {
        Some("types" | "secrets" | "http" | "telemetry") => true,
        Some("state" | "reveal") => kind == PluginKind::Sink,
        _ => false,
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use wasm_encoder::{Component, Module};

    use super::*;

    fn manifest() -> Manifest {
        Manifest::from_json(
            br#"{"plugin":{"name":"a/b","version":"1.0.0","kind":"sink","api":"sepal:plugin@0.1.0"},
                "sink":{"encodings":["ndjson"],"envelopes":["append"]}}"#,
        )
        .unwrap()
    }

    fn read(bytes: &[u8]) -> PackageError {
        Package::read(bytes).unwrap_err()
    }

    #[test]
    fn what_is_no_component_is_named() {
        assert!(matches!(read(&Module::new().finish()), PackageError::CoreModule));
        assert!(matches!(read(b"#!/bin/sh"), PackageError::Unreadable(_)));
        assert!(matches!(read(b""), PackageError::Unreadable(_)));
        assert!(matches!(read(&Component::new().finish()), PackageError::NoManifest));
        let large = vec![0; MAX_COMPONENT_BYTES + 1];
        assert!(matches!(read(&large), PackageError::TooLarge { .. }));
    }

    #[test]
    fn a_manifest_counts_at_the_top_and_once() {
        let section = CustomSection { name: SECTION.into(), data: Cow::Owned(manifest().to_json()) };
        let mut inner = Component::new();
        inner.section(&section);
        let mut nested = Component::new();
        nested.section(&wasm_encoder::NestedComponentSection(&inner));
        assert!(matches!(read(&nested.finish()), PackageError::NoManifest));

        let mut twice = Component::new();
        twice.section(&section).section(&section);
        assert!(matches!(read(&twice.finish()), PackageError::TwoManifests));

        let mut once = Component::new();
        once.section(&section);
        let PackageError::Exports(problem) = read(&once.finish()) else { panic!("it exports nothing") };
        assert!(problem.contains("sepal:plugin/sink@0.1.0"), "{problem}");
    }

    #[test]
    fn imports_are_ours_or_wasi() {
        for name in ["wasi:io/streams@0.2.6", "wasi:cli/environment@0.2.12", "sepal:plugin/http@0.1.0"] {
            assert!(is_provided(name, PluginKind::Resolver), "{name}");
        }
        for name in [
            "sepal:plugin/http@0.2.0",
            "sepal:plugin/state@0.1.0",
            "wasi:http/types@0.2.10",
            "env",
            "wasi:io",
        ] {
            assert!(!is_provided(name, PluginKind::Resolver), "{name}");
        }
        assert!(is_provided("sepal:plugin/state@0.1.0", PluginKind::Sink));
    }

    #[test]
    fn a_signature_covers_the_hash_under_its_own_name() {
        let message = signing_message(&[7; 32]);
        assert_eq!(&message[..16], b"sepal-plugin-v1\0");
        assert_eq!(&message[16..], [7; 32]);
        assert_eq!(hex(&[0, 0xab, 9]), "00ab09");
    }
}
