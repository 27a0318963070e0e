//! The tables of the simulation, between the model's rows and Arrow's columns.
//!
//! Every table is [`items`]: id (primary key), label, embedding, which follows from the id; columns that are added
//! later are integers.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    datatypes::{Field, Float32Type, Int64Type, Schema},
    record_batch::RecordBatch,
};
use sepal_types::{ColumnDef, ColumnId, RowId, SqlType, TableDef, TableId};

use super::model::{Change, Row, State, Table};
use crate::{
    Op, Snapshot, StoreError, TableVersion,
    fixtures::{batch_of, column, items},
    stored_name,
};

/// Columns that every table has.
const FIXED: usize = 3;

/// Why a reading is not the model's.
#[derive(Debug)]
pub(super) enum Trouble {
    Store(StoreError),
    Wrong(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A new table, with ids for its constraint and its index.
pub(super) fn definition(id: TableId, name: &str, captured: bool) -> TableDef {
    let mut def = items(id.0, name);
    def.indexes[0].valid = true;
    def.captured = captured;
    def
}

/// A table that can begin with another one's rows.
pub(super) fn clone_definition(id: TableId, name: &str, source: &TableDef) -> TableDef {
    let (columns, next_column) = (source.columns.clone(), source.next_column);
    TableDef { columns, next_column, ..definition(id, name, false) }
}

/// With one column more; rows from before have `missing` there, or NULL.
pub(super) fn with_column(def: &TableDef, missing: Option<i64>) -> TableDef {
    let mut def = def.clone();
    let id = def.next_column.0;
    let mut added = column(id, &format!("more{id}"), SqlType::Int8);
    added.missing = missing.map(|value| value.to_string());
    def.columns.push(added);
    def.next_column = ColumnId(id + 1);
    def
}

/// The columns that were added.
pub(super) fn added(def: &TableDef) -> &[ColumnDef] {
    def.columns.get(FIXED..).unwrap_or_default()
}

/// A change as the store takes it, but for a clone, which the store makes. `def`: the table as the transaction sees it.
pub(super) fn op(change: &Change, def: Option<&TableDef>) -> Op {
    match change {
        Change::Create(def) => Op::CreateTable(def.clone()),
        Change::Clone(_) => unreachable!("a clone is given with its op"),
        Change::Alter(def) => Op::AlterTable(def.clone()),
        Change::Drop(table) => Op::DropTable(*table),
        Change::Truncate(table) => Op::Truncate(*table),
        Change::Insert { table, first_row, rows } => {
            let rows = batch(def.expect("rows go into a table that is there"), rows);
            Op::Insert { table: *table, first_row: RowId(*first_row), rows }
        }
        Change::Delete { table, rows } => {
            Op::Delete { table: *table, rows: rows.iter().copied().map(RowId).collect() }
        }
        Change::SetSequence { table, next } => {
            Op::SetSequence { table: *table, column: ColumnId(1), next: *next }
        }
    }
}

fn batch(def: &TableDef, rows: &[Row]) -> RecordBatch {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let labels: Vec<String> = rows.iter().map(|row| row.label.to_string()).collect();
    let fixed = batch_of(&ids, &labels);
    let mut arrays: Vec<ArrayRef> = fixed.columns().to_vec();
    for column in added(def) {
        let values = rows.iter().map(|row| row.more.get(&column.id.0).copied().flatten());
        arrays.push(Arc::new(values.collect::<Int64Array>()));
    }
    let fields: Vec<Field> = def
        .columns
        .iter()
        .zip(&arrays)
        .map(|(column, array)| Field::new(stored_name(column.id), array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}

/// A vector index's bytes: what tells one index over so many rows from others.
pub(super) fn blob(index: TableId, rows: usize) -> Vec<u8> {
    format!("index {index} over {rows} rows").into_bytes()
}

/// Whether the snapshot is the model's state, in everything that can be asked.
pub(super) fn compare(snapshot: &Snapshot, state: &State) -> Result<(), Trouble> {
    if let Some(error) = snapshot.damage() {
        return Err(Trouble::Store(error.clone()));
    }
    let found: Vec<TableId> = snapshot.tables().map(|version| version.def.id).collect();
    let expected: Vec<TableId> = state.tables.keys().copied().collect();
    if found != expected {
        return Err(Trouble::Wrong(format!("tables {found:?}, expected {expected:?}")));
    }
    for version in snapshot.tables() {
        let table = &state.tables[&version.def.id];
        if *version.def != table.def {
            return Err(Trouble::Wrong(format!("table {} has another definition", table.def.id)));
        }
        let same = snapshot.find(&table.def.environment, &table.def.name);
        if same.is_none_or(|found| found.def.id != table.def.id) {
            return Err(Trouble::Wrong(format!("table {} is not found by its name", table.def.id)));
        }
        compare_rows(version, table, &|_| false)?;
        compare_keys(version, table)?;
        compare_blobs(version, table)?;
    }
    Ok(())
}

/// The same of what a repair has left: rows that `is_lost` knows may be missing. Gives how many of each table are.
pub(super) fn compare_left(
    snapshot: &Snapshot,
    state: &State,
    is_lost: &dyn Fn(TableId, u64) -> bool,
) -> Result<BTreeMap<TableId, u64>, Trouble> {
    let mut left = state.clone();
    let mut missing = BTreeMap::new();
    for version in snapshot.tables() {
        let id = version.def.id;
        let Some(table) = left.tables.get_mut(&id).map(Arc::make_mut) else { continue };
        compare_rows(version, table, &|row| is_lost(id, row))?;
        let (found, before) = (rows(version)?, table.rows.len());
        table.rows.retain(|row, _| found.contains_key(row));
        missing.insert(id, (before - table.rows.len()) as u64);
    }
    compare(snapshot, &left)?;
    Ok(missing)
}

fn compare_rows(
    version: &TableVersion,
    table: &Table,
    may_lack: &dyn Fn(u64) -> bool,
) -> Result<(), Trouble> {
    let found = rows(version)?;
    if version.live_rows() != found.len() as u64 {
        let why = format!("table {} counts {} rows, has {}", table.def.id, version.live_rows(), found.len());
        return Err(Trouble::Wrong(why));
    }
    for (row, expected) in &table.rows {
        match found.get(row) {
            None if may_lack(*row) => {}
            None => {
                let why = format!("table {}: row {row} with key {} is missing", table.def.id, expected.id);
                return Err(Trouble::Wrong(why));
            }
            Some(found) if *found != as_of(&version.def, expected) => {
                let why = format!("table {}: row {row} with key {} differs", table.def.id, expected.id);
                return Err(Trouble::Wrong(why));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|row| !table.rows.contains_key(row)) {
        None => Ok(()),
        Some(row) => Err(Trouble::Wrong(format!("table {}: row {row} should not be there", table.def.id))),
    }
}

/// Each key leads to its row, one that nobody has to none.
fn compare_keys(version: &TableVersion, table: &Table) -> Result<(), Trouble> {
    let mut keys: Vec<i64> = table.rows.values().map(|row| row.id).collect();
    keys.push(-1);
    let array: ArrayRef = Arc::new(Int64Array::from(keys));
    let found = version.lookup_unique(&version.def.uniques[0], &[array])?;
    let expected: Vec<Option<RowId>> = table.rows.keys().map(|row| Some(RowId(*row))).chain([None]).collect();
    if found == expected {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("table {}: keys lead to {found:?}, expected {expected:?}", table.def.id)))
}

/// An index need not be there, but it is never another one.
fn compare_blobs(version: &TableVersion, table: &Table) -> Result<(), Trouble> {
    for reference in &version.chunks {
        for index in &version.def.indexes {
            let Some(found) = reference.chunk.index_blob(index.id) else { continue };
            let (found, rows) = (found?, reference.chunk.rows() as usize);
            let kin = table.kin.get(&index.id).into_iter().flatten();
            if !std::iter::once(&index.id).chain(kin).any(|index| found == blob(*index, rows)) {
                return Err(Trouble::Wrong(format!("index {} has wrong bytes", index.id)));
            }
        }
    }
    Ok(())
}

/// Every live row, by row id.
fn rows(version: &TableVersion) -> Result<BTreeMap<u64, Row>, Trouble> {
    let mut rows = BTreeMap::new();
    for reference in &version.chunks {
        let row_ids = reference.chunk.row_ids()?;
        let columns: Vec<ArrayRef> = version
            .def
            .columns
            .iter()
            .map(|column| reference.chunk.column(column))
            .collect::<Result<_, _>>()?;
        for position in 0..reference.chunk.rows() {
            if reference.deleted.contains(position) {
                continue;
            }
            let row = row_at(&version.def, &columns, position as usize)?;
            let row_id = row_ids.value(position as usize);
            if rows.insert(row_id, row).is_some() {
                return Err(Trouble::Wrong(format!("row {row_id} is there twice")));
            }
        }
    }
    Ok(rows)
}

/// The model's row with the columns that the table has now.
fn as_of(def: &TableDef, row: &Row) -> Row {
    let missing = |column: &ColumnDef| column.missing.as_ref().and_then(|text| text.parse().ok());
    let value = |column: &ColumnDef| row.more.get(&column.id.0).copied().unwrap_or_else(|| missing(column));
    let more = added(def).iter().map(|column| (column.id.0, value(column))).collect();
    Row { more, ..row.clone() }
}

fn row_at(def: &TableDef, columns: &[ArrayRef], position: usize) -> Result<Row, Trouble> {
    let id = columns[0].as_primitive::<Int64Type>().value(position);
    let label: Arc<str> = columns[1].as_string::<i32>().value(position).into();
    let vector = columns[2].as_fixed_size_list().value(position);
    #[expect(clippy::cast_precision_loss, reason = "keys are small")]
    let wanted = id as f32;
    if vector.as_primitive::<Float32Type>().values().iter().any(|number| *number != wanted) {
        return Err(Trouble::Wrong(format!("the embedding of key {id} is another one's")));
    }
    let mut more = BTreeMap::new();
    for (column, array) in added(def).iter().zip(&columns[FIXED..]) {
        let values = array.as_primitive::<Int64Type>();
        more.insert(column.id.0, (!values.is_null(position)).then(|| values.value(position)));
    }
    Ok(Row { id, label, more })
}
