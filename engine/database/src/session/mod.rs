//! One connection's conversation with the engine: statements in, rows and tags out.
//!
//! Owned by one task of the server and bound to one principal: one tenant, one environment. A session plans
//! with `sepal_query`, keeps the transaction, and hands operations to the tenant's store.
//!
//! # Implicit transactions
//! A query string of the simple protocol, and a pipeline up to Sync, is one transaction unless BEGIN says
//! otherwise. The protocol layer brackets it with [`Session::begin_implicit`] and [`Session::end_implicit`].

mod activity;
mod advisory;
mod boundary;
mod cancel;
mod catalogs;
mod copy;
mod cursor;
mod define;
mod delivery;
mod execute;
mod explain;
mod history;
mod index_builds;
mod locking;
mod maintenance;
mod named;
mod past;
mod prepare;
mod prepared;
mod references;
mod replaced;
mod rewriting;
mod rows;
mod seen;
mod select_for;
mod sequences;
mod settings;
mod snapshot_age;
mod statements;
mod transaction;
mod utility;
mod write;

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use sepal_control::Principal;
use sepal_query::{
    AdvisoryCall, AdvisoryNumber, SearchSettings, SequenceSource, SettingSink, Shown, SnapshotSlot,
    StatementContext, TablesRead, Zone,
    catalog::CatalogContext,
    planner::Engine,
    sql::{Statement, parse_statements},
};
use sepal_storage::Snapshot;
use sepal_types::{EnumType, Error, Result, SearchPath, SqlState, SqlType};

use crate::{
    backend_pids::BackendPid,
    database::Database,
    locks::{SessionLocks, Watches},
    tenant::OpenTenant,
    tenants::Seat,
    write_memory::{Charge, WriteMemory},
};

pub(crate) use activity::Sessions;
pub use cancel::CancelToken;
pub use copy::{CopyIn, CopyOut};
pub use execute::Outcome;
pub use named::{NamedStatement, NamedStatements};
pub use prepared::Prepared;
pub use rows::RowStream;
pub use snapshot_age::snapshot_too_old;
pub use transaction::TransactionStatus;

use activity::{Presence, Signals};
use advisory::Advisory;
use boundary::is_repeatable;
use catalogs::Catalogs;
use cursor::Cursors;
use past::Moments;
use sequences::Sequences;
use settings::Settings;
use statements::Statements;
use transaction::Open;

/// A message beside the result.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    pub error: Error,
}

/// See the module.
pub struct Session {
    database: Arc<Database>,
    tenant: Arc<OpenTenant>,
    /// The tenant's, in the time zone of the statement at hand.
    engine: Arc<Engine>,
    principal: Principal,
    environment: Arc<str>,
    pid: BackendPid,
    /// What the tenant's unfinished writes may hold in memory, together.
    memory: Arc<WriteMemory>,
    open: Option<Open>,
    settings: Arc<Mutex<Settings>>,
    /// What running plans read: set from `settings` before each execution.
    search: Arc<RwLock<SearchSettings>>,
    /// What the statement at hand sees of the past.
    moments: Moments,
    /// The view that sequences look names up in.
    view: SnapshotSlot,
    /// What has a snapshot until the transaction ends.
    shown: Shown,
    /// What the client has sent before.
    statements: Statements,
    /// What it has prepared by name.
    named: NamedStatements,
    cursors: Arc<Mutex<Cursors>>,
    catalogs: Arc<Catalogs>,
    sequences: Arc<Sequences>,
    /// Its place among those who wait for each other.
    locks: SessionLocks,
    /// What its statement wants to know of replaced rows.
    watches: Watches,
    advisory: Arc<Advisory>,
    setting_sink: Arc<dyn SettingSink>,
    cancel: CancelToken,
    notices: Vec<Notice>,
    /// Its place among the tenant's sessions.
    presence: Presence,
    signals: Arc<Signals>,
    /// How many transactions have begun.
    transactions: u64,
    /// Keeps the tenant open.
    _seat: Seat,
}

