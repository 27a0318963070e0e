//! Batches as a pipeline would make them, of rows that the kit knows again wherever they turn up.
//!
//! Each row has two words of its own: its key, and a note in a column of text. Both are letters and digits, so that no
//! encoding of text changes them.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
};

use aho_corasick::AhoCorasick;
use sepal_database::connector::{BatchSchema, Encoding, Envelope};
use serde_json::{Map, Value, json};

use super::{arrow_rows, case::RowShape, destination::Sent};
use crate::{call::GuestBatch, manifest::Manifest};

/// Positive in 32 bits, and unlikely to stand in a text by chance.
const FIRST_NUMBER: u32 = 1_073_000_000;
const TIME: &str = "2026-01-02T03:04:05Z";

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Created,
    Updated,
    Deleted,
    /// It was there when the pipeline was made.
    Read,
}

impl Op {
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Created => "c",
            Self::Updated => "u",
            Self::Deleted => "d",
            Self::Read => "r",
        }
    }
}

/// One row's change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub op: Op,
    pub row: Map<String, Value>,
    pub position: String,
    /// The words by which it is known: key, note.
    key: String,
    note: Option<String>,
}

/// A batch, and what is in it.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub batch: GuestBatch,
    pub schema: BatchSchema,
    pub envelope: Envelope,
    changes: Vec<Change>,
    form: Form,
}

/// How batches of one sink are written.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub encoding: Encoding,
    pub envelope: Envelope,
    pub shape: RowShape,
}

/// Makes samples; no two rows of a run are alike.
#[derive(Debug)]
pub(super) struct Sampler<'a> {
    form: Form,
    next: &'a AtomicU32,
}

impl<'a> Sampler<'a> {
    pub fn new(form: Form, next: &'a AtomicU32) -> Self {
        Self { form, next }
    }

    /// Newly inserted rows.
    pub fn plain(&self, rows: u32) -> Sample {
        self.of(&vec![Op::Created; rows as usize], |_| {})
    }

    /// As many rows as fit into `bytes`, at most `rows`.
    pub fn largest(&self, rows: u32, bytes: u64) -> Sample {
        let one = self.plain(1).batch.payload.len().max(1) as u64;
        // A tenth is left for what grows with the rows' numbers.
        let fitting = u32::try_from(bytes.saturating_mul(9) / (one * 10)).unwrap_or(u32::MAX);
        self.plain(rows.min(fitting).max(1))
    }

    /// Rows with these operations, each changed by `change` before it gets its words.
    pub fn of(&self, ops: &[Op], change: impl Fn(&mut Map<String, Value>)) -> Sample {
        let changes = ops.iter().map(|op| self.change(*op, &change)).collect();
        Sample::new(self.form.clone(), changes)
    }

    fn change(&self, op: Op, change: &impl Fn(&mut Map<String, Value>)) -> Change {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let shape = &self.form.shape;
        let mut row = shape.columns.clone();
        change(&mut row);
        let key = match shape.key.first() {
            Some(name) if shape.columns.get(name).is_some_and(Value::is_number) => {
                row.insert(name.clone(), Value::from(FIRST_NUMBER + number));
                (FIRST_NUMBER + number).to_string()
            }
            Some(name) => {
                let word = format!("kitkey{number:08}");
                row.insert(name.clone(), Value::from(word.clone()));
                word
            }
            None => format!("kitkey{number:08}"),
        };
        let noted = shape.note_of(&row);
        let note = noted.map(|(name, before)| {
            let word = format!("kitnote{number:08}");
            row.insert(name, Value::from(format!("{before}{word}")));
            word
        });
        Change { op, row, position: format!("{number}.0"), key, note }
    }
}

impl Sample {
    fn new(form: Form, changes: Vec<Change>) -> Self {
        let payload = form.payload(&changes);
        let schema = form.schema(&changes);
        let position = |change: Option<&Change>| {
            change.map_or_else(|| "0.0".to_owned(), |change| change.position.clone())
        };
        let (first, last) = (position(changes.first()), position(changes.last()));
        let batch = GuestBatch {
            id: format!("kitbatch{}to{}", first.replace('.', "x"), last.replace('.', "x")),
            schema_id: schema.id.clone(),
            rows: u32::try_from(changes.len()).unwrap_or(u32::MAX),
            attempt: 1,
            snapshot: changes.first().is_some_and(|change| change.op == Op::Read),
            attributes: Vec::new(),
            first,
            last,
            payload,
        };
        Self { batch, schema, envelope: form.envelope, changes, form }
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The rows of these numbers, as a batch of their own.
    pub fn subset(&self, rows: &BTreeSet<usize>) -> Self {
        let changes: Vec<Change> = rows.iter().filter_map(|row| self.changes.get(*row)).cloned().collect();
        Self::new(self.form.clone(), changes)
    }

    /// In how many successful requests each row arrived.
    pub fn arrivals(&self, sent: &[Sent]) -> Vec<usize> {
        let finder = Finder::new(&self.changes);
        let mut arrivals = vec![0; self.changes.len()];
        for request in sent.iter().filter(|request| request.succeeded()) {
            for row in finder.rows(request) {
                arrivals[row] += 1;
            }
        }
        arrivals
    }

    /// The numbers of the rows that are in this request.
    pub fn rows_in(&self, request: &Sent) -> BTreeSet<usize> {
        Finder::new(&self.changes).rows(request)
    }

    /// Whether the request says which row this is, or which batch: enough to know it when it comes again.
    pub fn can_be_told(&self, row: usize, request: &Sent) -> bool {
        request.holds(&self.batch.id)
            || self.changes.get(row).is_some_and(|change| request.holds(&change.key))
    }
}

/// Finds rows by their words.
struct Finder {
    automaton: AhoCorasick,
    /// By pattern.
    owners: Vec<usize>,
}

impl Finder {
    fn new(changes: &[Change]) -> Self {
        let mut patterns = Vec::new();
        let mut owners = Vec::new();
        for (row, change) in changes.iter().enumerate() {
            for word in [Some(&change.key), change.note.as_ref()].into_iter().flatten() {
                patterns.push(word);
                owners.push(row);
            }
        }
        let automaton = AhoCorasick::new(patterns).expect("some megabytes of patterns fit");
        Self { automaton, owners }
    }

