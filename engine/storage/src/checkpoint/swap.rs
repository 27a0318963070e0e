//! New segments into the head, with what was deleted while they were written.
//!
//! Holds the writer's lock: no commit moves the head meanwhile. Readers keep the snapshots they have.

use std::sync::Arc;

use roaring::RoaringBitmap;
use sepal_types::RowId;

use super::{
    freeze::Frozen,
    produce::{Produced, ProducedTable},
};
use crate::{
    ChunkRef, Snapshot, StoreError, TableVersion, TenantStore,
    chunk::Chunk,
    planted::{self, Bug},
};

impl TenantStore {
    pub(super) fn swap(&self, frozen: &Frozen, produced: &Produced) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        let head = self.snapshot();
        let mut state = head.state().clone();
        for (id, table) in &produced.tables {
            let (Some(version), Some(then)) = (state.tables.get_mut(id), frozen.snapshot.table(*id)) else {
                continue;
            };
            if !table.segments.is_empty() {
                let chunks = swapped(version, then, table)?;
                Arc::make_mut(version).chunks = chunks;
            }
        }
        self.set_head(Snapshot::new(state));
        Ok(())
    }
}

/// The head's chunks after the swap: segments in row order, then what was committed since the freeze.
fn swapped(
    now: &TableVersion,
    then: &TableVersion,
    table: &ProducedTable,
) -> Result<Vec<ChunkRef>, StoreError> {
    let is_one_of = |chunk: &ChunkRef, others: &[ChunkRef]| {
        others.iter().any(|other| Arc::ptr_eq(&other.chunk, &chunk.chunk))
    };
    let rewritten = |chunk: &ChunkRef| table.segments.iter().any(|segment| is_one_of(chunk, &segment.inputs));
    let (before, since): (Vec<_>, Vec<_>) =
        now.chunks.iter().cloned().partition(|chunk| is_one_of(chunk, &then.chunks));
    let mut chunks: Vec<ChunkRef> = before.iter().filter(|chunk| !rewritten(chunk)).cloned().collect();
    for segment in &table.segments {
        // A TRUNCATE since the freeze leaves none of the inputs: the segment goes with the next checkpoint.
        if segment.inputs.iter().any(|input| is_one_of(input, &before))
            && let Some(chunk) = &segment.chunk
        {
            let deleted = Arc::new(deleted_since(&before, &segment.inputs, chunk)?.into());
            chunks.push(ChunkRef { chunk: Arc::clone(chunk), deleted });
        }
    }
    chunks.sort_by_key(|chunk| chunk.chunk.first_row());
    chunks.extend(since);
    Ok(chunks)
}

/// Positions in the new segment of the rows of its inputs that were deleted since. `later`: the inputs as they are now;
/// of one that is gone, all are deleted.
pub(super) fn deleted_since(
    later: &[ChunkRef],
    inputs: &[ChunkRef],
    chunk: &Chunk,
) -> Result<RoaringBitmap, StoreError> {
    let mut deleted = RoaringBitmap::new();
    if planted::is(Bug::TombstoneLostInSwap) {
        return Ok(deleted);
    }
    for input in inputs {
        let now = later.iter().find(|chunk| Arc::ptr_eq(&chunk.chunk, &input.chunk));
        let gone = match now {
            Some(now) if Arc::ptr_eq(&now.deleted, &input.deleted) => continue,
            Some(now) => &**now.deleted - &**input.deleted,
            None => {
                let mut all = RoaringBitmap::new();
                all.insert_range(0..input.chunk.rows());
                all - &**input.deleted
            }
        };
        for position in &gone {
            let row: RowId = input.chunk.row_at(position)?;
            let missing = || StoreError::Bug(format!("row {row} did not reach its new segment"));
            deleted.insert(chunk.position(row)?.ok_or_else(missing)?);
        }
    }
    Ok(deleted)
}
