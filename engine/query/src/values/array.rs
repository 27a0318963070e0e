//! Arrays: `{1,NULL,"a b"}` and the binary header. One dimension; the lower bound is always 1.
//!
//! Called by `builder` for input and by `text_out` and `binary_out` for output. Elements are read and written by
//! their own type's code.
//!
//! ```text
//! dimensions i32 (0 if empty) | has nulls i32 | element oid u32 | length i32 | lower bound i32 | elements …
//! element: length i32 (-1 NULL) | bytes
//! ```

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ListArray, NullBufferBuilder},
    buffer::OffsetBuffer,
    datatypes::{DataType, FieldRef},
};
use bytes::{BufMut, BytesMut};
use sepal_types::{Error, Result, SqlState, SqlType};

use super::{
    Builder,
    binary_in::{Reader, incorrect},
    text_in::is_space,
};
use crate::error::type_name;

/// Most dimensions that Postgres allows (MAXDIM).
const MAX_ARRAY_DIMENSIONS: i32 = 6;
/// Most bytes that the elements of one array take once decoded, NULLs included.
const MAX_ARRAY_BYTES: usize = 1 << 28;

/// Gathers the arrays of a column.
#[derive(Debug)]
pub(super) struct ArrayBuilder {
    item: FieldRef,
    ty: SqlType,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    elements: Builder,
    /// Reused for elements with escapes.
    scratch: Vec<u8>,
}

impl ArrayBuilder {
    /// `data_type` is the Arrow type of an array of `element`.
    pub(super) fn new(element: &SqlType, data_type: DataType, capacity: usize) -> Self {
        let DataType::List(item) = data_type else {
            unreachable!("arrow_type makes an array a list, not {data_type}");
        };
        Self {
            item,
            ty: element.clone(),
            offsets: vec![0],
            nulls: NullBufferBuilder::new(capacity),
            elements: Builder::new(element, capacity),
            scratch: Vec::new(),
        }
    }

    pub(super) fn append_null(&mut self) {
        self.offsets.extend(self.offsets.last().copied());
        self.nulls.append_null();
    }

    pub(super) fn append_text(&mut self, text: &str) -> Result<()> {
        let mut cursor = Cursor::new(text);
        let result = cursor.read(&mut self.elements, &mut self.scratch);
        result.map_err(|problem| problem.into_error(text))?;
        self.close_row()
    }

    pub(super) fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader::new(bytes);
        let dimensions = reader.i32()?;
        let flags = reader.i32()?;
        let oid = reader.u32()?;
        check_header(dimensions, flags)?;
        if oid != self.ty.oid() {
            let found = SqlType::from_oid(oid).map_or_else(|| "???".to_owned(), |ty| ty.display_name());
            let message = format!(
                "binary data has array element type {oid} ({found}) instead of expected {} ({})",
                self.ty.oid(),
                type_name(&self.ty)
            );
            return Err(Error::new(SqlState::DatatypeMismatch, message));
        }
        if dimensions == 1 {
            let length = reader.i32()?;
            // Arrow has no lower bounds: the elements count, from wherever they were numbered.
            reader.i32()?;
            self.read_elements(&mut reader, length)?;
        }
        reader.end()?;
        self.close_row()
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        let elements = self.elements.finish()?;
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.offsets, vec![0]).into());
        let list = ListArray::try_new(Arc::clone(&self.item), offsets, elements, self.nulls.finish());
        Ok(Arc::new(
            list.map_err(|problem| Error::bug(format!("an array column does not fit together: {problem}")))?,
        ))
    }

    fn read_elements(&mut self, reader: &mut Reader<'_>, length: i32) -> Result<()> {
        let length = usize::try_from(length).map_err(|_| incorrect())?;
        for _ in 0..length {
            match reader.i32()? {
                -1 => self.elements.append_null(),
                size => {
                    let size = usize::try_from(size).map_err(|_| incorrect())?;
                    self.elements.append_binary(reader.take(size)?)?;
                }
            }
            check_size(&self.elements, self.offsets.last().copied())?;
        }
        Ok(())
    }

    fn close_row(&mut self) -> Result<()> {
        let end = i32::try_from(self.elements.len()).map_err(|_| too_large())?;
        self.offsets.push(end);
        self.nulls.append_non_null();
        Ok(())
    }
}

