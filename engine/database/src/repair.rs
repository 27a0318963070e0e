//! `sepal repair`: makes a damaged tenant open again, and writes down what is gone.
//!
//! [`plan_repair`] checks the tenant and says what would be given up; [`RepairProposal::apply`] does it. The
//! directory's lock is held from the one to the other, so what was shown is what happens. What is moved aside lies in
//! `<data>/quarantine/<time>/<tenant>/`, with `repair-report.json` beside it. The report has ids and numbers only:
//! names, and what was found, which may quote names, are shown to the operator and reach no file. control.db is not
//! touched: where it is damaged, only a backup has what was in it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use sepal_control::{Control, Wrappers};
use sepal_crypto::{Key, KeyRing};
use sepal_storage::{Loss, RepairOptions, RepairPlan, TenantStore};
use sepal_types::{Error, Lsn, Result, RowId, SqlState, TableId, TenantId};
use serde::Serialize;

use crate::{
    check::{
        Check, CheckListener, CheckSummary, Indexes, Problem, Tenants, find, open_control, problem,
        store_options, take_lock,
    },
    directory_lock::DirectoryLock,
    tenant::directory,
};

/// The report's name in the quarantine.
const REPORT: &str = "repair-report.json";

/// What is to be repaired, and how.
pub struct RepairRequest {
    pub data_dir: PathBuf,
    pub root_key: Key,
    /// Reaches the provider that the tenant brought for its key.
    pub wrappers: Arc<dyn Wrappers>,
    /// The tenant's name or id.
    pub tenant: String,
    /// Serve the rows of a segment of which it is not known any more which were deleted.
    pub resurrect_deleted: bool,
}

/// What a repair would do. Holds the directory's lock.
pub struct RepairProposal {
    pub tenant: TenantId,
    /// What is given up, the worst first. Empty: there is nothing to do.
    pub losses: Vec<Loss>,
    /// What is wrong and stays so.
    pub left: Vec<Problem>,
    /// The files that are moved aside.
    pub files: Vec<String>,
    /// Where to.
    pub quarantine: PathBuf,
    request: RepairRequest,
    control: Control,
    /// Those that the plan was made with: between it and its execution no provider is asked.
    keys: KeyRing,
    plan: RepairPlan,
    _lock: DirectoryLock,
}

/// What a repair has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    pub report: PathBuf,
    /// The check after it.
    pub summary: CheckSummary,
}

/// The report as it is written.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    /// `begun`, then `done`. One that stayed `begun` was cut short: the command was run again, or is to be.
    state: &'static str,
    tenant: String,
    /// Unix seconds.
    at: u64,
    losses: Vec<Written<'a>>,
    moved: &'a [String],
    /// Files in which something was wrong and stays so.
    left: Vec<&'a str>,
    /// Errors that the check after the repair found.
    errors_after: Option<u64>,
}

