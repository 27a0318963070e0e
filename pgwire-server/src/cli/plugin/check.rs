//! `sepal plugin check`: what a plugin asks for, imports and weighs, before anybody is asked to trust it.

use std::{sync::Arc, time::Instant};

use clap::Args;
use sepal_plugins::{kit::Specimen, manifest::EffectiveLimits, package::hex};
use serde::Serialize;

use super::{
    failed,
    source::{Source, compiler},
};
use crate::cli::{failure::Failure, flags::JsonFlag, output, runtime};

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Facts {
    name: String,
    version: String,
    kind: &'static str,
    api: String,
    capabilities: Vec<String>,
    secrets: Vec<String>,
    imports: Vec<String>,
    sha256: String,
    bytes: usize,
    memory_bytes: u64,
    cpu_per_call_ms: u32,
    compile_ms: u64,
    machine_code_bytes: usize,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let package = self.source.package()?;
        let compiler = Arc::new(compiler()?);
        let begun = Instant::now();
        let component = Arc::clone(&package.component);
        let code =
            runtime()?.block_on(compiler.code(package.hash, package.world, component)).map_err(failed)?;
        let facts = facts(&package, milliseconds(begun), code.machine_code.len());
        if self.json.json {
            return output::json(&facts);
        }
        output::rows(&["plugin", facts.name.as_str()], &lines(&facts), "")
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn facts(package: &Specimen, compile_ms: u64, machine_code_bytes: usize) -> Facts {
    let about = &package.manifest.plugin;
    let limits = EffectiveLimits::effective(&package.manifest, &EffectiveLimits::MOST);
    Facts {
        name: about.name.clone(),
        version: about.version.clone(),
        kind: if package.manifest.sink.is_some() { "sink" } else { "resolver" },
        api: about.api.clone(),
        capabilities: package.manifest.capability_lines(),
        secrets: package.manifest.secrets.keys().cloned().collect(),
        imports: package.imports.clone(),
        sha256: hex(&package.hash),
        bytes: package.component.len(),
        memory_bytes: limits.memory_bytes,
        cpu_per_call_ms: limits.cpu_per_call_ms,
        compile_ms,
        machine_code_bytes,
    }
}

fn lines(facts: &Facts) -> Vec<Vec<String>> {
    let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let size = |bytes: usize| format!("{bytes} bytes");
    let lines = [
        ("version", facts.version.clone()),
        ("kind", facts.kind.to_owned()),
        ("api", facts.api.clone()),
        ("asks for", list(&facts.capabilities)),
        ("secrets", list(&facts.secrets)),
        ("imports", list(&facts.imports)),
        ("memory", format!("{} MiB", facts.memory_bytes >> 20)),
        ("CPU per call", format!("{} ms", facts.cpu_per_call_ms)),
        ("component", size(facts.bytes)),
        ("sha256", facts.sha256.clone()),
        ("compiled in", format!("{} ms", facts.compile_ms)),
        ("machine code", size(facts.machine_code_bytes)),
    ];
    lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}
