//! A statement's snapshot with newer versions of just those rows that it has waited for.
//!
//! Called under READ COMMITTED, where Postgres' EvalPlanQual mixes so: everything is as the statement found it at first,
//! but for the rows that somebody else had replaced by the time they could be locked. Nothing is copied: the chunks
//! that hold the newer versions are taken in with all else in them marked as deleted. Never a base of operations.

use std::{collections::BTreeMap, sync::Arc};

use roaring::{RoaringBitmap, RoaringTreemap};
use sepal_types::{RowId, TableId};

use super::{Snapshot, TableVersion};
use crate::{ChunkRef, StoreError};

impl Snapshot {
    /// This snapshot, but of one table without the rows `gone` and with the rows `newer` as `newest` has them, even if
    /// they are deleted there by now.
    pub fn with_newer(
        &self,
        newest: &Snapshot,
        table: TableId,
        gone: &RoaringTreemap,
        newer: &RoaringTreemap,
    ) -> Result<Snapshot, StoreError> {
        let (Some(seen), Some(now)) = (self.table(table), newest.table(table)) else {
            return Ok(self.clone());
        };
        let mut version = TableVersion::clone(seen);
        for (chunk, positions) in positions(seen, gone)? {
            let reference = &mut version.chunks[chunk];
            reference.deleted = Arc::new((&**reference.deleted | &positions).into());
        }
        for (chunk, positions) in positions(now, newer)? {
            let chunk = Arc::clone(&now.chunks[chunk].chunk);
            let mut deleted = RoaringBitmap::new();
            deleted.insert_range(0..chunk.rows());
            deleted -= positions;
            version.chunks.push(ChunkRef { chunk, deleted: Arc::new(deleted.into()) });
        }
        let mut state = self.state().clone();
        state.tables.insert(table, Arc::new(version));
        Ok(self.with(state))
    }
}

/// Where rows are, deleted or not: chunks and positions in them.
fn positions(
    version: &TableVersion,
    rows: &RoaringTreemap,
) -> Result<BTreeMap<usize, RoaringBitmap>, StoreError> {
    let rows: Vec<RowId> = rows.iter().map(RowId).collect();
    let mut found: BTreeMap<usize, RoaringBitmap> = BTreeMap::new();
    version.find_rows(&rows, |_, chunk, position| {
        found.entry(chunk).or_default().insert(position);
    })?;
    Ok(found)
}
