//! The frame guard: decides how many bytes the next message has, and gives a cursor that cannot leave it.
//!
//! Called by `session::wire` (lengths) and `frame::message` (bodies). Never reads a socket, never allocates.
//!
//! ```text
//! startup packet  | length u32 | 196608 u32 (3.0) | (name NUL value NUL)* NUL |
//! cancel request  | 16 u32     | 80877102 u32     | process id i32 | secret 4 bytes |
//! SSLRequest      | 8 u32      | 80877103 u32     |
//! GSSENCRequest   | 8 u32      | 80877104 u32     |
//! ```

use sepal_database::{Error, SqlState};

/// Bytes of the largest startup packet and of the largest message before authentication (Postgres'
/// `MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_BYTES: u32 = 10_000;
/// The codes that take the place of a protocol version.
pub const CANCEL_REQUEST: u32 = 80_877_102;
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSSENC_REQUEST: u32 = 80_877_104;

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The frame itself is wrong, so the bytes after it cannot be trusted: FATAL, then close.
    Frame(Error),
    /// The frame was whole, its content is not (text that is not UTF-8): ERROR, the connection goes on.
    Content(Error),
}

impl Rejection {
    pub fn error(&self) -> &Error {
        match self {
            Self::Frame(error) | Self::Content(error) => error,
        }
    }
}

pub(crate) fn violation(message: impl Into<String>) -> Rejection {
    Rejection::Frame(Error::new(SqlState::ProtocolViolation, message))
}

/// The longest messages accepted, counting the length field but not the type byte.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Messages that only carry names or nothing.
    pub small: u32,
    /// Query, Parse, Bind and CopyData.
    pub large: u32,
}

impl FrameLimits {
    /// Before authentication nothing may be large.
    pub const UNAUTHENTICATED: Self = Self { small: MAX_STARTUP_BYTES, large: MAX_STARTUP_BYTES };
}

/// What the input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A whole frame lies at the start; it has this many bytes, type and length included.
    Frame { kind: u8, total: usize },
    /// So many bytes must lie in the input before it can be decided again. At least one more than there are.
    Need(usize),
}

/// Looks at the start of `input`, which must be a message boundary.
pub fn scan(input: &[u8], limits: FrameLimits) -> Result<Progress, Rejection> {
    let Some((&kind, rest)) = input.split_first() else {
        return Ok(Progress::Need(5));
    };
    let limit = match kind {
        b'Q' | b'P' | b'B' | b'd' => limits.large,
        b'C' | b'D' | b'E' | b'F' | b'f' | b'p' => limits.small,
        b'H' | b'S' | b'X' | b'c' => 4,
        _ => return Err(violation(format!("invalid frontend message type {kind}"))),
    };
    let Some(length) = rest.first_chunk::<4>() else {
        return Ok(Progress::Need(5));
    };
    let length = u32::from_be_bytes(*length);
    if length < 4 || length > limit {
        return Err(violation(format!(
            "invalid length {length} of frontend message '{}': it must lie between 4 and {limit}",
            char::from(kind)
        )));
    }
    let total = length as usize + 1;
    Ok(if input.len() < total { Progress::Need(total) } else { Progress::Frame { kind, total } })
}

/// The first packet of a connection, decoded from the bytes after its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup<'a> {
    Cancel { process: i32, secret: i32 },
    GssEnc,
    Ssl,
    Parameters { major: u16, minor: u16, parameters: Vec<(&'a str, &'a str)> },
}

/// Decodes a startup packet's `body`: everything after the length field.
///
/// For a major version other than 3 the parameters are left out: their layout is unknown.
pub fn startup(body: &[u8]) -> Result<Startup<'_>, Rejection> {
    let mut body = Body::new(body, "startup packet");
    let code = body.u32()?;
    match code {
        CANCEL_REQUEST => {
            let (process, secret) = (body.i32()?, body.i32()?);
            body.finish()?;
            Ok(Startup::Cancel { process, secret })
        }
        SSL_REQUEST => body.finish().map(|()| Startup::Ssl),
        GSSENC_REQUEST => body.finish().map(|()| Startup::GssEnc),
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            let mut parameters = Vec::new();
            if major == 3 {
                loop {
                    let name = body.text()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.push((name, body.text()?));
                }
                body.finish()?;
            }
            Ok(Startup::Parameters { major, minor, parameters })
        }
    }
}

/// A cursor over one body. Every read is checked against what is left of *this* frame.
pub(crate) struct Body<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Body<'a> {
    pub(crate) fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    fn short(&self, missing: &str) -> Rejection {
        violation(format!("invalid {}: {missing} is missing", self.what))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Rejection> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| {
            violation(format!("invalid {}: {count} bytes announced, {} there", self.what, self.rest.len()))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, missing: &str) -> Result<[u8; N], Rejection> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short(missing))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Rejection> {
        self.array::<1>("a byte").map(|[byte]| byte)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Rejection> {
        self.array("a 32-bit number").map(i32::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Rejection> {
        self.array("a 32-bit number").map(u32::from_be_bytes)
    }

    /// A 16-bit count. Postgres reads it as unsigned (up to 65,535 parameters).
    pub(crate) fn count(&mut self) -> Result<usize, Rejection> {
        self.array("a 16-bit count").map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    /// A string that ends with NUL inside this frame and is UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str, Rejection> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| violation(format!("invalid {}: a string has no terminator", self.what)))?;
        let (text, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|error| Rejection::Content(not_utf8(&text[error.valid_up_to()..])))
    }

    /// All that is left, without taking it.
    pub(crate) fn peek(&self) -> &'a [u8] {
        self.rest
    }

    /// All that is left.
    pub(crate) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A frame must be used up: leftover bytes mean that client and server disagree about its layout.
    pub(crate) fn finish(&self) -> Result<(), Rejection> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(violation(format!("invalid {}: {} bytes are left over", self.what, self.rest.len())))
    }
}

/// 22021 with Postgres' words; `bytes` starts at the first wrong byte.
pub(crate) fn not_utf8(bytes: &[u8]) -> Error {
    let shown: Vec<String> = bytes.iter().take(4).map(|byte| format!("0x{byte:02x}")).collect();
    Error::new(
        SqlState::CharacterNotInRepertoire,
        format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
    )
}
