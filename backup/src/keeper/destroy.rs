//! A dropped tenant's keys, in the repository: gone with the tenant, or as soon as the repository answers.
//!
//! ```text
//! <data>/backup/destroy/<tenant>      there from before the drop until nobody can bring the keys back
//!   empty                             the repository was not reached yet
//!   a number                          when it first was, in microseconds since 1970
//! ```
//! Made before the drop, so that a crash at any moment leaves either a tenant or the intent. An intent whose tenant
//! is still there is of a drop that did not happen.
//!
//! A drop waits for nobody, so a prune or a backup that runs elsewhere may have read the keys before and write them
//! after. So the intent stays for a while and as long as anybody is at work there, and is carried out again until then.

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
use crate::{create::blocking, identity, keys, lock, moment::now_us, repository::failed};

/// From one look at what is to be destroyed to the next.
const AGAIN_US: i64 = 5_000_000;
/// The same for what was destroyed already.
const RECHECK_US: i64 = 60_000_000;
/// How long what was destroyed is looked at again: twice as long as a lock counts without being renewed.
const SETTLED_US: i64 = 1_800_000_000;

/// A drop, as far as it has come in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intent {
    tenant: TenantId,
    /// When the keys were first destroyed there, in microseconds since 1970.
    reached_us: Option<i64>,
}

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
        match self.destroy_one(Intent { tenant, reached_us: None }).await {
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
    async fn destroy_one(&self, Intent { tenant, reached_us }: Intent) -> Result<()> {
        // Away, it has the keys nevertheless.
        identity::must_not_be_gone(&self.repository, &self.source).await?;
        keys::destroy(&self.repository, self.source.control(), tenant).await?;
        let over = match reached_us {
            Some(at) => is_over(at, now_us()) && !lock::is_taken(&self.repository).await?,
            None => false,
        };
        if reached_us.is_some() && !over {
            return Ok(());
        }
        blocking(&self.source, move |source| {
            let path = folder(source.data_dir()).join(tenant.to_string());
            if !over {
                let noted = identity::write(&path, now_us().to_string().as_bytes());
                return noted.map_err(|error| failed("write", &path.display().to_string(), &error));
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(failed("remove", &path.display().to_string(), &error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// What earlier drops could not do, and what they did not long ago.
    pub(super) async fn destroy_pending(&self) {
        let recheck = {
            let mut state = self.state.lock();
            let now = now_us();
            if now < state.destroy_at {
                return;
            }
            state.destroy_at = now + AGAIN_US;
            let recheck = now >= state.recheck_at;
            if recheck {
                state.recheck_at = now + RECHECK_US;
            }
            recheck
        };
        let pending = match blocking(&self.source, pending).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "the keys that are to be destroyed cannot be listed");
                return;
            }
        };
        let mut left = 0;
        for intent in pending.into_iter().filter(|intent| recheck || intent.reached_us.is_none()) {
            if let Err(error) = self.destroy_one(intent).await {
                tracing::debug!(tenant = %intent.tenant, %error, "a dropped tenant's keys cannot be destroyed now");
                left += u64::from(intent.reached_us.is_none());
            }
        }
        self.state.lock().status.keys_to_destroy = left;
    }
}

/// Whether nobody who read the keys before they were destroyed can be about to write them. A clock that was put back
/// does not keep an intent for ever.
fn is_over(reached_us: i64, now: i64) -> bool {
    now.abs_diff(reached_us) >= SETTLED_US.unsigned_abs()
}

/// How many drops before the server's start could not do all, so that no status says there are none. What cannot be
/// listed is logged by the first round.
pub(super) fn waiting(source: &Source) -> u64 {
    let waiting = |intents: Vec<Intent>| intents.iter().filter(|intent| intent.reached_us.is_none()).count();
    pending(source).map_or(0, |intents| waiting(intents) as u64)
}

/// Intents of drops that happened; those of others are removed, unless the drop may be under way.
fn pending(source: &Source) -> Result<Vec<Intent>> {
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
            let content = match fs::read_to_string(entry.path()) {
                // It was carried out meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                content => content.map_err(unread)?,
            };
            found.push(Intent { tenant, reached_us: content.trim().parse().ok() });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_outlives_whoever_may_have_read_the_keys() {
        let begun = 1_795_316_400_000_000;
        assert!(!is_over(begun, begun));
        assert!(!is_over(begun, begun + SETTLED_US - 1));
        assert!(is_over(begun, begun + SETTLED_US));
        assert!(is_over(begun, begun - SETTLED_US), "a clock that was put back");
    }
}
