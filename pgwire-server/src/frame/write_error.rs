//! ErrorResponse and NoticeResponse: an engine error as the fields that clients read.
//!
//! Called by `session::errors`. S and V are always both sent: drivers compare V, people read S. Position is
//! in characters from 1, as psql expects for its caret.
//!
//! ```text
//! 'E' or 'N' | (field u8, text NUL)* | NUL |
//! fields: S severity, V severity (never translated), C SQLSTATE, M message, D detail, H hint, P position, W where,
//!         s schema, t table, n constraint: what a row offends against
//! ```

use bytes::{BufMut, BytesMut};
use sepal_database::Error;

use super::write::{framed, put_text};

/// How bad it is. FATAL means that the connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
}

impl Severity {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

pub fn error_response(out: &mut BytesMut, severity: Severity, error: &Error) {
    fields(out, b'E', severity.name(), error);
}

/// `severity` is `NOTICE`, `WARNING`, `INFO`, `LOG` or `DEBUG`.
pub fn notice_response(out: &mut BytesMut, severity: &str, error: &Error) {
    fields(out, b'N', severity, error);
}

fn fields(out: &mut BytesMut, kind: u8, severity: &str, error: &Error) {
    framed(out, kind, |out| {
        field(out, b'S', severity);
        field(out, b'V', severity);
        field(out, b'C', error.state().code());
        field(out, b'M', error.message());
        if let Some(detail) = error.detail() {
            field(out, b'D', detail);
        }
        if let Some(hint) = error.hint() {
            field(out, b'H', hint);
        }
        if let Some(position) = error.position() {
            field(out, b'P', &position.to_string());
        }
        if let Some(context) = error.context() {
            field(out, b'W', context);
        }
        if let Some(violated) = error.violated() {
            field(out, b's', &violated.schema);
            field(out, b't', &violated.table);
            field(out, b'n', &violated.constraint);
        }
        out.put_u8(0);
    });
}

fn field(out: &mut BytesMut, code: u8, text: &str) {
    out.put_u8(code);
    put_text(out, text);
}
