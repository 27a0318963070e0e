//! A value of a catalog row or of a catalog expression, and its Arrow form.
//!
//! Made by `relations`, read by `functions` and `evaluator`. A value has no type of its own: the column or
//! expression it belongs to has one. Regclass and its kin are kept as oids and turned into names only when
//! they leave. Nothing here reads the catalog.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    ListArray, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use bytes::BytesMut;
use sepal_storage::arrow_type;
use sepal_types::{Error, Result, SqlType, format_float8};

use crate::values::encode_text;

/// A catalog value. `Int` serves every integer and every oid, `Text` everything that is written as text.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// Microseconds since 1970-01-01 UTC.
    Time(i64),
    List(Arc<[Value]>),
    /// The fields of a row-returning function's row.
    Record(Arc<[Value]>),
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(Arc::from(text.as_ref()))
    }

    pub fn list(values: impl IntoIterator<Item = impl Into<Value>>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }

    pub const fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The whole number, also one written as text.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Float(value) => Some(value.round() as i64),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Int(value) => Some(*value as f64),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "t" | "true" | "yes" | "on" | "1" | "y" => Some(true),
                "f" | "false" | "no" | "off" | "0" | "n" => Some(false),
                _ => None,
            },
            Value::Int(value) => Some(*value != 0),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) => Some(values),
            _ => None,
        }
    }

    /// What a cast to text gives. NULL is the empty string: callers look for NULL first.
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => {
                let mut text = String::new();
                format_float8(*value, &mut text);
                text
            }
            Value::Text(text) => text.to_string(),
            Value::Time(micros) => format_time(*micros),
            Value::List(values) => format_list(values),
            Value::Record(values) => {
                let fields: Vec<String> = values.iter().map(Value::to_text).collect();
                format!("({})", fields.join(","))
            }
        }
    }

    /// Sort order of two values of one type that are not NULL.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::Int(left), Value::Int(right)) | (Value::Time(left), Value::Time(right)) => {
                left.cmp(right)
            }
            (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Value::List(left), Value::List(right)) | (Value::Record(left), Value::Record(right)) => {
                for (left, right) in left.iter().zip(right.iter()) {
                    let order = left.order_with_nulls(right);
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                left.len().cmp(&right.len())
            }
            _ => match (self.as_float(), other.as_float()) {
                (Some(left), Some(right)) => left.total_cmp(&right),
                _ => self.to_text().cmp(&other.to_text()),
            },
        }
    }

    /// As [`Value::order`], NULL after everything else.
    pub fn order_with_nulls(&self, other: &Value) -> Ordering {
        match (self.is_null(), other.is_null()) {
            (false, false) => self.order(other),
            (left, right) => left.cmp(&right),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Null, _) | (_, Value::Null) => false,
            _ => self.order(other) == Ordering::Equal,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => 0u8.hash(state),
            Value::Bool(value) => value.hash(state),
            // Equal numbers hash alike whether they are whole or not.
            Value::Int(_) | Value::Float(_) => self.as_float().unwrap_or_default().to_bits().hash(state),
            Value::Text(text) => text.as_bytes().hash(state),
            Value::Time(micros) => micros.hash(state),
            Value::List(values) | Value::Record(values) => values.iter().for_each(|value| value.hash(state)),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

macro_rules! from_integer {
    ($($ty:ty),+) => { $(impl From<$ty> for Value {
        fn from(value: $ty) -> Self {
            Value::Int(i64::from(value))
        }
    })+ };
}
from_integer!(i16, i32, i64, u16, u32);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::text(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Value::text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// The output form of an array: `{a,"b c",NULL}`.
fn format_list(values: &[Value]) -> String {
    let items: Vec<String> = values
        .iter()
        .map(|value| match value {
            Value::Null => "NULL".to_owned(),
            Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
            Value::List(_) => value.to_text(),
            _ => quote_element(&value.to_text()),
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

fn quote_element(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| matches!(c, '{' | '}' | '"' | ',' | '\\') || c.is_ascii_whitespace());
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// The elements of an array's text form, `None` for NULL; `None` overall when it is not one. Nested arrays
/// are not read: the catalogs have none.
pub(crate) fn parse_list(text: &str) -> Option<Vec<Option<String>>> {
    let inside: Vec<char> = text.trim().strip_prefix('{')?.strip_suffix('}')?.chars().collect();
    let mut items = Vec::new();
    if inside.iter().all(|c| c.is_ascii_whitespace()) {
        return Some(items);
    }
    let mut at = 0;
    loop {
        while inside.get(at).is_some_and(char::is_ascii_whitespace) {
            at += 1;
        }
        let quoted = inside.get(at) == Some(&'"');
        let mut item = String::new();
        if quoted {
            at += 1;
        }
        loop {
            match inside.get(at) {
                None if quoted => return None,
                None => break,
                Some('"') if quoted => {
                    at += 1;
                    break;
                }
                Some(',') if !quoted => break,
                Some('\\') => {
                    item.push(*inside.get(at + 1)?);
                    at += 2;
                }
                Some(c) => {
                    item.push(*c);
                    at += 1;
                }
            }
        }
        let null = !quoted && item.trim_end().eq_ignore_ascii_case("null");
        items.push(if null {
            None
        } else if quoted {
            Some(item)
        } else {
            Some(item.trim_end().to_owned())
        });
        match inside.get(at) {
            None => return Some(items),
            Some(',') => at += 1,
            Some(_) => return None,
        }
    }
}

/// `2026-11-22 04:00:00.25+00`: as a `timestamptz` prints.
fn format_time(micros: i64) -> String {
    let instant = TimestampMicrosecondArray::from_value(micros, 1).with_timezone("UTC");
    let mut out = BytesMut::new();
    match encode_text(&instant, 0, &SqlType::Timestamptz, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => micros.to_string(),
    }
}

/// The field of a column with this type. The metadata names the type: many share an Arrow type.
pub(crate) fn field(name: &str, ty: &SqlType) -> Field {
    Field::new(name, arrow_type(ty), true)
        .with_metadata([("sepal.type".to_owned(), ty.marker())].into_iter().collect())
}

/// One column of values as the Arrow array of `arrow_type(ty)`. Values must be in their final form: names
/// instead of oids for regclass and its kin.
pub(crate) fn column(ty: &SqlType, values: &[Value]) -> Result<ArrayRef> {
    let ints = || values.iter().map(Value::as_int);
    let array: ArrayRef = match ty {
        SqlType::Bool => Arc::new(values.iter().map(Value::as_bool).collect::<BooleanArray>()),
        SqlType::Int2 => {
            Arc::new(ints().map(|value| value.and_then(|v| i16::try_from(v).ok())).collect::<Int16Array>())
        }
        SqlType::Int4 => {
            Arc::new(ints().map(|value| value.and_then(|v| i32::try_from(v).ok())).collect::<Int32Array>())
        }
        SqlType::Int8 | SqlType::Oid => Arc::new(ints().collect::<Int64Array>()),
        SqlType::Float4 => {
            Arc::new(values.iter().map(|value| value.as_float().map(|v| v as f32)).collect::<Float32Array>())
        }
        SqlType::Float8 => Arc::new(values.iter().map(Value::as_float).collect::<Float64Array>()),
        SqlType::Timestamptz => Arc::new(times(values).with_timezone("UTC")),
        SqlType::Timestamp => Arc::new(times(values)),
        SqlType::Int2Vector | SqlType::OidVector => {
            Arc::new(values.iter().map(space_separated).collect::<StringArray>())
        }
        SqlType::Numeric(_) => decimals(ty, values)?,
        SqlType::Array(element) => lists(element, values)?,
        _ if arrow_type(ty) == DataType::Utf8 => {
            Arc::new(values.iter().map(|v| (!v.is_null()).then(|| v.to_text())).collect::<StringArray>())
        }
        _ if values.iter().all(Value::is_null) => new_null_array(&arrow_type(ty), values.len()),
        _ => {
            return Err(Error::unsupported(format!(
                "a catalog query cannot return values of type {}. Cast the column to text",
                ty.display_name()
            )));
        }
    };
    Ok(array)
}

fn times(values: &[Value]) -> TimestampMicrosecondArray {
    values.iter().map(|value| if let Value::Time(micros) = value { Some(*micros) } else { None }).collect()
}

fn space_separated(value: &Value) -> Option<String> {
    let items: Vec<String> = value.as_list()?.iter().map(Value::to_text).collect();
    Some(items.join(" "))
}

fn decimals(ty: &SqlType, values: &[Value]) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, scale) = arrow_type(ty) else {
        return Err(Error::bug("numeric is not stored as Decimal128"));
    };
    let factor = 10f64.powi(i32::from(scale));
    let numbers = values.iter().map(|value| value.as_float().map(|number| (number * factor).round() as i128));
    let array = numbers.collect::<Decimal128Array>().with_precision_and_scale(precision, scale);
    Ok(Arc::new(array.map_err(|error| Error::bug(format!("numeric column: {error}")))?))
}

fn lists(element: &SqlType, values: &[Value]) -> Result<ArrayRef> {
    let mut items = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        let list = value.as_list().unwrap_or_default();
        items.extend_from_slice(list);
        lengths.push(list.len());
    }
    let field = Arc::new(Field::new("item", arrow_type(element), true));
    let nulls = NullBuffer::from_iter(values.iter().map(|value| value.as_list().is_some()));
    let array =
        ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), column(element, &items)?, Some(nulls));
    Ok(Arc::new(array.map_err(|error| Error::bug(format!("array column: {error}")))?))
}
