//! Tries a backup by restoring it: every object fetched and compared, every store opened and replayed to the backup's
//! commit, every row read, and every golden question asked again. What was noted when the backup was made, sealed in
//! its entry, must be found. Then the log that was archived since is tried as well, as a restore to a moment would use
//! it (`archived`).
//!
//! One tenant at a time lies in the temporary directory, and no key ever does: they are in memory only, so that nothing
//! opens there when a verification is cut short. The next one removes what such a one left. What is wrong with one
//! tenant does not end the verification: it is reported, and the others are tried. With the root key the recovery
//! package is tried as well: who restores elsewhere has nothing else.

mod archived;

use std::{
    fs,
    io::ErrorKind as IoErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sepal_database::{
    Control, Error, ErrorKind, Result, SqlState, Tenant, TenantId,
    backup::{Difference, Noted, Restoring, Source, Until, Wrappers, blocking, note},
};
use serde::{Deserialize, Serialize};

pub use self::archived::Since;
use crate::{
    entry::{self, Entry, ReadEntry, TenantEntry},
    failure::Failure,
    identity, keys, limits,
    moment::now_us,
    names,
    pace::Pace,
    repository::{Repository, damaged, failed},
    restore::{
        Opener, Target, TenantPlan, choose,
        fetch::{self, Fetch, Fetched},
        open_root, wanted,
    },
    watch::Watch,
};

/// How temporary directories begin.
const PREFIX: &str = "sepal-verify-";
/// One of this age that nobody has locked belongs to nobody: between making it and locking it lie moments.
const ABANDONED: Duration = Duration::from_secs(3600);

/// As an error calls what panicked.
const STEP: &str = "a step of the verification";

/// How a backup is tried.
#[derive(Clone)]
pub struct VerifyOptions {
    /// An id, or the newest.
    pub target: Target,
    /// `None`: all.
    pub tenant: Option<String>,
    /// Where the temporary directory is made: room for the largest tenant is needed.
    pub work: PathBuf,
    /// Reaches the providers of tenants that brought one.
    pub wrappers: Arc<dyn Wrappers>,
}

/// What was tried, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub backup: String,
    /// Microseconds since 1970.
    pub made_us: i64,
    pub verified_us: i64,
    pub tenants: Vec<TenantReport>,
    /// Tenants that were dropped since: their keys are gone, as they should be.
    pub dropped: Vec<String>,
    /// Tenants that were left out when the backup was made, because they could not be read.
    pub missing: Vec<String>,
    /// Tenants that could not be read then, and are in it as of an earlier backup. They are among those that were
    /// tried.
    #[serde(default)]
    pub older: Vec<String>,
    /// What is wrong with the backup as a whole.
    #[serde(default)]
    pub wrong: Vec<String>,
    pub audit_entries: u64,
    pub objects: u64,
    pub bytes: u64,
}

/// One tenant's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantReport {
    pub name: String,
    pub tables: u64,
    pub rows: u64,
    /// Golden questions that were asked again.
    pub questions: u64,
    /// What the log brings that was archived after the backup. `None`: it was not tried, because the tenant is in the
    /// backup as of an earlier one, or does not come back at all.
    #[serde(default)]
    pub since: Option<Since>,
    /// What is not as it was; empty when all is well.
    pub wrong: Vec<String>,
}

impl Report {
    /// Whether everything that should be there came back as it was.
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.problems().next().is_none()
    }

    /// All that is not as it was.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let tenants = self.tenants.iter().flat_map(|tenant| &tenant.wrong);
        self.wrong.iter().chain(tenants).map(String::as_str)
    }
}

/// A verification, as the repository remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub backup: String,
    pub verified_us: i64,
    pub good: bool,
    pub rows: u64,
}

impl Verified {
    fn decode(name: &str, bytes: &[u8], backup: &str, control: Option<&Control>) -> Result<Self> {
        let (line, mac) = entry::lines(name, bytes)?;
        if let Some(control) = control {
            entry::check_mac(control, name, (&line, &mac))?;
        }
        let verified: Self = serde_json::from_str(&line).map_err(|error| damaged(name, error))?;
        if verified.backup != backup {
            return Err(damaged(name, format!("it is of backup {:?}", verified.backup)));
        }
        Ok(verified)
    }
}

