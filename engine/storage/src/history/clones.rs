//! A clone: a table that begins with another one's rows, and shares their segments.
//!
//! `database` asks for the ops and commits them as those of any definition. Copies no segment: only rows that are in
//! memory are inserted anew, so whoever clones the head makes a checkpoint first. From then on each table goes its own
//! way: what one deletes stands in a deletion vector of its own, what one's checkpoint rewrites the other keeps.
//!
//! The files that a clone names stay as long as the log that names them, a manifest or a reader does: until the next
//! manifest in [`TenantStore::cloned`], from then on in that manifest's `cloned` and in what its tables name.

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    compute,
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use roaring::RoaringBitmap;
use sepal_crypto::KeyRing;
use sepal_types::{ColumnDef, IndexDef, RowId, TableDef, TableId};

use crate::{
    ChunkRef, Op, Snapshot, StoreError, TableVersion, TenantStore,
    chunk::{SealedChunk, live_mask},
    manifest::{IndexEntry, SegmentEntry},
    ops::{CloneSource, ClonedSegment},
    planted::{self, Bug},
    snapshot::State,
    stored_name,
};

impl TenantStore {
    /// What makes `def` a table with the rows that `table` has in `from`, which may be a snapshot of the past. `def`
    /// has new ids for the table, its constraints and its indexes, and the columns and keys of the table that is
    /// cloned. Serials go on from where the source's are. The clone is not captured.
    ///
    /// To be committed, alone or with more. Errors: [`StoreError::NoSuchTable`]; [`StoreError::Bug`] for a definition
    /// with other columns or keys. The commit is a [`StoreError::WriteConflict`] when an index of the source was
    /// dropped since.
    pub fn clone_ops(&self, from: &Snapshot, table: TableId, def: TableDef) -> Result<Vec<Op>, StoreError> {
        let version = from.table(table).ok_or(StoreError::NoSuchTable(table))?;
        check_definition(&version.def, &def)?;
        let def = TableDef { captured: false, ..def };
        let last_row = version.chunks.iter().map(|chunk| chunk.chunk.last_row().0).max().unwrap_or(0);
        let mut next_row = RowId(last_row.saturating_add(1));
        let mut source = CloneSource { table, next_row, segments: Vec::new(), chunks: Vec::new() };
        let mut inserts = Vec::new();
        for chunk in version.chunks.iter().filter(|chunk| chunk.live_rows() > 0) {
            if let Some(sealed) = chunk.chunk.as_sealed() {
                let entry = shared_entry(sealed, &version.def, &def, &self.keys());
                let none = RoaringBitmap::new();
                let logged = if planted::is(Bug::CloneTombstoneNotLogged) { &none } else { &**chunk.deleted };
                source.segments.push(ClonedSegment::new(entry, logged)?);
                source.chunks.push(chunk.clone());
            } else {
                let rows = live_rows(version, chunk)?;
                let count = rows.num_rows() as u64;
                inserts.push(Op::Insert { table: def.id, first_row: next_row, rows });
                next_row = RowId(next_row.0.saturating_add(count));
            }
        }
        self.counters.skip_rows(def.id, next_row);
        let mut ops = vec![Op::Clone { def: def.clone(), source }];
        ops.extend(inserts);
        let counted = from.state().past_sequences.as_ref().map_or_else(
            || self.counters.sequences_of(table),
            |past| {
                past.iter()
                    .filter(|(of, ..)| *of == table)
                    .map(|(_, column, next)| (*column, *next))
                    .collect()
            },
        );
        ops.extend(counted.into_iter().map(|(column, next)| Op::SetSequence { table: def.id, column, next }));
        Ok(ops)
    }

