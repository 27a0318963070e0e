//! Objects into files, each compared with what it should be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use sepal_database::{
    Result, TenantId,
    backup::{Restoring, blocking},
};
use tokio::fs::{File, OpenOptions};

use super::TenantPlan;
use crate::{
    entry::{Object, TELLS_DROPS},
    failure::Failure,
    keys::{self, Loaded},
    limits::LOG_PART_BYTES,
    log::hash,
    names::{self, Part},
    pace::Pace,
    repository::{Repository, TransferError, damaged, failed},
    watch::Watch,
};

/// Objects that are fetched at once: a bucket answers late, but many at a time.
const AT_ONCE: usize = 4;

/// From where to where.
pub(crate) struct Fetch<'a> {
    pub repository: &'a Repository,
    pub pace: &'a Pace,
    pub watch: &'a Watch,
    /// The data directory.
    pub data: &'a Path,
    /// The entry's format: an older one does not tell a drop from a loss.
    pub format: u32,
}

/// What became of a tenant's keys and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    Here,
    /// But for log that was archived after some that was not.
    UpToGap,
    /// Its keys are gone, as they should be.
    Dropped,
}

impl Fetch<'_> {
    /// Lays down a tenant's keys and files.
    pub(crate) async fn tenant(
        &self,
        restoring: &Arc<Restoring>,
        plan: &TenantPlan,
    ) -> Result<Fetched, Failure> {
        let control = restoring.control();
        let loaded = keys::load(self.repository, control, plan.id, &plan.keys, plan.line.as_deref()).await;
        let (sealed, later) = match self.remote(loaded).await? {
            Loaded::Keys(sealed, later) => (sealed, later),
            Loaded::Missing if self.format >= TELLS_DROPS => {
                let why = "it is missing, and no drop of the tenant removed it";
                return Err(Failure::Tenant(damaged(&names::tenant_keys(plan.id), why)));
            }
            Loaded::Dropped | Loaded::Missing => return Ok(Fetched::Dropped),
        };
        let (putting, id) = (Arc::clone(restoring), plan.id);
        let put = blocking("restoring keys", move || putting.put_keys(id, &sealed, &later)).await;
        put.map_err(Failure::Tenant)?;
        self.lay_down(restoring, plan).await
    }

    /// Lays down a plan that goes further than `before`, which [`Self::tenant`] laid down and a store has used since:
    /// that changes manifests and log, and no file of another kind, but may have removed some.
    pub(crate) async fn again(
        &self,
        restoring: &Arc<Restoring>,
        before: &TenantPlan,
        plan: &TenantPlan,
    ) -> Result<Fetched, Failure> {
        let control = restoring.control();
        let loaded = keys::load(self.repository, control, plan.id, &plan.keys, plan.line.as_deref()).await;
        let later = match self.remote(loaded).await? {
            Loaded::Keys(_, later) => later,
            // Since the first time.
            Loaded::Dropped | Loaded::Missing => return Ok(Fetched::Dropped),
        };
        let (putting, id) = (Arc::clone(restoring), plan.id);
        let put = blocking("restoring keys", move || putting.put_later_keys(id, &later)).await;
        put.map_err(Failure::Tenant)?;
        let root = self.root(plan.id);
        for folder in ["manifest", "wal"] {
            let folder = root.join(folder);
            removed(&folder, tokio::fs::remove_dir_all(&folder).await).map_err(Failure::All)?;
        }
        // An attempt that was cut short may have left parts of these.
        for file in plan.files.iter().filter(|file| !before.files.contains(*file)) {
            let path = place(plan.id, &root, file)?;
            removed(&path, tokio::fs::remove_file(&path).await).map_err(Failure::All)?;
        }
        self.lay_down(restoring, plan).await
    }

    /// A tenant's directory.
    pub(crate) fn root(&self, tenant: TenantId) -> PathBuf {
        self.data.join("tenants").join(tenant.to_string())
    }

    /// The log, and those of the files that are not there yet.
    async fn lay_down(&self, restoring: &Arc<Restoring>, plan: &TenantPlan) -> Result<Fetched, Failure> {
        let root = self.root(plan.id);
        for folder in ["manifest", "segments", "wal"] {
            make_folder(&root.join(folder)).await.map_err(Failure::All)?;
        }
        let mut files: Vec<BoxFuture<'_, Result<(), Failure>>> = Vec::with_capacity(plan.files.len());
        for file in &plan.files {
            files.push(self.file(plan.id, &root, file).boxed());
        }
        stream::iter(files).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        for (number, parts, bytes) in &plan.log {
            self.watch.check().map_err(Failure::All)?;
            let path = root.join("wal").join(format!("{number:016x}.wal"));
            self.log_file(&path, parts, *bytes).await?;
        }
        // The log of a backup as it was made has no gap, unless it is damaged.
        if plan.line.is_none() {
            return Ok(Fetched::Here);
        }
        let (restoring, id) = (Arc::clone(restoring), plan.id);
        let cut = blocking("looking for a gap in a log", move || restoring.cut_log_at_gap(id)).await;
        Ok(if cut.map_err(Failure::Tenant)? { Fetched::UpToGap } else { Fetched::Here })
    }

    /// What one object of a tenant came to.
    async fn remote<T>(&self, got: Result<T>) -> Result<T, Failure> {
        match got {
            Ok(got) => Ok(got),
            Err(error) => Err(Failure::of_fetching(error, self.repository).await),
        }
    }

    async fn file(&self, tenant: TenantId, root: &Path, file: &Object) -> Result<(), Failure> {
        self.watch.check().map_err(Failure::All)?;
        let path = place(tenant, root, file)?;
        // Only one that was compared is there.
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(());
        }
        match object(self.repository, file, &path, self.pace).await {
            Ok(()) => self.watch.moved(file.bytes),
            Err(TransferError::File(error)) => return Err(Failure::All(error)),
            Err(TransferError::Object(error)) => self.remote(Err(error)).await?,
        }
        Ok(())
    }

    /// The parts one after the other; one that begins before its predecessor's end is not among them.
    async fn log_file(&self, path: &Path, parts: &[String], bytes: u64) -> Result<(), Failure> {
        let mut file = create(path).await.map_err(Failure::All)?;
        let mut at = 0;
        for name in parts {
            let content = self.part(name, &mut at).await;
            let content = self.remote(content).await?;
            tokio::io::AsyncWriteExt::write_all(&mut file, &content)
                .await
                .map_err(|error| Failure::All(failed("write", &path.display().to_string(), &error)))?;
            self.pace.spend(content.len()).await;
            self.watch.moved(content.len() as u64);
        }
        if at < bytes {
            let name = parts.last().map_or("a log file", String::as_str);
            let why = format!("its file ends at byte {at}, but reached byte {bytes}");
            return Err(Failure::Tenant(damaged(name, why)));
        }
        sync(&file, path).await.map_err(Failure::All)
    }

    /// The part that begins at byte `at`, which is moved to its end.
    async fn part(&self, name: &str, at: &mut u64) -> Result<Vec<u8>> {
        let part = Part::parse(name).filter(|part| part.from == *at);
        let part = part.ok_or_else(|| damaged(name, "it is no part of this log file, or not the next"))?;
        let most = (part.to - part.from).min(LOG_PART_BYTES);
        let content = self.repository.get(name, most).await?;
        let content = content.ok_or_else(|| damaged(name, "it is missing"))?;
        if content.len() as u64 != part.to - part.from || hash(&content) != part.hash {
            return Err(damaged(name, "its bytes are not those that were stored"));
        }
        *at = part.to;
        Ok(content)
    }
}

