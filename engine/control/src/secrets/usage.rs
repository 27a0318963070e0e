//! The record of who used which secret, and why: without it nobody knows what a leaked value could have reached.
//!
//! A busy sink asks for its secrets again and again, and a commit of control.db is a sync of the disk. So the first use
//! of a version by someone is written at once; the same use within a minute is the same record, and the others wait
//! for [`Control::flush_secret_uses`], which the database calls every minute and at its end. A crash can lose a minute
//! of repetitions, never a first use.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};

use crate::{
    Control, ControlError, Scope,
    control_error::Result,
    vault::{open_json, seal_json},
};

use super::{KEPT_USES, safe::Safe};

/// Within how many seconds the same use is the same record.
const SAME_USE_S: i64 = 60;
/// Most records that wait in memory; then they are written without waiting for the minute.
const MAX_WAITING: usize = 1_000;
/// How many first uses are remembered. Beyond it they are forgotten and written once more, which harms nothing.
const MAX_KNOWN: usize = 100_000;

/// One use of a secret or certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretUse {
    /// Unix seconds.
    pub at: i64,
    pub name: String,
    /// A number for stored ones, whatever the resolver says for others.
    pub version: String,
    /// `sink acme_hook`, `resolver vault_prod`
    pub who: String,
    /// `pipeline orders_out`, `check`, `reveal`
    pub why: String,
}

/// Uses that were not written yet, and what is known about those that were.
#[derive(Default)]
pub(crate) struct UseBuffer(Mutex<Uses>);

#[derive(Default)]
struct Uses {
    /// When each use, its time set to 0, was last recorded.
    last: HashMap<Placed, i64>,
    /// Uses that were written, their time and reason left out.
    known: HashSet<Placed>,
    waiting: Vec<Placed>,
}

/// A use with its scope.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed {
    tenant: TenantId,
    environment: String,
    use_: SecretUse,
}

/// What to do with a use just noted.
enum Fate {
    /// The same was recorded within the minute.
    Known,
    Waits,
    WriteNow,
}

impl Control {
    /// Records a use. Errors: it is a first one and could not be written; whoever insists on the record does not
    /// hand out the value then.
    pub fn record_secret_use(&self, scope: &Scope<'_>, use_: SecretUse) -> Result<()> {
        let placed = Placed { tenant: scope.tenant, environment: scope.environment.to_owned(), use_ };
        let fate = self.secret_uses.0.lock().note(&placed);
        match fate {
            Fate::Known => Ok(()),
            Fate::Waits => {
                if self.secret_uses.0.lock().waiting.len() >= MAX_WAITING {
                    return self.flush_secret_uses();
                }
                Ok(())
            }
            Fate::WriteNow => {
                let written = self.write_uses(std::slice::from_ref(&placed));
                if written.is_err() {
                    self.secret_uses.0.lock().forget(&placed);
                }
                written
            }
        }
    }

    /// Writes the uses that wait, in one transaction. Call it every minute or so.
    pub fn flush_secret_uses(&self) -> Result<()> {
        let waiting = self.secret_uses.0.lock().take();
        if waiting.is_empty() {
            return Ok(());
        }
        let written = self.write_uses(&waiting);
        if written.is_err() {
            self.secret_uses.0.lock().put_back(waiting);
        }
        written
    }

