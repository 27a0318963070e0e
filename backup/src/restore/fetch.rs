//! Objects into files, each compared with what it should be.

use std::{path::Path, sync::Arc};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use sepal_database::{
    Result, TenantId,
    backup::{Restoring, blocking},
};
use tokio::fs::{File, OpenOptions};

use super::TenantPlan;
use crate::{
    entry::Object,
    keys,
    limits::LOG_PART_BYTES,
    log::hash,
    names::{self, Part},
    pace::Pace,
    repository::{Repository, damaged, failed},
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
}

impl Fetch<'_> {
    /// Lays down a tenant's keys and files. `false`: its keys are gone.
    pub(crate) async fn tenant(&self, restoring: &Arc<Restoring>, plan: &TenantPlan) -> Result<bool> {
        let loaded = keys::load(self.repository, plan.id, &plan.keys, plan.line.as_deref()).await?;
        let Some((sealed, later)) = loaded else { return Ok(false) };
        let (restoring, id) = (Arc::clone(restoring), plan.id);
        blocking("restoring keys", move || restoring.put_keys(id, &sealed, &later)).await?;
        let root = self.data.join("tenants").join(plan.id.to_string());
        for folder in ["manifest", "segments", "wal"] {
            make_folder(&root.join(folder)).await?;
        }
        let mut files: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(plan.files.len());
        for file in &plan.files {
            files.push(self.file(plan.id, &root, file).boxed());
        }
        stream::iter(files).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        for (number, parts, bytes) in &plan.log {
            self.watch.check()?;
            let path = root.join("wal").join(format!("{number:016x}.wal"));
            self.log_file(&path, parts, *bytes).await?;
        }
        Ok(true)
    }

    async fn file(&self, tenant: TenantId, root: &Path, file: &Object) -> Result<()> {
        let within = names::local(tenant, &file.name)
            .ok_or_else(|| damaged("a catalogue entry", format!("{} is no tenant's file", file.name)))?;
        self.object(file, &root.join(within)).await
    }

    async fn object(&self, wanted: &Object, path: &Path) -> Result<()> {
        self.watch.check()?;
        object(self.repository, wanted, path, self.pace).await?;
        self.watch.moved(wanted.bytes);
        Ok(())
    }

    /// The parts one after the other; one that begins before its predecessor's end is not among them.
    async fn log_file(&self, path: &Path, parts: &[String], bytes: u64) -> Result<()> {
        let mut file = create(path).await?;
        let mut at = 0;
        for name in parts {
            let part = Part::parse(name).filter(|part| part.from == at);
            let part =
                part.ok_or_else(|| damaged(name, "it is no part of this log file, or not the next"))?;
            let most = (part.to - part.from).min(LOG_PART_BYTES);
            let content = self.repository.get(name, most).await?;
            let content = content.ok_or_else(|| damaged(name, "it is missing"))?;
            if content.len() as u64 != part.to - part.from || hash(&content) != part.hash {
                return Err(damaged(name, "its bytes are not those that were stored"));
            }
            tokio::io::AsyncWriteExt::write_all(&mut file, &content)
                .await
                .map_err(|error| failed("write", &path.display().to_string(), &error))?;
            self.pace.spend(content.len()).await;
            self.watch.moved(content.len() as u64);
            at = part.to;
        }
        if at < bytes {
            let name = parts.last().map_or("a log file", String::as_str);
            return Err(damaged(name, format!("its file ends at byte {at}, but reached byte {bytes}")));
        }
        sync(&file, path).await
    }
}

/// Fetches one object into a new file, durably.
pub(crate) async fn object(repository: &Repository, wanted: &Object, path: &Path, pace: &Pace) -> Result<()> {
    let mut file = create(path).await?;
    let content = repository.fetch(&wanted.name, &mut file, wanted.bytes, pace).await?;
    if content.bytes != wanted.bytes {
        let why = format!("{} bytes, {} were stored", content.bytes, wanted.bytes);
        return Err(damaged(&wanted.name, why));
    }
    if content.sha256 != wanted.sha256 {
        return Err(damaged(&wanted.name, "its bytes are not those that were stored"));
    }
    sync(&file, path).await
}

async fn make_folder(path: &Path) -> Result<()> {
    let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await;
    made.map_err(|error| failed("make", &path.display().to_string(), &error))
}

async fn create(path: &Path) -> Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await;
    created.map_err(|error| failed("make", &path.display().to_string(), &error))
}

async fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all().await.map_err(|error| failed("write", &path.display().to_string(), &error))
}
