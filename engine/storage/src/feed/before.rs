//! The rows that a commit deletes from captured tables, as they were.
//!
//! Called by `group` in the committing session's thread, before the commit is queued: a row id is one version of a
//! row, so whatever is committed meanwhile, the snapshot that the transaction read from has the right content.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef},
    compute,
    datatypes::{Field, Schema},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use sepal_types::{RowId, TableDef, TableId};

use super::OwnRows;
use crate::{ChunkRef, Op, Snapshot, StoreError, TableVersion, ops::BeforeImage, stored_name};

/// Bytes of images in one commit. They are in memory until the commit is written, and again where it is read; a text
/// column's offsets end at 2 GiB.
pub(crate) const MAX_BEFORE_BYTES: u64 = 1 << 30;

/// The before-images of `ops`, in their order. A table counts as captured from where its definition says so, be that
/// `base`'s or one of the ops.
///
/// Errors: [`StoreError::TooMuchDeleted`] beyond about `limit_bytes`; [`StoreError::WriteConflict`] for a row that
/// `base` does not have; [`StoreError::Bug`] for a TRUNCATE of a captured table: nothing would say which rows went.
pub(crate) fn before_images(
    base: &Snapshot,
    ops: &[Op],
    limit_bytes: u64,
) -> Result<Vec<BeforeImage>, StoreError> {
    let mut images = Vec::new();
    let mut left = limit_bytes;
    if !ops.iter().any(|op| matches!(op, Op::Delete { .. } | Op::Truncate(_))) {
        return Ok(images);
    }
    let mut defined: HashMap<TableId, &TableDef> = HashMap::new();
    let mut own = OwnRows::default();
    for (at, op) in ops.iter().enumerate() {
        let table = op.table();
        let known = || base.table(table).map(|version| &*version.def);
        let captured = defined.get(&table).copied().or_else(known).filter(|def| def.captured);
        match (op, captured) {
            (Op::CreateTable(def) | Op::AlterTable(def) | Op::Clone { def, .. }, _) => {
                defined.insert(table, def);
            }
            (Op::Insert { first_row, rows, .. }, _) => own.insert(table, *first_row, rows.num_rows()),
            (Op::Delete { rows, .. }, Some(def)) => {
                let rows: Vec<RowId> =
                    rows.iter().copied().filter(|row| !own.contains(table, *row)).collect();
                if !rows.is_empty() {
                    let found = find(base, def, &rows)?;
                    left = left.checked_sub(found.bytes()).ok_or_else(|| StoreError::TooMuchDeleted {
                        table: def.name.clone(),
                        limit_mib: limit_bytes >> 20,
                    })?;
                    images.push(BeforeImage { op: at, rows: found.read(def)? });
                }
            }
            (Op::Truncate(_), Some(def)) => {
                return Err(StoreError::Bug(format!(
                    "TRUNCATE of table \"{}\" reached the log, but a pipeline reads its changes: delete its rows",
                    def.name
                )));
            }
            (Op::Delete { .. } | Op::Truncate(_) | Op::DropTable(_) | Op::SetSequence { .. }, _) => {}
        }
    }
    Ok(images)
}

/// Where rows are.
struct Places<'a> {
    /// The chunks that have any of them.
    chunks: Vec<&'a ChunkRef>,
    /// Of each row: which of the chunks, and where in it.
    rows: Vec<(usize, usize)>,
}

/// A row that the snapshot does not have is somebody else's by now.
fn find<'a>(base: &'a Snapshot, def: &TableDef, rows: &[RowId]) -> Result<Places<'a>, StoreError> {
    let conflict = || StoreError::WriteConflict { table: def.name.clone() };
    let version: &TableVersion = base.table(def.id).ok_or_else(conflict)?;
    let mut chunks: Vec<usize> = Vec::new();
    let mut places: Vec<Option<(usize, usize)>> = vec![None; rows.len()];
    version.find_rows(rows, |row, chunk, position| {
        if version.chunks[chunk].deleted.contains(position) {
            return;
        }
        if chunks.last() != Some(&chunk) {
            chunks.push(chunk);
        }
        places[row] = Some((chunks.len() - 1, position as usize));
    })?;
    let rows = places.into_iter().collect::<Option<Vec<_>>>().ok_or_else(conflict)?;
    Ok(Places { chunks: chunks.into_iter().map(|chunk| &version.chunks[chunk]).collect(), rows })
}

impl Places<'_> {
    /// About what the rows take in memory: by the average of their chunk.
    fn bytes(&self) -> u64 {
        let row_bytes = |chunk: &&ChunkRef| chunk.chunk.plain_bytes() / u64::from(chunk.chunk.rows()).max(1);
        let row_bytes: Vec<u64> = self.chunks.iter().map(row_bytes).collect();
        self.rows.iter().map(|(chunk, _)| row_bytes[*chunk]).sum()
    }

    /// All columns of the rows.
    fn read(&self, def: &TableDef) -> Result<RecordBatch, StoreError> {
        let mut fields = Vec::with_capacity(def.columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(def.columns.len());
        for column in &def.columns {
            let parts =
                self.chunks.iter().map(|chunk| chunk.chunk.column(column)).collect::<Result<Vec<_>, _>>()?;
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            let array = compute::interleave(&parts, &self.rows)?;
            fields.push(Field::new(stored_name(column.id), array.data_type().clone(), true));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}
