//! What a reader sees: every table of the tenant at one commit.
//!
//! `query` pins one per statement or transaction. A snapshot never changes and costs an `Arc`; a new one shares
//! every table that a commit did not touch, and every chunk of those it did. No I/O except what a chunk does when
//! a key or row is looked up in a segment.

mod apply;
mod insert;
mod lookup;
mod merge;
mod names;
mod newer;
mod rebase;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use sepal_types::{ColumnId, Lsn, SearchPath, TableId};

use crate::{Op, StoreError, counters::FIRST_NUMBER};
use names::Names;

pub(crate) use apply::{Rules, check_not_null, check_unique};
pub use table::{Located, TableVersion};

/// All tables at one commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    state: Arc<State>,
    /// Where bare names are looked up.
    path: SearchPath,
}

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
    pub schema: String,
    pub name: String,
    pub error: StoreError,
}

impl Snapshot {
    pub(crate) fn new(state: State) -> Self {
        Self { state: Arc::new(state), path: SearchPath::default() }
    }

    /// Another state, seen as this one is.
    fn with(&self, state: State) -> Self {
        Self { state: Arc::new(state), path: self.path.clone() }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Before any commit.
    pub fn empty() -> Self {
        Self { state: Arc::default(), path: SearchPath::default() }
    }

    /// The last commit that this snapshot holds.
    pub fn lsn(&self) -> Lsn {
        self.state.lsn
    }

    /// When that commit was made, in microseconds since 1970-01-01 00:00 UTC. Later than any commit before it.
    pub fn time_us(&self) -> i64 {
        self.state.time_us
    }

    /// Every table of every environment, by id.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableVersion>> {
        self.state.tables.values().filter(|version| version.def.is_table())
    }

    /// Every sequence that is not a column's.
    pub fn sequences(&self) -> impl Iterator<Item = &Arc<TableVersion>> {
        self.state.tables.values().filter(|version| version.def.is_sequence())
    }

    pub fn table(&self, table: TableId) -> Option<&Arc<TableVersion>> {
        self.state.tables.get(&table)
    }

    /// What a sequence would have given next, as of a snapshot of the past. `None` of the present, which has no say:
    /// [`crate::TenantStore::peek_sequence`] has.
    pub fn past_sequence(&self, table: TableId, column: ColumnId) -> Option<i64> {
        let past = self.state.past_sequences.as_ref()?;
        let counted = past.iter().find(|(of, at, _)| (*of, *at) == (table, column));
        Some(counted.map_or(FIRST_NUMBER, |(_, _, next)| *next))
    }

    /// Whether an op made from `base` means the same here: a change of definition was made from the definition that
    /// its transaction saw, inserted rows have that definition's columns and were asked to keep to its constraints,
    /// and so have the rows that are deleted from a captured table, which the transaction knew to be captured; nothing
    /// came into or left a schema that goes or gets another name. Asked before a commit, and before a transaction's ops
    /// are put on top of a newer snapshot, where they would otherwise silently undo what was altered meanwhile.
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
        // A schema goes, or gets another name, with all that is in it.
        let whole = matches!(op, Op::AlterTable(_) | Op::DropTable(_)) && now.def.is_schema();
        let same = same && (!whole || self.has_members_of(base, &now.def));
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
        let mut state = (*self.state).clone();
        state.apply(op, Rules { trusted: true, ..Rules::PRIVATE })?;
        Ok(self.with(state))
    }

    /// This snapshot with one op more: a transaction's private view. Checks what a commit checks (tables exist,
    /// names are free, rows are live, keys are unique), changes nothing durable.
    pub fn apply(&self, op: &Op) -> Result<Snapshot, StoreError> {
        let mut state = (*self.state).clone();
        state.apply(op, Rules::PRIVATE)?;
        Ok(self.with(state))
    }
}

#[cfg(test)]
mod tests;