/// A [`Loss`] without what the tenant has called things.
#[derive(Serialize)]
#[serde(tag = "lost", rename_all = "kebab-case")]
enum Written<'a> {
    Rows { table: TableId, file: &'a str, first_row: RowId, last_row: RowId, rows: u64 },
    Index { table: TableId, index: TableId, file: &'a str },
    Deletions { table: TableId, file: &'a str, rows: u64 },
    Commits { after: Lsn, known: u64, last_known: Option<Lsn>, file: &'a str },
    OldLog { file: &'a str },
    Manifest { file: &'a str, instead: u64, snapshots: usize },
    Past { file: &'a str, snapshots: usize },
}

impl<'a> From<&'a Loss> for Written<'a> {
    fn from(loss: &'a Loss) -> Self {
        match *loss {
            Loss::Rows { table, ref file, first_row, last_row, rows, environment: _, name: _, why: _ } => {
                Self::Rows { table, file, first_row, last_row, rows }
            }
            Loss::Index { table, index, ref file, name: _, why: _ } => Self::Index { table, index, file },
            Loss::Deletions { table, ref file, rows, name: _, why: _ } => {
                Self::Deletions { table, file, rows }
            }
            Loss::Commits { after, known, last_known, ref file, why: _ } => {
                Self::Commits { after, known, last_known, file }
            }
            Loss::OldLog { ref file, why: _ } => Self::OldLog { file },
            Loss::Manifest { ref file, instead, ref snapshots, why: _ } => {
                Self::Manifest { file, instead, snapshots: snapshots.len() }
            }
            Loss::Past { ref file, ref snapshots, why: _ } => Self::Past { file, snapshots: snapshots.len() },
        }
    }
}

/// Checks a tenant and says what a repair would do. Changes nothing. Blocking.
///
/// Errors: 55006 a server runs; 42704 there is no such tenant; XX001 the damage is not one that can be left out;
/// 57P03 and 58000 the tenant's own provider does not answer, or refuses.
pub fn plan_repair(request: RepairRequest, listener: &mut dyn CheckListener) -> Result<RepairProposal> {
    let lock = take_lock(&request.data_dir)?;
    let control = open_control(&request.data_dir, &request.root_key, &request.wrappers)?;
    let tenant = find(control.check(&mut |_| {})?, &request.tenant)?.id;
    let options = options(&request, &control, tenant)?;
    let path = directory(&request.data_dir, tenant);
    if !path.exists() {
        return Err(refused(format!("tenants/{tenant} is missing: restore the directory from a backup")));
    }
    let mut check = Check::new(listener);
    let mut observer = Tenants::new(&mut check, tenant);
    let keys = control.tenant_keys(tenant)?;
    let plan = TenantStore::plan_repair(&path, tenant, keys.clone(), &options, &Indexes, &mut observer)
        .map_err(|why| refused(why.to_string()))?;
    let left = plan.left.iter().map(|finding| problem(tenant, finding.clone())).collect();
    let quarantine = request.data_dir.join("quarantine").join(now_text()).join(tenant.to_string());
    let (losses, files) = (plan.losses.clone(), plan.files());
    Ok(RepairProposal { tenant, losses, left, files, quarantine, request, control, keys, plan, _lock: lock })
}

impl RepairProposal {
    /// Does it, and checks the tenant again. Blocking.
    ///
    /// Errors: 53100 and 58030, what the device says; the same repair can then be begun again.
    pub fn apply(self, listener: &mut dyn CheckListener) -> Result<Repaired> {
        let Self { tenant, losses, left, files, quarantine, request, control, keys, plan, _lock } = self;
        let mut report = Report {
            version: 2,
            state: "begun",
            tenant: tenant.to_string(),
            at: unix_seconds(),
            losses: losses.iter().map(Written::from).collect(),
            moved: &files,
            left: left.iter().map(|problem| problem.file.as_str()).collect(),
            errors_after: None,
        };
        let path = quarantine.join(REPORT);
        make_private(&quarantine)?;
        write_report(&path, &report)?;
        plan.apply(&quarantine)?;
        let mut check = Check::new(listener);
        let options = options(&request, &control, tenant)?;
        let directory = directory(&request.data_dir, tenant);
        let mut observer = Tenants::new(&mut check, tenant);
        let checked = TenantStore::check(&directory, tenant, keys, &options.check, &Indexes, &mut observer);
        let mut summary = check.summary;
        summary.tenants = 1;
        (summary.files, summary.bytes) = (checked.files, checked.bytes);
        (summary.tables, summary.rows, summary.commits) = (checked.tables, checked.rows, checked.commits);
        (report.state, report.errors_after) = ("done", Some(summary.errors));
        write_report(&path, &report)?;
        tracing::warn!(%tenant, report = %path.display(), losses = losses.len(), "a tenant was repaired");
        Ok(Repaired { report: path, summary })
    }
}

fn options(request: &RepairRequest, control: &Control, tenant: TenantId) -> Result<RepairOptions> {
    let check = store_options(control, tenant, false)?;
    Ok(RepairOptions { check, resurrect_deleted: request.resurrect_deleted })
}

fn refused(why: String) -> Error {
    Error::new(SqlState::DataCorrupted, why).with_hint("Nothing was changed.")
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `20261122T140518Z`
fn now_text() -> String {
    let seconds = unix_seconds();
    let instant = i64::try_from(seconds).ok().and_then(arrow::temporal_conversions::timestamp_s_to_datetime);
    match instant {
        Some(instant) => format!("{}Z", instant.to_string().replace(['-', ':'], "").replace(' ', "T")),
        None => seconds.to_string(),
    }
}

/// The directories of a quarantine, durable and for their owner alone.
fn make_private(quarantine: &Path) -> Result<()> {
    let failed = |problem: std::io::Error| {
        Error::new(SqlState::IoError, format!("cannot make {}: {problem}", quarantine.display()))
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(quarantine).map_err(failed)?;
    // Its own name, and those of the two above it: `<time>` and `quarantine`.
    for directory in quarantine.ancestors().skip(1).take(3) {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Written beside, then renamed: whoever reads it reads a whole one.
fn write_report(path: &Path, report: &Report<'_>) -> Result<()> {
    let failed = |problem: std::io::Error| {
        Error::new(SqlState::IoError, format!("cannot write {}: {problem}", path.display()))
    };
    let mut text = serde_json::to_vec_pretty(report)
        .map_err(|problem| Error::bug(format!("a report does not serialise: {problem}")))?;
    text.push(b'\n');
    let beside = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
