//! Reading a system table: the whole of a small one, chunk by chunk of one that may be large.
//!
//! Definitions are few: [`SystemTable::rows`] and [`SystemTable::columns`] bring them into one batch. Dead letters and
//! plugins' state grow with what tenants do, so whoever looks for some of them says by which columns they are known,
//! and no more than these is decoded of chunks that have none.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::SchemaRef,
};
use sepal_storage::{ChunkRef, Snapshot, StoreError, TableVersion};
use sepal_types::{ColumnDef, Result};

use super::{Rows, SystemTable, schema};

impl SystemTable {
    /// All live rows.
    pub fn rows(self, snapshot: &Snapshot) -> Result<Rows> {
        self.columns(snapshot, &self.names())
    }

    /// Some columns of all live rows; only these are decoded.
    pub fn columns(self, snapshot: &Snapshot, names: &[&str]) -> Result<Rows> {
        let Some(version) = self.find(snapshot) else { return Ok(Rows::none()) };
        let schema = schema(&columns(version, names));
        let mut batches = Vec::new();
        self.each_chunk(snapshot, names, |rows| {
            batches.push(rows.batch);
            Ok(())
        })?;
        Ok(Rows { batch: concat_batches(&schema, &batches).map_err(StoreError::from)? })
    }

    /// The same chunk by chunk, so that no more than one is in memory.
    pub fn each_chunk(
        self,
        snapshot: &Snapshot,
        names: &[&str],
        mut visit: impl FnMut(Rows) -> Result<()>,
    ) -> Result<()> {
        let Some(version) = self.find(snapshot) else { return Ok(()) };
        let columns = columns(version, names);
        let schema = schema(&columns);
        for reference in version.chunks.iter().filter(|reference| reference.live_rows() > 0) {
            let batch = decode(reference, &columns, &schema)?;
            let live: BooleanArray = (0..reference.chunk.rows())
                .map(|position| Some(!reference.deleted.contains(position)))
                .collect();
            visit(Rows { batch: filter_record_batch(&batch, &live).map_err(StoreError::from)? })?;
        }
        Ok(())
    }

    /// The live rows that `keep` says yes to, whole, chunk by chunk. It judges by the columns `by`; the others are
    /// decoded only of chunks that have such a row.
    pub fn each_match(
        self,
        snapshot: &Snapshot,
        by: &[&str],
        keep: impl Fn(&Rows, usize) -> bool,
        mut visit: impl FnMut(Rows) -> Result<()>,
    ) -> Result<()> {
        let Some(version) = self.find(snapshot) else { return Ok(()) };
        let (judged, all) = (columns(version, by), columns(version, &self.names()));
        let (judged_schema, schema) = (schema(&judged), schema(&all));
        for reference in version.chunks.iter().filter(|reference| reference.live_rows() > 0) {
            let judging = Rows { batch: decode(reference, &judged, &judged_schema)? };
            let kept: BooleanArray = (0..reference.chunk.rows())
                .map(|at| Some(!reference.deleted.contains(at) && keep(&judging, at as usize)))
                .collect();
            if kept.true_count() > 0 {
                let batch = decode(reference, &all, &schema)?;
                visit(Rows { batch: filter_record_batch(&batch, &kept).map_err(StoreError::from)? })?;
            }
        }
        Ok(())
    }

    /// The live rows whose `column` says `value`, in one batch: for what is known to be little.
    pub fn rows_where(self, snapshot: &Snapshot, column: &str, value: &str) -> Result<Rows> {
        let Some(version) = self.find(snapshot) else { return Ok(Rows::none()) };
        let schema = schema(&columns(version, &self.names()));
        let mut batches = Vec::new();
        let says = |rows: &Rows, row: usize| rows.text(column, row) == Some(value);
        self.each_match(snapshot, &[column], says, |rows| {
            batches.push(rows.batch);
            Ok(())
        })?;
        Ok(Rows { batch: concat_batches(&schema, &batches).map_err(StoreError::from)? })
    }

    fn names(self) -> Vec<&'static str> {
        self.layout().columns.iter().map(|(name, _)| *name).collect()
    }
}

/// Those of the names that the stored table has.
fn columns<'a>(version: &'a TableVersion, names: &[&str]) -> Vec<&'a ColumnDef> {
    names.iter().filter_map(|name| version.def.column(name)).collect()
}

/// A chunk's rows, deleted ones too, with their ids.
fn decode(reference: &ChunkRef, columns: &[&ColumnDef], schema: &SchemaRef) -> Result<RecordBatch> {
    let ids: ArrayRef = reference.chunk.row_ids()?;
    let mut arrays = vec![ids];
    for column in columns {
        arrays.push(reference.chunk.column(column)?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays).map_err(StoreError::from)?)
}