/// Restores a backup to the side and compares. A good or bad outcome is noted in the repository, unless only one
/// tenant was tried.
///
/// Errors: what keeps the whole from being tried: no such backup, a wrong key, a damaged entry or control.db.
pub async fn verify(
    repository: &Repository,
    opener: &Opener,
    options: &VerifyOptions,
    (pace, watch): (&Pace, &Watch),
) -> Result<Report> {
    identity::must_be_made(repository).await?;
    let read = choose(repository, &options.target).await?;
    let root = open_root(repository, &read.entry, opener).await?;
    let place = make_place(&options.work).await?;
    let control = place.path().join("control.db");
    fetch::object(repository, &read.entry.control, &control, pace).await?;
    let (data, wrappers) = (place.path().to_owned(), Arc::clone(&options.wrappers));
    let opened = blocking("opening control.db", move || Restoring::on_trial(&data, &root, wrappers)).await;
    let opened = opened.map_err(|error| match (error.state(), opener) {
        (SqlState::InvalidAuthorization, Opener::Root(_)) => under_another_root(&read.entry.id),
        _ => error,
    })?;
    read.check(opened.control())?;
    let restoring = Arc::new(opened);
    let fetch = Fetch { repository, pace, watch, data: place.path(), format: read.entry.version };
    let later = entry::later(repository, restoring.control(), &read.entry).await?;
    let verification = Verification { fetch, read: &read, later, restoring: &restoring };
    let mut report = verification.run(options).await?;
    if matches!(opener, Opener::Root(_)) {
        report.wrong.extend(verification.recovery_fails().await?);
    }
    if options.tenant.is_none() {
        let outcome = Verified {
            backup: report.backup.clone(),
            verified_us: report.verified_us,
            good: report.is_good(),
            rows: report.tenants.iter().map(|tenant| tenant.rows).sum(),
        };
        let bytes = entry::signed(restoring.control(), &outcome)?;
        repository.put(&names::verified(&report.backup), bytes).await?;
    }
    Ok(report)
}

/// Makes the temporary directory, and removes those of verifications that were cut short.
async fn make_place(work: &Path) -> Result<tempfile::TempDir> {
    let work = work.to_owned();
    blocking(STEP, move || {
        let show = work.display().to_string();
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&work);
        let place = made.map_err(|error| failed("make a directory in", &show, &error))?;
        for left in abandoned(&work, place.path()) {
            match fs::remove_dir_all(&left) {
                Ok(()) => tracing::info!(path = %left.display(), "removed what a verification had left"),
                Err(error) if error.kind() == IoErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path = %left.display(), "what a verification left stays: remove it");
                }
            }
        }
        Ok(place)
    })
    .await
}

fn under_another_root(backup: &str) -> Error {
    let why =
        format!("the root key does not open backup {backup}: it was made before the root key was replaced");
    Error::new(SqlState::InvalidAuthorization, why)
        .with_hint("Try it with the recovery key: --recovery-key-file or --shares-file.")
}

/// Our own user's alone: the system's temporary directory has others', too.
fn abandoned(work: &Path, ours: &Path) -> Vec<PathBuf> {
    let Ok(user) = fs::metadata(ours).map(|metadata| metadata.uid()) else { return Vec::new() };
    let is_abandoned = |path: &PathBuf| {
        let named =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        let Ok(metadata) = fs::symlink_metadata(path) else { return false };
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
        named && metadata.is_dir() && metadata.uid() == user && age > ABANDONED && !is_locked(path)
    };
    let entries = fs::read_dir(work).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path != ours).filter(is_abandoned).collect()
}

