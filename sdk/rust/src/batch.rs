//! Rows on their way, as `write` is given them.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, bindings::sink::exports::sepal::plugin::sink as wit, time::Civil};

/// A batch. On every retry the same bytes come with the same `id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// An idempotency key.
    pub id: String,
    pub schema_id: String,
    /// Positions in the stream: equal or not, nothing else.
    pub first: String,
    pub last: String,
    pub row_count: u32,
    /// From 1.
    pub attempt: u32,
    /// Rows that were there when the pipeline was made, not changes.
    pub snapshot: bool,
    pub attributes: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Batch {
    /// For tests of a plugin's own logic: one line of JSON a row.
    pub fn of_ndjson(id: &str, ndjson: &str) -> Self {
        let rows = ndjson.lines().filter(|line| !line.is_empty()).count();
        Self {
            id: id.to_owned(),
            row_count: u32::try_from(rows).unwrap_or(u32::MAX),
            attempt: 1,
            payload: ndjson.as_bytes().to_vec(),
            ..Self::default()
        }
    }

    /// The bytes in the encoding that the manifest names: NDJSON, or an Arrow IPC stream.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The lines of an NDJSON batch; their order is that of `BadRow::index` and `Outcome::RetryRows`.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }

    /// The rows of an NDJSON batch. `T` is what one row of the pipeline's query looks like;
    /// `serde_json::Map<String, Value>` takes any, and rounds numbers of documents that have more digits than an f64
    /// unless the plugin's own Cargo.toml asks for serde_json's feature `arbitrary_precision`.
    ///
    /// Errors: rejected, with code `row.decode`, when a row is not like `T`.
    pub fn rows<T: DeserializeOwned>(&self) -> impl Iterator<Item = Result<Row<T>, Error>> {
        self.lines().enumerate().map(|(index, line)| {
            serde_json::from_slice(line)
                .map_err(|error| Error::rejected(format!("row {index}: {error}")).code("row.decode"))
        })
    }
}

impl From<wit::Batch> for Batch {
    fn from(batch: wit::Batch) -> Self {
        Self {
            id: batch.id,
            schema_id: batch.schema_id,
            first: batch.first,
            last: batch.last,
            row_count: batch.rows,
            attempt: batch.attempt,
            snapshot: batch.snapshot,
            attributes: batch.attributes,
            payload: batch.payload,
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Row<T> {
    pub op: Op,
    /// The key columns by name; `Null` for a pipeline without a key.
    #[serde(default)]
    pub key: Value,
    /// The row after the change; none for a deletion.
    pub after: Option<T>,
    /// The row before it, where the envelope carries that.
    pub before: Option<T>,
    /// Its position in the stream.
    pub pos: Option<String>,
    #[serde(default)]
    ts: Value,
}

impl<T> Row<T> {
    /// When the batch was closed, as it writes it: RFC 3339. The same whenever it comes again.
    pub fn time(&self) -> &Value {
        &self.ts
    }

    /// The same in nanoseconds since 1970, if the batch says.
    pub fn unix_nanos(&self) -> Option<i64> {
        unix_nanos(&self.ts)
    }
}

/// A time as the rows write it: RFC 3339 or Postgres' text.
pub fn unix_nanos(time: &Value) -> Option<i64> {
    let (seconds, nanos) = Civil::of_rfc3339(time.as_str()?)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(nanos))
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Op {
    /// Also the rows of a snapshot.
    #[serde(rename = "i", alias = "c", alias = "r")]
    Insert,
    #[serde(rename = "u")]
    Update,
    #[serde(rename = "d")]
    Delete,
}
