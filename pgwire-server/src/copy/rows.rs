//! The rows decoded so far, and the words of an error about one of them.
//!
//! Filled by the three readers, emptied by `decode`.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{Field, Schema, SchemaRef},
};
use sepal_database::{CopyFormat, Error, OutputColumn, Result, SqlState, arrow_type};

use super::{BATCH_BYTES, BATCH_ROWS, MAX_ROW_BYTES};
use sepal_database::values::Builder;

/// Longest excerpt of a line or value in an error's context (Postgres' MAX_COPY_DATA_DISPLAY).
const MAX_EXCERPT_BYTES: usize = 100;
/// Most bytes of a batch when the caller did not take batches in between; Arrow's offsets end at 2 GiB.
const MAX_LAST_BATCH_BYTES: usize = 1 << 30;

pub(super) struct Rows {
    table: String,
    pub(super) columns: Vec<Column>,
    schema: SchemaRef,
    count: usize,
    bytes: usize,
    /// What a row takes at least, even if all of it is NULL.
    least_row_bytes: usize,
    /// The line or row being read, from 1.
    pub(super) line: u64,
    unlimited: bool,
    pub(super) max_row_bytes: usize,
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) builder: Builder,
    pub(super) force_not_null: bool,
    pub(super) force_null: bool,
}

impl Rows {
    pub(super) fn new(format: &CopyFormat, columns: &[OutputColumn], table: &str) -> Self {
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new(&column.name, arrow_type(&column.ty), true)).collect();
        let columns: Vec<Column> = columns
            .iter()
            .map(|column| Column {
                name: column.name.clone(),
                builder: Builder::new(&column.ty, 0),
                force_not_null: format.force_not_null.contains(&column.name),
                force_null: format.force_null.contains(&column.name),
            })
            .collect();
        let least_row_bytes = columns.iter().map(|column| column.builder.null_bytes()).sum();
        Self {
            table: table.to_owned(),
            columns,
            schema: Arc::new(Schema::new(fields)),
            count: 0,
            bytes: 0,
            least_row_bytes,
            line: 0,
            unlimited: false,
            max_row_bytes: MAX_ROW_BYTES,
        }
    }

    /// Whether a batch should be taken before more rows are read.
    pub(super) fn is_full(&self) -> bool {
        !self.unlimited && (self.count >= BATCH_ROWS || self.bytes >= BATCH_BYTES)
    }

    /// From now on everything goes into one batch.
    pub(super) fn lift_limit(&mut self) {
        self.unlimited = true;
    }

    /// Every column has got its value. `sent_bytes`: the row's length as sent.
    ///
    /// Errors: the last batch grows past what one may hold, because earlier ones were not taken (XX000).
    pub(super) fn end_row(&mut self, sent_bytes: usize) -> Result<()> {
        self.count += 1;
        self.bytes += sent_bytes.max(self.least_row_bytes);
        if self.bytes > MAX_LAST_BATCH_BYTES {
            return Err(Error::bug("COPY's batches were not taken while its data arrived"));
        }
        Ok(())
    }

    /// The rows so far as a batch, `None` if there are none.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        let count = std::mem::take(&mut self.count);
        self.bytes = 0;
        if count == 0 {
            return Ok(None);
        }
        let arrays =
            self.columns.iter_mut().map(|column| column.builder.finish()).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options);
        batch
            .map(Some)
            .map_err(|problem| Error::bug(format!("COPY's columns do not make a batch: {problem}")))
    }

    /// An error about the format of the data (22P04), at the current line.
    pub(super) fn bad_format(&self, message: impl Into<String>) -> Error {
        self.at_line(Error::new(SqlState::BadCopyFileFormat, message), None)
    }

    /// Says which line an error is about, and shows it.
    pub(super) fn at_line(&self, error: Error, line: Option<&[u8]>) -> Error {
        let shown = line.filter(|_| error.state() != SqlState::CharacterNotInRepertoire).and_then(excerpt);
        let place = format!("COPY {}, line {}", self.table, self.line);
        locate(
            error,
            match shown {
                Some(shown) => format!("{place}: \"{shown}\""),
                None => place,
            },
        )
    }

    /// Says which value an error is about, and shows it where it is text.
    pub(super) fn at_column(&self, error: Error, column: usize, value: Option<&[u8]>) -> Error {
        let name = self.columns.get(column).map_or("", |column| column.name.as_str());
        let place = format!("COPY {}, line {}, column {name}", self.table, self.line);
        let shown = value.filter(|_| error.state() != SqlState::CharacterNotInRepertoire).and_then(excerpt);
        locate(
            error,
            match shown {
                Some(shown) => format!("{place}: \"{shown}\""),
                None => place,
            },
        )
    }

    pub(super) fn row_too_long(&self) -> Error {
        let message = format!("a COPY row is longer than {} bytes", self.max_row_bytes);
        let error = Error::new(SqlState::ProgramLimitExceeded, message)
            .with_hint("Check the delimiter, quote and end of line of the data, or split the value.");
        self.at_line(error, None)
    }
}

/// Adds a place below the context that the error has already.
fn locate(error: Error, place: String) -> Error {
    let context = match error.context() {
        Some(inner) => format!("{inner}\n{place}"),
        None => place,
    };
    error.with_context(context)
}

/// The first 100 bytes, cut between characters; `None` where it is not text.
fn excerpt(bytes: &[u8]) -> Option<String> {
    let cut = bytes.get(..MAX_EXCERPT_BYTES).unwrap_or(bytes);
    let text = match std::str::from_utf8(cut) {
        Ok(text) => text,
        // A character that the cut split; anything else is not text.
        Err(problem) if problem.error_len().is_none() => {
            std::str::from_utf8(&cut[..problem.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    Some(if text.len() < bytes.len() { format!("{text}...") } else { text.to_owned() })
}
