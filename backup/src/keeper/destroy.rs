//! A dropped tenant's keys, in the repository: gone with the tenant, or as soon as the repository answers.
//!
//! ```text
//! <data>/backup/destroy/<tenant>      empty; there from before the drop until the repository has no keys of it
//! ```
//! Made before the drop, so that a crash at any moment leaves either a tenant or the intent. An intent whose tenant
//! is still there is of a drop that did not happen.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use sepal_database::{
    Result, TenantId,
    backup::{KeyCopies, Reached, Source},
};

use super::Keeper;
use crate::{create::blocking, identity, keys, moment::now_us, repository::failed};

/// From one look at what is to be destroyed to the next.
const AGAIN_US: i64 = 5_000_000;

fn folder(data: &Path) -> PathBuf {
    identity::folder(data).join("destroy")
}

#[async_trait]
impl KeyCopies for Keeper {
    async fn intend(&self, tenant: TenantId) -> Result<()> {
        blocking(&self.source, move |source| {
            let path = folder(source.data_dir()).join(tenant.to_string());
            identity::write(&path, b"").map_err(|error| failed("write", &path.display().to_string(), &error))
        })
        .await
    }

    async fn destroy(&self, tenant: TenantId) -> Reached {
        let place = self.repository.location().to_string();
        match self.destroy_one(tenant).await {
            Ok(()) => Reached { places: vec![place], not_reached: Vec::new() },
            Err(error) => {
                tracing::error!(%tenant, %error, "a dropped tenant's keys are still in the repository");
                self.state.lock().status.keys_to_destroy += 1;
                Reached { places: Vec::new(), not_reached: vec![format!("{place}: {error}")] }
            }
        }
    }
}

impl Keeper {
    async fn destroy_one(&self, tenant: TenantId) -> Result<()> {
        keys::destroy(&self.repository, tenant).await?;
        if self.state.lock().watch.is_some() {
            // A backup under way may have read the keys before and store them after: they are removed again then.
            return Ok(());
        }
        blocking(&self.source, move |source| {
            let path = folder(source.data_dir()).join(tenant.to_string());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(failed("remove", &path.display().to_string(), &error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// What earlier drops could not do.
    pub(super) async fn destroy_pending(&self) {
        {
            let mut state = self.state.lock();
            if now_us() < state.destroy_at {
                return;
            }
            state.destroy_at = now_us() + AGAIN_US;
        }
        let pending = match blocking(&self.source, pending).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "the keys that are to be destroyed cannot be listed");
                return;
            }
        };
        let mut left = 0;
        for tenant in pending {
            if let Err(error) = self.destroy_one(tenant).await {
                tracing::debug!(%tenant, %error, "a dropped tenant's keys are still in the repository");
                left += 1;
            }
        }
        self.state.lock().status.keys_to_destroy = left;
    }
}

/// How many drops before the server's start could not do all, so that no status says there are none. What cannot be
/// listed is logged by the first round.
pub(super) fn waiting(source: &Source) -> u64 {
    pending(source).map_or(0, |tenants| tenants.len() as u64)
}

/// Intents of drops that happened; those of others are removed, unless the drop may be under way.
fn pending(source: &Source) -> Result<Vec<TenantId>> {
    const UNDER_WAY: std::time::Duration = std::time::Duration::from_secs(300);
    let folder = folder(source.data_dir());
    let unread = |error: std::io::Error| failed("read", &folder.display().to_string(), &error);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unread)?,
    };
    let entries: Vec<fs::DirEntry> = entries.collect::<std::io::Result<_>>().map_err(unread)?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let known = source.tenants()?;
    let mut found = Vec::new();
    for entry in entries {
        let Some(tenant) = TenantId::parse(&entry.file_name().to_string_lossy()) else { continue };
        if !known.contains(&tenant) {
            found.push(tenant);
            continue;
        }
        let age =
            entry.metadata().and_then(|facts| facts.modified()).map(|at| at.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > UNDER_WAY) {
            fs::remove_file(entry.path()).map_err(unread)?;
        }
    }
    Ok(found)
}