/// NULLs may be far larger decoded than sent (a NULL `vector(16000)` is 64 kB), so that the count is bounded by
/// what it decodes to.
fn check_size(elements: &Builder, row_start: Option<i32>) -> Result<()> {
    let start = row_start.and_then(|start| usize::try_from(start).ok()).unwrap_or(0);
    let count = elements.len() - start.min(elements.len());
    if count.saturating_mul(elements.null_bytes()) > MAX_ARRAY_BYTES { Err(too_large()) } else { Ok(()) }
}

fn check_header(dimensions: i32, flags: i32) -> Result<()> {
    if dimensions < 0 {
        let message = format!("invalid number of dimensions: {dimensions}");
        return Err(Error::new(SqlState::InvalidBinaryRepresentation, message));
    }
    if dimensions > MAX_ARRAY_DIMENSIONS {
        let message = format!(
            "number of array dimensions ({dimensions}) exceeds the maximum allowed ({MAX_ARRAY_DIMENSIONS})"
        );
        return Err(Error::new(SqlState::ProgramLimitExceeded, message));
    }
    if flags != 0 && flags != 1 {
        return Err(Error::new(SqlState::InvalidBinaryRepresentation, "invalid array flags"));
    }
    if dimensions > 1 { Err(several_dimensions()) } else { Ok(()) }
}

fn too_large() -> Error {
    Error::new(
        SqlState::ProgramLimitExceeded,
        format!("array size exceeds the maximum allowed ({MAX_ARRAY_BYTES} bytes)"),
    )
    .with_hint("Store the elements as rows of a table.")
}

fn several_dimensions() -> Error {
    Error::unsupported("arrays of more than one dimension are not supported")
        .with_hint("Send a one-dimensional array, or jsonb.")
}

/// Why a literal is refused.
enum Problem {
    /// The `DETAIL` below "malformed array literal".
    Malformed(String),
    Other(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Problem {
    fn into_error(self, text: &str) -> Error {
        match self {
            Self::Malformed(detail) => Error::new(
                SqlState::InvalidTextRepresentation,
                format!("malformed array literal: \"{text}\""),
            )
            .with_detail(detail),
            Self::Other(error) => error,
        }
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::Malformed(detail.to_owned())
}

/// A place in an array literal.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    fn read(&mut self, elements: &mut Builder, scratch: &mut Vec<u8>) -> Result<(), Problem> {
        self.skip_spaces();
        self.skip_bounds()?;
        if self.next() != Some(b'{') {
            return Err(malformed("Array value must start with \"{\" or dimension information."));
        }
        self.skip_spaces();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return self.end();
        }
        let row_start = i32::try_from(elements.len()).ok();
        loop {
            self.element(elements, scratch)?;
            check_size(elements, row_start)?;
            self.skip_spaces();
            match self.next() {
                Some(b',') => {}
                Some(b'}') => return self.end(),
                Some(_) => return Err(malformed("Unexpected array element.")),
                None => return Err(malformed("Unexpected end of input.")),
            }
        }
    }

    /// `[1:3]=` before the elements: accepted when there is one dimension, its bounds are not kept.
    fn skip_bounds(&mut self) -> Result<(), Problem> {
        if self.peek() != Some(b'[') {
            return Ok(());
        }
        let rest = &self.bytes[self.at..];
        let Some(equals) = rest.iter().position(|byte| *byte == b'=') else {
            return Err(malformed("Missing \"=\" after array dimensions."));
        };
        if rest[1..equals].contains(&b'[') {
            return Err(several_dimensions().into());
        }
        let inside = rest[1..equals].trim_ascii().strip_suffix(b"]").unwrap_or_default();
        if inside.is_empty() || !inside.iter().all(|byte| matches!(byte, b'0'..=b'9' | b':' | b'-' | b'+')) {
            return Err(malformed("\"[\" must introduce explicitly-specified array dimensions."));
        }
        self.at += equals + 1;
        self.skip_spaces();
        Ok(())
    }

