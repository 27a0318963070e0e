//! Backend messages, appended to an output buffer. Nothing here sends.
//!
//! Called by `session`. A message is begun with its type, filled, and closed, which writes the length; until
//! then the length is zero, so that a half-written message can be told from a whole one ([`whole_messages`]).
//!
//! ```text
//! 'R' Authentication  | code u32 | …            'S' ParameterStatus  | name NUL | value NUL |
//! 'K' BackendKeyData  | process i32 | secret i32 |   'Z' ReadyForQuery | 'I', 'T' or 'E' |
//! 'v' NegotiateProtocolVersion | newest u32 | n i32 | n × option NUL |
//! '1' ParseComplete  '2' BindComplete  '3' CloseComplete  'n' NoData  's' PortalSuspended  'I' EmptyQuery
//! 't' ParameterDescription | n u16 | n × oid u32 |
//! 'T' RowDescription  | n u16 | n × (name NUL, table u32, column i16, type u32, size i16, typmod i32, format i16) |
//! 'D' DataRow         | n u16 | n × (length i32, bytes) |
//! 'C' CommandComplete | tag NUL |
//! 'G' CopyIn, 'H' CopyOut | format u8 | n u16 | n × format i16 |   'd' CopyData | bytes |   'c' CopyDone
//! ```

use bytes::{BufMut, BytesMut};
use sepal_database::{Error, OutputColumn, SqlState, SqlType};

use super::Format;

/// The protocol version that we speak, 3.0.
const PROTOCOL_3_0: u32 = 3 << 16;

/// Where the length of a message under way lies.
#[must_use = "a message that is not closed breaks the stream"]
pub struct Open(usize);

/// Starts a message. The type byte and a zero length are written.
pub fn open(out: &mut BytesMut, kind: u8) -> Open {
    out.put_u8(kind);
    out.put_u32(0);
    Open(out.len() - 4)
}

/// Writes the length. A message past 2 GiB - 1 is taken back and reported (54000).
pub fn close(out: &mut BytesMut, message: Open) -> Result<(), Error> {
    let Open(start) = message;
    match i32::try_from(out.len() - start) {
        Ok(length) => {
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(_) => {
            out.truncate(start - 1);
            Err(Error::new(SqlState::ProgramLimitExceeded, "a row is larger than one message can be (2 GiB)")
                .with_hint("Select fewer or smaller columns."))
        }
    }
}

/// A message whose size the server bounds.
pub(super) fn framed(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    let message = open(out, kind);
    body(out);
    let closed = close(out, message);
    debug_assert!(closed.is_ok(), "messages of bounded size fit");
}

fn empty(out: &mut BytesMut, kind: u8) {
    out.extend_from_slice(&[kind, 0, 0, 0, 4]);
}

/// A NUL-terminated string. A NUL inside would end it early, so it is cut there.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let text = text.split('\0').next().unwrap_or_default();
    out.extend_from_slice(text.as_bytes());
    out.put_u8(0);
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

/// Bytes at the start of `out` that are whole messages. What follows was being written when a panic struck.
pub fn whole_messages(out: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(length) = out.get(whole + 1..whole + 5).and_then(|bytes| bytes.first_chunk::<4>()) {
        let length = u32::from_be_bytes(*length) as usize;
        if length < 4 || out.len() - whole - 1 < length {
            break;
        }
        whole += 1 + length;
    }
    whole
}

pub fn authentication_ok(out: &mut BytesMut) {
    framed(out, b'R', |out| out.put_u32(0));
}

pub fn authentication_cleartext_password(out: &mut BytesMut) {
    framed(out, b'R', |out| out.put_u32(3));
}

/// The mechanisms in the server's order of preference.
pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    framed(out, b'R', |out| {
        out.put_u32(10);
        mechanisms.iter().for_each(|mechanism| put_text(out, mechanism));
        out.put_u8(0);
    });
}

pub fn authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) {
    framed(out, b'R', |out| {
        out.put_u32(11);
        out.extend_from_slice(data);
    });
}

pub fn authentication_sasl_final(out: &mut BytesMut, data: &[u8]) {
    framed(out, b'R', |out| {
        out.put_u32(12);
        out.extend_from_slice(data);
    });
}

/// Says that only 3.0 is spoken and which `_pq_.` options are not known.
pub fn negotiate_protocol_version(out: &mut BytesMut, unknown_options: &[&str]) {
    framed(out, b'v', |out| {
        out.put_u32(PROTOCOL_3_0);
        out.put_i32(i32::try_from(unknown_options.len()).unwrap_or(i32::MAX));
        unknown_options.iter().for_each(|option| put_text(out, option));
    });
}

pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    framed(out, b'S', |out| {
        put_text(out, name);
        put_text(out, value);
    });
}

pub fn backend_key_data(out: &mut BytesMut, process: i32, secret: i32) {
    framed(out, b'K', |out| {
        out.put_i32(process);
        out.put_i32(secret);
    });
}

/// `status` is `I` idle, `T` in a transaction, `E` in a failed one.
pub fn ready_for_query(out: &mut BytesMut, status: u8) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

pub fn parse_complete(out: &mut BytesMut) {
    empty(out, b'1');
}

pub fn bind_complete(out: &mut BytesMut) {
    empty(out, b'2');
}

pub fn close_complete(out: &mut BytesMut) {
    empty(out, b'3');
}

pub fn no_data(out: &mut BytesMut) {
    empty(out, b'n');
}

pub fn portal_suspended(out: &mut BytesMut) {
    empty(out, b's');
}

pub fn empty_query_response(out: &mut BytesMut) {
    empty(out, b'I');
}

pub fn parameter_description(out: &mut BytesMut, types: &[SqlType]) {
    framed(out, b't', |out| {
        put_count(out, types.len());
        types.iter().for_each(|ty| out.put_u32(ty.oid()));
    });
}

/// One field per column, its format from `format`.
pub fn row_description(out: &mut BytesMut, columns: &[OutputColumn], format: impl Fn(usize) -> Format) {
    framed(out, b'T', |out| {
        put_count(out, columns.len());
        for (position, column) in columns.iter().enumerate() {
            put_text(out, &column.name);
            out.put_u32(column.table);
            out.put_i16(column.column);
            out.put_u32(column.ty.oid());
            out.put_i16(column.ty.length_bytes());
            out.put_i32(column.ty.typmod());
            out.put_i16(format(position).code());
        }
    });
}

pub fn command_complete(out: &mut BytesMut, tag: &str) {
    framed(out, b'C', |out| put_text(out, tag));
}

pub fn copy_in_response(out: &mut BytesMut, format: Format, columns: usize) {
    copy_response(out, b'G', format, columns);
}

pub fn copy_out_response(out: &mut BytesMut, format: Format, columns: usize) {
    copy_response(out, b'H', format, columns);
}

fn copy_response(out: &mut BytesMut, kind: u8, format: Format, columns: usize) {
    framed(out, kind, |out| {
        out.put_u8(u8::from(format == Format::Binary));
        put_count(out, columns);
        (0..columns).for_each(|_| out.put_i16(format.code()));
    });
}

pub fn copy_done(out: &mut BytesMut) {
    empty(out, b'c');
}

/// The head of a DataRow; the values follow, then [`close`].
pub fn open_data_row(out: &mut BytesMut, columns: usize) -> Open {
    let message = open(out, b'D');
    put_count(out, columns);
    message
}
