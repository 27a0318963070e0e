//! The trait a sink fills, and what it is given and answers. `glue` calls it.

use serde::de::DeserializeOwned;

use crate::{
    Batch, Encoding, Envelope, Error,
    bindings::sink::{exports::sepal::plugin::sink as wit, sepal::plugin::types::OpenArgs},
};

/// A destination.
pub trait Sink: Sized + 'static {
    /// The options of CREATE SINK, checked against the plugin's JSON Schema; a secret is a
    /// [`SecretSlot`](crate::SecretSlot).
    type Config: DeserializeOwned;

    /// Before the first batch. A stateless sink is opened for every batch: do not reach out here.
    fn open(config: Self::Config, context: &Context) -> Result<Self, Error>;

    /// Takes the batch where it belongs. `Ok` is a promise: the rows are durable at the destination.
    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error>;

    /// At CREATE SINK: reach the destination the way `write` does, without leaving anything there.
    fn check(config: Self::Config, context: &Context) -> Result<(), Error> {
        Self::open(config, context).map(drop)
    }

    /// What the destination knows; asked once after `open`.
    fn opened(&mut self) -> Result<Opened, Error> {
        Ok(Opened::default())
    }

    /// The columns of the batches that follow.
    fn set_schema(&mut self, _schema: &Schema) -> Result<(), Error> {
        Ok(())
    }

    /// Makes what was [`Outcome::Buffered`] durable and answers the last durable position.
    fn flush(&mut self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn close(&mut self) {}
}

/// What a sink is opened with, apart from its options.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    pub encoding: Encoding,
    pub envelope: Envelope,
    /// Opaque, stable for the life of the pipeline.
    pub sink_id: String,
    /// This writer among `parallelism` writers, from 0.
    pub worker: u32,
    pub parallelism: u32,
    pub attributes: Vec<(String, String)>,
}

impl Context {
    /// Also gives the configuration's text.
    pub(crate) fn of(args: OpenArgs) -> (Self, String) {
        let context = Self {
            encoding: args.encoding,
            envelope: args.envelope,
            sink_id: args.sink_id,
            worker: args.worker,
            parallelism: args.parallelism,
            attributes: args.attributes,
        };
        (context, args.config_json)
    }
}

/// What `open` found at the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Position that is durable there already: the host goes on after it.
    pub committed_through: Option<String>,
    pub max_writers: Option<u32>,
}

/// The columns of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub id: String,
    /// JSON Schema text, or an Arrow IPC schema message.
    pub payload: Vec<u8>,
    pub key_columns: Vec<String>,
}

impl From<wit::Schema> for Schema {
    fn from(schema: wit::Schema) -> Self {
        Self { id: schema.id, payload: schema.payload, key_columns: schema.key_columns }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All rows are durable apart from these, which the host puts among the dead letters.
    Durable(Vec<BadRow>),
    /// Held until `flush`; only for plugins with `lifecycle = "session"`.
    Buffered,
    /// The rows not listed are durable; the host sends these again. A row that is listed nowhere counts as durable, so
    /// bad rows belong into the list too as long as there is something to retry.
    RetryRows(Vec<u32>),
}

impl Outcome {
    /// All of it is durable.
    pub const fn delivered() -> Self {
        Self::Durable(Vec::new())
    }
}

/// A row that the destination will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Within the batch, from 0.
    pub index: u32,
    pub code: Option<String>,
    pub message: String,
}

impl From<Outcome> for wit::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Durable(bad) => {
                let bad = bad.into_iter().map(|BadRow { index, code, message }| wit::BadRow {
                    index,
                    code,
                    message,
                });
                Self::Durable(bad.collect())
            }
            Outcome::Buffered => Self::Buffered,
            Outcome::RetryRows(rows) => Self::RetryRows(rows),
        }
    }
}

impl From<Opened> for wit::Opened {
    fn from(Opened { committed_through, max_writers }: Opened) -> Self {
        Self { committed_through, max_writers }
    }
}
