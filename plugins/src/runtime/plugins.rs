//! The plugins this process knows: those that come with it, and tenants' that were used lately.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{Fault, FaultKind},
    sealing,
};

use super::kept::Kept;
use crate::{
    bundled,
    call::{Code, ComponentHash},
    compile::Compiler,
    package::{Package, PackageError},
};

/// `plugin:sepal/webhook`
pub(super) const PREFIX: &str = "plugin:";

/// Manifests with their schemas: some kilobytes each, or megabytes where somebody tries.
const PACKAGE_BYTES: u64 = 64 << 20;
/// Machine code: a megabyte of Rust's, forty of Python's.
const CODE_BYTES: u64 = 512 << 20;

pub(super) struct Plugins {
    /// By the name in the manifest: `sepal/webhook`.
    bundled: BTreeMap<String, (Arc<Package>, &'static [u8])>,
    /// The bundled ones' machine code. No tenant's plugin pushes it out.
    bundled_codes: Mutex<BTreeMap<ComponentHash, Code>>,
    packages: Mutex<Kept<Arc<Package>>>,
    codes: Mutex<Kept<Code>>,
    compiler: Arc<Compiler>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins").field("bundled", &self.bundled.keys()).finish_non_exhaustive()
    }
}

impl Plugins {
    pub(super) fn new(compiler: Arc<Compiler>) -> Result<Self, PackageError> {
        let mut known = BTreeMap::new();
        for (_, component) in bundled::BUNDLED {
            let package = Package::read(component)?;
            known.insert(package.manifest.plugin.name.clone(), (Arc::new(package), *component));
        }
        Ok(Self {
            bundled: known,
            bundled_codes: Mutex::default(),
            packages: Mutex::new(Kept::new(PACKAGE_BYTES)),
            codes: Mutex::new(Kept::new(CODE_BYTES)),
            compiler,
        })
    }

    pub(super) fn bundled(&self) -> impl Iterator<Item = &Arc<Package>> {
        self.bundled.values().map(|(package, _)| package)
    }

    /// The package of a connector: the component's, or the bundled one of that name. Hashes the component.
    pub(super) fn find(&self, connector: &str, component: Option<&[u8]>) -> Result<Arc<Package>, Fault> {
        let Some(component) = component else {
            return self.find_bundled(connector).map(|(package, _)| package);
        };
        let hash = sealing::sha256(component);
        if let Some(package) = self.packages.lock().get(&hash) {
            return Ok(package);
        }
        let package = Arc::new(Package::read(component)?);
        self.packages.lock().put(hash, Arc::clone(&package), package.weight_bytes());
        Ok(package)
    }

    /// [`Self::find`] for a tenant's, on a thread that may compute.
    pub(super) async fn read(self: &Arc<Self>, component: Arc<[u8]>) -> Result<Arc<Package>, Fault> {
        let plugins = Arc::clone(self);
        let work = move || plugins.find(PREFIX, Some(&component));
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            Fault::new(FaultKind::Internal, format!("the plugin could not be read: {error}"))
                .with_code("plugin.package")
        })?
    }

    /// Machine code; compiled at first use on this machine. `component`: none for a bundled plugin.
    pub(super) async fn code(
        &self,
        tenant: TenantId,
        package: &Package,
        component: Option<Arc<[u8]>>,
    ) -> Result<Code, Fault> {
        let Some(component) = component else { return self.bundled_code(package).await };
        if let Some(code) = self.codes.lock().get(&package.hash) {
            return Ok(code);
        }
        let code = self.compiler.code_for(tenant, package.hash, package.world, component).await?;
        self.codes.lock().put(package.hash, code.clone(), code.machine_code.len() as u64);
        Ok(code)
    }

    async fn bundled_code(&self, package: &Package) -> Result<Code, Fault> {
        if let Some(code) = self.bundled_codes.lock().get(&package.hash) {
            return Ok(code.clone());
        }
        let component = self.find_bundled(&package.manifest.plugin.name)?.1.into();
        let code = self.compiler.code(package.hash, package.world, component).await?;
        self.bundled_codes.lock().insert(package.hash, code.clone());
        Ok(code)
    }

    /// `sepal/webhook`, and `webhook` for short.
    fn find_bundled(&self, connector: &str) -> Result<(Arc<Package>, &'static [u8]), Fault> {
        let name = connector.strip_prefix(PREFIX).unwrap_or(connector);
        let short = |full: &str| full.rsplit_once('/').is_some_and(|(_, short)| short == name);
        let found = self.bundled.iter().find(|(full, _)| *full == name || short(full));
        let (_, (package, component)) = found.ok_or_else(|| {
            let names: Vec<&str> = self.bundled.keys().map(String::as_str).collect();
            let problem = format!("no plugin {name} comes with this process; there are {}", names.join(", "));
            Fault::new(FaultKind::Misconfigured, problem).with_code("config")
        })?;
        Ok((Arc::clone(package), *component))
    }
}
