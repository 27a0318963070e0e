//! One tenant's part of a backup.

use sepal_database::{
    Error, Provider, Result, SqlState, TenantId,
    backup::{CopiedFile, LogPiece, Source},
    sealing::{hex, sha256},
};

use super::{Run, blocking};
use crate::{
    entry::{self, LogFile, Object, TenantEntry},
    failure::Failure,
    keys, names,
    repository::{TransferError, failed},
};

impl Run<'_> {
    /// Stores the keys that the tenant has now, and gives their set's id and tag. Errors: the tenant's own: the copy of
    /// control.db does not know who opens them.
    async fn keys(&self, id: TenantId) -> Result<(String, String), Failure> {
        // The provider last: one that came before the keys were read is seen.
        let read = blocking(self.source, move |source| {
            Ok((source.keys_tag(id)?, source.sealed_keys(id)?, source.provider(id)?))
        });
        let (tag, sealed, provider) = read.await.map_err(Failure::Tenant)?;
        if self.is_another(id, provider.as_ref()) {
            return Err(Failure::Tenant(moved(id)));
        }
        let whose = (id, self.line.as_str());
        let set = keys::store(self.repository, self.source.control(), whose, &tag, &sealed).await?;
        Ok((set, tag))
    }

    /// Whether a tenant's provider is not the one that the copy of control.db names. Keys without one open everywhere.
    fn is_another(&self, id: TenantId, provider: Option<&Provider>) -> bool {
        provider.is_some() && provider != self.providers.get(&id)
    }

    /// The same, as things are now.
    pub(super) async fn has_moved(&self, id: TenantId) -> bool {
        let provider = blocking(self.source, move |source| source.provider(id)).await;
        provider.is_ok_and(|provider| self.is_another(id, provider.as_ref()))
    }

    /// What belongs to a tenant now, and how many bytes had to be stored for it.
    pub(super) async fn tenant(&mut self, id: TenantId) -> Result<(TenantEntry, u64), Failure> {
        if let Some(unchanged) = self.unchanged(id).await? {
            let (keys, _) = self.keys(id).await?;
            // Under other keys than now it may need one that was destroyed since.
            if keys == unchanged.keys {
                return Ok((unchanged, 0));
            }
        }
        let pin = self.source.pin(id).await.map_err(Failure::Tenant)?;
        // After the pin, which is under no newer ones, and before the log that may be under the newest.
        let (mut keys, tag) = self.keys(id).await?;
        let mut stored = 0;
        let mut manifests = Vec::with_capacity(pin.manifests.len());
        for file in &pin.manifests {
            manifests.push(self.manifest(id, file, &mut stored).await?);
        }
        let mut files = Vec::with_capacity(pin.files.len());
        for file in &pin.files {
            self.watch.check().map_err(Failure::All)?;
            files.push(self.file(id, file, &mut stored).await?);
        }
        let mut log = Vec::with_capacity(pin.log.len());
        for piece in &pin.log {
            self.watch.check().map_err(Failure::All)?;
            log.push(self.log_file(id, piece, &mut stored).await?);
        }
        let (pin, facts) = self.source.facts(pin).await.map_err(Failure::Tenant)?;
        let facts_of = self.id.clone();
        let sealed =
            blocking(self.source, move |source| entry::seal(source.control(), id, &facts_of, &facts));
        let facts = sealed.await.map_err(Failure::Tenant)?;
        // The facts may be under a key that came meanwhile.
        let now = blocking(self.source, move |source| source.keys_tag(id)).await.map_err(Failure::Tenant)?;
        if now != tag {
            (keys, _) = self.keys(id).await?;
        }
        let tenant = TenantEntry {
            tenant: id.to_string(),
            keys,
            lsn: pin.lsn.0,
            time_us: pin.time_us,
            manifests,
            files,
            log,
            facts_of: self.id.clone(),
            facts,
        };
        Ok((tenant, stored))
    }

    /// The last backup's entry, for a tenant that cannot be read now: better than none. Not under other keys: those of
    /// then are retired, and control.db is under the new ones. Errors: the repository's.
    pub(super) async fn older(&self, id: TenantId) -> Result<Option<TenantEntry>> {
        let Some(last) = self.known.last.get(&id).filter(|last| self.known.has_all(last)) else {
            return Ok(None);
        };
        // Where neither side can tell, whoever restores is told.
        let tag = blocking(self.source, move |source| source.keys_tag(id)).await;
        let is_same = match tag {
            Ok(tag) => match keys::is_of(self.repository, id, &last.keys, &tag).await {
                Ok(is_same) => is_same,
                Err(error) => match Failure::of_object(error) {
                    Failure::Tenant(_) => true,
                    Failure::All(error) => return Err(error),
                },
            },
            Err(_) => true,
        };
        Ok(is_same.then(|| last.clone()))
    }

    /// The last backup's entry, if the tenant is not open and its log is what it was then, to the byte. Its newest
    /// manifest as well: the names of snapshots are in no log.
    async fn unchanged(&self, id: TenantId) -> Result<Option<TenantEntry>, Failure> {
        let Some(last) = self.known.last.get(&id).filter(|last| self.known.has_all(last)) else {
            return Ok(None);
        };
        let now = blocking(self.source, move |source: &Source| {
            Ok((source.closed_log(id)?, source.newest_manifest(id)?))
        });
        let (log, manifest) = now.await.map_err(Failure::Tenant)?;
        let end = log.as_ref().and_then(|pieces| pieces.last());
        let same = match (end, last.log.last()) {
            (Some(now), Some(then)) => {
                (now.number, now.bytes) == (then.number, then.bytes) && now.file.to_string() == then.file
            }
            _ => false,
        };
        let then = last.manifests.iter().filter_map(|object| names::manifest_number(id, &object.name)).max();
        Ok((same && then == manifest).then(|| last.clone()))
    }

    async fn manifest(&self, id: TenantId, file: &CopiedFile, stored: &mut u64) -> Result<Object, Failure> {
        let path = &file.path;
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|error| Failure::Tenant(failed("read", &path.display().to_string(), &error)))?;
        let hash = hex(&sha256(&bytes));
        let name = names::manifest(id, &file.name, &hash);
        let object = Object { name, bytes: bytes.len() as u64, sha256: hash };
        if self.known.stored.get(&object.name) != Some(&object.bytes) {
            self.repository.put(&object.name, bytes).await.map_err(Failure::All)?;
            self.watch.moved(object.bytes);
            *stored += object.bytes;
        }
        Ok(object)
    }

    async fn file(&self, id: TenantId, file: &CopiedFile, stored: &mut u64) -> Result<Object, Failure> {
        let name = names::tenant_file(id, &file.name);
        if let Some(known) = self.known.object(&name, file.bytes) {
            return Ok(known);
        }
        // One that a killed run stored has no hash that anybody knows: it is stored again, in its place.
        let content = self.repository.put_file(&name, &file.path, (0, file.bytes), self.pace).await;
        let content = content.map_err(of_storing)?;
        self.watch.moved(content.bytes);
        *stored += content.bytes;
        Ok(Object { name, bytes: content.bytes, sha256: content.sha256 })
    }

    async fn log_file(
        &mut self,
        id: TenantId,
        piece: &LogPiece,
        stored: &mut u64,
    ) -> Result<LogFile, Failure> {
        let archived = self.known.logs.entry(id).or_default();
        let brought = archived.bring(self.repository, (id, &self.line), piece, self.pace).await;
        let (parts, bytes) = brought.map_err(of_storing)?;
        if bytes > 0 {
            self.watch.moved(bytes);
            *stored += bytes;
        }
        Ok(LogFile { number: piece.number, file: piece.file.to_string(), bytes: piece.bytes, parts })
    }
}

fn moved(tenant: TenantId) -> Error {
    let why = format!("tenant {tenant} got another key provider while the backup was made");
    Error::new(SqlState::ObjectInUse, why).with_hint("Another backup follows at once: it has the tenant.")
}

/// A tenant's file that cannot be read is its own; the repository is everybody's.
fn of_storing(error: TransferError) -> Failure {
    match error {
        TransferError::File(error) => Failure::Tenant(error),
        TransferError::Object(error) => Failure::All(error),
    }
}
