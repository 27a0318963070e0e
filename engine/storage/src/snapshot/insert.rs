//! Rows into a table: the batch is checked, its keys are looked up, and it becomes a chunk.
//!
//! Called by `apply`. Writes nothing.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Int32Type, TimestampMicrosecondType},
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use sepal_crypto::hex;
use sepal_types::{ColumnDef, EnumType, RowId, SparseWords, TableDef, UniqueDef};

use super::{Rules, TableVersion, merge};
use crate::{
    ChunkRef, StoreError,
    arrow_types::{arrow_type, is_sparse_item, stored_column, stored_name},
    chunk::{Chunk, KeyColumns, KeyMap, MemoryChunk, row_count},
    row_bytes::varying_bytes,
};

/// Of one value, with what Arrow needs beside it: 1 GiB as in Postgres.
const MAX_VALUE_BYTES: usize = (1 << 30) + (1 << 10);

pub(super) fn insert(
    version: &mut TableVersion,
    first_row: RowId,
    rows: &RecordBatch,
    rules: Rules,
) -> Result<(), StoreError> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let keys = if rules.trusted { Vec::new() } else { check(version, first_row, rows)? };
    let chunk = Chunk::memory(MemoryChunk::inserted(first_row, rows, rules.generation)?);
    for (columns, map) in keys {
        chunk.remember_keys(columns, map);
    }
    version.chunks.push(ChunkRef::new(chunk));
    merge::merge_tail(version, rules.generation)
}

/// Everything that an insert asks before the rows come: that they are the table's, and that no key of theirs is taken,
/// be it by a live row or by another of them. Their keys.
pub(super) fn check(
    version: &TableVersion,
    first_row: RowId,
    rows: &RecordBatch,
) -> Result<Vec<(KeyColumns, Arc<KeyMap>)>, StoreError> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    row_count(first_row, rows)?;
    check_batch(&version.def, rows)?;
    version.def.uniques.iter().map(|unique| free_keys(version, unique, rows)).collect()
}

/// The batch's columns are the definition's, in order. Checked before the log has it: afterwards it would be
/// damage.
fn check_batch(def: &TableDef, rows: &RecordBatch) -> Result<(), StoreError> {
    let fields = rows.schema_ref().fields();
    if fields.len() != def.columns.len() {
        let why = format!(
            "{} columns inserted into table \"{}\", which has {}",
            fields.len(),
            def.name,
            def.columns.len()
        );
        return Err(StoreError::Bug(why));
    }
    for ((field, column), array) in fields.iter().zip(&def.columns).zip(rows.columns()) {
        if stored_column(field.name()) != Some(column.id) || *field.data_type() != arrow_type(&column.ty) {
            let why = format!(
                "column \"{}\" of table \"{}\" is stored as {} {}, not as {} {}",
                column.name,
                def.name,
                stored_name(column.id),
                arrow_type(&column.ty),
                field.name(),
                field.data_type(),
            );
            return Err(StoreError::Bug(why));
        }
        check_values(column, array)?;
    }
    Ok(())
}

/// A page of a segment holds less than 2 GiB, and one value at least: what is larger could be logged, and never be
/// flushed. Looks at single values only where all of them together are so much.
pub(super) fn check_values(column: &ColumnDef, array: &ArrayRef) -> Result<(), StoreError> {
    let is_too_large = |array: &ArrayRef| varying_bytes(array.as_ref()) > MAX_VALUE_BYTES;
    if is_too_large(array) && (0..array.len()).any(|row| is_too_large(&array.slice(row, 1))) {
        return Err(StoreError::ValueTooLarge { column: column.name.clone() });
    }
    Ok(())
}

fn free_keys(
    version: &TableVersion,
    unique: &UniqueDef,
    rows: &RecordBatch,
) -> Result<(KeyColumns, Arc<KeyMap>), StoreError> {
    let columns = KeyColumns::new(&version.def, &unique.columns)?;
    let arrays = version.key_arrays(unique, rows)?;
    let keys = KeyMap::build(&arrays)?;
    let mut taken = keys.duplicate();
    if taken.is_none() {
        version.probe(&columns, &keys, |key, _| {
            taken = Some(key);
            false
        })?;
    }
    match taken {
        Some(position) => Err(violation(&version.def, unique, &arrays, position)),
        None => Ok((columns, Arc::new(keys))),
    }
}

/// The error that names the key at `position` of `arrays`.
pub(super) fn violation(
    def: &TableDef,
    unique: &UniqueDef,
    arrays: &[ArrayRef],
    position: u32,
) -> StoreError {
    let names =
        unique.columns.iter().map(|id| def.column_by_id(*id).map_or("?", |column| column.name.as_str()));
    let texts = unique.columns.iter().zip(arrays).map(|(id, array)| {
        let ty = def.column_by_id(*id).and_then(|column| column.ty.enum_type());
        ty.map_or_else(|| value_text(array, position as usize), |ty| label(ty, array, position as usize))
    });
    StoreError::UniqueViolation {
        schema: def.schema.as_str().into(),
        table: def.name.clone(),
        constraint: unique.name.clone(),
        columns: names.collect::<Vec<_>>().join(", "),
        key_text: texts.collect::<Vec<_>>().join(", "),
    }
}

/// The label of an enum's value.
fn label(ty: &EnumType, array: &ArrayRef, position: usize) -> String {
    let Some(values) = array.as_fixed_size_binary_opt() else { return "?".to_owned() };
    let place: Option<[u8; 8]> = values.value(position).try_into().ok();
    place.and_then(|place| ty.label(u64::from_be_bytes(place)).ok()).unwrap_or("?").to_owned()
}

/// A value as Postgres' DETAIL shows it.
fn value_text(array: &ArrayRef, position: usize) -> String {
    match array.data_type() {
        DataType::FixedSizeBinary(16) => {
            let digits = hex(array.as_fixed_size_binary().value(position));
            [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
        }
        DataType::Binary => format!("\\x{}", hex(array.as_binary::<i32>().value(position))),
        DataType::List(item) if is_sparse_item(item) => {
            let words = array.as_list::<i32>().value(position);
            let mut text = String::new();
            SparseWords::new(words.as_primitive::<Int32Type>().values()).format(&mut text);
            text
        }
        DataType::Boolean => if array.as_boolean().value(position) { "t" } else { "f" }.to_owned(),
        DataType::Timestamp(_, Some(_)) => {
            let instant =
                array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<&str>);
            format!("{}+00", display(&instant, position))
        }
        _ => display(array.as_ref(), position),
    }
}

fn display(array: &dyn Array, position: usize) -> String {
    let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    match ArrayFormatter::try_new(array, &options) {
        Ok(formatter) => formatter.value(position).to_string(),
        Err(_) => "?".to_owned(),
    }
}
