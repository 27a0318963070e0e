//! Keys as the whole database sees them: replacing the root while tenants are open, and dropping a tenant so that
//! nothing of it can be opened anywhere.
//!
//! The keys themselves are control's (`sepal_control`); what has to be told besides control.db is here.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sepal_control::{Destroyed, DestructionCertificate, Removal, RootStatus};
use sepal_types::{Error, Result, SqlState, TenantId};

use crate::{
    Database, backup::Reached, blocking::blocking, directory_lock::DirectoryLock, tenant::directory,
};

/// As an error calls what panicked.
const WORK: &str = "work on keys";

/// The replacement of the root key that goes on in the background.
#[derive(Default)]
pub(crate) struct RootRotation(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    running: bool,
    failed: Option<String>,
}

/// How far the replacement of the root key is, and whether somebody works on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationProgress {
    pub status: RootStatus,
    pub running: bool,
    /// Why the last one stopped.
    pub failed: Option<String>,
    /// Where the root key is kept; `None`: the embedder knows.
    pub kept_in: Option<String>,
}

/// Does something to a data directory that no process has open.
///
/// Errors: 55006 one has.
pub fn while_closed<T>(data: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _lock = DirectoryLock::take(data)?;
    work()
}

impl Database {
    /// Begins to replace the root key, or goes on with a replacement that was cut short; returns when the new key is in
    /// force, tenants' keys follow in the background ([`Self::root_rotation`]). Blocking.
    ///
    /// Errors: 55000 nobody said where the root key is kept; 55006 it is being replaced; the file or the provider.
    pub fn rotate_root(self: &Arc<Self>) -> Result<RotationProgress> {
        let Some(store) = self.options.root_store.clone() else {
            return Err(Error::new(
                SqlState::ObjectNotInPrerequisiteState,
                "this process was not told where its root key is kept",
            ));
        };
        {
            let mut progress = self.root_rotation.0.lock();
            if progress.running {
                return Err(Error::new(SqlState::ObjectInUse, "the root key is being replaced already")
                    .with_hint("`sepal root status` shows how far it is."));
            }
            *progress = Progress { running: true, failed: None };
        }
        let database = Arc::clone(self);
        let (begun, in_force) = std::sync::mpsc::channel();
        // A thread of its own: it outlives the request, and tenants by the ten thousand take seconds.
        let work = move || {
            let done = store.rotate(&database.control, &mut |status| {
                tracing::info!(generation = status.generation, under_old = status.under_old, "root key");
                let _ = begun.send(());
            });
            let mut progress = database.root_rotation.0.lock();
            progress.running = false;
            if let Err(error) = done {
                tracing::error!(%error, "the root key is not wholly replaced");
                progress.failed = Some(error.to_string());
            }
        };
        let started = std::thread::Builder::new().name("sepal-root-key".into()).spawn(work);
        if let Err(problem) = started {
            self.root_rotation.0.lock().running = false;
            return Err(Error::bug(format!(
                "the thread that replaces the root key does not start: {problem}"
            )));
        }
        // Ends also when the thread does, with or without success.
        let _ = in_force.recv();
        let progress = self.root_rotation()?;
        match &progress.failed {
            Some(why) => Err(Error::new(SqlState::SystemError, why.clone())
                .with_hint(
                    "Keep all files of the root key, one that ends in .new among them, and try again when the cause is \
                     mended.",
                )),
            None => Ok(progress),
        }
    }

    /// Goes on in the background with a replacement that a crash cut short. The server calls it once it is up.
    pub fn resume_root_rotation(self: &Arc<Self>) {
        let unfinished = self.control.root_status().is_ok_and(|status| status.rotating);
        if unfinished && let Err(error) = self.rotate_root() {
            tracing::error!(%error, "the replacement of the root key does not go on");
        }
    }

    /// How far the replacement of the root key is. Blocking.
    pub fn root_rotation(&self) -> Result<RotationProgress> {
        let status = self.control.root_status()?;
        let progress = self.root_rotation.0.lock();
        Ok(RotationProgress {
            status,
            running: progress.running,
            failed: progress.failed.clone(),
            kept_in: self.options.root_store.as_ref().map(|store| store.describe()),
        })
    }

    /// Drops a tenant: its keys, here and in the backups, its API keys, then its files. Its sessions end. What is gone
    /// is signed, and kept in the audit trail.
    pub async fn drop_tenant(self: &Arc<Self>, name: &str) -> Result<(TenantId, DestructionCertificate)> {
        self.intend_drop(name).await?;
        let (database, name) = (Arc::clone(self), name.to_owned());
        let destroyed = blocking(WORK, move || Ok(database.control.begin_destruction(&name)?)).await?;
        Ok((destroyed.tenant, self.finish_destruction(destroyed).await?))
    }

