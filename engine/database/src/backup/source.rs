//! A database as a backup sees it while it serves.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_storage::{closed_log_files, closed_manifest};
use sepal_types::{Lsn, Result, TenantId};

use super::{CopiedFile, HeldKeys, LogPiece, TableFacts, TenantPin};
use crate::{
    Control, Database, Key, Provider, Wrappers,
    blocking::blocking,
    tenant::{OpenTenant, directory},
};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Source(Arc<Database>);

impl Source {
    pub fn new(database: Arc<Database>) -> Self {
        Self(database)
    }

    pub fn data_dir(&self) -> &Path {
        self.0.data_dir()
    }

    pub fn control(&self) -> &Control {
        self.0.control()
    }

    /// Ids, in no order. Blocks.
    pub fn tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.control().list_tenants()?.into_iter().map(|tenant| tenant.id).collect())
    }

    /// No key of a tenant is destroyed as long as what it gives lives. Blocks.
    pub fn hold_keys(&self) -> HeldKeys {
        self.control().hold_tenant_keys()
    }

    /// A copy of control.db without the tenants' wrapped keys. Gives the providers that tenants had brought by then.
    /// Blocks.
    pub fn copy_control(&self, to: &Path) -> Result<HashMap<TenantId, Provider>> {
        Ok(self.control().backup_copy(to)?)
    }

    /// A tenant's keys as control.db holds them, wrapped under the root key. Blocks.
    pub fn sealed_keys(&self, tenant: TenantId) -> Result<Vec<u8>> {
        Ok(self.control().sealed_tenant_keys(tenant)?)
    }

    /// The provider that the tenant brought, if it has one. Blocks.
    pub fn provider(&self, tenant: TenantId) -> Result<Option<Provider>> {
        Ok(self.control().tenant_provider(tenant)?)
    }

    /// Tells the tenant's set of keys from another one: sealing the same keys twice gives different bytes. Blocks.
    ///
    /// Errors: 42704 no such tenant.
    pub fn keys_tag(&self, tenant: TenantId) -> Result<String> {
        Ok(self.control().tenant_keys_tag(tenant)?)
    }

    /// The epoch of the tenant's current key. Blocks.
    pub fn key_epoch(&self, tenant: TenantId) -> Result<u64> {
        Ok(self.control().tenant_key_epoch(tenant)?)
    }

    /// The root key, wrapped under the recovery key; `None` where none was made. Blocks.
    pub fn recovery_package(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.control().recovery_package()?)
    }

    /// The same of a copy that [`Self::copy_control`] made: it belongs to the root key that the copy is under. Blocks.
    pub fn recovery_package_of(copy: &Path) -> Result<Option<Vec<u8>>> {
        Ok(Control::recovery_package_of(copy)?)
    }

    /// The root key that this directory is under now. Blocks.
    pub fn root_key(&self) -> Key {
        self.control().root_key()
    }

    /// What reaches the providers that tenants brought.
    pub fn wrappers(&self) -> Arc<dyn Wrappers> {
        Arc::clone(&self.0.options.wrappers)
    }

    /// The tenant's files, at the commit that is the last now. Opens the tenant if need be.
    pub async fn pin(&self, tenant: TenantId) -> Result<TenantPin> {
        let seated = self.0.seated(tenant).await?;
        let database = Arc::clone(&self.0);
        blocking("pinning a tenant", move || TenantPin::take(&database, seated)).await
    }

    /// The facts of a pin, and the pin.
    pub async fn facts(&self, pin: TenantPin) -> Result<(TenantPin, Vec<TableFacts>)> {
        blocking("reading a tenant's rows", move || {
            let facts = pin.facts()?;
            Ok((pin, facts))
        })
        .await
    }

    /// The log of a tenant that is not open, by what lies on the disk: nothing is opened. `None` when it is open, or
    /// being opened or closed. Blocks.
    pub fn closed_log(&self, tenant: TenantId) -> Result<Option<Vec<LogPiece>>> {
        let slot = self.0.tenants.slot(tenant);
        // Nobody opens it meanwhile: what it wrote then might not be durable.
        let Some(held) = self.0.tenants.try_hold(&slot) else { return Ok(None) };
        if held.tenant().is_some() {
            return Ok(None);
        }
        let root = directory(self.data_dir(), tenant);
        let files = closed_log_files(&root)?;
        Ok(Some(files.iter().map(|info| LogPiece::new(&root, info)).collect()))
    }

    /// The number of a tenant's newest manifest, by what lies on the disk. `None`: it has none. Blocks.
    pub fn newest_manifest(&self, tenant: TenantId) -> Result<Option<u64>> {
        Ok(closed_manifest(&directory(self.data_dir(), tenant))?)
    }

    /// Tenants that were opened since this was last asked, whether or not they still are: what they have written is in
    /// an open or in a closed log. One archiver asks.
    pub fn opened(&self) -> HashSet<TenantId> {
        self.0.tenants.take_opened()
    }

    /// The logs of the tenants that are open now. They take no seat: a tenant that nobody else needs is closed, and its
    /// log then is a [`Self::closed_log`].
    pub fn open_logs(&self) -> Vec<OpenLog> {
        let open = self.0.tenants.settled().into_iter().filter(|tenant| !tenant.is_closed());
        open.map(|opened| OpenLog { database: Arc::clone(&self.0), opened }).collect()
    }
}

/// The log of an open tenant, which is kept as far as it is not archived
/// ([`crate::DatabaseOptions::archive_logs`]).
pub struct OpenLog {
    database: Arc<Database>,
    opened: Arc<OpenTenant>,
}

impl OpenLog {
    pub fn tenant(&self) -> TenantId {
        self.opened.id
    }

    /// Every log file that is there, oldest first. Blocks.
    pub fn pieces(&self) -> Result<Vec<LogPiece>> {
        self.opened.store.log_end();
        let root = directory(self.database.data_dir(), self.opened.id);
        Ok(self.opened.store.log_files(0)?.iter().map(|info| LogPiece::new(&root, info)).collect())
    }

    /// Files that clones in the log name and that were not said to be archived. What replays the log needs them.
    pub fn clones(&self) -> Vec<CopiedFile> {
        let root = directory(self.database.data_dir(), self.opened.id);
        self.opened.unarchived_clones().iter().map(|file| CopiedFile::new(&root, file)).collect()
    }

    /// Such a file is archived.
    pub fn clone_archived(&self, file: &CopiedFile) {
        self.opened.archived_clones.lock().insert(PathBuf::from(&file.name));
    }

    /// Everything up to this commit is archived: its files may go.
    pub fn archived(&self, lsn: Lsn) {
        if let Some(hold) = &*self.opened.archive.lock() {
            hold.advance(lsn);
        }
    }

    /// Whether so much was waiting to be archived that the log was let go. The next call says no: the log is kept
    /// again from here on, and what lies between is in no archive.
    pub fn has_gap(&self) -> Result<bool> {
        let mut slot = self.opened.archive.lock();
        if slot.as_ref().is_some_and(|hold| !hold.is_broken()) {
            return Ok(false);
        }
        let was_held = slot.is_some();
        *slot = Some(self.opened.store.hold_log(self.opened.store.snapshot().lsn())?);
        Ok(was_held)
    }
}
