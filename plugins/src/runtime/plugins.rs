//! The plugins this process knows: those that come with it, and tenants' that were used lately.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use sepal_database::{
    connector::{Fault, FaultKind},
    sealing,
};

use crate::{
    bundled,
    call::{Code, ComponentHash},
    compile::Compiler,
    package::{Package, PackageError},
};

/// `plugin:sepal/webhook`
pub(super) const PREFIX: &str = "plugin:";

/// Manifests with their schemas are small.
const PACKAGES: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// Machine code is not.
const CODES: NonZeroUsize = NonZeroUsize::new(16).expect("it is not zero");

pub(super) struct Plugins {
    /// By the name in the manifest: `sepal/webhook`.
    bundled: BTreeMap<String, (Arc<Package>, &'static [u8])>,
    packages: Mutex<LruCache<ComponentHash, Arc<Package>>>,
    codes: Mutex<LruCache<ComponentHash, Code>>,
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
        let packages = Mutex::new(LruCache::new(PACKAGES));
        Ok(Self { bundled: known, packages, codes: Mutex::new(LruCache::new(CODES)), compiler })
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
            return Ok(Arc::clone(package));
        }
        let package = Arc::new(Package::read(component)?);
        self.packages.lock().put(hash, Arc::clone(&package));
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

    /// Machine code; compiled at first use on this machine.
    pub(super) async fn code(&self, package: &Package, component: Option<Arc<[u8]>>) -> Result<Code, Fault> {
        if let Some(code) = self.codes.lock().get(&package.hash) {
            return Ok(code.clone());
        }
        let component = match component {
            Some(component) => component,
            None => self.find_bundled(&package.manifest.plugin.name)?.1.into(),
        };
        let code = self.compiler.code(package.hash, package.world, component).await?;
        self.codes.lock().put(package.hash, code.clone());
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
