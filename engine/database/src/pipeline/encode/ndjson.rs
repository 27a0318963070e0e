//! One JSON object per line.
//!
//! ```text
//! {"op":"u","key":{"id":1},"after":{"id":1,"label":"a"},"before":{…},"pos":"…","ts":"2026-01-02T03:04:05Z"}
//! ```
//! `after` is null for a deletion. `before` is there in the debezium envelope, and for a deletion in append.

use arrow::{
    array::{ArrayRef, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use bytes::BytesMut;
use sepal_query::output::OutputColumn;
use sepal_types::{Error, Result, SqlType};
use serde_json::{Map, Value, json};

use super::{
    Encoded, Encoder,
    value::{JsonColumn, write_string},
};
use crate::{
    connector::Envelope,
    pipeline::event::{Events, Operation},
};
use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
};

/// Most bytes that are asked for before there are any: the next batch's rows may be much shorter.
const MAX_EXPECTED_BYTES: usize = 16 << 20;

pub fn encode(encoder: &Encoder, events: &Events, at: i64, limit: usize) -> Result<Encoded> {
    let Some(writer) = Writer::new(encoder, events)? else {
        return Ok(Encoded { payload: BytesMut::new().freeze(), rows: 0 });
    };
    let time = timestamp(at)?;
    // A line as long as those of the batch before and an eighth more: growing from a guess copies a payload over and
    // over. One line beyond the limit is written before it is taken back.
    let line = encoder.line_bytes.load(Ordering::Relaxed);
    let line = line.saturating_add(line / 8);
    let expected = events.len().saturating_mul(line).min(limit.saturating_add(line)).min(MAX_EXPECTED_BYTES);
    let mut out = BytesMut::with_capacity(expected);
    let mut rows = events.len();
    for place in 0..events.len() {
        let begin = out.len();
        writer.line(place, &time, &mut out)?;
        if out.len() > limit && place > 0 {
            out.truncate(begin);
            rows = place;
            break;
        }
    }
    encoder.line_bytes.store(out.len().div_ceil(rows.max(1)), Ordering::Relaxed);
    Ok(Encoded { payload: out.freeze(), rows })
}

/// Key and row of one event, each an object.
pub fn describe(encoder: &Encoder, events: &Events, place: usize) -> Result<(String, String)> {
    let Some(rows) = &events.rows else { return Err(Error::bug("an event has no row")) };
    let rows = Object::new(&rows.slice(place, 1), encoder.columns())?;
    let (mut key, mut row) = (BytesMut::new(), BytesMut::new());
    rows.write(0, Some(encoder.key()), &mut key)?;
    rows.write(0, None, &mut row)?;
    Ok((text(&key)?, text(&row)?))
}

/// The rows' JSON Schema.
pub fn schema(columns: &[OutputColumn], key: &[usize], envelope: Envelope) -> String {
    let members = |places: &mut dyn Iterator<Item = usize>| {
        let members: Map<String, Value> =
            places.map(|place| (columns[place].name.clone(), value_schema(&columns[place].ty))).collect();
        members
    };
    let row = json!({ "type": ["object", "null"], "properties": members(&mut (0..columns.len())) });
    let mut properties = Map::new();
    properties.insert("op".to_owned(), json!({ "enum": ["c", "d", "r", "u"] }));
    properties.insert(
        "key".to_owned(),
        json!({ "type": "object", "properties": members(&mut key.iter().copied()) }),
    );
    properties.insert("after".to_owned(), row.clone());
    if envelope != Envelope::Upsert {
        properties.insert("before".to_owned(), row);
    }
    properties.insert("pos".to_owned(), json!({ "type": "string" }));
    properties.insert("ts".to_owned(), json!({ "type": "string", "format": "date-time" }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": ["op", "key", "after", "pos", "ts"],
    })
    .to_string()
}

fn value_schema(ty: &SqlType) -> Value {
    match ty {
        SqlType::Array(element) => json!({ "type": ["array", "null"], "items": value_schema(element) }),
        SqlType::Bool => json!({ "type": ["boolean", "null"] }),
        SqlType::Date => json!({ "type": ["string", "null"], "format": "date" }),
        SqlType::Float4 | SqlType::Float8 => json!({ "type": ["number", "string", "null"] }),
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Oid => {
            json!({ "type": ["integer", "null"] })
        }
        // Any value.
        SqlType::Json | SqlType::Jsonb => json!({}),
        SqlType::Timestamptz => json!({ "type": ["string", "null"], "format": "date-time" }),
        SqlType::Uuid => json!({ "type": ["string", "null"], "format": "uuid" }),
        SqlType::HalfVec(dimensions) | SqlType::Vector(dimensions) => {
            let mut schema = json!({ "type": ["array", "null"], "items": { "type": "number" } });
            if let (Some(dimensions), Some(members)) = (dimensions, schema.as_object_mut()) {
                members.insert("minItems".to_owned(), json!(dimensions));
                members.insert("maxItems".to_owned(), json!(dimensions));
            }
            schema
        }
        _ => json!({ "type": ["string", "null"] }),
    }
}

/// Writes lines of one block of events.
struct Writer<'a> {
    envelope: Envelope,
    key: &'a [usize],
    events: &'a Events,
    rows: Object,
    before: Option<Object>,
}

