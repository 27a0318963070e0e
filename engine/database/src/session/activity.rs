//! Who is connected to a tenant and what each session does: `pg_stat_activity`, and whom the signals of
//! `pg_cancel_backend` and `pg_terminate_backend` reach.
//!
//! Each open tenant has one [`Sessions`]: a session of another tenant can be neither seen nor reached. Within the tenant
//! a key that is limited to an environment sees and reaches that environment's sessions. A session notes what it does in
//! a lock of its own, by the text that its statement has anyway; everything else is found out when somebody asks.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use sepal_control::Principal;
use sepal_query::catalog::sessions::{SessionControl, SessionDetails, SessionRow, Signal};
use sepal_types::{Clock, Error, Result, SqlState, SystemClock};

use super::{CancelToken, TransactionStatus, settings::Settings};
use crate::locks::{LockObject, LockTable};

/// Bytes of a statement that are shown: `track_activity_query_size`, with the zero that ends it in Postgres.
const MOST_SHOWN: usize = 1024 - 1;
/// Bytes of a statement that a session keeps while it runs nothing.
const MOST_KEPT: usize = 16 << 10;
/// Warnings of one statement that its client is told.
const MOST_WARNINGS: usize = 1_000;

/// The sessions of one tenant, by their numbers.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<BTreeMap<i32, Arc<Activity>>>);

/// One session, as others see it.
#[derive(Debug)]
struct Activity {
    pid: i32,
    key: Arc<str>,
    environment: Arc<str>,
    began_us: i64,
    client: OnceLock<SocketAddr>,
    settings: Arc<Mutex<Settings>>,
    cancel: CancelToken,
    now: Mutex<Now>,
}

/// What a session does. Times are microseconds since 1970-01-01 UTC.
#[derive(Debug)]
struct Now {
    doing: Doing,
    /// What runs, or ran last, without what may be a secret: see [`sepal_query::sql::Statement`].
    query: Arc<str>,
    /// It was planned and is about to run: that is one statement, begun when it was planned.
    planned: bool,
    /// Which of the session's transactions `transaction_us` belongs to.
    transaction: u64,
    transaction_us: Option<i64>,
    query_us: Option<i64>,
    changed_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Running,
    /// Waits for its client.
    Resting(TransactionStatus),
}

/// A session among its tenant's, for as long as this lives.
#[derive(Debug)]
pub struct Presence {
    sessions: Arc<Sessions>,
    activity: Arc<Activity>,
}

/// By which a session's statements see and reach others of its tenant.
#[derive(Debug)]
pub struct Signals {
    sessions: Arc<Sessions>,
    principal: Principal,
    warnings: Mutex<Vec<Error>>,
}

impl Sessions {
    /// Notes a session that begins.
    pub(super) fn enter(
        self: &Arc<Self>,
        pid: i32,
        principal: &Principal,
        environment: &Arc<str>,
        settings: &Arc<Mutex<Settings>>,
        cancel: &CancelToken,
    ) -> Presence {
        let now_us = SystemClock.now_us();
        let activity = Arc::new(Activity {
            pid,
            key: Arc::clone(&principal.key_id),
            environment: Arc::clone(environment),
            began_us: now_us,
            client: OnceLock::new(),
            settings: Arc::clone(settings),
            cancel: cancel.clone(),
            now: Mutex::new(Now {
                doing: Doing::Resting(TransactionStatus::Idle),
                query: Arc::from(""),
                planned: false,
                transaction: 0,
                transaction_us: None,
                query_us: None,
                changed_us: now_us,
            }),
        });
        self.0.lock().insert(pid, Arc::clone(&activity));
        Presence { sessions: Arc::clone(self), activity }
    }

    /// Those that a key may see.
    fn seen_by(&self, principal: &Principal) -> Vec<Arc<Activity>> {
        let sessions = self.0.lock();
        sessions.values().filter(|session| session.is_seen_by(principal)).map(Arc::clone).collect()
    }

    fn find(&self, pid: i32) -> Option<Arc<Activity>> {
        self.0.lock().get(&pid).map(Arc::clone)
    }
}

impl Presence {
    /// Where its client is. The first one stays.
    pub fn set_client(&self, client: SocketAddr) {
        let address = SocketAddr::new(client.ip().to_canonical(), client.port());
        let _already_set = self.activity.client.set(address);
    }

    /// A statement is planned (`planned`) or run, in the session's transaction of that number.
    pub fn run(&self, sql: &Arc<str>, transaction: u64, planned: bool) {
        let mut now = self.activity.now.lock();
        let same = Arc::ptr_eq(&now.query, sql) && now.transaction == transaction;
        let announced = std::mem::replace(&mut now.planned, planned);
        if announced && same && now.doing == Doing::Running {
            return;
        }
        let instant = SystemClock.now_us();
        now.note_transaction(transaction, instant);
        now.doing = Doing::Running;
        now.query_us = Some(instant);
        now.changed_us = instant;
        if !same {
            now.query = Arc::clone(sql);
        }
    }

    /// Nothing runs until the client's next message.
    pub fn rest(&self, status: TransactionStatus, transaction: u64) {
        let mut now = self.activity.now.lock();
        let instant = SystemClock.now_us();
        match status {
            TransactionStatus::Idle => now.transaction_us = None,
            TransactionStatus::Active | TransactionStatus::Failed => {
                now.note_transaction(transaction, instant);
            }
        }
        now.doing = Doing::Resting(status);
        now.planned = false;
        now.changed_us = instant;
        if now.query.len() > MOST_KEPT {
            now.query = Arc::from(clipped(&now.query));
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.sessions.0.lock().remove(&self.activity.pid);
    }
}

impl Now {
    fn note_transaction(&mut self, transaction: u64, instant: i64) {
        if self.transaction != transaction || self.transaction_us.is_none() {
            self.transaction = transaction;
            self.transaction_us = Some(instant);
        }
    }
}

impl Doing {
    /// `pg_stat_activity.state`
    fn name(self) -> &'static str {
        match self {
            Self::Running => "active",
            Self::Resting(TransactionStatus::Idle) => "idle",
            Self::Resting(TransactionStatus::Active) => "idle in transaction",
            Self::Resting(TransactionStatus::Failed) => "idle in transaction (aborted)",
        }
    }
}

