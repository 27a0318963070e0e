//! A session's side of sequences: names to columns, and what `currval` and `lastval` remember.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sepal_query::{SequenceSource, SnapshotSlot};
use sepal_types::{ColumnId, Error, Result, SqlState, TableId};

use crate::tenant::OpenTenant;

/// Looks names up in the session's current view.
pub struct Sequences {
    pub tenant: Arc<OpenTenant>,
    pub environment: Arc<str>,
    pub view: SnapshotSlot,
    remembered: Mutex<(HashMap<String, i64>, Option<i64>)>,
}

impl Sequences {
    pub fn new(tenant: Arc<OpenTenant>, environment: Arc<str>, view: SnapshotSlot) -> Self {
        Self { tenant, environment, view, remembered: Mutex::default() }
    }

    fn find(&self, sequence: &str) -> Result<(TableId, ColumnId)> {
        let name = sequence.rsplit('.').next().unwrap_or(sequence).trim_matches('"');
        let snapshot = self.view.get();
        snapshot
            .tables()
            .filter(|version| version.def.environment == *self.environment)
            .flat_map(|version| version.def.columns.iter().map(move |column| (version, column)))
            .find(|(version, column)| {
                column.generated.is_some() && sepal_query::dml::sequence_name(&version.def, column) == name
            })
            .map(|(version, column)| (version.def.id, column.id))
            .ok_or_else(|| {
                Error::new(SqlState::UndefinedTable, format!("relation \"{sequence}\" does not exist"))
            })
    }
}

impl std::fmt::Debug for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequences").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl SequenceSource for Sequences {
    fn reserve(&self, sequence: &str, count: u64) -> Result<i64> {
        let (table, column) = self.find(sequence)?;
        let first = self.tenant.store.next_sequence(table, column, count);
        let last = first + i64::try_from(count).unwrap_or(1) - 1;
        let mut remembered = self.remembered.lock();
        remembered.0.insert(sequence.to_owned(), last);
        remembered.1 = Some(last);
        Ok(first)
    }

    fn current(&self, sequence: &str) -> Result<i64> {
        self.find(sequence)?;
        self.remembered.lock().0.get(sequence).copied().ok_or_else(|| {
            let message = format!("currval of sequence \"{sequence}\" is not yet defined in this session");
            Error::new(SqlState::ObjectNotInPrerequisiteState, message)
        })
    }

    fn last(&self) -> Result<i64> {
        self.remembered.lock().1.ok_or_else(|| {
            Error::new(SqlState::ObjectNotInPrerequisiteState, "lastval is not yet defined in this session")
        })
    }

    fn set(&self, sequence: &str, value: i64) -> Result<()> {
        let (table, column) = self.find(sequence)?;
        self.tenant.store.set_sequence(table, column, value.saturating_add(1));
        self.remembered.lock().0.insert(sequence.to_owned(), value);
        Ok(())
    }
}
