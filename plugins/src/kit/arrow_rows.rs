//! Sample rows as an Arrow IPC stream, the other encoding of batches: `__op`, `__pos`, `__ts`, then the columns.
//!
//! A column has the type that the shape's value has: text, number, flag, or a list of numbers as long as that one.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{Field, Float32Type, Schema},
    ipc::writer::StreamWriter,
};
use serde_json::Value;

use super::rows::{Change, Form};

/// 2026-01-02T03:04:05Z in microseconds since 1970.
const TIME_US: i64 = 1_767_323_045_000_000;
static NULL: Value = Value::Null;
const WRITES: &str = "Arrow writes what it made itself";

pub(super) fn payload(form: &Form, changes: &[Change]) -> Vec<u8> {
    let arrays = arrays(form, changes);
    let schema = Arc::new(schema_of(&arrays));
    let columns = arrays.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect(WRITES);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).expect(WRITES);
    writer.write(&batch).expect(WRITES);
    writer.into_inner().expect(WRITES)
}

/// The stream's first message.
pub(super) fn schema_message(form: &Form, changes: &[Change]) -> Vec<u8> {
    let writer = StreamWriter::try_new(Vec::new(), &schema_of(&arrays(form, changes))).expect(WRITES);
    writer.get_ref().clone()
}

fn schema_of(arrays: &[(String, ArrayRef)]) -> Schema {
    let field = |(name, array): &(String, ArrayRef)| {
        Field::new(name, array.data_type().clone(), !name.starts_with("__"))
    };
    Schema::new(arrays.iter().map(field).collect::<Vec<Field>>())
}

fn arrays(form: &Form, changes: &[Change]) -> Vec<(String, ArrayRef)> {
    let ops = StringArray::from_iter_values(changes.iter().map(|change| change.op.letter()));
    let positions = StringArray::from_iter_values(changes.iter().map(|change| change.position.as_str()));
    let times = TimestampMicrosecondArray::from(vec![TIME_US; changes.len()]).with_timezone("UTC");
    let mut arrays: Vec<(String, ArrayRef)> = vec![
        ("__op".to_owned(), Arc::new(ops)),
        ("__pos".to_owned(), Arc::new(positions)),
        ("__ts".to_owned(), Arc::new(times)),
    ];
    for name in form.columns(changes) {
        let values = changes.iter().map(|change| change.row.get(name).unwrap_or(&NULL));
        arrays.push((name.to_owned(), column(form.shape.columns.get(name), values)));
    }
    arrays
}

fn column<'a>(like: Option<&Value>, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    match like {
        Some(Value::Number(number)) if number.is_i64() => {
            Arc::new(values.map(Value::as_i64).collect::<Int64Array>())
        }
        Some(Value::Number(_)) => Arc::new(values.map(number).collect::<Float64Array>()),
        Some(Value::Bool(_)) => Arc::new(values.map(Value::as_bool).collect::<BooleanArray>()),
        Some(Value::Array(items)) => {
            let dimensions = items.len();
            let vectors = values.map(|value| vector(value, dimensions));
            let length = i32::try_from(dimensions).unwrap_or(i32::MAX);
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, length))
        }
        _ => {
            let text = |value: &Value| match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            Arc::new(values.map(text).collect::<StringArray>())
        }
    }
}

/// NaN and the infinities are words in JSON.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Exactly as many numbers as the column's type has.
fn vector(value: &Value, dimensions: usize) -> Option<Vec<Option<f32>>> {
    let mut numbers: Vec<Option<f32>> =
        value.as_array()?.iter().map(|item| item.as_f64().map(|item| item as f32)).collect();
    numbers.resize(dimensions, Some(0.0));
    Some(numbers)
}
