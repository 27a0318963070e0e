//! `sepal check`: every byte of a data directory is read, nothing is changed.
//!
//! [`check`] takes the directory's lock, so no server runs meanwhile, and goes through control.db (on a copy) and then
//! tenant after tenant, each in the memory that one table needs. What is wrong is a [`Problem`], never an error: one
//! damaged tenant hides no other. What the bytes of a store mean is `sepal_storage`'s to judge, of control.db
//! `sepal_control`'s, of an index `indexes`.

mod indexes;
mod modes;
mod tenants;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_control::{Control, ControlError, ControlOptions, Tenant, Wrappers};
use sepal_crypto::Key;
use sepal_storage::{CheckObserver, Finding};
use sepal_types::{Error, Result, SqlState, TenantId};
use serde::Serialize;

use crate::directory_lock::DirectoryLock;

pub(crate) use indexes::{Indexes, present};
pub use sepal_storage::Severity;
pub(crate) use tenants::store_options;

/// What is to be checked.
pub struct CheckRequest {
    pub data_dir: PathBuf,
    pub root_key: Key,
    /// Reaches the providers that tenants brought for their keys.
    pub wrappers: Arc<dyn Wrappers>,
    /// One tenant by name or id; `None`: all, and what belongs to none.
    pub tenant: Option<String>,
    /// Leave out the content of columns and indexes.
    pub fast: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub severity: Severity,
    pub tenant: Option<TenantId>,
    /// From the data directory on; of a tenant's, from `tenants/` on.
    pub file: String,
    pub what: String,
    pub consequence: String,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    pub tenants_done: u64,
    pub tenants: u64,
    pub bytes_done: u64,
    /// Of all files, when it began.
    pub bytes: u64,
}

/// Hears of a check while it runs.
pub trait CheckListener {
    fn found(&mut self, problem: Problem);

    fn progress(&mut self, progress: CheckProgress);
}

/// What was read, and how much of it is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    pub tenants: u64,
    pub files: u64,
    pub bytes: u64,
    pub tables: u64,
    pub rows: u64,
    pub commits: u64,
    pub errors: u64,
    pub warnings: u64,
}

/// Checks a data directory that no server has open. Blocking.
///
/// Errors: 55006 a server runs; a root key that is not the directory's; 42704 there is no such tenant.
pub fn check(request: &CheckRequest, listener: &mut dyn CheckListener) -> Result<CheckSummary> {
    let _lock = take_lock(&request.data_dir)?;
    Check::new(listener).run(request)
}

/// Nobody may write meanwhile.
pub(crate) fn take_lock(data: &Path) -> Result<DirectoryLock> {
    if !data.join("control.db").exists() {
        return Err(ControlError::NoDatabase(data.join("control.db")).into());
    }
    DirectoryLock::take(data).map_err(|error| match error.state() {
        SqlState::ObjectInUse => error.with_hint(
            "Stop the server first: only a directory at rest can be read whole. While it serves, what it reads is \
             checked as it is read, and a copy of the directory from a file system's snapshot can be checked in its \
             place.",
        ),
        _ => error,
    })
}

/// The copy of control.db. An error that is not the operator's configuration is told as a problem.
pub(crate) fn open_control(
    data: &Path,
    root_key: &Key,
    wrappers: &Arc<dyn Wrappers>,
) -> std::result::Result<Control, ControlError> {
    let options = ControlOptions { wrappers: Arc::clone(wrappers), ..ControlOptions::default() };
    Control::open_copy(&data.join("control.db"), root_key, options)
}

/// Where control.db as a whole could not be read.
const UNLISTED: &str = "which tenants there are, and what else is wrong with it, was not checked. A server may open \
                        some of them all the same, until it needs what is damaged: restore control.db from a backup";

/// One check under way.
pub(crate) struct Check<'a> {
    listener: &'a mut dyn CheckListener,
    pub summary: CheckSummary,
    progress: CheckProgress,
}

impl<'a> Check<'a> {
    pub(crate) fn new(listener: &'a mut dyn CheckListener) -> Self {
        Self { listener, summary: CheckSummary::default(), progress: CheckProgress::default() }
    }

