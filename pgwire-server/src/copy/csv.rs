//! COPY in csv format, with Postgres' rules: a quote may begin anywhere in a field, and only an unquoted field
//! can be NULL.
//!
//! Called by `decode`. As in `text`, the end of a record is searched once, with the state of the search kept
//! between pieces; a field whose quotes are only around it is never copied.

use sepal_database::{CopyFormat, Error, Result, SqlState};

use super::{
    lines::{Header, Line, LineEnd, Wording, match_header, read_row},
    rows::Rows,
};

const WORDING: Wording = Wording {
    stray: "unquoted",
    newline_hint: "Use quoted CSV field to represent newline.",
    return_hint: "Use quoted CSV field to represent carriage return.",
};

pub(super) struct Reader {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Vec<u8>,
    header: Header,
    line_end: LineEnd,
    search: Search,
    /// `\.` was read: what follows is ignored.
    ended: bool,
    scratch: Vec<u8>,
}

/// Where the search for the end of a record stands.
#[derive(Clone, Copy, Default)]
struct Search {
    /// Bytes of the record looked at.
    at: usize,
    in_quotes: bool,
    after_escape: bool,
    /// Ends of lines inside quotes, for the line number in errors.
    inner_lines: u64,
}

/// The bytes of a field and how it was written.
struct Field<'a> {
    value: Value<'a>,
    quoted: bool,
    rest: Option<&'a [u8]>,
}

enum Value<'a> {
    Sent(&'a [u8]),
    /// In the reader's scratch.
    Copied,
}

impl Reader {
    pub(super) fn new(format: &CopyFormat) -> Self {
        Self {
            delimiter: format.delimiter,
            quote: format.quote,
            escape: format.escape,
            null: format.null.clone().into_bytes(),
            header: Header::new(format),
            line_end: LineEnd::Unknown,
            search: Search::default(),
            ended: false,
            scratch: Vec::new(),
        }
    }

    /// Decodes whole records until the batch is full; returns how many bytes were used.
    pub(super) fn decode(&mut self, input: &[u8], at_end: bool, rows: &mut Rows) -> Result<usize> {
        let mut used = 0;
        while !rows.is_full() && !self.ended {
            let rest = &input[used..];
            let found = self.find_record(rest, at_end).map_err(|error| {
                rows.line += 1;
                rows.at_line(error, None)
            })?;
            let Some(line) = found else {
                if rest.len() > rows.max_row_bytes {
                    rows.line += 1;
                    return Err(rows.row_too_long());
                }
                return Ok(used);
            };
            let search = std::mem::take(&mut self.search);
            used += line.total;
            if &rest[..line.length] == b"\\." {
                self.ended = true;
                break;
            }
            rows.line += 1 + search.inner_lines;
            self.read_record(&rest[..line.length], rows)?;
        }
        Ok(if self.ended { input.len() } else { used })
    }

    /// The next record. An unquoted end of line closes it.
    fn find_record(&mut self, input: &[u8], at_end: bool) -> Result<Option<Line>> {
        let distinct_escape = (self.escape != self.quote).then_some(self.escape);
        while let Some(&byte) = input.get(self.search.at) {
            let search = &mut self.search;
            if matches!(byte, b'\n' | b'\r') && !search.in_quotes {
                let at = search.at;
                match self.line_end.read(input, at, at_end, &WORDING)? {
                    Some(length) => return Ok(Some(Line { length: at, total: at + length })),
                    None => return Ok(None),
                }
            }
            // An escape matters only inside quotes, and not when it is itself escaped.
            let is_escape = distinct_escape == Some(byte);
            if search.in_quotes && is_escape {
                search.after_escape = !search.after_escape;
            }
            if byte == self.quote && !search.after_escape {
                search.in_quotes = !search.in_quotes;
            }
            if !is_escape {
                search.after_escape = false;
            }
            let counted = if self.line_end == LineEnd::Newline { b'\n' } else { b'\r' };
            if search.in_quotes && byte == counted {
                search.inner_lines += 1;
            }
            search.at += 1;
        }
        if at_end && !input.is_empty() {
            return Ok(Some(Line { length: input.len(), total: input.len() }));
        }
        Ok(None)
    }

