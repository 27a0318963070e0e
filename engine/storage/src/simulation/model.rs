//! What the store should hold: maps, and the rules of a commit in a page.
//!
//! Knows nothing of chunks, files or logs. It judges every commit before the store's answer is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sepal_types::{TableDef, TableId};

use crate::StoreError;

/// A row: the columns that every table has, and those that were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub id: i64,
    pub label: Arc<str>,
    /// By column id, NULL included; a column that is not here came later.
    pub more: BTreeMap<u32, Option<i64>>,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub def: TableDef,
    /// By row id.
    pub rows: BTreeMap<u64, Row>,
    /// Every row id that was ever committed.
    pub used: BTreeSet<u64>,
    /// By index, others whose bytes it may have: a clone's index begins as its source's.
    pub kin: BTreeMap<TableId, BTreeSet<TableId>>,
}

/// All tables at one commit.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub tables: BTreeMap<TableId, Arc<Table>>,
}

/// A clone has the rows that it shares; those that it copies are inserted next.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create(TableDef),
    Clone(Arc<Table>),
    Alter(TableDef),
    Drop(TableId),
    Truncate(TableId),
    Insert { table: TableId, first_row: u64, rows: Vec<Row> },
    Delete { table: TableId, rows: Vec<u64> },
    SetSequence { table: TableId, next: i64 },
}

/// Why a commit is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Conflict,
    Unique,
    Name,
    NoTable,
}

impl Change {
    pub(super) fn table(&self) -> TableId {
        match self {
            Self::Create(def) | Self::Alter(def) => def.id,
            Self::Clone(table) => table.def.id,
            Self::Drop(table)
            | Self::Truncate(table)
            | Self::Insert { table, .. }
            | Self::Delete { table, .. }
            | Self::SetSequence { table, .. } => *table,
        }
    }

    /// Whether the table's serial is logged with it.
    pub(super) const fn logs_sequence(&self) -> bool {
        matches!(self, Self::Insert { .. } | Self::SetSequence { .. })
    }
}

impl Refusal {
    pub(super) const fn of(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::WriteConflict { .. } => Some(Self::Conflict),
            StoreError::UniqueViolation { .. } => Some(Self::Unique),
            StoreError::DuplicateTable(_) => Some(Self::Name),
            StoreError::NoSuchTable(_) => Some(Self::NoTable),
            _ => None,
        }
    }
}

impl State {
    /// The state after a transaction that read from `base`.
    pub(super) fn commit(&self, base: &Self, changes: &[Change]) -> Result<Self, Refusal> {
        changes.iter().try_for_each(|change| self.same_as_in(base, change))?;
        let mut next = self.clone();
        changes.iter().try_for_each(|change| next.apply(change))?;
        Ok(next)
    }

    /// One change more. Half done on a refusal.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Create(def) => {
                self.check_names(def)?;
                self.tables.insert(def.id, Arc::new(Table::new(def.clone())));
            }
            Change::Clone(table) => {
                self.check_names(&table.def)?;
                self.tables.insert(table.def.id, Arc::clone(table));
            }
            Change::Alter(def) => {
                self.table_mut(def.id)?;
                self.check_names(def)?;
                self.table_mut(def.id)?.def = def.clone();
            }
            Change::Drop(table) => {
                self.tables.remove(table).ok_or(Refusal::NoTable)?;
            }
            Change::Truncate(table) => self.table_mut(*table)?.rows.clear(),
            Change::Insert { table, first_row, rows } => self.table_mut(*table)?.insert(*first_row, rows)?,
            Change::Delete { table, rows } => {
                let table = self.table_mut(*table)?;
                for row in rows {
                    table.rows.remove(row).ok_or(Refusal::Conflict)?;
                }
            }
            Change::SetSequence { table, .. } => {
                self.table_mut(*table)?;
            }
        }
        Ok(())
    }

    /// A change means here what it meant where it was made.
    fn same_as_in(&self, base: &Self, change: &Change) -> Result<(), Refusal> {
        let Some(now) = self.tables.get(&change.table()) else { return Ok(()) };
        let then = base.tables.get(&change.table());
        let same = match change {
            Change::Alter(_) => then.is_none_or(|then| then.def == now.def),
            Change::Insert { .. } => then.is_none_or(|then| then.def.columns == now.def.columns),
            Change::Delete { .. } | Change::Truncate(_) if now.def.captured => {
                then.is_some_and(|then| then.def.captured && then.def.columns == now.def.columns)
            }
            _ => true,
        };
        if same { Ok(()) } else { Err(Refusal::Conflict) }
    }

    /// Tables and indexes share one space of names.
    fn check_names(&self, def: &TableDef) -> Result<(), Refusal> {
        let others = self.tables.values().filter(|table| table.def.id != def.id);
        let taken: BTreeSet<&str> = others.flat_map(|table| names(&table.def)).collect();
        if names(def).any(|name| taken.contains(name)) { Err(Refusal::Name) } else { Ok(()) }
    }

    fn table_mut(&mut self, table: TableId) -> Result<&mut Table, Refusal> {
        self.tables.get_mut(&table).map(Arc::make_mut).ok_or(Refusal::NoTable)
    }
}

impl Table {
    pub(super) const fn new(def: TableDef) -> Self {
        Self { def, rows: BTreeMap::new(), used: BTreeSet::new(), kin: BTreeMap::new() }
    }

    fn insert(&mut self, first_row: u64, rows: &[Row]) -> Result<(), Refusal> {
        let mut keys: BTreeSet<i64> = self.rows.values().map(|row| row.id).collect();
        if !rows.iter().all(|row| keys.insert(row.id)) {
            return Err(Refusal::Unique);
        }
        for (row_id, row) in (first_row..).zip(rows) {
            self.rows.insert(row_id, row.clone());
            self.used.insert(row_id);
        }
        Ok(())
    }
}

fn names(def: &TableDef) -> impl Iterator<Item = &str> {
    std::iter::once(def.name.as_str()).chain(def.indexes.iter().map(|index| index.name.as_str()))
}
