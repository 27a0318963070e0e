//! The rows that a table had when its pipeline began, in the order of their ids, a window at a time.
//!
//! Owned by `source`. A pipeline that is opened again in the middle of its snapshot phase finds a younger table. The
//! older one is put together again: the rows of now, less what was inserted since, and what was deleted since from
//! the before-images in the log. So a batch whose bounds were noted has the same rows whenever it is made again.
//!
//! Memory is bounded: a window of each chunk, and of the deleted rows as many as [`RESTORED_BYTES`] hold. When there
//! are more, the log is read again for those with higher ids once the scan gets there.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, UInt32Array},
    compute::{interleave_record_batch, take},
    datatypes::{Field, Schema},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use sepal_storage::{
    Change, ChunkRef, LogHold, Snapshot, TableVersion, TenantStore, arrow_type, stored_name,
};
use sepal_types::{Error, Lsn, Result, RowId, SqlState};

use super::{
    event::{Events, Operation, View, check_before, passing, within},
    position::Position,
};

/// What deleted rows may hold in memory.
const RESTORED_BYTES: usize = 64 << 20;
/// Batches that they may lie in: each costs something in every window.
const RESTORED_BATCHES: usize = 256;

/// A scan under way.
#[derive(Debug)]
pub struct Scan {
    /// The table is read as it was at this commit.
    start: Lsn,
    /// The table as it is now.
    now: Lsn,
    version: Arc<TableVersion>,
    /// Chunks by their first row.
    order: Vec<usize>,
    /// The least row id that is still to come.
    next: u64,
    /// Rows from there on.
    left: u64,
    since: Since,
}

/// What happened between the two.
#[derive(Debug, Default)]
struct Since {
    /// Row ids, from and up to but without; ascending.
    inserted: Vec<(u64, u64)>,
    /// Rows deleted meanwhile that pass the filter: batch and row.
    restored: BTreeMap<u64, (usize, usize)>,
    batches: Vec<RecordBatch>,
    held_bytes: usize,
    /// Row ids from here on are not among `restored` although they may have been deleted.
    horizon: Option<u64>,
}

/// Rows of one chunk, projected, that lie in a window.
struct Piece {
    rows: RecordBatch,
    /// Row id and place of those that the filter lets through.
    ids: Vec<(u64, usize)>,
    /// With those that it does not.
    read: u64,
}

impl Scan {
    /// `next`: the least row id wanted. Blocking, as all here.
    pub fn open(
        view: &View,
        store: &Arc<TenantStore>,
        hold: &LogHold,
        start: Lsn,
        next: u64,
    ) -> Result<Self> {
        let snapshot = store.snapshot();
        let version = table(view, &snapshot)?;
        let mut order: Vec<usize> = (0..version.chunks.len()).collect();
        order.sort_by_key(|chunk| version.chunks[*chunk].chunk.first_row());
        let mut scan =
            Self { start, now: snapshot.lsn(), version, order, next, left: 0, since: Since::default() };
        scan.read_since(view, store, hold)?;
        scan.left = scan.count()?;
        Ok(scan)
    }

