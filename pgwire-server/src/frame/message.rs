//! Frontend messages, decoded without copying: every part borrows from the frame's body.
//!
//! Called by `session`. All counts, lengths and strings are checked here, so that iterating over a decoded
//! message cannot fail.
//!
//! ```text
//! 'B' Bind      | portal NUL | statement NUL | n u16 | n × format u16 | m u16 | m × (length i32, bytes) |
//!               | r u16 | r × format u16 |          length -1 is NULL
//! 'C' Close     | 'S' or 'P' | name NUL |            'c' CopyDone    |
//! 'D' Describe  | 'S' or 'P' | name NUL |            'd' CopyData    | bytes |
//! 'E' Execute   | portal NUL | max rows i32 |        'f' CopyFail    | reason NUL |
//! 'F' Function  | bytes |                            'p' Password, SASL | bytes |
//! 'H' Flush     |                                    'P' Parse | name NUL | sql NUL | n u16 | n × oid u32 |
//! 'Q' Query     | sql NUL |                          'S' Sync        |   'X' Terminate |
//! ```

use super::read::{Body, Rejection, violation};

/// A message from the client.
#[derive(Clone, Copy, Debug)]
pub enum Frontend<'a> {
    Bind(Bind<'a>),
    Close(Target<'a>),
    CopyData(&'a [u8]),
    CopyDone,
    CopyFail(&'a str),
    Describe(Target<'a>),
    /// `max_rows` is as sent: zero or less means all, and it never sizes a buffer.
    Execute {
        portal: &'a str,
        max_rows: i32,
    },
    Flush,
    FunctionCall,
    Parse(Parse<'a>),
    /// A password or SASL message; authentication knows which.
    Password(&'a [u8]),
    Query(&'a str),
    Sync,
    Terminate,
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Portal(&'a str),
    Statement(&'a str),
}

#[derive(Clone, Copy, Debug)]
pub struct Parse<'a> {
    pub name: &'a str,
    pub sql: &'a str,
    /// As sent: unknown oids are kept, so that the planner decides.
    pub types: TypeOids<'a>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    pub portal: &'a str,
    pub statement: &'a str,
    pub parameter_formats: Formats<'a>,
    pub values: Values<'a>,
    pub result_formats: Formats<'a>,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

impl Format {
    /// The code on the wire.
    pub const fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}

/// Format codes: two bytes each, every one 0 or 1.
#[derive(Clone, Copy, Debug)]
pub struct Formats<'a>(&'a [u8]);

impl<'a> Formats<'a> {
    fn decode(body: &mut Body<'a>) -> Result<Self, Rejection> {
        let count = body.count()?;
        let codes = body.bytes(count * 2)?;
        match codes.chunks_exact(2).find(|code| !matches!(code, [0, 0 | 1])) {
            None => Ok(Self(codes)),
            Some(code) => {
                Err(violation(format!("unsupported format code: {}", i16::from_be_bytes([code[0], code[1]]))))
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// None sent means text for all, one means it for all, `count` means one each; anything else is `None`.
    pub fn for_count(self, count: usize) -> Option<Self> {
        (self.len() <= 1 || self.len() == count).then_some(self)
    }

    /// The format of item `position`. Past the end it is text, so no count can make this panic.
    pub fn get(&self, position: usize) -> Format {
        let position = if self.len() == 1 { 0 } else { position };
        match self.0.get(position * 2 + 1) {
            Some(1) => Format::Binary,
            _ => Format::Text,
        }
    }
}

/// The oids of Parse, four bytes each.
#[derive(Clone, Copy, Debug)]
pub struct TypeOids<'a>(&'a [u8]);

impl TypeOids<'_> {
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.as_chunks::<4>().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// The parameter values of Bind; `None` is NULL.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    count: usize,
    /// Exactly `count` lengths, each followed by its bytes: checked when decoded.
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    fn decode(body: &mut Body<'a>) -> Result<Self, Rejection> {
        let count = body.count()?;
        let start = body.peek();
        for _ in 0..count {
            match body.i32()? {
                -1 => {}
                length => {
                    let length = usize::try_from(length)
                        .map_err(|_| violation(format!("invalid Bind message: parameter length {length}")))?;
                    body.bytes(length)?;
                }
            }
        }
        let used = start.len() - body.peek().len();
        Ok(Self { count, bytes: &start[..used] })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all values and their lengths.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (value, after) = after.split_at_checked(length.unwrap_or(0))?;
            rest = after;
            Some(length.map(|_| value))
        })
    }
}

/// Decodes the body of a message whose frame `scan` has measured.
pub fn decode(kind: u8, body: &[u8]) -> Result<Frontend<'_>, Rejection> {
    let mut body = Body::new(body, name_of(kind));
    let message = match kind {
        b'B' => Frontend::Bind(Bind {
            portal: body.text()?,
            statement: body.text()?,
            parameter_formats: Formats::decode(&mut body)?,
            values: Values::decode(&mut body)?,
            result_formats: Formats::decode(&mut body)?,
        }),
        b'C' => Frontend::Close(target(&mut body)?),
        b'D' => Frontend::Describe(target(&mut body)?),
        b'E' => Frontend::Execute { portal: body.text()?, max_rows: body.i32()? },
        b'F' => {
            body.remainder();
            Frontend::FunctionCall
        }
        b'H' => Frontend::Flush,
        b'P' => Frontend::Parse(Parse {
            name: body.text()?,
            sql: body.text()?,
            types: {
                let count = body.count()?;
                TypeOids(body.bytes(count * 4)?)
            },
        }),
        b'Q' => Frontend::Query(body.text()?),
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'c' => Frontend::CopyDone,
        b'd' => Frontend::CopyData(body.remainder()),
        b'f' => Frontend::CopyFail(body.text()?),
        b'p' => Frontend::Password(body.remainder()),
        _ => return Err(violation(format!("invalid frontend message type {kind}"))),
    };
    body.finish()?;
    Ok(message)
}

/// What SASLInitialResponse carries in a `p` message.
///
/// ```text
/// | mechanism NUL | length i32, -1 without data | data |
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SaslInitial<'a> {
    pub mechanism: &'a str,
    pub data: &'a [u8],
}

pub fn sasl_initial_response(body: &[u8]) -> Result<SaslInitial<'_>, Rejection> {
    let mut body = Body::new(body, "SASLInitialResponse message");
    let mechanism = body.text()?;
    let data = match body.i32()? {
        -1 => &[],
        length => match usize::try_from(length) {
            Ok(length) => body.bytes(length)?,
            Err(_) => return Err(violation(format!("invalid SASLInitialResponse message: length {length}"))),
        },
    };
    body.finish()?;
    Ok(SaslInitial { mechanism, data })
}

fn target<'a>(body: &mut Body<'a>) -> Result<Target<'a>, Rejection> {
    match body.u8()? {
        b'P' => body.text().map(Target::Portal),
        b'S' => body.text().map(Target::Statement),
        other => Err(violation(format!("invalid Describe or Close subtype {other}: it must be 'S' or 'P'"))),
    }
}

fn name_of(kind: u8) -> &'static str {
    match kind {
        b'B' => "Bind message",
        b'C' => "Close message",
        b'D' => "Describe message",
        b'E' => "Execute message",
        b'P' => "Parse message",
        b'Q' => "Query message",
        b'f' => "CopyFail message",
        _ => "message",
    }
}