    fn rows(&self, request: &Sent) -> BTreeSet<usize> {
        let found = request.parts().flat_map(|part| self.automaton.find_iter(part));
        found.map(|found| self.owners[found.pattern().as_usize()]).collect()
    }
}

impl Form {
    /// As text and with deletions as keys, if the sink takes that.
    pub fn of(manifest: &Manifest, shape: RowShape) -> Self {
        let sink = manifest.sink.as_ref();
        let encodings = sink.map(|sink| sink.encodings.as_slice()).unwrap_or_default();
        let envelopes = sink.map(|sink| sink.envelopes.as_slice()).unwrap_or_default();
        let encoding = match encodings.contains(&Encoding::Ndjson) {
            true => Encoding::Ndjson,
            false => encodings.first().copied().unwrap_or(Encoding::Ndjson),
        };
        let envelope = match envelopes.contains(&Envelope::Upsert) {
            true => Envelope::Upsert,
            false => envelopes.first().copied().unwrap_or(Envelope::Append),
        };
        Self { encoding, envelope, shape }
    }

    fn payload(&self, changes: &[Change]) -> Vec<u8> {
        match self.encoding {
            Encoding::Ndjson => self.lines(changes),
            Encoding::ArrowIpcStream => arrow_rows::payload(self, changes),
        }
    }

    fn schema(&self, changes: &[Change]) -> BatchSchema {
        let payload = match self.encoding {
            Encoding::Ndjson => self.json_schema(changes).to_string().into_bytes(),
            Encoding::ArrowIpcStream => arrow_rows::schema_message(self, changes),
        };
        let columns: Vec<&str> = self.columns(changes).into_iter().collect();
        BatchSchema {
            id: format!("kitschema{}", columns.join("x")),
            payload,
            key_columns: self.shape.key.clone(),
        }
    }

    /// Names of all columns.
    pub fn columns<'a>(&'a self, changes: &'a [Change]) -> BTreeSet<&'a str> {
        let rows = changes.iter().flat_map(|change| change.row.keys());
        self.shape.columns.keys().chain(rows).map(String::as_str).collect()
    }

    fn lines(&self, changes: &[Change]) -> Vec<u8> {
        let mut out = String::new();
        for change in changes {
            out.push_str(&self.line(change));
            out.push('\n');
        }
        out.into_bytes()
    }

    /// In the order in which a pipeline writes the members.
    fn line(&self, change: &Change) -> String {
        let row = Value::Object(change.row.clone()).to_string();
        let key: Map<String, Value> = self
            .shape
            .key
            .iter()
            .filter_map(|name| Some((name.clone(), change.row.get(name)?.clone())))
            .collect();
        let deleted = change.op == Op::Deleted;
        let after = if deleted { "null" } else { row.as_str() };
        let before = match (self.envelope, change.op) {
            (Envelope::Append | Envelope::Debezium, Op::Deleted) | (Envelope::Debezium, Op::Updated) => {
                format!(",\"before\":{row}")
            }
            (Envelope::Debezium, _) => ",\"before\":null".to_owned(),
            (Envelope::Append | Envelope::Upsert, _) => String::new(),
        };
        format!(
            "{{\"op\":\"{}\",\"key\":{},\"after\":{after}{before},\"pos\":\"{}\",\"ts\":\"{TIME}\"}}",
            change.op.letter(),
            Value::Object(key),
            change.position,
        )
    }

    fn json_schema(&self, changes: &[Change]) -> Value {
        let columns: Map<String, Value> =
            self.columns(changes).into_iter().map(|name| (name.to_owned(), json!({}))).collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "op": { "enum": ["c", "d", "r", "u"] },
                "key": { "type": "object" },
                "after": { "type": ["object", "null"], "properties": columns },
                "pos": { "type": "string" },
                "ts": { "type": "string", "format": "date-time" },
            },
            "required": ["op", "key", "after", "pos", "ts"],
        })
    }
}
