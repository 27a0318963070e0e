//! A session's side of sequences: names to columns, what `currval` and `lastval` remember, and the numbers that
//! only its open transaction may see.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sepal_query::{SequenceSource, SnapshotSlot};
use sepal_types::{ColumnDef, ColumnId, Error, Result, SqlState, SqlType, TableDef, TableId};

use super::settings::Settings;
use crate::tenant::OpenTenant;

/// Which sequence: those of serial and identity columns are all there are.
type Key = (TableId, ColumnId);

/// Next values of the sequences that the open transaction restarted, or of its new tables' that it set. Shared
/// by the session's transaction and its plans.
#[derive(Clone, Debug, Default)]
pub struct OwnSequences(Arc<Mutex<HashMap<Key, i64>>>);

impl OwnSequences {
    pub fn set(&self, key: Key, next: i64) {
        self.0.lock().insert(key, next);
    }

    pub fn counted(&self) -> HashMap<Key, i64> {
        self.0.lock().clone()
    }

    pub fn restore(&self, counted: HashMap<Key, i64>) {
        *self.0.lock() = counted;
    }

    fn has(&self, key: Key) -> bool {
        self.0.lock().contains_key(&key)
    }

    /// The first of `count` numbers; `None` for a sequence that the transaction has not touched.
    fn take(&self, key: Key, count: i64) -> Option<i64> {
        let mut held = self.0.lock();
        let next = held.get_mut(&key)?;
        let first = *next;
        *next = first.saturating_add(count);
        Some(first)
    }
}

/// Looks names up in the session's current view.
pub struct Sequences {
    tenant: Arc<OpenTenant>,
    environment: Arc<str>,
    view: SnapshotSlot,
    settings: Arc<Mutex<Settings>>,
    /// Whether the key may write.
    writes: bool,
    own: OwnSequences,
    remembered: Mutex<(HashMap<Key, i64>, Option<i64>)>,
}

/// A sequence that was found by its name.
struct Found {
    key: Key,
    /// Its greatest value.
    max: i64,
}

impl Sequences {
    pub fn new(
        tenant: Arc<OpenTenant>,
        environment: Arc<str>,
        view: SnapshotSlot,
        settings: Arc<Mutex<Settings>>,
        writes: bool,
    ) -> Self {
        let (own, remembered) = (OwnSequences::default(), Mutex::default());
        Self { tenant, environment, view, settings, writes, own, remembered }
    }

    pub fn own(&self) -> OwnSequences {
        self.own.clone()
    }

    fn find(&self, sequence: &str) -> Result<Found> {
        let name = bare(sequence);
        let snapshot = self.view.get();
        snapshot
            .tables()
            .filter(|version| version.def.environment == *self.environment)
            .flat_map(|version| version.def.columns.iter().map(move |column| (version, column)))
            .find(|(version, column)| {
                column.generated.is_some() && sepal_query::dml::sequence_name(&version.def, column) == name
            })
            .map(|(version, column)| Found { key: (version.def.id, column.id), max: greatest(&column.ty) })
            .ok_or_else(|| {
                Error::new(SqlState::UndefinedTable, format!("relation \"{sequence}\" does not exist"))
            })
    }

    /// The first of `count` numbers, which `currval` and `lastval` remember the last of.
    fn take(&self, key: Key, count: u64) -> i64 {
        let counted = i64::try_from(count).unwrap_or(i64::MAX);
        let first = match self.own.take(key, counted) {
            Some(first) => first,
            None => self.tenant.store.next_sequence(key.0, key.1, count),
        };
        let last = first.saturating_add(counted).saturating_sub(1);
        let mut remembered = self.remembered.lock();
        remembered.0.insert(key, last);
        remembered.1 = Some(last);
        first
    }

    /// `nextval` and `setval` write, although they stand in a SELECT.
    fn check_writable(&self, function: &str, sequence: &str) -> Result<()> {
        if !self.writes {
            let message = format!("permission denied for sequence {}", bare(sequence));
            return Err(Error::new(SqlState::InsufficientPrivilege, message)
                .with_hint("Use a key with the write scope: sepal key create --scope read-write."));
        }
        let settings = self.settings.lock();
        if settings.is_on("transaction_read_only") || settings.as_of().is_some() {
            let message = format!("cannot execute {function}() in a read-only transaction");
            return Err(Error::new(SqlState::ReadOnlySqlTransaction, message));
        }
        Ok(())
    }
}

/// The name without a schema and quotes.
fn bare(sequence: &str) -> &str {
    sequence.rsplit('.').next().unwrap_or(sequence).trim_matches('"')
}

fn greatest(ty: &SqlType) -> i64 {
    match ty {
        SqlType::Int2 => i64::from(i16::MAX),
        SqlType::Int4 => i64::from(i32::MAX),
        _ => i64::MAX,
    }
}

impl std::fmt::Debug for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequences").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl SequenceSource for Sequences {
    fn reserve(&self, sequence: &str, count: u64) -> Result<i64> {
        let Found { key, .. } = self.find(sequence)?;
        self.check_writable("nextval", sequence)?;
        Ok(self.take(key, count))
    }

    /// Without a look at the names of all tables' columns.
    fn reserve_for(&self, def: &TableDef, column: &ColumnDef, count: u64) -> Result<i64> {
        Ok(self.take((def.id, column.id), count))
    }

    fn current(&self, sequence: &str) -> Result<i64> {
        let Found { key, .. } = self.find(sequence)?;
        self.remembered.lock().0.get(&key).copied().ok_or_else(|| {
            let message = format!("currval of sequence \"{sequence}\" is not yet defined in this session");
            Error::new(SqlState::ObjectNotInPrerequisiteState, message)
        })
    }

    fn last(&self) -> Result<i64> {
        self.remembered.lock().1.ok_or_else(|| {
            Error::new(SqlState::ObjectNotInPrerequisiteState, "lastval is not yet defined in this session")
        })
    }

    /// Durable on return, and not undone by a ROLLBACK, as in Postgres. Only what the transaction has to itself,
    /// its new tables and the sequences it restarted, it also sets for itself.
    fn set(&self, sequence: &str, value: i64, called: bool) -> Result<()> {
        let Found { key, max } = self.find(sequence)?;
        self.check_writable("setval", sequence)?;
        if !(1..=max).contains(&value) {
            let name = bare(sequence);
            return Err(Error::new(
                SqlState::NumericValueOutOfRange,
                format!("setval: value {value} is out of bounds for sequence \"{name}\" (1..{max})"),
            ));
        }
        let next = if called { value.saturating_add(1) } else { value };
        if self.own.has(key) || self.tenant.store.snapshot().table(key.0).is_none() {
            self.own.set(key, next);
        } else {
            // Called inside a plan, on a worker thread: the runtime moves its other tasks elsewhere meanwhile.
            tokio::task::block_in_place(|| self.tenant.store.set_sequence(key.0, key.1, next))?;
            self.tenant.logged.notify_one();
        }
        if called {
            self.remembered.lock().0.insert(key, value);
        }
        Ok(())
    }
}