    /// Before a commit with clones reaches the log: from here on their files stay. Under the writer's lock.
    ///
    /// Errors: [`StoreError::WriteConflict`] when a file has gone since the ops were made, or the tenant's key has.
    pub(crate) fn name_cloned(&self, state: State, ops: &[Op]) -> Result<State, StoreError> {
        let mut clones = ops
            .iter()
            .filter_map(|op| match op {
                Op::Clone { def, source } => Some((def, source)),
                _ => None,
            })
            .peekable();
        if clones.peek().is_none() {
            return Ok(state);
        }
        let (mut cloned, keys) = (self.cloned.lock(), self.keys());
        for (def, source) in clones {
            for (segment, chunk) in source.segments.iter().zip(&source.chunks) {
                let Some(sealed) = chunk.chunk.as_sealed() else { continue };
                let files = sealed.index_files();
                let there = |index: &IndexEntry| files.iter().any(|file| file.blob.file == index.blob.file);
                // A clone that was made before the tenant's key was replaced names keys under the older one.
                if !segment.entry.is_under(&keys) || !segment.entry.indexes.iter().all(there) {
                    return Err(StoreError::WriteConflict { table: def.name.clone() });
                }
                // The snapshot that it was made from may have been the last that had it.
                sealed.revive();
            }
            cloned.push((state.lsn, source.files()));
        }
        drop(cloned);
        Ok(state)
    }
}

/// A segment as the clone names it: sealed for whoever wrote it, with the blobs of its indexes under the clone's ids.
fn shared_entry(sealed: &SealedChunk, from: &TableDef, to: &TableDef, keys: &KeyRing) -> SegmentEntry {
    let mut entry = sealed.entry().clone();
    entry.sealed_for = Some(sealed.sealed_for());
    for (index, own) in index_pairs(from, to) {
        if let Some(blob) = sealed.share(index.id, own.id) {
            entry.indexes.push(IndexEntry { index: own.id, blob });
        }
    }
    sealed.rewrap(&mut entry, keys);
    entry
}

/// Each index of `to` with one of `from` that was built in the same way.
fn index_pairs<'a>(from: &'a TableDef, to: &'a TableDef) -> Vec<(&'a IndexDef, &'a IndexDef)> {
    let same = |own: &'a IndexDef| {
        let found =
            from.indexes.iter().find(|index| index.columns == own.columns && index.method == own.method);
        found.map(|index| (index, own))
    };
    to.indexes.iter().filter_map(same).collect()
}

/// The live rows of a chunk in memory, as an insert takes them.
fn live_rows(version: &TableVersion, chunk: &ChunkRef) -> Result<RecordBatch, StoreError> {
    let live = live_mask(&chunk.deleted, 0, chunk.chunk.rows() as usize);
    let mut fields = Vec::with_capacity(version.def.columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(version.def.columns.len());
    for column in &version.def.columns {
        let array = compute::filter(&chunk.chunk.column(column)?, &live)?;
        fields.push(Field::new(stored_name(column.id), array.data_type().clone(), true));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// Columns are stored under their ids, and keys are not checked again.
fn check_definition(from: &TableDef, to: &TableDef) -> Result<(), StoreError> {
    let kept = |old: &ColumnDef, new: &ColumnDef| match (old.ty.enum_type(), new.ty.enum_type()) {
        // Rows have the places of labels, whatever these are called by now.
        (Some(one), Some(other)) => one.id == other.id && old.missing.is_some() == new.missing.is_some(),
        _ => (&old.ty, &old.missing) == (&new.ty, &new.missing),
    };
    let columns = from.columns.len() == to.columns.len()
        && from
            .columns
            .iter()
            .zip(&to.columns)
            .all(|(old, new)| old.id == new.id && kept(old, new) && (old.not_null || !new.not_null));
    let keyed =
        |unique: &sepal_types::UniqueDef| from.uniques.iter().any(|known| known.columns == unique.columns);
    if from.id == to.id || !columns || !to.uniques.iter().all(keyed) {
        return Err(StoreError::Bug(format!(
            "table \"{}\" cannot be a clone of \"{}\": it has the same id, or other columns or keys",
            to.name, from.name
        )));
    }
    Ok(())
}