    /// Deleted rows in memory.
    #[cfg(test)]
    pub fn rows_held(&self) -> usize {
        self.since.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Rows that are still to be read, whether the filter lets them through or not.
    pub fn rows_left(&self) -> u64 {
        self.left
    }

    /// All rows from `next` on.
    fn count(&self) -> Result<u64> {
        let mut rows = self.since.restored.len() as u64;
        for reference in &self.version.chunks {
            let chunk = &reference.chunk;
            if chunk.last_row().0 < self.next {
                continue;
            }
            let whole = chunk.first_row().0 >= self.next && self.since.inserted.is_empty();
            rows += if whole {
                u64::from(reference.live_rows())
            } else {
                self.positions(reference, |_| true)?.len() as u64
            };
        }
        Ok(rows)
    }

    /// The next events, about `rows` of them and at least one; `None` at the end.
    pub fn window(
        &mut self,
        view: &View,
        store: &Arc<TenantStore>,
        hold: &LogHold,
        rows: usize,
    ) -> Result<Option<Events>> {
        loop {
            let end = self.end_of_window(rows)?;
            let (events, rows_read) = self.read(view, end)?;
            self.left = self.left.saturating_sub(rows_read);
            let Some(end) = end else {
                self.next = u64::MAX;
                self.since.restored.clear();
                return Ok((!events.is_empty()).then_some(events));
            };
            self.next = end;
            if self.since.horizon == Some(end) {
                self.read_since(view, store, hold)?;
            }
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }

    /// The row id before which about `rows` rows lie; `None`: no more than that are left.
    fn end_of_window(&self, rows: usize) -> Result<Option<u64>> {
        let mut end = self.since.horizon;
        let mut found = 0;
        if self.next == u64::MAX {
            return Ok(None);
        }
        if let Some((row, _)) = self.since.restored.range(self.next..).nth(rows) {
            end = Some(end.map_or(*row, |end| end.min(*row)));
        }
        for chunk in self.order.iter().map(|place| &self.version.chunks[*place].chunk) {
            if chunk.last_row().0 < self.next {
                continue;
            }
            let first = chunk.first_row().0;
            if end.is_some_and(|end| first >= end) {
                break;
            }
            if found >= rows && first > self.next {
                return Ok(Some(first));
            }
            let ids = chunk.row_ids()?;
            let begin = ids.values().partition_point(|id| *id < self.next);
            found += ids.len() - begin;
            if let Some(row) = ids.values().get(begin + rows) {
                end = Some(end.map_or(*row, |end| end.min(*row)));
            }
        }
        Ok(end)
    }

    /// The events of the rows before `end`, and how many rows those are with what the filter keeps back.
    fn read(&self, view: &View, end: Option<u64>) -> Result<(Events, u64)> {
        let inside = |row: u64| row >= self.next && end.is_none_or(|end| row < end);
        let mut pieces = Vec::new();
        for reference in self.order.iter().map(|place| &self.version.chunks[*place]) {
            let overlaps = reference.chunk.last_row().0 >= self.next && reference.live_rows() > 0;
            if overlaps && end.is_none_or(|end| reference.chunk.first_row().0 < end) {
                pieces.extend(self.piece(view, reference, inside)?);
            }
        }
        let mut places: Vec<(u64, (usize, usize))> = Vec::new();
        for (batch, piece) in pieces.iter().enumerate() {
            places.extend(piece.ids.iter().map(|(id, row)| (*id, (batch, *row))));
        }
        let restored = self.since.restored.range(self.next..).take_while(|(row, _)| inside(**row));
        let passed = places.len();
        places.extend(restored.map(|(id, (batch, row))| (*id, (pieces.len() + batch, *row))));
        let read = pieces.iter().map(|piece| piece.read).sum::<u64>() + (places.len() - passed) as u64;
        if places.is_empty() {
            return Ok((Events::default(), read));
        }
        places.sort_unstable();
        let batches: Vec<&RecordBatch> =
            pieces.iter().map(|piece| &piece.rows).chain(&self.since.batches).collect();
        let indices: Vec<(usize, usize)> = places.iter().map(|(_, place)| *place).collect();
        let rows = interleave_record_batch(&batches, &indices).map_err(sepal_query::arrow_error)?;
        let events = Events {
            operations: vec![Operation::Read; places.len()].into(),
            positions: places
                .iter()
                .map(|(id, _)| Position::Snapshot { lsn: self.start, row: RowId(*id) })
                .collect(),
            before: view.keeps_before.then(|| rows.clone()),
            rows: Some(rows),
        };
        Ok((events, read))
    }

    /// A chunk's part of a window; `None` when it has none.
    fn piece(
        &self,
        view: &View,
        reference: &ChunkRef,
        inside: impl Fn(u64) -> bool,
    ) -> Result<Option<Piece>> {
        let positions = self.positions(reference, inside)?;
        if positions.is_empty() {
            return Ok(None);
        }
        let ids = reference.chunk.row_ids()?;
        let found: Vec<u64> = positions.iter().map(|position| ids.value(*position as usize)).collect();
        let rows = stored_rows(view, reference, &UInt32Array::from(positions))?;
        let (rows, passes) = view.query.apply(&view.def, &rows)?;
        let ids = passing(&passes).map(|row| (found[row], row)).collect();
        Ok(Some(Piece { rows, ids, read: found.len() as u64 }))
    }

    /// Where in a chunk the rows are that the table had at the start, from `next` on and as far as they are inside.
    fn positions(&self, reference: &ChunkRef, inside: impl Fn(u64) -> bool) -> Result<Vec<u32>> {
        let ids = reference.chunk.row_ids()?;
        let begin = ids.values().partition_point(|id| *id < self.next);
        let ahead = ids.values().iter().zip(0u32..).skip(begin).take_while(|(id, _)| inside(**id));
        let was_there = |(id, position): &(&u64, u32)| {
            !reference.deleted.contains(*position) && !within(&self.since.inserted, **id)
        };
        Ok(ahead.filter(was_there).map(|(_, position)| position).collect())
    }

    /// Reads what happened since, as far as memory allows, for row ids from `next` on.
    fn read_since(&mut self, view: &View, store: &Arc<TenantStore>, hold: &LogHold) -> Result<()> {
        self.since = Since::default();
        if self.now == self.start {
            return Ok(());
        }
        let table = view.table();
        let mut reader = store.changes(self.start, hold, Box::new(move |changed| changed == table))?;
        while let Some(commit) = reader.next()? {
            if commit.lsn > self.now {
                break;
            }
            for change in commit.changes {
                match change {
                    Change::Insert { table, first_row, rows } if table == view.table() => {
                        self.since.note_inserted(first_row.0, rows.num_rows() as u64);
                    }
                    Change::Delete { table, rows, before } if table == view.table() => {
                        check_before(&rows, &before, commit.lsn)?;
                        self.since.restore(view, self.next, &rows, &before)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Since {
    fn note_inserted(&mut self, first: u64, rows: u64) {
        let place = self.inserted.partition_point(|(known, _)| *known < first);
        self.inserted.insert(place, (first, first + rows));
    }

    fn restore(&mut self, view: &View, next: u64, rows: &[RowId], before: &RecordBatch) -> Result<()> {
        let wanted = |row: u64| {
            row >= next && self.horizon.is_none_or(|end| row < end) && !within(&self.inserted, row)
        };
        let positions: Vec<u32> =
            rows.iter().zip(0u32..).filter(|(row, _)| wanted(row.0)).map(|(_, place)| place).collect();
        if positions.is_empty() {
            return Ok(());
        }
        let indices = UInt32Array::from(positions.clone());
        let taken = arrow::compute::take_record_batch(before, &indices).map_err(sepal_query::arrow_error)?;
        let (taken, passes) = view.query.apply(&view.def, &taken)?;
        // Only those that pass: however many the filter keeps back, they hold no memory.
        let places: Vec<u32> = (0u32..)
            .zip(passes.iter())
            .filter(|(_, passes)| *passes == Some(true))
            .map(|(row, _)| row)
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let batch = self.batches.len();
        for (row, place) in places.iter().enumerate() {
            self.restored.insert(rows[positions[*place as usize] as usize].0, (batch, row));
        }
        let taken = arrow::compute::take_record_batch(&taken, &UInt32Array::from(places))
            .map_err(sepal_query::arrow_error)?;
        self.held_bytes += taken.get_array_memory_size();
        self.batches.push(taken);
        if self.held_bytes > RESTORED_BYTES && self.restored.len() > 1 {
            self.halve();
            return self.compact();
        }
        if self.batches.len() > RESTORED_BATCHES && !self.restored.is_empty() {
            return self.compact();
        }
        Ok(())
    }

    /// Forgets the upper half of the deleted rows; the log is read again for them later.
    fn halve(&mut self) {
        if let Some(middle) = self.restored.keys().nth(self.restored.len() / 2).copied() {
            drop(self.restored.split_off(&middle));
            self.horizon = Some(middle);
        }
    }

    /// Brings what is kept into one batch.
    fn compact(&mut self) -> Result<()> {
        let places: Vec<(usize, usize)> = self.restored.values().copied().collect();
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let kept = interleave_record_batch(&batches, &places).map_err(sepal_query::arrow_error)?;
        self.restored.values_mut().enumerate().for_each(|(row, place)| *place = (0, row));
        self.held_bytes = kept.get_array_memory_size();
        self.batches = vec![kept];
        Ok(())
    }
}

/// The pipeline's table. Errors: 42P01 once it is gone.
fn table(view: &View, snapshot: &Snapshot) -> Result<Arc<TableVersion>> {
    snapshot.table(view.table()).cloned().ok_or_else(|| {
        let message = format!("the pipeline's table \"{}\" does not exist any more", view.def.name);
        Error::new(SqlState::UndefinedTable, message)
    })
}

/// Rows of a chunk as the feed gives them, of the columns that the query reads.
fn stored_rows(view: &View, reference: &ChunkRef, positions: &UInt32Array) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(view.reads().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.reads().len());
    for id in view.reads() {
        let column = view
            .def
            .column_by_id(*id)
            .ok_or_else(|| Error::bug(format!("a pipeline reads column {id}, which was dropped")))?;
        fields.push(Field::new(stored_name(*id), arrow_type(&column.ty), true));
        let array = reference.chunk.column(column)?;
        columns.push(take(&array, positions, None).map_err(sepal_query::arrow_error)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(positions.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(sepal_query::arrow_error)
}