/// Fetches one object into a new file, durably.
pub(crate) async fn object(
    repository: &Repository,
    wanted: &Object,
    path: &Path,
    pace: &Pace,
) -> Result<(), TransferError> {
    let mut file = create(path).await.map_err(TransferError::File)?;
    let content = repository.fetch(&wanted.name, &mut file, wanted.bytes, pace).await?;
    let other = |why: &str| Err(TransferError::Object(damaged(&wanted.name, why)));
    if content.bytes != wanted.bytes {
        return other(&format!("{} bytes, {} were stored", content.bytes, wanted.bytes));
    }
    if content.sha256 != wanted.sha256 {
        return other("its bytes are not those that were stored");
    }
    sync(&file, path).await.map_err(TransferError::File)
}

async fn make_folder(path: &Path) -> Result<()> {
    let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await;
    made.map_err(|error| failed("make", &path.display().to_string(), &error))
}

/// Where an object of a tenant goes.
fn place(tenant: TenantId, root: &Path, file: &Object) -> Result<PathBuf, Failure> {
    let within = names::local(tenant, &file.name);
    within.map(|within| root.join(within)).ok_or_else(|| {
        Failure::Tenant(damaged("a catalogue entry", format!("{} is no tenant's file", file.name)))
    })
}

/// What was not there needs not be removed.
fn removed(path: &Path, outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", &path.display().to_string(), &error))
        }
        _ => Ok(()),
    }
}

async fn create(path: &Path) -> Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await;
    created.map_err(|error| failed("make", &path.display().to_string(), &error))
}

async fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all().await.map_err(|error| failed("write", &path.display().to_string(), &error))
}
