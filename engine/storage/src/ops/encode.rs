//! Ops to payload bytes. A large insert's Arrow buffers become parts as they are, a small one's rows are copied.
//!
//! Called by `group`, once per commit, outside the writer's lock. Never touches a file.

use arrow::{
    buffer::Buffer,
    datatypes::{Field, Schema},
    ipc::writer::StreamEncoder,
    record_batch::RecordBatch,
};
use serde::Serialize;

use super::{
    ALIGNMENT, BeforeImage, COMPACT, HAS_BEFORE, HAS_CONSTRAINTS, Kind, OP_HEADER_BYTES, Op, SEQUENCE_BYTES,
    SequenceMark, clone, rows,
};
use crate::StoreError;

/// Room for most rows that an application inserts, header included: more is made where it is needed.
const SMALL_INSERT_BYTES: usize = 1 << 10;

/// A payload without its head.
pub(crate) struct EncodedOps {
    flags: u8,
    /// With the before-images.
    count: u32,
    /// Written one after the other.
    pub parts: Vec<Buffer>,
}

/// The payload's head. It is made last, by the group's leader: only then are a sequence's order and the commit's time
/// certain. Cannot fail, because a leader must not stop between two commits of a group; [`encode_ops`] has counted the
/// ops.
pub(crate) fn encode_head(ops: &EncodedOps, sequences: &[SequenceMark], time_us: i64) -> Buffer {
    let marks = u32::try_from(sequences.len()).unwrap_or(u32::MAX);
    let mut head = Vec::with_capacity(24 + sequences.len() * SEQUENCE_BYTES + ALIGNMENT);
    head.extend_from_slice(&[COMPACT, ops.flags, 0, 0]);
    head.extend_from_slice(&ops.count.to_be_bytes());
    head.extend_from_slice(&marks.to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&time_us.to_be_bytes());
    for mark in sequences {
        head.extend_from_slice(&mark.table.0.to_be_bytes());
        head.extend_from_slice(&mark.column.0.to_be_bytes());
        head.extend_from_slice(&mark.next.to_be_bytes());
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    Buffer::from_vec(head)
}

/// The payload's ops, each before-image directly before the delete that it belongs to. `before` is in the order of
/// the ops.
pub(crate) fn encode_ops(ops: &[Op], before: &[BeforeImage]) -> Result<EncodedOps, StoreError> {
    encode_with(ops, before, rows::MAX_BYTES)
}

/// The same with inserts of up to `small_bytes` as small ones. With 0 there are none, as in older logs.
pub(super) fn encode_with(
    ops: &[Op],
    before: &[BeforeImage],
    small_bytes: usize,
) -> Result<EncodedOps, StoreError> {
    let count = ops.len() + before.len();
    let count = u32::try_from(count)
        .map_err(|_| StoreError::Bug(format!("{count} ops in one commit: at most 4,294,967,295 fit")))?;
    let mut parts = Vec::new();
    let mut images = before.iter().peekable();
    for (at, op) in ops.iter().enumerate() {
        if let Some(image) = images.next_if(|image| image.op == at) {
            record(Kind::Before, op, image.rows.num_rows() as u64, stream(&image.rows)?, &mut parts);
        }
        if let Some(insert) = small_insert(op, small_bytes) {
            parts.push(insert);
            continue;
        }
        let (kind, number, body) = body(op)?;
        record(kind, op, number, body, &mut parts);
    }
    let mut flags = if before.is_empty() { 0 } else { HAS_BEFORE };
    if ops.iter().any(is_constrained) {
        flags |= HAS_CONSTRAINTS;
    }
    Ok(EncodedOps { flags, count, parts })
}

fn is_constrained(op: &Op) -> bool {
    match op {
        Op::CreateTable(def) | Op::AlterTable(def) | Op::Clone { def, .. } => !def.constraints.is_empty(),
        _ => false,
    }
}

fn body(op: &Op) -> Result<(Kind, u64, Vec<Buffer>), StoreError> {
    Ok(match op {
        Op::CreateTable(def) => (Kind::CreateTable, 0, json(def)?),
        Op::AlterTable(def) => (Kind::AlterTable, 0, json(def)?),
        Op::DropTable(_) => (Kind::DropTable, 0, Vec::new()),
        Op::Truncate(_) => (Kind::Truncate, 0, Vec::new()),
        Op::Insert { first_row, rows, .. } => (Kind::Insert, first_row.0, stream(rows)?),
        Op::Delete { rows, .. } => {
            let ids: Vec<u8> = rows.iter().flat_map(|row| row.0.to_be_bytes()).collect();
            (Kind::Delete, 0, vec![Buffer::from_vec(ids)])
        }
        Op::SetSequence { column, next, .. } => {
            (Kind::SetSequence, u64::from(column.0), vec![Buffer::from_vec(next.to_be_bytes().to_vec())])
        }
        Op::Clone { def, source } => (Kind::Clone, 0, json(&clone::Body::of(def, source))?),
    })
}

/// An insert of few bytes, whole: header, rows and what fills them up. `None` for any other op.
fn small_insert(op: &Op, limit: usize) -> Option<Buffer> {
    let Op::Insert { first_row, rows, .. } = op else { return None };
    let mut bytes = Vec::with_capacity(SMALL_INSERT_BYTES);
    header(Kind::SmallInsert, op, first_row.0, &mut bytes);
    rows::encode(rows, ALIGNMENT + limit, &mut bytes)?;
    let length = (bytes.len() - ALIGNMENT) as u64;
    bytes[ALIGNMENT - 8..ALIGNMENT].copy_from_slice(&length.to_be_bytes());
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Some(Buffer::from_vec(bytes))
}

fn record(kind: Kind, op: &Op, number: u64, body: Vec<Buffer>, parts: &mut Vec<Buffer>) {
    let length: usize = body.iter().map(Buffer::len).sum();
    let mut bytes = Vec::with_capacity(ALIGNMENT);
    header(kind, op, number, &mut bytes);
    bytes[ALIGNMENT - 8..].copy_from_slice(&(length as u64).to_be_bytes());
    parts.push(Buffer::from_vec(bytes));
    parts.extend(body);
    let padding = length.next_multiple_of(ALIGNMENT) - length;
    if padding > 0 {
        parts.push(Buffer::from_vec(vec![0u8; padding]));
    }
}

/// An op's header; the last 8 bytes are for the length of its body.
fn header(kind: Kind, op: &Op, number: u64, bytes: &mut Vec<u8>) {
    bytes.resize(ALIGNMENT - OP_HEADER_BYTES, 0);
    bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
    bytes.extend_from_slice(&op.table().0.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
}

fn json(value: &impl Serialize) -> Result<Vec<Buffer>, StoreError> {
    let text = serde_json::to_vec(value)
        .map_err(|error| StoreError::Bug(format!("a table definition does not serialise: {error}")))?;
    Ok(vec![Buffer::from_vec(text)])
}

/// Names and types only: the fields' metadata repeats the definition, and nullability is the definition's too.
fn stream(rows: &RecordBatch) -> Result<Vec<Buffer>, StoreError> {
    let fields: Vec<Field> = rows
        .schema_ref()
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), true))
        .collect();
    let schema = Schema::new(fields);
    let mut encoder = StreamEncoder::try_new(&schema)?;
    let mut parts = encoder.encode(rows)?;
    parts.extend(encoder.finish()?);
    Ok(parts)
}