/// As [`Restoring`] locks it.
fn is_locked(place: &Path) -> bool {
    fs::File::open(place.join("lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

/// Notes a verification in the audit trail of the instance whose backup it is.
pub async fn note_verified(source: &Source, report: &Report) -> Result<()> {
    let facts = serde_json::json!({ "good": report.is_good(), "tenants": report.tenants.len() });
    let (source, backup) = (source.clone(), report.backup.clone());
    blocking(STEP, move || note(source.control(), Noted::Verified, &backup, facts)).await
}

/// One run.
struct Verification<'a> {
    fetch: Fetch<'a>,
    read: &'a ReadEntry,
    later: Vec<Entry>,
    restoring: &'a Arc<Restoring>,
}

impl Verification<'_> {
    async fn run(&self, options: &VerifyOptions) -> Result<Report> {
        let entry = &self.read.entry;
        let restoring = Arc::clone(self.restoring);
        let audit_entries = blocking(STEP, move || restoring.check_audit()).await?;
        let known = self.restoring.tenants()?;
        let wanted = wanted(&known, options.tenant.as_deref())?;
        let chosen: Vec<&Tenant> =
            known.iter().filter(|tenant| wanted.is_none_or(|only| only == tenant.id)).collect();
        self.fetch.watch.stage("verifying tenants", chosen.len());
        let mut report = Report {
            backup: entry.id.clone(),
            made_us: entry.finished_us,
            audit_entries,
            ..Report::default()
        };
        for tenant in chosen {
            self.fetch.watch.check()?;
            let name = tenant.name.to_string();
            let left_out = entry.failure_of(tenant.id).is_some();
            match entry.tenants.iter().find(|found| found.tenant == tenant.id.to_string()) {
                Some(found) => {
                    if left_out {
                        report.older.push(name.clone());
                    }
                    match self.tenant(tenant.id, found).await? {
                        Some(tried) => report.tenants.push(TenantReport { name, ..tried }),
                        None => report.dropped.push(name),
                    }
                }
                None if left_out => report.missing.push(name),
                None => report.dropped.push(name),
            }
            self.fetch.watch.tenant_done();
        }
        let progress = self.fetch.watch.now();
        (report.objects, report.bytes) = (progress.objects, progress.bytes);
        report.verified_us = now_us();
        Ok(report)
    }

    /// `None`: its keys are gone.
    async fn tenant(&self, id: TenantId, noted: &TenantEntry) -> Result<Option<TenantReport>> {
        let tried = self.try_tenant(id, noted).await;
        let root = self.fetch.root(id);
        if let Err(error) = tokio::fs::remove_dir_all(&root).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a verified tenant's files stay until the verification ends");
        }
        match tried {
            Ok(tried) => Ok(tried),
            Err(Failure::Tenant(error)) => {
                let wrong = vec![error.operator_message().to_owned()];
                Ok(Some(TenantReport { wrong, ..TenantReport::default() }))
            }
            Err(Failure::All(error)) => Err(error),
        }
    }

    /// Why the recovery key would not restore this backup, where it was not what opened it: on another machine there is
    /// nothing else.
    async fn recovery_fails(&self) -> Result<Option<String>> {
        let checked = match keys::load_recovery(self.fetch.repository, &self.read.entry.recovery).await {
            Ok(package) => {
                let restoring = Arc::clone(self.restoring);
                blocking(STEP, move || restoring.check_recovery_package(&package)).await
            }
            Err(error) => Err(error),
        };
        match checked {
            Ok(()) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                Ok(Some(error.operator_message().to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    async fn try_tenant(&self, id: TenantId, noted: &TenantEntry) -> Result<Option<TenantReport>, Failure> {
        let plan = TenantPlan::of(noted).map_err(Failure::Tenant)?;
        if self.fetch.tenant(self.restoring, &plan).await? == Fetched::Dropped {
            return Ok(None);
        }
        let (restoring, facts) = (Arc::clone(self.restoring), noted.clone());
        let facts = blocking(STEP, move || facts.open_facts(restoring.control())).await;
        let facts = facts.map_err(Failure::Tenant)?;
        let (restoring, lsn) = (Arc::clone(self.restoring), noted.lsn());
        let (tables, questions) =
            (facts.len() as u64, facts.iter().map(|facts| facts.golden.len() as u64).sum());
        let (rows, differences) = blocking(STEP, move || {
            let restored = restoring.open_tenant(id, Until::Commit(lsn))?;
            let compared = (restored.rows(), restored.compare(&facts)?);
            restoring.let_go(restored)?;
            Ok(compared)
        })
        .await
        .map_err(Failure::Tenant)?;
        let mut wrong: Vec<String> = differences.into_iter().map(say).collect();
        // One that was taken over from an earlier backup ends before what this backup's control.db knows of it.
        let taken_over = self.read.entry.failure_of(id).is_some();
        let since = if taken_over { None } else { self.since(&plan, noted, &mut wrong).await? };
        Ok(Some(TenantReport { name: String::new(), tables, rows, questions, since, wrong }))
    }
}

fn say(Difference { table, what }: Difference) -> String {
    format!("{table}: {what}")
}

/// What is remembered of a backup's verification. With `control` only what this instance wrote counts.
pub(crate) async fn remembered(
    repository: &Repository,
    backup: &str,
    control: Option<&Control>,
) -> Result<Option<Verified>> {
    let name = names::verified(backup);
    let Some(bytes) = repository.get(&name, limits::SMALL_BYTES).await? else { return Ok(None) };
    match (Verified::decode(&name, &bytes, backup, control), control) {
        (Err(error), Some(_)) => {
            tracing::warn!(backup, %error, "a verification that the backup repository tells of does not count");
            Ok(None)
        }
        (decoded, _) => decoded.map(Some),
    }
}

/// When a backup was last tried and found good, of what this instance signed, whoever tried it.
pub(crate) async fn last_good(repository: &Repository, control: &Control) -> Result<Option<i64>> {
    let mut last = None;
    for listed in repository.list(names::VERIFIED).await? {
        let Some(backup) = names::verified_of(&listed.name) else { continue };
        let verified = remembered(repository, backup, Some(control)).await?;
        last = last.max(verified.filter(|verified| verified.good).map(|verified| verified.verified_us));
    }
    Ok(last)
}
