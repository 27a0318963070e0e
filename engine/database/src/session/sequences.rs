//! A session's side of sequences: names to what counts, what `currval` and `lastval` remember, and the numbers that
//! only its open transaction may see.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sepal_query::{SequenceSource, SnapshotSlot, sequence_reference};
use sepal_types::{ColumnDef, ColumnId, Error, Result, SequenceDef, SqlState, TableDef, TableId};

use super::settings::Settings;
use crate::tenant::OpenTenant;

/// Which sequence: that of a serial or identity column, or one of its own by its one column.
type Key = (TableId, ColumnId);

/// Next values of the sequences that the open transaction made or restarted, or of its new tables' that it set. Shared
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

    fn next(&self, key: Key) -> Option<i64> {
        self.0.lock().get(&key).copied()
    }

    /// The next number, after which come those that are `count` greater; `None` for a sequence that the transaction has
    /// not touched.
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
    name: String,
    sequence: SequenceDef,
    /// It is nobody's column.
    apart: bool,
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

    /// Errors: 42P01, 42809 for a table.
    fn find(&self, sequence: &str) -> Result<Found> {
        let name = sequence_reference(sequence)?;
        let snapshot = self.view.get();
        let found = snapshot.sequence_named(&self.environment, &name).and_then(|(version, column)| {
            let (key, apart) = ((version.def.id, column.id), version.def.is_sequence());
            Some((key, column.sequence()?, apart))
        });
        match found {
            Some((key, sequence, apart)) => Ok(Found { key, name: name.name, sequence, apart }),
            None if snapshot.find(&self.environment, &name).is_some() => {
                Err(Error::new(SqlState::WrongObjectType, format!("\"{}\" is not a sequence", name.name)))
            }
            None => {
                let message = format!("relation \"{sequence}\" does not exist");
                Err(Error::new(SqlState::UndefinedTable, message))
            }
        }
    }

    fn next_of(&self, key: Key) -> i64 {
        self.own.next(key).unwrap_or_else(|| self.tenant.store.peek_sequence(key.0, key.1))
    }

    /// The first of `count` numbers, which `currval` and `lastval` remember the last of.
    ///
    /// Errors: 2200H beyond the sequence's last.
    fn take(&self, found: &Found, count: u64) -> Result<i64> {
        let Found { key, name, sequence, apart } = found;
        let counted = i64::try_from(count).unwrap_or(i64::MAX);
        let step = sequence.increment.saturating_mul(counted);
        let beyond = sequence.increment.saturating_mul(counted.saturating_sub(1));
        let max = sequence.max;
        let check = |first: i64| {
            if max == i64::MAX || first.saturating_add(beyond) <= max {
                return Ok(());
            }
            let message = format!("nextval: reached maximum value of sequence \"{name}\" ({max})");
            Err(Error::new(SqlState::SequenceGeneratorLimitExceeded, message))
        };
        // Not to count on beyond it.
        check(self.next_of(*key))?;
        let store = &self.tenant.store;
        let first = match self.own.take(*key, step) {
            Some(first) => first,
            None if *apart => store.next_apart(key.0, key.1, step.unsigned_abs()),
            None => store.next_sequence(key.0, key.1, step.unsigned_abs()),
        };
        // Others may have taken the last ones since.
        check(first)?;
        let last = first.saturating_add(beyond);
        let mut remembered = self.remembered.lock();
        remembered.0.insert(*key, last);
        remembered.1 = Some(last);
        Ok(first)
    }

    /// `nextval` and `setval` write, although they stand in a SELECT.
    fn check_writable(&self, function: &str, sequence: &str) -> Result<()> {
        if !self.writes {
            let message = format!("permission denied for sequence {sequence}");
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

impl std::fmt::Debug for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequences").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl SequenceSource for Sequences {
    fn reserve(&self, sequence: &str, count: u64) -> Result<i64> {
        let found = self.find(sequence)?;
        self.check_writable("nextval", &found.name)?;
        self.take(&found, count)
    }

    /// Without a look at the names of all tables' columns.
    fn reserve_for(&self, def: &TableDef, column: &ColumnDef, count: u64) -> Result<i64> {
        let Some(sequence) = column.sequence() else {
            return Err(Error::bug(format!("column {} has no sequence", column.name)));
        };
        let key = (def.id, column.id);
        self.take(&Found { key, name: def.sequence_name(column), sequence, apart: false }, count)
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
        let Found { key, name, sequence, .. } = self.find(sequence)?;
        self.check_writable("setval", &name)?;
        let SequenceDef { min, max, increment, .. } = sequence;
        if !(min..=max).contains(&value) {
            return Err(Error::new(
                SqlState::NumericValueOutOfRange,
                format!("setval: value {value} is out of bounds for sequence \"{name}\" ({min}..{max})"),
            ));
        }
        let next = if called { value.saturating_add(increment) } else { value };
        if self.own.next(key).is_some() || self.tenant.store.snapshot().table(key.0).is_none() {
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

    fn state(&self, sequence: &str) -> Result<(i64, bool)> {
        let Found { key, sequence, .. } = self.find(sequence)?;
        let then = self.view.get().past_sequence(key.0, key.1);
        Ok(sequence.last_value(then.unwrap_or_else(|| self.next_of(key))))
    }
}

#[cfg(test)]
mod tests {
    use crate::fixtures::{Fixture, run};

    use super::SequenceSource;

    /// Between a look at what comes next and taking it, others may take it.
    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_given_more_than_there_is() {
        let fixture = Fixture::new();
        let (mut session, mut other) = (fixture.session().await, fixture.session().await);
        run(&mut session, "CREATE SEQUENCE s MAXVALUE 200").await;
        run(&mut session, "BEGIN; SELECT nextval('s')").await;
        for _ in 0..50 {
            run(&mut other, "SELECT setval('s', 1, false)").await;
            let sequences = &session.sequences;
            let greatest = || std::iter::from_fn(|| sequences.reserve("s", 1).ok()).max();
            let taken = std::thread::scope(|scope| {
                [scope.spawn(greatest), scope.spawn(greatest)].map(|thread| thread.join().unwrap())
            });
            assert_eq!(taken.into_iter().max().flatten(), Some(200));
        }
    }
}
