//! Events: what the sink hears of a commit, row by row, kept as columns.
//!
//! `source` makes them from the feed and from the snapshot, `batch` cuts them, `encode` writes them. The events of a
//! commit are a function of the commit and the pipeline's definition alone: the same at every reading.
//!
//! A row that a commit deletes and one that it inserts under the same key are one update. The filter is asked about
//! both:
//!
//! | before passes | after passes | event |
//! |---|---|---|
//! | yes | yes | `u` |
//! | no | yes | `c` |
//! | yes | no | `d` |
//! | no | no | none |
//!
//! So rows that do not pass are left out first, and those that are left pair up.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array},
    compute::{concat_batches, interleave_record_batch, take_record_batch},
    record_batch::RecordBatch,
    row::{Row, RowConverter, Rows, SortField},
};
use sepal_query::{change::ChangeQuery, output::OutputColumn};
use sepal_storage::{Change, Commit};
use sepal_types::{ColumnId, Error, Lsn, Result, RowId, TableDef, TableId};

use super::{position::Position, shared::Shared};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Delete,
    /// It was there when the pipeline began.
    Read,
    Update,
}

impl Operation {
    /// As rows carry it: Debezium's letters.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Update => "u",
        }
    }

    pub fn from_letter(letter: &str) -> Option<Self> {
        [Self::Create, Self::Delete, Self::Read, Self::Update]
            .into_iter()
            .find(|known| known.letter() == letter)
    }
}

/// A pipeline's query over the table as it is defined now.
pub struct View {
    pub query: ChangeQuery,
    pub def: Arc<TableDef>,
    /// Whether an update's old row is wanted.
    pub keeps_before: bool,
}

impl View {
    pub fn table(&self) -> TableId {
        self.query.table()
    }

    pub fn columns(&self) -> &[OutputColumn] {
        self.query.columns()
    }

    /// Positions of the key among the columns; empty for a table without one.
    pub fn key(&self) -> &[usize] {
        self.query.key()
    }

    pub fn reads(&self) -> &[ColumnId] {
        self.query.reads()
    }

    /// The events of a commit, in order: what was deleted, then what was inserted or updated.
    pub fn events(&self, commit: &Commit) -> Result<Events> {
        let Some(changes) = TableChanges::of(self, commit)? else { return Ok(Events::default()) };
        changes.pair(self, commit.lsn)
    }
}

/// Consecutive events of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub operations: Shared<Operation>,
    pub positions: Shared<Position>,
    /// The row after the change; of a deletion the row before it. `None` without events.
    pub rows: Option<RecordBatch>,
    /// The row before an update or deletion; other rows of it mean nothing. `None` when the envelope has no use for it.
    pub before: Option<RecordBatch>,
}

impl Events {
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub fn first(&self) -> Option<Position> {
        self.positions.first().copied()
    }

    pub fn last(&self) -> Option<Position> {
        self.positions.last().copied()
    }

    /// Whether these are rows of the snapshot.
    pub fn is_snapshot(&self) -> bool {
        matches!(self.first(), Some(Position::Snapshot { .. }))
    }

    /// Bytes that these events' part of the columns takes, roughly.
    pub fn bytes(&self) -> usize {
        let batches = [&self.rows, &self.before].into_iter().flatten();
        batches.flat_map(RecordBatch::columns).map(part_bytes).sum()
    }

    /// Shares everything.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            operations: self.operations.part(offset, length),
            positions: self.positions.part(offset, length),
            rows: self.rows.as_ref().map(|rows| rows.slice(offset, length)),
            before: self.before.as_ref().map(|rows| rows.slice(offset, length)),
        }
    }

    /// The events at these places, ascending.
    pub fn select(&self, places: &[u32]) -> Result<Self> {
        let at = |place: &u32| *place as usize;
        let indices = UInt32Array::from(places.to_vec());
        let taken = |rows: &Option<RecordBatch>| {
            rows.as_ref().map(|rows| take_record_batch(rows, &indices)).transpose()
        };
        Ok(Self {
            operations: places.iter().map(|place| self.operations[at(place)]).collect(),
            positions: places.iter().map(|place| self.positions[at(place)]).collect(),
            rows: taken(&self.rows).map_err(sepal_query::arrow_error)?,
            before: taken(&self.before).map_err(sepal_query::arrow_error)?,
        })
    }

    /// One after the other. All have a `before` or none.
    pub fn concat(parts: &[Self]) -> Result<Self> {
        if let [only] = parts {
            return Ok(only.clone());
        }
        let joined = |column: fn(&Self) -> Option<&RecordBatch>| {
            let batches: Vec<&RecordBatch> = parts.iter().filter_map(column).collect();
            let Some(first) = batches.first() else { return Ok(None) };
            concat_batches(&first.schema(), batches).map(Some).map_err(sepal_query::arrow_error)
        };
        Ok(Self {
            operations: parts.iter().flat_map(|part| part.operations.iter().copied()).collect(),
            positions: parts.iter().flat_map(|part| part.positions.iter().copied()).collect(),
            rows: joined(|part| part.rows.as_ref())?,
            before: joined(|part| part.before.as_ref())?,
        })
    }
}

