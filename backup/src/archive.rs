//! The log, carried into the repository as it grows: what a restore to any moment needs beside a backup.
//!
//! The server calls [`Archive::round`] every minute. A tenant's log is kept until it was carried over
//! (`DatabaseOptions::archive_logs`); a repository that is away for long costs disk first, up to the limit that
//! pipelines have too, and then a gap. A gap is said aloud, and the next backup ends it. The first round looks at every
//! tenant's log, open or not: what a process before this one left is carried over before anything is said of it.
//!
//! Before the log goes what opens it: files that clones in it share (`clones`), and keys that came since the last
//! backup (`keys`). Nothing here keeps a tenant open.

use std::collections::{HashMap, HashSet};

use sepal_database::{
    Error, Result, SqlState, TenantId,
    backup::{self, CopiedFile, LogPiece, OpenLog, Source},
};

use crate::{
    clones,
    create::blocking,
    identity, keys,
    lock::{Job, Lock},
    log::Archived,
    moment::now_us,
    names::{self, Mark},
    pace::Pace,
    reach,
    repository::Repository,
};

/// What one process has carried over.
pub struct Archive {
    source: Source,
    repository: Repository,
    line: String,
    /// The repository's id: one that was begun anew in its place has nothing of what is known.
    id: Option<String>,
    known: HashMap<TenantId, Known>,
    /// Those that were open in the last round, or were opened since, or whose log is not all here: their last bytes are
    /// still to come when they are not open.
    open: HashSet<TenantId>,
}

/// What the repository has of a tenant.
struct Known {
    log: Archived,
    /// Files that the log names, by their objects, with the mark of the newest log that does. `None`: it was gone.
    named: HashMap<String, Option<Mark>>,
    /// Which keys were seen last.
    keys: Option<String>,
}

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub bytes: u64,
    pub tenants: u64,
    /// Tenants whose log was let go before it was carried over, or what it names.
    pub gaps: Vec<TenantId>,
    /// Tenants whose keys are others than in the last backup.
    pub renewed: Vec<TenantId>,
}

impl Archive {
    pub async fn new(source: Source, repository: Repository) -> Result<Self> {
        let line = blocking(&source, |source| identity::line(source.data_dir())).await?;
        Ok(Self { source, repository, line, id: None, known: HashMap::new(), open: HashSet::new() })
    }

