//! Batches: events with their bytes and the id that both always have together.
//!
//! `producer` closes batches, `deliver` cuts them apart again when a destination refuses some of their rows.
//!
//! A batch is what its [`Bounds`] say: they are committed before the first attempt, and the events between two
//! positions are always the same, so a batch that is made again after a crash has the same bytes under the same id.

use bytes::Bytes;
use sepal_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{encode::Encoder, event::Events, position::Position};
use crate::{connector, sealing::hex};

/// What the ids of batches of dead letters begin with.
pub const REPLAY: &str = "dlq-";

/// What is noted of a batch before it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub id: String,
    pub first: Position,
    pub last: Position,
    pub rows: u32,
    /// When it was closed, in microseconds since 1970 UTC: the `ts` of its rows.
    pub ts: i64,
    pub schema_id: String,
}

/// Events on their way.
#[derive(Clone, Debug)]
pub struct Batch {
    pub bounds: Bounds,
    pub events: Events,
    pub payload: Bytes,
    /// Of dead letters: its positions are behind the pipeline's.
    pub is_replay: bool,
}

/// How a pipeline's batches are made.
#[derive(Debug)]
pub struct Maker {
    pub encoder: Encoder,
    /// The pipeline's id, which is the sink's too.
    pub sink: String,
    pub generation: u64,
    pub max_rows: usize,
    pub max_bytes: usize,
}

impl Maker {
    /// A batch of as many of the events as its limits allow, and the events that are left over. The events are
    /// consecutive ones of the stream.
    pub fn close(&self, events: Events, ts: i64) -> Result<(Batch, Events)> {
        let encoded = self.encoder.encode(&events, ts, self.max_bytes)?;
        let rest = events.slice(encoded.rows, events.len() - encoded.rows);
        let events = events.slice(0, encoded.rows);
        let batch = self.name(events, encoded.payload, ts, &[])?;
        Ok((batch, rest))
    }

    /// All of the events as a batch, however large: one whose bounds are known, or a part of one.
    pub fn close_all(&self, events: Events, ts: i64) -> Result<Batch> {
        let encoded = self.encoder.encode(&events, ts, usize::MAX)?;
        self.name(events, encoded.payload, ts, &[])
    }

    /// Some events of a batch: not all that are between the first and the last.
    pub fn pick(&self, batch: &Batch, places: &[u32]) -> Result<Batch> {
        let events = batch.events.select(places)?;
        let positions: Vec<u8> =
            events.positions.iter().flat_map(|position| position.to_string().into_bytes()).collect();
        self.part(batch, events, &positions)
    }

    /// The two halves of a batch of several events.
    pub fn halves(&self, batch: &Batch) -> Result<[Batch; 2]> {
        let middle = batch.events.len() / 2;
        let first = self.part(batch, batch.events.slice(0, middle), &[])?;
        let second = self.part(batch, batch.events.slice(middle, batch.events.len() - middle), &[])?;
        Ok([first, second])
    }

    fn part(&self, whole: &Batch, events: Events, places: &[u8]) -> Result<Batch> {
        let encoded = self.encoder.encode(&events, whole.bounds.ts, usize::MAX)?;
        if !whole.is_replay {
            return self.name(events, encoded.payload, whole.bounds.ts, places);
        }
        // The same rows were in other batches before, with other bytes.
        let more = [whole.bounds.id.as_bytes(), places].concat();
        let mut part = self.name(events, encoded.payload, whole.bounds.ts, &more)?;
        part.bounds.id = format!("{REPLAY}{}", part.bounds.id);
        part.is_replay = true;
        Ok(part)
    }

    fn name(&self, events: Events, payload: Bytes, ts: i64, more: &[u8]) -> Result<Batch> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(Error::bug("a batch without events"));
        };
        let schema_id = self.encoder.schema().id.clone();
        let (first_text, last_text) = (first.to_string(), last.to_string());
        let id = digest(&[
            self.sink.as_bytes(),
            &self.generation.to_be_bytes(),
            first_text.as_bytes(),
            last_text.as_bytes(),
            schema_id.as_bytes(),
            format!("{:?}", self.encoder.encoding()).as_bytes(),
            more,
        ]);
        let rows = u32::try_from(events.len()).map_err(|_| Error::bug("a batch has too many events"))?;
        Ok(Batch {
            bounds: Bounds { id, first, last, rows, ts, schema_id },
            events,
            payload,
            is_replay: false,
        })
    }
}

impl Batch {
    /// As the sink gets it.
    pub fn attempt(&self, number: u32) -> connector::Batch {
        connector::Batch {
            id: self.bounds.id.clone(),
            schema_id: self.bounds.schema_id.clone(),
            first: self.bounds.first.to_string(),
            last: self.bounds.last.to_string(),
            rows: self.bounds.rows,
            attempt: number,
            snapshot: self.events.is_snapshot(),
            payload: self.payload.clone(),
        }
    }
}

/// SHA-256 of the parts, each with its length before it.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut message = Vec::new();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    hex(&sepal_crypto::sha256(&message))
}
