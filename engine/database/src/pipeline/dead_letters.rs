//! Rows that the destination will not take, set aside so that the others can go on; and their way back.
//!
//! `deliver` writes them in the commit that acknowledges their batch. `sepal_dlq_replay` marks some to be sent again:
//! they travel in batches of their own, whose ids follow from the letters in them, and go in the commit that
//! acknowledges those.

use std::{collections::HashMap, sync::Arc};

use arrow::{datatypes::Schema, record_batch::RecordBatch};
use sepal_query::{
    output::{OutputColumn, typed_field},
    values::Builder,
};
use sepal_types::{Error, Result, SqlState, SqlType};

use super::{
    batch::{Batch, Maker, REPLAY, digest},
    encode::Encoder,
    event::{Events, Operation},
    pieces::{self, parse},
    position::Position,
    words,
};
use crate::{
    connector::Fault,
    delivery::{
        objects::PipelineDef,
        system_tables::{Cell, Rows},
    },
};

/// The columns of a row by name, as they were written: no digit is lost on the way.
type Row = HashMap<String, String>;

/// A row of `dead_letters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Microseconds since 1970 UTC.
    pub at: i64,
    pub code: Option<String>,
    pub message: String,
    /// [`Operation::letter`]
    pub op: String,
    /// Objects, as JSON.
    pub key: String,
    pub row: String,
    pub batch_id: String,
    pub position: String,
}

impl DeadLetter {
    /// Of one event of a batch.
    pub fn of(encoder: &Encoder, batch: &Batch, place: usize, fault: &Fault, at: i64) -> Result<Self> {
        let (key, row) = encoder.describe(&batch.events, place)?;
        Ok(Self {
            at,
            code: Some(words::code(fault)),
            message: words::shown(&fault.message),
            op: batch.events.operations[place].letter().to_owned(),
            key,
            row,
            batch_id: batch.bounds.id.clone(),
            position: batch.events.positions[place].to_string(),
        })
    }

    /// What it takes of the limit.
    pub fn bytes(&self) -> u64 {
        (self.message.len() + self.key.len() + self.row.len() + 128) as u64
    }

    pub fn read(rows: &Rows, row: usize) -> Option<Self> {
        Some(Self {
            at: rows.time("at", row).unwrap_or(0),
            code: rows.text("code", row).map(str::to_owned),
            message: rows.text("message", row).unwrap_or_default().to_owned(),
            op: rows.text("op", row)?.to_owned(),
            key: rows.text("key", row).unwrap_or_default().to_owned(),
            row: rows.text("row", row)?.to_owned(),
            batch_id: rows.text("batch_id", row).unwrap_or_default().to_owned(),
            position: rows.text("position", row)?.to_owned(),
        })
    }

    /// In the order of the table's columns. The id is given when it is inserted.
    pub fn cells(&self, def: &PipelineDef) -> Vec<Cell> {
        vec![
            Cell::Null,
            Cell::text(&def.id),
            Cell::text(&def.environment),
            Cell::Time(self.at),
            Cell::optional(self.code.as_ref()),
            Cell::text(&self.message),
            Cell::text(&self.op),
            Cell::text(&self.key),
            Cell::text(&self.row),
            Cell::text(&self.batch_id),
            Cell::text(&self.position),
            Cell::Flag(false),
        ]
    }
}

/// A batch of dead letters, in the order of their ids. The row before an update was not kept: it is null.
///
/// Errors: 22P02 and its like when the pipeline's columns are of other types by now.
pub fn batch(maker: &Maker, letters: &[(i64, DeadLetter)]) -> Result<Batch> {
    let Some((_, first)) = letters.first() else { return Err(Error::bug("a replay without letters")) };
    let mut operations = Vec::with_capacity(letters.len());
    let mut positions = Vec::with_capacity(letters.len());
    let mut rows = Vec::with_capacity(letters.len());
    for (id, letter) in letters {
        let damaged = || {
            Error::new(SqlState::DataCorrupted, format!("dead letter {id} cannot be read"))
                .with_hint("It was written by a newer version of Sepal, or is damaged.")
        };
        operations.push(Operation::from_letter(&letter.op).ok_or_else(damaged)?);
        positions.push(Position::parse(&letter.position)?);
        rows.push(pieces::members(&letter.row)?);
    }
    let rows = columns(maker.encoder.columns(), &rows)?;
    let events =
        Events { operations: operations.into(), positions: positions.into(), before: None, rows: Some(rows) };
    let mut batch = maker.close_all(events, first.at)?;
    let ids: Vec<u8> = letters.iter().flat_map(|(id, _)| id.to_be_bytes()).collect();
    let schema = &maker.encoder.schema().id;
    batch.is_replay = true;
    batch.bounds.id = format!("{REPLAY}{}", digest(&[maker.sink.as_bytes(), &ids, schema.as_bytes()]));
    Ok(batch)
}

fn columns(columns: &[OutputColumn], rows: &[Row]) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        let mut builder = Builder::new(&column.ty, rows.len());
        for row in rows {
            match row.get(&column.name).map(String::as_str) {
                None | Some("null") => builder.append_null(),
                Some(value) => builder.append_text(text_form(value, &column.ty)?.as_bytes())?,
            }
        }
        let array = builder.finish()?;
        fields.push(typed_field(&column.name, array.data_type().clone(), &column.ty));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(sepal_query::arrow_error)
}

/// A JSON value as Postgres would read it: the way back from `encode::value`.
fn text_form(value: &str, ty: &SqlType) -> Result<String> {
    match ty {
        SqlType::Json | SqlType::Jsonb => Ok(value.to_owned()),
        SqlType::Array(element) if value.starts_with('[') => {
            let elements: Vec<String> = pieces::elements(value)?
                .iter()
                .map(|value| match value.as_str() {
                    "null" => Ok("NULL".to_owned()),
                    value => Ok(quoted(&text_form(value, element)?)),
                })
                .collect::<Result<_>>()?;
            Ok(format!("{{{}}}", elements.join(",")))
        }
        _ if value.starts_with('"') => parse(value),
        // Numbers with their digits, `true`, and vectors, which read the same in both.
        _ => Ok(value.to_owned()),
    }
}

/// An element of an array literal.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    out
}
