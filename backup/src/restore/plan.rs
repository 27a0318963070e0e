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
    /// The repository has later log that does not follow: what lies between was never archived, or is gone.
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
        plan.follow(repository, line, tenant, u64::MAX).await?;
        Ok(plan)
    }

    /// With the log of a line that was archived since: up to what a later backup of the line ends with, or all of it.
    pub(crate) async fn since(
        repository: &Repository,
        line: &str,
        tenant: &TenantEntry,
        next: Option<&TenantEntry>,
    ) -> Result<Self, Failure> {
        let mut plan = Self::of(tenant).map_err(Failure::Tenant)?;
        plan.until = next.map_or(Until::End, |next| Until::Commit(next.lsn()));
        let last = next.and_then(|next| next.log.last()).map_or(u64::MAX, |file| file.number);
        plan.follow(repository, line, tenant, last).await?;
        Ok(plan)
    }

    /// Adds what the archive has of the log, up to its file `last`, and what that needs.
    async fn follow(
        &mut self,
        repository: &Repository,
        line: &str,
        tenant: &TenantEntry,
        last: u64,
    ) -> Result<(), Failure> {
        let archived = Archived::load(repository, self.id, line).await.map_err(Failure::All)?;
        self.extend(tenant, &archived, last).map_err(Failure::Tenant)?;
        self.line = Some(line.to_owned());
        self.add_named(tenant, clones::load(repository, self.id, line).await.map_err(Failure::All)?);
        Ok(())
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

    /// Adds what was archived since: the rest of the last file, and those after it up to number `until`.
    fn extend(&mut self, tenant: &TenantEntry, archived: &Archived, until: u64) -> Result<()> {
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
            let is_torn = archived.goes_on_after(number, file, bytes);
            // Nothing after a tear can be replayed, and with it what is before could not, either.
            if is_torn || number >= until {
                self.has_gap = is_torn;
                return Ok(());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entry::LogFile, names::Part};

    const TENANT: TenantId = TenantId([1; 16]);
    const FILE: FileId = FileId([2; 16]);

    fn part(number: u64, from: u64, to: u64) -> String {
        let (line, hash) = ("l".to_owned(), "0".repeat(32));
        Part { tenant: TENANT, line, number, file: FILE, from, to, hash }.name()
    }

    /// What a restore takes of these parts, after a backup that ends at byte 10 of log file 1.
    fn planned(parts: &[String]) -> (Vec<(u64, u64)>, bool) {
        let entry = TenantEntry {
            tenant: TENANT.to_string(),
            keys: String::new(),
            lsn: 1,
            time_us: 1,
            manifests: Vec::new(),
            files: Vec::new(),
            log: vec![LogFile { number: 1, file: FILE.to_string(), bytes: 10, parts: vec![part(1, 0, 10)] }],
            facts_of: String::new(),
            facts: String::new(),
        };
        let mut archived = Archived::of(parts.iter().map(String::as_str), "l");
        let archived = archived.remove(&TENANT).unwrap();
        let mut plan = TenantPlan::of(&entry).unwrap();
        plan.extend(&entry, &archived, u64::MAX).unwrap();
        (plan.log.iter().map(|(number, _, bytes)| (*number, *bytes)).collect(), plan.has_gap)
    }

    #[test]
    fn the_log_is_followed_as_far_as_nothing_is_missing() {
        let whole = [part(1, 0, 10), part(1, 10, 30), part(2, 0, 5), part(3, 0, 7)];
        assert_eq!(planned(&whole), (vec![(1, 30), (2, 5), (3, 7)], false));
        // A backup's part beside the archive's.
        let beside = [part(1, 0, 10), part(1, 10, 20), part(1, 10, 25), part(1, 20, 30), part(2, 0, 5)];
        assert_eq!(planned(&beside), (vec![(1, 30), (2, 5)], false));
        let without_a_file = [part(1, 0, 10), part(1, 10, 30), part(3, 0, 7)];
        assert_eq!(planned(&without_a_file), (vec![(1, 30)], true));
        let torn = [part(1, 0, 10), part(1, 20, 30), part(2, 0, 5)];
        assert_eq!(planned(&torn), (vec![(1, 10)], true), "the next file would not fit the end of this one");
    }
}