    fn element(&mut self, elements: &mut Builder, scratch: &mut Vec<u8>) -> Result<(), Problem> {
        self.skip_spaces();
        match self.peek() {
            None => Err(malformed("Unexpected end of input.")),
            Some(b'{') => Err(several_dimensions().into()),
            Some(byte @ (b',' | b'}')) => {
                Err(Problem::Malformed(format!("Unexpected \"{}\" character.", char::from(byte))))
            }
            Some(b'"') => {
                self.quoted(scratch)?;
                Ok(elements.append_text(scratch)?)
            }
            Some(_) => {
                let escaped = self.bare(scratch)?;
                if !escaped && scratch.eq_ignore_ascii_case(b"NULL") {
                    elements.append_null();
                    return Ok(());
                }
                Ok(elements.append_text(scratch)?)
            }
        }
    }

    /// Reads `"…"` into `scratch`. What follows is for the caller to judge.
    fn quoted(&mut self, scratch: &mut Vec<u8>) -> Result<(), Problem> {
        scratch.clear();
        self.at += 1;
        loop {
            match self.next() {
                None => return Err(malformed("Unexpected end of input.")),
                Some(b'"') => return Ok(()),
                Some(b'\\') => match self.next() {
                    None => return Err(malformed("Unexpected end of input.")),
                    Some(byte) => scratch.push(byte),
                },
                Some(byte) => scratch.push(byte),
            }
        }
    }

    /// Reads an unquoted element into `scratch`, without the spaces after it; says whether it had escapes.
    fn bare(&mut self, scratch: &mut Vec<u8>) -> Result<bool, Problem> {
        scratch.clear();
        let mut escaped = false;
        // Length up to the last byte that is to be kept: an escaped space is.
        let mut kept = 0;
        loop {
            match self.peek() {
                None => return Err(malformed("Unexpected end of input.")),
                Some(b',' | b'}') => break,
                Some(b'"') => return Err(malformed("Unexpected array element.")),
                Some(b'{') => return Err(malformed("Unexpected \"{\" character.")),
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    scratch.push(self.peek().ok_or_else(|| malformed("Unexpected end of input."))?);
                    kept = scratch.len();
                }
                Some(byte) => {
                    scratch.push(byte);
                    if !is_space(char::from(byte)) {
                        kept = scratch.len();
                    }
                }
            }
            self.at += 1;
        }
        scratch.truncate(kept);
        Ok(escaped)
    }

    fn end(&mut self) -> Result<(), Problem> {
        self.skip_spaces();
        if self.peek().is_some() { Err(malformed("Junk after closing right brace.")) } else { Ok(()) }
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| is_space(char::from(byte))) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

/// Appends an element, quoted if a reader would take it for something else.
pub(super) fn write_quoted(element: &[u8], out: &mut BytesMut) {
    let special =
        |byte: &u8| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(char::from(*byte));
    if !element.is_empty() && !element.eq_ignore_ascii_case(b"NULL") && !element.iter().any(special) {
        out.extend_from_slice(element);
        return;
    }
    out.put_u8(b'"');
    for byte in element {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// Appends the header of an array; an empty one has no dimension.
pub(super) fn write_header(
    length: usize,
    has_nulls: bool,
    element_oid: u32,
    lower_bound: i32,
    out: &mut BytesMut,
) -> Result<()> {
    if length > 0 {
        return write_dimension(length, has_nulls, element_oid, lower_bound, out);
    }
    out.put_i32(0);
    out.put_i32(0);
    out.put_u32(element_oid);
    Ok(())
}

/// Appends a header with one dimension, whatever its length.
pub(super) fn write_dimension(
    length: usize,
    has_nulls: bool,
    element_oid: u32,
    lower_bound: i32,
    out: &mut BytesMut,
) -> Result<()> {
    let length = i32::try_from(length).map_err(|_| too_large())?;
    out.put_i32(1);
    out.put_i32(has_nulls.into());
    out.put_u32(element_oid);
    out.put_i32(length);
    out.put_i32(lower_bound);
    Ok(())
}
