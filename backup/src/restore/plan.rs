//! Which objects a restore needs: those of the backup, and the log that was archived after it.

use sepal_database::{
    Error, Result, SqlState, TenantId,
    backup::{FileId, Until},
};

use super::Target;
use crate::{
    clones,
    entry::{Object, TenantEntry},
    failure::Failure,
    log::Archived,
    names::{self, Mark},
    repository::Repository,
};

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
    /// The repository has later log that does not follow: what lies between was never archived.
    pub has_gap: bool,
    /// How far that is replayed.
    pub until: Until,
}

impl TenantPlan {
    /// The backup as it was made.
    pub(crate) fn of(tenant: &TenantEntry) -> Result<Self> {
        Ok(Self {
            id: tenant.id()?,
            keys: tenant.keys.clone(),
            line: None,
            files: tenant.manifests.iter().chain(&tenant.files).cloned().collect(),
            log: tenant.log.iter().map(|file| (file.number, file.parts.clone(), file.bytes)).collect(),
            has_gap: false,
            until: Until::Commit(tenant.lsn()),
        })
    }

    /// With the log of a line that was archived since, unless one backup is meant.
    pub(crate) async fn up_to(
        target: &Target,
        repository: &Repository,
        line: &str,
        tenant: &TenantEntry,
    ) -> Result<Self, Failure> {
        let mut plan = Self::of(tenant).map_err(Failure::Tenant)?;
        plan.until = match target {
            Target::Backup(_) => return Ok(plan),
            Target::Moment(at) => Until::Time(*at),
            Target::Latest => Until::End,
        };
        let archived = Archived::load(repository, plan.id, line).await.map_err(Failure::All)?;
        plan.extend(tenant, &archived).map_err(Failure::Tenant)?;
        plan.line = Some(line.to_owned());
        plan.add_named(tenant, clones::load(repository, plan.id, line).await.map_err(Failure::All)?);
        Ok(plan)
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
                self.has_gap = archived.goes_beyond(number.saturating_sub(1));
                return Ok(());
            }
            self.log.push((number, parts, bytes));
            let next = one(self.id, number + 1, archived.files(number + 1))?;
            let Some(next) = next else {
                self.has_gap = archived.goes_beyond(number);
                return Ok(());
            };
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
