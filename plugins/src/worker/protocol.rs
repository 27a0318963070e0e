//! What the server and a worker say to each other over their socket.
//!
//! ```text
//! frame  head_bytes u32 LE | tail_bytes u32 LE | head | tail
//! head   one message, postcard
//! tail   the message's one big byte string: machine code, a batch's payload, a body; raw, so that it is not copied
//! ```
//! `client` speaks [`Down`], `child` speaks [`Up`]. Messages of a call carry its id; questions of a call are numbered.
//! A reader allocates no more than has arrived. A frame that does not parse ends the conversation: from a worker it
//! means that the worker is no longer ours.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use sepal_database::TenantId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::{Zeroize, Zeroizing};

use super::sandbox::{Report, SandboxLimits};
use crate::{
    call::{
        Call, CallError, ComponentHash, HttpError, HttpRequest, HttpResponse, Level, Operation, Outcome,
        Reply, ResolverAnswer, SecretError,
    },
    manifest::World,
};

/// Configurations, state, lists of rows, resolved secrets.
const MAX_HEAD_BYTES: u32 = 16 << 20;
/// Machine code of a Python guest is 40 MiB.
const MAX_DOWN_TAIL_BYTES: u32 = 512 << 20;
/// Bodies of requests.
const MAX_UP_TAIL_BYTES: u32 = 64 << 20;
/// Read at first; more as it arrives.
const FIRST_BYTES: usize = 1 << 20;

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Down {
    /// The first one.
    Start {
        tenant: TenantId,
        limits: SandboxLimits,
    },
    Load {
        hash: ComponentHash,
        world: World,
        #[serde(skip)]
        machine_code: Vec<u8>,
    },
    Run {
        id: u64,
        hash: ComponentHash,
        call: Box<Call>,
    },
    Answer {
        id: u64,
        question: u64,
        answer: Answer,
    },
    Cancel {
        id: u64,
    },
    Ping,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Up {
    /// The first one: everything is set up.
    Hello(Report),
    Done {
        id: u64,
        result: Result<Reply, CallError>,
    },
    Ask {
        id: u64,
        question: u64,
        asked: Question,
    },
    Log {
        id: u64,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    },
    Counter {
        id: u64,
        name: String,
        value: u32,
    },
    Gauge {
        id: u64,
        name: String,
        value: f64,
    },
    Pong,
}

/// The calls of [`crate::call::Outside`] that have an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Http(HttpRequest),
    Secret(String),
    Hmac {
        slot: String,
        prefix: Vec<u8>,
        #[serde(with = "crate::call::serde_bytes_vec")]
        data: Vec<u8>,
    },
    Reveal(String),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Http(Result<HttpResponse, HttpError>),
    Secret(Result<String, SecretError>),
    /// Of `Hmac` and `Reveal`.
    Bytes(Result<Vec<u8>, SecretError>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http(_) => "Http",
            Self::Secret(_) => "Secret",
            Self::Bytes(_) => "Bytes",
        })
    }
}

/// Why the conversation is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a frame has a part of {bytes} bytes, more than the {limit} that are allowed")]
    TooLarge { bytes: usize, limit: u32 },
    #[error("a frame cannot be read: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("a frame is out of place: {0}")]
    OutOfPlace(&'static str),
}

/// What can be a frame.
pub(super) trait Message: Serialize + DeserializeOwned {
    const MAX_TAIL_BYTES: u32;

    /// Where the big byte string stands; `None` if this message has none.
    fn tail(&mut self) -> Option<&mut Vec<u8>>;

    /// Overwrites what is secret.
    fn wipe(&mut self);
}

impl Message for Down {
    const MAX_TAIL_BYTES: u32 = MAX_DOWN_TAIL_BYTES;

    fn tail(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Load { machine_code, .. } => Some(machine_code),
            Self::Run { call, .. } => match &mut call.operation {
                Operation::Write(_, batch) => Some(&mut batch.payload),
                _ => None,
            },
            Self::Answer { answer: Answer::Http(Ok(response)), .. } => Some(&mut response.body),
            _ => None,
        }
    }

    fn wipe(&mut self) {
        if let Self::Answer { answer: Answer::Bytes(Ok(bytes)), .. } = self {
            bytes.zeroize();
        }
    }
}

impl Message for Up {
    const MAX_TAIL_BYTES: u32 = MAX_UP_TAIL_BYTES;

