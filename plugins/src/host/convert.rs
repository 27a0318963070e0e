//! Between `call`'s types and the interface's: the same things under generated names.

use sepal_database::connector::{
    BadRow, BatchSchema, Delivered, Encoding, Envelope, Fault, FaultKind, Opened,
};

use super::bindings::{
    resolver::exports::sepal::plugin::resolver as guest_resolver,
    sink::{exports::sepal::plugin::sink as guest_sink, sepal::plugin::types},
};
use crate::call::{GuestBatch, OpenArgs, ResolverAnswer, ResolverRequest};

/// What a guest says goes into a view.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
const MAX_CODE_BYTES: usize = 64;
/// A destination's wish to be left alone for hours is not granted.
const MAX_RETRY_AFTER_MS: u32 = 300_000;

pub(super) fn open_args(args: OpenArgs) -> types::OpenArgs {
    types::OpenArgs {
        config_json: args.config_json,
        encoding: match args.encoding {
            Encoding::ArrowIpcStream => types::Encoding::ArrowIpcStream,
            Encoding::Ndjson => types::Encoding::Ndjson,
        },
        envelope: match args.envelope {
            Envelope::Append => types::Envelope::Append,
            Envelope::Upsert => types::Envelope::Upsert,
            Envelope::Debezium => types::Envelope::Debezium,
        },
        sink_id: args.sink_id,
        worker: args.worker,
        parallelism: args.parallelism,
        attributes: args.attributes,
    }
}

pub(super) fn schema(schema: BatchSchema) -> guest_sink::Schema {
    guest_sink::Schema { id: schema.id, payload: schema.payload, key_columns: schema.key_columns }
}

pub(super) fn batch(batch: GuestBatch) -> guest_sink::Batch {
    guest_sink::Batch {
        id: batch.id,
        schema_id: batch.schema_id,
        first: batch.first,
        last: batch.last,
        rows: batch.rows,
        attempt: batch.attempt,
        snapshot: batch.snapshot,
        attributes: batch.attributes,
        payload: batch.payload,
    }
}

pub(super) fn opened(opened: guest_sink::Opened) -> Opened {
    Opened { committed_through: opened.committed_through, max_writers: opened.max_writers }
}

pub(super) fn delivered(outcome: guest_sink::Outcome) -> Delivered {
    match outcome {
        guest_sink::Outcome::Durable(rows) => Delivered::Durable(rows.into_iter().map(bad_row).collect()),
        guest_sink::Outcome::Buffered => Delivered::Buffered,
        guest_sink::Outcome::RetryRows(rows) => Delivered::RetryRows(rows),
    }
}

fn bad_row(row: guest_sink::BadRow) -> BadRow {
    BadRow { index: row.index, code: row.code.map(code), message: clip(row.message, MAX_MESSAGE_BYTES) }
}

pub(super) fn fault(error: types::Error) -> Fault {
    let kind = match error.kind {
        types::ErrorKind::Transient => FaultKind::Transient,
        types::ErrorKind::NotConnected => FaultKind::NotConnected,
        types::ErrorKind::Unauthorized => FaultKind::Unauthorized,
        types::ErrorKind::Rejected => FaultKind::Rejected,
        types::ErrorKind::Misconfigured => FaultKind::Misconfigured,
        types::ErrorKind::Internal => FaultKind::Internal,
    };
    Fault {
        kind,
        code: error.code.map(code),
        message: clip(error.message, MAX_MESSAGE_BYTES),
        retry_after_ms: error.retry_after_ms.map(|milliseconds| milliseconds.min(MAX_RETRY_AFTER_MS)),
    }
}

pub(super) fn request(request: ResolverRequest) -> guest_resolver::Request {
    guest_resolver::Request {
        name: request.name,
        options_json: request.options_json,
        have_version: request.have_version,
    }
}

pub(super) fn answer(answer: guest_resolver::Answer) -> ResolverAnswer {
    match answer {
        guest_resolver::Answer::Value(value) => ResolverAnswer::Value {
            value: value.value,
            version: value.version,
            ttl_seconds: value.ttl_seconds,
            lease_id: value.lease_id,
        },
        guest_resolver::Answer::Unchanged => ResolverAnswer::Unchanged,
        guest_resolver::Answer::NotFound => ResolverAnswer::NotFound,
        guest_resolver::Answer::Failed(error) => ResolverAnswer::Failed(fault(error)),
    }
}

/// A code is a word: what is none becomes one.
fn code(code: String) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    code.chars().take(MAX_CODE_BYTES).map(plain).collect()
}

fn clip(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}