impl<'a> Writer<'a> {
    fn new(encoder: &'a Encoder, events: &'a Events) -> Result<Option<Self>> {
        let Some(rows) = &events.rows else { return Ok(None) };
        let before = events.before.as_ref().map(|rows| Object::new(rows, encoder.columns())).transpose()?;
        Ok(Some(Self {
            envelope: encoder.envelope,
            key: encoder.key(),
            events,
            rows: Object::new(rows, encoder.columns())?,
            before,
        }))
    }

    fn line(&self, place: usize, time: &str, out: &mut BytesMut) -> Result<()> {
        let operation = self.events.operations[place];
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(operation.letter().as_bytes());
        out.extend_from_slice(b"\",\"key\":");
        self.rows.write(place, Some(self.key), out)?;
        out.extend_from_slice(b",\"after\":");
        match operation {
            Operation::Delete => out.extend_from_slice(b"null"),
            _ => self.rows.write(place, None, out)?,
        }
        self.write_before(place, operation, out)?;
        write!(out, ",\"pos\":\"{}\",\"ts\":{time}}}", self.events.positions[place])
            .map_err(|_| Error::bug("a row does not fit into memory"))?;
        out.extend_from_slice(b"\n");
        Ok(())
    }

    fn write_before(&self, place: usize, operation: Operation, out: &mut BytesMut) -> Result<()> {
        let row = match (self.envelope, operation) {
            (Envelope::Append | Envelope::Debezium, Operation::Delete) => Some(&self.rows),
            (Envelope::Debezium, Operation::Update) => self.before.as_ref(),
            (Envelope::Debezium, _) => None,
            (Envelope::Append | Envelope::Upsert, _) => return Ok(()),
        };
        out.extend_from_slice(b",\"before\":");
        match row {
            Some(row) => row.write(place, None, out),
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }
}

/// Columns with their names as JSON strings.
struct Object(Vec<(Vec<u8>, JsonColumn)>);

impl Object {
    fn new(rows: &RecordBatch, columns: &[OutputColumn]) -> Result<Self> {
        if rows.num_columns() != columns.len() {
            return Err(Error::bug("a pipeline's rows have other columns than its query"));
        }
        let member = |(array, column): (&ArrayRef, &OutputColumn)| {
            let mut name = BytesMut::new();
            write_string(&column.name, &mut name);
            name.extend_from_slice(b":");
            Ok((name.to_vec(), JsonColumn::new(array, &column.ty)?))
        };
        rows.columns().iter().zip(columns).map(member).collect::<Result<_>>().map(Self)
    }

    /// All columns of a row, or some of them.
    fn write(&self, row: usize, only: Option<&[usize]>, out: &mut BytesMut) -> Result<()> {
        let mut separator = b'{';
        let mut member = |(name, column): &(Vec<u8>, JsonColumn)| {
            out.extend_from_slice(&[separator]);
            separator = b',';
            out.extend_from_slice(name);
            column.write(row, out)
        };
        match only {
            Some(places) => places.iter().try_for_each(|place| member(&self.0[*place]))?,
            None => self.0.iter().try_for_each(&mut member)?,
        }
        if separator == b'{' {
            out.extend_from_slice(b"{");
        }
        out.extend_from_slice(b"}");
        Ok(())
    }
}

/// An instant as a JSON string.
fn timestamp(at: i64) -> Result<String> {
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![at]).with_timezone("UTC"));
    let mut out = BytesMut::new();
    JsonColumn::new(&array, &SqlType::Timestamptz)?.write(0, &mut out)?;
    text(&out)
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::bug("a row's JSON is not UTF-8"))
}
