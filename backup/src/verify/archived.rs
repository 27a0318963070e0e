//! The log that was archived after a backup, tried as a restore to a moment would use it.
//!
//! Where the next backup of the line has the tenant, the log leads up to its commit, and what that backup noted must be
//! found there: then every moment between the two comes back. After the newest backup the log is replayed as far as it
//! goes. Log that is missing before the next backup is told and no fault of this one (docs/backups.md); after the
//! newest one it is, since only another backup ends that.

use std::sync::Arc;

use sepal_database::{
    Error, Result, SqlState, TenantId,
    backup::{Restoring, TableFacts, Until, blocking},
};
use serde::{Deserialize, Serialize};

use super::{STEP, Verification, say};
use crate::{
    entry::{Entry, TenantEntry},
    failure::Failure,
    moment::show,
    restore::{TenantPlan, fetch::Fetched},
};

/// While a server archives, a listing may have a part and lack one that was stored before it.
const ATTEMPTS: u32 = 3;

/// What the log brings that was archived after a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The last commit that it leads to, and when that was, in microseconds since 1970.
    pub lsn: u64,
    pub time_us: i64,
    /// The backup that it leads to, and whose content was found. `None`: this one is the newest.
    pub next: Option<String>,
    /// Log is missing: not every moment up to the next backup can be restored.
    pub gap: bool,
}

/// The next backup, and its part of the tenant.
type Next<'a> = (&'a Entry, &'a TenantEntry);

/// What a replay came to.
struct Replayed {
    lsn: u64,
    time_us: i64,
    /// In words.
    wrong: Vec<String>,
}

impl Verification<'_> {
    /// Tries a tenant's log from the backup on, in the directory where `base` was tried. What is wrong with it is added
    /// to `wrong`. `None`: it does not come back, or the tenant was dropped meanwhile.
    pub(super) async fn since(
        &self,
        base: &TenantPlan,
        noted: &TenantEntry,
        wrong: &mut Vec<String>,
    ) -> Result<Option<Since>, Failure> {
        let next = self.next(base.id);
        let mut before = None;
        for attempt in 1..=ATTEMPTS {
            let plan = self.plan(noted, next).await;
            let (log, tried) = match plan {
                Ok(plan) => (Some(plan.log.clone()), self.follow(base, &plan, (noted, next)).await),
                Err(error) => (None, Err(error)),
            };
            match tried {
                Ok(None) => break,
                Ok(Some((since, found))) => {
                    wrong.extend(found.into_iter().map(|what| format!("the log archived since: {what}")));
                    return Ok(Some(since));
                }
                // The same again.
                Err(Failure::Tenant(error)) if attempt == ATTEMPTS || before == Some(log.clone()) => {
                    wrong.push(format!("the log archived since: {}", error.operator_message()));
                    break;
                }
                Err(Failure::Tenant(_)) => before = Some(log),
                Err(Failure::All(error)) => return Err(Failure::All(error)),
            }
        }
        Ok(None)
    }

    /// The next backup of the line that has the tenant as it was then.
    fn next(&self, id: TenantId) -> Option<Next<'_>> {
        let name = id.to_string();
        self.later.iter().filter(|entry| entry.failure_of(id).is_none()).find_map(|entry| {
            entry.tenants.iter().find(|tenant| tenant.tenant == name).map(|tenant| (entry, tenant))
        })
    }

    async fn plan(&self, noted: &TenantEntry, next: Option<Next<'_>>) -> Result<TenantPlan, Failure> {
        let (repository, line) = (self.fetch.repository, &self.read.entry.line);
        TenantPlan::since(repository, line, noted, next.map(|(_, part)| part)).await
    }

    /// `None`: the tenant was dropped meanwhile. Beside what came of it stands what is wrong.
    async fn follow(
        &self,
        base: &TenantPlan,
        plan: &TenantPlan,
        (noted, next): (&TenantEntry, Option<Next<'_>>),
    ) -> Result<Option<(Since, Vec<String>)>, Failure> {
        let here = |gap| Since {
            lsn: noted.lsn,
            time_us: noted.time_us,
            next: next.map(|(entry, _)| entry.id.clone()),
            gap,
        };
        let has_more = match next {
            Some((_, part)) => part.lsn != noted.lsn,
            None => plan.has_gap || plan.log != base.log,
        };
        if !has_more {
            return Ok(Some((here(false), Vec::new())));
        }
        let has_gap = match self.fetch.again(self.restoring, base, plan).await? {
            Fetched::Dropped => return Ok(None),
            Fetched::UpToGap => true,
            Fetched::Here => plan.has_gap,
        };
        let (restoring, id, until) = (Arc::clone(self.restoring), plan.id, plan.until);
        let part = next.map(|(_, part)| part.clone());
        let replayed = blocking(STEP, move || {
            let expected = part.map(|part| part.open_facts(restoring.control())).transpose()?;
            replay(&restoring, (id, until), expected.as_deref())
        });
        match replayed.await.map_err(Failure::Tenant)? {
            None => Ok(Some((here(true), Vec::new()))),
            Some(replayed) if has_gap && next.is_none() => Err(Failure::Tenant(missing(&replayed))),
            Some(Replayed { lsn, time_us, wrong }) => {
                Ok(Some((Since { lsn, time_us, ..here(false) }, wrong)))
            }
        }
    }
}

/// Replays the log that was laid down, and compares what it leads to. `None`: it does not go so far.
fn replay(
    restoring: &Restoring,
    (id, until): (TenantId, Until),
    expected: Option<&[TableFacts]>,
) -> Result<Option<Replayed>> {
    let restored = match restoring.open_tenant(id, until) {
        // A commit that is asked for and not there.
        Err(error) if error.state() == SqlState::InvalidParameterValue => return Ok(None),
        opened => opened?,
    };
    let differences = expected.map(|facts| restored.compare(facts)).transpose()?.unwrap_or_default();
    let (lsn, time_us) = (restored.lsn().0, restored.time_us());
    restoring.let_go(restored)?;
    Ok(Some(Replayed { lsn, time_us, wrong: differences.into_iter().map(say).collect() }))
}

fn missing(replayed: &Replayed) -> Error {
    let last = show(replayed.time_us);
    let why = format!("some of it is missing: nothing that was committed after {last} can be restored");
    Error::new(SqlState::DataCorrupted, why).with_hint("Make another backup while the data is there.")
}
