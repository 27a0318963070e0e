//! Foreign keys over rows at hand: their keys, what they become in the other table's types, the rows that an action
//! makes, and the words in which Postgres refuses (`ri_triggers.c`).
//!
//! Called by `database::Session`, which looks keys up, locks and decides; nothing here waits or writes.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array, new_null_array},
    compute::{CastOptions, cast_with_options, filter, take},
    row::{RowConverter, SortField},
};
use sepal_storage::{Located, TableVersion, arrow_type, stored_name};
use sepal_types::{
    ColumnDef, ColumnId, Error, ForeignKeyDef, ReferenceAction, Result, RowId, SqlState, SqlType, TableDef,
    UniqueDef,
};

use super::{
    DmlContext,
    assign::{TargetRows, assign},
    defaults::default_values,
};
use crate::{
    error,
    output::typed_field,
    vector::{Hit, fetch},
};

/// The columns of live rows, which ascend. Errors: XX000 for a row that is not there.
pub fn stored_columns(version: &TableVersion, rows: &[RowId], columns: &[ColumnId]) -> Result<Vec<ArrayRef>> {
    let hits = hits_of(version, rows)?;
    columns.iter().map(|id| fetch(version, column_of(&version.def, *id)?, &hits)).collect()
}

/// The columns of rows as an insert has them.
pub fn inserted_columns(rows: &RecordBatch, columns: &[ColumnId]) -> Result<Vec<ArrayRef>> {
    let column = |id: &ColumnId| {
        let found = rows.column_by_name(&stored_name(*id)).cloned();
        found.ok_or_else(|| Error::bug(format!("inserted rows lack column {id}")))
    };
    columns.iter().map(column).collect()
}

/// Keys as the columns of another table have them. A value that the other type has not, such as a `bigint` that is no
/// `integer`, is NULL there: nothing has that key.
pub fn keys_as(keys: &[ArrayRef], def: &TableDef, columns: &[ColumnId]) -> Result<Vec<ArrayRef>> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let fitted = |(array, id): (&ArrayRef, &ColumnId)| {
        let wanted = arrow_type(&column_of(def, *id)?.ty);
        if *array.data_type() == wanted {
            return Ok(Arc::clone(array));
        }
        cast_with_options(array, &wanted, &options).map_err(error::arrow)
    };
    keys.iter().zip(columns).map(fitted).collect()
}

/// Keys of the referenced columns in the order of the unique constraint over them.
pub fn in_order_of(unique: &UniqueDef, key: &ForeignKeyDef, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let ordered = |id: &ColumnId| {
        let place = key.parent_columns.iter().position(|column| column == id);
        let array = place.and_then(|place| keys.get(place)).cloned();
        array.ok_or_else(|| Error::bug("a foreign key refers to other columns than its key has"))
    };
    unique.columns.iter().map(ordered).collect()
}

/// Which keys have no NULL, and which have nothing else.
pub fn wholeness(keys: &[ArrayRef], rows: usize) -> (BooleanArray, BooleanArray) {
    let whole = (0..rows).map(|row| Some(keys.iter().all(|array| array.is_valid(row)))).collect();
    let none = (0..rows).map(|row| Some(keys.iter().all(|array| array.is_null(row)))).collect();
    (whole, none)
}

/// The keys for which `keep` is true.
pub fn picked(keys: &[ArrayRef], keep: &BooleanArray) -> Result<Vec<ArrayRef>> {
    keys.iter().map(|array| filter(array, keep).map_err(error::arrow)).collect()
}

/// The keys at some places.
pub fn at_places(keys: &[ArrayRef], places: &[usize]) -> Result<Vec<ArrayRef>> {
    let places = UInt64Array::from_iter_values(places.iter().map(|place| *place as u64));
    keys.iter().map(|array| take(array, &places, None).map_err(error::arrow)).collect()
}

/// Which keys are equal, row by row. NULLs are equal to each other here.
pub fn equal_rows(one: &[ArrayRef], other: &[ArrayRef]) -> Result<Vec<bool>> {
    let fields = one.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(error::arrow)?;
    let one = converter.convert_columns(one).map_err(error::arrow)?;
    let other = converter.convert_columns(other).map_err(error::arrow)?;
    Ok(one.iter().zip(other.iter()).map(|(one, other)| one == other).collect())
}

