//! Events as the bytes of a batch. The same events and the same time give the same bytes, always.
//!
//! Called by `batch`. An encoder is made once per run of a pipeline, from its columns, its key and its envelope.
//!
//! | envelope | `c`, `r` | `u` | `d` |
//! |---|---|---|---|
//! | append | the row | the row after | the row before |
//! | upsert | the row | the row after | the key |
//! | debezium | the row | the rows before and after | the row before |

mod arrow_stream;
mod ndjson;
mod value;

use std::sync::atomic::AtomicUsize;

use arrow::datatypes::DataType;
use bytes::Bytes;
use sepal_query::output::OutputColumn;
use sepal_types::{Result, SqlType};

use super::event::Events;
use crate::{
    connector::{BatchSchema, Encoding, Envelope},
    sealing::hex,
};

/// See the module.
#[derive(Debug)]
pub struct Encoder {
    encoding: Encoding,
    envelope: Envelope,
    columns: Vec<OutputColumn>,
    /// Positions among the columns.
    key: Vec<usize>,
    schema: BatchSchema,
    /// Of a row in the last batch of lines: how much the next one is to have room for.
    line_bytes: AtomicUsize,
}

/// A row's length before there was one.
const LINE_BYTES: usize = 256;

/// What [`Encoder::encode`] made.
#[derive(Debug)]
pub struct Encoded {
    pub payload: Bytes,
    /// How many of the events it holds, from the first on.
    pub rows: usize,
}

impl Encoder {
    pub fn new(
        encoding: Encoding,
        envelope: Envelope,
        columns: Vec<OutputColumn>,
        key: Vec<usize>,
    ) -> Result<Self> {
        let payload = match encoding {
            Encoding::ArrowIpcStream => arrow_stream::schema_message(&columns, envelope)?,
            Encoding::Ndjson => ndjson::schema(&columns, &key, envelope).into_bytes(),
        };
        let key_columns: Vec<String> = key.iter().map(|column| columns[*column].name.clone()).collect();
        let mut described = payload.clone();
        for part in [format!("{encoding:?}"), format!("{envelope:?}"), key_columns.join("\0")] {
            described.extend_from_slice(part.as_bytes());
            described.push(0);
        }
        let id = hex(&sepal_crypto::sha256(&described)[..8]);
        let schema = BatchSchema { id, payload, key_columns };
        Ok(Self { encoding, envelope, columns, key, schema, line_bytes: AtomicUsize::new(LINE_BYTES) })
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn schema(&self) -> &BatchSchema {
        &self.schema
    }

    /// As many of the events as fit into `limit` bytes, at least one. `at`: microseconds since 1970 UTC, the `ts` of
    /// each row.
    pub fn encode(&self, events: &Events, at: i64, limit: usize) -> Result<Encoded> {
        match self.encoding {
            Encoding::ArrowIpcStream => arrow_stream::encode(self, events, at, limit),
            Encoding::Ndjson => ndjson::encode(self, events, at, limit),
        }
    }

    /// Key and row of one event as JSON, for a dead letter.
    pub fn describe(&self, events: &Events, place: usize) -> Result<(String, String)> {
        ndjson::describe(self, events, place)
    }

    /// The columns with their types.
    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    pub fn key(&self) -> &[usize] {
        &self.key
    }
}

/// The Arrow type that a column has in batches. How a `sparsevec` or an enum is kept is no one's outside: they go as
/// their text.
fn arrow_type(column: &OutputColumn) -> DataType {
    match column.ty {
        SqlType::Enum(_) | SqlType::SparseVec(_) => DataType::Utf8,
        _ => sepal_storage::arrow_type(&column.ty),
    }
}
