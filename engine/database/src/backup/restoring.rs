//! A data directory that is being put together from a backup: not served, and locked meanwhile.
//!
//! `sepal-backup` has laid down control.db and the tenants' files; here they become stores again. The log is replayed
//! up to a commit or a moment, and what comes after is removed, so that a server finds a directory like any other.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_control::{ControlError, ControlOptions, Tenant, Wrappers};
use sepal_storage::{AsOf, ColumnCache, LogFileInfo, StoreOptions, TenantStore, closed_log_files};
use sepal_types::{Error, LogEnd, Lsn, Result, SqlState, TenantId};

use super::{Difference, LogPiece, TableFacts, facts::label};
use crate::{Control, Key, delivery::objects::Objects, directory_lock::DirectoryLock, tenant::directory};

/// Decoded columns of the tenant that is being looked at.
const CACHE_BYTES: usize = 512 << 20;

/// See the module.
pub struct Restoring {
    data: PathBuf,
    control: Control,
    cache: Arc<ColumnCache>,
    _lock: DirectoryLock,
}

/// How far the log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Commit(Lsn),
    /// Microseconds since 1970; what was committed at that moment is in.
    Time(i64),
    /// As far as it goes.
    End,
}

/// A tenant's store, made of copied files.
pub struct RestoredTenant {
    tenant: TenantId,
    store: Arc<TenantStore>,
}

impl Restoring {
    /// Opens the control database that was copied there. Blocks, as does everything here. `wrappers` reaches the
    /// providers of tenants that brought one.
    pub fn open(data: &Path, root: &Key, wrappers: Arc<dyn Wrappers>) -> Result<Self> {
        let lock = DirectoryLock::take(data)?;
        let options = ControlOptions { wrappers, ..ControlOptions::default() };
        let control = Control::open(&data.join("control.db"), root, options)?;
        Ok(Self::of(data, control, lock))
    }

    /// The same for a directory that is only tried. The control database comes into memory and its file goes: keys that
    /// [`Self::put_keys`] adds never reach a disk, so that a trial which is cut short leaves nothing that opens.
    pub fn on_trial(data: &Path, root: &Key, wrappers: Arc<dyn Wrappers>) -> Result<Self> {
        let lock = DirectoryLock::take(data)?;
        let options = ControlOptions { wrappers, ..ControlOptions::default() };
        let path = data.join("control.db");
        let control = Control::open_copy(&path, root, options)?;
        fs::remove_file(&path).map_err(|problem| {
            Error::new(SqlState::IoError, format!("cannot remove {}: {problem}", path.display()))
        })?;
        Ok(Self::of(data, control, lock))
    }

