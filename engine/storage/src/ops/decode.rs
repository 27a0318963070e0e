//! Payload bytes to ops. The columns of an Arrow stream borrow the payload's memory.
//!
//! Called by recovery and by the feed, with bytes that authenticated, so an error here means a format this version
//! does not know (or a bug), never an attacker. Still nothing is indexed unchecked.

use arrow::{buffer::Buffer, ipc::reader::StreamDecoder, record_batch::RecordBatch};
use sepal_types::{ColumnId, RowId, TableId};

use super::{
    ALIGNMENT, COMPACT, HAS_BEFORE, HAS_CONSTRAINTS, Kind, OP_HEADER_BYTES, Op, PLAIN, SEQUENCE_BYTES,
    SequenceMark, TIMED, WITH_BEFORE, clone, rows,
};

/// What a recovery needs of a payload.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    /// When it was committed; payloads before version 3 do not say.
    pub time_us: Option<i64>,
    pub sequences: Vec<SequenceMark>,
    pub ops: Vec<Op>,
}

/// What somebody reading along wanted of a payload.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    pub time_us: Option<i64>,
    pub records: Vec<Record>,
}

/// What a payload has besides its sequence marks.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are operations, and one is at hand at a time")]
pub(crate) enum Record {
    Op(Op),
    /// The rows that the next op deletes from the table.
    Before {
        table: TableId,
        rows: RecordBatch,
    },
}

/// The time, sequence marks and ops of one commit, or why the bytes are not a payload that this program knows.
pub(crate) fn decode(payload: &Buffer) -> Result<Decoded, String> {
    let (head, raw) = split(payload)?;
    let mut ops = Vec::with_capacity(raw.len());
    for raw in raw.into_iter().filter(|raw| raw.kind != Kind::Before) {
        if let Record::Op(op) = raw.decode()? {
            ops.push(op);
        }
    }
    Ok(Decoded { time_us: head.time_us, sequences: head.sequences, ops })
}

/// The records of tables that `wanted` says yes to. The bodies of others are not looked at.
pub(crate) fn decode_wanted(payload: &Buffer, wanted: &dyn Fn(TableId) -> bool) -> Result<Wanted, String> {
    let (head, raw) = split(payload)?;
    let records =
        raw.into_iter().filter(|raw| wanted(raw.table)).map(Raw::decode).collect::<Result<_, _>>()?;
    Ok(Wanted { time_us: head.time_us, records })
}

/// A head, of whatever version.
struct Head {
    version: u8,
    has_before: bool,
    time_us: Option<i64>,
    ops: u32,
    sequences: Vec<SequenceMark>,
}

/// An op whose body was not looked at yet.
struct Raw {
    kind: Kind,
    table: TableId,
    number: u64,
    body: Buffer,
}

fn split(payload: &Buffer) -> Result<(Head, Vec<Raw>), String> {
    let mut reader = Reader { payload, position: 0 };
    let head = head(&mut reader)?;
    let raw = (0..head.ops).map(|_| raw(&mut reader, &head)).collect::<Result<_, _>>()?;
    if reader.position != payload.len() {
        return Err(format!("{} bytes after the last op", payload.len() - reader.position));
    }
    Ok((head, raw))
}

fn head(reader: &mut Reader<'_>) -> Result<Head, String> {
    let version = reader.u8()?;
    if !(PLAIN..=COMPACT).contains(&version) {
        return Err(format!("payload version {version}, this program reads {PLAIN} to {COMPACT}"));
    }
    let timed = version >= TIMED;
    let flags = reader.u8()?;
    let known = HAS_BEFORE | HAS_CONSTRAINTS;
    if timed && flags & !known != 0 {
        return Err(format!("payload flags {flags:#x}, this program knows {known:#x}"));
    }
    reader.skip(2)?;
    let ops = reader.u32()?;
    let marks = reader.u32()?;
    reader.skip(4)?;
    let time_us = if timed { Some(reader.u64()?.cast_signed()) } else { None };
    let sequences = (0..marks).map(|_| sequence(reader)).collect::<Result<_, _>>()?;
    reader.align()?;
    let has_before = version == WITH_BEFORE || (timed && flags & HAS_BEFORE != 0);
    Ok(Head { version, has_before, time_us, ops, sequences })
}

fn sequence(reader: &mut Reader<'_>) -> Result<SequenceMark, String> {
    const { assert!(SEQUENCE_BYTES == 16) };
    let table = TableId(reader.u32()?);
    let column = ColumnId(reader.u32()?);
    Ok(SequenceMark { table, column, next: reader.u64()?.cast_signed() })
}

