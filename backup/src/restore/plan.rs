//! Which objects a restore needs: those of the backup, and the log that was archived after it.

use std::collections::HashMap;

use sepal_database::{
    Error, Result, SqlState, TenantId,
    backup::{FileId, Lsn, Until},
};

use super::Target;
use crate::{
    clones,
    entry::{Entry, Object, TenantEntry},
    log::Archived,
    names::{self, Mark},
    repository::Repository,
};

/// All tenants of a backup.
pub(crate) struct Plan {
    pub tenants: Vec<TenantPlan>,
    untils: HashMap<TenantId, Until>,
}

/// One tenant's files, by where they go.
pub(crate) struct TenantPlan {
    pub id: TenantId,
    /// Which set of wrapped keys.
    pub keys: String,
    /// Whose later sets are needed as well, for the log that was archived after the backup.
    pub line: Option<String>,
    /// Manifests, segments, deletion vectors, indexes.
    pub files: Vec<Object>,
    /// By number: the names of the parts, in order, and the length that must be reached.
    pub log: Vec<(u64, Vec<String>, u64)>,
}

impl Plan {
    pub(crate) async fn of(repository: &Repository, entry: &Entry, target: &Target) -> Result<Self> {
        let mut plan = Self { tenants: Vec::new(), untils: HashMap::new() };
        for tenant in &entry.tenants {
            let id = tenant.id()?;
            let mut planned = TenantPlan::of(tenant)?;
            let until = match target {
                Target::Backup(_) => Until::Commit(tenant.lsn()),
                Target::Moment(at) => Until::Time(*at),
                Target::Latest => Until::End,
            };
            if !matches!(until, Until::Commit(Lsn(_))) {
                let archived = Archived::load(repository, id, &entry.line).await?;
                planned.extend(tenant, &archived)?;
                planned.line = Some(entry.line.clone());
                planned.add_named(tenant, clones::load(repository, id, &entry.line).await?);
            }
            plan.untils.insert(id, until);
            plan.tenants.push(planned);
        }
        Ok(plan)
    }

    pub(crate) fn until(&self, tenant: TenantId) -> Until {
        self.untils.get(&tenant).copied().unwrap_or(Until::End)
    }
}

impl TenantPlan {
    pub(crate) fn of(tenant: &TenantEntry) -> Result<Self> {
        Ok(Self {
            id: tenant.id()?,
            keys: tenant.keys.clone(),
            line: None,
            files: tenant.manifests.iter().chain(&tenant.files).cloned().collect(),
            log: tenant.log.iter().map(|file| (file.number, file.parts.clone(), file.bytes)).collect(),
        })
    }

    /// Adds the files that the log since names.
    fn add_named(&mut self, tenant: &TenantEntry, marks: Vec<Mark>) {
        let from = tenant.log.first().map_or(0, |file| file.number);
        for mark in marks.into_iter().filter(|mark| mark.number >= from) {
            if self.files.iter().all(|file| file.name != mark.object.name) {
                self.files.push(mark.object);
            }
        }
    }

    /// Adds what was archived since: the rest of the last file, and those after it.
    fn extend(&mut self, tenant: &TenantEntry, archived: &Archived) -> Result<()> {
        let Some(last) = tenant.log.last() else { return Ok(()) };
        let (mut number, mut file) = (last.number, last.file_id()?);
        self.log.pop();
        loop {
            let (parts, bytes) = archived.chain(number, file, u64::MAX);
            let parts: Vec<String> = parts.into_iter().map(names::Part::name).collect();
            // The backup's own parts may have been archived by another process, under the same names.
            let own = (number == last.number && bytes < last.bytes).then(|| (last.parts.clone(), last.bytes));
            let (parts, bytes) = own.unwrap_or((parts, bytes));
            if bytes == 0 {
                return Ok(());
            }
            self.log.push((number, parts, bytes));
            let next = one(self.id, number + 1, archived.files(number + 1))?;
            let Some(next) = next else { return Ok(()) };
            (number, file) = (number + 1, next);
        }
    }
}

/// The one file of a number. Two are two histories, and nobody here knows which is meant.
fn one(tenant: TenantId, number: u64, files: Vec<FileId>) -> Result<Option<FileId>> {
    match files[..] {
        [] => Ok(None),
        [file] => Ok(Some(file)),
        _ => Err(Error::new(
            SqlState::DataCorrupted,
            format!("log file {number} of tenant {tenant} was archived by two servers with different content"),
        )
        .with_hint(
            "A copy of the data directory was served against the same repository. Restore a backup as it was made \
             (--backup ID), without the log after it.",
        )),
    }
}
