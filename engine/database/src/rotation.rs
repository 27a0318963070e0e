//! Replacing a tenant's key, and the keys of its files: begun here, carried out by `maintain`, looked at by the operator
//! and in `sepal_keys`.

use std::sync::Arc;

use parking_lot::Mutex;
use sepal_control::{Control, ControlError, Provider, TenantKeyStatus};
use sepal_query::catalog::KeyRow;
use sepal_storage::{FileRotation, KeyUse, TenantStore};
use sepal_types::{Error, Result, TenantId};
use tokio::sync::Notify;

use crate::{Database, blocking::blocking, maintain, tenant::OpenTenant};

/// As an error calls what panicked.
const WORK: &str = "work on a tenant's keys";

/// An open tenant's part of it.
#[derive(Default)]
pub struct Rotation {
    wake: Notify,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    /// Somebody has begun one.
    wanted: bool,
    running: bool,
    /// Counted last; `None`: not since the key was replaced.
    left: Option<KeyUse>,
    failed: Option<String>,
}

/// How far it is.
#[derive(Clone, Debug)]
pub struct TenantKeyProgress {
    /// The tenant's keys, the newest first. One alone: nothing is under an older one.
    pub keys: Vec<TenantKeyStatus>,
    /// Manifests and log files that need an older one; `None`: not counted yet.
    pub under_older: Option<usize>,
    pub files: FileRotation,
    /// One of the two is under way.
    pub running: bool,
    /// Why it did not go on when it was tried last.
    pub failed: Option<String>,
}

impl Rotation {
    /// Wakes the maintenance: there is something to do.
    fn ask(&self) {
        let mut state = self.state.lock();
        (state.wanted, state.running, state.left) = (true, true, None);
        drop(state);
        self.wake.notify_one();
    }

    pub async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Whether a pass would find something. Where nobody has asked, that is what a crash left.
    pub fn is_due(&self, store: &TenantStore) -> bool {
        let state = self.state.lock();
        state.wanted
            || state.running
            || store.has_older_keys()
            || store.file_rotation().is_ok_and(|files| files.running)
    }

    /// Whether it keeps the tenant open.
    pub fn is_running(&self) -> bool {
        self.state.lock().running
    }

    pub fn begin(&self) {
        let mut state = self.state.lock();
        (state.wanted, state.running) = (false, true);
    }

    pub fn note(&self, left: KeyUse) {
        let mut state = self.state.lock();
        (state.left, state.failed) = (Some(left), None);
    }

    pub fn fail(&self, error: &Error) {
        // The tenant sees it.
        let shown = error.clone().without_private().to_string();
        let mut state = self.state.lock();
        // Whether it can ever go on, nobody knows: it keeps the tenant open no longer.
        (state.wanted, state.running, state.failed) = (true, false, Some(shown));
    }

    pub fn end(&self) {
        let mut state = self.state.lock();
        state.running = state.wanted;
    }
}

impl Database {
    /// Makes a new key for the tenant. From its return on control.db's part of the tenant is sealed under it; files
    /// follow in the background, then the older keys are destroyed ([`Self::tenant_key_progress`]). No data is written
    /// anew. What of the past has no name can be asked for from now on only.
    ///
    /// Errors: 42704; 57P03 and 58000 the tenant's own provider.
    pub async fn rotate_tenant_key(self: &Arc<Self>, name: &str) -> Result<TenantKeyProgress> {
        let (tenant, _seat) = self.seated(self.tenant_named(name).await?).await?;
        blocking(WORK, move || {
            let control = &tenant.delivery.control;
            control.rotate_tenant_key(tenant.id)?;
            tenant.rotation.ask();
            progress(control, &tenant)
        })
        .await
    }

    /// Puts the tenant's key under a provider of its own ([`Control::set_tenant_provider`]). A new key begins there;
    /// files follow in the background, then the older keys are destroyed, as by [`Self::rotate_tenant_key`].
    ///
    /// Errors: 42704; 57P03 and 58000 a provider does not answer, or refuses.
    pub async fn set_tenant_provider(self: &Arc<Self>, name: &str, provider: Provider) -> Result<()> {
        let (tenant, _seat) = self.seated(self.tenant_named(name).await?).await?;
        blocking(WORK, move || {
            tenant.delivery.control.set_tenant_provider(tenant.id, &provider)?;
            tenant.rotation.ask();
            Ok(())
        })
        .await
    }

    /// Begins to write every file of the tenant anew under a key of its own, in the background; goes on where that is
    /// under way. History is as with [`Self::rotate_tenant_key`].
    ///
    /// Errors: 42704, and what a checkpoint may fail with.
    pub async fn rotate_tenant_files(self: &Arc<Self>, name: &str) -> Result<TenantKeyProgress> {
        let (tenant, _seat) = self.seated(self.tenant_named(name).await?).await?;
        blocking(WORK, move || {
            maintain::begin_files(&tenant)?;
            tenant.rotation.ask();
            progress(&tenant.delivery.control, &tenant)
        })
        .await
    }

    /// The tenant's keys, and how far their replacement is. Opens the tenant if need be: what a crash cut short goes on.
    ///
    /// Errors: 42704.
    pub async fn tenant_key_progress(self: &Arc<Self>, name: &str) -> Result<TenantKeyProgress> {
        let (tenant, _seat) = self.seated(self.tenant_named(name).await?).await?;
        blocking(WORK, move || progress(&tenant.delivery.control, &tenant)).await
    }

    async fn tenant_named(self: &Arc<Self>, name: &str) -> Result<TenantId> {
        let (database, name) = (Arc::clone(self), name.to_owned());
        blocking(WORK, move || {
            let found = database.control.tenant_by_name(&name)?;
            let tenant = found.ok_or(ControlError::NotFound { what: "tenant", name })?;
            Ok(tenant.id)
        })
        .await
    }
}

fn progress(control: &Control, tenant: &OpenTenant) -> Result<TenantKeyProgress> {
    let keys = control.tenant_key_status(tenant.id)?;
    let files = tenant.store.file_rotation()?;
    let state = tenant.rotation.state.lock().clone();
    let alone = keys.len() == 1;
    let under_older = if alone { Some(0) } else { state.left.map(KeyUse::files) };
    Ok(TenantKeyProgress { running: !alone || files.running, keys, under_older, files, failed: state.failed })
}

/// The row of `sepal_keys`; none when it cannot be read, which is in the log.
pub(crate) fn row(tenant: &OpenTenant) -> Option<KeyRow> {
    let progress = progress(&tenant.delivery.control, tenant).map_err(|error| {
        tracing::error!(tenant = %tenant.id, %error, "the tenant's keys cannot be looked at");
    });
    let TenantKeyProgress { keys, files, running, .. } = progress.ok()?;
    let newest = keys.first()?;
    Some(KeyRow {
        epoch: newest.epoch,
        created_us: newest.created_at.saturating_mul(1_000_000),
        older_keys: (keys.len() - 1) as u64,
        file_generation: files.generation,
        rotating: running,
        files_total: files.files as u64,
        files_done: (files.files - files.files_left) as u64,
        bytes_total: files.bytes,
        bytes_done: files.bytes - files.bytes_left,
    })
}