    fn read_record(&mut self, line: &[u8], rows: &mut Rows) -> Result<()> {
        match std::mem::replace(&mut self.header, Header::Done) {
            Header::Done => {}
            Header::Skip => return Ok(()),
            Header::Match => {
                return self
                    .all_fields(line)
                    .and_then(|fields| match_header(&fields, &self.null, rows))
                    .map_err(|error| rows.at_line(error, Some(line)));
            }
        }
        read_row(line, rows, |front, position, rows| {
            let field = self.split_field(front).map_err(|error| rows.at_line(error, Some(line)))?;
            self.append(&field, position, rows)?;
            Ok(field.rest)
        })
    }

    fn append(&self, field: &Field<'_>, position: usize, rows: &mut Rows) -> Result<()> {
        let column = &mut rows.columns[position];
        let value = match field.value {
            Value::Sent(value) => value,
            Value::Copied => self.scratch.as_slice(),
        };
        let is_null =
            value == self.null && if field.quoted { column.force_null } else { !column.force_not_null };
        if is_null {
            column.builder.append_null();
            return Ok(());
        }
        column.builder.append_text(value).map_err(|error| rows.at_column(error, position, Some(value)))
    }

    /// The field at the front of a record. Errors: 22P04 its quotes are not closed.
    fn split_field<'a>(&mut self, line: &'a [u8]) -> Result<Field<'a>> {
        let (delimiter, quote) = (self.delimiter, self.quote);
        let plain = line.iter().position(|byte| *byte == delimiter || *byte == quote);
        match plain {
            None => return Ok(Field { value: Value::Sent(line), quoted: false, rest: None }),
            Some(end) if line[end] == delimiter => {
                let value = Value::Sent(&line[..end]);
                return Ok(Field { value, quoted: false, rest: Some(&line[end + 1..]) });
            }
            Some(0) => {
                if let Some(field) = self.quoted_field(line) {
                    return Ok(field);
                }
            }
            Some(_) => {}
        }
        self.mixed_field(line)
    }

    /// `"…"` without a quote or escape inside, up to the delimiter or the end; `None` for anything else.
    fn quoted_field<'a>(&self, line: &'a [u8]) -> Option<Field<'a>> {
        let inner = &line[1..];
        let end = inner.iter().position(|byte| *byte == self.quote || *byte == self.escape)?;
        let value = Value::Sent(&inner[..end]);
        match inner.get(end + 1) {
            _ if inner[end] != self.quote => None,
            None => Some(Field { value, quoted: true, rest: None }),
            Some(next) if *next == self.delimiter => {
                Some(Field { value, quoted: true, rest: Some(&inner[end + 2..]) })
            }
            Some(_) => None,
        }
    }

    /// A field with quotes anywhere, copied to the scratch without them.
    fn mixed_field<'a>(&mut self, line: &'a [u8]) -> Result<Field<'a>> {
        self.scratch.clear();
        let mut in_quotes = false;
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            at += 1;
            if in_quotes {
                let next = line.get(at).copied().filter(|next| *next == self.escape || *next == self.quote);
                match next {
                    Some(next) if byte == self.escape => {
                        self.scratch.push(next);
                        at += 1;
                    }
                    _ if byte == self.quote => in_quotes = false,
                    _ => self.scratch.push(byte),
                }
            } else if byte == self.delimiter {
                return Ok(Field { value: Value::Copied, quoted: true, rest: Some(&line[at..]) });
            } else if byte == self.quote {
                in_quotes = true;
            } else {
                self.scratch.push(byte);
            }
        }
        if in_quotes {
            return Err(Error::new(SqlState::BadCopyFileFormat, "unterminated CSV quoted field"));
        }
        Ok(Field { value: Value::Copied, quoted: true, rest: None })
    }

    fn all_fields(&mut self, line: &[u8]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut fields = Vec::new();
        let mut rest = Some(line);
        while let Some(current) = rest {
            let field = self.split_field(current)?;
            let value = match field.value {
                Value::Sent(value) => value,
                Value::Copied => self.scratch.as_slice(),
            };
            fields.push((field.quoted || value != self.null).then(|| value.to_vec()));
            rest = field.rest;
        }
        Ok(fields)
    }
}