/// What an action makes of rows that refer to a key that went: `places` has the place of each one's key in `new`, which
/// is of the referenced columns and only there for CASCADE.
///
/// Errors: 22001, 22003 for a key that the referring columns cannot hold.
pub fn acted_on(
    version: &TableVersion,
    rows: &[RowId],
    key: &ForeignKeyDef,
    action: ReferenceAction,
    (new, places): (&[ArrayRef], &[usize]),
    context: &DmlContext,
) -> Result<TargetRows> {
    let def = &version.def;
    let hits = hits_of(version, rows)?;
    let given = match action {
        ReferenceAction::Cascade => Some(at_places(&exactly_as(new, def, &key.columns)?, places)?),
        _ => None,
    };
    let column = |column: &ColumnDef| {
        let place = key.columns.iter().position(|id| *id == column.id);
        match (place, action, &given) {
            (None, ..) => fetch(version, column, &hits),
            (Some(place), _, Some(given)) => Ok(Arc::clone(&given[place])),
            (Some(_), ReferenceAction::SetDefault, None) => default_values(def, column, rows.len(), context),
            (Some(_), _, None) => Ok(new_null_array(&arrow_type(&column.ty), rows.len())),
        }
    };
    let arrays = def.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(TargetRows { arrays, rows: rows.len() })
}

fn exactly_as(keys: &[ArrayRef], def: &TableDef, columns: &[ColumnId]) -> Result<Vec<ArrayRef>> {
    let mut fitted = keys_as(keys, def, columns)?;
    for ((array, before), id) in fitted.iter_mut().zip(keys).zip(columns) {
        let column = column_of(def, *id)?;
        if array.null_count() > before.null_count() {
            let message = format!("{} out of range", column.ty.display_name());
            return Err(Error::new(SqlState::NumericValueOutOfRange, message));
        }
        // All strings are of one type in Arrow, however long they may be.
        if let SqlType::Varchar(Some(_)) = column.ty {
            *array = assign(array, &typed_field("key", array.data_type().clone(), &SqlType::Text), column)?;
        }
    }
    Ok(fitted)
}

/// 23503: a row refers to what is not there. `keys` are those of the referring columns.
pub fn missing(
    child: &TableDef,
    key: &ForeignKeyDef,
    parent: &TableDef,
    keys: &[ArrayRef],
    row: usize,
) -> Error {
    refused(child, key)
        .with_detail(format!(
            "Key {} is not present in table \"{}\".",
            key_text(child, &key.columns, keys, row),
            parent.name
        ))
        .with_constraint(&child.schema, &child.name, &key.name)
}

/// 23503: MATCH FULL, and one column is NULL where another is not.
pub fn mixed(child: &TableDef, key: &ForeignKeyDef) -> Error {
    refused(child, key)
        .with_detail("MATCH FULL does not allow mixing of null and nonnull key values.")
        .with_constraint(&child.schema, &child.name, &key.name)
}

fn refused(child: &TableDef, key: &ForeignKeyDef) -> Error {
    let message = format!(
        "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
        child.name, key.name
    );
    Error::new(SqlState::ForeignKeyViolation, message)
}

/// 23503: a key that goes is referred to. `keys` are those of the referenced columns.
pub fn still_referenced(
    child: &TableDef,
    key: &ForeignKeyDef,
    parent: &TableDef,
    keys: &[ArrayRef],
    row: usize,
) -> Error {
    let message = format!(
        "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
        parent.name, key.name, child.name
    );
    Error::new(SqlState::ForeignKeyViolation, message)
        .with_detail(format!(
            "Key {} is still referenced from table \"{}\".",
            key_text(parent, &key.parent_columns, keys, row),
            child.name
        ))
        .with_constraint(&child.schema, &child.name, &key.name)
}

/// `(a, b)=(1, 2)`
fn key_text(def: &TableDef, columns: &[ColumnId], keys: &[ArrayRef], row: usize) -> String {
    let known: Vec<&ColumnDef> = columns.iter().filter_map(|id| def.column_by_id(*id)).collect();
    let names: Vec<&str> = known.iter().map(|column| column.name.as_str()).collect();
    let value = |(column, array): (&&ColumnDef, &ArrayRef)| {
        let mut out = bytes::BytesMut::new();
        match crate::values::encode_text(array.as_ref(), row, &column.ty, &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(_) => "?".to_owned(),
        }
    };
    let values: Vec<String> = known.iter().zip(keys).map(value).collect();
    format!("({})=({})", names.join(", "), values.join(", "))
}

fn column_of(def: &TableDef, id: ColumnId) -> Result<&ColumnDef> {
    def.column_by_id(id).ok_or_else(|| {
        Error::bug(format!("a foreign key of table \"{}\" names column {id}, which it lacks", def.name))
    })
}

fn hits_of(version: &TableVersion, rows: &[RowId]) -> Result<Vec<Hit>> {
    let hit = |(located, row): (Option<Located>, &RowId)| match located {
        Some(located) => Ok(Hit { chunk: located.chunk, position: located.position, distance: None }),
        None => Err(Error::bug(format!("row {row} of table \"{}\" is not there", version.def.name))),
    };
    version.locate_each(rows)?.into_iter().zip(rows).map(hit).collect()
}
