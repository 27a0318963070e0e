//! One table at one commit: its definition and its chunks.
//!
//! `query` reads it; `apply` makes the next one.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use sepal_types::{ColumnId, RowId, TableDef, TableId, UniqueDef};

use crate::{
    ChunkRef, StoreError,
    arrow_types::stored_column,
    chunk::{KeyColumns, KeyMap},
};

/// A table in a snapshot.
#[derive(Clone, Debug)]
pub struct TableVersion {
    pub def: Arc<TableDef>,
    /// Segments first, then memory chunks, oldest first.
    pub chunks: Vec<ChunkRef>,
}

/// A live row, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub row: RowId,
    /// Among the version's chunks.
    pub chunk: usize,
    pub position: u32,
}

impl TableVersion {
    /// Rows that this version sees.
    pub fn live_rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.live_rows())).sum()
    }

    /// Bytes of its chunks, in memory and on disk.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.chunk.bytes()).sum()
    }

    /// Bytes of one of its indexes: the files, and the definition, which is all that a constraint or an index over
    /// few rows has. `None` when it is not this table's.
    pub fn index_bytes(&self, index: TableId) -> Option<u64> {
        let secondary = self.def.indexes.iter().find(|def| def.id == index).map(serde_json::to_vec);
        let unique = || self.def.uniques.iter().find(|def| def.id == index).map(serde_json::to_vec);
        let definition = secondary.or_else(unique)?.map_or(0, |json| json.len() as u64);
        let files: u64 = self.chunks.iter().map(|chunk| chunk.chunk.index_bytes(index)).sum();
        Some(definition + files)
    }

    /// The live row of each key, `None` where there is none or where the key has a NULL. `keys` has one array
    /// per column of the constraint, in its order, typed [`crate::arrow_type`].
    pub fn lookup_unique(
        &self,
        unique: &UniqueDef,
        keys: &[ArrayRef],
    ) -> Result<Vec<Option<RowId>>, StoreError> {
        let wanted = KeyMap::build(keys)?;
        let mut found = vec![None; wanted.len()];
        self.probe(&KeyColumns::new(&self.def, &unique.columns)?, &wanted, |key, row| {
            found[key as usize] = Some(row);
            true
        })?;
        Ok(found)
    }

    /// The live rows that have one key: `keys` has one array of one value per column of the constraint, as in
    /// [`Self::lookup_unique`]. At most one row of a commit's snapshot, but a statement that has waited sees a mixture
    /// of two ([`crate::Snapshot::with_newer`]), between which a key may have gone from one row to another. Ascending.
    pub fn find_key(&self, unique: &UniqueDef, keys: &[ArrayRef]) -> Result<Vec<Located>, StoreError> {
        let wanted = KeyMap::build(keys)?;
        if wanted.present().next().is_none() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        self.probe_places(&KeyColumns::new(&self.def, &unique.columns)?, &wanted, |_, chunk, position| {
            let row = self.chunks[chunk].chunk.row_at(position)?;
            found.push(Located { row, chunk, position });
            Ok(true)
        })?;
        found.sort_unstable_by_key(|located| located.row);
        Ok(found)
    }

    /// The live rows that have one of these keys in columns that need not be unique, each after the place of its key:
    /// `keys` has one array per column, typed [`crate::arrow_type`], no key twice. Ascending by row. Looks at every
    /// row, and keeps nothing of it, unless the columns are just those of a unique key, by which they are looked up.
    pub fn rows_referring(
        &self,
        columns: &[ColumnId],
        keys: &[ArrayRef],
    ) -> Result<Vec<(usize, RowId)>, StoreError> {
        let unique = self.unique_over(columns, keys);
        let wanted = KeyMap::build(unique.as_ref().map_or(keys, |(_, keys)| keys.as_slice()))?;
        let mut found = Vec::new();
        if wanted.present().next().is_none() {
            return Ok(found);
        }
        if let Some((unique, _)) = unique {
            self.probe(&KeyColumns::new(&self.def, &unique.columns)?, &wanted, |key, row| {
                found.push((key as usize, row));
                true
            })?;
            found.sort_unstable_by_key(|(_, row)| *row);
            return Ok(found);
        }
        let of = KeyColumns::new(&self.def, columns)?;
        for reference in self.chunks.iter().filter(|reference| reference.live_rows() > 0) {
            let columns = of.columns(&self.def)?;
            let arrays = columns.iter().map(|column| reference.chunk.column(column));
            let held = KeyMap::without_slots(&arrays.collect::<Result<Vec<_>, _>>()?)?;
            for position in held.present().filter(|position| !reference.deleted.contains(*position)) {
                if let Some(key) = wanted.find(&held, position).next() {
                    found.push((key as usize, reference.chunk.row_at(position)?));
                }
            }
        }
        found.sort_unstable_by_key(|(_, row)| *row);
        Ok(found)
    }

    /// The unique key over just these columns, and `keys`, which has an array for each of them, in its order.
    fn unique_over(&self, columns: &[ColumnId], keys: &[ArrayRef]) -> Option<(&UniqueDef, Vec<ArrayRef>)> {
        self.def.uniques.iter().filter(|unique| unique.columns.len() == columns.len()).find_map(|unique| {
            let of = |id: &ColumnId| keys.get(columns.iter().position(|column| column == id)?).cloned();
            Some((unique, unique.columns.iter().map(of).collect::<Option<Vec<ArrayRef>>>()?))
        })
    }

    /// Where each of `rows` is, which ascend; `None` for one that is not live here.
    pub fn locate_each(&self, rows: &[RowId]) -> Result<Vec<Option<Located>>, StoreError> {
        let mut found = vec![None; rows.len()];
        self.find_rows(rows, |place, chunk, position| {
            if !self.chunks[chunk].deleted.contains(position) {
                found[place] = Some(Located { row: rows[place], chunk, position });
            }
        })?;
        Ok(found)
    }

    /// The live row that has the key of each of `rows`, which are as an insert has them.
    pub fn rows_with_keys_of(
        &self,
        unique: &UniqueDef,
        rows: &RecordBatch,
    ) -> Result<Vec<Option<RowId>>, StoreError> {
        self.lookup_unique(unique, &self.key_arrays(unique, rows)?)
    }

    /// A hash of each key that `rows`, which are as an insert has them, would put into a constraint; none of a key
    /// with a NULL. Equal keys have equal hashes until the process ends.
    pub fn key_hashes(&self, unique: &UniqueDef, rows: &RecordBatch) -> Result<Vec<u64>, StoreError> {
        KeyMap::hashes(&self.key_arrays(unique, rows)?)
    }

    /// The columns of a constraint, of rows that are as an insert has them.
    pub(super) fn key_arrays(
        &self,
        unique: &UniqueDef,
        rows: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, StoreError> {
        let fields = rows.schema_ref().fields();
        let array = |id: &ColumnId| {
            let place = fields.iter().position(|field| stored_column(field.name()) == Some(*id));
            let missing =
                || StoreError::Bug(format!("rows for table \"{}\" lack column {id}", self.def.name));
            place.map(|place| Arc::clone(rows.column(place))).ok_or_else(missing)
        };
        unique.columns.iter().map(array).collect()
    }

    /// Those of `rows`, which ascend, that are not live here.
    pub fn absent(&self, rows: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        let mut live = vec![false; rows.len()];
        self.find_rows(rows, |row, chunk, position| {
            live[row] = !self.chunks[chunk].deleted.contains(position);
        })?;
        Ok(rows.iter().zip(live).filter(|(_, live)| !live).map(|(row, _)| *row).collect())
    }

    /// Chunk and position of a live row.
    pub fn locate(&self, row: RowId) -> Result<Option<(usize, u32)>, StoreError> {
        for (index, chunk) in self.chunks.iter().enumerate() {
            if let Some(position) = chunk.chunk.position(row)? {
                return Ok((!chunk.deleted.contains(position)).then_some((index, position)));
            }
        }
        Ok(None)
    }

    /// Calls `hit` with each of these rows that a chunk has, deleted or not: its place in `rows`, the chunk, its
    /// position there. Chunk by chunk.
    ///
    /// Errors: [`StoreError::Bug`] when `rows` do not ascend.
    pub(crate) fn find_rows(
        &self,
        rows: &[RowId],
        mut hit: impl FnMut(usize, usize, u32),
    ) -> Result<(), StoreError> {
        if !rows.is_sorted() {
            return Err(StoreError::Bug("the row ids of a delete do not ascend".to_owned()));
        }
        for (index, chunk) in self.chunks.iter().enumerate() {
            let from = rows.partition_point(|row| *row < chunk.chunk.first_row());
            let to = rows.partition_point(|row| *row <= chunk.chunk.last_row());
            for (place, row) in (from..to).zip(&rows[from..to]) {
                if let Some(position) = chunk.chunk.position(*row)? {
                    hit(place, index, position);
                }
            }
        }
        Ok(())
    }

    /// Calls `hit` with each wanted key (by its position) that a live row has; `hit` returns whether to go on.
    pub(crate) fn probe(
        &self,
        columns: &KeyColumns,
        wanted: &KeyMap,
        mut hit: impl FnMut(u32, RowId) -> bool,
    ) -> Result<(), StoreError> {
        self.probe_places(columns, wanted, |key, chunk, position| {
            Ok(hit(key, self.chunks[chunk].chunk.row_at(position)?))
        })
    }

    /// The same with the chunk and the position in it.
    fn probe_places(
        &self,
        columns: &KeyColumns,
        wanted: &KeyMap,
        mut hit: impl FnMut(u32, usize, u32) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        // Newest first: a key that is being replaced was most likely written a moment ago.
        let chunks = self.chunks.iter().enumerate().rev();
        for (place, chunk) in chunks.filter(|(_, chunk)| chunk.live_rows() > 0) {
            let map = chunk.chunk.keys(&self.def, columns)?;
            for key in wanted.present() {
                for position in map.find(wanted, key) {
                    if !chunk.deleted.contains(position) && !hit(key, place, position)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