    /// Carries over what is durable by now. One tenant's failure does not keep the others' back; the first is given.
    /// `round` is told what was done, with a failure, too: neither a gap nor a new key is found again.
    pub async fn round(&mut self, pace: &Pace, round: &mut Round) -> Result<()> {
        let id = Some(identity::settle(&self.repository, &self.source, false).await?);
        if self.id != id {
            self.known.clear();
            let behind = self.behind().await?;
            self.open.extend(behind);
            self.id = id;
        }
        // What is committed from here on the next round may find.
        let since = now_us();
        // One that was opened and closed since the last round has closed as well.
        self.open.extend(self.source.opened());
        let mut complete = true;
        let mut first_error = None;
        let mut open = HashSet::new();
        for log in self.source.open_logs() {
            open.insert(log.tenant());
            if let Err(error) = self.of_open(log, pace, round).await {
                first_error.get_or_insert(error);
            }
        }
        for tenant in std::mem::replace(&mut self.open, open) {
            if self.open.contains(&tenant) {
                continue;
            }
            match self.of_closed(tenant, pace, round).await {
                Ok(true) => {}
                Ok(false) => {
                    complete = false;
                    self.open.insert(tenant);
                }
                Err(error) => {
                    self.open.insert(tenant);
                    first_error.get_or_insert(error);
                }
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        if complete && round.gaps.is_empty() {
            reach::note(&self.repository, self.source.control(), &self.line, since).await?;
        }
        Ok(())
    }

    /// Tenants whose log is not all in the repository, which this process may never have had open: the one before it
    /// was killed, or ended while the repository was away, or carried the log to another one. Opens none.
    async fn behind(&self) -> Result<Vec<TenantId>> {
        let listed = self.repository.list(names::TENANTS).await?;
        let archived = Archived::of(listed.iter().map(|object| object.name.as_str()), &self.line);
        blocking(&self.source, move |source: &Source| {
            let is_here = |tenant: TenantId| {
                // One that is open, or cannot be read, is looked at with the others.
                let Ok(Some(pieces)) = source.closed_log(tenant) else { return false };
                let archived = archived.get(&tenant);
                pieces.iter().all(|piece| archived.is_some_and(|archived| archived.has(piece)))
            };
            Ok(source.tenants()?.into_iter().filter(|tenant| !is_here(*tenant)).collect())
        })
        .await
    }

    async fn of_open(&mut self, log: OpenLog, pace: &Pace, round: &mut Round) -> Result<()> {
        let tenant = log.tenant();
        let looked = backup::blocking("looking at a log", move || {
            // The files after the log: what it names by then is among them.
            Ok((log.has_gap()?, log.pieces()?, log.clones(), log))
        });
        let (gap, pieces, clones, log) = looked.await?;
        if gap {
            round.gaps.push(tenant);
        }
        if !self.renew_keys(tenant, round).await? {
            return Ok(());
        }
        let number = pieces.last().map_or(0, |piece| piece.number);
        self.carry_clones(&log, (number, &clones), pace, round).await?;
        self.carry(tenant, &pieces, pace, round).await?;
        if let Some(newest) = pieces.last() {
            log.archived(newest.base_lsn);
        }
        Ok(())
    }

    /// `false`: it is being opened or closed, and to be looked at again.
    async fn of_closed(&mut self, tenant: TenantId, pace: &Pace, round: &mut Round) -> Result<bool> {
        let closed = blocking(&self.source, move |source: &Source| source.closed_log(tenant)).await?;
        let Some(pieces) = closed else { return Ok(false) };
        if self.renew_keys(tenant, round).await? {
            self.carry(tenant, &pieces, pace, round).await?;
        } else {
            self.known.remove(&tenant);
        }
        Ok(true)
    }

    /// Stores the tenant's keys if backups have others: the log that is carried next may be written under them.
    /// `false`: there is no such tenant any more.
    async fn renew_keys(&mut self, tenant: TenantId, round: &mut Round) -> Result<bool> {
        let Some(tag) = self.keys_tag(tenant).await? else { return Ok(false) };
        if self.known(tenant).await?.keys.as_ref() == Some(&tag) {
            return Ok(true);
        }
        if keys::lacks(&self.repository, tenant, &tag).await? {
            // Not beside a prune, which changes the same object.
            let lock = Lock::take(&self.repository, Job::Backup).await?;
            if !lock.hold(self.store_keys(tenant, &tag)).await? {
                return Ok(false);
            }
            round.renewed.push(tenant);
        }
        self.known(tenant).await?.keys = Some(tag);
        Ok(true)
    }

    /// `false`: the tenant was dropped meanwhile.
    async fn store_keys(&self, tenant: TenantId, tag: &str) -> Result<bool> {
        let sealed = blocking(&self.source, move |source: &Source| source.sealed_keys(tenant)).await;
        match sealed {
            Ok(sealed) => {
                let whose = (tenant, self.line.as_str());
                keys::store(&self.repository, self.source.control(), whose, tag, &sealed).await?;
            }
            Err(error) if error.state() != SqlState::UndefinedObject => return Err(error),
            Err(_) => {}
        }
        if self.keys_tag(tenant).await?.is_some() {
            return Ok(true);
        }
        // The drop may have removed them before they were stored.
        keys::destroy(&self.repository, self.source.control(), tenant).await?;
        Ok(false)
    }

    /// `None`: no such tenant.
    async fn keys_tag(&self, tenant: TenantId) -> Result<Option<String>> {
        match blocking(&self.source, move |source: &Source| source.keys_tag(tenant)).await {
            Err(error) if error.state() == SqlState::UndefinedObject => Ok(None),
            tag => tag.map(Some),
        }
    }

    /// Files that clones in the log up to file `number` name.
    async fn carry_clones(
        &mut self,
        log: &OpenLog,
        (number, clones): (u64, &[CopiedFile]),
        pace: &Pace,
        round: &mut Round,
    ) -> Result<()> {
        if clones.is_empty() {
            return Ok(());
        }
        // Not beside a prune: one that listed the repository before a mark was there would remove the file.
        let lock = Lock::take(&self.repository, Job::Backup).await?;
        let carried = async {
            for file in clones {
                self.carry_named(log.tenant(), number, file, pace, round).await?;
                log.clone_archived(file);
            }
            Ok(())
        };
        lock.hold(carried).await
    }

    async fn carry_named(
        &mut self,
        tenant: TenantId,
        number: u64,
        file: &CopiedFile,
        pace: &Pace,
        round: &mut Round,
    ) -> Result<()> {
        let name = names::tenant_file(tenant, &file.name);
        let before = match self.known(tenant).await?.named.get(&name) {
            Some(None) => return Ok(()),
            Some(Some(mark)) if mark.number >= number => return Ok(()),
            // A mark of earlier log goes with the backups before it, and the file with the mark.
            Some(Some(mark)) => Some(mark.object.clone()),
            None => None,
        };
        let whose = (tenant, self.line.as_str());
        let stored = clones::bring(&self.repository, whose, number, file, before, pace).await?;
        match &stored {
            Some((_, bytes)) => round.bytes += bytes,
            None => round.gaps.push(tenant),
        }
        self.known(tenant).await?.named.insert(name, stored.map(|(mark, _)| mark));
        Ok(())
    }

    async fn carry(
        &mut self,
        tenant: TenantId,
        pieces: &[LogPiece],
        pace: &Pace,
        round: &mut Round,
    ) -> Result<()> {
        let (repository, line) = (self.repository.clone(), self.line.clone());
        let known = self.known(tenant).await?;
        // An open tenant tells of a gap; one that was closed since, or a process that has ended, can do so no more.
        let has_gap = pieces.first().is_some_and(|oldest| known.log.ends_before(oldest));
        let mut carried = 0;
        for piece in pieces {
            let (_, bytes) = known.log.bring(&repository, (tenant, &line), piece, pace).await?;
            // Once: from here on the repository has what comes after it.
            if bytes > 0 && has_gap && !round.gaps.contains(&tenant) {
                round.gaps.push(tenant);
            }
            carried += bytes;
        }
        round.bytes += carried;
        round.tenants += u64::from(carried > 0);
        Ok(())
    }

    async fn known(&mut self, tenant: TenantId) -> Result<&mut Known> {
        if !self.known.contains_key(&tenant) {
            let log = Archived::load(&self.repository, tenant, &self.line).await?;
            let marks = clones::load(&self.repository, tenant, &self.line).await?;
            let mut named: HashMap<String, Option<Mark>> = HashMap::new();
            for mark in marks {
                let newest = named.entry(mark.object.name.clone()).or_default();
                if newest.as_ref().is_none_or(|newest| newest.number < mark.number) {
                    *newest = Some(mark);
                }
            }
            self.known.insert(tenant, Known { log, named, keys: None });
        }
        self.known
            .get_mut(&tenant)
            .ok_or_else(|| Error::bug("what is archived of a tenant is not remembered"))
    }
}
