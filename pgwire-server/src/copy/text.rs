//! COPY in text format.
//!
//! Called by `decode`. A line is found first, from where the last search stopped, so that a row that arrives in
//! many pieces is looked at once; then its fields are read. A field without escapes is never copied.

use sepal_database::{CopyFormat, Error, Result, SqlState};

use super::{
    lines::{Header, Line, LineEnd, Wording, match_header, read_row},
    rows::Rows,
};

const WORDING: Wording = Wording {
    stray: "literal",
    newline_hint: "Use \"\\n\" to represent newline.",
    return_hint: "Use \"\\r\" to represent carriage return.",
};

pub(super) struct Reader {
    delimiter: u8,
    null: Vec<u8>,
    header: Header,
    line_end: LineEnd,
    /// Bytes of the current line that hold no end of line.
    searched: usize,
    /// `\.` was read: what follows is ignored.
    ended: bool,
    scratch: Vec<u8>,
}

/// What a search for the next line gave.
enum Found {
    Line(Line),
    EndMarker,
    Nothing,
}

impl Reader {
    pub(super) fn new(format: &CopyFormat) -> Self {
        Self {
            delimiter: format.delimiter,
            null: format.null.clone().into_bytes(),
            header: Header::new(format),
            line_end: LineEnd::Unknown,
            searched: 0,
            ended: false,
            scratch: Vec::new(),
        }
    }

    /// Decodes whole lines until the batch is full; returns how many bytes were used.
    pub(super) fn decode(&mut self, input: &[u8], at_end: bool, rows: &mut Rows) -> Result<usize> {
        let mut used = 0;
        while !rows.is_full() && !self.ended {
            let rest = &input[used..];
            match self.find_line(rest, at_end).map_err(|error| next_line(error, rows))? {
                Found::Nothing => {
                    if rest.len() > rows.max_row_bytes {
                        rows.line += 1;
                        return Err(rows.row_too_long());
                    }
                    return Ok(used);
                }
                Found::EndMarker => self.ended = true,
                Found::Line(line) => {
                    self.searched = 0;
                    used += line.total;
                    rows.line += 1;
                    self.read_line(&rest[..line.length], rows)?;
                }
            }
        }
        Ok(if self.ended { input.len() } else { used })
    }

    fn find_line(&mut self, input: &[u8], at_end: bool) -> Result<Found> {
        loop {
            let Some(skipped) =
                input[self.searched..].iter().position(|byte| matches!(byte, b'\\' | b'\n' | b'\r'))
            else {
                self.searched = input.len();
                break;
            };
            let at = self.searched + skipped;
            self.searched = at;
            if input[at] == b'\\' {
                match input.get(at + 1) {
                    Some(b'.') => return self.end_marker(input, at, at_end),
                    Some(_) => self.searched = at + 2,
                    None => break,
                }
                continue;
            }
            match self.line_end.read(input, at, at_end, &WORDING)? {
                Some(length) => return Ok(Found::Line(Line { length: at, total: at + length })),
                None => break,
            }
        }
        if at_end && !input.is_empty() {
            return Ok(Found::Line(Line { length: input.len(), total: input.len() }));
        }
        Ok(Found::Nothing)
    }

    /// `\.` ends the data if it is a line of its own.
    fn end_marker(&self, input: &[u8], at: usize, at_end: bool) -> Result<Found> {
        let refuse = |message: &str| Err(Error::new(SqlState::BadCopyFileFormat, message));
        if at > 0 {
            return refuse("end-of-copy marker is not alone on its line");
        }
        match input.get(2) {
            None if at_end => Ok(Found::EndMarker),
            None => Ok(Found::Nothing),
            Some(b'\n' | b'\r') => Ok(Found::EndMarker),
            Some(_) => refuse("end-of-copy marker corrupt"),
        }
    }

    fn read_line(&mut self, line: &[u8], rows: &mut Rows) -> Result<()> {
        match std::mem::replace(&mut self.header, Header::Done) {
            Header::Done => {}
            Header::Skip => return Ok(()),
            Header::Match => {
                let fields = self.all_fields(line);
                return match_header(&fields, &self.null, rows)
                    .map_err(|error| rows.at_line(error, Some(line)));
            }
        }
        read_row(line, rows, |front, position, rows| {
            let (raw, after, escaped) = self.split_field(front);
            self.append(raw, escaped, position, rows)?;
            Ok(after)
        })
    }

    fn append(&mut self, raw: &[u8], escaped: bool, position: usize, rows: &mut Rows) -> Result<()> {
        let builder = &mut rows.columns[position].builder;
        if raw == self.null {
            builder.append_null();
            return Ok(());
        }
        let value = if escaped {
            self.scratch.clear();
            unescape(raw, &mut self.scratch);
            self.scratch.as_slice()
        } else {
            raw
        };
        builder.append_text(value).map_err(|error| rows.at_column(error, position, Some(value)))
    }

    /// The field at the front, as sent; what follows its delimiter; whether it has escapes.
    fn split_field<'a>(&self, line: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>, bool) {
        let mut at = 0;
        let mut escaped = false;
        while let Some(skipped) = line
            .get(at..)
            .and_then(|rest| rest.iter().position(|byte| *byte == self.delimiter || *byte == b'\\'))
        {
            at += skipped;
            if line[at] == self.delimiter {
                return (&line[..at], Some(&line[at + 1..]), escaped);
            }
            escaped = true;
            at += 2;
        }
        (line, None, escaped)
    }

    fn all_fields(&self, line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut fields = Vec::new();
        let mut rest = Some(line);
        while let Some(current) = rest {
            let (raw, after, _) = self.split_field(current);
            rest = after;
            fields.push((raw != self.null).then(|| {
                let mut value = Vec::with_capacity(raw.len());
                unescape(raw, &mut value);
                value
            }));
        }
        fields
    }
}

/// An error found while looking for the end of the line after the current one.
fn next_line(error: Error, rows: &mut Rows) -> Error {
    rows.line += 1;
    rows.at_line(error, None)
}

/// Resolves backslash escapes. A backslash at the end is dropped, as in Postgres.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else {
            return;
        };
        rest = after;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let first = u32::from(escape - b'0');
                out.push(read_digits(&mut rest, first, 8) as u8);
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                out.push(read_digits(&mut rest, 0, 16) as u8)
            }
            other => out.push(*other),
        }
    }
}

/// Up to two more digits of a number that is a byte; what exceeds a byte is cut off, as in Postgres.
fn read_digits(rest: &mut &[u8], first: u32, radix: u32) -> u32 {
    let mut value = first;
    for _ in 0..2 {
        let Some(digit) = rest.first().and_then(|byte| char::from(*byte).to_digit(radix)) else {
            break;
        };
        value = value * radix + digit;
        *rest = &rest[1..];
    }
    value & 0xff
}