    fn tail(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Ask { asked: Question::Http(request), .. } => request.body.as_mut(),
            _ => None,
        }
    }

    fn wipe(&mut self) {
        if let Self::Done { result: Ok(Reply { outcome: Outcome::Resolved(answers), .. }), .. } = self {
            for answer in answers {
                if let ResolverAnswer::Value { value, .. } = answer {
                    value.zeroize();
                }
            }
        }
    }
}

/// A message ready to be written. Heads are wiped: some hold secrets.
pub(super) struct Frame {
    head: Zeroizing<Vec<u8>>,
    tail: Tail,
}

enum Tail {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Frame {
    pub fn encode<M: Message>(mut message: M) -> Result<Self, ProtocolError> {
        let tail = message.tail().map(std::mem::take).unwrap_or_default();
        let head = encode_head(&message);
        message.wipe();
        Self { head: head?, tail: Tail::Own(tail) }.within::<M>()
    }

    /// [`Down::Load`] without a copy of the machine code.
    pub fn load(hash: ComponentHash, world: World, machine_code: Arc<[u8]>) -> Result<Self, ProtocolError> {
        let head = encode_head(&Down::Load { hash, world, machine_code: Vec::new() })?;
        Self { head, tail: Tail::Shared(machine_code) }.within::<Down>()
    }

    fn within<M: Message>(self) -> Result<Self, ProtocolError> {
        within(self.head.len(), MAX_HEAD_BYTES)?;
        within(self.tail().len(), M::MAX_TAIL_BYTES)?;
        Ok(self)
    }

    fn tail(&self) -> &[u8] {
        match &self.tail {
            Tail::Own(bytes) => bytes,
            Tail::Shared(bytes) => bytes,
        }
    }

    pub async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), ProtocolError> {
        let head_bytes = within(self.head.len(), u32::MAX)?.to_le_bytes();
        let tail_bytes = within(self.tail().len(), u32::MAX)?.to_le_bytes();
        let mut parts = [head_bytes.as_slice(), tail_bytes.as_slice(), self.head.as_slice(), self.tail()]
            .map(IoSlice::new);
        let mut rest = &mut parts[..];
        while !rest.is_empty() {
            let written = writer.write_vectored(rest).await?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }
}

/// Into a buffer of the right size: one that grows leaves copies behind.
fn encode_head(message: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, ProtocolError> {
    let bytes = postcard::experimental::serialized_size(message)?;
    let buffer = Vec::with_capacity(within(bytes, MAX_HEAD_BYTES).map(|_| bytes)?);
    Ok(Zeroizing::new(postcard::to_extend(message, buffer)?))
}

/// The next message; `None` when the other side has closed.
pub(super) async fn read<M: Message>(
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<Option<M>, ProtocolError> {
    let mut lengths = [0; 8];
    let first = reader.read(&mut lengths).await?;
    if first == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut lengths[first..]).await?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let head = read_part(reader, u32::from_le_bytes([a, b, c, d]), MAX_HEAD_BYTES).await?;
    let tail = read_part(reader, u32::from_le_bytes([e, f, g, h]), M::MAX_TAIL_BYTES).await?;
    let head = Zeroizing::new(head);
    decode(&head, tail).map(Some)
}

/// The inverse of [`Frame::encode`].
pub(super) fn decode<M: Message>(head: &[u8], tail: Vec<u8>) -> Result<M, ProtocolError> {
    let (mut message, rest) = postcard::take_from_bytes::<M>(head)?;
    if !rest.is_empty() {
        return Err(ProtocolError::OutOfPlace("bytes after the message"));
    }
    match message.tail() {
        Some(place) => *place = tail,
        None if tail.is_empty() => {}
        None => return Err(ProtocolError::OutOfPlace("a tail for a message that has none")),
    }
    Ok(message)
}

async fn read_part(
    reader: &mut (impl AsyncRead + Unpin),
    bytes: u32,
    limit: u32,
) -> Result<Vec<u8>, ProtocolError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    within(bytes, limit)?;
    let mut part = Vec::new();
    while part.len() < bytes {
        let filled = part.len();
        part.resize(bytes.min((filled * 2).max(FIRST_BYTES)), 0);
        reader.read_exact(&mut part[filled..]).await?;
    }
    Ok(part)
}

fn within(bytes: usize, limit: u32) -> Result<u32, ProtocolError> {
    u32::try_from(bytes).ok().filter(|bytes| *bytes <= limit).ok_or(ProtocolError::TooLarge { bytes, limit })
}

#[cfg(test)]
impl Frame {
    /// As `decode` takes them.
    pub fn parts(&self) -> (&[u8], Vec<u8>) {
        (&self.head, self.tail().to_vec())
    }
}
