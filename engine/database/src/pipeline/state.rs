//! What a pipeline remembers: its row of `pipeline_state`, as JSON whose fields are only ever added.
//!
//! `deliver` changes it, `journal` writes it in one commit with everything that belongs to the change.

use std::collections::VecDeque;

use sepal_types::Lsn;
use serde::{Deserialize, Serialize};

use super::{batch::Bounds, position::Position};
use crate::delivery::objects::PipelineDef;

/// Progress of one generation of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PipelineState {
    /// Of the definition that this belongs to; RESET makes another one.
    pub generation: u64,
    /// The commit as of which the snapshot is, or after which the feed begins. `None`: not begun.
    pub start: Option<Lsn>,
    /// Whether the commit that made the pipeline is still to be found after `start`.
    pub seeks_creation: bool,
    /// Everything up to here is durable at the destination, or a dead letter.
    pub position: Option<Position>,
    /// Batches that were begun and are not durable, oldest first.
    pub open: VecDeque<Bounds>,
    /// No batch of this generation that was ever begun ends behind this. `None`: not known, or none was.
    pub sent_through: Option<Position>,
    /// The last RESUME FROM that was obeyed.
    pub resumed_from: u64,
    /// Why it stopped by itself.
    pub halt: Option<Halt>,
    /// Of the oldest open batch.
    pub attempts: u32,
    pub last_error: Option<String>,
    pub last_error_code: Option<String>,
    pub rows_delivered: u64,
    pub batches_delivered: u64,
    /// Dead letters that it wrote, ever.
    pub rows_dead: u64,
    /// Dead letters that are there now, and their bytes.
    pub dead_letters: u64,
    pub dead_bytes: u64,
    /// Microseconds since 1970 UTC.
    pub updated_at: i64,
}

/// A stop that a person has to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// The log that it needs is gone: only RESET helps.
    #[serde(default)]
    pub lost: bool,
    /// [`PipelineDef::resumed`] at that time: a greater one ends the halt.
    pub resumed: u64,
    /// What the definition and its sink were: other ones end the halt too.
    #[serde(default)]
    pub revision: String,
    pub at: i64,
}

impl PipelineState {
    /// Of a pipeline that has not begun.
    pub fn new(def: &PipelineDef) -> Self {
        Self { generation: def.generation, ..Self::default() }
    }

    /// Of the text in the table. `None` for what cannot be read. Of another generation nothing counts but the dead
    /// letters, which are still there.
    pub fn read(text: &str, def: &PipelineDef) -> Option<Self> {
        let state: Self = serde_json::from_str(text).ok()?;
        if state.generation == def.generation {
            return Some(state);
        }
        let Self { dead_letters, dead_bytes, .. } = state;
        Some(Self { dead_letters, dead_bytes, ..Self::new(def) })
    }

    /// The last commit of which nothing is needed any more: the log is kept from there on. `None`: not begun.
    pub fn released(&self) -> Option<Lsn> {
        self.position.map(|position| position.released()).or(self.start)
    }

    /// Whether the rows of the table at its beginning are still on their way.
    pub fn in_snapshot(&self, def: &PipelineDef) -> bool {
        match self.position {
            None => def.snapshot,
            Some(position) => matches!(position, Position::Snapshot { .. }),
        }
    }

    /// Whether a position is one of this generation: a destination may still have one of an older.
    pub fn is_since_start(&self, position: Position) -> bool {
        match position {
            Position::Snapshot { lsn, .. } => self.start == Some(lsn),
            Position::Feed { lsn, .. } => self.start.is_some_and(|start| lsn > start),
        }
    }

    /// Why the pipeline cannot go on behind a position, `head` being the tenant's last commit. `None`: it can.
    pub fn refuses(&self, position: Position, head: Lsn) -> Option<&'static str> {
        if position.lsn() > head {
            return Some("is after the last commit");
        }
        let foreign = matches!(position, Position::Snapshot { lsn, .. } if self.start != Some(lsn));
        foreign.then_some("is of another snapshot than the pipeline's")
    }

    /// A batch is begun.
    pub fn note(&mut self, bounds: &Bounds) {
        if self.open.contains(bounds) {
            return;
        }
        // One that overlaps was made from other columns, or under other limits: this one is in its place.
        self.open.retain(|known| known.last < bounds.first);
        self.open.push_back(bounds.clone());
        self.sent_through = self.sent_through.max(Some(bounds.last));
    }

    /// Everything up to `last` is settled.
    pub fn acknowledge(&mut self, last: Position) {
        if self.position.is_none_or(|position| position < last) {
            self.position = Some(last);
        }
        while self.open.front().is_some_and(|bounds| bounds.last <= last) {
            self.open.pop_front();
        }
        self.attempts = 0;
        self.seeks_creation = false;
    }

    /// Whether a stop is over: somebody said RESUME, or changed what it stopped for.
    pub fn may_run(&self, def: &PipelineDef, revision: &str) -> bool {
        match &self.halt {
            None => true,
            Some(halt) if halt.lost => {
                def.resume_from.as_ref().is_some_and(|(count, _)| *count > self.resumed_from)
            }
            Some(halt) => def.resumed > halt.resumed || halt.revision != revision,
        }
    }
}