    fn run(mut self, request: &CheckRequest) -> Result<CheckSummary> {
        let control = match open_control(&request.data_dir, &request.root_key, &request.wrappers) {
            Ok(control) => control,
            Err(error) if is_the_operators(&error) => return Err(error.into()),
            Err(error) => {
                self.control(None, error.to_string(), UNLISTED);
                return Ok(self.summary);
            }
        };
        let tenants = match self.tenants(&control, request.tenant.is_none()) {
            Ok(tenants) => tenants,
            Err(error) => {
                self.control(None, error.to_string(), UNLISTED);
                return Ok(self.summary);
            }
        };
        let wanted: Vec<Tenant> = match &request.tenant {
            None => tenants,
            Some(name) => vec![find(tenants, name)?],
        };
        if request.tenant.is_none() {
            for problem in modes::too_wide(&request.data_dir) {
                self.found(problem);
            }
            self.strays(&request.data_dir, &control);
        }
        self.progress.tenants = wanted.len() as u64;
        self.progress.bytes = wanted.iter().map(|tenant| tenants::bytes(&request.data_dir, tenant.id)).sum();
        for tenant in &wanted {
            self.tenant(request, &control, tenant);
            self.progress.tenants_done += 1;
            self.listener.progress(self.progress);
        }
        Ok(self.summary)
    }

    /// The tenants whose rows are whole. What is wrong with control.db is told, or only looked for.
    fn tenants(&mut self, control: &Control, tell: bool) -> std::result::Result<Vec<Tenant>, ControlError> {
        let mut found = Vec::new();
        let tenants = control.check(&mut |finding| found.push(finding))?;
        for finding in found.into_iter().filter(|_| tell) {
            let whole = finding.tenant.is_none_or(|id| tenants.iter().any(|tenant| tenant.id == id));
            let consequence = if whole { "it cannot be read" } else { "the tenant cannot be opened" };
            self.control(finding.tenant, finding.what, consequence);
        }
        Ok(tenants)
    }

    fn control(&mut self, tenant: Option<TenantId>, what: String, consequence: &str) {
        let (file, consequence) = ("control.db".to_owned(), consequence.to_owned());
        // The file is told beside it.
        let what = what.strip_prefix("control.db: ").map_or_else(|| what.clone(), str::to_owned);
        self.found(Problem { severity: Severity::Error, tenant, file, what, consequence });
    }

    pub(crate) fn found(&mut self, problem: Problem) {
        match problem.severity {
            Severity::Error => self.summary.errors += 1,
            Severity::Warning => self.summary.warnings += 1,
            Severity::Info => {}
        }
        self.listener.found(problem);
    }
}

/// The tenant of that name, or of that id, which the server's log and the directories tell.
pub(crate) fn find(tenants: Vec<Tenant>, name: &str) -> Result<Tenant> {
    let id = TenantId::parse(name);
    let wanted = |tenant: &Tenant| tenant.name.as_str() == name || Some(tenant.id) == id;
    tenants.into_iter().find(wanted).ok_or_else(|| {
        Error::new(
            SqlState::UndefinedObject,
            format!("tenant \"{name}\" does not exist, or its row does not open"),
        )
        .with_hint("`sepal check` without --tenant reads control.db, too.")
    })
}

/// The wrong key, the wrong directory, the wrong version: nothing is damaged.
pub(crate) fn is_the_operators(error: &ControlError) -> bool {
    error.is_configuration()
        || matches!(error, ControlError::NoDatabase(_) | ControlError::UnsupportedFormat { .. })
}

/// Hears of one tenant's store.
pub(crate) struct Tenants<'c, 'a> {
    check: &'c mut Check<'a>,
    tenant: TenantId,
}

impl<'c, 'a> Tenants<'c, 'a> {
    pub(crate) fn new(check: &'c mut Check<'a>, tenant: TenantId) -> Self {
        Self { check, tenant }
    }
}

impl CheckObserver for Tenants<'_, '_> {
    fn found(&mut self, finding: Finding) {
        self.check.found(problem(self.tenant, finding));
    }

    fn read(&mut self, bytes: u64) {
        self.check.progress.bytes_done += bytes;
        self.check.listener.progress(self.check.progress);
    }
}

/// A tenant's finding as this crate tells it.
pub(crate) fn problem(tenant: TenantId, finding: Finding) -> Problem {
    let Finding { severity, file, what, consequence, .. } = finding;
    Problem { severity, tenant: Some(tenant), file: format!("tenants/{file}"), what, consequence }
}
