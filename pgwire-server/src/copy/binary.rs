//! COPY in binary format.
//!
//! Called by `decode`. Each value is decoded as soon as it is whole, straight from the received bytes, so that a
//! row that arrives in many pieces is never looked at twice. No length from the client sizes a buffer.

use sepal_database::{Error, Result, SqlState};

use super::rows::Rows;

pub(super) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags and the length of the extension.
const HEADER_BYTES: usize = 19;
const FLAG_HAS_OIDS: u32 = 1 << 16;
const CRITICAL_FLAGS: u32 = 0xffff_0000;

pub(super) struct Reader {
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    /// Bytes of the header's extension left to skip.
    Extension(usize),
    Row,
    Value {
        column: usize,
        row_bytes: usize,
    },
    /// -1 in place of a row.
    Ended,
}

/// What a step did.
enum Step {
    Used(usize),
    /// More bytes, or a new batch, are needed.
    Wait,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { state: State::Header }
    }

    /// Bytes of the values that a row has so far.
    pub(super) fn row_bytes(&self) -> usize {
        match self.state {
            State::Value { row_bytes, .. } => row_bytes,
            State::Header | State::Extension(_) | State::Row | State::Ended => 0,
        }
    }

    /// Decodes values until the batch is full; returns how many bytes were used.
    pub(super) fn decode(&mut self, input: &[u8], at_end: bool, rows: &mut Rows) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let step = match self.state {
                State::Header => self.header(rest, at_end)?,
                State::Extension(length) => self.extension(rest, length, at_end)?,
                State::Row => self.row(rest, at_end, rows)?,
                State::Value { column, row_bytes } => self.value(rest, at_end, column, row_bytes, rows)?,
                State::Ended if rest.is_empty() => Step::Wait,
                State::Ended => return Err(rows.bad_format("received copy data after EOF marker")),
            };
            match step {
                Step::Used(length) => used += length,
                Step::Wait => return Ok(used),
            }
        }
    }

    fn header(&mut self, rest: &[u8], at_end: bool) -> Result<Step> {
        let present = rest.len().min(SIGNATURE.len());
        if rest[..present] != SIGNATURE[..present] || at_end && present < SIGNATURE.len() {
            return Err(bad_header("COPY file signature not recognized"));
        }
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
            if !at_end {
                return Ok(Step::Wait);
            }
            let missing = if rest.len() < HEADER_BYTES - 4 { "flags" } else { "length" };
            return Err(bad_header(&format!("invalid COPY file header (missing {missing})")));
        };
        let [.., a, b, c, d, e, f, g, h] = *header;
        let flags = u32::from_be_bytes([a, b, c, d]);
        if flags & FLAG_HAS_OIDS != 0 {
            return Err(bad_header("invalid COPY file header (WITH OIDS)"));
        }
        if flags & CRITICAL_FLAGS != 0 {
            return Err(bad_header("unrecognized critical flags in COPY file header"));
        }
        let Ok(extension) = usize::try_from(i32::from_be_bytes([e, f, g, h])) else {
            return Err(bad_header("invalid COPY file header (missing length)"));
        };
        self.state = if extension == 0 { State::Row } else { State::Extension(extension) };
        Ok(Step::Used(HEADER_BYTES))
    }

    fn extension(&mut self, rest: &[u8], length: usize, at_end: bool) -> Result<Step> {
        if rest.is_empty() {
            return if at_end {
                Err(bad_header("invalid COPY file header (wrong length)"))
            } else {
                Ok(Step::Wait)
            };
        }
        let skipped = rest.len().min(length);
        self.state = if skipped == length { State::Row } else { State::Extension(length - skipped) };
        Ok(Step::Used(skipped))
    }

    /// The count of a row's values, or the trailer. Data may also end without a trailer, as in Postgres.
    fn row(&mut self, rest: &[u8], at_end: bool, rows: &mut Rows) -> Result<Step> {
        if rows.is_full() {
            return Ok(Step::Wait);
        }
        let Some(count) = rest.first_chunk::<2>() else {
            if at_end && !rest.is_empty() {
                rows.line += 1;
                return Err(rows.bad_format("unexpected EOF in COPY data"));
            }
            return Ok(Step::Wait);
        };
        rows.line += 1;
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.state = State::Ended;
            return Ok(Step::Used(2));
        }
        if usize::try_from(count) != Ok(rows.columns.len()) {
            let expected = rows.columns.len();
            return Err(rows.bad_format(format!("row field count is {count}, expected {expected}")));
        }
        self.next_value(0, 2, rows)?;
        Ok(Step::Used(2))
    }

    fn value(
        &mut self,
        rest: &[u8],
        at_end: bool,
        column: usize,
        row_bytes: usize,
        rows: &mut Rows,
    ) -> Result<Step> {
        let refuse = |message: &str, rows: &Rows| {
            let error = Error::new(SqlState::BadCopyFileFormat, message);
            Err(rows.at_column(error, column, None))
        };
        let Some((length, body)) = rest.split_first_chunk::<4>() else {
            return if at_end { refuse("unexpected EOF in COPY data", rows) } else { Ok(Step::Wait) };
        };
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            rows.columns[column].builder.append_null();
            self.next_value(column + 1, row_bytes + 4, rows)?;
            return Ok(Step::Used(4));
        }
        let Ok(length) = usize::try_from(length) else {
            return refuse("invalid field size", rows);
        };
        if row_bytes + 4 + length > rows.max_row_bytes {
            return Err(rows.row_too_long());
        }
        let Some(value) = body.get(..length) else {
            return if at_end { refuse("unexpected EOF in COPY data", rows) } else { Ok(Step::Wait) };
        };
        let appended = rows.columns[column].builder.append_binary(value);
        appended.map_err(|error| rows.at_column(error, column, None))?;
        self.next_value(column + 1, row_bytes + 4 + length, rows)?;
        Ok(Step::Used(4 + length))
    }

    fn next_value(&mut self, column: usize, row_bytes: usize, rows: &mut Rows) -> Result<()> {
        if column < rows.columns.len() {
            self.state = State::Value { column, row_bytes };
            return Ok(());
        }
        self.state = State::Row;
        rows.end_row(row_bytes).map_err(|error| rows.at_line(error, None))
    }
}

/// The header comes before any line, so that these errors name none.
fn bad_header(message: &str) -> Error {
    Error::new(SqlState::BadCopyFileFormat, message)
}