impl Session {
    pub(crate) fn new(
        database: Arc<Database>,
        (tenant, seat): (Arc<OpenTenant>, Seat),
        principal: Principal,
        environment: &str,
        pid: BackendPid,
        memory: Arc<WriteMemory>,
        startup_parameters: &[(String, String)],
    ) -> Result<Self> {
        let settings = first_settings(&database, &principal, startup_parameters)?;
        let environment = Arc::<str>::from(environment);
        let (view, cancel) = (SnapshotSlot::default(), CancelToken::default());
        let sequences = Sequences::new(
            Arc::clone(&tenant),
            Arc::clone(&environment),
            view.clone(),
            Arc::clone(&settings),
            principal.scopes.write,
        );
        let locks = tenant.locks.enlist(pid.number());
        let advisory = Arc::new(Advisory::new(Arc::clone(&environment), locks.advisory()));
        let sink =
            Sink { settings: Arc::clone(&settings), cancel: cancel.clone(), advisory: Arc::clone(&advisory) };
        let presence = tenant.sessions.enter(pid.number(), &principal, &environment, &settings, &cancel);
        let signals = Arc::new(Signals::new(&tenant.sessions, &principal));
        let (named, cursors) = (NamedStatements::default(), Arc::<Mutex<Cursors>>::default());
        let catalogs = Catalogs {
            database: Arc::clone(&database),
            tenant: Arc::clone(&tenant),
            principal: principal.clone(),
            environment: Arc::clone(&environment),
            pid: pid.number(),
            memory: Arc::clone(&memory),
            settings: Arc::clone(&settings),
            cancel: cancel.clone(),
            signals: Arc::clone(&signals),
            named: named.weak(),
            cursors: Arc::downgrade(&cursors),
        };
        Ok(Self {
            database,
            engine: Arc::clone(&tenant.engine),
            tenant,
            principal,
            environment,
            pid,
            memory,
            open: None,
            settings,
            search: Arc::default(),
            moments: Moments::default(),
            view,
            shown: Shown::default(),
            statements: Statements::new(),
            named,
            cursors,
            catalogs: Arc::new(catalogs),
            sequences: Arc::new(sequences),
            locks,
            watches: Watches::default(),
            advisory,
            setting_sink: Arc::new(sink),
            cancel,
            notices: Vec::new(),
            presence,
            signals,
            transactions: 0,
            _seat: seat,
        })
    }

    /// The statements of a query string, in order; none for an empty one. Errors: 42601 with the position.
    pub fn split(&self, sql: &str) -> Result<Vec<Statement>> {
        parse_statements(sql)
    }

