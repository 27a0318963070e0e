//! The plugin host of this process, as its settings want it.
//!
//! Called by `cli::process` when a server starts; `main` sends the two hidden commands of the process' own children here
//! before anything else happens. Decides nothing about plugins; that is behind `sepal_plugins`.

use std::{ffi::OsStr, num::NonZeroUsize, process::ExitCode, sync::Arc};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use sepal_database::{Key, connector::Connectors};
use sepal_plugins::{
    call::GuestHost,
    compile::{self, CodeCache, Compiler, KeyVault},
    egress::{Egress, EgressOptions, parse_networks},
    host::{HostOptions, LocalHost},
    manifest::EffectiveLimits,
    runtime::{Runtime, RuntimeOptions},
    sinks::Native,
    worker::{self, WorkerOptions, Workers},
};

use crate::config::{Config, PluginIsolation};

/// Where machine code of plugins is kept, sealed.
const CODE_FOLDER: &str = "plugin-code";
/// Domain of the key that seals it.
const CODE_DOMAIN: &str = "plugin machine code 1";

/// The work of a child of this process, if that is what it was started for. No thread may run yet.
pub fn child_main(first_argument: Option<&OsStr>) -> Option<ExitCode> {
    match first_argument?.to_str()? {
        worker::WORKER_ARGUMENT => Some(worker::child_main()),
        compile::CHILD_ARGUMENT => Some(compile::child_main()),
        _ => None,
    }
}

/// The connectors that `config` describes.
///
/// Errors: a setting that cannot be used, or a machine that cannot run plugins; said for the operator.
pub fn connectors(config: &Config, root_key: &Key) -> Result<Arc<dyn Connectors>, String> {
    let egress = EgressOptions {
        private_networks: parse_networks(&config.private_networks)
            .map_err(|why| format!("private_networks: {why}"))?,
        extra_roots: extra_roots(config)?,
        ..EgressOptions::default()
    };
    let egress = Arc::new(Egress::new(egress).map_err(|error| error.to_string())?);
    let vault = Arc::new(KeyVault::new(root_key.derive(CODE_DOMAIN, &[])));
    let folder = config.data.join(CODE_FOLDER);
    let cache = CodeCache::open(&folder, vault, CodeCache::DEFAULT_BYTES)
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let compiler = Compiler::in_children(Some(cache)).map_err(|error| error.to_string())?;
    let native = Native::new(Arc::clone(&egress) as _, config.sink_file_root.clone());
    let options = RuntimeOptions {
        host: host(config)?,
        compiler: Arc::new(compiler),
        egress,
        native,
        caps: EffectiveLimits::MOST,
    };
    let runtime = Runtime::new(options).map_err(|error| error.to_string())?;
    Ok(Arc::new(runtime))
}

fn host(config: &Config) -> Result<Arc<dyn GuestHost>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("plugins cannot run on this machine: {error}");
    match config.plugin_isolation {
        PluginIsolation::Process => {
            let options = WorkerOptions::default();
            Ok(Arc::new(Workers::new(options).map_err(|error| cannot(&error))?))
        }
        PluginIsolation::None => {
            let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            let options = HostOptions { threads, ..HostOptions::default() };
            Ok(Arc::new(LocalHost::new(options).map_err(|error| cannot(&error))?))
        }
    }
}

fn extra_roots(config: &Config) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = &config.plugin_ca_file else { return Ok(Vec::new()) };
    let broken = |error: &dyn std::fmt::Display| format!("plugin_ca_file {}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| broken(&error))?;
    certificates.map(|certificate| certificate.map_err(|error| broken(&error))).collect()
}