    /// Ends drops of tenants that a crash cut short when their keys were gone already. The server calls it once it is
    /// up and knows its backups ([`Self::set_key_copies`]); what fails is in the log, and tried at the next start.
    pub async fn finish_destructions(self: &Arc<Self>) {
        let database = Arc::clone(self);
        let begun = blocking(WORK, move || Ok(database.control.unfinished_destructions()?)).await;
        let begun = begun.unwrap_or_else(|error| {
            tracing::error!(%error, "drops of tenants that were cut short cannot be listed");
            Vec::new()
        });
        for destroyed in begun {
            let id = destroyed.tenant;
            match self.finish_destruction(destroyed).await {
                Ok(_) => {
                    tracing::info!(tenant = %id, "the drop of a tenant that was cut short is done, and certified")
                }
                Err(error) => {
                    tracing::error!(tenant = %id, %error, "the drop of a tenant is not certified yet")
                }
            }
        }
    }

    /// Once the keys are gone here.
    async fn finish_destruction(self: &Arc<Self>, destroyed: Destroyed) -> Result<DestructionCertificate> {
        let id = destroyed.tenant;
        self.close_dropped(id).await;
        let Reached { places: backups, not_reached } = self.destroy_key_copies(id).await;
        let database = Arc::clone(self);
        blocking(WORK, move || {
            let Removed { files, bytes, left } = remove_files(&database.options.data_dir, id);
            if let Some(left) = &left {
                tracing::error!(tenant = %id, left, "files of a dropped tenant are left: remove them");
            }
            let removal = Removal { files, bytes, backups, not_reached, files_left: left };
            let certificate = database.control.certify_destruction(&destroyed, &removal)?;
            database.control.checkpoint_audit()?;
            Ok(certificate)
        })
        .await
    }

    async fn close_dropped(&self, id: TenantId) {
        if let Some(slot) = self.tenants.remove(id) {
            // Waits for one that is being opened or closed. Nobody opens it afterwards, for want of its key.
            let opened = self.tenants.hold(&slot).await.take();
            // A checkpoint that went on would write beside the removal. How the log closed does not matter now.
            if let Some(tenant) = opened
                && let Err(error) = tenant.close().await
            {
                tracing::debug!(tenant = %id, %error, "the dropped tenant's log");
            }
        }
        self.shared.forget_tenant(id);
        if let Some(connectors) = &self.options.connectors {
            connectors.forget_tenant(id);
        }
    }
}

/// What became of a tenant's files.
#[derive(Default)]
struct Removed {
    files: u64,
    bytes: u64,
    /// What could not be removed, and why.
    left: Option<String>,
}

/// Removes a tenant's directory, and what a repair has put into quarantine of it. Nothing in them can be opened any
/// more, so one that stays keeps nobody from going on.
fn remove_files(data: &Path, id: TenantId) -> Removed {
    let mut removed = Removed::default();
    for path in std::iter::once(directory(data, id)).chain(quarantined(data, id)) {
        let before = count(&path);
        if let Err(problem) = std::fs::remove_dir_all(&path)
            && problem.kind() != ErrorKind::NotFound
        {
            removed.left.get_or_insert_with(|| format!("{}: {problem}", path.display()));
        }
        let after = count(&path);
        removed.files += before.0.saturating_sub(after.0);
        removed.bytes += before.1.saturating_sub(after.1);
    }
    removed
}

/// `quarantine/<time>/<tenant>`, for each repair.
fn quarantined(data: &Path, id: TenantId) -> Vec<PathBuf> {
    let Ok(times) = std::fs::read_dir(data.join("quarantine")) else { return Vec::new() };
    let places = times.flatten().map(|time| time.path().join(id.to_string()));
    places.filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// What cannot be looked at counts nothing.
fn count(path: &Path) -> (u64, u64) {
    let Ok(entries) = std::fs::read_dir(path) else { return (0, 0) };
    entries.flatten().fold((0, 0), |(files, bytes), entry| match entry.metadata() {
        Ok(found) if found.is_dir() => {
            let (more, their) = count(&entry.path());
            (files + more, bytes + their)
        }
        Ok(found) => (files + 1, bytes + found.len()),
        Err(_) => (files, bytes),
    })
}