impl Activity {
    fn is_seen_by(&self, principal: &Principal) -> bool {
        principal.environment.as_deref().is_none_or(|own| *own == *self.environment)
    }

    /// Its statements may hold values of the tenant's rows: a key that may not read sees its own only.
    fn is_told_to(&self, principal: &Principal) -> bool {
        principal.scopes.read || *principal.key_id == *self.key
    }

    /// `waits`: which kind of lock sessions wait for.
    fn row(&self, principal: &Principal, waits: &HashMap<i32, &'static str>) -> SessionRow {
        let details = self.is_told_to(principal).then(|| self.details(waits.get(&self.pid).copied()));
        SessionRow {
            pid: self.pid,
            environment: self.environment.to_string(),
            user: self.key.to_string(),
            application: self.settings.lock().get("application_name").unwrap_or_default(),
            details,
        }
    }

    fn details(&self, lock: Option<&'static str>) -> SessionDetails {
        let now = self.now.lock();
        let waits = match (now.doing, lock) {
            (Doing::Resting(_), _) => Some(("Client", "ClientRead")),
            (Doing::Running, Some(lock)) => Some(("Lock", lock)),
            (Doing::Running, None) if self.cancel.is_sleeping() => Some(("Timeout", "PgSleep")),
            (Doing::Running, None) => None,
        };
        SessionDetails {
            client: self.client.get().copied(),
            began_us: self.began_us,
            transaction_us: now.transaction_us,
            query_us: now.query_us,
            changed_us: now.changed_us,
            state: now.doing.name(),
            waits,
            query: clipped(&now.query).to_owned(),
        }
    }
}

impl Signals {
    pub(super) fn new(sessions: &Arc<Sessions>, principal: &Principal) -> Self {
        Self { sessions: Arc::clone(sessions), principal: principal.clone(), warnings: Mutex::default() }
    }

    /// What `pg_stat_activity` shows to the session.
    pub(super) fn rows(&self, locks: &LockTable) -> Vec<SessionRow> {
        let waiting = locks.rows().into_iter().filter(|lock| !lock.granted);
        let waits: HashMap<i32, &'static str> =
            waiting.map(|lock| (lock.pid, kind_of(&lock.object))).collect();
        let sessions = self.sessions.seen_by(&self.principal);
        sessions.iter().map(|session| session.row(&self.principal, &waits)).collect()
    }

    /// What the client is to be told of the signals that went nowhere.
    pub(super) fn take_warnings(&self) -> Vec<Error> {
        std::mem::take(&mut self.warnings.lock())
    }
}

impl SessionControl for Signals {
    fn signal(&self, pid: i32, signal: Signal) -> Result<bool> {
        let found = self.sessions.find(pid).filter(|other| other.is_seen_by(&self.principal));
        let Some(other) = found else {
            let mut warnings = self.warnings.lock();
            if warnings.len() < MOST_WARNINGS {
                let message = format!("PID {pid} is not a PostgreSQL backend process");
                warnings.push(Error::new(SqlState::Warning, message));
            }
            return Ok(false);
        };
        if *other.key != *self.principal.key_id && !self.principal.scopes.write {
            return Err(not_permitted(signal));
        }
        match signal {
            Signal::Cancel => other.cancel.cancel(),
            Signal::Terminate => other.cancel.terminate(),
        }
        Ok(true)
    }
}

fn not_permitted(signal: Signal) -> Error {
    let message = match signal {
        Signal::Cancel => "permission denied to cancel query",
        Signal::Terminate => "permission denied to terminate process",
    };
    Error::new(SqlState::InsufficientPrivilege, message)
        .with_detail("The session is another API key's, and this one may only read.")
        .with_hint("Use that key, or one with the write scope: sepal key create --scope read-write.")
}

/// As `pg_locks.locktype` calls it.
fn kind_of(object: &LockObject) -> &'static str {
    match object {
        LockObject::Advisory(_) => "advisory",
        LockObject::Table(_) => "relation",
        LockObject::Row(_) => "tuple",
    }
}

/// What is shown of a statement: whole characters.
fn clipped(sql: &str) -> &str {
    &sql[..sql.floor_char_boundary(MOST_SHOWN)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_ends_with_a_whole_character() {
        assert_eq!(clipped("SELECT 1"), "SELECT 1");
        let long = "é".repeat(MOST_SHOWN);
        assert_eq!(clipped(&long).len(), MOST_SHOWN - 1, "two bytes each, and 1,023 is odd");
        assert_eq!(clipped(&"x".repeat(2_000)).len(), MOST_SHOWN);
    }

    #[test]
    fn a_transaction_begins_once() {
        let mut now = Now {
            doing: Doing::Running,
            query: Arc::from(""),
            planned: false,
            transaction: 0,
            transaction_us: None,
            query_us: None,
            changed_us: 0,
        };
        now.note_transaction(1, 10);
        now.note_transaction(1, 20);
        assert_eq!(now.transaction_us, Some(10));
        now.note_transaction(2, 30);
        assert_eq!(now.transaction_us, Some(30));
        assert_eq!(Doing::Resting(TransactionStatus::Failed).name(), "idle in transaction (aborted)");
    }
}
