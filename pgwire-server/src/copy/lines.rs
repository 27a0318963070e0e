//! Ends of lines, header lines and the fields of a row, which text and csv share.
//!
//! Called by the two readers. The first end of line decides what all of them must be, so that a file that mixes
//! them is refused instead of getting stray carriage returns into its last column.

use sepal_database::{CopyFormat, CopyHeader, Error, Result, SqlState};

use super::rows::Rows;

/// A line found in the input.
pub(super) struct Line {
    /// Without its end.
    pub(super) length: usize,
    /// With its end.
    pub(super) total: usize,
}

/// How lines end, once the first has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LineEnd {
    Unknown,
    Newline,
    Return,
    ReturnNewline,
}

/// The words for an end of line of another kind.
pub(super) struct Wording {
    /// `literal` in text, `unquoted` in csv.
    pub(super) stray: &'static str,
    pub(super) newline_hint: &'static str,
    pub(super) return_hint: &'static str,
}

impl LineEnd {
    /// The end of line at `at`, which is a newline or carriage return: its length, or `None` if what follows must
    /// be known first. Errors: 22P04 it is not the kind that earlier lines had.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        at: usize,
        at_end: bool,
        wording: &Wording,
    ) -> Result<Option<usize>, Error> {
        let (kind, length) = if input[at] == b'\n' {
            (Self::Newline, 1)
        } else if matches!(self, Self::Unknown | Self::ReturnNewline) {
            match input.get(at + 1) {
                Some(b'\n') => (Self::ReturnNewline, 2),
                None if !at_end => return Ok(None),
                Some(_) | None => (Self::Return, 1),
            }
        } else {
            (Self::Return, 1)
        };
        if *self != Self::Unknown && *self != kind {
            let (name, hint) = match kind {
                Self::Newline => ("newline", wording.newline_hint),
                _ => ("carriage return", wording.return_hint),
            };
            let message = format!("{} {name} found in data", wording.stray);
            return Err(Error::new(SqlState::BadCopyFileFormat, message).with_hint(hint));
        }
        *self = kind;
        Ok(Some(length))
    }
}

/// What the first line is, until it has been read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Header {
    /// Read already, or there is none.
    Done,
    Match,
    Skip,
}

impl Header {
    pub(super) fn new(format: &CopyFormat) -> Self {
        match format.header {
            CopyHeader::No => Self::Done,
            CopyHeader::Yes => Self::Skip,
            CopyHeader::Match => Self::Match,
        }
    }
}

/// Compares a header's fields, `None` for NULL, with the columns. Errors: 22P04.
pub(super) fn match_header(fields: &[Option<Vec<u8>>], null: &[u8], rows: &Rows) -> Result<()> {
    let refuse = |message: String| Err(Error::new(SqlState::BadCopyFileFormat, message));
    if fields.len() != rows.columns.len() {
        return refuse(format!(
            "wrong number of fields in header line: got {}, expected {}",
            fields.len(),
            rows.columns.len()
        ));
    }
    for (position, (field, column)) in fields.iter().zip(&rows.columns).enumerate() {
        let got = match field {
            Some(name) if *name == column.name.as_bytes() => continue,
            Some(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
            None => format!("null value (\"{}\")", String::from_utf8_lossy(null)),
        };
        return refuse(format!(
            "column name mismatch in header line field {}: got {got}, expected \"{}\"",
            position + 1,
            column.name
        ));
    }
    Ok(())
}

/// Reads a line as a row. `field` appends what stands at the front of the rest to a column, and gives what follows its
/// delimiter; `None` where none does. Errors: 22P04 for more or fewer fields than columns.
pub(super) fn read_row<'a>(
    line: &'a [u8],
    rows: &mut Rows,
    mut field: impl FnMut(&'a [u8], usize, &mut Rows) -> Result<Option<&'a [u8]>>,
) -> Result<()> {
    let refuse = |message: String, rows: &Rows| {
        Err(rows.at_line(Error::new(SqlState::BadCopyFileFormat, message), Some(line)))
    };
    let mut rest = (!rows.columns.is_empty() || !line.is_empty()).then_some(line);
    for position in 0..rows.columns.len() {
        let Some(front) = rest else {
            return refuse(format!("missing data for column \"{}\"", rows.columns[position].name), rows);
        };
        rest = field(front, position, rows)?;
    }
    if rest.is_some() {
        return refuse("extra data after last expected column".to_owned(), rows);
    }
    rows.end_row(line.len()).map_err(|error| rows.at_line(error, None))
}
