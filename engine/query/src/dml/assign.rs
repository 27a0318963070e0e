//! From values to a table's rows: assignment casts, lengths, NOT NULL, and the batch that storage takes.
//!
//! Used by INSERT, UPDATE and COPY, so that a value is judged alike whichever way it comes.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_empty_array},
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use sepal_storage::{Op, TenantStore, arrow_field, arrow_type, stored_name};
use sepal_types::{ColumnDef, EnumType, Error, IndexDef, Measure, Result, SqlState, SqlType, TableDef};

use crate::{
    error::{self, translate},
    functions::{assign_bits, convert, fix_dimensions},
    output::sql_type,
    vector::check_halves,
};

/// Rows of a table, one array per column in the table's order, types as stored.
#[derive(Clone, Debug)]
pub struct TargetRows {
    pub arrays: Vec<ArrayRef>,
    pub rows: usize,
}

impl TargetRows {
    /// With the columns' own names, for expressions over the rows.
    pub fn batch(&self, def: &TableDef) -> Result<RecordBatch> {
        self.batch_as(row_schema(def))
    }

    fn batch_as(&self, schema: SchemaRef) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(schema, self.arrays.clone(), &options).map_err(error::arrow)
    }
}

/// A query's rows as those of a table that was made of its columns.
pub fn rows_as(def: &TableDef, batches: &[RecordBatch]) -> Result<TargetRows> {
    let Some(first) = batches.first() else {
        let arrays = def.columns.iter().map(|column| new_empty_array(&arrow_type(&column.ty))).collect();
        return Ok(TargetRows { arrays, rows: 0 });
    };
    let schema = first.schema();
    let batch = concat_batches(&schema, batches).map_err(error::arrow)?;
    let values = batch.columns().iter().zip(schema.fields()).zip(&def.columns);
    let arrays = values
        .map(|((array, field), column)| assign(array, field, column))
        .collect::<Result<Vec<ArrayRef>>>()?;
    Ok(TargetRows { arrays, rows: batch.num_rows() })
}

/// The schema of a table's rows, every column nullable: constraints are ours to check.
pub fn row_schema(def: &TableDef) -> SchemaRef {
    Arc::new(Schema::new(
        def.columns.iter().map(|column| arrow_field(column).with_nullable(true)).collect::<Vec<_>>(),
    ))
}

/// The schema of the rows that storage takes.
pub fn stored_schema(def: &TableDef) -> SchemaRef {
    let field = |column: &ColumnDef| Field::new(stored_name(column.id), arrow_type(&column.ty), true);
    Arc::new(Schema::new(def.columns.iter().map(field).collect::<Vec<_>>()))
}

/// The operation that inserts rows under fresh row ids. Errors: 23502; 22003 for what an index cannot take.
pub fn write_rows(def: &TableDef, rows: &TargetRows, store: &TenantStore) -> Result<Option<Op>> {
    write_rows_as(def, stored_schema(def), rows, store)
}

/// The same for one who has the table's [`stored_schema`] at hand.
pub fn write_rows_as(
    def: &TableDef,
    schema: SchemaRef,
    rows: &TargetRows,
    store: &TenantStore,
) -> Result<Option<Op>> {
    if rows.rows == 0 {
        return Ok(None);
    }
    check_not_null(def, rows)?;
    check_indexed(def, rows)?;
    let batch = rows.batch_as(schema)?;
    let count = u64::try_from(rows.rows).unwrap_or(u64::MAX);
    Ok(Some(Op::Insert { table: def.id, first_row: store.reserve_rows(def.id, count), rows: batch }))
}

pub(super) fn check_not_null(def: &TableDef, rows: &TargetRows) -> Result<()> {
    for (column, array) in def.columns.iter().zip(&rows.arrays) {
        if column.not_null && array.null_count() > 0 {
            let row = (0..array.len()).find(|row| array.is_null(*row)).unwrap_or(0);
            return Err(Error::new(
                SqlState::NotNullViolation,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, def.name
                ),
            )
            .with_detail(format!("Failing row contains ({}).", row_text(def, rows, row))));
        }
    }
    Ok(())
}

/// What an index takes as `halfvec` can be one. Errors: 22003 as the cast gives it.
fn check_indexed(def: &TableDef, rows: &TargetRows) -> Result<()> {
    let as_halves = |index: &IndexDef| matches!(index.measure(), Some(Measure::Halves(_)));
    for index in def.indexes.iter().filter(|index| as_halves(index)) {
        let column = def.columns.iter().position(|column| index.columns == [column.id]);
        column.and_then(|place| rows.arrays.get(place)).map_or(Ok(()), check_halves)?;
    }
    Ok(())
}

/// A row as Postgres shows it in a DETAIL, long values cut.
pub(super) fn row_text(def: &TableDef, rows: &TargetRows, row: usize) -> String {
    let value = |(column, array): (&ColumnDef, &ArrayRef)| {
        if array.is_null(row) {
            return "null".to_owned();
        }
        let mut out = bytes::BytesMut::new();
        if crate::values::encode_text(array.as_ref(), row, &column.ty, &mut out).is_err() {
            return "?".to_owned();
        }
        let text = String::from_utf8_lossy(&out);
        match text.char_indices().nth(64) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.into_owned(),
        }
    };
    def.columns.iter().zip(&rows.arrays).map(value).collect::<Vec<_>>().join(", ")
}

