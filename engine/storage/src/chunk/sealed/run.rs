//! Runs of a segment's rows, for scans that want each row once.
//!
//! Called by [`super::super::Chunk`]. A column that the cache has is cut from there; what is read here never gets into
//! it.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt64Array},
    datatypes::UInt64Type,
};
use sepal_types::{ColumnId, SqlType};

use super::SealedChunk;
use crate::{
    StoreError,
    arrow_types::arrow_type,
    paths::show,
    segment::{Run, RunSpace},
};

impl SealedChunk {
    /// The first of `rows`, as many as of these columns are read together. Opens the footer.
    pub(crate) fn run(
        &self,
        columns: &[Option<ColumnId>],
        rows: Range<u32>,
        most_bytes: usize,
    ) -> Result<Run, StoreError> {
        self.footer()?.run(&self.parts.path, columns, rows, most_bytes)
    }

    pub(crate) fn row_ids_run(&self, rows: &Range<u32>) -> Result<Arc<UInt64Array>, StoreError> {
        let ids = match self.decoded_run(None, rows) {
            Some(ids) => ids,
            None => self.footer()?.row_ids_run(&self.parts.disk, &self.parts.path, rows)?,
        };
        let ids = ids.as_primitive_opt::<UInt64Type>().cloned();
        let ids =
            ids.ok_or_else(|| StoreError::corrupt(&show(&self.parts.path), "row ids of another type"))?;
        Ok(Arc::new(ids))
    }

    /// `None` when the segment is older than the column.
    pub(crate) fn column_run(
        &self,
        column: ColumnId,
        ty: &SqlType,
        rows: &Range<u32>,
        space: &RunSpace,
    ) -> Result<Option<ArrayRef>, StoreError> {
        if let Some(array) = self.decoded_run(Some(column), rows) {
            return Ok(Some(array));
        }
        let wanted = (column, &arrow_type(ty));
        self.footer()?.column_run(&self.parts.disk, &self.parts.path, wanted, rows, space)
    }

    /// Of a column that is in memory.
    fn decoded_run(&self, column: Option<ColumnId>, rows: &Range<u32>) -> Option<ArrayRef> {
        let whole = self.parts.cache.peek(&self.cache_key(column))?;
        Some(whole.slice(rows.start as usize, rows.len()))
    }
}
