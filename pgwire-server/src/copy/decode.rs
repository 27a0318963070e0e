//! COPY FROM STDIN: bytes in pieces of any size, batches out.
//!
//! Called by `session`. The pieces need not end where rows end. Decoding happens when a batch is taken, so that a
//! large piece never becomes more than one batch in memory at a time.

use arrow::array::RecordBatch;
use sepal_database::{CopyFormat, CopyKind, OutputColumn, Result};

use super::{binary, csv, rows::Rows, text};

/// A buffer larger than this is given back when it is empty.
const KEEP_BYTES: usize = 1 << 20;

/// Decodes one `COPY … FROM STDIN`.
///
/// For every CopyData: [`Decoder::push`], then [`Decoder::take_batch`] until it gives `None`. At CopyDone:
/// [`Decoder::finish`].
pub struct Decoder {
    input: Input,
    reader: Reader,
    rows: Rows,
}

enum Reader {
    Binary(binary::Reader),
    Csv(csv::Reader),
    Text(text::Reader),
}

impl Decoder {
    /// `columns` are those that the statement names, in its order; `table` is named in errors.
    pub fn new(format: &CopyFormat, columns: &[OutputColumn], table: &str) -> Self {
        let reader = match format.kind {
            CopyKind::Binary => Reader::Binary(binary::Reader::new()),
            CopyKind::Csv => Reader::Csv(csv::Reader::new(format)),
            CopyKind::Text => Reader::Text(text::Reader::new(format)),
        };
        Self { input: Input::default(), reader, rows: Rows::new(format, columns, table) }
    }

    /// Refuses rows of more than so many bytes as sent, instead of [`super::MAX_ROW_BYTES`].
    #[must_use]
    pub fn with_max_row_bytes(mut self, bytes: usize) -> Self {
        self.rows.max_row_bytes = bytes;
        self
    }

    /// Takes a piece of the data. Nothing is decoded yet.
    pub fn push(&mut self, data: &[u8]) -> Result<()> {
        self.input.push(data);
        Ok(())
    }

    /// Memory of what was pushed and is in no batch yet.
    pub fn held_bytes(&self) -> usize {
        let in_row = match &self.reader {
            Reader::Binary(reader) => reader.row_bytes(),
            Reader::Csv(_) | Reader::Text(_) => 0,
        };
        self.input.bytes.capacity() + in_row
    }

    /// A full batch, or `None` when more data is needed for one. Its columns have `sepal_database::arrow_type`
    /// and the names of `columns`.
    ///
    /// Errors: 22P04 and the errors of the types' input functions, with `COPY t, line n, column c: "…"` as
    /// context; 54000 a row of more than [`super::MAX_ROW_BYTES`]. After an error the COPY is over.
    pub fn take_batch(&mut self) -> Result<Option<RecordBatch>> {
        self.decode(false)?;
        if self.rows.is_full() { self.rows.take() } else { Ok(None) }
    }

    /// The rows that are left, once all data was pushed. Errors: as [`Decoder::take_batch`], and 22P04 where the
    /// data ends within a row.
    pub fn finish(mut self) -> Result<Option<RecordBatch>> {
        self.rows.lift_limit();
        self.decode(true)?;
        self.rows.take()
    }

    fn decode(&mut self, at_end: bool) -> Result<()> {
        let input = self.input.pending();
        let used = match &mut self.reader {
            Reader::Binary(reader) => reader.decode(input, at_end, &mut self.rows)?,
            Reader::Csv(reader) => reader.decode(input, at_end, &mut self.rows)?,
            Reader::Text(reader) => reader.decode(input, at_end, &mut self.rows)?,
        };
        self.input.consume(used);
        Ok(())
    }
}

/// Bytes that were pushed and not decoded yet.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    fn push(&mut self, data: &[u8]) {
        // What is left of earlier pieces is usually a part of one row, so that moving it is cheap.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            if self.bytes.capacity() > KEEP_BYTES {
                self.bytes = Vec::new();
            }
        }
    }
}