/// Converts an expression's values to a column's type, as an assignment does.
///
/// Errors: 42804 no assignment cast, 22001 too long, 22003 out of range, pgvector's for vectors.
pub fn assign(array: &ArrayRef, source: &Field, column: &ColumnDef) -> Result<ArrayRef> {
    let source_type = sql_type(source);
    // Arrow would take a number for so many days, microseconds, or the truth.
    if array.data_type() != &DataType::Null && source_type.is_number() && is_structured(&column.ty) {
        return Err(mismatch(column, &source_type));
    }
    assign_default(array, source, column)
}

/// The same for a DEFAULT and a generated column, whose expression may be from before numbers were refused for what is
/// none.
pub fn assign_default(array: &ArrayRef, source: &Field, column: &ColumnDef) -> Result<ArrayRef> {
    let wanted = arrow_type(&column.ty);
    check_enum(array, source, column)?;
    if array.data_type() == &wanted
        && !matches!(
            column.ty,
            SqlType::Bpchar(_)
                | SqlType::Varchar(Some(_))
                | SqlType::Json
                | SqlType::Jsonb
                | SqlType::SparseVec(Some(_))
                | SqlType::TsQuery
                | SqlType::TsVector
        )
    {
        return Ok(Arc::clone(array));
    }
    let source_type = sql_type(source);
    if array.data_type() != &DataType::Null && is_structured(&source_type) && column.ty.is_number() {
        return Err(mismatch(column, &source_type));
    }
    if let SqlType::Bit(Some(length)) = column.ty {
        return assign_bits(array, length).map_err(|problem| {
            let error = translate(problem);
            let impossible = error.state() == SqlState::CannotCoerce;
            if impossible { mismatch(column, &source_type) } else { error }
        });
    }
    if let SqlType::Bpchar(Some(length)) | SqlType::Varchar(Some(length)) = column.ty {
        check_length(&convert(array, &source_type, &SqlType::Text).map_err(translate)?, length, &column.ty)?;
    }
    let converted = match convert(array, &source_type, &column.ty) {
        Ok(converted) => converted,
        Err(problem) => {
            let error = translate(problem);
            let impossible = error.state() == SqlState::CannotCoerce && !source_type.is_text();
            return Err(if impossible { mismatch(column, &source_type) } else { error });
        }
    };
    if matches!(wanted, DataType::FixedSizeList(..)) && converted.data_type() != &wanted {
        return fix_dimensions(&converted, &wanted).map_err(translate);
    }
    if converted.data_type() == &wanted {
        return Ok(converted);
    }
    cast(&converted, &wanted).map_err(error::arrow)
}

/// Places mean labels of one type alone, and an enum is made of nothing but texts.
///
/// Errors: 42804; 0A000 where it is not known which enum's values these are.
fn check_enum(array: &ArrayRef, source: &Field, column: &ColumnDef) -> Result<()> {
    let source_type = sql_type(source);
    if array.data_type() == &DataType::Null {
        return Ok(());
    }
    match (source_type.enum_type(), column.ty.enum_type()) {
        (None, None) => Ok(()),
        (Some(source), _) if !source.is_known() => Err(EnumType::not_known()),
        (Some(source), Some(target)) if source.id == target.id => Ok(()),
        (Some(_), None) if column.ty.is_text() => Ok(()),
        (None, Some(_)) if source_type.is_text() => Ok(()),
        _ => Err(mismatch(column, &source_type)),
    }
}

/// Types that have no assignment cast from numbers or to them.
const fn is_structured(ty: &SqlType) -> bool {
    matches!(
        ty,
        SqlType::Bool
            | SqlType::Bytea
            | SqlType::Uuid
            | SqlType::Date
            | SqlType::Timestamp
            | SqlType::Timestamptz
    )
}

fn mismatch(column: &ColumnDef, source: &SqlType) -> Error {
    let message = format!(
        "column \"{}\" is of type {} but expression is of type {}",
        column.name,
        column.ty.display_name(),
        source.display_name()
    );
    Error::new(SqlState::DatatypeMismatch, message)
        .with_hint("You will need to rewrite or cast the expression.")
}

fn check_length(text: &ArrayRef, length: u32, ty: &SqlType) -> Result<()> {
    let too_long = |value: &str| {
        // Trailing spaces beyond the length are cut, not refused (SQL standard, as Postgres).
        value.len() > length as usize && value.trim_end_matches(' ').chars().count() > length as usize
    };
    if text.as_string::<i32>().iter().flatten().any(too_long) {
        return Err(Error::new(
            SqlState::StringDataRightTruncation,
            format!("value too long for type {}", ty.display_name()),
        ));
    }
    Ok(())
}