/// Bytes of an array's own part of its buffers, which others may share.
fn part_bytes(array: &ArrayRef) -> usize {
    // Arrow counts a list's elements beyond its part too.
    let offsets = array.as_list_opt::<i32>().map(|list| (list, list.value_offsets()));
    if let Some((list, [first, .., last])) = offsets {
        let elements = list.values().slice(*first as usize, (*last - *first) as usize);
        return size_of::<i32>() * (list.len() + 1) + part_bytes(&elements);
    }
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// Rows of one side of a commit, projected.
#[derive(Default)]
struct Side {
    batches: Vec<RecordBatch>,
    /// Batch and row of each row that counts and that the filter lets through. The others are NULLs.
    rows: Vec<(usize, usize)>,
}

impl Side {
    fn add(&mut self, view: &View, rows: &RecordBatch, counts: impl Fn(usize) -> bool) -> Result<()> {
        let (projected, passes) = view.query.apply(&view.def, rows)?;
        if projected.num_rows() != rows.num_rows() || passes.len() != rows.num_rows() {
            return Err(Error::bug("a pipeline's query changed the number of rows"));
        }
        let batch = self.batches.len();
        self.rows.extend(passing(&passes).filter(|row| counts(*row)).map(|row| (batch, row)));
        self.batches.push(projected);
        Ok(())
    }

    fn keys(&self, converter: &RowConverter, key: &[usize]) -> Result<Vec<Rows>> {
        let convert = |batch: &RecordBatch| {
            let columns: Vec<_> = key.iter().map(|column| Arc::clone(batch.column(*column))).collect();
            converter.convert_columns(&columns).map_err(sepal_query::arrow_error)
        };
        self.batches.iter().map(convert).collect()
    }
}

/// What a commit does to the pipeline's table.
struct TableChanges {
    deleted: Side,
    inserted: Side,
}

impl TableChanges {
    /// `None`: nothing. A row that came and went within the commit was never seen by anybody and is left out.
    fn of(view: &View, commit: &Commit) -> Result<Option<Self>> {
        let (mut came, mut gone): (Vec<(u64, u64)>, Vec<u64>) = (Vec::new(), Vec::new());
        for change in &commit.changes {
            match change {
                Change::Insert { table, first_row, rows } if *table == view.table() => {
                    came.push((first_row.0, first_row.0 + rows.num_rows() as u64));
                }
                Change::Delete { table, rows, .. } if *table == view.table() => {
                    gone.extend(rows.iter().map(|row| row.0));
                }
                _ => {}
            }
        }
        if came.is_empty() && gone.is_empty() {
            return Ok(None);
        }
        gone.sort_unstable();
        came.sort_unstable();
        let mut changes = Self { deleted: Side::default(), inserted: Side::default() };
        for change in &commit.changes {
            match change {
                Change::Insert { table, first_row, rows } if *table == view.table() => {
                    let stays = |row: usize| gone.binary_search(&(first_row.0 + row as u64)).is_err();
                    changes.inserted.add(view, rows, stays)?;
                }
                Change::Delete { table, rows, before } if *table == view.table() => {
                    let was_there = |row: usize| !within(&came, rows[row].0);
                    check_before(rows, before, commit.lsn)?;
                    changes.deleted.add(view, before, was_there)?;
                }
                _ => {}
            }
        }
        Ok(Some(changes))
    }

    fn pair(&self, view: &View, lsn: Lsn) -> Result<Events> {
        let partners = self.partners(view.key())?;
        let offset = self.deleted.batches.len();
        let mut is_partner = vec![false; self.deleted.rows.len()];
        partners.iter().flatten().for_each(|deleted| is_partner[*deleted] = true);
        let alone = self.deleted.rows.iter().zip(is_partner).filter(|(_, paired)| !paired);
        let mut rows: Vec<(usize, usize)> = alone.map(|(row, _)| *row).collect();
        let mut operations = vec![Operation::Delete; rows.len()];
        // Of a row without one before it its own place, where nobody looks.
        let mut before = if view.keeps_before { rows.clone() } else { Vec::new() };
        let mut updates = false;
        for ((batch, row), partner) in self.inserted.rows.iter().zip(partners) {
            let row = (batch + offset, *row);
            rows.push(row);
            operations.push(if partner.is_some() { Operation::Update } else { Operation::Create });
            updates |= partner.is_some();
            if view.keeps_before {
                before.push(partner.map_or(row, |deleted| self.deleted.rows[deleted]));
            }
        }
        if rows.is_empty() {
            return Ok(Events::default());
        }
        let after = self.gather(&rows)?;
        let before = match (view.keeps_before, updates) {
            (false, _) => None,
            (true, false) => Some(after.clone()),
            (true, true) => Some(self.gather(&before)?),
        };
        let events = u32::try_from(rows.len())
            .map_err(|_| Error::bug("a commit has more events than a position can count"))?;
        Ok(Events {
            positions: (0..events).map(|index| Position::Feed { lsn, index }).collect(),
            operations: operations.into(),
            rows: Some(after),
            before,
        })
    }

    /// For each inserted row the deleted one with its key, by its place among the deleted rows. Of several the first.
    fn partners(&self, key: &[usize]) -> Result<Vec<Option<usize>>> {
        let (Some(sample), false) = (self.deleted.batches.first(), key.is_empty()) else {
            return Ok(vec![None; self.inserted.rows.len()]);
        };
        let fields =
            key.iter().map(|column| SortField::new(sample.column(*column).data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(sepal_query::arrow_error)?;
        let deleted = self.deleted.keys(&converter, key)?;
        let inserted = self.inserted.keys(&converter, key)?;
        // Rows of one key are chained, the first at the head: a key without uniqueness (NULLs) may have several.
        let mut heads: HashMap<Row<'_>, usize> = HashMap::with_capacity(self.deleted.rows.len());
        let mut next = vec![None; self.deleted.rows.len()];
        for (place, (batch, row)) in self.deleted.rows.iter().enumerate().rev() {
            next[place] = heads.insert(deleted[*batch].row(*row), place);
        }
        let mut partner = |(batch, row): &(usize, usize)| {
            let key = inserted[*batch].row(*row);
            let place = *heads.get(&key)?;
            match next[place] {
                Some(following) => heads.insert(key, following),
                None => heads.remove(&key),
            };
            Some(place)
        };
        Ok(self.inserted.rows.iter().map(&mut partner).collect())
    }

    /// The rows at these places among the batches of both sides. Those of one batch that follow each other are a part
    /// of it: a plain INSERT is not copied.
    fn gather(&self, places: &[(usize, usize)]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.deleted.batches.iter().chain(&self.inserted.batches).collect();
        if let Some((batch, first)) = places.first()
            && places.iter().zip(*first..).all(|(place, row)| *place == (*batch, row))
        {
            return Ok(batches[*batch].slice(*first, places.len()));
        }
        interleave_record_batch(&batches, places).map_err(sepal_query::arrow_error)
    }
}

/// Whether a row id is in one of the ranges, which are ascending and do not overlap. Their ends are exclusive.
pub fn within(ranges: &[(u64, u64)], row: u64) -> bool {
    let place = ranges.partition_point(|(first, _)| *first <= row);
    place.checked_sub(1).is_some_and(|place| row < ranges[place].1)
}

/// Places of the rows that the filter lets through.
pub fn passing(passes: &BooleanArray) -> impl Iterator<Item = usize> + '_ {
    (0..passes.len()).filter(|row| passes.is_valid(*row) && passes.value(*row))
}

/// A commit from before the table was captured carries no rows: no pipeline may read that far back.
pub fn check_before(rows: &[RowId], before: &RecordBatch, lsn: Lsn) -> Result<()> {
    if rows.len() == before.num_rows() {
        return Ok(());
    }
    Err(Error::bug(format!(
        "commit {lsn} deletes {} rows of a captured table and carries {} of them",
        rows.len(),
        before.num_rows()
    )))
}