fn raw(reader: &mut Reader<'_>, head: &Head) -> Result<Raw, String> {
    reader.skip(ALIGNMENT - OP_HEADER_BYTES)?;
    let kind = reader.u8()?;
    reader.skip(3)?;
    let table = TableId(reader.u32()?);
    let number = reader.u64()?;
    let length = usize::try_from(reader.u64()?).map_err(|_| "an op longer than memory".to_owned())?;
    let body = reader.take(length)?;
    reader.align()?;
    let known = parse_kind(kind).filter(|kind| match kind {
        Kind::Before => head.has_before,
        Kind::Clone => head.version >= TIMED,
        Kind::SmallInsert => head.version >= COMPACT,
        _ => true,
    });
    let kind =
        known.ok_or_else(|| format!("unknown op kind {kind} in a payload of version {}", head.version))?;
    Ok(Raw { kind, table, number, body })
}

impl Raw {
    fn decode(self) -> Result<Record, String> {
        let Self { kind, table, number, body } = self;
        let json = |error: serde_json::Error| format!("table definition: {error}");
        Ok(Record::Op(match kind {
            Kind::CreateTable => Op::CreateTable(serde_json::from_slice(&body).map_err(json)?),
            Kind::AlterTable => Op::AlterTable(serde_json::from_slice(&body).map_err(json)?),
            Kind::DropTable => Op::DropTable(table),
            Kind::Truncate => Op::Truncate(table),
            Kind::Insert => Op::Insert { table, first_row: RowId(number), rows: batch(body)? },
            Kind::SmallInsert => Op::Insert { table, first_row: RowId(number), rows: rows::decode(&body)? },
            Kind::Delete => {
                let rows = body.as_chunks::<8>().0.iter().map(|id| RowId(u64::from_be_bytes(*id))).collect();
                Op::Delete { table, rows }
            }
            Kind::SetSequence => {
                let next: [u8; 8] =
                    body.as_slice().try_into().map_err(|_| "a sequence value of other than 8 bytes")?;
                let column = u32::try_from(number).map_err(|_| format!("column id {number}"))?;
                Op::SetSequence { table, column: ColumnId(column), next: i64::from_be_bytes(next) }
            }
            Kind::Before => {
                let rows = batch(body)?;
                if rows.num_rows() as u64 != number {
                    return Err(format!("a before-image of {number} rows has {}", rows.num_rows()));
                }
                return Ok(Record::Before { table, rows });
            }
            Kind::Clone => {
                let body: clone::Body = serde_json::from_slice(&body).map_err(json)?;
                let (def, source) = body.into_parts();
                Op::Clone { def, source }
            }
        }))
    }
}

fn parse_kind(kind: u8) -> Option<Kind> {
    use Kind::{
        AlterTable, Before, Clone, CreateTable, Delete, DropTable, Insert, SetSequence, SmallInsert, Truncate,
    };
    [CreateTable, AlterTable, DropTable, Truncate, Insert, Delete, SetSequence, Before, Clone, SmallInsert]
        .into_iter()
        .find(|k| *k as u8 == kind)
}

fn batch(mut body: Buffer) -> Result<RecordBatch, String> {
    let mut decoder = StreamDecoder::new();
    let mut found = None;
    while !body.is_empty() {
        if let Some(batch) = decoder.decode(&mut body).map_err(|error| error.to_string())? {
            found = Some(batch);
        }
    }
    decoder.finish().map_err(|error| error.to_string())?;
    found.ok_or_else(|| "an Arrow stream without a batch".to_owned())
}

struct Reader<'a> {
    payload: &'a Buffer,
    position: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<Buffer, String> {
        let start = self.position;
        self.skip(length)?;
        Ok(self.payload.slice_with_length(start, length))
    }

    fn skip(&mut self, length: usize) -> Result<(), String> {
        let end = self.position.checked_add(length).filter(|end| *end <= self.payload.len());
        self.position = end.ok_or_else(|| {
            format!("{length} bytes expected at {}, the payload has {}", self.position, self.payload.len())
        })?;
        Ok(())
    }

    fn align(&mut self) -> Result<(), String> {
        self.skip(self.position.next_multiple_of(ALIGNMENT) - self.position)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.as_slice().try_into().map_err(|_| "a field of the wrong length".to_owned())
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}
