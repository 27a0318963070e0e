//! One op on a state: the same code for a transaction's private view, a commit and a recovery.
//!
//! Called by [`super::Snapshot::apply`], `group`, `store::open` and `history`. Looks up rows and keys, which may decode
//! a segment's columns; writes nothing.

use std::{collections::HashMap, sync::Arc};

use arrow::array::Array;
use roaring::RoaringBitmap;
use sepal_types::{ColumnDef, RowId, TableDef, TableId};

use super::{State, TableVersion, insert};
use crate::{
    ChunkRef, Op, StoreError,
    chunk::{KeyColumns, KeyMap, check_missing},
};

/// How ops are applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Which memory chunks may be merged with each other.
    pub generation: u64,
    /// The ops were checked before: a recovery replays what was acknowledged.
    pub trusted: bool,
}

impl Rules {
    /// A transaction's own rows are merged among themselves, never with committed ones.
    pub(super) const PRIVATE: Self = Self { generation: u64::MAX, trusted: false };
}

impl State {
    /// On error the state is half changed: apply to a copy.
    pub(crate) fn apply(&mut self, op: &Op, rules: Rules) -> Result<(), StoreError> {
        match op {
            Op::CreateTable(def) => self.create(def, Vec::new()),
            Op::Clone { def, source } => self.create(def, source.opened()?),
            Op::AlterTable(def) => self.alter(def, rules),
            Op::DropTable(table) => self.drop_table(*table),
            Op::Truncate(table) => {
                self.table_mut(*table)?.chunks.clear();
                Ok(())
            }
            Op::Insert { table, first_row, rows } => {
                let version = self.table_mut(*table)?;
                insert::insert(version, *first_row, rows, rules)
            }
            Op::Delete { table, rows } => delete(self.table_mut(*table)?, rows),
            Op::SetSequence { table, .. } => self.table_mut(*table).map(|_| ()),
        }
    }

    fn create(&mut self, def: &TableDef, chunks: Vec<ChunkRef>) -> Result<(), StoreError> {
        if self.tables.contains_key(&def.id) {
            return Err(StoreError::Bug(format!("table id {} is in use", def.id)));
        }
        self.check_schema(def)?;
        Arc::make_mut(&mut self.names).insert(def)?;
        let version = TableVersion { def: Arc::new(def.clone()), chunks };
        self.tables.insert(def.id, Arc::new(version));
        Ok(())
    }

    fn check_schema(&self, def: &TableDef) -> Result<(), StoreError> {
        if self.names.has_schema_of(def) { Ok(()) } else { Err(StoreError::NoSuchSchema(def.schema.clone())) }
    }

    fn alter(&mut self, def: &TableDef, rules: Rules) -> Result<(), StoreError> {
        self.check_schema(def)?;
        let version = self.tables.get_mut(&def.id).ok_or(StoreError::NoSuchTable(def.id))?;
        let version = Arc::make_mut(version);
        let old = std::mem::replace(&mut version.def, Arc::new(def.clone()));
        let names = Arc::make_mut(&mut self.names);
        names.remove(&old);
        names.insert(def)?;
        if rules.trusted {
            return Ok(());
        }
        let nullable = |column: &&ColumnDef| {
            column.not_null
                && old.column_by_id(column.id).map_or(column.missing.is_none(), |before| !before.not_null)
        };
        def.columns.iter().filter(nullable).try_for_each(|column| check_not_null(version, column))?;
        // Nobody could read the rows with one that does not read.
        let most = version.chunks.iter().map(|chunk| chunk.chunk.rows()).max().unwrap_or(0);
        let added = def.columns.iter().filter(|column| old.column_by_id(column.id).is_none());
        added.into_iter().try_for_each(|column| check_missing(column, most))?;
        let before = |columns: &[_]| old.uniques.iter().any(|unique| unique.columns == columns);
        let added = def.uniques.iter().filter(|unique| !before(&unique.columns));
        added.into_iter().try_for_each(|unique| check_unique(version, unique))
    }

    fn drop_table(&mut self, table: TableId) -> Result<(), StoreError> {
        let version = self.tables.remove(&table).ok_or(StoreError::NoSuchTable(table))?;
        let is_in_it = |other: &Arc<TableVersion>| {
            other.def.environment == version.def.environment && other.def.schema == version.def.name
        };
        if version.def.is_schema() && self.tables.values().any(is_in_it) {
            return Err(StoreError::WriteConflict { table: version.def.name.clone() });
        }
        Arc::make_mut(&mut self.names).remove(&version.def);
        Ok(())
    }

    fn table_mut(&mut self, table: TableId) -> Result<&mut TableVersion, StoreError> {
        self.tables.get_mut(&table).map(Arc::make_mut).ok_or(StoreError::NoSuchTable(table))
    }
}

/// Marks rows as deleted; each must be live.
pub(super) fn delete(version: &mut TableVersion, rows: &[RowId]) -> Result<(), StoreError> {
    let mut found = 0;
    let mut deleted: HashMap<usize, RoaringBitmap> = HashMap::new();
    version.find_rows(rows, |_, chunk, position| {
        let bitmap =
            deleted.entry(chunk).or_insert_with(|| RoaringBitmap::clone(&version.chunks[chunk].deleted));
        // False for a row that was deleted before, or that is named twice.
        if bitmap.insert(position) {
            found += 1;
        }
    })?;
    if found != rows.len() {
        return Err(StoreError::WriteConflict { table: version.def.name.clone() });
    }
    for (index, bitmap) in deleted {
        version.chunks[index].deleted = Arc::new(bitmap.into());
    }
    Ok(())
}

/// NOT NULL added to a column that had it not, or with a column of which the rows have no value.
pub(crate) fn check_not_null(version: &TableVersion, column: &ColumnDef) -> Result<(), StoreError> {
    for reference in version.chunks.iter().filter(|reference| reference.live_rows() > 0) {
        let values = reference.chunk.column(column)?;
        let lacks =
            |position: u32| values.is_null(position as usize) && !reference.deleted.contains(position);
        if values.null_count() > 0 && (0..reference.chunk.rows()).any(lacks) {
            let (table, column) = (version.def.name.clone(), column.name.clone());
            return Err(StoreError::NullValues { table, column });
        }
    }
    Ok(())
}

/// A constraint added to a table that has rows.
pub(crate) fn check_unique(
    version: &TableVersion,
    unique: &sepal_types::UniqueDef,
) -> Result<(), StoreError> {
    let columns = KeyColumns::new(&version.def, &unique.columns)?;
    for (index, chunk) in version.chunks.iter().enumerate() {
        if chunk.live_rows() == 0 {
            continue;
        }
        let map: Arc<KeyMap> = chunk.chunk.keys(&version.def, &columns)?;
        for position in map.present().filter(|position| !chunk.deleted.contains(*position)) {
            let within =
                map.find(&map, position).any(|other| other != position && !chunk.deleted.contains(other));
            let earlier = || -> Result<bool, StoreError> {
                for other in &version.chunks[..index] {
                    let keys = other.chunk.keys(&version.def, &columns)?;
                    if keys.find(&map, position).any(|position| !other.deleted.contains(position)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            if within || earlier()? {
                let columns = columns.columns(&version.def)?;
                let arrays =
                    columns.iter().map(|column| chunk.chunk.column(column)).collect::<Result<Vec<_>, _>>()?;
                return Err(insert::violation(&version.def, unique, &arrays, position));
            }
        }
    }
    Ok(())
}