    /// The one statement of a Parse message; `None` for an empty one.
    pub fn parse_one(&self, sql: &str) -> Result<Option<Statement>> {
        let mut statements = parse_statements(sql)?;
        if statements.len() > 1 {
            return Err(Error::new(
                SqlState::SyntaxError,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        Ok(statements.pop())
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.open {
            Some(open) if open.explicit && open.failed => TransactionStatus::Failed,
            Some(open) if open.explicit => TransactionStatus::Active,
            _ => TransactionStatus::Idle,
        }
    }

    /// The protocol layer reported an error: the transaction can only be rolled back now, and its locks are given back.
    pub fn fail_transaction(&mut self) {
        if let Some(open) = &mut self.open {
            open.fail();
        }
    }

    /// A query string or a pipeline begins.
    pub fn begin_implicit(&mut self) {
        if self.open.is_none() {
            self.start(false);
        }
    }

    /// It ended. Commits, or rolls back, unless an explicit transaction is open.
    pub async fn end_implicit(&mut self, ok: bool) -> Result<()> {
        match &self.open {
            Some(open) if !open.explicit => {
                if ok && !open.failed {
                    self.commit().await
                } else {
                    self.roll_back();
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// The value of a setting, as SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.lock().get(name)
    }

    /// Reported settings that changed, for ParameterStatus.
    pub fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        self.settings.lock().take_changes()
    }

    /// What is to be told beside results: from `client_min_messages` up, and INFO always.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.notices);
        let warnings = self.signals.take_warnings().into_iter();
        notices.extend(warnings.map(|error| Notice { severity: "WARNING", error }));
        if !notices.is_empty() {
            let settings = self.settings.lock();
            let least = settings.value("client_min_messages");
            notices.retain(|notice| match notice.severity {
                "NOTICE" => !matches!(least, Some("warning" | "error")),
                "WARNING" => least != Some("error"),
                _ => true,
            });
        }
        notices
    }

    /// The statements that the client has named, by PREPARE or by Parse.
    pub fn named_statements(&self) -> NamedStatements {
        self.named.clone()
    }

    /// Whether intervals print as `P1DT2H` (`IntervalStyle` is iso_8601).
    pub fn has_iso_intervals(&self) -> bool {
        self.settings.lock().value("intervalstyle") == Some("iso_8601")
    }

    /// Whether the environment has a type with this oid that somebody made, or whose array it is.
    pub fn has_type(&mut self, oid: u32) -> bool {
        let environment = Arc::clone(&self.environment);
        let has =
            |snapshot: &Snapshot| snapshot.enums(&environment).any(|ty| ty.id.0 == oid || ty.array.0 == oid);
        let own = self.open.as_mut().is_some_and(|open| open.view().is_ok_and(has));
        own || has(&self.tenant.store.snapshot())
    }

    /// The types that a statement's parameters were told to have, with the labels that their enums have by now.
    pub fn parameter_types<'a>(&mut self, prepared: &'a Prepared) -> Result<Cow<'a, [SqlType]>> {
        let types = prepared.parameters();
        let has_labels = |ty: &SqlType| match ty {
            SqlType::Array(element) => element.enum_type().is_some(),
            other => other.enum_type().is_some(),
        };
        if !types.iter().any(has_labels) {
            return Ok(Cow::Borrowed(types));
        }
        let view = self.current_view()?;
        let now = |then: &EnumType| {
            let found = view.enums(&self.environment).find(|now| now.id == then.id);
            SqlType::Enum(found.unwrap_or(then).clone())
        };
        let types = types.iter().map(|ty| match ty {
            SqlType::Enum(then) => now(then),
            SqlType::Array(element) => match element.as_ref() {
                SqlType::Enum(then) => SqlType::Array(Box::new(now(then))),
                _ => ty.clone(),
            },
            other => other.clone(),
        });
        Ok(Cow::Owned(types.collect()))
    }

    /// The zone in which times are read and printed (`TimeZone`).
    pub fn time_zone(&self) -> Zone {
        self.settings.lock().zone()
    }

    /// From now on plans are made, and run, for this zone.
    fn adopt(&mut self, zone: Zone) {
        if zone != self.engine.zone() {
            self.engine = self.tenant.engine.in_zone(zone);
        }
    }

    /// Tells other sessions of the tenant where this one's client is.
    pub fn set_client(&self, client: SocketAddr) {
        self.presence.set_client(client);
    }

    /// The client was told that the session is ready: nothing runs until its next message.
    pub fn rest(&self) {
        self.presence.rest(self.transaction_status(), self.transactions);
    }

    pub fn statement_timeout(&self) -> Option<Duration> {
        self.settings.lock().statement_timeout()
    }

    /// How long the client may leave its transaction open without a statement; `None` without a transaction or limit.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        match self.transaction_status() {
            TransactionStatus::Idle => None,
            _ => self.settings.lock().idle_in_transaction_timeout(),
        }
    }

    /// The client asks for more of a result. What was cancelled while it had the turn is not.
    ///
    /// Errors: 25P02, 72000.
    pub fn resume(&self) -> Result<()> {
        self.cancel.arm();
        self.check_not_failed(None)
    }

