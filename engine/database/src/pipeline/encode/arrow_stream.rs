//! An Arrow IPC stream with one record batch.
//!
//! The columns `__op` (`c`, `d`, `r`, `u`), `__pos` and `__ts` come first, then the query's, all nullable. In the
//! upsert envelope a deletion has its key columns only; in debezium `__before`, a struct of the query's columns, comes
//! last, and a deletion has no other row.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
    },
    buffer::NullBuffer,
    compute::{cast, nullif},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit},
    ipc::writer::StreamWriter,
    record_batch::RecordBatch,
};
use bytes::{Bytes, BytesMut};
use sepal_query::{
    output::{OutputColumn, typed_field},
    values::ColumnEncoder,
};
use sepal_types::{Error, Result, SqlType};

use super::{Encoded, Encoder, arrow_type};
use crate::{
    connector::Envelope,
    pipeline::event::{Events, Operation},
};

pub fn encode(encoder: &Encoder, events: &Events, at: i64, limit: usize) -> Result<Encoded> {
    let mut rows = events.len();
    loop {
        let payload = stream(encoder, &events.slice(0, rows), at)?;
        if payload.len() <= limit || rows <= 1 {
            return Ok(Encoded { payload, rows });
        }
        // In proportion, and a little less: headers do not shrink with the rows.
        let share = rows as u128 * limit as u128 * 9 / (payload.len() as u128 * 10);
        rows = usize::try_from(share).unwrap_or(rows).clamp(1, rows - 1);
    }
}

/// The stream's first message.
pub fn schema_message(columns: &[OutputColumn], envelope: Envelope) -> Result<Vec<u8>> {
    let writer =
        StreamWriter::try_new(Vec::new(), &schema(columns, envelope)).map_err(sepal_query::arrow_error)?;
    Ok(writer.get_ref().clone())
}

fn schema(columns: &[OutputColumn], envelope: Envelope) -> SchemaRef {
    let mut fields = vec![
        Field::new("__op", DataType::Utf8, false),
        Field::new("__pos", DataType::Utf8, false),
        Field::new("__ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ];
    fields.extend(row_fields(columns).iter().map(|field| field.as_ref().clone()));
    if envelope == Envelope::Debezium {
        fields.push(Field::new("__before", DataType::Struct(row_fields(columns)), true));
    }
    Arc::new(Schema::new(fields))
}

fn row_fields(columns: &[OutputColumn]) -> Fields {
    // Of an enum nothing is left but a label.
    let text = SqlType::Text;
    let shown = |column: &OutputColumn| {
        let ty = if column.ty.enum_type().is_some() { &text } else { &column.ty };
        typed_field(&column.name, arrow_type(column), ty)
    };
    columns.iter().map(shown).collect()
}

fn stream(encoder: &Encoder, events: &Events, at: i64) -> Result<Bytes> {
    let schema = schema(encoder.columns(), encoder.envelope);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(sepal_query::arrow_error)?;
    if let Some(rows) = &events.rows {
        let batch = RecordBatch::try_new(schema, arrays(encoder, events, rows, at)?)
            .map_err(sepal_query::arrow_error)?;
        writer.write(&batch).map_err(sepal_query::arrow_error)?;
    }
    writer.into_inner().map(Bytes::from).map_err(sepal_query::arrow_error)
}

fn arrays(encoder: &Encoder, events: &Events, rows: &RecordBatch, at: i64) -> Result<Vec<ArrayRef>> {
    let operations = events.operations.iter().map(|operation| operation.letter());
    let positions = events.positions.iter().map(ToString::to_string);
    let times = TimestampMicrosecondArray::from(vec![at; events.len()]).with_timezone("UTC");
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(operations)),
        Arc::new(StringArray::from_iter_values(positions)),
        Arc::new(times),
    ];
    let is = |wanted: Operation| -> BooleanArray {
        events.operations.iter().map(|operation| Some(*operation == wanted)).collect()
    };
    let columns = conformed(encoder, rows)?;
    let deleted = is(Operation::Delete);
    for (place, column) in columns.iter().enumerate() {
        let hidden = match encoder.envelope {
            Envelope::Append => false,
            Envelope::Upsert => !encoder.key().contains(&place),
            Envelope::Debezium => true,
        };
        arrays.push(if hidden { hide(column, &deleted)? } else { Arc::clone(column) });
    }
    if encoder.envelope == Envelope::Debezium {
        let before = conformed(encoder, events.before.as_ref().unwrap_or(rows))?;
        arrays.push(before_column(encoder, events, &columns, &before)?);
    }
    Ok(arrays)
}

/// The rows before: of deletions the row itself, of updates that of `before`, of others none.
fn before_column(
    encoder: &Encoder,
    events: &Events,
    rows: &[ArrayRef],
    before: &[ArrayRef],
) -> Result<ArrayRef> {
    let deleted: Vec<usize> =
        events.operations.iter().map(|operation| usize::from(*operation != Operation::Delete)).collect();
    let indices: Vec<(usize, usize)> = deleted.into_iter().zip(0..).collect();
    let mut columns = Vec::with_capacity(rows.len());
    for (row, before) in rows.iter().zip(before) {
        let both: [&dyn Array; 2] = [row.as_ref(), before.as_ref()];
        columns.push(arrow::compute::interleave(&both, &indices).map_err(sepal_query::arrow_error)?);
    }
    // Of a dead letter that is sent again the row before the update was not kept.
    let is_known = events.before.is_some();
    let has = |operation: &Operation| match operation {
        Operation::Delete => true,
        Operation::Update => is_known,
        Operation::Create | Operation::Read => false,
    };
    let valid: NullBuffer = events.operations.iter().map(has).collect::<Vec<bool>>().into();
    let fields = row_fields(encoder.columns());
    StructArray::try_new_with_length(fields, columns, Some(valid), events.len())
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(sepal_query::arrow_error)
}

fn hide(column: &ArrayRef, rows: &BooleanArray) -> Result<ArrayRef> {
    if *column.data_type() == DataType::Null {
        return Ok(Arc::clone(column));
    }
    nullif(column, rows).map_err(sepal_query::arrow_error)
}

/// The columns in the types that the schema names.
fn conformed(encoder: &Encoder, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    if rows.num_columns() != encoder.columns().len() {
        return Err(Error::bug("a pipeline's rows have other columns than its query"));
    }
    let fit = |(array, column): (&ArrayRef, &OutputColumn)| {
        let wanted = arrow_type(column);
        if *array.data_type() == wanted {
            return Ok(Arc::clone(array));
        }
        if matches!(column.ty, SqlType::Enum(_) | SqlType::SparseVec(_)) {
            return texts(array, &column.ty);
        }
        cast(array, &wanted).map_err(sepal_query::arrow_error)
    };
    rows.columns().iter().zip(encoder.columns()).map(fit).collect()
}

/// Values as they are printed.
fn texts(array: &ArrayRef, ty: &SqlType) -> Result<ArrayRef> {
    let encoder = ColumnEncoder::new(array.as_ref(), ty)?;
    let (mut texts, mut text) = (StringBuilder::new(), BytesMut::new());
    for row in 0..array.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.text(row, &mut text)?;
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}