    /// An environment's uses, the newest first, `limit` at most. Those that wait to be written are among them.
    pub fn secret_uses(&self, scope: &Scope<'_>, limit: usize) -> Result<Vec<SecretUse>> {
        let mut uses = self.secret_uses.0.lock().waiting_in(scope);
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let mut statement = database.prepare_cached(
            "SELECT number, body FROM secret_uses WHERE tenant = ?1 AND environment = ?2 \
             ORDER BY number DESC LIMIT ?3",
        )?;
        let rows = statement.query_and_then(
            params![safe.tenant.as_bytes(), safe.environment_mac, i64::try_from(limit).unwrap_or(i64::MAX)],
            |row| -> Result<SecretUse> {
                let (number, sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
                open_json(&safe.records, "a use of a secret", safe.use_aad(number), &sealed)
            },
        )?;
        for use_ in rows {
            uses.push(use_?);
        }
        uses.sort_by_key(|use_| std::cmp::Reverse(use_.at));
        uses.truncate(limit);
        Ok(uses)
    }

    fn write_uses(&self, uses: &[Placed]) -> Result<()> {
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut last_numbers: HashMap<TenantId, i64> = HashMap::new();
        for Placed { tenant, environment, use_ } in uses {
            let scope = Scope { tenant: *tenant, environment };
            let safe = match Safe::open(&transaction, &self.vault, &scope) {
                Ok(safe) => safe,
                // Dropped in the meantime, and its secrets with it; or closed, and its own provider does not give its
                // key.
                Err(ControlError::NotFound { .. } | ControlError::OwnKey { .. }) => continue,
                Err(error) => return Err(error),
            };
            let number = match last_numbers.get(tenant) {
                Some(last) => last + 1,
                None => last_number(&transaction, *tenant)? + 1,
            };
            last_numbers.insert(*tenant, number);
            transaction.execute(
                "INSERT INTO secret_uses (tenant, number, environment, body) VALUES (?1, ?2, ?3, ?4)",
                params![
                    tenant.as_bytes(),
                    number,
                    safe.environment_mac,
                    seal_json(&safe.records, safe.use_aad(number), use_),
                ],
            )?;
        }
        for (tenant, last) in last_numbers {
            transaction.execute(
                "DELETE FROM secret_uses WHERE tenant = ?1 AND number <= ?2",
                params![tenant.as_bytes(), last - KEPT_USES],
            )?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Uses {
    fn note(&mut self, placed: &Placed) -> Fate {
        let at = placed.use_.at;
        if let Some(last) = self.last.get_mut(&placed.timeless()) {
            // A clock set back must not silence the record.
            if (0..SAME_USE_S).contains(&(at - *last)) {
                return Fate::Known;
            }
            *last = at;
        } else {
            self.last.insert(placed.timeless(), at);
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        if self.known.insert(placed.user()) {
            return Fate::WriteNow;
        }
        self.waiting.push(placed.clone());
        Fate::Waits
    }

    /// The write failed: the next such use is a first one again.
    fn forget(&mut self, placed: &Placed) {
        self.last.remove(&placed.timeless());
        self.known.remove(&placed.user());
    }

    /// What waits. Also forgets what no new use can be the same as.
    fn take(&mut self) -> Vec<Placed> {
        if let Some(newest) = self.last.values().max().copied() {
            self.last.retain(|_, at| newest - *at < SAME_USE_S);
        }
        std::mem::take(&mut self.waiting)
    }

    /// For the next try; the oldest go first when there are too many.
    fn put_back(&mut self, mut older: Vec<Placed>) {
        older.append(&mut self.waiting);
        let surplus = older.len().saturating_sub(10 * MAX_WAITING);
        older.drain(..surplus);
        self.waiting = older;
    }

    /// The newest first.
    fn waiting_in(&self, scope: &Scope<'_>) -> Vec<SecretUse> {
        let here =
            |placed: &&Placed| placed.tenant == scope.tenant && placed.environment == scope.environment;
        self.waiting.iter().rev().filter(here).map(|placed| placed.use_.clone()).collect()
    }
}

impl Placed {
    fn timeless(&self) -> Self {
        let mut placed = self.clone();
        placed.use_.at = 0;
        placed
    }

    /// Who used which version, whatever for.
    fn user(&self) -> Self {
        let mut placed = self.timeless();
        placed.use_.why.clear();
        placed
    }
}

/// The number of a tenant's newest record; 0 before the first.
fn last_number(database: &Connection, tenant: TenantId) -> Result<i64> {
    let mut statement = database
        .prepare_cached("SELECT number FROM secret_uses WHERE tenant = ?1 ORDER BY number DESC LIMIT 1")?;
    let last = statement.query_row(params![tenant.as_bytes()], |row| row.get(0)).optional()?;
    Ok(last.unwrap_or(0))
}