    /// Stops the running statement, from any task.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// The number that BackendKeyData carries and `pg_backend_pid()` returns.
    pub fn backend_pid(&self) -> i32 {
        self.pid.number()
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// Errors: 57P01 once the key is revoked or the tenant dropped.
    pub fn check_alive(&self) -> Result<()> {
        self.tenant.check_open()?;
        if self.database.control().still_valid(&self.principal) {
            return Ok(());
        }
        Err(Error::new(
            SqlState::AdminShutdown,
            "terminating connection because its API key is no longer valid",
        ))
    }

    fn start(&mut self, explicit: bool) {
        // Before the snapshot: it may be of newer definitions than that, never of older ones.
        let definitions = self.tenant.definitions.load(Ordering::Acquire);
        let (snapshot, charge) = (self.tenant.store.snapshot(), Charge::none(&self.memory));
        let locks = self.locks.begin();
        let mut open = Open::new(explicit, snapshot, self.sequences.own(), charge, locks);
        let mut settings = self.settings.lock();
        open.read_only = settings.begin();
        // Of statements without BEGIN, too.
        open.repeatable = settings.first_isolation().is_some_and(is_repeatable);
        drop(settings);
        open.definitions = definitions;
        self.open = Some(open);
        self.transactions += 1;
    }

    /// A statement is planned, or run (`planned` is false): what others see of the session.
    fn show_running(&self, sql: &Arc<str>, planned: bool) {
        self.presence.run(sql, self.transactions, planned);
    }

    /// The snapshot that the next statement sees.
    fn current_view(&mut self) -> Result<Snapshot> {
        self.check_snapshot_age()?;
        if let Some(past) = self.moments.whole() {
            return Ok(past.clone());
        }
        let path = self.search_path();
        let definitions = self.tenant.definitions.load(Ordering::Acquire);
        let head = self.tenant.store.snapshot();
        match &mut self.open {
            Some(open) => {
                open.refresh(head)?;
                if !open.stays() {
                    open.definitions = definitions;
                }
                Ok(open.view()?.clone().searching(path))
            }
            None => Ok(head.searching(path)),
        }
    }

    /// Where bare names are looked up.
    fn search_path(&self) -> SearchPath {
        self.settings.lock().search_path().clone()
    }

    /// The same, for running and not only for planning: a REPEATABLE READ transaction stays with it.
    fn pinned_view(&mut self) -> Result<Snapshot> {
        let view = self.current_view()?;
        if let Some(open) = &mut self.open {
            open.queried = true;
        }
        Ok(view)
    }

    fn notice(&mut self, severity: &'static str, error: Error) {
        self.notices.push(Notice { severity, error });
    }

    /// What a statement planned now may touch.
    fn statement_context(&mut self) -> Result<StatementContext> {
        let zone = self.time_zone();
        self.adopt(zone);
        let snapshot = self.current_view()?;
        self.shown.show(&self.view, snapshot.clone());
        *self.search.write() = self.settings.lock().search();
        Ok(StatementContext {
            catalog: self.shown.catalog(self.catalogs.later(&snapshot)),
            snapshot: self.shown.snapshot(snapshot),
            environment: Arc::clone(&self.environment),
            indexes: Arc::clone(&self.tenant.indexes),
            search: Arc::clone(&self.search),
            sequences: Arc::clone(&self.sequences) as Arc<dyn SequenceSource>,
            settings: Arc::clone(&self.setting_sink),
            nested: Arc::default(),
            past: Arc::clone(self.moments.tables()),
            reads: TablesRead::default(),
        })
    }

    /// What the catalogs show to this session.
    fn catalog_context(&self, snapshot: Snapshot) -> CatalogContext {
        self.catalogs.context(snapshot)
    }
}

/// What a session begins with.
fn first_settings(
    database: &Database,
    principal: &Principal,
    startup_parameters: &[(String, String)],
) -> Result<Arc<Mutex<Settings>>> {
    let mut settings = Settings::new(&principal.key_id);
    settings.fix("max_connections", database.max_connections().to_string());
    for (name, value) in startup_parameters {
        settings.set(name, value, false)?;
    }
    settings.connected();
    Ok(Arc::new(Mutex::new(settings)))
}

/// `set_config`, `pg_sleep` and the functions of advisory locks.
#[derive(Debug)]
struct Sink {
    settings: Arc<Mutex<Settings>>,
    cancel: CancelToken,
    advisory: Arc<Advisory>,
}

impl SettingSink for Sink {
    fn set(&self, name: &str, value: &str, local: bool) -> Result<String> {
        self.settings.lock().set(name, value, local)
    }

    fn sleep(&self, duration: Duration) {
        self.cancel.owe(duration);
    }

    fn advisory(&self, call: AdvisoryCall, number: AdvisoryNumber) -> Result<bool> {
        self.advisory.call(call, number)
    }
}