    fn of(data: &Path, control: Control, lock: DirectoryLock) -> Self {
        Self { data: data.to_owned(), control, cache: ColumnCache::new(CACHE_BYTES), _lock: lock }
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    pub fn tenants(&self) -> Result<Vec<Tenant>> {
        Ok(self.control.list_tenants()?)
    }

    /// Gives a tenant its wrapped keys back, which its copy of control.db lacks. `later`: sets of keys that came after
    /// the copy, for log that was written under them.
    pub fn put_keys(&self, tenant: TenantId, sealed: &[u8], later: &[Vec<u8>]) -> Result<()> {
        self.control.restore_tenant_keys(tenant, sealed)?;
        self.put_later_keys(tenant, later)
    }

    /// Gives a tenant that has its keys back those that came later. Doing it again is fine.
    pub fn put_later_keys(&self, tenant: TenantId, later: &[Vec<u8>]) -> Result<()> {
        for sealed in later {
            self.control.restore_later_tenant_keys(tenant, sealed)?;
        }
        Ok(self.control.settle_restored_keys(tenant)?)
    }

    /// Takes a tenant out that was dropped since: nothing can give its keys back.
    pub fn forget(&self, tenant: &Tenant) -> Result<()> {
        self.control.drop_tenant(tenant.name.as_str())?;
        Ok(())
    }

    /// Takes a tenant out that is not wanted here. It lives on elsewhere: the trail says so, and not that it was
    /// dropped.
    pub fn leave_out(&self, tenant: TenantId) -> Result<()> {
        Ok(self.control.leave_out_tenant(tenant)?)
    }

    /// A tenant whose files did not come back keeps its name and its keys, and its store counts as lost: a server says
    /// so, and makes no empty one in its place.
    pub fn give_up(&self, tenant: TenantId) -> Result<()> {
        self.cache.forget_tenant(tenant);
        if self.control.log_end(tenant)?.is_none() {
            self.control.note_log_end(tenant, LogEnd { file: 1, bytes: 0 })?;
        }
        Ok(())
    }

    /// Whether the package that came with the copy gives its root key with the recovery key: nothing else is there to
    /// restore it elsewhere. Errors: XX001 it does not; 55000 the copy knows of no recovery key.
    pub fn check_recovery_package(&self, package: &[u8]) -> Result<()> {
        match self.control.check_recovery_package(package) {
            Err(ControlError::Corrupt { why, .. }) => {
                let why = format!("the recovery package does not open this backup: {why}");
                Err(Error::new(SqlState::DataCorrupted, why)
                    .with_hint("Make another backup while the server is there."))
            }
            checked => Ok(checked?),
        }
    }

    /// How many events the audit trail has. Errors: its chain is broken.
    pub fn check_audit(&self) -> Result<u64> {
        let report = self.control.verify_audit(None)?;
        match report.wrong.first() {
            None => Ok(report.entries),
            Some(wrong) => Err(Error::new(SqlState::DataCorrupted, format!("the audit trail: {wrong}"))),
        }
    }

    /// Removes what no replay could go on with: log files from the first on that follows one whose end is missing. Whether
    /// there were any.
    pub fn cut_log_at_gap(&self, tenant: TenantId) -> Result<bool> {
        let root = directory(&self.data, tenant);
        let files = closed_log_files(&root)?;
        let is_gap = |pair: &[LogFileInfo]| {
            pair[0].number + 1 == pair[1].number && pair[0].bytes < pair[1].previous_bytes
        };
        let Some(last) = files.windows(2).position(is_gap) else { return Ok(false) };
        for info in files[last + 1..].iter().rev() {
            let path = LogPiece::new(&root, info).path;
            fs::remove_file(&path).map_err(|problem| {
                Error::new(SqlState::IoError, format!("cannot remove {}: {problem}", path.display()))
            })?;
        }
        Ok(true)
    }

    /// Replays the tenant's log.
    pub fn open_tenant(&self, tenant: TenantId, until: Until) -> Result<RestoredTenant> {
        let options = StoreOptions {
            // A commit shows by itself whether the log reaches it. A part of a backup that was taken over from an
            // earlier one ends before what control.db knows.
            log_end: match until {
                Until::Commit(_) => None,
                Until::Time(_) | Until::End => self.control.log_end(tenant)?,
            },
            replay_until: match until {
                Until::Commit(lsn) => Some(AsOf::Commit(lsn)),
                Until::Time(us) => Some(AsOf::Time(us)),
                Until::End => None,
            },
            ..StoreOptions::new(Arc::clone(&self.cache))
        };
        let keys = self.control.tenant_keys(tenant)?;
        let store = TenantStore::open(&directory(&self.data, tenant), tenant, keys, options)?;
        Ok(RestoredTenant { tenant, store })
    }

    /// Ends with a tenant: its files change no more, and the control database knows how far they reach, and whether a
    /// server opens the tenant by itself: the copy may be from before its first pipeline.
    pub fn finish(&self, restored: RestoredTenant) -> Result<()> {
        let objects = Objects::of(&restored.store.snapshot());
        restored.store.close()?;
        self.control.note_log_end(restored.tenant, restored.store.log_end())?;
        // What cannot be read is told of when the tenant is opened.
        if let Ok(objects) = objects {
            self.control.note_pipelines(restored.tenant, objects.pipelines().next().is_some())?;
        }
        self.cache.forget_tenant(restored.tenant);
        Ok(())
    }

    /// Ends with a tenant that is only tried: the control database goes on saying how far the log reached when it was
    /// copied, which other log of the tenant must reach as well.
    pub fn let_go(&self, restored: RestoredTenant) -> Result<()> {
        restored.store.close()?;
        self.cache.forget_tenant(restored.tenant);
        Ok(())
    }
}

impl RestoredTenant {
    /// The last commit that is there.
    pub fn lsn(&self) -> Lsn {
        self.store.snapshot().lsn()
    }

    /// When that was, in microseconds since 1970.
    pub fn time_us(&self) -> i64 {
        self.store.snapshot().time_us()
    }

    /// Whether the log went on past the moment that it was replayed up to: then nothing before that is missing.
    pub fn is_cut_off(&self) -> bool {
        self.store.left_out_us().is_some()
    }

    /// Rows in all tables.
    pub fn rows(&self) -> u64 {
        self.store.stats().live_rows
    }

    /// What is not as it was noted. Reads every row.
    pub fn compare(&self, noted: &[TableFacts]) -> Result<Vec<Difference>> {
        let snapshot = self.store.snapshot();
        let mut found = Vec::new();
        for facts in noted {
            found.extend(facts.differences(self.tenant, &snapshot)?);
        }
        for version in snapshot.tables() {
            if !noted.iter().any(|facts| facts.id == version.def.id.0) {
                let table = label(&version.def.environment, &version.def.schema, &version.def.name);
                found.push(Difference { table, what: "the table was not backed up".into() });
            }
        }
        Ok(found)
    }
}
