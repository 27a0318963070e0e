//! What a reader sees: every table of the tenant at one commit.
//!
//! `query` pins one per statement or transaction. A snapshot never changes and costs an `Arc`; a new one shares
//! every table that a commit did not touch, and every chunk of those it did. No I/O except what a chunk does when
//! a key or row is looked up in a segment.

mod apply;
mod insert;
mod merge;
mod names;
mod newer;
mod rebase;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use sepal_types::{ColumnId, Lsn, TableId};

use crate::{Op, StoreError};
use names::Names;

pub(crate) use apply::{Rules, check_not_null, check_unique};
pub use table::{Located, TableVersion};

/// All tables at one commit.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<State>);

/// A snapshot's content. Clones are cheap: tables are shared until one is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub lsn: Lsn,
    /// When the last commit was made; 0 if nobody knows.
    pub time_us: i64,
    pub tables: BTreeMap<TableId, Arc<TableVersion>>,
    pub names: Arc<Names>,
    /// Of a past state: what its serials had counted to.
    pub past_sequences: Option<Arc<Vec<(TableId, ColumnId, i64)>>>,
    /// Of a past state: tables that are left out because what they need is damaged.
    pub unreadable: Arc<Vec<Unreadable>>,
}

/// A table that cannot be opened.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    pub environment: String,
    pub name: String,
    pub error: StoreError,
}

impl Snapshot {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(state))
    }

    pub(crate) fn state(&self) -> &State {
        &self.0
    }

    /// Before any commit.
    pub fn empty() -> Self {
        Self(Arc::default())
    }

    /// The last commit that this snapshot holds.
    pub fn lsn(&self) -> Lsn {
        self.0.lsn
    }

    /// When that commit was made, in microseconds since 1970-01-01 00:00 UTC. Later than any commit before it.
    pub fn time_us(&self) -> i64 {
        self.0.time_us
    }

    /// Every table of every environment, by id.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableVersion>> {
        self.0.tables.values().filter(|version| !version.def.is_sequence())
    }

    /// Every sequence that is not a column's.
    pub fn sequences(&self) -> impl Iterator<Item = &Arc<TableVersion>> {
        self.0.tables.values().filter(|version| version.def.is_sequence())
    }

    pub fn table(&self, table: TableId) -> Option<&Arc<TableVersion>> {
        self.0.tables.get(&table)
    }

    /// The table of this name in the environment.
    pub fn find(&self, environment: &str, name: &str) -> Option<&Arc<TableVersion>> {
        let version = self.table(self.0.names.get(environment, name)?)?;
        // An index's name leads to its table, but is not the table's.
        (version.def.name == name && !version.def.is_sequence()).then_some(version)
    }

    /// The sequence of this name in the environment, if it is not a column's.
    pub fn find_sequence(&self, environment: &str, name: &str) -> Option<&Arc<TableVersion>> {
        self.table(self.0.names.get(environment, name)?).filter(|version| version.def.is_sequence())
    }

    /// Why the table of this name is not among those of a past snapshot, if it was there and is damaged.
    pub fn unreadable(&self, environment: &str, name: &str) -> Option<&StoreError> {
        let is_it = |table: &&Unreadable| table.environment == environment && table.name == name;
        self.0.unreadable.iter().find(is_it).map(|table| &table.error)
    }

    /// Whether an op made from `base` means the same here: a change of definition was made from the definition that
    /// its transaction saw, inserted rows have that definition's columns and were asked to keep to its constraints,
    /// and so have the rows that are deleted from a captured table, which the transaction knew to be captured. Asked
    /// before a commit, and before a transaction's ops are put on top of a newer snapshot, where they would otherwise
    /// silently undo what was altered meanwhile.
    ///
    /// Errors: [`StoreError::WriteConflict`].
    pub fn check_base(&self, base: &Snapshot, op: &Op) -> Result<(), StoreError> {
        let table = op.table();
        let Some(now) = self.table(table) else { return Ok(()) };
        let then = base.table(table);
        let same = match op {
            Op::AlterTable(_) => then.is_none_or(|then| now.def == then.def),
            Op::Insert { .. } => then.is_none_or(|then| {
                now.def.columns == then.def.columns && now.def.constraints == then.def.constraints
            }),
            Op::Delete { .. } | Op::Truncate(_) if now.def.captured => {
                then.is_some_and(|then| then.def.captured && now.def.columns == then.def.columns)
            }
            _ => true,
        };
        if same { Ok(()) } else { Err(StoreError::WriteConflict { table: now.def.name.clone() }) }
    }

    /// Whether [`Self::apply`] would take the op: it asks the same of an insert's rows and makes no snapshot of them,
    /// which a statement by itself has no use for.
    ///
    /// Errors: those of [`Self::apply`].
    pub fn admits(&self, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::Insert { table, first_row, rows } => {
                let version = self.table(*table).ok_or(StoreError::NoSuchTable(*table))?;
                insert::check(version, *first_row, rows).map(drop)
            }
            other => self.apply(other).map(drop),
        }
    }

    /// [`Self::apply`] of what this very snapshot has admitted: nothing is asked a second time.
    pub fn apply_admitted(&self, op: &Op) -> Result<Snapshot, StoreError> {
        let mut state = (*self.0).clone();
        state.apply(op, Rules { trusted: true, ..Rules::PRIVATE })?;
        Ok(Self::new(state))
    }

    /// This snapshot with one op more: a transaction's private view. Checks what a commit checks (tables exist,
    /// names are free, rows are live, keys are unique), changes nothing durable.
    pub fn apply(&self, op: &Op) -> Result<Snapshot, StoreError> {
        let mut state = (*self.0).clone();
        state.apply(op, Rules::PRIVATE)?;
        Ok(Self::new(state))
    }
}

#[cfg(test)]
mod tests;
